"""API keys in the database: found by tenant and id only, over by its clock, and used later and later."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import psycopg
import pytest
from psycopg import errors, sql

import db.api_key
from db.api_key import Found, New
from db.call import Recorder
from db.context import LATEST, MAX
from db.pool import Database, PoolLimits

LIMITS = PoolLimits(size_min=1, size_max=4, wait_seconds=20, connect_seconds=5, statement_seconds=30, lane_size=1)
TENANT, OTHER = "acme", "other"
HASH = bytes(range(32))


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, LIMITS)
    await database.open()
    await database.lanes_ready(20)
    yield database
    await database.close()


async def make(
    database: Database, *, tenant_id: str = TENANT, key_id: UUID | None = None, expires_at: datetime | None = None
) -> UUID:
    key_id = key_id or uuid.uuid4()
    async with database.transaction(tenant_id) as session:
        await db.api_key.create(session, tenant_id, New(key_id, HASH, "a key", ["read", "write"], expires_at))
    return key_id


async def find(database: Database, key_id: UUID, tenant_id: str = TENANT) -> Found | None:
    async with database.snapshot(tenant_id) as snapshot:
        return await db.api_key.find(snapshot, tenant_id, key_id)


async def last_used_at(database: Database, key_id: UUID) -> datetime | None:
    async with database.snapshot(TENANT) as snapshot:
        found = await db.api_key.page(snapshot, TENANT, (LATEST, MAX), 1_000)
    return {record.id: record.last_used_at for record in found}[key_id]


async def note(database: Database, *ago: tuple[UUID, int], tenant_id: str = TENANT) -> None:
    async with database.transaction(tenant_id) as session:
        await db.api_key.note_uses(session, tenant_id, dict(ago))


async def test_a_key_is_found_over_the_lane_as_over_the_pool(database: Database) -> None:
    key_id = await make(database, expires_at=datetime(9000, 1, 1, tzinfo=UTC))
    assert database.lane is not None
    (over_lane,) = await database.lane.run(TENANT, db.api_key.find(Recorder(), TENANT, key_id))
    over_pool = await find(database, key_id)
    assert over_pool is not None
    assert over_lane[:3] == over_pool[:3] == (HASH, ["read", "write"], False)
    years = (9000 - datetime.now(UTC).year) * 365 * 86_400
    assert years - 366 * 86_400 < (over_lane.seconds_left or 0) < years * 1.01


async def test_a_key_is_found_in_its_tenant_only_also_where_another_one_has_the_same_id(database: Database) -> None:
    key_id = await make(database)
    assert await find(database, key_id, OTHER) is None
    await make(database, tenant_id=OTHER, key_id=key_id)
    async with database.transaction(OTHER) as session:
        assert await db.api_key.revoke(session, OTHER, key_id)
    mine, theirs = await find(database, key_id), await find(database, key_id, OTHER)
    assert mine is not None
    assert theirs is not None
    assert (mine.revoked, theirs.revoked) == (False, True)


@pytest.mark.parametrize(("seconds", "left"), [(-0.4, -1), (-3600, -3600), (3600, 3599)])
async def test_the_time_left_is_that_of_the_database_s_clock_rounded_down(
    database: Database, database_url: str, seconds: float, left: int
) -> None:
    key_id = await make(database)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("update api_keys set expires_at = now() + make_interval(secs => %s)", [seconds])
    found = await find(database, key_id)
    assert found is not None
    assert found.seconds_left is not None
    # Time goes on between the two statements.
    assert left - 60 <= found.seconds_left <= left
    assert (found.seconds_left < 0) == (seconds < 0)


async def test_the_last_use_only_grows_whoever_says_it_last(database: Database) -> None:
    key_id = await make(database)
    assert await last_used_at(database, key_id) is None
    await note(database, (key_id, 60_000))
    first = await last_used_at(database, key_id)
    assert first is not None
    await note(database, (key_id, 3_600_000))
    assert await last_used_at(database, key_id) == first
    await note(database, (key_id, 0))
    newest = await last_used_at(database, key_id)
    assert newest is not None
    assert newest - first >= timedelta(seconds=59)


async def test_uses_of_many_keys_by_many_processes_meet_without_deadlock_and_leave_other_tenants_alone(
    database: Database,
) -> None:
    ids = [await make(database) for _ in range(20)]
    stranger = await make(database, tenant_id=OTHER)
    rounds = [[(key_id, 1) for key_id in ids[shift:] + ids[:shift]] for shift in range(0, 20, 3)]
    await asyncio.gather(*(note(database, *uses, (stranger, 1), (uuid.uuid4(), 1)) for uses in rounds))
    assert None not in [await last_used_at(database, key_id) for key_id in ids]
    async with database.snapshot(OTHER) as snapshot:
        (of_other,) = await db.api_key.page(snapshot, OTHER, (LATEST, MAX), 10)
    assert of_other.last_used_at is None


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("scopes", "'{}'"),
        ("scopes", "'{read,root}'"),
        ("scopes", "'{read,read,read,read,read}'"),
        ("name", "''"),
        ("name", "repeat('x', 256)"),
        ("key_hash", r"'\x00'"),
    ],
)
async def test_what_is_no_key_cannot_be_stored(database: Database, database_url: str, column: str, value: str) -> None:
    await make(database)
    with psycopg.connect(database_url) as connection, pytest.raises(errors.CheckViolation):
        connection.execute(f"update api_keys set {column} = {value}".encode())  # noqa: S608 - the test's own


async def test_postgresql_shows_a_transaction_the_keys_of_the_tenant_that_it_has_named(
    database: Database, database_url: str
) -> None:
    """Also where a statement forgets the tenant; superusers, such as the one of these tests, see everything."""
    mine, theirs = await make(database), await make(database, tenant_id=OTHER)
    role = sql.Identifier(f"service_{uuid.uuid4().hex}")
    seen: dict[str, list[UUID]] = {}
    with psycopg.connect(database_url) as connection:
        connection.execute(sql.SQL("create role {}").format(role))
        connection.execute(sql.SQL("grant select, insert, update on api_keys to {}").format(role))
        connection.execute(sql.SQL("set role {}").format(role))
        for tenant_id in ("", TENANT, OTHER, "*"):
            connection.execute("select set_config('forkpoint.tenant', %s, true)", [tenant_id])
            seen[tenant_id] = [key_id for (key_id,) in connection.execute("select id from api_keys").fetchall()]
        connection.execute("select set_config('forkpoint.tenant', %s, true)", [TENANT])
        assert connection.execute("update api_keys set revoked_at = now()").rowcount == 1
        with pytest.raises(errors.InsufficientPrivilege):
            connection.execute("update api_keys set tenant_id = 'other'")
        connection.rollback()
    assert {tenant_id: set(ids) for tenant_id, ids in seen.items()} == {
        "": set(),
        TENANT: {mine},
        OTHER: {theirs},
        "*": {mine, theirs},
    }


async def test_lists_and_lookups_follow_an_index(database_url: str) -> None:
    def plan(name: str, *parameters: str) -> str:
        query = db.api_key._QUERIES[name]  # noqa: SLF001 - the statement itself
        connection.execute(f"prepare asked as {query.text}".encode())
        lines = connection.execute(f"explain execute asked ({', '.join(parameters)})".encode()).fetchall()
        connection.execute("deallocate asked")
        return "\n".join(line for (line,) in lines)

    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into api_keys (tenant_id, id, key_hash, name, scopes, created_at) "
            "select tenant, gen_random_uuid(), sha256(''), 'n', '{read}', now() - n * interval '1 minute' "
            "from unnest(array['acme', 'other']) tenant, generate_series(1, 5000) n"
        )
        connection.execute("analyze api_keys")
        connection.execute("set plan_cache_mode = 'force_generic_plan'")
        found = plan("find", "'acme'", "gen_random_uuid()")
        assert "Index Scan using api_keys_pkey" in found
        page = plan("page", "'acme'", "now()", "gen_random_uuid()", "11")
        assert "Index Scan Backward using api_keys_created_at_idx" in page
        assert "Sort" not in page
