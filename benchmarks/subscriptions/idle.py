"""What subscriptions cost that nothing happens to: memory, CPU, and what PostgreSQL is asked meanwhile."""

import asyncio
import re
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import psycopg

from benchmarks.subscriptions.service import Running
from benchmarks.subscriptions.traffic import Subscribers, Thread, create

SETTLE_SECONDS = 5.0
# A line of the log for each statement: its words, on one line or several, after this.
STATEMENT = re.compile(r"LOG:  (?:statement|execute [^:]*): (.*?)(?=\n\d{4}-\d\d-\d\d |\Z)", re.DOTALL)


async def measure(service: Running, url: str, log: Path, *, sockets: int, sharing: int, seconds: float) -> None:
    """Open subscriptions on contexts of their own, look for a while, close them, and print what was seen."""
    threads = await create(service.port, sockets * sharing)
    await _hold(service, threads[:1], 1)  # what is loaded once for all is loaded
    await asyncio.sleep(SETTLE_SECONDS)
    before = service.memory()
    subscribers = Subscribers(threads, sharing)
    started = time.perf_counter()
    await subscribers.open(service.port)
    opened = time.perf_counter() - started
    await asyncio.sleep(SETTLE_SECONDS)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("alter system set log_statement = 'all'")
        connection.execute("select pg_reload_conf()")
        await asyncio.sleep(1.0)
        start, cpu = log.stat().st_size, service.cpu()  # noqa: ASYNC240 - nothing else runs here
        await asyncio.sleep(seconds)
        spent = [(after - earlier) / seconds * 100 for after, earlier in zip(service.cpu(), cpu, strict=True)]
        statements = _statements(log, start)
        connection.execute("alter system reset log_statement")
        connection.execute("select pg_reload_conf()")
    held = service.memory()
    await subscribers.close()
    await asyncio.sleep(SETTLE_SECONDS)
    count, growth = len(threads), held - before
    print(f"\n{count:,} idle subscriptions, {sockets:,} WebSockets of {sharing} (opened in {opened:.1f} s)")
    print(f"  before  {before}\n  with    {held}\n  after   {service.memory()}")
    print(f"  growth  {growth}: {growth.own / count * 1024:.1f} KiB of its own for each")
    print(
        f"  CPU     {spent[0]:.2f} % of a core for the service, {spent[1]:.2f} % for PostgreSQL, over {seconds:.0f} s"
    )
    print(f"  {sum(statements.values())} statements in {seconds:.0f} s")
    for statement, times in statements.most_common():
        print(f"    {times} x {' '.join(statement.split())[:100]}")


async def _hold(service: Running, threads: Sequence[Thread], sharing: int) -> None:
    subscribers = Subscribers(threads, sharing)
    await subscribers.open(service.port)
    await asyncio.sleep(1.0)
    await subscribers.close()


def _statements(log: Path, start: int) -> Counter[str]:
    with log.open("rb") as file:
        file.seek(start)
        return Counter(STATEMENT.findall(file.read().decode()))
