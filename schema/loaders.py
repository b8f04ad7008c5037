"""Loaders: what the resolvers of one level ask for, one statement each.

They live as long as one snapshot, and ask the same batch functions of `db` whatever asks.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from strawberry.dataloader import DataLoader

import db.context
import db.lineage
import db.message
import db.tree
import db.window
from db.lineage import Place, Totals
from db.pool import Snapshot
from db.records import ContextRecord, MessageRecord
from db.window import Fitted, Frame

# A window may have ten thousand messages, and a tree ten thousand nodes; this bounds what one statement brings.
WINDOWS_BATCH = 20
TREES_BATCH = 10

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")
Shape = TypeVar("Shape", bound=Hashable)


@dataclass(frozen=True, slots=True)
class LineagePage:
    """A page of a lineage, as a key."""

    place: Place
    limit: int
    newest_first: bool
    roles: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class RoleCount:
    """A count of messages of some roles, as a key: those of versions (low, high] of a lineage."""

    context_id: UUID
    low: int
    high: int
    roles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ForksPage:
    """A page of forks, as a key: it starts after a fork's (created_at, id)."""

    parent_id: UUID
    created_at: datetime
    fork_id: UUID
    limit: int


@dataclass(frozen=True, slots=True)
class TreePart:
    """The first nodes of a tree, as a key."""

    tree_id: UUID
    limit: int


@dataclass(frozen=True, slots=True)
class ContextsPage:
    """A page of the tenant's contexts, as a key: it starts after a value of the order and an id."""

    chosen: db.context.Filter
    order: db.context.Order
    direction: db.context.Direction
    after: tuple[datetime | str, UUID] | None
    limit: int


@dataclass(frozen=True, slots=True)
class Charges:
    """Take what was read from what one request may read, and raise when that is exceeded."""

    window_messages: Callable[[int], None]
    tree_nodes: Callable[[int], None]


class Loaders:
    """The loaders of one snapshot for one tenant."""

    def __init__(
        self,
        snapshot: Snapshot,
        tenant_id: str,
        window_messages_max: int,
        charges: Charges,
    ) -> None:
        self._snapshot = snapshot
        self._tenant_id = tenant_id
        self._window_messages_max = window_messages_max
        self._charges = charges
        self.context = DataLoader(load_fn=self._contexts)
        self.message = DataLoader(load_fn=self._messages)
        self.contexts = DataLoader(load_fn=self._context_pages)
        self.context_count = DataLoader(load_fn=self._context_counts)
        self.ancestors = DataLoader(load_fn=self._ancestors)
        self.forks = DataLoader(load_fn=self._forks)
        self.fork_count = DataLoader(load_fn=self._fork_counts)
        self.tree = DataLoader(load_fn=self._trees, max_batch_size=TREES_BATCH)
        self.common_ancestor = DataLoader(load_fn=self._common_ancestors)
        self.lineage = DataLoader(load_fn=self._lineages)
        self.role_count = DataLoader(load_fn=self._role_counts)
        self.totals = DataLoader(load_fn=self._totals)
        self.version_at = DataLoader(load_fn=self._versions_at)
        self.window = DataLoader(load_fn=self._windows, max_batch_size=WINDOWS_BATCH)

    async def _contexts(self, ids: list[UUID]) -> list[ContextRecord | None]:
        found = {record.id: record for record in await db.context.by_ids(self._snapshot, self._tenant_id, ids)}
        return [found.get(context_id) for context_id in ids]

    async def _messages(self, ids: list[UUID]) -> list[MessageRecord | None]:
        found = {record.id: record for record in await db.message.by_ids(self._snapshot, self._tenant_id, ids)}
        return [found.get(message_id) for message_id in ids]

    async def _context_pages(self, keys: list[ContextsPage]) -> list[list[ContextRecord]]:
        return [
            await db.context.page(
                self._snapshot, self._tenant_id, key.chosen, key.order, key.direction, key.after, key.limit
            )
            for key in keys
        ]

    async def _context_counts(self, keys: list[db.context.Filter]) -> list[int]:
        return [await db.context.count(self._snapshot, self._tenant_id, key) for key in keys]

    async def _ancestors(self, ids: list[UUID]) -> list[list[ContextRecord]]:
        found = await db.context.ancestors(self._snapshot, self._tenant_id, ids)
        return [found[context_id] for context_id in ids]

    async def _fork_counts(self, ids: list[UUID]) -> list[int]:
        found = await db.context.count_forks(self._snapshot, self._tenant_id, ids)
        return [found.get(context_id, 0) for context_id in ids]

    async def _forks(self, keys: list[ForksPage]) -> list[list[ContextRecord]]:
        async def load(limit: int, pages: Sequence[ForksPage]) -> list[list[ContextRecord]]:
            places = [(page.parent_id, page.created_at, page.fork_id) for page in pages]
            return await db.context.forks(self._snapshot, self._tenant_id, places, limit)

        return await _by_shape(keys, lambda key: key.limit, load)

    async def _trees(self, keys: list[TreePart]) -> list[list[db.tree.Node]]:
        self._charges.tree_nodes(0)  # refuses this batch when an earlier one was too much already
        places = [(key.tree_id, key.limit) for key in keys]
        found = await db.tree.nodes(self._snapshot, self._tenant_id, places)
        # What is read counts, however little of it is shown; but not the one node more that tells of a next.
        self._charges.tree_nodes(sum(min(len(nodes), key.limit - 1) for key, nodes in zip(keys, found, strict=True)))
        return found

    async def _common_ancestors(self, pairs: list[tuple[UUID, UUID]]) -> list[db.tree.Meeting | None]:
        return await db.tree.common_ancestors(self._snapshot, self._tenant_id, pairs)

    async def _lineages(self, keys: list[LineagePage]) -> list[list[MessageRecord]]:
        async def load(
            shape: tuple[int, bool, tuple[str, ...] | None], pages: Sequence[LineagePage]
        ) -> list[list[MessageRecord]]:
            limit, newest_first, roles = shape
            places = [page.place for page in pages]
            return await db.lineage.page(
                self._snapshot, self._tenant_id, places, limit, newest_first=newest_first, roles=roles
            )

        return await _by_shape(keys, lambda key: (key.limit, key.newest_first, key.roles), load)

    async def _role_counts(self, keys: list[RoleCount]) -> list[int]:
        async def load(roles: tuple[str, ...], counts: Sequence[RoleCount]) -> list[int]:
            ranges = [(count.context_id, count.low, count.high) for count in counts]
            return await db.lineage.count_roles(self._snapshot, self._tenant_id, ranges, roles)

        return await _by_shape(keys, lambda key: key.roles, load)

    async def _totals(self, keys: list[tuple[UUID, int]]) -> list[Totals]:
        return await db.lineage.totals(self._snapshot, self._tenant_id, keys)

    async def _versions_at(self, keys: list[tuple[UUID, datetime]]) -> list[int]:
        return await db.lineage.versions_at(self._snapshot, self._tenant_id, keys)

    async def _windows(self, keys: list[Frame]) -> list[Fitted]:
        self._charges.window_messages(0)  # refuses this batch when an earlier one was too much already
        # One message more tells that there are too many.
        found = await db.window.fit(self._snapshot, self._tenant_id, keys, self._window_messages_max + 1)
        self._charges.window_messages(sum(len(fitted.messages) for fitted in found))
        return found


async def _by_shape(
    keys: Sequence[Key],
    shape_of: Callable[[Key], Shape],
    load: Callable[[Shape, Sequence[Key]], Awaitable[list[Result]]],
) -> list[Result]:
    """Load keys of one shape together, and give the results in the order of the keys."""
    groups: dict[Shape, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(shape_of(key), []).append(index)
    loaded = await asyncio.gather(*(load(shape, [keys[i] for i in places]) for shape, places in groups.items()))
    results = {
        index: result
        for places, batch in zip(groups.values(), loaded, strict=True)
        for index, result in zip(places, batch, strict=True)
    }
    return [results[index] for index in range(len(keys))]
