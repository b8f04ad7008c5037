"""What batches read by: one key or a hundred, rows are found by the indexes that are meant for them."""

import re
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import Any, get_args
from uuid import UUID

import pytest

from db.call import Asking, Recorder
from db.context import EARLIEST, LATEST, NIL, Direction, Filter, Order
from db.lineage import Place
from db.window import Frame
from schema.batches import Batches, Charges, ContextsPage, ForksPage, LineagePage, RoleCount, TreePart
from tests.db.world import DEPTH, STEP, TENANT, Explain, Plan, World

GOLDEN = Path(__file__).parents[1] / "golden"

END = STEP * (DEPTH - 100)

ORDERS = list(product(get_args(Order), get_args(Direction)))

Ask = Callable[[Batches, list[UUID]], Asking[Any]]


def listing(order: Order, direction: Direction) -> Ask:
    return lambda batches, _ids: batches.context_pages([ContextsPage(Filter(), order, direction, None, 11)])


# Each batch, asked of contexts deep in a chain of forks.
BATCHES: dict[str, Ask] = {
    "context.by_ids": lambda batches, ids: batches.contexts(ids),
    "context.ancestors": lambda batches, ids: batches.ancestors(ids),
    "context.forks": lambda batches, ids: batches.forks([ForksPage(each, EARLIEST, NIL, 11) for each in ids]),
    "context.count_forks": lambda batches, ids: batches.fork_counts(ids),
    "message.by_ids": lambda batches, ids: batches.messages(ids),
    "lineage.page": lambda batches, ids: batches.lineages(
        [LineagePage(Place(each, None, None), 11, True, None) for each in ids]
    ),
    "lineage.page of roles": lambda batches, ids: batches.lineages(
        [LineagePage(Place(each, 5, 500), 11, False, ("tool", "user")) for each in ids]
    ),
    "lineage.count_roles": lambda batches, ids: batches.role_counts(
        [RoleCount(each, 3, END, ("user",)) for each in ids]
    ),
    "lineage.totals": lambda batches, ids: batches.totals([(each, END) for each in ids]),
    "lineage.versions_at": lambda batches, ids: batches.versions_at([(each, LATEST) for each in ids]),
    "window.fit": lambda batches, ids: batches.windows([Frame(each, None, None, 100, 25, True) for each in ids[:20]]),
    "tree.nodes": lambda batches, ids: batches.trees([TreePart(each, 11) for each in ids[:10]]),
    "tree.common_ancestors": lambda batches, ids: batches.common_ancestors([(each, ids[0]) for each in ids]),
    **{f"context_list.all_by_{order}_{direction}": listing(order, direction) for order, direction in ORDERS},
}

Scan = tuple[str, str]
CONTEXT: Scan = ("Index Scan", "contexts_pkey")
MESSAGE: Scan = ("Index Scan", "messages_context_version_unique")

# What each reads tables by. A walk up the forks finds contexts by id, and then messages by version.
SCANS: dict[str, set[Scan]] = {
    "context.by_ids": {CONTEXT},
    "context.ancestors": {CONTEXT},
    "context.forks": {("Index Scan", "contexts_parent_idx")},
    "context.count_forks": {("Index Scan", "contexts_parent_idx")},
    "message.by_ids": {("Index Scan", "messages_pkey")},
    "lineage.page": {CONTEXT, MESSAGE},
    "lineage.page of roles": {CONTEXT, MESSAGE},
    "lineage.count_roles": {CONTEXT, MESSAGE},
    "lineage.totals": {
        *(CONTEXT, MESSAGE),
        ("Index Only Scan", "contexts_pkey"),
        ("Index Only Scan", "messages_deleted_at_idx"),
    },
    "lineage.versions_at": {CONTEXT, MESSAGE},
    "window.fit": {CONTEXT, MESSAGE},
    "tree.nodes": {
        CONTEXT,
        ("Index Only Scan", "contexts_deleted_at_idx"),
        ("Index Scan", "contexts_parent_idx"),
        ("Index Scan", "contexts_tree_idx"),
    },
    "tree.common_ancestors": {CONTEXT},
    **{
        f"context_list.all_by_{order}_{direction}": {("Index Scan", f"contexts_{order}_idx")}
        for order, direction in ORDERS
    },
}

# Of the statements inside the function that fits windows. Messages alone are enough for some: no heap is visited.
INSIDE_WINDOWS = {CONTEXT, MESSAGE, ("Index Only Scan", "messages_call_version_idx")}


def scans(plans: Iterable[Plan]) -> set[Scan]:
    """Give how tables are read: by which kind of node and which index, or else which table."""
    return {
        (node["Node Type"], str(node.get("Index Name", node.get("Relation Name"))))
        for plan in plans
        for node in plan.nodes
        if "Relation Name" in node or "Index Name" in node
    }


def explained(explain: Explain, world: World, name: str, count: int) -> Plan:
    """Explain a batch over so many contexts."""
    batches = Batches(Recorder(), TENANT, 10_000, Charges(lambda _count: None, lambda _count: None))
    asking = BATCHES[name](batches, world.chain[DEPTH - 100 :][:count])
    (call,) = asking.send(None)
    asking.close()
    assert call.query.name == name.removesuffix(" of roles")
    assert not call.query.replanned
    return explain(*call.query.name.split("."), *call.parameters)


@pytest.mark.parametrize("count", [1, 100])
@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_finds_its_rows_by_the_indexes_meant_for_them(
    world: World, explain_batch: Explain, name: str, count: int
) -> None:
    plan = explained(explain_batch, world, name, count)
    assert scans([plan]) == SCANS[name]
    assert "JIT" not in plan.top


@pytest.mark.parametrize("count", [1, 20])
def test_inside_the_function_windows_are_fitted_by_indexes_too(
    world: World, explain_batch: Explain, count: int
) -> None:
    with explain_batch.collected() as plans:
        explained(explain_batch, world, "window.fit", count)
    assert len(plans) > 2 * count
    assert scans(plans) <= SCANS["window.fit"] | INSIDE_WINDOWS
    assert {CONTEXT, MESSAGE} <= scans(plans)


def test_every_query_that_a_plan_asks_is_looked_at() -> None:
    asked = {
        name
        for path in GOLDEN.glob("*.plan.txt")
        for name in re.findall(r"^  ([a-z_]+\.[a-z_]+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert len(asked) > 10
    filtered = {name for name in asked if re.fullmatch(r"context_list\.(by_.*|count)", name)}
    # Lists with a filter are planned anew for each: tests/db/test_plans.py looks at them.
    assert asked - filtered - set(SCANS) == set()
