"""Many writers at once, over several processes: versions, counters and forks stay right, and nothing deadlocks."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.client import Api, ApiError
from tests.service import Service, serving

WRITERS = 16
PROCESSES = 2

STATE = "fragment State on Context { id messageCount totalTokens latestVersion forkVersion }"
CREATE = f"""mutation ($messages: [MessageInput!]) {{
  createContext(input: {{messages: $messages}}) {{ context {{ ...State }} }}
}} {STATE}"""
APPEND = f"""mutation ($id: ID!, $messages: [MessageInput!]!) {{
  appendMessages(input: {{contextId: $id, messages: $messages}}) {{
    context {{ ...State }} messages {{ version content createdAt }}
  }}
}} {STATE}"""
FORK = f"""mutation ($id: ID!, $version: Int) {{
  forkContext(input: {{contextId: $id, version: $version}}) {{ context {{ ...State }} }}
}} {STATE}"""
DELETE_MESSAGE = f"""mutation ($id: ID!, $version: Int!) {{
  deleteMessage(input: {{contextId: $id, version: $version}}) {{
    message {{ version deletedAt }} context {{ ...State }}
  }}
}} {STATE}"""
RESTORE_MESSAGE = DELETE_MESSAGE.replace("deleteMessage", "restoreMessage")
UPDATE = """mutation ($id: ID!, $name: String!) {
  updateContext(input: {contextId: $id, name: $name}) { context { id } }
}"""
DELETE = "mutation ($id: ID!) { deleteContext(input: {contextId: $id}) { context { id } } }"
RESTORE = "mutation ($id: ID!) { restoreContext(input: {contextId: $id}) { context { id } } }"
READ = f"""query ($id: ID!, $after: String) {{
  context(id: $id) {{
    ...State
    messages(first: 1000, after: $after) {{
      nodes {{ version content createdAt tokenCount }} totalCount pageInfo {{ hasNextPage endCursor }}
    }}
  }}
}} {STATE}"""

Json = dict[str, Any]


@pytest.fixture
async def services(database_url: str, tmp_path: Path) -> AsyncIterator[list[Service]]:
    async with serving(database_url, tmp_path, PROCESSES) as services:
        yield services


@asynccontextmanager
async def clients(services: list[Service], count: int) -> AsyncIterator[list[Api]]:
    """Give clients with connections of their own, spread over the processes."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(services[n % len(services)].client()) for n in range(count)]


def batch(dice: random.Random, label: str, size_max: int = 8) -> list[Json]:
    return [
        {"role": "USER", "content": f"{label}/{place}", "tokenCount": dice.randint(0, 50)}
        for place in range(dice.randint(1, size_max))
    ]


async def create(api: Api, messages: list[Json]) -> Json:
    context: Json = (await api(CREATE, messages=messages))["createContext"]["context"]
    return context


async def append(api: Api, context_id: str, messages: list[Json]) -> Json:
    payload: Json = (await api(APPEND, id=context_id, messages=messages))["appendMessages"]
    return payload


async def fork(api: Api, context_id: str, version: int | None = None) -> Json:
    context: Json = (await api(FORK, id=context_id, version=version))["forkContext"]["context"]
    return context


async def read(api: Api, context_id: str) -> tuple[Json, list[Json]]:
    """Give a context and all its messages."""
    messages: list[Json] = []
    after = None
    while True:
        context = (await api(READ, id=context_id, after=after))["context"]
        page = context.pop("messages")
        messages += page["nodes"]
        if not page["pageInfo"]["hasNextPage"]:
            return context, messages
        after = page["pageInfo"]["endCursor"]


def counted(messages: list[Json]) -> Json:
    return {"messageCount": len(messages), "totalTokens": sum(message["tokenCount"] for message in messages)}


def counters(context: Json) -> Json:
    return {"messageCount": context["messageCount"], "totalTokens": context["totalTokens"]}


async def deadlocks(database_url: str) -> int:
    """Count the deadlocks of the database; its other backends report theirs within a second of being idle."""
    await asyncio.sleep(1.2)
    with psycopg.connect(database_url) as connection:
        row = connection.execute("select deadlocks from pg_stat_database where datname = current_database()").fetchone()
    assert row is not None
    return int(row[0])


async def test_concurrent_batches_are_gapless_contiguous_and_in_order(
    services: list[Service], database_url: str
) -> None:
    acknowledged: dict[str, list[Json]] = {}

    async def write(api: Api, context_id: str, writer: int) -> None:
        dice = random.Random(writer)
        for number in range(12):
            label = f"{writer}/{number}"
            messages = batch(dice, label)
            payload = await append(api, context_id, messages)
            assert [message["content"] for message in payload["messages"]] == [m["content"] for m in messages]
            assert payload["context"]["latestVersion"] == payload["messages"][-1]["version"]
            acknowledged[label] = payload["messages"]

    async with clients(services, WRITERS) as apis:
        context_id = (await create(apis[0], []))["id"]
        await asyncio.gather(*(write(api, context_id, number) for number, api in enumerate(apis)))
        context, messages = await read(apis[0], context_id)

    assert [message["version"] for message in messages] == list(range(1, len(messages) + 1))
    assert context["latestVersion"] == len(messages)
    assert counters(context) == counted(messages)
    assert all(earlier["createdAt"] <= later["createdAt"] for earlier, later in pairwise(messages))
    stored = {message["version"]: message["content"] for message in messages}
    for label, batch_stored in acknowledged.items():
        first = batch_stored[0]["version"]
        assert [m["version"] for m in batch_stored] == list(range(first, first + len(batch_stored)))
        assert [stored[m["version"]] for m in batch_stored] == [f"{label}/{n}" for n in range(len(batch_stored))]
    assert sum(map(len, acknowledged.values())) == len(messages)
    for writer in range(WRITERS):  # each writer's batches stand in the order in which it sent them
        firsts = [acknowledged[f"{writer}/{number}"][0]["version"] for number in range(12)]
        assert firsts == sorted(firsts)
    assert await deadlocks(database_url) == 0


async def test_forks_at_latest_during_appends_hold_exactly_a_prefix(services: list[Service]) -> None:
    ends = {0}
    forks: list[Json] = []

    async def write(api: Api, context_id: str, writer: int) -> None:
        dice = random.Random(writer)
        for number in range(10):
            payload = await append(api, context_id, batch(dice, f"{writer}/{number}"))
            ends.add(payload["context"]["latestVersion"])

    async def branch(api: Api, context_id: str) -> None:
        for _ in range(10):
            forks.append(await fork(api, context_id))  # noqa: PERF401 - one after the other

    async with clients(services, WRITERS) as apis:
        context_id = (await create(apis[0], []))["id"]
        await asyncio.gather(
            *(write(api, context_id, number) for number, api in enumerate(apis[:10])),
            *(branch(api, context_id) for api in apis[10:]),
        )
        _, history = await read(apis[0], context_id)
        seen = await asyncio.gather(*(read(apis[n % WRITERS], made["id"]) for n, made in enumerate(forks)))

    assert len({made["forkVersion"] for made in forks}) > 5, "the forks did not meet the appends"
    for made, (context, messages) in zip(forks, seen, strict=True):
        assert made == context
        assert made["forkVersion"] == made["latestVersion"]
        assert made["forkVersion"] in ends, "a batch was inherited in part"
        assert messages == history[: made["forkVersion"]]
        assert counters(made) == counted(messages)


async def test_a_read_during_writes_shows_one_moment(services: list[Service]) -> None:
    done = asyncio.Event()
    looked = 0

    async def write(api: Api, context_id: str, writer: int) -> None:
        dice = random.Random(writer)
        for number in range(12):
            payload = await append(api, context_id, batch(dice, f"{writer}/{number}"))
            version = payload["messages"][0]["version"]
            await api(DELETE_MESSAGE, id=context_id, version=version)

    async def look(api: Api, context_id: str) -> None:
        nonlocal looked
        while not done.is_set():
            context = (await api(READ, id=context_id))["context"]
            page = context["messages"]
            assert not page["pageInfo"]["hasNextPage"]
            assert page["totalCount"] == context["messageCount"]
            assert counters(context) == counted(page["nodes"])
            looked += 1

    async with clients(services, 10) as apis:
        context_id = (await create(apis[0], []))["id"]
        looking = [asyncio.create_task(look(api, context_id)) for api in apis[8:]]
        await asyncio.gather(*(write(api, context_id, number) for number, api in enumerate(apis[:8])))
        done.set()
        await asyncio.gather(*looking)
    assert looked > 10


async def test_the_same_message_deleted_and_restored_by_many_counts_once(
    services: list[Service], database_url: str
) -> None:
    dice = random.Random(5)

    async def turn(api: Api, ids: list[str], writer: int) -> None:
        own = random.Random(writer)
        for _ in range(10):
            document = own.choice([DELETE_MESSAGE, RESTORE_MESSAGE])
            payload = next(iter((await api(document, id=own.choice(ids), version=own.choice([2, 3]))).values()))
            assert (payload["message"]["deletedAt"] is None) == (document == RESTORE_MESSAGE)

    async with clients(services, WRITERS) as apis:
        root = await create(apis[0], batch(dice, "root", 1) * 6)
        ids = [root["id"]]
        for _ in range(6):
            ids.append((await fork(apis[0], dice.choice(ids), dice.choice([3, 4, 6])))["id"])
        await asyncio.gather(*(turn(api, ids, number) for number, api in enumerate(apis)))
        for context_id in ids:
            context, messages = await read(apis[0], context_id)
            assert counters(context) == counted(messages)
        for version in (2, 3):
            await apis[0](RESTORE_MESSAGE, id=ids[-1], version=version)
        for context_id in ids:
            context, messages = await read(apis[0], context_id)
            assert [message["version"] for message in messages] == list(range(1, context["latestVersion"] + 1))
            assert counters(context) == counted(messages)
    assert await deadlocks(database_url) == 0


class Tree:
    """Contexts of one tree, changed by whoever comes along."""

    def __init__(self, root: Json) -> None:
        self.latest: dict[str, int] = {root["id"]: root["latestVersion"]}
        self.done: Counter[str] = Counter()

    def any(self, dice: random.Random) -> str:
        return dice.choice(list(self.latest))

    def message(self, dice: random.Random) -> tuple[str, int]:
        # Mostly the same few old messages, so that deletions and restorations meet.
        readers = [context_id for context_id, latest in self.latest.items() if latest]
        context_id = dice.choice(readers)
        latest = self.latest[context_id]
        return context_id, dice.randint(1, min(latest, dice.choice([4, latest])))

    async def append(self, api: Api, dice: random.Random) -> None:
        context_id = self.any(dice)
        context = (await append(api, context_id, batch(dice, "tree", 4)))["context"]
        self.latest[context_id] = max(self.latest[context_id], context["latestVersion"])

    async def fork(self, api: Api, dice: random.Random) -> None:
        parent_id = self.any(dice)
        version = dice.choice([None, dice.randint(0, self.latest[parent_id])])
        made = await fork(api, parent_id, version)
        self.latest[made["id"]] = made["latestVersion"]

    async def delete_message(self, api: Api, dice: random.Random) -> None:
        context_id, version = self.message(dice)
        await api(DELETE_MESSAGE, id=context_id, version=version)

    async def restore_message(self, api: Api, dice: random.Random) -> None:
        context_id, version = self.message(dice)
        await api(RESTORE_MESSAGE, id=context_id, version=version)

    async def update(self, api: Api, dice: random.Random) -> None:
        await api(UPDATE, id=self.any(dice), name=f"name {dice.random()}")

    async def delete_and_restore(self, api: Api, dice: random.Random) -> None:
        context_id = self.any(dice)
        await api(DELETE, id=context_id)
        await api(RESTORE, id=context_id)

    async def work(self, api: Api, action: Callable[[Api, random.Random], Awaitable[None]], seconds: float) -> None:
        dice = random.Random(f"{action.__name__}{id(api)}")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                await action(api, dice)
                self.done[action.__name__] += 1
            except ApiError as error:
                if error.code != "NOT_FOUND":  # deleted a moment ago, the one thing that may happen
                    raise


async def shake(services: list[Service], database_url: str, seconds: float) -> None:
    """Let everything happen to one tree at once, then compare every counter with what reading gives."""
    async with clients(services, 20) as apis:
        dice = random.Random(1)
        tree = Tree(await create(apis[0], batch(dice, "root", 1) * 10))
        actions = [tree.append] * 7 + [tree.fork] * 3 + [tree.delete_message] * 3 + [tree.restore_message] * 3
        actions += [tree.update] * 2 + [tree.delete_and_restore] * 2
        await asyncio.gather(*(tree.work(api, action, seconds) for api, action in zip(apis, actions, strict=True)))
        ids = list(tree.latest)

        async def restore_and_read(api: Api, own: list[str]) -> list[tuple[Json, list[Json]]]:
            for context_id in own:
                await api(RESTORE, id=context_id)
            return [await read(api, context_id) for context_id in own]

        found = await asyncio.gather(*(restore_and_read(api, ids[n::20]) for n, api in enumerate(apis)))
        seen = [reading for readings in found for reading in readings]
    assert len(seen) == len(ids)
    assert set(tree.done) == {action.__name__ for action in actions}
    for context, messages in seen:
        assert counters(context) == counted(messages)
        assert all(earlier["version"] < later["version"] for earlier, later in pairwise(messages))
        assert all(earlier["createdAt"] <= later["createdAt"] for earlier, later in pairwise(messages))
        assert not messages or messages[-1]["version"] <= context["latestVersion"]
    assert_stored_versions(database_url)
    assert await deadlocks(database_url) == 0


def assert_stored_versions(database_url: str) -> None:
    """Check that each context stores exactly the versions from its fork version to its latest one."""
    with psycopg.connect(database_url) as connection:
        wrong = connection.execute(
            """
            select c.id, c.fork_version, c.latest_version, array_agg(m.version order by m.version)
            from contexts c
            left join messages m on m.tenant_id = c.tenant_id and m.context_id = c.id
            group by c.tenant_id, c.id
            having coalesce(array_agg(m.version order by m.version) filter (where m.version is not null), '{}')
              <> array(select generate_series(coalesce(c.fork_version, 0) + 1, c.latest_version))
            """
        ).fetchall()
    assert wrong == []


async def test_counters_follow_when_everything_happens_to_a_tree_at_once(
    services: list[Service], database_url: str
) -> None:
    await shake(services, database_url, 5)


@pytest.mark.long
async def test_counters_follow_for_a_long_time(services: list[Service], database_url: str) -> None:
    await shake(services, database_url, 90)
