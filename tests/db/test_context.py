"""Contexts in the store: what each function gives, also when there is nothing, and to whom."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from itertools import product
from uuid import UUID, uuid4

import pytest

import db.context
from db.context import EARLIEST, NIL, Direction, Filter, Order
from db.pool import Database, PoolLimits
from db.records import ContextRecord

TENANT = "default"
LIMITS = PoolLimits(size_min=1, size_max=4, wait_seconds=5, connect_seconds=5, statement_seconds=30)
ORDERS: tuple[Order, ...] = ("updated_at", "created_at", "name")
DIRECTIONS: tuple[Direction, ...] = ("asc", "desc")


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, LIMITS)
    await database.open()
    yield database
    await database.close()


async def create(database: Database, name: str | None = None, tenant_id: str = TENANT) -> ContextRecord:
    async with database.transaction(TENANT) as session:
        return await db.context.create(session, tenant_id, uuid4(), name, "{}")


async def fork(database: Database, parent: ContextRecord, tenant_id: str = TENANT) -> ContextRecord:
    async with database.transaction(TENANT) as session:
        return await db.context.fork(session, tenant_id, uuid4(), parent, None, None, "{}")


async def test_a_root_begins_with_nothing(database: Database) -> None:
    found = await create(database, "root")
    assert found == ContextRecord(
        id=found.id,
        root_id=found.id,
        name="root",
        metadata={},
        created_at=found.created_at,
        updated_at=found.created_at,
        deleted_at=None,
        latest_version=0,
        message_count=0,
        total_tokens=0,
        parent_id=None,
        fork_version=None,
        depth=0,
    )
    assert abs((datetime.now(UTC) - found.created_at).total_seconds()) < 60


async def test_rows_are_given_once_and_deleted_ones_too(database: Database) -> None:
    first, second = await create(database), await create(database)
    async with database.transaction(TENANT) as session:
        deleted = await db.context.delete(session, TENANT, second.id)
    assert deleted is not None
    async with database.snapshot(TENANT) as snapshot:
        found = await db.context.by_ids(snapshot, TENANT, [second.id, uuid4(), first.id, first.id])
        assert sorted(found, key=lambda c: c.id) == sorted([first, deleted], key=lambda c: c.id)
        assert await db.context.by_ids(snapshot, TENANT, []) == []


async def test_changes_of_what_is_not_there_give_none(database: Database) -> None:
    context = await create(database, "name")
    async with database.transaction(TENANT) as session:
        for context_id in (uuid4(), NIL):
            assert await db.context.update(session, TENANT, context_id, "x", None) is None
            assert await db.context.delete(session, TENANT, context_id) is None
            assert await db.context.restore(session, TENANT, context_id) is None
        assert await db.context.restore(session, TENANT, context.id) is None
        assert await db.context.delete(session, TENANT, context.id) is not None
        assert await db.context.delete(session, TENANT, context.id) is None
        assert await db.context.update(session, TENANT, context.id, "x", None) is None
        restored = await db.context.restore(session, TENANT, context.id)
    assert restored is not None
    assert (restored.name, restored.deleted_at) == ("name", None)


async def test_ancestors_and_forks_come_for_many_at_once(database: Database) -> None:
    root = await create(database)
    children = [await fork(database, root) for _ in range(3)]
    leaf = await fork(database, children[0])
    async with database.transaction(TENANT) as session:
        hidden = await db.context.delete(session, TENANT, children[0].id)
    assert hidden is not None
    async with database.snapshot(TENANT) as snapshot:
        unknown = uuid4()
        found = await db.context.ancestors(snapshot, TENANT, [leaf.id, root.id, unknown, children[1].id])
        assert found == {leaf.id: [root], root.id: [], unknown: [], children[1].id: [root]}
        places = [
            (root.id, EARLIEST, NIL),
            (unknown, EARLIEST, NIL),
            (children[0].id, EARLIEST, NIL),
            (root.id, children[1].created_at, children[1].id),
            (root.id, EARLIEST, NIL),
        ]
        pages = await db.context.forks(snapshot, TENANT, places, 2)
        assert pages == [children[1:], [], [leaf], children[2:], children[1:]]
        counts = await db.context.count_forks(snapshot, TENANT, [root.id, children[0].id, leaf.id, unknown])
        assert counts == {root.id: 2, children[0].id: 1}


async def test_lists_begin_at_their_start_in_every_order(database: Database) -> None:
    """Also with names at the very ends of the alphabet, which the first page starts before."""
    made = {c.id: c for c in [await create(database, name) for name in (None, "", "a", "\U0010ffff" * 255)]}
    async with database.snapshot(TENANT) as snapshot:
        for order, direction in product(ORDERS, DIRECTIONS):
            page = await db.context.page(snapshot, TENANT, Filter(), order, direction, None, 10)
            values: list[tuple[datetime | str, UUID]] = [(getattr(c, order) or "", c.id) for c in made.values()]
            expected = [made[key] for _, key in sorted(values, reverse=direction == "desc")]
            assert page == expected
            place = (getattr(page[1], order) or "", page[1].id)
            assert await db.context.page(snapshot, TENANT, Filter(), order, direction, place, 1) == page[2:3]


async def test_tenants_see_and_change_nothing_of_each_other(database: Database) -> None:
    theirs = await create(database, "theirs", "other")
    child = await fork(database, theirs, "other")
    mine = await create(database, "mine")
    async with database.transaction(TENANT) as session:
        assert await db.context.update(session, TENANT, theirs.id, "x", None) is None
        assert await db.context.delete(session, TENANT, theirs.id) is None
        assert await db.context.restore(session, TENANT, theirs.id) is None
        assert await db.context.by_ids(session, TENANT, [theirs.id, child.id]) == []
        assert await db.context.ancestors(session, TENANT, [child.id]) == {child.id: []}
        assert await db.context.forks(session, TENANT, [(theirs.id, EARLIEST, NIL)], 9) == [[]]
        assert await db.context.count_forks(session, TENANT, [theirs.id]) == {}
        for order, direction in product(ORDERS, DIRECTIONS):
            assert await db.context.page(session, TENANT, Filter(), order, direction, None, 9) == [mine]
        assert await db.context.count(session, TENANT, Filter(include_deleted=True)) == 1
        assert await db.context.by_ids(session, "other", [theirs.id]) == [theirs]
