"""Trees of forks in the database: what reading them touches, however many contexts are deleted, and their limits."""

import uuid
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import psycopg
import pytest

from db import tree
from db.pool import Database, PoolLimits, Snapshot
from tests.conftest import copied
from tests.db.world import BUFFERS_OF_A_SEEK, TENANT, Explain, Plan

LIMITS = PoolLimits(size_min=1, size_max=1, wait_seconds=5, connect_seconds=5, statement_seconds=30)
DEPTH = 1_000
WIDE = 5_000


class Trees:
    """A database of trees, written in bulk. A tree is a list of (parent's place or None, deleted)."""

    def __init__(self, url: str) -> None:
        self.url = url

    def plant(self, shape: list[tuple[int | None, bool]], tenant_id: str = TENANT) -> list[UUID]:
        """Make a tree; gives the ids of its contexts in the order given."""
        ids = [uuid.uuid4() for _ in shape]
        depths: list[int] = []
        for parent, _ in shape:
            depths.append(0 if parent is None else depths[parent] + 1)
        with psycopg.connect(self.url) as connection:
            connection.execute("insert into trees (tenant_id, id) values (%s, %s)", [tenant_id, ids[0]])
            with connection.cursor().copy(
                "copy contexts (tenant_id, id, root_id, parent_id, fork_version, depth, deleted_at) from stdin"
            ) as copy:
                for place, (parent, deleted) in enumerate(shape):
                    above = None if parent is None else ids[parent]
                    version = None if parent is None else 0
                    copy.write_row(
                        [tenant_id, ids[place], ids[0], above, version, depths[place], "now" if deleted else None]
                    )
        return ids

    def analyze(self) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute("vacuum analyze contexts")


def chain(depth: int, *, deleted: bool) -> list[tuple[int | None, bool]]:
    """Describe a root and a chain of forks below, all deleted or none but for the last, which is not."""
    return [(place - 1 if place else None, deleted and place < depth) for place in range(depth + 1)]


@pytest.fixture(scope="module")
def trees(postgres: str, template: str) -> Iterator[Trees]:
    """Give a database in which trees of every kind stand beside each other."""
    with copied(postgres, template) as url:
        trees = Trees(url)
        for tenant_id in (TENANT, "other"):
            trees.plant([(None, False), *[(0, n % 50 == 0) for n in range(WIDE)]], tenant_id)
            trees.plant(chain(DEPTH, deleted=True), tenant_id)
        yield trees


@pytest.fixture(params=["force_generic_plan", "force_custom_plan"])
def explain(trees: Trees, request: pytest.FixtureRequest) -> Iterator[Explain]:
    with psycopg.connect(trees.url, prepare_threshold=None) as connection:
        yield Explain(connection, request.param)


def nodes(explain: Explain, *wanted: tuple[UUID, int]) -> Plan:
    return explain(
        "tree", "nodes", TENANT, [tree_id for tree_id, _ in wanted], [limit for _, limit in wanted], tree.DELETED_MAX
    )


@pytest.mark.parametrize("limit", [1, 51, 1_001, 10_001])
def test_the_nodes_of_a_wide_tree_cost_what_they_are(trees: Trees, explain: Explain, limit: int) -> None:
    ids = trees.plant([(None, False), *[(0, False)] * WIDE])
    trees.analyze()
    plan = nodes(explain, (ids[0], limit))
    plan.assert_only_indexes()
    assert plan.rows_read("contexts") == min(limit, WIDE + 1)
    assert plan.buffers <= 3 * BUFFERS_OF_A_SEEK + 2 * limit


@pytest.mark.parametrize("limit", [1, 10_001])
def test_deleted_contexts_cost_a_few_seeks_each_in_whatever_shape(trees: Trees, explain: Explain, limit: int) -> None:
    """A long chain, a wide fan, and a fan below a chain: what hangs below is not looked for from each anew."""
    shapes = [
        chain(DEPTH, deleted=True),
        [(None, True), *[(0, True)] * WIDE, (1, False)],
        [*chain(DEPTH, deleted=True), *[(DEPTH - 1, True)] * WIDE, (DEPTH - 1, False)],
    ]
    for shape in shapes:
        ids = trees.plant(shape)
        trees.analyze()
        plan = nodes(explain, (ids[0], limit))
        plan.assert_only_indexes()
        assert plan.rows_read("contexts") <= 5 * len(shape)
        assert plan.buffers <= 5 * BUFFERS_OF_A_SEEK * len(shape)


def test_several_trees_in_one_statement_cost_the_sum_of_them(trees: Trees, explain: Explain) -> None:
    planted = [trees.plant([(None, False), (0, False), (0, False)]) for _ in range(20)]
    trees.analyze()
    plan = nodes(explain, *((ids[0], 1_001) for ids in planted))
    plan.assert_only_indexes()
    assert plan.rows_read("contexts") == 60
    assert plan.buffers <= 20 * 4 * BUFFERS_OF_A_SEEK


@pytest.mark.parametrize("way_up", [1, 10, 100, DEPTH])
def test_where_two_contexts_meet_costs_the_way_up_to_there(trees: Trees, explain: Explain, way_up: int) -> None:
    """Not the way to the root: most contexts that are compared parted not far above."""
    shape = chain(DEPTH, deleted=False)
    parting = DEPTH - way_up
    shape += [(parting if step == 0 else DEPTH + step, False) for step in range(way_up)]
    ids = trees.plant(shape)
    trees.analyze()
    plan = explain("tree", "common_ancestors", TENANT, [ids[DEPTH]], [ids[-1]])
    plan.assert_only_indexes()
    assert plan.walked == way_up + 1
    assert plan.rows_read("contexts") == 2 * (way_up + 1) + 1
    assert plan.buffers <= BUFFERS_OF_A_SEEK * (2 * (way_up + 1) + 1)


@pytest.fixture
async def database(database_url: str) -> Any:
    database = Database(database_url, LIMITS)
    await database.open()
    yield database
    await database.close()


async def test_so_many_deleted_contexts_of_a_tree_are_looked_at_and_no_more(
    database: Database, database_url: str
) -> None:
    fan: list[tuple[int | None, bool]] = [(None, False), *[(0, True)] * 12]
    tall = chain(12, deleted=True)
    for shape, shown in ([*fan, *((place, False) for place in range(1, 13))], 1 + 5 + 12), (tall, 5 + 1):
        ids = Trees(database_url).plant(shape)
        async with database.snapshot(TENANT) as snapshot:
            (found,) = await tree.nodes(snapshot, TENANT, [(ids[0], 100)], deleted_max=5)
            assert len(found) <= shown
            assert len([node for node in found if node.deleted_at is not None]) <= 5
            assert len(await nodes_of(snapshot, ids[0])) == len(shape)


async def nodes_of(snapshot: Snapshot, tree_id: UUID) -> list[tree.Node]:
    (found,) = await tree.nodes(snapshot, TENANT, [(tree_id, 100)])
    return found


async def test_another_tenant_sees_nothing_of_a_tree(database: Database, database_url: str) -> None:
    planted = Trees(database_url)
    ids = planted.plant([(None, False), (0, True), (1, False)])
    async with database.snapshot(TENANT) as snapshot:
        assert await tree.nodes(snapshot, "other", [(ids[0], 9)]) == [[]]
        assert await tree.common_ancestors(snapshot, "other", [(ids[0], ids[2])]) == [None]
        assert [len(found) for found in await tree.nodes(snapshot, TENANT, [(uuid.uuid4(), 9), (ids[0], 9)])] == [0, 3]
        pairs = [(ids[2], uuid.uuid4()), (ids[2], ids[0]), (ids[1], ids[1])]
        met = await tree.common_ancestors(snapshot, TENANT, pairs)
    assert [meeting and meeting.context.id for meeting in met] == [None, ids[0], ids[1]]
