"""The lineage of a context: its own messages and what it inherits, read without copying."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from db import queries
from db.pool import Reader, Session
from db.records import EVERY_COLUMN, Columns, MessageRecord, make_message

_QUERIES = queries.load("lineage")

# How much wider each further attempt reads when roles or deletions thin a page out. What is read in vain stays below a
# seventh of the last attempt.
_WIDER = 8


@dataclass(frozen=True, slots=True)
class Place:
    """Where a page of a lineage lies: strictly between two versions, None for no bound."""

    context_id: UUID
    after: int | None
    before: int | None


@dataclass(frozen=True, slots=True)
class Totals:
    """A lineage through one of its versions: who stores the message there (None at version 0), and the counters.

    `running_tokens` counts deleted messages, the other counters do not.
    """

    owner_id: UUID | None
    running_tokens: int
    message_count: int
    total_tokens: int


class News(NamedTuple):
    """What a lineage has above a version: its visible messages in order, and through which version these are all."""

    after: int
    through: int
    latest_version: int
    deleted: bool
    messages: list[MessageRecord]

    @property
    def is_last(self) -> bool:
        """Whether nothing will follow: the context is deleted, and this is all of it."""
        return self.deleted and self.through >= self.latest_version


@dataclass(frozen=True, slots=True)
class Stored:
    """A message where it is stored."""

    id: UUID
    owner_id: UUID
    token_count: int


async def page(
    reader: Reader,
    tenant_id: str,
    places: Sequence[Place],
    limit: int,
    *,
    newest_first: bool,
    roles: Sequence[str] | None,
    columns: Columns = EVERY_COLUMN,
) -> list[list[MessageRecord]]:
    """Give the visible messages of each place: up to `limit`, counted from its newest or oldest end, in version order.

    Source: lineage.page.
    """
    found: list[list[MessageRecord]] = [[] for _ in places]
    wanted = list(range(len(places)))
    stretch = 1
    while wanted:
        rows = await reader.fetch(
            _QUERIES["page"],
            tenant_id,
            [places[i].context_id for i in wanted],
            [places[i].after for i in wanted],
            [places[i].before for i in wanted],
            limit,
            newest_first,
            None if roles is None else list(roles),
            stretch,
            *columns,
        )
        pages: dict[int, list[MessageRecord]] = {}
        complete: set[int] = set()
        for row in rows:
            ordinal = row[0] - 1
            messages = pages.get(ordinal)
            if messages is None:
                messages = pages[ordinal] = []
                if row[1]:
                    complete.add(ordinal)
            if row[2] is not None:
                messages.append(make_message(row[2:]))
        for ordinal, messages in pages.items():
            found[wanted[ordinal]] = messages
        wanted = [
            wanted[ordinal] for ordinal, messages in pages.items() if len(messages) < limit and ordinal not in complete
        ]
        stretch = min(stretch * _WIDER, 2**20)
    return found


async def since(
    reader: Reader, tenant_id: str, places: Sequence[tuple[UUID, int | None]], width: int
) -> list[News | None]:
    """Give what each context has above a version, None for above its latest: `width` versions at most.

    None for a context that is unknown. Source: lineage.since.
    """
    found: list[News | None] = [None] * len(places)
    ids, versions = zip(*places, strict=True)
    for ordinal, latest, deleted, *message in await reader.fetch(
        _QUERIES["since"], tenant_id, list(ids), list(versions), width
    ):
        place = ordinal - 1
        news = found[place]
        if news is None:
            after = latest if versions[place] is None else versions[place]
            news = found[place] = News(after, max(after, min(after + width, latest)), latest, deleted, [])
        if message[0] is not None:
            news.messages.append(make_message(tuple(message)))
    return found


async def count_roles(
    reader: Reader, tenant_id: str, ranges: Sequence[tuple[UUID, int, int]], roles: Sequence[str]
) -> list[int]:
    """Count the visible messages of some roles in each range (context, low, high] of versions.

    Source: lineage.count_roles.
    """
    ids, lows, highs = zip(*ranges, strict=True)
    rows = await reader.fetch(_QUERIES["count_roles"], tenant_id, list(ids), list(lows), list(highs), list(roles))
    return [count for _, count in rows]


async def totals(reader: Reader, tenant_id: str, places: Sequence[tuple[UUID, int]]) -> list[Totals]:
    """Give the counters of each lineage through a version, from 0 to its latest. Source: lineage.totals."""
    ids, versions = zip(*places, strict=True)
    rows = await reader.fetch(_QUERIES["totals"], tenant_id, list(ids), list(versions))
    return [Totals(*row) for _, *row in rows]


async def versions_at(reader: Reader, tenant_id: str, places: Sequence[tuple[UUID, datetime]]) -> list[int]:
    """Give the last version of each lineage that was there at a moment, 0 for none. Source: lineage.versions_at."""
    ids, moments = zip(*places, strict=True)
    rows = await reader.fetch(_QUERIES["versions_at"], tenant_id, list(ids), list(moments))
    return [version for _, version in rows]


async def stored(reader: Reader, tenant_id: str, context_id: UUID, version: int) -> Stored | None:
    """Find the message of a version, deleted or not; None where the lineage has none. Source: lineage.stored."""
    for row in await reader.fetch(_QUERIES["stored"], tenant_id, context_id, version):
        return Stored(*row)
    return None


async def copy(
    session: Session, tenant_id: str, context_id: UUID, low: int, high: int, copy_id: UUID, ids: Sequence[UUID]
) -> None:
    """Copy the messages (low, high] of a lineage, deleted or not, into a context that has none of these versions.

    They get the `ids`, in order. Source: lineage.copy.
    """
    ((copied,),) = await session.fetch(_QUERIES["copy"], tenant_id, context_id, low, high, copy_id, list(ids))
    if copied != high - low:
        raise LookupError(f"context {context_id} holds {copied} messages from {low + 1} to {high}")
