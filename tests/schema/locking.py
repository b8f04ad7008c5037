"""Tables that nobody may read for a while, so that a statement can be met on its way."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg


@contextmanager
def locked(database_url: str, table: str) -> Iterator[psycopg.Connection[Any]]:
    """Keep everybody from a table; whoever holds it may write meanwhile."""
    with psycopg.connect(database_url) as holder:
        holder.execute(f"lock table {table} in access exclusive mode".encode())
        yield holder
        holder.commit()


async def waiting(database_url: str, *, other_than: int | None = None) -> int:
    """Wait until somebody waits for a lock; gives the process."""
    statement = "select pid from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    with psycopg.connect(database_url, autocommit=True) as connection:
        while True:
            for (pid,) in connection.execute(statement):
                if pid != other_than:
                    return int(pid)
            await asyncio.sleep(0.005)
