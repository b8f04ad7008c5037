"""Writes whole trees as JSON Lines, a page of rows at a time."""

from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from uuid import UUID

import db.context
import db.history
from db.history import Member, Stretch
from db.pool import Snapshot
from db.records import ContextRecord, MessageRecord
from graphql_api.history import native
from graphql_api.terminal import CommandError

PAGE_CONTEXTS = 100
PAGE_MESSAGES = 1_000
PAGE_BYTES = 8 * 1024 * 1024


async def trees_of(snapshot: Snapshot, tenant_id: str, ids: Sequence[UUID]) -> dict[UUID, list[Member]]:
    """Give the trees that contexts belong to: each once, by the id of its root, with its contexts.

    Raises: CommandError with a line for each id that is none of a context; the family of db.errors.
    """
    found = {record.id: record for record in await db.context.by_ids(snapshot, tenant_id, ids)}
    missing = [f"There is no context {context_id}." for context_id in ids if context_id not in found]
    if missing:
        raise CommandError("\n".join(missing))
    roots = dict.fromkeys(found[context_id].root_id for context_id in ids)
    return {root_id: await db.history.members(snapshot, tenant_id, root_id) for root_id in roots}


async def write(
    snapshot: Snapshot,
    tenant_id: str,
    root_id: UUID,
    members: Sequence[Member],
    write: Callable[[str], object],
    report: Callable[[int], None],
) -> None:
    """Write a tree line by line; `report` is told of further messages.

    Raises: the family of db.errors.
    """
    write(native.write_tree(root_id, len(members), sum(member.own_count for member in members)))
    for start in range(0, len(members), PAGE_CONTEXTS):
        ids = [member.id for member in members[start : start + PAGE_CONTEXTS]]
        records = {record.id: record for record in await db.context.by_ids(snapshot, tenant_id, ids)}
        waiting = deque(records[context_id] for context_id in ids)
        written: UUID | None = None
        async for page in _pages(snapshot, tenant_id, list(waiting)):
            for message in page:
                # A message follows the line of its context.
                while message.context_id != written:
                    written = waiting[0].id
                    write(native.write_context(waiting.popleft()))
                write(native.write_message(message))
            report(len(page))
        for record in waiting:
            write(native.write_context(record))


async def _pages(
    snapshot: Snapshot, tenant_id: str, records: Sequence[ContextRecord]
) -> AsyncIterator[list[MessageRecord]]:
    """Give what some contexts store themselves, in their order."""
    stretches = deque(Stretch(record.id, record.fork_version or 0, record.latest_version) for record in records)
    while stretches:
        asked = list(_first(stretches, PAGE_MESSAGES))
        page = await db.history.messages(snapshot, tenant_id, asked, PAGE_BYTES)
        if not page:
            return
        yield page
        while stretches[0].context_id != page[-1].context_id:
            stretches.popleft()
        stretches[0] = replace(stretches[0], after=page[-1].version)


def _first(stretches: Iterable[Stretch], count: int) -> Iterator[Stretch]:
    """Take as many versions off the beginning."""
    for stretch in stretches:
        if count <= 0:
            return
        through = min(stretch.through, stretch.after + count)
        if through > stretch.after:
            yield replace(stretch, through=through)
            count -= through - stretch.after
