"""When API keys were used last: noted in memory, and written of many keys at once, so that no request waits for it."""

import asyncio
from collections import defaultdict
from contextlib import suppress
from time import monotonic
from uuid import UUID

import structlog

import db.api_key
from db.errors import Unavailable
from db.pool import Database

log = structlog.get_logger(__name__)

WRITE_SECONDS = 30.0
# At the end nobody waits longer for a database that does not answer.
CLOSE_SECONDS = 3.0
# Keys noted and not written yet. What is more is not noted: it will be when it is used again.
NOTED_MAX = 10_000


class Uses:
    """Keeps the last use of each key until it is written."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._noted: dict[tuple[str, UUID], float] = {}
        self._writing: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begin to write every now and then."""
        self._writing = asyncio.create_task(self._write_for_ever())

    async def close(self) -> None:
        """Write what is left, if the database takes it soon."""
        if self._writing is not None:
            self._writing.cancel()
            with suppress(asyncio.CancelledError):
                await self._writing
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.write()
        except TimeoutError:
            log.warning("API keys: the last uses were not written", keys=len(self._noted))

    def note(self, tenant_id: str, key_id: UUID) -> None:
        """Remember that a key is used now."""
        key = (tenant_id, key_id)
        if key in self._noted or len(self._noted) < NOTED_MAX:
            self._noted[key] = monotonic()

    async def write(self) -> None:
        """Write what is noted, by a statement for each tenant. What cannot be written stays noted."""
        by_tenant: defaultdict[str, dict[UUID, float]] = defaultdict(dict)
        for (tenant_id, key_id), used_at in self._noted.items():
            by_tenant[tenant_id][key_id] = used_at
        for tenant_id, used in by_tenant.items():
            try:
                await self._write_of(tenant_id, used)
            except Exception as error:  # noqa: BLE001 - whatever it is, it shall stop neither the others nor the task
                log.warning("API keys: last uses are written later", error=f"{type(error).__name__}: {error}")
                if isinstance(error, Unavailable):
                    return
                continue
            for key_id, used_at in used.items():
                if self._noted.get((tenant_id, key_id)) == used_at:  # it was not used again meanwhile
                    del self._noted[tenant_id, key_id]

    async def _write_of(self, tenant_id: str, used: dict[UUID, float]) -> None:
        async with self._database.transaction(tenant_id) as session:
            now = monotonic()
            ago = {key_id: round((now - used_at) * 1000) for key_id, used_at in used.items()}
            await db.api_key.note_uses(session, tenant_id, ago)

    async def _write_for_ever(self) -> None:
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            await self.write()
