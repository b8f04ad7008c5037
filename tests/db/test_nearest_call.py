"""The call that a result answers: the nearest one of its id in the lineage, however many forks lie between."""

import random

import psycopg
import pytest

from db.pool import Database, PoolLimits
from tests.db.said import TENANT, Histories, Lineage, Said

LIMITS = PoolLimits(size_min=1, size_max=1, wait_seconds=30, connect_seconds=5, statement_seconds=30)
DEPTH = 60


def nearest(lineage: Lineage, call: str, before: int, *, visible: bool) -> int | None:
    """Look through the whole history."""
    versions = [
        said.version for said in lineage.said[: before - 1] if call in said.calls and not (visible and said.deleted)
    ]
    return max(versions, default=None)


async def grow(histories: Histories, dice: random.Random) -> None:
    """Make a chain of forks with branches: ids used once, by a few messages, and by many."""
    lineage = await histories.create()
    for number in range(DEPTH):
        ids = ["once" if number == 3 else f"of {number}", dice.choice(["few", "few", "none"]), "many"]
        ids = [call for call in ids if call != "few" or number % 9 == 0]
        ids = [call for call in ids if call != "many" or number < DEPTH // 2]
        said = [Said("user", 1), Said("assistant", 1, tuple(ids)), Said("tool", 1, (), dice.choice(ids))]
        await histories.append(lineage, said[: dice.choice([1, 2, 3, 3])])
        if number % 4 == 0:
            branch = await histories.fork(lineage, dice.randint(0, len(lineage.said)))
            await histories.append(branch, [Said("assistant", 1, ("beside", "many", "few"))])
        lineage = await histories.fork(lineage, len(lineage.said) - dice.choice([0, 0, 1]) % (len(lineage.said) + 1))
    for _ in range(DEPTH // 4):
        await histories.delete(lineage, dice.randint(1, len(lineage.said)))


@pytest.mark.parametrize("seed", range(3))
async def test_the_nearest_call_is_found_however_many_forks_lie_between(database_url: str, seed: int) -> None:
    dice = random.Random(seed)
    database = Database(database_url, LIMITS)
    await database.open()
    async with database.transaction(TENANT) as session:
        histories = Histories(session)
        await grow(histories, dice)
    await database.close()
    found: set[int | None] = set()
    with psycopg.connect(database_url) as connection:
        for lineage in histories.lineages[-DEPTH // 2 :]:
            for call in ("once", "few", "many", "none", "beside", "nobody's", f"of {dice.randrange(DEPTH)}"):
                for visible in (False, True):
                    before = dice.choice([len(lineage.said) + 1, dice.randint(1, len(lineage.said) + 1)])
                    row = connection.execute(
                        "select nearest_call(%s, %s, %s, %s, %s)", [TENANT, lineage.id, call, before, visible]
                    ).fetchone()
                    assert row == (nearest(lineage, call, before, visible=visible),), (call, before, visible)
                    found |= set(row)
    assert len(found) > DEPTH // 4
