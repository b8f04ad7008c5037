"""What a window costs: whatever the length of the history and the depth of its forks, about the same.

    python benchmarks/windows.py [--rounds 200] [--budget 8000]

One embedded server holds agent histories of 1,000, 10,000 and 100,000 messages, and chains of 1, 10, 100 and 1,000
forks whose windows are spread over the two newest contexts of each. All begin with a SYSTEM message. The named
alternative reads like peers do: it sums the tokens over the whole history, newest first, and takes what fits (it knows
nothing of tool calls). Every statement runs in one snapshot over one connection, prepared; variants take turns, and the
medians are compared. What counts is the ratios: the absolute figures belong to the machine.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID

import uuid_utils.compat

import db.context
import db.message
import db.window
from db import embedded, migrate
from db.pool import Database, PoolLimits, Session, Snapshot
from db.queries import Query
from db.records import ContextRecord, NewMessage
from db.window import Frame

TENANT_ID = "default"
LENGTHS = (1_000, 10_000, 100_000)
DEPTHS = (1, 10, 100, 1_000)
OWN = 64  # messages that each fork of a chain adds: a window of 8,000 tokens is spread over two contexts
LIMITS = PoolLimits(size_min=1, size_max=1, wait_seconds=5, connect_seconds=5, statement_seconds=60)
WORDS = ["the", "store", "keeps", "what", "agents", "say", "and", "forks", "where", "they", "change", "their", "mind"]

WHOLE = Query(
    "benchmark.whole",
    "many",
    """
    select o.id, o.version, o.role, o.token_count, o.content, o.tool_calls, o.metadata
    from (
      select m.*, sum(m.token_count) over (order by m.version desc) as tokens
      from messages m
      where m.tenant_id = $1
        and m.context_id = $2::uuid
        and m.deleted_at is null
    ) o
    where o.tokens <= $3::integer
    order by o.version
    """,
)


def message(dice: random.Random, role: str, **more: str) -> NewMessage:
    """Write a message of 40 to 120 tokens."""
    count = dice.randint(40, 120)
    return NewMessage(
        id=uuid_utils.compat.uuid7(),
        role=role,
        content=" ".join(dice.choices(WORDS, k=count)),
        tool_calls=more.get("tool_calls"),
        tool_call_id=more.get("tool_call_id"),
        tool_name=None,
        token_count=count,
        model=None,
        metadata="{}",
    )


def turn(dice: random.Random) -> list[NewMessage]:
    """Write eight messages: a question, parallel calls and one more, each with its result, an answer, a question."""
    first, second, third = (f"call_{dice.getrandbits(96):x}" for _ in range(3))
    made = [f'{{"id":"{call}","name":"search","arguments":{{"q":"forks"}}}}' for call in (first, second, third)]
    return [
        message(dice, "user"),
        message(dice, "assistant", tool_calls=f"[{made[0]},{made[1]}]"),
        message(dice, "tool", tool_call_id=first),
        message(dice, "tool", tool_call_id=second),
        message(dice, "assistant", tool_calls=f"[{made[2]}]"),
        message(dice, "tool", tool_call_id=third),
        message(dice, "assistant"),
        message(dice, "user"),
    ]


async def append(session: Session, record: ContextRecord, dice: random.Random, count: int) -> ContextRecord:
    """Append so many messages, in batches of a thousand at the most."""
    while count:
        batch = [said for _ in range(-(-min(count, 1_000) // 8)) for said in turn(dice)][: min(count, 1_000)]
        appended = await db.message.append(session, TENANT_ID, record.id, batch)
        assert appended is not None
        record, count = appended, count - len(batch)
    return record


async def fill(database: Database) -> dict[str, ContextRecord]:
    """Store the histories; gives the context that each is read through."""
    dice = random.Random(1)
    readers: dict[str, ContextRecord] = {}

    async def root(session: Session) -> ContextRecord:
        made = await db.context.create(session, TENANT_ID, uuid_utils.compat.uuid7(), "benchmark", "{}")
        appended = await db.message.append(session, TENANT_ID, made.id, [message(dice, "system")])
        assert appended is not None
        return appended

    for length in LENGTHS:
        async with database.transaction() as session:
            readers[f"{length:,} messages"] = await append(session, await root(session), dice, length - 1)
    async with database.transaction() as session:
        record = await append(session, await root(session), dice, OWN)
        for depth in range(1, max(DEPTHS) + 1):
            made = await db.context.fork(session, TENANT_ID, uuid_utils.compat.uuid7(), record, None, None, "{}")
            record = await append(session, made, dice, OWN)
            if depth in DEPTHS:
                readers[f"depth {depth:,}"] = record
    return readers


async def measure(url: str, rounds: int, budget: int) -> dict[str, list[float]]:
    """Give the times of each variant in milliseconds."""
    database = Database(url, LIMITS)
    await database.open()
    readers = await fill(database)
    async with database.transaction() as session:
        await session.fetch(Query("benchmark.analyze", "one", "analyze"))
    times: dict[str, list[float]] = {}

    async def timed(name: str, run: Callable[[], Awaitable[int]], seen: dict[str, int]) -> None:
        started = time.perf_counter()
        seen[name] = await run()
        times.setdefault(name, []).append((time.perf_counter() - started) * 1000)

    async with database.snapshot() as snapshot:
        seen: dict[str, int] = {}
        for number in range(rounds + 10):
            for name, record in readers.items():
                await timed(name, lambda record=record: fit(snapshot, record, budget), seen)  # type: ignore[misc] # mypy infers no lambda with defaults
            if number % 40 == 0:
                longest = readers[f"{LENGTHS[-1]:,} messages"].id
                await timed("sum over the whole history", lambda: sum_whole(snapshot, longest, budget), seen)
    await database.close()
    print("messages returned:", ", ".join(f"{name}: {count}" for name, count in seen.items()))
    return {name: found[10:] if len(found) > rounds else found for name, found in times.items()}


async def fit(snapshot: Snapshot, record: ContextRecord, budget: int) -> int:
    """Fit a window as the service does; gives how many messages it has."""
    frame = Frame(record.id, record.latest_version, record.total_tokens, budget, 0, keep_system=True)
    (fitted,) = await db.window.fit(snapshot, TENANT_ID, [frame], 10_001)
    return len(fitted.messages)


async def sum_whole(snapshot: Snapshot, context_id: UUID, budget: int) -> int:
    """Do what peers do; gives how many messages come back."""
    return len(await snapshot.fetch(WHOLE, TENANT_ID, context_id, budget))


def main() -> None:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--budget", type=int, default=8_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with embedded.running(Path(folder) / "home") as server:
            migrate.up(server.url)
            times = asyncio.run(measure(server.url, arguments.rounds, arguments.budget))
    medians = {name: statistics.median(found) for name, found in times.items()}
    windows = [median for name, median in medians.items() if name != "sum over the whole history"]
    print(f"a window of {arguments.budget:,} tokens, one statement, medians of {arguments.rounds} rounds")
    for name, median in medians.items():
        print(f"{name:28} {median:9.3f} ms   {median / min(windows):7.2f} x the smallest window")
    whole, longest = medians["sum over the whole history"], medians[f"{LENGTHS[-1]:,} messages"]
    print(f"largest window / smallest: {max(windows) / min(windows):.2f}")
    print(f"sum over the whole history / window, {LENGTHS[-1]:,} messages: {whole / longest:.0f}")


if __name__ == "__main__":
    main()
