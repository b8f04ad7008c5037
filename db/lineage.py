"""The lineage of a context: its own messages and what it inherits, read without copying."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from db import queries
from db.pool import Session, Snapshot
from db.records import ContextRecord, MessageRecord

_QUERIES = queries.load("lineage")

Reader = Session | Snapshot

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
class Origin:
    """What a fork starts from: who stores the message at its version (None at version 0), and the counters there."""

    owner_id: UUID | None
    message_count: int
    total_tokens: int
    running_tokens: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A message where it is stored."""

    id: UUID
    owner_id: UUID
    token_count: int
    running_tokens: int
    deleted: bool


async def page(
    reader: Reader,
    tenant_id: str,
    places: Sequence[Place],
    limit: int,
    *,
    newest_first: bool,
    roles: Sequence[str] | None,
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
        )
        pages: dict[int, list[MessageRecord]] = {}
        complete: set[int] = set()
        for ordinal, is_complete, *row in rows:
            messages = pages.setdefault(ordinal - 1, [])
            if row[0] is not None:
                messages.append(MessageRecord(*row))
            if is_complete:
                complete.add(ordinal - 1)
        for ordinal, messages in pages.items():
            found[wanted[ordinal]] = messages
        wanted = [
            wanted[ordinal] for ordinal, messages in pages.items() if len(messages) < limit and ordinal not in complete
        ]
        stretch = min(stretch * _WIDER, 2**20)
    return found


async def count_roles(reader: Reader, tenant_id: str, ids: Sequence[UUID], roles: Sequence[str]) -> dict[UUID, int]:
    """Count the visible messages of some roles in each lineage. Source: lineage.count_roles."""
    rows = await reader.fetch(_QUERIES["count_roles"], tenant_id, list(ids), list(roles))
    return {context_id: count for context_id, count in rows}  # noqa: C416 - dict() does not accept rows of Any


async def stored(reader: Reader, tenant_id: str, context_id: UUID, version: int) -> Stored | None:
    """Find the message of a version, deleted or not; None where the lineage has none. Source: lineage.stored."""
    for message_id, owner_id, token_count, running_tokens, deleted_at in await reader.fetch(
        _QUERIES["stored"], tenant_id, context_id, version
    ):
        return Stored(message_id, owner_id, token_count, running_tokens, deleted_at is not None)
    return None


async def origin(reader: Reader, tenant_id: str, context: ContextRecord, version: int) -> Origin:
    """Give what a fork of `context` at `version` starts from.

    The counters are the stored running sum less what is deleted, and that is looked for above the version, for forks
    are made near the tip; it costs nothing when nothing is deleted. Source: lineage.stored, lineage.deleted_after.
    """
    if version == 0:
        return Origin(None, 0, 0, 0)
    message = await _there(reader, tenant_id, context, version)
    if version == context.latest_version:
        return Origin(message.owner_id, context.message_count, context.total_tokens, message.running_tokens)
    deleted_count, deleted_tokens = context.latest_version - context.message_count, 0
    if deleted_count:
        tip = await _there(reader, tenant_id, context, context.latest_version)
        ((count, tokens),) = await reader.fetch(_QUERIES["deleted_after"], tenant_id, context.id, version)
        deleted_count -= count
        deleted_tokens = tip.running_tokens - context.total_tokens - tokens
    return Origin(
        message.owner_id, version - deleted_count, message.running_tokens - deleted_tokens, message.running_tokens
    )


async def _there(reader: Reader, tenant_id: str, context: ContextRecord, version: int) -> Stored:
    message = await stored(reader, tenant_id, context.id, version)
    if message is None:
        raise LookupError(f"version {version} of context {context.id} is not stored")
    return message
