"""`contextChanged` and `contextsChanged`: what is told of contexts, once each, and what is not."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

import db.context
import db.watch
from db.watch import WATCHED_MAX
from graphql_api.settings import Settings
from tests.client import ApiError
from tests.db.feeding import TENANT, Log
from tests.db.lane import until
from tests.live import Local, Stream, local
from tests.schema import calls
from tests.schema.calls import UNKNOWN, say

CHANGED = """subscription ($id: ID!) {
  contextChanged(contextId: $id) { kind context { id name latestVersion deletedAt } fork { id parent { id } } }
}"""
LISTED = """subscription ($filter: ContextFilter) {
  contextsChanged(filter: $filter) { kind context { id name latestVersion messageCount } fork { id } }
}"""


@pytest.fixture(params=[True, False], ids=["planned", "resolved"])
async def api(settings: Settings, request: pytest.FixtureRequest) -> AsyncIterator[Local]:
    async with local(settings.model_copy(update={"planned_reads": request.param})) as api:
        yield api


def told(event: dict[str, Any]) -> tuple[str, str]:
    return event["kind"], (event["fork"] or event["context"])["id"]


class Listening:
    """Takes the events of a stream as they come."""

    def __init__(self, stream: Stream) -> None:
        self.events: list[dict[str, Any]] = []
        self._task = asyncio.create_task(self._take(stream))

    async def _take(self, stream: Stream) -> None:
        while True:
            try:
                self.events.append(await stream.next())
            except TimeoutError:
                return

    async def has(self, *expected: tuple[str, str]) -> None:
        """Wait for so many, and see that they are these."""
        await until(lambda: len(self.events) >= len(expected) or self._task.done())
        assert [told(event) for event in self.events] == list(expected)

    async def leave(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def quiet(api: Local, context_id: str) -> None:
    """Wait until whoever watches has looked at all that it was told of."""
    named = api.live.watches._named[TENANT, UUID(context_id)]  # noqa: SLF001 - nobody else can tell
    await until(lambda: not any(watch._told.is_set() for watch in named.watches))  # noqa: SLF001


async def test_each_change_of_a_context_is_told_as_what_it_is(api: Local) -> None:
    context_id = (await calls.create(api, say("a"), say("b"), name="first"))["id"]
    changes: list[tuple[str, Callable[[], Awaitable[Any]]]] = [
        ("UPDATED", lambda: calls.update(api, context_id, name="second")),
        ("UPDATED", lambda: calls.update(api, context_id, metadata={"a": 1})),
        ("UPDATED", lambda: calls.delete_message(api, context_id, 1)),
        ("UPDATED", lambda: calls.restore_message(api, context_id, 1)),
        ("DELETED", lambda: calls.delete(api, context_id)),
        ("RESTORED", lambda: calls.restore(api, context_id)),
    ]
    async with api.subscribe(CHANGED, id=context_id) as stream:
        for kind, change in changes:
            await change()
            event = await stream.next()
            assert told(event) == (kind, context_id)
            assert (event["context"]["deletedAt"] is not None) is (kind == "DELETED")
        await calls.append(api, context_id, say("c"))  # is not told
        fork = (await calls.fork(api, context_id))["id"]
        assert await stream.next() == {
            "kind": "FORKED",
            "context": {"id": context_id, "name": "second", "latestVersion": 3, "deletedAt": None},
            "fork": {"id": fork, "parent": {"id": context_id}},
        }
        forked = await calls.append(api, context_id, say("d"), expectedVersion=1, onConflict="FORK")
        assert told(await stream.next()) == ("FORKED", forked["context"]["id"])


async def test_what_a_fork_inherits_changes_it_too(api: Local) -> None:
    root = (await calls.create(api, say("a"), say("b")))["id"]
    fork = (await calls.fork(api, root, 1))["id"]
    leaf = (await calls.fork(api, fork))["id"]
    async with api.subscribe(CHANGED, id=leaf) as stream:
        await calls.delete_message(api, root, 1)
        assert told(await stream.next()) == ("UPDATED", leaf)
        await calls.restore_message(api, fork, 1)
        assert told(await stream.next()) == ("UPDATED", leaf)
        await calls.delete_message(api, root, 2)  # is not inherited
        await calls.update(api, leaf, name="leaf")
        assert (await stream.next())["context"]["name"] == "leaf"


async def test_many_forks_at_once_are_told_once_each(api: Local) -> None:
    context_id = (await calls.create(api, say("a")))["id"]
    before = (await calls.fork(api, context_id))["id"]
    async with api.subscribe(CHANGED, id=context_id) as stream:
        made = await asyncio.gather(*(calls.fork(api, context_id) for _ in range(60)))
        events = await stream.some(60)
        assert {told(event) for event in events} == {("FORKED", fork["id"]) for fork in made}
        assert before not in {fork["id"] for fork in made}
        await calls.update(api, context_id, name="after")
        assert (await stream.next())["kind"] == "UPDATED"


async def test_a_fork_that_is_deleted_and_restored_is_not_told_again(api: Local) -> None:
    context_id = (await calls.create(api, say("a")))["id"]
    async with api.subscribe(CHANGED, id=context_id) as stream:
        fork = (await calls.fork(api, context_id))["id"]
        assert told(await stream.next()) == ("FORKED", fork)
        await calls.delete(api, fork)
        await calls.update(api, context_id, name="one")
        assert told(await stream.next()) == ("UPDATED", context_id)
        await calls.restore(api, fork)
        await calls.update(api, context_id, name="two")
        assert told(await stream.next()) == ("UPDATED", context_id)
        await calls.update(api, context_id, name="three")
        assert told(await stream.next()) == ("UPDATED", context_id)


@pytest.mark.parametrize("rings", [True, False], ids=["rung", "lost"])
async def test_a_fork_that_is_committed_after_a_later_one_is_told(api: Local, rings: bool) -> None:
    context_id = (await calls.create(api, say("a")))["id"]
    async with api.subscribe(CHANGED, id=context_id) as stream:
        listening = Listening(stream)
        late_id = uuid4()
        async with api.service.database.transaction(TENANT) as session:
            (parent,) = await db.context.by_ids(session, TENANT, [UUID(context_id)])
            await db.context.fork(session, TENANT, late_id, parent, 1, None, "{}")
            quick = (await calls.fork(api, context_id))["id"]
            await listening.has(("FORKED", quick))
            await api.live.watches.check()
            await quiet(api, context_id)
        if rings:
            api.live.ring(TENANT, UUID(context_id))
        else:
            await api.live.watches.check()
        await listening.has(("FORKED", quick), ("FORKED", str(late_id)))
        await listening.leave()


async def test_lost_bells_of_a_context_are_found_by_looking(api: Local) -> None:
    log = Log(api.service.database)
    context_id = await log.create("a", "b")
    async with api.subscribe(CHANGED, id=str(context_id)) as stream:
        listening = Listening(stream)
        await log.delete_message(context_id, 1)
        await api.live.watches.check()
        await listening.has(("UPDATED", str(context_id)))
        fork_id = await log.fork(context_id, 1)
        await api.live.watches.check()
        await listening.has(("UPDATED", str(context_id)), ("FORKED", str(fork_id)))
        await log.delete(context_id)
        await api.live.watches.check()
        await until(lambda: len(listening.events) == 3)
        assert told(listening.events[-1]) == ("DELETED", str(context_id))
        await listening.leave()


async def test_an_unknown_and_a_deleted_context_are_not_found(api: Local) -> None:
    deleted = (await calls.create(api))["id"]
    await calls.delete(api, deleted)
    for context_id, code in {UNKNOWN: "NOT_FOUND", deleted: "NOT_FOUND", "x": "BAD_USER_INPUT"}.items():
        with pytest.raises(ApiError) as refused:
            async with api.subscribe(CHANGED, id=context_id):
                pass
        assert refused.value.code == code


# Lists


async def begun(api: Local) -> None:
    """Wait until every list watch has begun."""
    await until(lambda: all(w.began for w in api.live.watches._lists[TENANT].watches))  # noqa: SLF001


async def test_what_is_made_changed_and_deleted_is_told(api: Local) -> None:
    old = (await calls.create(api, say("a"), name="old"))["id"]
    async with api.subscribe(LISTED) as stream:
        taking = asyncio.create_task(stream.next())
        await until(lambda: TENANT in api.live.watches._lists)  # noqa: SLF001
        await begun(api)
        made = (await calls.create(api, say("a")))["id"]
        assert told(await taking) == ("CREATED", made)
        steps: list[tuple[str, str, Callable[[], Awaitable[Any]]]] = [
            ("UPDATED", made, lambda: calls.append(api, made, say("b"))),
            ("UPDATED", old, lambda: calls.update(api, old, name="new")),
            ("UPDATED", old, lambda: calls.delete_message(api, old, 1)),
            ("DELETED", old, lambda: calls.delete(api, old)),
            ("UPDATED", old, lambda: calls.restore(api, old)),
        ]
        for kind, context_id, step in steps:
            await step()
            assert told(await stream.next()) == (kind, context_id)
        fork = await calls.fork(api, made)
        assert told(await stream.next()) == ("CREATED", fork["id"])
        copy = await calls.mutate(api, "copyContext", "context { id }", contextId=made)
        assert told(await stream.next()) == ("CREATED", copy["context"]["id"])


FILTERS: dict[str, Any] = {
    "name": {"nameContains": "YES"},
    "metadata": {"metadataContains": {"yes": True}},
    "roots": {"rootsOnly": True},
    "parent": {"parentId": "PARENT"},
    "deleted": {"nameContains": "yes", "includeDeleted": False},
}


@pytest.mark.parametrize("name", FILTERS)
async def test_a_filter_chooses_what_is_told(api: Local, name: str) -> None:
    parent, other = (await calls.create(api))["id"], (await calls.create(api))["id"]
    chosen = {key: parent if value == "PARENT" else value for key, value in FILTERS[name].items()}
    async with api.subscribe(LISTED, filter=chosen) as stream:
        listening = Listening(stream)
        await until(lambda: TENANT in api.live.watches._lists)  # noqa: SLF001
        await begun(api)
        if name in {"roots", "parent"}:
            await calls.fork(api, other)
        else:
            await calls.create(api, name="no", metadata={"yes": False})
        if name == "parent":
            made = await calls.fork(api, parent)
        else:
            made = await calls.create(api, name="oh yes", metadata={"yes": True})
        await listening.has(("CREATED", made["id"]))
        await calls.delete(api, made["id"])
        await listening.has(("CREATED", made["id"]), ("DELETED", made["id"]))
        await listening.leave()


async def test_a_change_that_began_before_another_and_waited_for_it_is_told(api: Local) -> None:
    """Both are of one moment for PostgreSQL, which knows only when a transaction began."""
    context_id = (await calls.create(api, say("a")))["id"]
    async with api.subscribe(LISTED) as stream:
        listening = Listening(stream)
        await until(lambda: TENANT in api.live.watches._lists)  # noqa: SLF001
        await begun(api)
        async with api.service.database.transaction(TENANT) as session:
            await db.watch.moment(session)
            await calls.append(api, context_id, say("b"))
            await listening.has(("UPDATED", context_id))
            await db.context.update(session, TENANT, UUID(context_id), "late", None)
        api.live.ring(TENANT, UUID(context_id))
        await listening.has(("UPDATED", context_id), ("UPDATED", context_id))
        assert listening.events[-1]["context"]["name"] == "late"
        await listening.leave()


async def test_a_change_that_began_before_the_subscription_is_found_though_its_bell_is_lost(api: Local) -> None:
    context_id = (await calls.create(api, say("a")))["id"]
    async with AsyncExitStack() as under_way, AsyncExitStack() as subscribed:
        session = await under_way.enter_async_context(api.service.database.transaction(TENANT))
        await db.context.update(session, TENANT, UUID(context_id), "late", None)
        stream = await subscribed.enter_async_context(api.subscribe(LISTED))
        listening = Listening(stream)
        await until(lambda: TENANT in api.live.watches._lists)  # noqa: SLF001
        await begun(api)
        await under_way.aclose()
        await api.live.watches.check()
        await listening.has(("UPDATED", context_id))
        await listening.leave()


async def test_looking_tells_of_each_lost_change_once(api: Local) -> None:
    log = Log(api.service.database)
    context_id = await log.create("a")
    async with api.subscribe(LISTED) as stream, api.subscribe(LISTED, filter={"nameContains": "never"}) as picky:
        listening, nothing = Listening(stream), Listening(picky)
        await until(lambda: len(api.live.watches._lists.get(TENANT, db.watch._List()).watches) == 2)  # noqa: SLF001
        await begun(api)
        await log.append(context_id, "b")
        made = await log.create("c")
        await api.live.watches.check()
        await until(lambda: len(listening.events) == 2)
        assert {told(event) for event in listening.events} == {("UPDATED", str(context_id)), ("CREATED", str(made))}
        listed = api.live.watches._lists[TENANT]  # noqa: SLF001
        await until(lambda: not any(watch._changed for watch in listed.watches))  # noqa: SLF001
        await api.live.watches.check()
        assert not any(watch._changed for watch in listed.watches)  # noqa: SLF001 - also of what was not chosen
        assert nothing.events == []
        await listening.leave()
        await nothing.leave()


async def test_whoever_leaves_while_it_is_looked_disturbs_no_look(api: Local, database_url: str) -> None:
    """The listener looks for one list after the other, and one may be gone when its turn comes."""
    watches = api.live.watches
    with watches.watch_all("first") as first:
        with watches.watch_all("second") as second, psycopg.connect(database_url) as holder:
            async with api.service.database.snapshot(TENANT) as snapshot:
                first.began = second.began = await db.watch.moment(snapshot)
            holder.execute("lock table contexts in access exclusive mode")
            looking = asyncio.create_task(watches.check())
            await asyncio.sleep(0)
        await looking
    assert watches._lists == {}  # noqa: SLF001


async def test_too_much_that_nobody_takes_ends_the_list(api: Local) -> None:
    context_id = (await calls.create(api))["id"]
    async with api.subscribe(LISTED) as stream:
        taking = asyncio.create_task(stream.next())
        await until(lambda: TENANT in api.live.watches._lists)  # noqa: SLF001
        await begun(api)
        await calls.update(api, context_id, name="one")
        assert told(await taking) == ("UPDATED", context_id)
        for _ in range(WATCHED_MAX // 100 + 1):
            api.live.watches.hear(TENANT, [uuid4() for _ in range(100)])
        with pytest.raises(ApiError) as ended:
            await stream.next()
        assert (ended.value.code, str(WATCHED_MAX) in ended.value.message) == ("LIMIT_EXCEEDED", True)
        assert await stream.completed()
