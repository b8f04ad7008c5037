"""The doorbell of live readers: tells every process which contexts have changed, after the change is committed.

It carries ids and nothing else; who hears it reads. It rings on a connection of its own, because NOTIFY in an append's
transaction would serialise the commits of the whole database. What is rung within a moment rings together. A bell that
is lost, as when this process is killed after a commit, is made good by listeners, who look now and then.
"""

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import suppress
from uuid import UUID

import psycopg
import structlog
from psycopg import AsyncConnection, AsyncRawCursor

from db import queries
from db.errors import StoreError
from db.statement import Connection, run_statement

log = structlog.get_logger(__name__)

_RING = queries.load("doorbell")["ring"]

# Source: async.c, NOTIFY_PAYLOAD_MAX_LENGTH.
_PAYLOAD_BYTES_MAX = 7_999
_ID_BYTES = 33  # and a comma, or the space
# Changes of so long ring together: a NOTIFY takes 0.2 ms of this process, so they take 2 % of it at the most.
_PAUSE_SECONDS = 0.01
_RETRY_SECONDS = 0.5
# What waits while the database is away; listeners look for the rest by themselves.
_WAITING_MAX = 10_000


def payloads(tenant_id: str, ids: Iterable[UUID]) -> Iterator[str]:
    """Write notifications: ids, a space, the tenant. None for a tenant that leaves no room for an id."""
    ids_max = (_PAYLOAD_BYTES_MAX - len(tenant_id.encode())) // _ID_BYTES
    texts = [context_id.hex for context_id in ids] if ids_max > 0 else []
    for start in range(0, len(texts), ids_max or 1):
        yield f"{','.join(texts[start : start + ids_max])} {tenant_id}"


def read_payload(payload: str) -> tuple[str, list[UUID]]:
    """Read what `payloads` wrote. Raises ValueError for anything else."""
    texts, space, tenant_id = payload.partition(" ")
    if not space:
        raise ValueError("a notification without a tenant")
    return tenant_id, [UUID(hex=text) for text in texts.split(",")]


class Doorbell:
    """Rings from one process. Nothing that goes wrong here is anybody's failure: it is logged, and tried again."""

    def __init__(self, url: str, connect_seconds: float, statement_seconds: float) -> None:
        self._url = url
        self._connect_timeout = max(2, round(connect_seconds))
        self._statement_seconds = statement_seconds
        self._waiting: dict[str, dict[UUID, None]] = {}
        self._ringing: asyncio.Task[None] | None = None
        self._connection: Connection | None = None

    def ring(self, tenant_id: str, *ids: UUID) -> None:
        """Tell that contexts have changed; waits for nothing."""
        waiting = self._waiting.setdefault(tenant_id, {})
        if len(waiting) < _WAITING_MAX:
            waiting.update(dict.fromkeys(ids))
        if self._ringing is None or self._ringing.done():
            self._ringing = asyncio.create_task(self._ring())

    async def close(self) -> None:
        """Ring what waits, if the database takes it at once, and close the connection."""
        if self._ringing is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ringing, _RETRY_SECONDS)
        if self._connection is not None:
            await self._connection.close()

    async def _ring(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, {}
            try:
                lines = [line for tenant_id, ids in waiting.items() for line in payloads(tenant_id, ids)]
                await self._notify(lines)
                pause = _PAUSE_SECONDS
            except (psycopg.Error, StoreError, OSError) as error:
                log.warning("doorbell: not rung", error=_describe(error))
                for tenant_id, ids in waiting.items():
                    self._waiting[tenant_id] = ids | self._waiting.get(tenant_id, {})
                pause = _RETRY_SECONDS
            except Exception as error:  # noqa: BLE001 - it would be no better the next time; listeners look
                log.warning("doorbell: cannot be rung", error=_describe(error))
                pause = _RETRY_SECONDS
            await asyncio.sleep(pause)

    async def _notify(self, lines: list[str]) -> None:
        if self._connection is None or self._connection.closed:
            self._connection = await AsyncConnection.connect(
                self._url, autocommit=True, cursor_factory=AsyncRawCursor, connect_timeout=self._connect_timeout
            )
        try:
            # Not prepared: behind a transaction pooler another server process may take it.
            await run_statement(self._connection, _RING.text, [lines], self._statement_seconds, prepare=False)
        except BaseException:
            await self._connection.close()
            raise


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
