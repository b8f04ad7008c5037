"""Contexts: reading rows, making and changing them, forking."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import UUID

from psycopg.types.numeric import Int8

from db import lineage, queries
from db.pool import Reader, Session
from db.records import ContextRecord

_QUERIES = queries.load("context")
_LIST = queries.load("context_list")

Order = Literal["updated_at", "created_at", "name"]
Direction = Literal["asc", "desc"]

NIL = UUID(int=0)
MAX = UUID(int=2**128 - 1)
EARLIEST = datetime(1, 1, 1, tzinfo=UTC)
LATEST = datetime.max.replace(tzinfo=UTC)
# Longer than any name and made of the highest code point, so no name sorts after it.
LAST_NAME = "\U0010ffff" * 256


@dataclass(frozen=True, slots=True)
class Filter:
    """Which contexts to list. None and False filter nothing, but deleted ones are left out unless asked for."""

    name_contains: str | None = None
    metadata_contains: str | None = None
    roots_only: bool = False
    parent_id: UUID | None = None
    updated_since: datetime | None = None
    include_deleted: bool = False

    def parameters(self) -> tuple[Any, ...]:
        """Give the parameters from $2 on; whether deleted ones are chosen is the last."""
        return (
            self.name_contains,
            self.metadata_contains,
            self.roots_only,
            self.parent_id,
            self.updated_since,
            self.include_deleted,
        )


async def by_ids(reader: Reader, tenant_id: str, ids: Sequence[UUID], *, metadata: bool = True) -> list[ContextRecord]:
    """Give the contexts that exist, deleted ones too, in no order. Source: context.by_ids."""
    rows = await reader.fetch(_QUERIES["by_ids"], tenant_id, list(ids), metadata)
    return [ContextRecord._make(row) for row in rows]


async def ancestors(
    reader: Reader, tenant_id: str, ids: Sequence[UUID], *, metadata: bool = True
) -> dict[UUID, list[ContextRecord]]:
    """Give the ancestors of each context, nearest first, without deleted ones. Source: context.ancestors."""
    found: dict[UUID, list[ContextRecord]] = {context_id: [] for context_id in ids}
    for reader_id, *row in await reader.fetch(_QUERIES["ancestors"], tenant_id, list(ids), metadata):
        found[reader_id].append(ContextRecord._make(row))
    return found


async def forks(
    reader: Reader,
    tenant_id: str,
    places: Sequence[tuple[UUID, datetime, UUID]],
    limit: int,
    *,
    metadata: bool = True,
) -> list[list[ContextRecord]]:
    """Give a page of forks, oldest first, for each (parent, created_at, id) to start after. Source: context.forks."""
    parents, moments, ids = zip(*places, strict=True)
    found: list[list[ContextRecord]] = [[] for _ in places]
    for ordinal, *row in await reader.fetch(
        _QUERIES["forks"], tenant_id, list(parents), list(moments), list(ids), limit, metadata
    ):
        found[ordinal - 1].append(ContextRecord._make(row))
    return found


async def count_forks(reader: Reader, tenant_id: str, ids: Sequence[UUID]) -> dict[UUID, int]:
    """Count the forks of each context that has any, without deleted ones. Source: context.count_forks."""
    return dict(await reader.fetch(_QUERIES["count_forks"], tenant_id, list(ids)))


async def page(
    reader: Reader,
    tenant_id: str,
    chosen: Filter,
    order: Order,
    direction: Direction,
    after: tuple[datetime | str, UUID] | None,
    limit: int,
    *,
    metadata: bool = True,
) -> list[ContextRecord]:
    """List contexts in an order, after a place. Source: context_list.by_*, or all_by_* where nothing is filtered."""
    if after is None:
        after = _start(order, direction)
    place = (after[0], after[1], limit, metadata)
    if chosen == Filter():
        rows = await reader.fetch(_LIST[f"all_by_{order}_{direction}"], tenant_id, *place)
    else:
        rows = await reader.fetch(_LIST[f"by_{order}_{direction}"], tenant_id, *chosen.parameters(), *place)
    return [ContextRecord._make(row) for row in rows]


async def count(reader: Reader, tenant_id: str, chosen: Filter) -> int:
    """Count the contexts that a filter chooses. Source: context_list.count."""
    ((found,),) = await reader.fetch(_LIST["count"], tenant_id, *chosen.parameters())
    return int(found)


async def matching(reader: Reader, tenant_id: str, chosen: Filter, ids: Sequence[UUID]) -> list[ContextRecord]:
    """Give those of some contexts that a filter chooses, deleted ones too. Source: context_list.matching."""
    rows = await reader.fetch(_LIST["matching"], tenant_id, *chosen.parameters()[:-1], list(ids))
    return [ContextRecord._make(row) for row in rows]


async def create(session: Session, tenant_id: str, context_id: UUID, name: str | None, metadata: str) -> ContextRecord:
    """Make a root and its tree. Source: context.create."""
    (row,) = await session.fetch(_QUERIES["create"], tenant_id, context_id, name, metadata)
    return ContextRecord(*row)


async def fork(
    session: Session,
    tenant_id: str,
    fork_id: UUID,
    parent: ContextRecord,
    version: int | None,
    name: str | None,
    metadata: str,
) -> ContextRecord:
    """Make a fork of `parent` at `version` (its latest when None): one row, whatever the history's length.

    `version` must lie between 0 and the parent's latest_version. Source: context.lock_tree_shared,
    lineage.totals, context.fork.
    """
    await lock_tree_shared(session, tenant_id, parent.root_id)
    # Read again: before the lock was ours a message may have been deleted, and with it the counters changed.
    (parent,) = await by_ids(session, tenant_id, [parent.id])
    at = parent.latest_version if version is None else version
    (origin,) = await lineage.totals(session, tenant_id, [(parent.id, at)])
    (row,) = await session.fetch(
        _QUERIES["fork"],
        tenant_id,
        fork_id,
        parent.id,
        at,
        name,
        metadata,
        origin.owner_id,
        origin.message_count,
        origin.total_tokens,
        Int8(origin.running_tokens),
    )
    return ContextRecord(*row)


async def update(
    session: Session, tenant_id: str, context_id: UUID, name: str | None, metadata: str | None
) -> ContextRecord | None:
    """Change what is not None; None when the context is unknown or deleted. Source: context.update."""
    return _maybe(await session.fetch(_QUERIES["update"], tenant_id, context_id, name, metadata))


async def delete(session: Session, tenant_id: str, context_id: UUID) -> ContextRecord | None:
    """Hide a context; None when it is unknown or deleted already. Source: context.delete."""
    return _maybe(await session.fetch(_QUERIES["delete"], tenant_id, context_id))


async def restore(session: Session, tenant_id: str, context_id: UUID) -> ContextRecord | None:
    """Show a deleted context again; None when it is unknown or not deleted. Source: context.restore."""
    return _maybe(await session.fetch(_QUERIES["restore"], tenant_id, context_id))


async def lock(session: Session, tenant_id: str, context_id: UUID) -> ContextRecord | None:
    """Let nobody append before the transaction ends; None when it is unknown or deleted. Source: context.lock."""
    return _maybe(await session.fetch(_QUERIES["lock"], tenant_id, context_id))


async def lock_tree_shared(session: Session, tenant_id: str, root_id: UUID) -> None:
    """Let nobody delete or restore a message of this tree; comes before `lock`. Source: context.lock_tree_shared."""
    await session.fetch(_QUERIES["lock_tree_shared"], tenant_id, root_id)


async def lock_tree(session: Session, tenant_id: str, root_id: UUID) -> None:
    """Be alone among those who fork in this tree or delete or restore its messages. Source: context.lock_tree."""
    await session.fetch(_QUERIES["lock_tree"], tenant_id, root_id)


async def recount(
    session: Session, tenant_id: str, owner_id: UUID, version: int, messages: int, tokens: int
) -> list[UUID]:
    """Let the counters of all who read a message of `owner_id` follow its deletion or return, and give their ids.

    Source: context.recount.

    Raises: OutOfRange when a total would pass the largest Int.
    """
    rows = await session.fetch(_QUERIES["recount"], tenant_id, owner_id, version, messages, tokens)
    return [context_id for (context_id,) in rows]


def _maybe(rows: Sequence[tuple[Any, ...]]) -> ContextRecord | None:
    return ContextRecord(*rows[0]) if rows else None


def _start(order: Order, direction: Direction) -> tuple[datetime | str, UUID]:
    """Give the place before the first context: with a place always given, the index serves every page alike."""
    if direction == "asc":
        return ("" if order == "name" else EARLIEST, NIL)
    return (LAST_NAME if order == "name" else LATEST, MAX)
