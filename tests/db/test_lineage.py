"""The lineage at its root: jump pointers, and finding any version in few steps however deep the forks are."""

import math
import random
from bisect import bisect_right
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

import db.context
import db.message
from db import lineage, queries
from db.context import EARLIEST, LATEST, by_ids
from db.lineage import Place, Totals
from db.pool import Database, PoolLimits
from db.records import ContextRecord, NewMessage

TENANT = "default"
LIMITS = PoolLimits(size_min=1, size_max=4, wait_seconds=5, connect_seconds=5, statement_seconds=30)

Row = dict[str, Any]


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, LIMITS)
    await database.open()
    yield database
    await database.close()


def message(content: str, tokens: int = 1) -> NewMessage:
    return NewMessage(
        id=uuid4(),
        role="user",
        content=content,
        tool_calls=None,
        tool_call_id=None,
        tool_name=None,
        token_count=tokens,
        model=None,
        metadata="{}",
    )


class Forest:
    """Contexts made in one transaction, and what each version of their lineages holds, kept in plain lists."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.contents: dict[UUID, list[str]] = {}

    async def grow(self, dice: random.Random, forks: int, *, deep: bool) -> UUID:
        """Make a root and fork it again and again; gives the last fork, which is the deepest when `deep`."""
        async with self.database.transaction(TENANT) as session:
            root = await db.context.create(session, TENANT, uuid4(), None, "{}")
            self.contents[root.id] = []
            tip = await self._append(session, root, dice.randint(1, 3))
            made = [tip]
            for _ in range(forks):
                if deep:
                    (parent,) = await by_ids(session, TENANT, [made[-1].id])
                    version = parent.latest_version
                else:
                    (parent,) = await by_ids(session, TENANT, [dice.choice(made).id])
                    version = dice.randint(0, parent.latest_version)
                fork = await db.context.fork(session, TENANT, uuid4(), parent, version, None, "{}")
                self.contents[fork.id] = self.contents[parent.id][:version]
                made.append(await self._append(session, fork, 1 if deep else dice.choice([0, 0, 1, 3])))
        return made[-1].id

    async def _append(self, session: Any, context: ContextRecord, count: int) -> ContextRecord:
        batch = [message(f"{context.id}/{n}") for n in range(count)]
        if not batch:
            return context
        self.contents[context.id] += [new.content for new in batch]
        appended = await db.message.append(session, TENANT, context.id, batch)
        assert appended is not None
        return appended


def rows(database_url: str) -> dict[UUID, Row]:
    with psycopg.connect(database_url, row_factory=psycopg.rows.dict_row) as connection:
        return {row["id"]: row for row in connection.execute("select * from contexts").fetchall()}


def owner(contexts: dict[UUID, Row], row: Row) -> Row | None:
    """Give the context that stores the message at a row's fork version, found by going up parent by parent."""
    if not row["fork_version"]:
        return None
    up = contexts[row["parent_id"]]
    while (up["fork_version"] or 0) >= row["fork_version"]:
        up = contexts[up["parent_id"]]
    return up


def jump(contexts: dict[UUID, Row], row: Row) -> Row | None:
    """Give the skew-binary jump: over both of the owner's last two jumps when these are of one length."""
    above = owner(contexts, row)
    if above is None:
        return None
    first = jump(contexts, above) or above
    second = jump(contexts, first) or first
    equal = above["owner_depth"] - first["owner_depth"] == first["owner_depth"] - second["owner_depth"]
    return second if equal and first is not above else above


def steps(database_url: str, reader_id: UUID, version: int) -> int:
    """Give how many contexts `stored` visits to find a version."""
    text = "explain (analyze, format json) " + queries.load("lineage")["stored"].text
    with psycopg.connect(database_url, cursor_factory=psycopg.RawCursor) as connection:
        ((found,),) = connection.execute(text, (TENANT, reader_id, version)).fetchall()
    waiting = [found[0]["Plan"]]
    while waiting:
        plan = waiting.pop()
        if plan["Node Type"] == "Recursive Union":
            return int(plan["Actual Rows"])
        waiting += plan.get("Plans", [])
    raise LookupError("the plan has no recursion")


async def test_owner_and_jump_of_random_forks_are_where_theory_puts_them(database: Database, database_url: str) -> None:
    dice = random.Random(7)
    forest = Forest(database)
    for _ in range(4):
        await forest.grow(dice, 60, deep=False)
    contexts = rows(database_url)
    for row in contexts.values():
        above, far = owner(contexts, row), jump(contexts, row)
        expected = {
            "owner_id": above and above["id"],
            "owner_depth": above["owner_depth"] + 1 if above else 0,
            "jump_id": far and far["id"],
            "jump_fork_version": far and (far["fork_version"] or 0),
        }
        assert {name: row[name] for name in expected} == expected
    assert max(row["owner_depth"] for row in contexts.values()) > 3


async def test_every_version_of_random_lineages_is_found_where_it_is_stored(database: Database) -> None:
    dice = random.Random(11)
    forest = Forest(database)
    for _ in range(3):
        await forest.grow(dice, 40, deep=False)
    async with database.snapshot(TENANT) as snapshot:
        for context_id, contents in forest.contents.items():
            places = [Place(context_id, version - 1, version + 1) for version in range(1, len(contents) + 2)]
            pages = await lineage.page(snapshot, TENANT, places, 1, newest_first=False, roles=None)
            assert [found.content for page in pages for found in page] == contents
            for version in (0, -1, len(contents) + 1, 2**31 - 1):
                assert await lineage.stored(snapshot, TENANT, context_id, version) is None
            for version, content in enumerate(contents, 1):
                found = await lineage.stored(snapshot, TENANT, context_id, version)
                assert found is not None
                assert found.owner_id == UUID(content.split("/")[0])
            versions = list(range(len(contents) + 1))
            totals = await lineage.totals(snapshot, TENANT, [(context_id, version) for version in versions])
            owners = [None] + [UUID(content.split("/")[0]) for content in contents]
            assert totals == [Totals(owner, n, n, n) for n, owner in enumerate(owners)]


async def test_the_version_at_any_moment_is_found_in_random_lineages(database: Database) -> None:
    dice = random.Random(13)
    forest = Forest(database)
    for _ in range(3):
        await forest.grow(dice, 40, deep=False)
    await forest.grow(dice, 60, deep=True)
    tick = timedelta(microseconds=1)
    async with database.snapshot(TENANT) as snapshot:
        for context_id in forest.contents:
            place = Place(context_id, None, None)
            (page,) = await lineage.page(snapshot, TENANT, [place], 1000, newest_first=False, roles=None)
            times = [message.created_at for message in page]
            moments = [moment + shift for moment in times for shift in (-tick, timedelta(0), tick)] + [EARLIEST, LATEST]
            found = await lineage.versions_at(snapshot, TENANT, [(context_id, moment) for moment in moments])
            assert found == [bisect_right(times, moment) for moment in moments]


async def test_any_version_is_found_in_logarithmically_many_steps(database: Database, database_url: str) -> None:
    depth = 400
    tip = await Forest(database).grow(random.Random(3), depth, deep=True)
    contexts = rows(database_url)
    assert contexts[tip]["owner_depth"] == depth
    latest = contexts[tip]["latest_version"]
    counted = [steps(database_url, tip, version) for version in [*range(1, latest, 13), latest]]
    # The bound of skew-binary jumps (Myers 1983): 3 log2(n + 1) - 2 visits after the reader's own.
    assert max(counted) <= 3 * math.log2(depth + 1) - 1
    assert counted[-1] == 1


async def test_totals_count_what_is_visible_through_a_version(database: Database) -> None:
    async with database.transaction(TENANT) as session:
        root = await db.context.create(session, TENANT, uuid4(), None, "{}")
        await db.message.append(session, TENANT, root.id, [message("r", 10**n) for n in range(4)])
        (root,) = await by_ids(session, TENANT, [root.id])
        fork = await db.context.fork(session, TENANT, uuid4(), root, 3, None, "{}")
        await db.message.append(session, TENANT, fork.id, [message("f", 5)])
        (fork,) = await by_ids(session, TENANT, [fork.id])
        for version in (2, 4):
            assert await db.message.delete(session, TENANT, fork, version) is not None
        found = await lineage.totals(session, TENANT, [(fork.id, version) for version in range(5)])
    assert [(o.owner_id, o.message_count, o.total_tokens, o.running_tokens) for o in found] == [
        (None, 0, 0, 0),
        (root.id, 1, 1, 1),
        (root.id, 1, 1, 11),
        (root.id, 2, 101, 111),
        (fork.id, 2, 101, 116),
    ]


async def test_a_place_may_lie_between_a_small_and_a_large_version(database: Database) -> None:
    tip = await Forest(database).grow(random.Random(1), 3, deep=True)
    async with database.snapshot(TENANT) as snapshot:
        place = Place(tip, 1, 2**31 - 1)
        (page,) = await lineage.page(snapshot, TENANT, [place], 9, newest_first=False, roles=None)
        assert page[0].version == 2


async def test_another_tenant_reads_nothing(database: Database) -> None:
    tip = await Forest(database).grow(random.Random(1), 3, deep=True)
    async with database.snapshot(TENANT) as snapshot:
        assert await by_ids(snapshot, "other", [tip]) == []
        assert await lineage.stored(snapshot, "other", tip, 1) is None
        places = [Place(tip, None, None)]
        assert await lineage.page(snapshot, "other", places, 9, newest_first=True, roles=None) == [[]]
        assert await lineage.count_roles(snapshot, "other", [(tip, 0, 9)], ["user"]) == []
        assert await lineage.totals(snapshot, "other", [(tip, 0), (tip, 1)]) == []
        assert await lineage.versions_at(snapshot, "other", [(tip, LATEST)]) == []
        assert await db.context.ancestors(snapshot, "other", [tip]) == {tip: []}
