"""What makes one process live: its doorbell, the listener that hears all of them, and what is followed and watched."""

from collections.abc import Sequence
from uuid import UUID

from db.doorbell import Doorbell
from db.feed import Feeds
from db.listener import Listener, ListenerLimits
from db.pool import Database
from db.watch import Watches


class Live:
    """Changes that this process makes are told to all, and those that anybody makes are told here."""

    def __init__(self, database: Database) -> None:
        limits = database.limits
        self.feeds = Feeds(database)
        self.watches = Watches(database)
        self._doorbell = Doorbell(database.url, limits.connect_seconds, limits.statement_seconds)
        self._listener = Listener(
            database.url,
            ListenerLimits(
                limits.connect_seconds, limits.statement_seconds, limits.poll_seconds, limits.slow_poll_seconds
            ),
            self._hear,
            self._check,
        )

    @property
    def listening(self) -> bool:
        """Whether changes are heard at once."""
        return self._listener.listening

    @property
    def polling(self) -> bool:
        """Whether changes that other processes make are not heard at once, but looked for every second or so."""
        return self._listener.polling

    def open(self) -> None:
        """Start, without waiting for a connection."""
        self.feeds.open()
        self._listener.open()

    async def close(self) -> None:
        """Stop, and close the connections."""
        await self._listener.close()
        await self.feeds.close()
        await self._doorbell.close()

    def ring(self, tenant_id: str, *ids: UUID) -> None:
        """Tell that contexts have changed, when that is committed."""
        self._doorbell.ring(tenant_id, *ids)
        if not self.listening:
            self._hear(tenant_id, ids)

    def _hear(self, tenant_id: str, ids: Sequence[UUID]) -> None:
        self.feeds.hear(tenant_id, ids)
        self.watches.hear(tenant_id, ids)

    async def _check(self) -> None:
        await self.feeds.check()
        await self.watches.check()
