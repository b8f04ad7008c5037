"""Two tenants whose contexts and messages have the very same ids, as imports that keep ids can make them.

Nothing but the tenant tells their rows apart. So whatever one of them asks, it must be answered as if it were alone,
and no change of its own may reach the other's rows: each is held to a model of its own, and hears of its own changes.
"""

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import count
from typing import Any
from uuid import UUID

import httpx2
import pytest
import uuid_utils.compat
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as how
from hypothesis import strategies as st

from graphql_api.settings import Settings
from tests import model_window, strategies
from tests.client import Api, ApiError
from tests.graphql_api.serving import until
from tests.live import MESSAGES, Local, Stream, local
from tests.model import Context
from tests.schema import calls
from tests.schema.calls import say
from tests.strategies import Probe
from tests.tenants import serving, token, with_tokens
from tests.test_history import World, look_at_everything, run

WHO: ContextVar[str] = ContextVar("WHO")


# Modules that make messages; all others make contexts.
MAKE_MESSAGES = {"schema.message_input", "db.copy"}


@pytest.fixture(params=["same", "crossed"])
def same_ids(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """Number what each tenant makes from 1 on, so that ids meet those of every other tenant.

    When they are `crossed`, contexts of one tenant meet messages of another one.
    """
    numbers: dict[tuple[str, bool], Iterator[int]] = {}
    crossed = request.param == "crossed"

    def numbered() -> UUID:
        tenant_id = WHO.get()
        is_message = sys._getframe(1).f_globals["__name__"] in MAKE_MESSAGES  # noqa: SLF001 - who asks, only for this
        number = 2 * next(numbers.setdefault((tenant_id, is_message), count(1)))
        odd = is_message is not (crossed and tenant_id.startswith("other"))
        return UUID(int=(0x01A2_0000_0000 << 80) | (7 << 76) | (2 << 62) | (number + odd))

    monkeypatch.setattr(uuid_utils.compat, "uuid7", numbered)
    return str(request.param)


class Seat(Api):
    """A tenant of a service that all share, in this process."""

    def __init__(self, http: httpx2.AsyncClient, tenant_id: str) -> None:
        super().__init__(http)
        self.tenant_id = tenant_id
        self._headers = {"authorization": f"Bearer {token(tenant_id, 'write')}"}

    async def __call__(self, document: str, **variables: Any) -> dict[str, Any]:
        WHO.set(self.tenant_id)
        body = {"query": document, "variables": variables}
        answer = (await self.http.post("/graphql", json=body, headers=self._headers)).json()
        if "errors" in answer:
            raise ApiError(answer)
        data: dict[str, Any] = answer["data"]
        return data


@asynccontextmanager
async def seats(settings: Settings) -> AsyncIterator[httpx2.AsyncClient]:
    """Serve tenants in this process."""
    async with serving(with_tokens(settings)) as service:
        transport = httpx2.ASGITransport(app=service.app, raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as http:
            yield http


# Ways to read, most of them without row-level security: nothing shall hang on the second lock.
WAYS: dict[str, dict[str, Any]] = {
    "lane": {"row_security": "off"},
    "resolvers": {"row_security": "off", "planned_reads": False, "fast_lane_connections": 0},
    "locked": {"row_security": "on"},
}


@pytest.fixture(params=WAYS)
async def http(settings: Settings, request: pytest.FixtureRequest) -> AsyncIterator[httpx2.AsyncClient]:
    async with seats(settings.model_copy(update=WAYS[request.param])) as http:
        yield http


# -- Histories, each held to a model of its own

RELATIONS = """query ($id: ID!, $other: ID!, $version: Int!, $budget: Int!) {
  context(id: $id) {
    tree { nodes { id messageCount } }
    commonAncestor(with: $other) { version context { id } }
    diff(with: $other) { onlyHere { ...Side } onlyThere { ...Side } }
    window(budget: $budget) { messages { version content } minimumBudget }
    at(version: $version) { messageCount totalTokens messages(first: 1000) { nodes { version content } } }
  }
  contexts(first: 1000, filter: {includeDeleted: true}) { totalCount nodes { id } }
  node(id: $other) { id }
}
fragment Side on DiffSide { messageCount messages(first: 1000) { nodes { version content } } }"""


class Said:
    """A message of the one model as the model of windows wants it."""

    def __init__(self, message: Any) -> None:
        self.version, self.token_count = message.version, message.token_count
        self.role = message.role.lower()
        self.calls: list[str] = []
        self.answers = "call" if message.role == "TOOL" else None


class Side(World):
    """One of two worlds. What it does not know it calls by an id of the other one, unless their ids are the same."""

    other: "Side | None" = None

    def id(self, key: int | None) -> str:
        if key is None and self.other is not None and self.other.ids:
            names = [*self.other.ids, *self.other.message_ids.values()]
            return names[len(self.ids) * 7 % len(names)]
        return super().id(key)


async def compare_relations(world: World, context: Context) -> None:
    """Hold what relates contexts to each other to the model, and the list of them."""
    model = world.model
    other = model.stored[(context.key + 1) % len(model.stored)]
    version, budget = context.latest_version // 2, context.total_tokens // 2 + 1
    found = await world.api(
        RELATIONS, id=world.id(context.key), other=world.id(other.key), version=version, budget=budget
    )
    expected_ids = sorted(world.ids)
    assert (found["contexts"]["totalCount"], sorted(node["id"] for node in found["contexts"]["nodes"])) == (
        len(expected_ids),
        expected_ids,
    )
    assert found["node"] == (None if other.deleted else {"id": world.id(other.key)})
    if context.deleted:
        assert found["context"] is None
        return
    fitted = model_window.window([Said(message) for message in context.visible()], budget, 0, keep_system=True)
    contents = {message.version: message.content for message in context.lineage}
    shared = model.common_ancestor(context.key, other.key)
    then = [message for message in context.lineage[:version] if not message.deleted]
    assert found["context"] == {
        "tree": {
            "nodes": [
                {"id": world.id(each.key), "messageCount": each.message_count} for each in model.tree(context.key)
            ]
        },
        "commonAncestor": shared
        and {"version": shared[1], "context": None if shared[0].deleted else {"id": world.id(shared[0].key)}},
        "diff": None
        if other.deleted
        else {
            "onlyHere": side(model.only_in(context.key, other.key)),
            "onlyThere": side(model.only_in(other.key, context.key)),
        },
        "window": {
            "messages": [{"version": each, "content": contents[each]} for each in fitted.versions],
            "minimumBudget": fitted.minimum_budget,
        },
        "at": {
            "messageCount": len(then),
            "totalTokens": sum(message.token_count for message in then),
            "messages": {"nodes": said(then)},
        },
    }


def said(messages: list[Any]) -> list[dict[str, Any]]:
    return [{"version": message.version, "content": message.content} for message in messages]


def side(messages: list[Any]) -> dict[str, Any]:
    return {"messageCount": len(messages), "messages": {"nodes": said(messages)}}


async def compare_two(
    http: httpx2.AsyncClient,
    histories: list[list[strategies.Command]],
    turns: list[int],
    probes: list[Probe],
    *,
    meet: str,
) -> None:
    """Let two tenants act by turns, and hold each to what it would be alone."""
    tag = uuid.uuid4().hex
    worlds = [Side(Seat(http, f"{name}-{tag}")) for name in ("one", "other")]
    if not meet:
        worlds[0].other, worlds[1].other = worlds[1], worlds[0]
    waiting = [iter(history) for history in histories]
    for turn in [*turns, *([0, 1] * max(map(len, histories)))]:
        command = next(waiting[turn], None)
        if command is not None:
            await run(worlds[turn], command)
    for world in worlds:
        await look_at_everything(world, probes, 5)
        for context in world.model.stored:
            await compare_relations(world, context)
    assert bool(set(worlds[0].ids) & set(worlds[1].ids)) is (meet == "same")


two_histories = given(
    histories=st.lists(strategies.histories, min_size=2, max_size=2),
    turns=st.lists(st.integers(0, 1), max_size=60),
    probes=st.lists(strategies.probe, max_size=4),
)


def examples(number: int) -> Any:
    health = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return how(
        phases=[Phase.generate],
        max_examples=number,
        deadline=None,
        suppress_health_check=health,
    )


@two_histories
@examples(12)
async def test_two_tenants_with_the_same_ids_are_as_if_alone(
    same_ids: str,
    http: httpx2.AsyncClient,
    histories: list[list[strategies.Command]],
    turns: list[int],
    probes: list[Probe],
) -> None:
    await compare_two(http, histories, turns, probes, meet=same_ids)


@two_histories
@examples(12)
async def test_who_names_what_another_tenant_has_is_as_if_alone(
    http: httpx2.AsyncClient, histories: list[list[strategies.Command]], turns: list[int], probes: list[Probe]
) -> None:
    await compare_two(http, histories, turns, probes, meet="")


@pytest.mark.long
@two_histories
@examples(1000)
async def test_very_many_histories_of_two_tenants_with_the_same_ids_are_as_if_alone(
    same_ids: str,
    http: httpx2.AsyncClient,
    histories: list[list[strategies.Command]],
    turns: list[int],
    probes: list[Probe],
) -> None:
    await compare_two(http, histories, turns, probes, meet=same_ids)


# -- What is told as it happens

CHANGED = """subscription ($id: ID!) {
  contextChanged(contextId: $id) { kind context { id name latestVersion } fork { name } }
}"""
LISTED = "subscription { contextsChanged { kind context { id name latestVersion } } }"


@dataclass
class Ear:
    """All that one tenant can hear of one context, and of its contexts."""

    seat: Local
    context_id: str
    messages: Stream
    changes: Stream
    names: list[str]

    async def contents(self, number: int) -> list[str]:
        """Give the contents of the next messages."""
        return [event["message"]["content"] for event in await self.messages.some(number)]

    async def change(self) -> tuple[str, str | None]:
        """Give what has happened to the context, and its name or that of its new fork."""
        event = await self.changes.next()
        return event["kind"], (event["fork"] or event["context"])["name"]

    async def of_all(self, name: str) -> set[str]:
        """Wait until a name is told of; gives whose contexts have been told of until then."""
        await until(lambda: name in self.names)
        return {each.partition(" ")[0] for each in self.names}


@asynccontextmanager
async def listening_to(seat: Local, context_id: str) -> AsyncIterator[Ear]:
    names: list[str] = []

    async def take(stream: Stream) -> None:
        while True:
            names.append((await stream.next())["context"]["name"])

    async with (
        seat.subscribe(MESSAGES, id=context_id, after=0) as messages,
        seat.subscribe(CHANGED, id=context_id) as changes,
        seat.subscribe(LISTED) as all_changes,
    ):
        taking = asyncio.create_task(take(all_changes))
        watches = seat.live.watches._lists  # noqa: SLF001 - nobody else can tell
        await until(
            lambda: (
                seat.principal.tenant_id in watches
                and all(watch.began for watch in watches[seat.principal.tenant_id].watches)
            )
        )
        yield Ear(seat, context_id, messages, changes, names)
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)


class Whose(Api):
    """Calls as one tenant, whose ids are numbered apart from others'."""

    def __init__(self, seat: Local) -> None:  # it has no connection of its own
        self._seat = seat

    async def __call__(self, document: str, **variables: Any) -> dict[str, Any]:
        WHO.set(self._seat.principal.tenant_id)
        return await self._seat(document, **variables)


@pytest.mark.parametrize("bells", [True, False], ids=["heard", "looked for"])
@pytest.mark.parametrize("same_ids", ["same"], indirect=True)
async def test_subscribers_of_one_id_hear_their_own_tenant_only(
    settings: Settings, same_ids: str, monkeypatch: pytest.MonkeyPatch, bells: bool
) -> None:
    assert same_ids == "same"
    async with local(settings.model_copy(update={"row_security": "off"})) as api:
        if not bells:
            monkeypatch.setattr(api.live._doorbell, "ring", lambda *_: None)  # noqa: SLF001 - each bell is lost

        async def look() -> None:
            if not bells:
                await api.live._check()  # noqa: SLF001 - in place of waiting for it

        one, other = api.seated("one"), api.seated("other")
        first = await calls.create(Whose(one), say("one 1"), name="one")
        second = await calls.create(Whose(other), say("other 1"), say("other 2"), say("other 3"), name="other")
        assert first["id"] == second["id"]
        async with listening_to(one, first["id"]) as mine, listening_to(other, first["id"]) as theirs:
            assert await mine.contents(1) == ["one 1"]
            assert await theirs.contents(3) == ["other 1", "other 2", "other 3"]
            # Each does the same, and is told of it before the other one begins: it must be told of nothing more.
            for ear, name, last in ((theirs, "other", 4), (mine, "one", 2)):
                whose = Whose(ear.seat)
                await calls.append(whose, ear.context_id, say(f"{name} {last}"))
                await look()
                assert await ear.contents(1) == [f"{name} {last}"]
                await calls.update(whose, ear.context_id, name=f"{name} renamed")
                await look()
                assert await ear.change() == ("UPDATED", f"{name} renamed")
                await calls.fork(whose, ear.context_id, name=f"{name} fork")
                await look()
                assert await ear.change() == ("FORKED", f"{name} fork")
                assert await ear.of_all(f"{name} fork") == {name}
            await calls.delete(Whose(other), theirs.context_id)
            await look()
            assert await theirs.change() == ("DELETED", "other renamed")
            assert await theirs.messages.completed()
            await calls.append(Whose(one), mine.context_id, say("one 3"))
            await look()
            assert await mine.contents(1) == ["one 3"]
            await calls.update(Whose(one), mine.context_id, name="one again")
            await look()
            assert await mine.change() == ("UPDATED", "one again")
            assert await mine.of_all("one again") == {"one"}
            assert await theirs.of_all("other renamed") == {"other"}
