"""Copying a history into a root of its own: inside the database, batch by batch."""

from uuid import UUID

import uuid_utils.compat
from psycopg.types.numeric import Int8

from db import context, lineage, queries
from db.pool import Session
from db.records import ContextRecord

_QUERIES = queries.load("copy")

# As many as one append may bring by default, so that a batch too ends within the time of a statement: of messages of
# 100 kB in 3 s. Larger batches are no faster: 100,000 small messages took 2 to 5 s with 500, 1,000, 5,000 and 10,000.
BATCH = 1_000


async def copy(
    session: Session,
    tenant_id: str,
    copy_id: UUID,
    source: ContextRecord,
    version: int | None,
    name: str | None,
    metadata: str | None,
) -> ContextRecord:
    """Copy the lineage of `source` through `version` (its latest when None) into a new root.

    A name or metadata of None are those of the source. `version` must lie between 0 and its latest_version. Meanwhile
    no message of the source's tree can be deleted or restored.

    Source: context.lock_tree_shared, lineage.totals, copy.create, lineage.copy.
    """
    await context.lock_tree_shared(session, tenant_id, source.root_id)
    # Read again: before the lock was ours a message may have been deleted, or appended.
    (source,) = await context.by_ids(session, tenant_id, [source.id])
    latest = source.latest_version if version is None else version
    (totals,) = await lineage.totals(session, tenant_id, [(source.id, latest)])
    (row,) = await session.fetch(
        _QUERIES["create"],
        tenant_id,
        copy_id,
        source.id,
        name,
        metadata,
        latest,
        totals.message_count,
        totals.total_tokens,
        Int8(totals.running_tokens),
    )
    for low in range(0, latest, BATCH):
        high = min(low + BATCH, latest)
        ids = [uuid_utils.compat.uuid7() for _ in range(low, high)]
        await lineage.copy(session, tenant_id, source.id, low, high, copy_id, ids)
    return ContextRecord(*row)
