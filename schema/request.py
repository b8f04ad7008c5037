"""What the resolvers of one request share: who asks, the snapshot that is read, the limits."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Self
from uuid import UUID

import strawberry

from db.live import Live
from db.pool import Database, Reader, Session, Snapshot
from schema.batches import Batches, Charges
from schema.errors import LimitExceeded
from schema.loaders import Loaders
from schema.principal import Principal
from schema.token_count import TokenCounter


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may ask for."""

    page_size_max: int
    append_messages_max: int
    append_bytes_max: int
    fork_depth_max: int
    window_messages_max: int
    idempotency_hours: int
    copy_messages_max: int
    health_seconds: float


@dataclass(frozen=True, slots=True)
class Service:
    """What all requests of a process share."""

    database: Database
    token_counter: TokenCounter
    limits: Limits
    version: str
    live: Live


# The nodes of trees that one request may read: a small document must not ask for a large tree over and over.
TREE_NODES_MAX = 20_000

# How many of the largest windows one request may read, or more of smaller ones.
WINDOWS_MAX = 10


class Request:
    """One request of one tenant. It reads at one moment, from its first statement or its last mutation on."""

    def __init__(self, service: Service, principal: Principal) -> None:
        self.service = service
        self.principal = principal
        self.tenant_id = principal.tenant_id
        self.snapshot = Snapshot(service.database, self.tenant_id)
        self._loaders: Loaders | None = None
        self.renew()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_failure: object) -> None:
        await self.close()

    @property
    def loaders(self) -> Loaders:
        """What resolvers load by, until something is changed."""
        if self._loaders is None:
            self._loaders = Loaders(self.batches(self.snapshot))
        return self._loaders

    def renew(self) -> None:
        """Begin to count anew what is read, as when what was read is thrown away."""
        self._ancestors_left = self.service.limits.fork_depth_max
        self._tree_nodes_left = self._tree_nodes_unread = TREE_NODES_MAX
        self._window_messages_left = WINDOWS_MAX * self.service.limits.window_messages_max

    def charge_ancestors(self, count: int) -> None:
        """Take from what one request may read of ancestors: as many as the deepest fork can have.

        Raises: LimitExceeded.
        """
        self._ancestors_left -= count
        if self._ancestors_left < 0:
            raise LimitExceeded(
                f"The ancestors asked for are more than {self.service.limits.fork_depth_max} in all "
                "(FORKPOINT_FORK_DEPTH_MAX). "
                "Ask for those of fewer contexts at a time."
            )

    def charge_tree_nodes(self, *, read: int = 0, shown: int = 0) -> None:
        """Take from what one request may read of trees, and from what it may show of them.

        Raises: LimitExceeded.
        """
        self._tree_nodes_unread -= read
        self._tree_nodes_left -= shown
        if min(self._tree_nodes_unread, self._tree_nodes_left) < 0:
            raise LimitExceeded(
                f"The nodes of the trees asked for are more than {TREE_NODES_MAX} in all. "
                "Ask for those of fewer contexts at a time, or for fewer nodes."
            )

    def charge_window_messages(self, count: int) -> None:
        """Take from what one request may read of windows.

        Raises: LimitExceeded.
        """
        self._window_messages_left -= count
        if self._window_messages_left < 0:
            messages_max = WINDOWS_MAX * self.service.limits.window_messages_max
            raise LimitExceeded(
                f"The windows asked for have more than {messages_max} messages in all, "
                f"{WINDOWS_MAX} times FORKPOINT_WINDOW_MESSAGES_MAX. "
                "Ask for those of fewer contexts at a time, or for smaller budgets."
            )

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Session]:
        """Write in a transaction; what is read afterwards is read anew, and sees it."""
        await self.begin_anew()
        async with self.service.database.transaction(self.tenant_id) as session:
            yield session

    def ring(self, *changed: UUID) -> None:
        """Tell subscribers of all processes that contexts have changed, when that is committed."""
        self.service.live.ring(self.tenant_id, *changed)

    async def begin_anew(self) -> None:
        """Let what is read from now on be of a later moment, as a change is about to be made."""
        await self.close()
        self.snapshot = Snapshot(self.service.database, self.tenant_id)
        self._loaders = None

    def batches(self, reader: Reader) -> Batches:
        """Give what the tenant's rows hold, as a reader sees them, charged to this request."""
        charges = Charges(self.charge_window_messages, lambda count: self.charge_tree_nodes(read=count))
        return Batches(reader, self.tenant_id, self.service.limits.window_messages_max, charges)

    async def close(self) -> None:
        """Give the snapshot's connection back."""
        await self.snapshot.close()


Info = strawberry.Info[Request, None]
