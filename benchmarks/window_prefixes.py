"""What a provider's prompt cache finds again: the tokens that consecutive windows have in common as a prefix.

    python benchmarks/window_prefixes.py [--messages 4000] [--budget 8000]

A simulated agent chats: a SYSTEM message, then turns of questions, parallel tool calls with their results, and answers,
of 40 to 120 tokens each. Before each message of the model it asks for a window, as an application does, once for each
step. A prompt cache serves the longest prefix that a window has in common with the one before; what is printed is its
share of all tokens sent, from the first window on that does not hold everything. The named alternative is step 0: a
window that slides by a message or two each time, as everywhere else.
"""

import argparse
import asyncio
import random
import tempfile
from itertools import pairwise
from pathlib import Path

import uuid_utils.compat
from windows import LIMITS, TENANT_ID, append, message

import db.context
import db.lineage
import db.message
import db.window
from db import embedded, migrate
from db.lineage import Place
from db.pool import Database
from db.records import ContextRecord, MessageRecord
from db.window import Frame

PAGE = 1_000
PARTS = (0, 8, 4, 2)


async def chat(database: Database, count: int) -> ContextRecord:
    """Store a chat of so many messages."""
    dice = random.Random(1)
    async with database.transaction(TENANT_ID) as session:
        made = await db.context.create(session, TENANT_ID, uuid_utils.compat.uuid7(), "benchmark", "{}")
        await db.message.append(session, TENANT_ID, made.id, [message(dice, "system")])
        return await append(session, made, dice, count - 1)


async def prompts(database: Database, record: ContextRecord, budget: int) -> list[int]:
    """Give the versions before which the model speaks, from the first on where not everything fits."""
    found: list[int] = []
    tokens = version = 0
    async with database.snapshot(TENANT_ID) as snapshot:
        while version < record.latest_version:
            place = Place(record.id, version, None)
            (page,) = await db.lineage.page(snapshot, TENANT_ID, [place], PAGE, newest_first=False, roles=None)
            for said in page:
                if said.role == "assistant" and tokens > budget:
                    found.append(said.version - 1)
                tokens, version = tokens + said.token_count, said.version
    return found


async def windows(
    database: Database, record: ContextRecord, versions: list[int], budget: int, step: int
) -> list[list[MessageRecord]]:
    """Fit the window at each version."""
    found: list[list[MessageRecord]] = []
    async with database.snapshot(TENANT_ID) as snapshot:
        for start in range(0, len(versions), 50):
            part = versions[start : start + 50]
            totals = await db.lineage.totals(snapshot, TENANT_ID, [(record.id, version) for version in part])
            frames = [
                Frame(record.id, version, total.total_tokens, budget, step, keep_system=True)
                for version, total in zip(part, totals, strict=True)
            ]
            found += [fitted.messages for fitted in await db.window.fit(snapshot, TENANT_ID, frames, PAGE)]
    return found


def shared(found: list[list[MessageRecord]]) -> float:
    """Give the share of the tokens that a cache of the window before would serve."""
    served = sent = 0
    for earlier, later in pairwise(found):
        sent += sum(said.token_count for said in later)
        for before, after in zip(earlier, later, strict=False):
            if before.id != after.id:
                break
            served += after.token_count
    return served / sent


async def measure(url: str, count: int, budget: int) -> None:
    """Fill, fit and print."""
    database = Database(url, LIMITS)
    await database.open()
    record = await chat(database, count)
    versions = await prompts(database, record, budget)
    print(f"{len(versions):,} windows of {budget:,} tokens over a chat of {count:,} messages")
    for part in PARTS:
        step = budget // part if part else 0
        found = await windows(database, record, versions, budget, step)
        used = sum(said.token_count for window in found for said in window) / len(found)
        name = f"budget / {part}" if part else "0 (slides)"
        print(f"step {name:12} {shared(found):6.1%} of the tokens found again, {used:7,.0f} tokens a window")
    await database.close()


def main() -> None:
    """Measure on a server of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=4_000)
    parser.add_argument("--budget", type=int, default=8_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        with embedded.running(Path(folder) / "home") as server:
            migrate.up(server.url)
            asyncio.run(measure(server.url, arguments.messages, arguments.budget))


if __name__ == "__main__":
    main()
