"""Whoever changes something rings for every context that it changes, of whatever process the subscribers are."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import psycopg
import pytest

from graphql_api.settings import Settings
from tests.client import Api
from tests.db.feeding import TENANT
from tests.db.lane import until
from tests.db.test_doorbell import Hearing
from tests.live import Local, local
from tests.schema import calls
from tests.schema.calls import UNKNOWN, refusal, say


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Local]:
    async with local(settings) as api:
        yield api


class Family:
    """A root of three messages, a fork at 2 with a fork of its own, a fork at 1, and what each is called."""

    def __init__(self, api: Api, hearing: Hearing) -> None:
        self.api = api
        self.ids: dict[str, str] = {}
        self._hearing = hearing

    async def grow(self) -> "Family":
        self.ids["root"] = (await calls.create(self.api, say("a"), say("b"), say("c")))["id"]
        self.ids["fork"] = (await calls.fork(self.api, self.ids["root"], 2))["id"]
        self.ids["leaf"] = (await calls.fork(self.api, self.ids["fork"]))["id"]
        self.ids["other"] = (await calls.fork(self.api, self.ids["root"], 1))["id"]
        await self.rung(set(self.ids))
        return self

    async def rung(self, names: set[str]) -> None:
        """Wait until just these have rung since the last time."""
        expected = {UUID(self.ids[name]) for name in names}
        await until(lambda: self._hearing.ids(TENANT) >= expected)
        assert self._hearing.ids(TENANT) == expected
        self._hearing.rung.clear()


@pytest.fixture
async def family(api: Local, database_url: str) -> AsyncIterator[Family]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield await Family(api, Hearing(connection)).grow()


async def made(family: Family, call: Awaitable[Any], name: str = "made") -> Any:
    """Do what makes a context, and name it."""
    found = await call
    family.ids[name] = found.get("context", found)["id"]
    return found


Step = Callable[[Api, Family], Awaitable[Any]]
STEPS: dict[str, tuple[Step, set[str]]] = {
    "create": (lambda api, family: made(family, calls.create(api)), {"made"}),
    "create with messages": (lambda api, family: made(family, calls.create(api, say("a"), say("b"))), {"made"}),
    "create with a key": (lambda api, family: made(family, calls.create(api, idempotencyKey="k")), {"made"}),
    "append": (lambda api, family: calls.append(api, family.ids["fork"], say("x")), {"fork"}),
    "append after a version": (
        lambda api, family: calls.append(api, family.ids["fork"], say("x"), expectedVersion=2),
        {"fork"},
    ),
    "append with a key": (
        lambda api, family: calls.append(api, family.ids["fork"], say("x"), idempotencyKey="k"),
        {"fork"},
    ),
    "append to a new fork": (
        lambda api, family: made(
            family, calls.append(api, family.ids["root"], say("x"), expectedVersion=1, onConflict="FORK")
        ),
        {"root", "made"},
    ),
    "fork": (lambda api, family: made(family, calls.fork(api, family.ids["leaf"])), {"leaf", "made"}),
    "copy": (
        lambda api, family: made(
            family, calls.mutate(api, "copyContext", "context { id }", contextId=family.ids["leaf"])
        ),
        {"made"},
    ),
    "update": (lambda api, family: calls.update(api, family.ids["leaf"], name="x"), {"leaf"}),
    "delete": (lambda api, family: calls.delete(api, family.ids["fork"]), {"fork"}),
    "delete a message that all inherit": (
        lambda api, family: calls.delete_message(api, family.ids["leaf"], 1),
        {"root", "fork", "leaf", "other"},
    ),
    "delete a message that some inherit": (
        lambda api, family: calls.delete_message(api, family.ids["root"], 2),
        {"root", "fork", "leaf"},
    ),
    "delete a message that nobody inherits": (
        lambda api, family: calls.delete_message(api, family.ids["root"], 3),
        {"root"},
    ),
}


@pytest.mark.parametrize("step", STEPS)
async def test_it_rings_for_what_it_changes_and_for_nothing_else(api: Local, family: Family, step: str) -> None:
    change, expected = STEPS[step]
    await change(api, family)
    await family.rung(expected)


async def test_what_is_restored_rings_like_what_was_deleted(api: Local, family: Family) -> None:
    await calls.delete(api, family.ids["fork"])
    await family.rung({"fork"})
    await calls.restore(api, family.ids["fork"])
    await family.rung({"fork"})
    await calls.delete_message(api, family.ids["root"], 2)
    await family.rung({"root", "fork", "leaf"})
    await calls.restore_message(api, family.ids["leaf"], 2)
    await family.rung({"root", "fork", "leaf"})


async def test_a_message_that_two_hundred_forks_inherit_rings_for_all(api: Local, family: Family) -> None:
    for number in range(200):
        family.ids[f"{number}"] = (await calls.fork(api, family.ids["other"]))["id"]
    await family.rung({"other", *map(str, range(200))})
    await calls.delete_message(api, family.ids["root"], 1)
    await family.rung(set(family.ids))


async def test_what_is_refused_does_not_ring(api: Local, family: Family) -> None:
    root = family.ids["root"]
    for call in (
        calls.append(api, UNKNOWN, say("x")),
        calls.append(api, root, say("x"), expectedVersion=1),
        calls.append(api, root),
        calls.fork(api, root, 9),
        calls.update(api, UNKNOWN, name="x"),
        calls.delete_message(api, root, 4),
        calls.delete(api, UNKNOWN),
    ):
        await refusal(call)
    await calls.append(api, family.ids["leaf"], say("x"))
    await family.rung({"leaf"})
