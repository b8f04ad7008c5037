"""What the named queries touch, as EXPLAIN counts it: rows and buffers follow what is returned, never the history."""

import asyncio
import math
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
import pytest
import uuid_utils.compat
from psycopg import sql

import db.context
import db.lineage
import db.message
from db import queries
from db.context import EARLIEST, LAST_NAME, LATEST, MAX, NIL, Direction, Order
from db.pool import Database, PoolLimits, Session
from db.queries import Query
from db.records import EVERY_COLUMN, NewMessage
from tests.conftest import with_database

TENANT = "default"
LONG = 100_000
LISTED = 5_000
DEPTH = 1_000
STEP = 3  # messages that each fork of the chain adds
PAGE = 50
LIMIT = PAGE + 1  # one row more tells whether there is more
BUFFERS_OF_A_SEEK = 5  # an index of this size is three or four pages high, then comes the row

Node = dict[str, Any]


@dataclass(frozen=True)
class World:
    """A database with long histories, and the contexts in it."""

    url: str
    long: UUID
    long_tip: UUID
    long_middle: UUID
    late: UUID  # as long; its last message answers a call that its tenth makes
    chain: list[UUID]  # by depth
    parent: UUID

    def moment(self, reader: UUID, version: int) -> datetime:
        """Tell when a version was appended."""

        async def ask() -> datetime:
            async with opened(self.url) as database, database.snapshot() as snapshot:
                place = db.lineage.Place(reader, version - 1, version + 1)
                ((found,),) = await db.lineage.page(snapshot, TENANT, [place], 1, newest_first=False, roles=None)
                return found.created_at

        return asyncio.run(ask())


class Plan:
    """A statement that was run, and what each node of its plan did."""

    def __init__(self, explained: list[dict[str, Any]]) -> None:
        (self.top,) = explained
        self.nodes = list(_walk(self.top["Plan"]))

    @property
    def buffers(self) -> int:
        root = self.top["Plan"]
        return int(root["Shared Hit Blocks"] + root["Shared Read Blocks"])

    def scans(self, table: str) -> list[Node]:
        return [node for node in self.nodes if node.get("Relation Name") == table]

    def rows_read(self, table: str) -> int:
        """Count the rows that came out of a table and those that a filter threw away."""
        # Rows are averages over the loops, rounded.
        return int(
            sum(
                (
                    node["Actual Rows"]
                    + node.get("Rows Removed by Filter", 0)
                    + node.get("Rows Removed by Index Recheck", 0)
                )
                * node["Actual Loops"]
                for node in self.scans(table)
            )
        )

    @property
    def walked(self) -> int:
        """Count the contexts that the recursive walk visited."""
        return int(
            sum(
                node["Actual Rows"] * node["Actual Loops"]
                for node in self.nodes
                if node["Node Type"] == "Recursive Union"
            )
        )

    def assert_only_indexes(self) -> None:
        used = {
            (node["Relation Name"], node["Node Type"]) for node in self.nodes if node.get("Relation Name") is not None
        }
        assert {kind for _, kind in used} <= {"Index Scan", "Index Only Scan", "ModifyTable"}, used
        assert "JIT" not in self.top, "compiling takes longer than the statement"


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.get("Plans", ()):
        yield from _walk(child)


def message(number: int) -> NewMessage:
    return NewMessage(uuid_utils.compat.uuid7(), "user", f"message {number}", None, None, None, 7, None, "{}")


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """Give a database over one connection."""
    database = Database(
        url, PoolLimits(size_min=1, size_max=1, wait_seconds=30, connect_seconds=5, statement_seconds=30)
    )
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def grow(url: str) -> list[UUID]:
    """Make a chain of forks, each of the tip of the one before, through the functions that the service uses."""
    chain: list[UUID] = []
    async with opened(url) as database, database.transaction() as session:
        made = await db.context.create(session, TENANT, uuid_utils.compat.uuid7(), "chain", "{}")
        for _ in range(DEPTH + 1):
            tip = await db.message.append(session, TENANT, made.id, [message(n) for n in range(STEP)])
            assert tip is not None
            chain.append(tip.id)
            made = await db.context.fork(session, TENANT, uuid_utils.compat.uuid7(), tip, None, None, "{}")
    return chain


async def fork_long(url: str, long: UUID) -> tuple[UUID, UUID]:
    """Fork the long context at its tip and in its middle."""
    async with opened(url) as database, database.transaction() as session:
        (record,) = await db.context.by_ids(session, TENANT, [long])
        tip, middle = [
            await db.context.fork(session, TENANT, uuid_utils.compat.uuid7(), record, version, None, "{}")
            for version in (None, LONG // 2)
        ]
    return tip.id, middle.id


def load(connection: psycopg.Connection[Any], long: UUID, late: UUID, parent: UUID) -> None:
    """Load in bulk what would take too long message by message."""
    connection.execute("insert into trees (tenant_id, id) values (%s, %s), (%s, %s)", [TENANT, long, TENANT, parent])
    connection.execute(
        "insert into contexts (tenant_id, id, root_id, latest_version, message_count, total_tokens, running_tokens) "
        "values (%s, %s, %s, %s, %s, %s, %s)",
        [TENANT, long, long, LONG, LONG - LONG // 1000, 7 * (LONG - LONG // 1000), 7 * LONG],
    )
    connection.execute(
        "insert into messages (tenant_id, id, context_id, version, created_at, role, token_count, running_tokens, "
        "content, deleted_at) "
        "select %s, gen_random_uuid(), %s, n, now(), 'user', 7, 7 * n, repeat('word ', 20), "
        "case when n %% 1000 = 500 then now() end from generate_series(1, %s) n",
        [TENANT, long, LONG],
    )
    connection.execute(
        "insert into contexts (tenant_id, id, root_id, name) values (%s, %s, %s, 'parent')", [TENANT, parent, parent]
    )
    connection.execute(
        "insert into contexts (tenant_id, id, root_id, name, parent_id, fork_version, depth, created_at, updated_at) "
        "select %s, gen_random_uuid(), %s, 'name ' || n, %s, 0, 1, moment, moment "
        "from generate_series(1, %s) n, lateral (select now() - n * interval '1 second') as t (moment)",
        [TENANT, parent, parent, LISTED],
    )
    # One key a minute, and as many of somebody else.
    connection.execute(
        "insert into idempotency_keys (tenant_id, scope_id, key, request_hash, result_id, message_count, created_at) "
        "select tenant, gen_random_uuid(), n, sha256(''), gen_random_uuid(), 1, now() - n * interval '1 minute' "
        "from unnest(array[%s, 'other']) tenant, generate_series(1, %s) n",
        [TENANT, LISTED],
    )
    connection.execute("insert into trees (tenant_id, id) values (%s, %s)", [TENANT, late])
    connection.execute(
        "insert into contexts (tenant_id, id, root_id, latest_version, message_count, total_tokens, running_tokens) "
        "values (%s, %s, %s, %s, %s, %s, %s)",
        [TENANT, late, late, LONG, LONG, 7 * LONG, 7 * LONG],
    )
    connection.execute(
        "insert into messages (tenant_id, id, context_id, version, created_at, role, token_count, running_tokens, "
        "content, tool_call_id, call_version) "
        "select %s, gen_random_uuid(), %s, n, now(), case when tool then 'tool' else 'assistant' end, 7, 7 * n, "
        "repeat('word ', 20), case when tool then 'call' end, case when n = %s then 10 when tool then n - 1 end "
        "from generate_series(1, %s) n, lateral (select n %% 4 = 0) as t (tool)",
        [TENANT, late, LONG, LONG],
    )
    # Others' rows stand in the same tables.
    connection.execute("insert into trees (tenant_id, id) values ('other', %s)", [parent])
    connection.execute(
        "insert into contexts (tenant_id, id, root_id, name) "
        "select 'other', gen_random_uuid(), %s, 'name ' || n from generate_series(1, %s) n",
        [parent, LISTED],
    )


@pytest.fixture(scope="module")
def world(postgres: str, template: str) -> Iterator[World]:
    database = f"plans_{uuid.uuid4().hex}"
    name = sql.Identifier(database)
    with psycopg.connect(postgres, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {} template {}").format(name, sql.Identifier(template)))
        url = with_database(postgres, database)
        long, late, parent = (uuid_utils.compat.uuid7() for _ in range(3))
        with psycopg.connect(url) as connection:
            load(connection, long, late, parent)
        chain = asyncio.run(grow(url))
        tip, middle = asyncio.run(fork_long(url, long))
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("vacuum analyze")
        yield World(url, long, tip, middle, late, chain, parent)
        admin.execute(sql.SQL("drop database {} with (force)").format(name))


class Explain:
    """Runs named queries with plans of one kind, and undoes what they write."""

    def __init__(self, connection: psycopg.Connection[Any], mode: str) -> None:
        self._connection = connection
        connection.execute(sql.SQL("set plan_cache_mode = {}").format(mode))

    def __call__(self, stem: str, name: str, *parameters: Any) -> Plan:
        query = queries.load(stem)[name]
        explaining = sql.SQL("explain (analyze, buffers, format json) execute explained ({})").format(
            sql.SQL(", ").join(map(sql.Literal, parameters))
        )
        with self._connection.transaction(force_rollback=True):
            self._connection.execute(sql.SQL("prepare explained as {}").format(sql.SQL(query.text)))
            with self._connection.transaction(force_rollback=True):
                self._connection.execute(explaining)  # reads the catalogue, which the next run need not
            row = self._connection.execute(explaining).fetchone()
            self._connection.execute("deallocate explained")
        assert row is not None
        return Plan(row[0])

    def window(self, context_id: UUID, version: int, budget: int, step: int = 0) -> Plan:
        return self(
            "window",
            "fit",
            TENANT,
            [context_id],
            [version],
            [7 * version],
            [budget],
            [step],
            [True],
            10_001,
            *EVERY_COLUMN,
        )

    def page(self, context_id: UUID, after: int | None, before: int | None, limit: int, *, newest_first: bool) -> Plan:
        return self(
            "lineage", "page", TENANT, [context_id], [after], [before], limit, newest_first, None, 1, *EVERY_COLUMN
        )


@pytest.fixture(params=["force_generic_plan", "force_custom_plan"])
def explain(world: World, request: pytest.FixtureRequest) -> Iterator[Explain]:
    """Explain plans that fit any parameters, and those made for known ones: PostgreSQL chooses between them."""
    with psycopg.connect(world.url, prepare_threshold=None) as connection:
        yield Explain(connection, request.param)


@pytest.fixture
def explain_batch(world: World) -> Iterator[Explain]:
    """Explain plans for any parameters: knowing a hundred ids, the planner may well scan a table as small as this."""
    with psycopg.connect(world.url, prepare_threshold=None) as connection:
        yield Explain(connection, "force_generic_plan")


@pytest.fixture
def explain_list(world: World) -> Iterator[Explain]:
    """Explain plans made for known parameters: a filter that is null must be gone before the plan is chosen."""
    with psycopg.connect(world.url, prepare_threshold=None) as connection:
        yield Explain(connection, "force_custom_plan")


class Reach(NamedTuple):
    """A page: where it lies in a lineage of some versions, as (after, before, limit, newest_first)."""

    name: str

    def place(self, latest: int) -> tuple[int | None, int | None, int, bool]:
        match self.name:
            case "first":
                return None, None, LIMIT, False
            case "last":
                return None, None, LIMIT, True
            case "middle":
                return latest // 2, None, LIMIT, False
            case "middle, backwards":
                return None, latest // 2, LIMIT, True
            case _:
                return latest // 3, latest // 3 + 2, 1, False


REACHES = [Reach("first"), Reach("last"), Reach("middle"), Reach("middle, backwards"), Reach("one version")]
reaching = pytest.mark.parametrize("reach", REACHES, ids=lambda reach: reach.name)


def assert_page_is_cheap(plan: Plan, limit: int, contributing: float, depth: int) -> None:
    """Check a page of `limit` messages out of `contributing` contexts, read through a context of some depth."""
    plan.assert_only_indexes()
    # As wide again where messages were deleted.
    assert plan.rows_read("messages") <= 2 * limit
    # A skew-binary jump list is left behind in at most about three steps for each power of two.
    walk_max = contributing + 3 * math.log2(depth + 2) + 2
    assert plan.walked <= walk_max
    assert plan.rows_read("contexts") <= walk_max + 1
    assert plan.buffers <= BUFFERS_OF_A_SEEK * (walk_max + contributing + 2) + 2 * limit


@reaching
@pytest.mark.parametrize("depth", [0, 1, 10, 100, DEPTH])
def test_a_page_of_a_chain_of_forks_visits_who_contributes(
    world: World, explain: Explain, depth: int, reach: Reach
) -> None:
    after, before, limit, newest_first = reach.place(STEP * (depth + 1))
    plan = explain.page(world.chain[depth], after, before, limit, newest_first=newest_first)
    contributing = min(depth + 1, 2 * limit / STEP + 1) if limit > 1 else 1
    assert_page_is_cheap(plan, limit, contributing, depth)


@reaching
@pytest.mark.parametrize("reader", ["long", "long_tip", "long_middle"])
def test_a_page_of_a_hundred_thousand_messages_reads_a_page(
    world: World, explain: Explain, reader: str, reach: Reach
) -> None:
    latest = LONG // 2 if reader == "long_middle" else LONG
    after, before, limit, newest_first = reach.place(latest)
    plan = explain.page(getattr(world, reader), after, before, limit, newest_first=newest_first)
    assert_page_is_cheap(plan, limit, 1, 1)


def test_pages_of_many_contexts_in_one_statement_cost_the_sum_of_them(world: World, explain_batch: Explain) -> None:
    readers = world.chain[DEPTH - 99 :]
    nothing = [None] * len(readers)
    plan = explain_batch("lineage", "page", TENANT, readers, nothing, nothing, 10, True, None, 1, *EVERY_COLUMN)
    plan.assert_only_indexes()
    assert plan.rows_read("messages") <= len(readers) * 20
    assert plan.walked <= len(readers) * 8


@pytest.mark.parametrize("depth", [1, 10, DEPTH])
def test_one_message_is_found_by_jumps(world: World, explain: Explain, depth: int) -> None:
    for version in (1, STEP * depth // 2, STEP * (depth + 1)):
        plan = explain("lineage", "stored", TENANT, world.chain[depth], version)
        plan.assert_only_indexes()
        assert plan.rows_read("messages") <= 1
        assert plan.walked <= 3 * math.log2(depth + 2) + 2


def test_one_message_of_a_hundred_thousand_is_one_seek(world: World, explain: Explain) -> None:
    plan = explain("lineage", "stored", TENANT, world.long_tip, LONG // 3)
    plan.assert_only_indexes()
    assert plan.rows_read("messages") == 1
    assert plan.buffers <= 3 * BUFFERS_OF_A_SEEK


@pytest.mark.parametrize("depth", [1, 10, DEPTH])
def test_totals_and_moments_are_found_by_jumps(world: World, explain: Explain, depth: int) -> None:
    steps_max = 3 * math.log2(depth + 2) + 2
    for version in (1, STEP * depth // 2, STEP * (depth + 1)):
        plan = explain("lineage", "totals", TENANT, [world.chain[depth]], [version])
        plan.assert_only_indexes()
        assert plan.rows_read("messages") <= 1
        assert plan.walked <= steps_max
        moment = world.moment(world.chain[depth], version)
        plan = explain("lineage", "versions_at", TENANT, [world.chain[depth]], [moment])
        plan.assert_only_indexes()
        assert plan.rows_read("messages") <= 2 * steps_max + math.log2(STEP) + 1
        assert plan.buffers <= 3 * BUFFERS_OF_A_SEEK * (steps_max + 2)


def test_a_moment_among_a_hundred_thousand_messages_is_found_by_halving(world: World, explain: Explain) -> None:
    for moment in (EARLIEST, LATEST):
        plan = explain("lineage", "versions_at", TENANT, [world.long_tip], [moment])
        plan.assert_only_indexes()
        assert plan.rows_read("messages") <= math.log2(LONG) + 4


def test_deleted_messages_are_counted_without_reading_the_others(world: World, explain: Explain) -> None:
    plan = explain("lineage", "totals", TENANT, [world.long], [LONG // 2])
    plan.assert_only_indexes()
    assert plan.rows_read("messages") == 1 + LONG // 2000
    assert "messages_deleted_at_idx" in {node["Index Name"] for node in plan.scans("messages")}
    assert plan.buffers <= 5 * BUFFERS_OF_A_SEEK + LONG // 2000


# The messages that a window of this many tokens holds, and then those that are read besides: a quarter more to decide
# where it begins, and all once more to be returned.
HELD = 100
BUDGET = 7 * HELD
READ_MAX = 3 * HELD


@pytest.mark.parametrize("step", [0, BUDGET // 4])
@pytest.mark.parametrize("depth", [0, 10, 100, DEPTH])
def test_a_window_of_a_chain_of_forks_visits_who_contributes(
    world: World, explain: Explain, depth: int, step: int
) -> None:
    plan = explain.window(world.chain[depth], STEP * (depth + 1), BUDGET, step)
    plan.assert_only_indexes()
    contributing = min(depth + 1, READ_MAX / STEP)
    # Twice from the tip, and twice to the first message for the SYSTEM messages there.
    visits_max = contributing + 4 * (3 * math.log2(depth + 2) + 2)
    assert plan.buffers <= BUFFERS_OF_A_SEEK * (visits_max + contributing) + READ_MAX


@pytest.mark.parametrize("version", [1_000, 10_000, LONG])
@pytest.mark.parametrize("reader", ["long", "late"])
def test_a_window_of_a_hundred_thousand_messages_reads_a_window(
    world: World, explain: Explain, reader: str, version: int
) -> None:
    plan = explain.window(getattr(world, reader), version, BUDGET)
    plan.assert_only_indexes()
    assert plan.buffers <= 20 * BUFFERS_OF_A_SEEK + READ_MAX


def test_a_result_far_from_its_call_lets_only_results_be_read(world: World, explain: Explain) -> None:
    with psycopg.connect(world.url) as connection:
        found = connection.execute(
            "select (fit_window(%s, %s, %s, %s, %s, 0, true)).*", [TENANT, world.late, LONG, 7 * LONG, BUDGET]
        ).fetchone()
    assert found == (0, None, 7 * (LONG - 9))
    plan = explain.window(world.late, LONG, BUDGET)
    # The index of results: a quarter of the messages, some 100 bytes each, and no message besides the usual ones.
    assert plan.buffers <= 20 * BUFFERS_OF_A_SEEK + READ_MAX + LONG // 4 * 110 // 8192


def start(order: str, direction: str) -> tuple[Any, UUID]:
    if direction == "asc":
        return ("" if order == "name" else EARLIEST), NIL
    return (LAST_NAME if order == "name" else LATEST), MAX


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize("order", ["updated_at", "created_at", "name"])
def test_a_page_of_five_thousand_contexts_reads_a_page(explain_list: Explain, order: str, direction: str) -> None:
    nothing = (None, None, False, None, None, False)
    plan = explain_list(
        "context_list", f"by_{order}_{direction}", TENANT, *nothing, *start(order, direction), LIMIT, True
    )
    plan.assert_only_indexes()
    assert plan.rows_read("contexts") == LIMIT
    assert {node["Index Name"] for node in plan.scans("contexts")} == {f"contexts_{order}_idx"}
    assert not [node for node in plan.nodes if node["Node Type"] in {"Sort", "Incremental Sort"}]
    assert plan.buffers <= BUFFERS_OF_A_SEEK + 2 * LIMIT


@pytest.mark.parametrize("order", ["updated_at", "created_at", "name"])
def test_a_later_page_of_contexts_starts_at_its_cursor(world: World, explain_list: Explain, order: str) -> None:
    nothing = (None, None, False, None, None, False)
    with psycopg.connect(world.url) as connection:
        place = connection.execute(
            sql.SQL(
                "select {}, id from contexts where tenant_id = %s and parent_id = %s order by 1 offset 2500"
            ).format(sql.Identifier(order)),
            [TENANT, world.parent],
        ).fetchone()
    assert place is not None
    plan = explain_list("context_list", f"by_{order}_asc", TENANT, *nothing, *place, LIMIT, True)
    plan.assert_only_indexes()
    assert plan.rows_read("contexts") == LIMIT
    assert plan.buffers <= BUFFERS_OF_A_SEEK + 2 * LIMIT


def test_a_page_of_forks_reads_a_page(world: World, explain: Explain) -> None:
    plan = explain("context", "forks", TENANT, [world.parent], [EARLIEST], [NIL], LIMIT, True)
    plan.assert_only_indexes()
    assert plan.rows_read("contexts") == LIMIT
    assert plan.buffers <= BUFFERS_OF_A_SEEK + 2 * LIMIT


def test_a_list_of_the_forks_of_one_parent_reads_only_them(world: World, explain_list: Explain) -> None:
    """A parent with one fork among thousands of contexts: the filter by parent has an index of its own."""
    chosen = (None, None, False, world.chain[0], None, False)
    plan = explain_list(
        "context_list", "by_updated_at_desc", TENANT, *chosen, *start("updated_at", "desc"), LIMIT, True
    )
    assert plan.rows_read("contexts") <= 2 * LIMIT


READ = Query(
    "test.read",
    "one",
    "select idx_tup_fetch + seq_tup_read from pg_stat_xact_user_tables where relname = 'contexts'",
)


async def rows_of_a_list(session: Session, chosen: db.context.Filter, order: Order, direction: Direction) -> int:
    """Count the rows of contexts that a page of a list reads, with whatever plan the service gets."""
    ((before,),) = await session.fetch(READ)
    await db.context.page(session, TENANT, chosen, order, direction, None, LIMIT)
    ((after,),) = await session.fetch(READ)
    return int(after - before)


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize("order", ["updated_at", "created_at", "name"])
async def test_the_service_reads_a_page_of_a_list_whatever_was_listed_before(
    world: World, order: Order, direction: Direction
) -> None:
    """PostgreSQL settles on one plan for a prepared statement; it must not be the one for the rarest filter."""
    async with opened(world.url) as database, database.transaction() as session:
        assert await rows_of_a_list(session, db.context.Filter(), order, direction) <= 2 * LIMIT
        for _ in range(8):
            rare = db.context.Filter(metadata_contains='{"topic": "none has it"}')
            await rows_of_a_list(session, rare, order, direction)
        assert await rows_of_a_list(session, db.context.Filter(), order, direction) <= 2 * LIMIT


async def test_the_service_lists_the_forks_of_one_parent_without_reading_the_others(world: World) -> None:
    async with opened(world.url) as database, database.transaction() as session:
        chosen = db.context.Filter(parent_id=world.chain[0])
        for _ in range(8):
            assert await rows_of_a_list(session, chosen, "updated_at", "desc") <= 2 * LIMIT


def test_ids_are_looked_up_one_by_one(world: World, explain_batch: Explain) -> None:
    ids = world.chain[:100]
    plan = explain_batch("context", "by_ids", TENANT, ids, True)
    plan.assert_only_indexes()
    assert plan.rows_read("contexts") == len(ids)
    plan = explain_batch("context", "ancestors", TENANT, world.chain[90:100], True)
    plan.assert_only_indexes()
    assert plan.rows_read("contexts") <= 2 * sum(range(90, 100)) + 20


@pytest.mark.parametrize("reader", ["long", "tip of the chain", "first of the chain"])
def test_an_append_touches_no_history(world: World, explain: Explain, reader: str) -> None:
    readers = {"long": world.long, "tip of the chain": world.chain[DEPTH], "first of the chain": world.chain[0]}
    new = [message(number) for number in range(10)]
    plan = explain(
        "message",
        "append",
        TENANT,
        readers[reader],
        [m.id for m in new],
        [m.role for m in new],
        [m.content for m in new],
        [m.tool_calls for m in new],
        [m.tool_call_id for m in new],
        [m.tool_name for m in new],
        [m.token_count for m in new],
        [m.model for m in new],
        [m.metadata for m in new],
    )
    # Ten rows, each in a table and two indexes with a foreign key to check.
    assert plan.buffers <= len(new) * 4 * BUFFERS_OF_A_SEEK + 30 * BUFFERS_OF_A_SEEK


def test_what_was_appended_is_found_without_reading_the_history(world: World, explain: Explain) -> None:
    with psycopg.connect(world.url) as connection:
        row = connection.execute(
            "select id from messages where context_id = %s and version = %s", [world.long, LONG // 3]
        ).fetchone()
    assert row is not None
    plan = explain("idempotency", "appended", TENANT, row[0], 10)
    plan.assert_only_indexes()
    assert plan.rows_read("messages") == 1 + 10
    assert plan.buffers <= 4 * BUFFERS_OF_A_SEEK


@pytest.mark.parametrize("hours", [24, 10_000])
def test_pruning_keys_reads_those_that_it_deletes(explain: Explain, hours: int) -> None:
    plan = explain("idempotency", "prune", TENANT, hours)
    plan.assert_only_indexes()
    deleted = 10 if hours == 24 else 0
    (delete,) = (node for node in plan.nodes if node["Node Type"] == "ModifyTable")
    assert delete["Actual Rows"] == deleted
    # Chosen, found again, deleted.
    assert plan.rows_read("idempotency_keys") == 3 * deleted


@pytest.mark.parametrize("owner", ["long", "chain"])
def test_a_fork_adds_one_row_whatever_the_history(world: World, explain: Explain, owner: str) -> None:
    parent = world.long if owner == "long" else world.chain[DEPTH]
    version = LONG if owner == "long" else STEP * (DEPTH + 1)
    plan = explain(
        "context", "fork", TENANT, uuid_utils.compat.uuid7(), parent, version, None, "{}", parent, version, 7, 7 * LONG
    )
    plan.assert_only_indexes()
    (insert,) = (node for node in plan.nodes if node["Node Type"] == "ModifyTable")
    assert insert["Actual Rows"] == 1
    assert plan.buffers <= 12 * BUFFERS_OF_A_SEEK

    async def fork() -> None:
        await fork_long(world.url, world.long)

    with psycopg.connect(world.url, autocommit=True) as connection:
        counting = "select (select count(*) from contexts), (select count(*) from messages)"
        before = connection.execute(counting).fetchone()
        asyncio.run(fork())
        after = connection.execute(counting).fetchone()
    assert before is not None
    assert after == (before[0] + 2, before[1])


def test_a_deletion_visits_the_readers_of_the_message_alone(world: World, explain: Explain) -> None:
    plan = explain("context", "recount", TENANT, world.chain[DEPTH - 10], STEP * (DEPTH - 9), -1, -7)
    plan.assert_only_indexes()
    assert plan.walked == 12  # the owner, ten forks, and the fork of the last
    assert plan.rows_read("contexts") <= 3 * 12


@pytest.mark.parametrize("reader", ["long", "long_tip", "tip of the chain"])
@pytest.mark.parametrize("batch", [1, 100])
def test_a_batch_of_a_copy_reads_and_writes_the_batch(world: World, explain: Explain, reader: str, batch: int) -> None:
    source = world.chain[DEPTH] if reader == "tip of the chain" else getattr(world, reader)
    for low in (0, 1234, STEP * DEPTH - batch):
        ids = [uuid_utils.compat.uuid7() for _ in range(batch)]
        plan = explain("lineage", "copy", TENANT, source, low, low + batch, world.parent, ids)
        plan.assert_only_indexes()
        assert plan.rows_read("messages") <= 2 * batch  # each is read once and written once
        assert plan.walked <= batch / STEP + 3 * math.log2(DEPTH + 2) + 4
        # Each is read, written to a table and two indexes, and has a foreign key.
        assert plan.buffers <= (batch + 40) * 6 * BUFFERS_OF_A_SEEK
