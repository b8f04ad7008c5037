"""API keys as a process knows them: one lookup for many, forgotten in seconds, one answer for whatever is wrong."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from io import StringIO

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.api_key import ApiKeyRecord
from db.errors import StoreError, Unavailable
from db.pool import Database, PoolLimits
from graphql_api import log
from graphql_api.api_keys import KNOWN_SECONDS, REFUSED_MAX, ApiKeys
from graphql_api.settings import Settings
from schema import api_key, api_key_text
from schema.errors import Unauthenticated
from schema.principal import Principal, Scope
from tests.conftest import copied

# One line: another one might still be preparing its statements, and wait for the locks of a test.
LIMITS = PoolLimits(size_min=1, size_max=4, wait_seconds=20, connect_seconds=5, statement_seconds=30, lane_size=1)
NO_LANE = PoolLimits(size_min=1, size_max=4, wait_seconds=20, connect_seconds=5, statement_seconds=30)
TENANT = "acme"
WAIT_SECONDS = 30


@asynccontextmanager
async def opened(url: str, limits: PoolLimits = LIMITS) -> AsyncIterator[tuple[Database, ApiKeys]]:
    database = Database(url, limits)
    keys = ApiKeys(database)
    await database.open()
    await database.lanes_ready(WAIT_SECONDS)
    keys.open()
    try:
        yield database, keys
    finally:
        await keys.close()
        await database.close()


@pytest.fixture
async def process(database_url: str) -> AsyncIterator[tuple[Database, ApiKeys]]:
    async with opened(database_url) as found:
        yield found


@pytest.fixture
async def unlaned(database_url: str) -> AsyncIterator[tuple[Database, ApiKeys]]:
    """Give a process whose lookups are connections of their own, so that they can be counted."""
    async with opened(database_url, NO_LANE) as found:
        yield found


async def make(
    database: Database,
    tenant_id: str = TENANT,
    *scopes: Scope,
    expires_at: datetime | None = None,
) -> tuple[ApiKeyRecord, str]:
    async with database.transaction(tenant_id) as session:
        return await api_key.make(session, tenant_id, "a key", scopes or (Scope.READ,), expires_at)


def change(url: str, assignment: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"update api_keys set {assignment}".encode())  # noqa: S608 - the test's own


def last_uses(url: str) -> list[datetime | None]:
    with psycopg.connect(url) as connection:
        found = connection.execute("select last_used_at from api_keys order by last_used_at").fetchall()
    return [used_at for (used_at,) in found]


async def refusal(keys: ApiKeys, token: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        await keys.principal(token)
    return caught.value.message


@contextmanager
def locked(url: str, statement: str = "lock table api_keys in access exclusive mode") -> Iterator[psycopg.Connection]:
    """Let whoever asks the table wait."""
    with psycopg.connect(url) as connection:
        connection.execute(statement.encode())
        yield connection


async def waiting(url: str, count: int) -> int:
    """Wait until so many statements wait for a lock; gives how many do."""
    deadline = time.monotonic() + WAIT_SECONDS
    with psycopg.connect(url, autocommit=True) as connection:
        while True:
            ((found,),) = connection.execute(
                "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
            ).fetchall()
            if found >= count or time.monotonic() > deadline:
                return int(found)
            await asyncio.sleep(0.01)


async def test_a_key_stands_for_its_tenant_with_its_scopes(process: tuple[Database, ApiKeys]) -> None:
    database, keys = process
    record, key = await make(database, TENANT, Scope.WRITE, Scope.ACT_AS)
    wanted = Principal(TENANT, frozenset({Scope.WRITE, Scope.ACT_AS}), f"key {record.id}")
    assert [await keys.principal(key) for _ in range(3)] == [wanted] * 3


async def test_without_a_lane_keys_are_looked_up_through_the_pool(database_url: str) -> None:
    async with opened(database_url, NO_LANE) as (database, keys):
        record, key = await make(database)
        assert (await keys.principal(key)).credential == f"key {record.id}"


async def test_whatever_is_wrong_with_a_key_is_answered_alike_and_logged_apart_without_it(
    process: tuple[Database, ApiKeys], database_url: str, settings: Settings
) -> None:
    database, keys = process
    record, revoked = await make(database)
    change(database_url, "revoked_at = now()")
    _, expired = await make(database, expires_at=datetime.now(UTC) + timedelta(days=1))
    change(database_url, "expires_at = now() - interval '1 millisecond' where revoked_at is null")
    _, good = await make(database)
    tokens = {
        "unknown": api_key_text.make(TENANT, uuid.uuid4()),
        "its secret is wrong": good[:-43] + revoked[-43:],
        "revoked": revoked,
        "expired": expired,
        "malformed": good[:-1],
    }
    stream = StringIO()
    log.configure(settings.model_copy(update={"log_level": "info", "log_format": "json"}), stream)
    assert len({await refusal(keys, token) for token in tokens.values()}) == 1
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["why"] for line in lines] == list(tokens)
    told = lines[2]
    assert (told["key"], told["tenant"], told["level"]) == (str(record.id), TENANT, "warning")
    assert "tenant" not in lines[4]
    assert [token for token in tokens.values() if token[-43:] in stream.getvalue()] == []
    assert (await keys.principal(good)).tenant_id == TENANT


async def test_a_key_opens_nothing_under_the_name_of_another_tenant_or_key(process: tuple[Database, ApiKeys]) -> None:
    database, keys = process
    _, mine = await make(database, "mine")
    _, theirs = await make(database, "theirs")
    parts, others = mine.split("."), theirs.split(".")
    for swapped in (
        [others[0], *parts[1:]],
        [parts[0], others[1], parts[2]],
        [*others[:2], parts[2]],
        [parts[0], others[1], others[2]],
    ):
        await refusal(keys, ".".join(swapped))
    assert {(await keys.principal(key)).tenant_id for key in (mine, theirs)} == {"mine", "theirs"}


async def test_many_who_show_a_key_at_the_same_time_cost_one_lookup_and_may_give_up(
    unlaned: tuple[Database, ApiKeys], database_url: str
) -> None:
    database, keys = unlaned
    _, key = await make(database)
    with locked(database_url) as connection:
        asking = [asyncio.create_task(keys.principal(key)) for _ in range(50)]
        assert await waiting(database_url, 1) == 1
        asking[0].cancel()  # the one that began the lookup
        asking[1].cancel()
        await asyncio.wait(asking[:2])
        assert len(keys._flights) == 1  # noqa: SLF001 - what is under way
        connection.rollback()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(answer) for answer in answers[:2]] == [asyncio.CancelledError] * 2
    # Where the machine was so slow that it would be stale, nobody is let in.
    assert {type(answer) for answer in answers[2:]} in ({Principal}, {Unavailable})
    assert keys._flights == {}  # noqa: SLF001 - the same


async def test_a_lookup_that_everybody_has_given_up_on_ends_in_silence(
    unlaned: tuple[Database, ApiKeys], database_url: str
) -> None:
    _, keys = unlaned
    key = api_key_text.make(TENANT, uuid.uuid4())
    with locked(database_url):
        asking = asyncio.create_task(keys.principal(key))
        assert await waiting(database_url, 1) == 1
        asking.cancel()
        await asyncio.wait([asking])
        (flight,) = keys._flights.values()  # noqa: SLF001 - what is under way
    await asyncio.wait([flight.task], timeout=WAIT_SECONDS)
    assert flight.task.done()
    await refusal(keys, key)


async def test_a_lookup_that_took_too_long_lets_nobody_in_and_tells_nobody_that_the_key_is_wrong(
    unlaned: tuple[Database, ApiKeys], database_url: str
) -> None:
    database, keys = unlaned
    _, key = await make(database)
    with locked(database_url) as connection:
        began = time.monotonic()
        first = asyncio.create_task(keys.principal(key))
        assert await waiting(database_url, 1) == 1
        await asyncio.wait([first], timeout=began + KNOWN_SECONDS + 0.1 - time.monotonic())
        second = asyncio.create_task(keys.principal(key))  # it does not join, and so may be let in
        await waiting(database_url, 2)
        connection.rollback()
    with pytest.raises(Unavailable, match="whose key this is"):
        await first
    assert (await second).tenant_id == TENANT


async def test_what_is_known_asks_nothing_and_is_forgotten_in_time(
    process: tuple[Database, ApiKeys], database_url: str
) -> None:
    database, keys = process
    _, key = await make(database)
    began = time.monotonic()
    await keys.principal(key)
    with locked(database_url):
        admitted = began
        while (now := time.monotonic()) < began + KNOWN_SECONDS + 0.1:
            asking = asyncio.create_task(keys.principal(key))
            _, late = await asyncio.wait([asking], timeout=0.2)
            if late:  # it asks, and waits
                asking.cancel()
                break
            admitted = now
        assert admitted < began + KNOWN_SECONDS + 0.1
        assert await waiting(database_url, 1) == 1


async def test_a_key_that_is_revoked_is_refused_by_every_process_within_5_seconds(database_url: str) -> None:
    async with opened(database_url) as (database, here), opened(database_url) as (_, there):
        _, key = await make(database)
        await asyncio.gather(here.principal(key), there.principal(key))
        change(database_url, "revoked_at = now() - interval '1 day'")
        revoked_at = time.monotonic()
        for keys in (here, there):
            while True:
                asked_at = time.monotonic()
                try:
                    await keys.principal(key)
                except Unauthenticated:
                    break
                # Not how fast this machine is: whoever began to ask so late is let in by none, however slow.
                assert asked_at - revoked_at < 5
                await asyncio.sleep(0.05)


async def test_a_key_that_expires_is_not_known_for_longer_than_that(database_url: str) -> None:
    async with opened(database_url) as (database, keys):
        _, key = await make(database)
        change(database_url, "expires_at = now() + interval '1.5 seconds'")
        over_at = time.monotonic() + 1.5
        while True:
            asked_at = time.monotonic()
            try:
                await keys.principal(key)
            except Unauthenticated:
                break
            assert asked_at < over_at
            await asyncio.sleep(0.02)


async def test_while_the_database_is_away_nobody_is_let_in_or_told_that_a_key_is_wrong(
    postgres: str, template: str
) -> None:
    with copied(postgres, template) as url:
        limits = PoolLimits(1, 2, wait_seconds=1, connect_seconds=5, statement_seconds=5, lane_size=1)
        async with opened(url, limits) as (database, keys):
            _, known = await make(database)
            _, unknown = await make(database)
            name = database.url.rpartition("/")[2].partition("?")[0]
            asked_at = time.monotonic()
            await keys.principal(known)
            with psycopg.connect(postgres, autocommit=True) as connection:
                connection.execute(f"alter database {name} allow_connections false".encode())
                connection.execute(
                    "select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = %s", [name]
                )
                for token in (unknown, api_key_text.make(TENANT, uuid.uuid4())):
                    with pytest.raises(StoreError):
                        await keys.principal(token)
                if time.monotonic() < asked_at + KNOWN_SECONDS - 0.5:
                    assert (await keys.principal(known)).tenant_id == TENANT
                connection.execute(f"alter database {name} allow_connections true".encode())
            deadline = time.monotonic() + WAIT_SECONDS
            while True:
                try:
                    assert (await keys.principal(unknown)).tenant_id == TENANT
                    break
                except StoreError:
                    assert time.monotonic() < deadline
                    await asyncio.sleep(0.05)


async def test_a_flood_of_unknown_keys_pushes_out_nobody_and_fills_nothing(
    process: tuple[Database, ApiKeys],
) -> None:
    database, keys = process
    _, good = await make(database)
    principal = await keys.principal(good)
    for _ in range(12):
        flood = [keys.principal(api_key_text.make(TENANT, uuid.uuid4())) for _ in range(100)]
        answers = await asyncio.gather(*flood, return_exceptions=True)
        assert {type(answer) for answer in answers} == {Unauthenticated}
        assert await keys.principal(good) == principal
    assert len(keys._refused) == REFUSED_MAX  # noqa: SLF001 - what is remembered
    assert len(keys._known) == 1  # noqa: SLF001 - the same
    assert len(keys._uses._noted) == 1  # noqa: SLF001 - the same


async def test_a_use_is_written_later_and_no_request_waits_for_that(database_url: str) -> None:
    async with opened(database_url) as (database, keys):
        _, key = await make(database)
        await make(database)
        with locked(database_url, "update api_keys set name = name"):  # whoever writes these rows waits
            await keys.principal(key)
            assert last_uses(database_url) == [None, None]
    used_at, never = last_uses(database_url)
    assert never is None
    assert used_at is not None
    assert abs(datetime.now(UTC) - used_at) < timedelta(minutes=5)


async def test_uses_that_cannot_be_written_are_written_later(database_url: str) -> None:
    limits = PoolLimits(1, 2, wait_seconds=20, connect_seconds=5, statement_seconds=3)
    async with opened(database_url, limits) as (database, keys):
        made = {tenant: (await make(database, tenant))[1] for tenant in ("first", "second", "third")}
        for key in made.values():
            await keys.principal(key)
        with locked(database_url, "update api_keys set name = name where tenant_id = 'first'"):
            await keys._uses.write()  # noqa: SLF001 - what it does every now and then
            assert [used_at is None for used_at in last_uses(database_url)] == [False, False, True]
        await keys._uses.write()  # noqa: SLF001 - the same
        assert None not in last_uses(database_url)
        assert keys._uses._noted == {}  # noqa: SLF001 - the same


async def test_the_end_waits_for_no_database_that_does_not_answer(database_url: str) -> None:
    async with opened(database_url) as (database, keys):
        _, key = await make(database)
        await keys.principal(key)
        with locked(database_url):
            await asyncio.wait_for(keys.close(), WAIT_SECONDS)
        assert last_uses(database_url) == [None]


@pytest.fixture(scope="module")
def mangling(postgres: str, template: str) -> Iterator[tuple[asyncio.Runner, ApiKeys, str]]:
    """Give a process that knows one key, for examples that have no fixtures of their own."""
    with copied(postgres, template) as url, asyncio.Runner() as runner:
        context = opened(url)
        database, keys = runner.run(context.__aenter__())
        _, key = runner.run(make(database))
        yield runner, keys, key
        runner.run(context.__aexit__(None, None, None))


@given(st.data())
def test_no_other_text_than_the_key_opens_anything_or_breaks_anything(
    mangling: tuple[asyncio.Runner, ApiKeys, str], data: st.DataObject
) -> None:
    runner, keys, key = mangling
    start = data.draw(st.integers(0, len(key)))
    end = data.draw(st.integers(start, len(key)))
    inserted = data.draw(st.text(max_size=5) | st.text("fpk_.=-AZaz09", max_size=5) | st.just(key[start:end][::-1]))
    mangled = key[:start] + inserted + key[end:]
    if mangled == key:
        assert runner.run(keys.principal(mangled)).tenant_id == TENANT
    else:
        assert "opens nothing" in runner.run(refusal(keys, mangled))
