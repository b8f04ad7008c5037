"""Batches: many keys in, what belongs to each of them out, by one statement of `db`.

Loaders (for resolvers) and steps (for plans) ask the same batches, so both read the same rows.
"""

from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, TypeVar
from uuid import UUID

import db.api_key
import db.context
import db.lineage
import db.message
import db.tree
import db.window
from db.api_key import ApiKeyRecord
from db.lineage import Place, Totals
from db.pool import Reader
from db.records import EVERY_COLUMN, Columns, ContextRecord, MessageRecord
from db.window import Fitted, Frame

# A window may have ten thousand messages, and a tree ten thousand nodes; this bounds what one statement brings.
WINDOWS_BATCH = 20
TREES_BATCH = 10

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")
Shape = TypeVar("Shape", bound=Hashable)


class LineagePage(NamedTuple):
    """A page of a lineage, as a key."""

    place: Place
    limit: int
    newest_first: bool
    roles: tuple[str, ...] | None


class RoleCount(NamedTuple):
    """A count of messages of some roles, as a key: those of versions (low, high] of a lineage."""

    context_id: UUID
    low: int
    high: int
    roles: tuple[str, ...]


class ForksPage(NamedTuple):
    """A page of forks, as a key: it starts after a fork's (created_at, id)."""

    parent_id: UUID
    created_at: datetime
    fork_id: UUID
    limit: int


class TreePart(NamedTuple):
    """The first nodes of a tree, as a key."""

    tree_id: UUID
    limit: int


class ContextsPage(NamedTuple):
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


class Batches:
    """What one tenant's rows hold, as one reader sees them."""

    def __init__(self, reader: Reader, tenant_id: str, window_messages_max: int, charges: Charges) -> None:
        self._reader = reader
        self._tenant_id = tenant_id
        self._window_messages_max = window_messages_max
        self._charges = charges

    async def contexts(self, ids: Sequence[UUID], *, metadata: bool = True) -> list[ContextRecord | None]:
        """Give each context, deleted ones too; None where there is none."""
        records = await db.context.by_ids(self._reader, self._tenant_id, ids, metadata=metadata)
        if len(ids) == 1:
            return [records[0] if records else None]
        found = {record.id: record for record in records}
        return [found.get(context_id) for context_id in ids]

    async def messages(self, ids: Sequence[UUID], columns: Columns = EVERY_COLUMN) -> list[MessageRecord | None]:
        """Give each message, deleted ones too; None where there is none."""
        records = await db.message.by_ids(self._reader, self._tenant_id, ids, columns)
        found = {record.id: record for record in records}
        return [found.get(message_id) for message_id in ids]

    async def context_pages(self, keys: Sequence[ContextsPage], *, metadata: bool = True) -> list[list[ContextRecord]]:
        """Give each page, by a statement each."""
        return [await db.context.page(self._reader, self._tenant_id, *key, metadata=metadata) for key in keys]

    async def context_counts(self, keys: Sequence[db.context.Filter]) -> list[int]:
        """Count what each filter chooses, by a statement each."""
        return [await db.context.count(self._reader, self._tenant_id, key) for key in keys]

    async def ancestors(self, ids: Sequence[UUID], *, metadata: bool = True) -> list[list[ContextRecord]]:
        """Give the ancestors of each context, nearest first, without deleted ones."""
        found = await db.context.ancestors(self._reader, self._tenant_id, ids, metadata=metadata)
        return [found[context_id] for context_id in ids]

    async def fork_counts(self, ids: Sequence[UUID]) -> list[int]:
        """Count the forks of each context, without deleted ones."""
        found = await db.context.count_forks(self._reader, self._tenant_id, ids)
        return [found.get(context_id, 0) for context_id in ids]

    async def forks(self, keys: Sequence[ForksPage], *, metadata: bool = True) -> list[list[ContextRecord]]:
        """Give each page of forks, oldest first."""

        async def load(limit: int, pages: Sequence[ForksPage]) -> list[list[ContextRecord]]:
            places = [(page.parent_id, page.created_at, page.fork_id) for page in pages]
            return await db.context.forks(self._reader, self._tenant_id, places, limit, metadata=metadata)

        return await _by_shape(keys, lambda key: key.limit, load)

    async def trees(self, keys: Sequence[TreePart]) -> list[list[db.tree.Node]]:
        """Give the first nodes of each tree.

        Raises: LimitExceeded when one request has read too many.
        """
        found: list[list[db.tree.Node]] = []
        for part in _parts(keys, TREES_BATCH):
            self._charges.tree_nodes(0)  # refuses this part when an earlier one was too much already
            nodes = await db.tree.nodes(self._reader, self._tenant_id, part)
            # What is read counts, however little of it is shown; but not the one node more that tells of a next.
            self._charges.tree_nodes(sum(min(len(tree), key.limit - 1) for key, tree in zip(part, nodes, strict=True)))
            found += nodes
        return found

    async def common_ancestors(self, pairs: Sequence[tuple[UUID, UUID]]) -> list[db.tree.Meeting | None]:
        """Give where each two contexts meet; None for those of two trees."""
        return await db.tree.common_ancestors(self._reader, self._tenant_id, pairs)

    async def lineages(self, keys: Sequence[LineagePage], columns: Columns = EVERY_COLUMN) -> list[list[MessageRecord]]:
        """Give each page of a lineage in version order."""

        async def load(
            shape: tuple[int, bool, tuple[str, ...] | None], pages: Sequence[LineagePage]
        ) -> list[list[MessageRecord]]:
            limit, newest_first, roles = shape
            places = [page.place for page in pages]
            return await db.lineage.page(
                self._reader, self._tenant_id, places, limit, newest_first=newest_first, roles=roles, columns=columns
            )

        return await _by_shape(keys, lambda key: key[1:], load)

    async def role_counts(self, keys: Sequence[RoleCount]) -> list[int]:
        """Count the visible messages of some roles."""

        async def load(roles: tuple[str, ...], counts: Sequence[RoleCount]) -> list[int]:
            ranges = [count[:3] for count in counts]
            return await db.lineage.count_roles(self._reader, self._tenant_id, ranges, roles)

        return await _by_shape(keys, lambda key: key.roles, load)

    async def totals(self, keys: Sequence[tuple[UUID, int]]) -> list[Totals]:
        """Give the counters of each lineage through a version."""
        return await db.lineage.totals(self._reader, self._tenant_id, keys)

    async def versions_at(self, keys: Sequence[tuple[UUID, datetime]]) -> list[int]:
        """Give the last version of each lineage at a moment, 0 for none."""
        return await db.lineage.versions_at(self._reader, self._tenant_id, keys)

    async def windows(self, keys: Sequence[Frame], columns: Columns = EVERY_COLUMN) -> list[Fitted]:
        """Fit each window. One message more than a window may have tells that there are too many.

        Raises: LimitExceeded when one request has read too many.
        """
        found: list[Fitted] = []
        for part in _parts(keys, WINDOWS_BATCH):
            self._charges.window_messages(0)  # refuses this part when an earlier one was too much already
            limit = self._window_messages_max + 1
            fitted = await db.window.fit(self._reader, self._tenant_id, part, limit, columns)
            self._charges.window_messages(sum(len(window.messages) for window in fitted))
            found += fitted
        return found

    async def api_key_page(self, after: tuple[datetime, UUID], limit: int) -> list[ApiKeyRecord]:
        """Give a page of API keys, newest first."""
        return await db.api_key.page(self._reader, self._tenant_id, after, limit)


def _parts(keys: Sequence[Key], size: int) -> list[Sequence[Key]]:
    return [keys[start : start + size] for start in range(0, len(keys), size)]


async def _by_shape(
    keys: Sequence[Key],
    shape_of: Callable[[Key], Shape],
    load: Callable[[Shape, Sequence[Key]], Awaitable[list[Result]]],
) -> list[Result]:
    """Load keys of one shape together, and give the results in the order of the keys."""
    groups: dict[Shape, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(shape_of(key), []).append(index)
    if len(groups) == 1:  # nearly always
        return await load(next(iter(groups)), keys)
    results: dict[int, Result] = {}
    for shape, places in groups.items():
        results |= zip(places, await load(shape, [keys[i] for i in places]), strict=True)
    return [results[index] for index in range(len(keys))]
