"""Nothing of a tenant is left for the next transaction: on connections of the pool, on lines, after faults."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db import context, lineage, message
from db.call import Call, Recorder
from db.errors import Duplicate, StatementTimeout, Unforeseen
from db.feed import Feeds, read
from db.pipeline import Lane
from db.pool import Database
from db.records import NewMessage
from tests.db import lane as lanes
from tests.db.lane import NUMBER, outcome, query
from tests.db.two_tenants import DELETED, EMPTY, FORK, NEW, ROOT, Undo, opened, plant

SEEN = query("seen", "select distinct tenant_id from contexts order by tenant_id")
NAMED = query("named", "select current_setting('forkpoint.tenant', true)")
RENAME = query("rename", "update contexts set name = $1::text returning tenant_id")


# From one transaction to the next on the same connection


async def seen(database: Database, tenant_id: str) -> list[tuple[Any, ...]]:
    """Tell whose rows a tenant sees through the pool, and through a lease."""
    async with database.snapshot(tenant_id) as snapshot:
        return [*await snapshot.fetch(NAMED), *await snapshot.fetch(SEEN)]


async def bare(database: Database) -> list[Any]:
    """Ask what the pool's one connection says between transactions."""
    async with database.pooled_connection(5) as connection:
        named = await (await connection.execute("select current_setting('forkpoint.tenant', true)")).fetchall()
        rows = await (await connection.execute("select tenant_id from contexts")).fetchall()
    return [named[0][0] or None, rows]


async def test_a_connection_of_the_pool_forgets_its_tenant(both: Database) -> None:
    for tenant_id in "abba":
        assert await seen(both, tenant_id) == [(tenant_id,), (tenant_id,)]
        assert await bare(both) == [None, []]
        with pytest.raises(Unforeseen):  # noqa: PT012 - it fails in the middle of a transaction
            async with both.transaction(tenant_id) as session:
                assert await session.fetch(SEEN) == [(tenant_id,)]
                await session.fetch(query("fail", "select 1 / 0"))
        assert await bare(both) == [None, []]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1), both.transaction(tenant_id) as session:
                await session.fetch(query("sleep", "select pg_sleep(3)::text"))
        assert await bare(both) == [None, []]


async def test_a_tenant_that_is_set_for_a_session_is_of_no_use_to_the_next_transaction(both: Database) -> None:
    """As by a statement that somebody could slip in: SET LOCAL comes after it, with each BEGIN."""
    async with both.transaction("a") as session:
        await session.fetch(query("slip", "set forkpoint.tenant = '*'"))
    assert await seen(both, "b") == [("b",), ("b",)]


async def test_writes_of_the_pool_reach_their_tenant_only(both_url: str) -> None:
    async with opened(both_url) as database:
        with pytest.raises(Undo):  # noqa: PT012 - to undo it
            async with database.transaction("a") as session:
                assert set(await session.fetch(RENAME, "mine")) == {("a",)}
                raise Undo
    async with opened(both_url, row_security=False) as database:
        assert await seen(database, "a") == [("*",), ("a",), ("b",)]


@dataclass(frozen=True)
class Asked:
    """A batch of a tenant, or a lease of two; it may fail, or be given up after so many turns of the loop."""

    tenant_id: str
    leased: bool
    fails: bool
    cancelled_after: int | None


ASKED = st.builds(
    Asked,
    tenant_id=st.sampled_from(["a", "b", "nobody"]),
    leased=st.sampled_from([False, False, True]),
    fails=st.sampled_from([False, False, True]),
    cancelled_after=st.none() | st.none() | st.integers(0, 30),
)
DIVIDE = query("divide", "select 1 / $1::integer")
TERMINATE = """
select pg_terminate_backend(pid)
from pg_stat_activity
where pid <> pg_backend_pid() and datname = current_database() and usename = current_user
"""
RACED = (SEEN, NAMED, DIVIDE, NUMBER)


@asynccontextmanager
async def race_over(both_url: str) -> AsyncIterator[Lane]:
    """A lane of two lines, with room for a few batches on each."""
    limits = lanes.LIMITS._replace(size=2, in_flight_max=6)
    lane = Lane(both_url, limits, "read_at_one_moment", RACED, json_as_bytes=True, row_security=True)
    lane.open()
    while not lane.settled:  # noqa: ASYNC110 - it has no bell
        await asyncio.sleep(0.01)
    yield lane
    await lane.close()


async def play(lane: Lane, asked: Asked) -> None:
    own = [[(asked.tenant_id,)], [] if asked.tenant_id == "nobody" else [(asked.tenant_id,)]]
    calls = [Call(NAMED, ()), Call(SEEN, ())]
    failing = [*calls, Call(DIVIDE, (0,)), *calls] if asked.fails else calls

    async def ask() -> Any:
        if not asked.leased:
            return await lane.flush(failing, asked.tenant_id)
        async with lane.lease(asked.tenant_id) as lease:
            assert await lease.flush(calls) == own
            return await lease.flush(failing)

    task = asyncio.create_task(ask())
    if asked.cancelled_after is not None:
        for _ in range(asked.cancelled_after):
            await asyncio.sleep(0)
        task.cancel()
    found = await outcome(task)
    if asked.cancelled_after is not None and isinstance(found, asyncio.CancelledError):
        return
    assert type(found) is Unforeseen if asked.fails else found == own, (asked, found)


@given(all_asked=st.lists(ASKED, min_size=1, max_size=40))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_in_every_interleaving_each_tenant_sees_its_own(both_url: str, all_asked: list[Asked]) -> None:
    async with race_over(both_url) as lane:
        await asyncio.gather(*(play(lane, asked) for asked in all_asked))
        assert await lane.flush([Call(NAMED, ()), Call(SEEN, ())], None) in ([[(None,)], []], [[("",)], []])


async def test_what_a_line_that_breaks_leaves_unanswered_is_asked_anew_for_its_tenant(both_url: str) -> None:
    async with opened(both_url) as database:
        assert database.lane is not None
        with psycopg.connect(both_url, autocommit=True) as other:
            for tenant_id in "abab":
                other.execute(TERMINATE)
                (found,) = await read(database, tenant_id, partial(_by_ids, tenant_id=tenant_id))
                assert found.name == tenant_id


async def _by_ids(reader: Any, tenant_id: str) -> Any:
    return await context.by_ids(reader, tenant_id, [ROOT])


async def test_an_append_at_once_reaches_its_tenant_only(database_url: str, service_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        plant(connection, "a")
        plant(connection, "b")
    async with opened(service_url) as database:
        lane = database.append_lane
        assert lane is not None
        made = NewMessage(NEW, "user", "new", None, None, None, 1, None, "{}")
        record, (stored,) = await message.append_at_once(lane, "a", ROOT, [made])
        assert record is not None
        assert (record.name, record.latest_version, stored.version) == ("a", 5, 5)
        with pytest.raises(Duplicate):
            await message.append_at_once(lane, "a", ROOT, [made])
        # The same again under the name of another tenant: the two locks do not agree, and nothing is found.
        asked = message.append(Recorder(), "b", EMPTY, [replace_id(made)])
        assert await lane.run("a", asked) == [None]
        record, _ = await message.append_at_once(lane, "b", ROOT, [made])
        assert record is not None
        assert (record.name, record.latest_version) == ("b", 5)


def replace_id(made: NewMessage) -> NewMessage:
    return replace(made, id=FORK)


async def test_followers_of_one_id_are_given_their_own_tenants_messages(both: Database) -> None:
    feeds = Feeds(both)
    feeds.open()
    try:
        for tenant_id in "ab":
            follower = feeds.follow(tenant_id, ROOT, 0)
            news = await anext(follower)
            assert {found.content for found in news.messages} == {tenant_id}
            await follower.aclose()
        for context_id in (ROOT, DELETED):
            nobody = feeds.follow("nobody", context_id, 0)
            with pytest.raises(StopAsyncIteration):
                await anext(nobody)
        await feeds.check()
    finally:
        await feeds.close()


async def test_what_goes_through_the_lane_and_through_the_pool_is_the_same(both: Database) -> None:
    assert both.lane is not None
    place = lineage.Place(ROOT, None, None)
    for tenant_id in "ab":
        asking = lineage.page(Recorder(), tenant_id, [place], 9, newest_first=True, roles=None)
        ((by_lane,),) = await both.lane.run(tenant_id, asking)
        async with both.snapshot(tenant_id, json_as_bytes=True) as snapshot:
            (by_pool,) = await lineage.page(snapshot, tenant_id, [place], 9, newest_first=True, roles=None)
        assert by_lane == by_pool
        assert {found.content for found in by_pool} == {tenant_id}


async def test_a_statement_past_its_time_leaves_no_tenant_behind(both_url: str) -> None:
    async with opened(both_url, statement_seconds=0.3) as database:
        with pytest.raises(StatementTimeout):
            async with database.transaction("a") as session:
                await session.fetch(query("sleep", "select pg_sleep(9)::text"))
        assert await bare(database) == [None, []]
        assert await seen(database, "b") == [("b",), ("b",)]
