"""What live readers ask touches, as EXPLAIN counts it: rows follow what is new, never the history or the forks."""

from datetime import timedelta
from uuid import UUID

import psycopg
import pytest

from db.context import NIL
from tests.db.world import BUFFERS_OF_A_SEEK, DEPTH, LISTED, LONG, STEP, TENANT, Explain, Plan, World

# Contexts and messages are each found by one seek, a walk up the forks takes a few.
BUFFERS_OF_A_WALK = 20 * BUFFERS_OF_A_SEEK


def since(explain: Explain, ids: list[UUID], versions: list[int], width: int) -> Plan:
    return explain("lineage", "since", TENANT, ids, versions, width)


@pytest.mark.parametrize("new", [0, 1, 50])
def test_what_is_new_at_the_tip_is_read_by_index_and_nothing_else(world: World, explain: Explain, new: int) -> None:
    plan = since(explain, [world.long], [LONG - new], 50)
    plan.assert_only_indexes()
    assert plan.rows_read("messages") <= new + 1
    assert plan.buffers <= BUFFERS_OF_A_WALK + 2 * new


@pytest.mark.parametrize("new", [0, 1, 30])
def test_what_is_new_at_the_tip_of_a_thousand_forks_visits_who_contributes(
    world: World, explain: Explain, new: int
) -> None:
    plan = since(explain, [world.chain[-1]], [STEP * DEPTH - new], 50)
    plan.assert_only_indexes()
    assert plan.rows_read("messages") <= new + STEP
    assert plan.buffers <= (1 + new / STEP) * BUFFERS_OF_A_WALK


def test_what_comes_after_a_version_far_below_the_tip_does_not_walk_all_forks(world: World, explain: Explain) -> None:
    plan = since(explain, [world.chain[-1]], [STEP * 10], 16)
    plan.assert_only_indexes()
    assert plan.rows_read("messages") <= 16 + STEP
    assert plan.buffers < DEPTH


@pytest.mark.parametrize("count", [1, 20])
def test_many_contexts_cost_what_each_does(world: World, explain: Explain, count: int) -> None:
    ids = world.chain[-count:]
    plan = since(explain, ids, [STEP * (DEPTH - count + 1 + number) for number in range(count)], 50)
    plan.assert_only_indexes()
    assert plan.buffers <= count * BUFFERS_OF_A_WALK


@pytest.mark.parametrize("count", [1, 100])
@pytest.mark.parametrize(("stem", "name"), [("feed", "heads"), ("watch", "states")])
def test_a_look_at_contexts_finds_them_by_their_ids(
    world: World, explain_batch: Explain, stem: str, name: str, count: int
) -> None:
    plan = explain_batch(stem, name, TENANT, world.chain[:count])
    plan.assert_only_indexes()
    assert plan.buffers <= 3 * count * BUFFERS_OF_A_SEEK


def test_a_look_at_a_context_does_not_read_all_its_forks(world: World, explain_batch: Explain) -> None:
    plan = explain_batch("watch", "states", TENANT, [world.parent])
    plan.assert_only_indexes()
    assert plan.rows_read("contexts") < LISTED / 10  # those of the last two minutes


def test_what_has_changed_of_late_is_read_by_the_order_of_changes(world: World, explain: Explain) -> None:
    with psycopg.connect(world.url) as connection:
        ((last,),) = connection.execute("select max(updated_at) from contexts").fetchall()
    plan = explain("watch", "changed", TENANT, last, NIL, 1_000)
    plan.assert_only_indexes()
    assert plan.rows_read("contexts") <= 5_000
    plan = explain("watch", "changed", TENANT, last + timedelta(seconds=1), NIL, 1_000)
    assert (plan.rows_read("contexts"), plan.buffers <= BUFFERS_OF_A_SEEK) == (0, True)


def test_those_of_a_list_that_have_changed_are_found_by_their_ids(world: World, explain_list: Explain) -> None:
    filters = (None, None, False, None, None)
    plan = explain_list("context_list", "matching", TENANT, *filters, world.chain[:100])
    plan.assert_only_indexes()
    assert plan.rows_read("contexts") == 100
