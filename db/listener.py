"""Hears the doorbells of all processes over one connection of its own, which it makes anew whenever it breaks.

Where PostgreSQL cannot notify (behind a transaction pooler, on a replica, and while the connection is away) there is
polling instead: `check` looks for what has changed. It is also called, seldom, while all is well, because a bell may be
lost; and once whenever the connection is made, for what was rung meanwhile.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

import structlog
from psycopg import AsyncConnection, AsyncRawCursor

from db import queries
from db.doorbell import read_payload
from db.errors import Unforeseen
from db.statement import Connection, run_statement

log = structlog.get_logger(__name__)

_QUERIES = queries.load("doorbell")
_BACKEND = queries.load("pool")["backend"]

_RETRY_SECONDS = 0.1
_RETRY_SECONDS_MAX = 1.0
# A server or a pooler that cannot notify is asked again after this: what stands at the address may change.
_ASK_AGAIN_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    """How long to wait: for a connection, for an answer, and between two looks, without notifications and with."""

    connect_seconds: float
    statement_seconds: float
    poll_seconds: float
    slow_poll_seconds: float


class _Deaf(Exception):
    """No notification will ever come over this connection."""


class Listener:
    """Hears, and looks where it cannot hear.

    `hear` is told the tenant and the contexts that have changed; `check` looks for what nobody was told of. Neither
    ends this: what `check` raises is logged, and it is called again.
    """

    def __init__(
        self,
        url: str,
        limits: ListenerLimits,
        hear: Callable[[str, Sequence[UUID]], None],
        check: Callable[[], Awaitable[None]],
    ) -> None:
        self._url = url
        self._limits = limits
        self._hear = hear
        self._check = check
        self._look = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.listening = False
        # Whether it has found that it cannot listen, and not merely not begun.
        self.polling = False

    def open(self) -> None:
        """Start, without waiting for the connection."""
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._poll())]

    async def close(self) -> None:
        """Stop."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self) -> None:
        pause = 0.0
        while True:
            try:
                async with await self._connect() as connection:
                    self.listening, self.polling = True, False
                    self._look.set()
                    pause = 0.0
                    await self._notices(connection)
            except _Deaf:
                log.info("listener: polling, because the database cannot notify here")
                pause = _ASK_AGAIN_SECONDS
            except Exception as error:  # noqa: BLE001 - whatever it is, nobody else would begin anew
                log.warning("listener: no connection", error=f"{type(error).__name__}: {error}")
                pause = min(max(2 * pause, _RETRY_SECONDS), _RETRY_SECONDS_MAX)
            finally:
                self.listening = False
                self._look.set()
            self.polling = True
            await asyncio.sleep(pause)

    async def _connect(self) -> Connection:
        """Give a connection that will hear.

        Raises: _Deaf; psycopg.Error.
        """
        limits = self._limits
        connection = await AsyncConnection.connect(
            self._url,
            autocommit=True,
            cursor_factory=AsyncRawCursor,
            connect_timeout=max(2, round(limits.connect_seconds)),
        )
        try:
            ask = limits.statement_seconds
            ((backend_pid,),) = await run_statement(connection, _BACKEND.text, (), ask, prepare=False)
            if backend_pid != connection.info.backend_pid:
                raise _Deaf  # noqa: TRY301 - the connection is closed like after any failure
            try:
                await run_statement(connection, _QUERIES["listen"].text, (), ask, prepare=False)
            except Unforeseen as error:  # a replica: "cannot execute LISTEN during recovery"
                raise _Deaf from error
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _notices(self, connection: Connection) -> None:
        """Hear until the connection breaks, which shows at the latest when it is asked for an answer."""
        while True:
            async for notice in connection.notifies(timeout=self._limits.slow_poll_seconds):
                try:
                    tenant_id, ids = read_payload(notice.payload)
                except ValueError:
                    log.warning("listener: a notification that is not ours")
                    continue
                self._hear(tenant_id, ids)
            await run_statement(connection, _QUERIES["answer"].text, (), self._limits.statement_seconds, prepare=False)

    async def _poll(self) -> None:
        while True:
            try:
                seconds = self._limits.slow_poll_seconds if self.listening else self._limits.poll_seconds
                async with asyncio.timeout(seconds):
                    await self._look.wait()
            except TimeoutError:
                pass
            self._look.clear()
            try:
                await self._check()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next look may go well
                log.warning("listener: could not look for changes", error=f"{type(error).__name__}: {error}")
                await asyncio.sleep(_RETRY_SECONDS_MAX)
                self._look.set()
