"""What a window costs: whatever the length of the history and the depth of its forks, about the same.

    python benchmarks/windows.py [--rounds 200] [--budget 8000]

One embedded server holds agent histories of 1,000, 10,000 and 100,000 messages, and chains of 1, 10, 100 and 1,000
forks whose windows are spread over the two newest contexts of each. All begin with a SYSTEM message. Two things are
timed: deciding where the window begins, as PostgreSQL itself measures it (`explain analyze`), and the whole window with
its messages, as it is seen over the connection.

The named alternative does what peers do, on the longest history: it sums the tokens over all of it, newest first, and
takes what fits (it knows nothing of tool calls). A second one reads all of it and sums in Python. Every statement is
prepared and runs over one connection; variants take turns, and the medians are compared. What counts is the ratios: the
absolute figures belong to the machine.
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from pathlib import Path

import psycopg
import uuid_utils.compat
from psycopg import RawCursor
from psycopg.types.numeric import Int4Dumper

import db.context
import db.message
import db.window
from db import embedded, migrate
from db.pool import Database, PoolLimits, Session
from db.records import ContextRecord, NewMessage

TENANT_ID = "default"
LENGTHS = (1_000, 10_000, 100_000)
DEPTHS = (1, 10, 100, 1_000)
OWN = 64  # messages that each fork of a chain adds: a window of 8,000 tokens is spread over two contexts
WARM = 10
SLOW_ROUNDS = 8
SUMMED = "sum over the whole history"
LOADED = "read the whole history"
LIMITS = PoolLimits(size_min=1, size_max=1, wait_seconds=5, connect_seconds=5, statement_seconds=60)
WORDS = ["the", "store", "keeps", "what", "agents", "say", "and", "forks", "where", "they", "change", "their", "mind"]

FIT = db.window._QUERIES["fit"].text  # noqa: SLF001 - the statement itself is measured
DECIDE = "select w.start_version from fit_window($1, $2::uuid, $3, $4, $5, 0, true) w"
SUM = """
select {columns}
from (
  select m.*, sum(m.token_count) over (order by m.version desc) as tokens
  from messages m
  where m.tenant_id = $1
    and m.context_id = $2::uuid
    and m.deleted_at is null
) o
where o.tokens <= $3::integer
"""
SUM_DECIDE = SUM.format(columns="min(o.version)")
SUM_READ = SUM.format(columns="o.id, o.version, o.role, o.token_count, o.content, o.tool_calls, o.metadata")
READ_ALL = """
select m.id, m.version, m.role, m.token_count, m.content, m.tool_calls, m.metadata
from messages m
where m.tenant_id = $1
  and m.context_id = $2::uuid
  and m.deleted_at is null
order by m.version desc
"""


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
        async with database.transaction(TENANT_ID) as session:
            readers[f"{length:,} messages"] = await append(session, await root(session), dice, length - 1)
    async with database.transaction(TENANT_ID) as session:
        record = await append(session, await root(session), dice, OWN)
        for depth in range(1, max(DEPTHS) + 1):
            made = await db.context.fork(session, TENANT_ID, uuid_utils.compat.uuid7(), record, None, None, "{}")
            record = await append(session, made, dice, OWN)
            if depth in DEPTHS:
                readers[f"depth {depth:,}"] = record
    return readers


def measure(url: str, readers: dict[str, ContextRecord], rounds: int, budget: int) -> dict[str, dict[str, float]]:
    """Give the median of each variant in milliseconds, by what is timed and for which history."""
    longest = readers[f"{LENGTHS[-1]:,} messages"].id
    times: dict[tuple[str, str], list[float]] = {}
    with psycopg.connect(url, autocommit=True, cursor_factory=RawCursor) as connection:
        connection.adapters.register_dumper(int, Int4Dumper)
        connection.execute("analyze")
        # As the service does where no pooler stands.
        connection.execute("set plan_cache_mode = force_generic_plan")

        connection.execute(f"prepare decide (text, uuid, integer, integer, integer) as {DECIDE}".encode())
        connection.execute(f"prepare sum_decide (text, uuid, integer) as {SUM_DECIDE}".encode())

        def decided(name: str, statement: str, *parameters: object) -> None:
            values = ", ".join(f"'{value}'" for value in parameters)
            explained = f"explain (analyze, timing off, buffers off, format json) execute {statement} ({values})"
            ((found,),) = connection.execute(explained.encode()).fetchall()
            times.setdefault(("where it begins", name), []).append(found[0]["Execution Time"])

        def read(name: str, statement: str, *parameters: object) -> list[tuple[object, ...]]:
            started = time.perf_counter()
            rows = connection.execute(statement.encode(), parameters, prepare=True, binary=True).fetchall()
            found = cut(rows, budget) if name == LOADED else rows
            times.setdefault(("with its messages", name), []).append((time.perf_counter() - started) * 1000)
            return found

        for number in range(WARM + rounds):
            for name, record in readers.items():
                version, total = record.latest_version, record.total_tokens
                decided(name, "decide", TENANT_ID, record.id, version, total, budget)
                keys = ([record.id], [version], [total], [budget], [0], [True], 10_001)
                read(name, FIT, TENANT_ID, *keys)
            if number % (rounds // SLOW_ROUNDS) == 0:
                decided(SUMMED, "sum_decide", TENANT_ID, longest, budget)
                read(SUMMED, SUM_READ, TENANT_ID, longest, budget)
                read(LOADED, READ_ALL, TENANT_ID, longest)
    medians: dict[str, dict[str, float]] = {}
    for (what, name), found in times.items():
        medians.setdefault(what, {})[name] = statistics.median(found[WARM:] if len(found) > rounds else found)
    return medians


def cut(rows: list[tuple[object, ...]], budget: int) -> list[tuple[object, ...]]:
    """Take the newest rows that fit."""
    taken = 0
    for place, row in enumerate(rows):
        taken += int(str(row[3]))
        if taken > budget:
            return rows[:place]
    return rows


async def prepare(url: str) -> dict[str, ContextRecord]:
    """Fill the database."""
    database = Database(url, LIMITS)
    await database.open()
    try:
        return await fill(database)
    finally:
        await database.close()


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
            readers = asyncio.run(prepare(server.url))
            medians = measure(server.url, readers, arguments.rounds, arguments.budget)
    print(f"a window of {arguments.budget:,} tokens, medians of {arguments.rounds} rounds")
    for what, found in medians.items():
        windows = {name: median for name, median in found.items() if name in readers}
        least, longest = min(windows.values()), windows[f"{LENGTHS[-1]:,} messages"]
        print(f"\n{what}")
        for name, median in windows.items():
            print(f"  {name:36} {median:9.3f} ms   {median / least:7.2f} x the smallest")
        for name in found.keys() - windows.keys():
            print(f"  {name:36} {found[name]:9.3f} ms   {found[name] / longest:7.0f} x the window of the same history")


if __name__ == "__main__":
    main()
