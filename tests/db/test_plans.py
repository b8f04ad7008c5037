"""What the named queries touch, as EXPLAIN counts it: rows and buffers follow what is returned, never the history."""

import asyncio
import math
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
import pytest
import uuid_utils.compat
from psycopg import sql

import db.context
import db.lineage
import db.message
from db.context import EARLIEST, LAST_NAME, LATEST, MAX, NIL, Direction, Order
from db.pool import Session
from db.queries import Query
from db.records import EVERY_COLUMN
from tests.db.world import (
    BUFFERS_OF_A_SEEK,
    DEPTH,
    LONG,
    STEP,
    TENANT,
    Explain,
    Plan,
    World,
    fork_long,
    message,
    opened,
)

PAGE = 50
LIMIT = PAGE + 1  # one row more tells whether there is more


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
    async with opened(world.url) as database, database.transaction(TENANT) as session:
        assert await rows_of_a_list(session, db.context.Filter(), order, direction) <= 2 * LIMIT
        for _ in range(8):
            rare = db.context.Filter(metadata_contains='{"topic": "none has it"}')
            await rows_of_a_list(session, rare, order, direction)
        assert await rows_of_a_list(session, db.context.Filter(), order, direction) <= 2 * LIMIT


async def test_the_service_lists_the_forks_of_one_parent_without_reading_the_others(world: World) -> None:
    async with opened(world.url) as database, database.transaction(TENANT) as session:
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
