"""Connections: one moment for what is read, all or nothing for what is written, and nothing lost to a failure."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import AsyncConnection

from db.errors import OutOfRange, StatementTimeout, Unavailable, Unforeseen
from db.pool import Database, Over, PoolLimits, Session, Snapshot
from db.queries import Query

LIMITS = PoolLimits(size_min=1, size_max=1, wait_seconds=5, connect_seconds=5, statement_seconds=5)


def query(text: LiteralString) -> Query:
    return Query("test", "many", text)


COUNT = query("select count(*) from noted")
NOTE = query("insert into noted select")
SLEEP = query("select pg_sleep(30)")
BACKEND = query("select pg_backend_pid()")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """One connection, so that whatever is not given back is missed."""
    with psycopg.connect(database_url) as connection:
        connection.execute("create table noted ()")
    database = Database(database_url, LIMITS)
    await database.open()
    yield database
    await database.close()


async def ask(database: Database, asked: Query, *parameters: Any) -> Any:
    """Give the one value of a query in a snapshot of its own."""
    async with database.snapshot("default") as snapshot:
        ((value,),) = await snapshot.fetch(asked, *parameters)
        return value


def backends(database_url: str) -> int:
    """Count the connections of the pool."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        text = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        ((count,),) = connection.execute(text).fetchall()
    return int(count)


def end(database_url: str, pid: int) -> None:
    """End a server process and wait until it is gone."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("select pg_terminate_backend(%s, 5000)", (pid,))


async def test_a_snapshot_stands_at_the_moment_of_its_first_statement(database: Database, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as writer:
        async with database.snapshot("default") as snapshot:
            writer.execute("insert into noted select")
            assert await snapshot.fetch(COUNT) == [(1,)]
            writer.execute("insert into noted select")
            assert await snapshot.fetch(COUNT) == [(1,)]
        async with database.snapshot("default") as later:
            assert await later.fetch(COUNT) == [(2,)]


async def test_a_snapshot_that_is_closed_stops_what_it_reads_and_reads_no_more(database: Database) -> None:
    """Loaders may outlive the request that asked them; what they took then, nobody would give back."""
    async with database.snapshot("default") as snapshot:
        reads = [asyncio.create_task(snapshot.fetch(query("select pg_sleep(60)"))) for _ in range(3)]
        await asyncio.sleep(0.1)
    late = asyncio.create_task(snapshot.fetch(COUNT))
    async with asyncio.timeout(5):
        ends = await asyncio.gather(late, *reads, return_exceptions=True)
    assert [type(end) for end in ends] == [Over] * 4
    for _ in range(2 * LIMITS.size_max):
        assert await ask(database, COUNT) == 0


async def test_a_snapshot_answers_many_at_once_over_one_connection(database: Database) -> None:
    async with database.snapshot("default") as snapshot:
        answers = await asyncio.gather(*(snapshot.fetch(BACKEND) for _ in range(20)))
    assert len({pid for ((pid,),) in answers}) == 1


async def test_a_snapshot_that_failed_fails_the_same_way_ever_after(database: Database) -> None:
    """Its transaction is over: PostgreSQL would answer what comes after with a complaint about that."""
    async with database.snapshot("default") as snapshot:
        for asked in (query("select 2147483647 + 1"), COUNT, BACKEND):
            with pytest.raises(OutOfRange):
                await snapshot.fetch(asked)
    assert await ask(database, COUNT) == 0


async def test_a_snapshot_writes_nothing(database: Database) -> None:
    with pytest.raises(Unforeseen, match="ReadOnlySqlTransaction"):
        await ask(database, NOTE)
    assert await ask(database, COUNT) == 0


async def test_a_snapshot_that_reads_nothing_takes_no_connection(database_url: str) -> None:
    database = Database(database_url, replace(LIMITS, size_min=0))
    await database.open()
    async with database.snapshot("default"), database.snapshot("default"), database.snapshot("default"):
        assert backends(database_url) == 0
    await Snapshot(database, "default").close()
    await database.close()


async def test_a_transaction_is_stored_at_its_end(database: Database, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as reader:
        async with database.transaction("default") as session:
            await session.fetch(NOTE)
            assert reader.execute("select count(*) from noted").fetchall() == [(0,)]
        assert reader.execute("select count(*) from noted").fetchall() == [(1,)]


@pytest.mark.parametrize("failure", [ValueError, asyncio.CancelledError, KeyboardInterrupt])
async def test_a_transaction_leaves_nothing_when_its_block_raises(
    database: Database, failure: type[BaseException]
) -> None:
    async def fail() -> None:
        async with database.transaction("default") as session:
            await session.fetch(NOTE)
            raise failure

    with pytest.raises(failure):
        await fail()
    assert await ask(database, COUNT) == 0


async def test_a_transaction_leaves_nothing_when_a_statement_fails(database: Database) -> None:
    async def fail(session: Session) -> None:
        await session.fetch(NOTE)
        await session.fetch(query("select 2147483647 + 1"))

    with pytest.raises(OutOfRange):
        async with database.transaction("default") as session:
            await fail(session)
    assert await ask(database, COUNT) == 0


async def test_lists_of_one_statement_hold_small_and_large_numbers(database: Database) -> None:
    """Each list used to be as wide as the first of the statement needed to be."""
    widths = query("select $1::integer[], $2::integer[], $3::integer[]")
    async with database.snapshot("default") as snapshot:
        cases: list[tuple[list[int | None], ...]] = [
            ([1], [40_000], [2**31 - 1]),
            ([2**31 - 1], [1], [None, 40_000]),
            ([None], [], [-(2**31), 0]),
        ]
        for lists in cases:
            assert await snapshot.fetch(widths, *lists) == [lists]


async def test_an_index_is_used_whatever_it_costs_until_the_transaction_ends(database: Database) -> None:
    setting = query("show enable_seqscan")
    async with database.transaction("default") as session:
        await session.use_indexes()
        assert await session.fetch(setting) == [("off",)]
    assert await ask(database, setting) == "on"


async def test_a_statement_past_its_time_is_stopped_and_its_connection_serves_on(database_url: str) -> None:
    database = Database(database_url, replace(LIMITS, statement_seconds=0.2))
    await database.open()
    before = await ask(database, BACKEND)
    started = asyncio.get_running_loop().time()
    with pytest.raises(StatementTimeout):
        await ask(database, SLEEP)
    with pytest.raises(StatementTimeout):
        async with database.transaction("default") as session:
            await session.fetch(SLEEP)
    assert asyncio.get_running_loop().time() - started < 3
    assert await ask(database, BACKEND) == before
    assert backends(database_url) == 1
    with psycopg.connect(database_url) as connection:
        text = "select count(*) from pg_stat_activity where query like '%pg_sleep%' and state = 'active'"
        ((active,),) = connection.execute(text + " and pid <> pg_backend_pid()").fetchall()
    assert active == 0
    await database.close()


async def test_a_cancelled_statement_gives_its_connection_back(database: Database) -> None:
    before = await ask(database, BACKEND)
    for reading in (True, False):

        async def wait(*, reading: bool = reading) -> None:
            if reading:
                await ask(database, SLEEP)
            async with database.transaction("default") as session:
                await session.fetch(SLEEP)

        task = asyncio.create_task(wait())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await ask(database, BACKEND) == before


async def test_a_connection_that_broke_in_the_pool_is_replaced_without_anybody_noticing(
    database: Database, database_url: str
) -> None:
    for _ in range(3):
        end(database_url, await ask(database, BACKEND))
        async with database.transaction("default") as session:
            await session.fetch(NOTE)
        end(database_url, await ask(database, BACKEND))
    assert await ask(database, COUNT) == 3


async def test_a_connection_that_breaks_in_use_is_unavailable_once(database: Database, database_url: str) -> None:
    async with database.snapshot("default") as snapshot:
        ((pid,),) = await snapshot.fetch(BACKEND)
        end(database_url, pid)
        for _ in range(2):
            with pytest.raises(Unavailable, match="cannot be reached"):
                await snapshot.fetch(COUNT)

    async def break_before_commit() -> None:
        async with database.transaction("default") as session:
            await session.fetch(NOTE)
            end(database_url, (await session.fetch(BACKEND))[0][0])

    with pytest.raises(Unavailable, match="may or may not be stored"):
        await break_before_commit()
    assert await ask(database, COUNT) == 0


async def test_when_every_connection_is_taken_the_wait_has_an_end(database_url: str) -> None:
    database = Database(database_url, replace(LIMITS, wait_seconds=0.2))
    await database.open()
    async with database.transaction("default"):
        with pytest.raises(Unavailable, match="it is away, or all are busy"):
            await ask(database, BACKEND)
    assert await ask(database, BACKEND) > 0
    await database.close()


async def test_moments_are_utc_whatever_the_time_zone_of_the_session(database_url: str) -> None:
    for zone in ("UTC", "Asia/Kolkata", "America/St_Johns", "Pacific/Kiritimati"):
        database = Database(f"{database_url}&options=-ctimezone%3D{zone}", LIMITS)
        await database.open()
        assert await ask(database, query("show timezone")) == zone
        for moment in (
            datetime(2026, 11, 23, 20, 9, 0, 123456, tzinfo=UTC),
            datetime(2000, 1, 1, tzinfo=UTC),
            datetime(1999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
            datetime(1, 1, 1, tzinfo=UTC),
            datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        ):
            found = await ask(database, query("select $1::timestamptz"), moment)
            assert (found, found.utcoffset()) == (moment, timedelta(0))
        await database.close()


async def _settings_of(database: Database) -> tuple[bool, int | None]:
    connection: AsyncConnection[Any] = await database.begin("begin", "default")
    try:
        return database.pooled, connection.prepare_threshold
    finally:
        await database.rollback(connection)


async def test_statements_are_prepared_and_planned_once_where_the_server_is_spoken_to_directly(
    database: Database,
) -> None:
    assert await _settings_of(database) == (False, 0)
    for _ in range(3):
        await ask(database, COUNT)
    text = "select statement, generic_plans, custom_plans from pg_prepared_statements where statement = $1"
    async with database.snapshot("default") as snapshot:
        assert await snapshot.fetch(query(text), COUNT.text) == [(COUNT.text, 3, 0)]


async def test_behind_a_pooler_nothing_is_prepared(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pooler is seen by its answer: the process that greets is not the one that works."""
    monkeypatch.setattr("psycopg.ConnectionInfo.backend_pid", property(lambda _: 1))
    database = Database(database_url, LIMITS)
    assert not database.pooled
    await database.open()
    assert await _settings_of(database) == (True, None)
    assert await ask(database, query("select count(*) from pg_prepared_statements")) == 0
    await database.close()


@pytest.mark.parametrize(
    ("host", "pooled"), [("ep-x-pooler.example.com", True), ("db.example.com", False), ("", False), ("pooler", False)]
)
def test_a_pooler_is_also_known_by_its_name(host: str, *, pooled: bool) -> None:
    assert Database(f"postgresql://user:a-pooler@{host}/name-pooler", LIMITS).pooled is pooled


@pytest.mark.parametrize(
    ("host", "size", "lanes"), [("db", 2, True), ("db", 0, False), ("ep-x-pooler.example", 2, False)]
)
def test_lanes_are_there_unless_a_pooler_is_named_or_nobody_wants_them(host: str, size: int, *, lanes: bool) -> None:
    database = Database(f"postgresql://user@{host}/name", replace(LIMITS, lane_size=size, append_lane_size=size))
    assert (database.lane is not None, database.append_lane is not None) == (lanes, lanes)
