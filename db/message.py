"""Messages: reading rows by id, appending batches, deleting and restoring one."""

from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

from db import context, lineage, queries
from db.call import Recorder
from db.errors import UNCONFIRMED, LineBroken, Unanswered, Unavailable
from db.pipeline import Lane
from db.pool import Reader, Session
from db.records import EVERY_COLUMN, Columns, ContextRecord, MessageRecord, NewMessage

_QUERIES = queries.load("message")


async def by_ids(
    reader: Reader, tenant_id: str, ids: Sequence[UUID], columns: Columns = EVERY_COLUMN
) -> list[MessageRecord]:
    """Give the messages that exist, deleted ones too, each context's in version order. Source: message.by_ids."""
    rows = await reader.fetch(_QUERIES["by_ids"], tenant_id, list(ids), *columns)
    return [MessageRecord._make(row) for row in rows]


async def append(
    session: Reader, tenant_id: str, context_id: UUID, messages: Sequence[NewMessage]
) -> ContextRecord | None:
    """Append a batch, all of it or nothing; gives the context afterwards, None when it is unknown or deleted.

    Raises: OutOfRange when the versions or the tokens would pass the largest Int. Source: message.append.
    """
    rows = await session.fetch(
        _QUERIES["append"],
        tenant_id,
        context_id,
        [m.id for m in messages],
        [m.role for m in messages],
        [m.content for m in messages],
        [m.tool_calls for m in messages],
        [m.tool_call_id for m in messages],
        [m.tool_name for m in messages],
        [m.token_count for m in messages],
        [m.model for m in messages],
        [m.metadata for m in messages],
    )
    return ContextRecord(*rows[0]) if rows else None


async def append_at_once(
    lane: Lane, tenant_id: str, context_id: UUID, messages: Sequence[NewMessage]
) -> tuple[ContextRecord | None, list[MessageRecord]]:
    """Append a batch in one round trip, and read it back; nothing is read when the context is unknown or deleted.

    Raises: as `append`; LaneAway when nothing was done; Unavailable when it may or may not be stored.
    """
    recorder = Recorder()
    ids = [message.id for message in messages]
    try:
        record, stored = await lane.run(
            tenant_id, append(recorder, tenant_id, context_id, messages), by_ids(recorder, tenant_id, ids)
        )
    except (LineBroken, Unanswered) as error:
        raise Unavailable(UNCONFIRMED) from error
    return record, stored


class Turned(NamedTuple):
    """A message that was deleted or restored, and the contexts whose counters have followed, none where it was so."""

    message_id: UUID
    readers: list[UUID]


async def delete(session: Session, tenant_id: str, reader: ContextRecord, version: int) -> Turned | None:
    """Hide the message that `reader` sees at `version`, from every context that inherits it.

    None when the lineage does not reach the version. Doing it again changes nothing.
    """
    return await _turn(session, tenant_id, reader, version, deleted=True)


async def restore(session: Session, tenant_id: str, reader: ContextRecord, version: int) -> Turned | None:
    """Show it again, everywhere; as `delete`.

    Raises: OutOfRange when the tokens of a context would pass the largest Int.
    """
    return await _turn(session, tenant_id, reader, version, deleted=False)


async def _turn(
    session: Session, tenant_id: str, reader: ContextRecord, version: int, *, deleted: bool
) -> Turned | None:
    await context.lock_tree(session, tenant_id, reader.root_id)
    message = await lineage.stored(session, tenant_id, reader.id, version)
    if message is None:
        return None
    query = _QUERIES["delete" if deleted else "restore"]
    readers: list[UUID] = []
    if await session.fetch(query, tenant_id, message.id):
        sign = -1 if deleted else 1
        readers = await context.recount(session, tenant_id, message.owner_id, version, sign, sign * message.token_count)
    return Turned(message.id, readers)
