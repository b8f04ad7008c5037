"""Idempotency keys: claiming one before the work it stands for, finding what was done under it, forgetting old ones."""

from dataclasses import dataclass
from uuid import UUID

from db import queries
from db.pool import Session
from db.records import MessageRecord

_QUERIES = queries.load("idempotency")


@dataclass(frozen=True, slots=True)
class Claim:
    """What stands under a key: a hash of the input, and what came of it.

    `result_id` is the first message of an append (which appended `message_count`), or the context that was made.
    """

    request_hash: bytes
    result_id: UUID
    message_count: int


async def claim(session: Session, tenant_id: str, scope_id: UUID, key: str, wanted: Claim) -> Claim | None:
    """Take a key for what this transaction is about to do; gives the earlier claim when it is taken already.

    Waits for a transaction that is just taking it. So a key is claimed before any other row is locked: who waits here
    holds nothing that others wait for. Source: idempotency.claim, idempotency.find.
    """
    while not await session.fetch(
        _QUERIES["claim"], tenant_id, scope_id, key, wanted.request_hash, wanted.result_id, wanted.message_count
    ):
        for row in await session.fetch(_QUERIES["find"], tenant_id, scope_id, key):
            return Claim(*row)
        # It was pruned between the two statements, so it is free.
    return None


async def appended(session: Session, tenant_id: str, claimed: Claim) -> list[MessageRecord]:
    """Give the messages that an append stored, deleted ones too, in version order. Source: idempotency.appended."""
    rows = await session.fetch(_QUERIES["appended"], tenant_id, claimed.result_id, claimed.message_count)
    return [MessageRecord(*row) for row in rows]


async def prune(session: Session, tenant_id: str, hours: int) -> int:
    """Forget up to ten keys that are older than `hours`; gives how many. Source: idempotency.prune."""
    return len(await session.fetch(_QUERIES["prune"], tenant_id, hours))
