"""One statement on one connection: within its time, and with failures in the words of the store."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString

import psycopg
from psycopg import AsyncConnection
from psycopg.adapt import Buffer, Loader
from psycopg.pq import Format

from db.call import Row
from db.errors import StatementTimeout, translate
from db.line import load_json_as_bytes

Connection = AsyncConnection[Row]

_STOP_SECONDS = 0.5
_POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class UtcLoader(Loader):
    """Read timestamptz as UTC whatever the session's TimeZone is, so that no session needs to be set up.

    Source: timestamptz_send, microseconds since 2000-01-01 UTC as a signed 64-bit integer.
    """

    format = Format.BINARY

    def load(self, data: Buffer) -> datetime:
        """Count from 2000 on."""
        return _POSTGRES_EPOCH + timedelta(microseconds=int.from_bytes(data, "big", signed=True))


async def run_statement(
    connection: Connection,
    text: LiteralString,
    parameters: Sequence[Any],
    seconds: float,
    *,
    prepare: bool | None = None,
    json_as_bytes: bool = False,
) -> Sequence[Row]:
    """Run one statement, on the wire in binary, and give its rows.

    Raises: the family of db.errors.
    """
    cursor = connection.cursor(binary=True)
    if json_as_bytes:
        load_json_as_bytes(cursor)
    async with limited(seconds):
        await cursor.execute(text, parameters or None, prepare=prepare)
        return await cursor.fetchall() if cursor.description else ()


async def run_together(connection: Connection, *statements: bytes, seconds: float) -> None:
    """Run statements that have no parameters, in one round trip, as one message of PostgreSQL's simple protocol.

    Raises: the family of db.errors.
    """
    async with limited(seconds):
        await connection.cursor().execute(b"; ".join(statements), prepare=False)


@asynccontextmanager
async def limited(seconds: float) -> AsyncIterator[None]:
    """Speak to the server in words of the store. When the time is over it is asked to stop working on the statement."""
    try:
        # At the end of the inner time psycopg asks the server to stop and waits for it, ten seconds for a frozen one;
        # the end of the outer time makes it close the connection instead.
        async with asyncio.timeout(seconds + _STOP_SECONDS), asyncio.timeout(seconds):
            yield
    except (TimeoutError, psycopg.errors.CancellationTimeout) as error:
        raise StatementTimeout(seconds) from error
    except psycopg.Error as error:
        raise translate(error, seconds) from None
