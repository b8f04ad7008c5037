"""What the demo needs beyond the store: to make contexts under ids that may be taken, and to delete them for real."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from db import context, queries
from db.errors import Duplicate
from db.pool import Session
from db.records import ContextRecord

_QUERIES = queries.load("demo")


class AlreadyThereError(Exception):
    """A context of that id was made meanwhile. The transaction is over."""


@dataclass(frozen=True, slots=True)
class Fork:
    """A fork that is none of the demo's, and the context of the demo that it forks."""

    id: UUID
    parent_id: UUID
    name: str | None


async def create(session: Session, tenant_id: str, context_id: UUID, name: str, metadata: str) -> ContextRecord:
    """Make a root as `db.context.create` does; waits for a transaction that is making it at the same time.

    Raises: AlreadyThereError.
    """
    try:
        return await context.create(session, tenant_id, context_id, name, metadata)
    except Duplicate as error:
        raise AlreadyThereError from error


async def lock(session: Session, tenant_id: str, root_id: UUID, ids: Sequence[UUID]) -> None:
    """Let nobody fork in this tree, or append to these contexts of it, before the transaction ends.

    Source: context.lock_tree, demo.lock.
    """
    await context.lock_tree(session, tenant_id, root_id)
    await session.fetch(_QUERIES["lock"], tenant_id, list(ids))


async def newest(session: Session, tenant_id: str, ids: Sequence[UUID]) -> dict[UUID, UUID]:
    """Give the id of each lineage's newest message, of the contexts that store it themselves. Source: demo.newest."""
    rows = await session.fetch(_QUERIES["newest"], tenant_id, list(ids))
    return {context_id: message_id for context_id, message_id in rows}  # noqa: C416 - dict() does not accept rows of Any


async def forks_by_others(session: Session, tenant_id: str, ids: Sequence[UUID], limit: int) -> list[Fork]:
    """Give forks of these contexts that are none of them, by id, deleted ones too. Source: demo.forks_by_others."""
    return [Fork(*row) for row in await session.fetch(_QUERIES["forks_by_others"], tenant_id, list(ids), limit)]


async def delete(session: Session, tenant_id: str, root_id: UUID, ids: Sequence[UUID]) -> int:
    """Delete all contexts of a tree with their messages, for ever; gives how many contexts there were.

    `ids` must be all that the tree has. Source: demo.delete, demo.delete_tree.
    """
    deleted = await session.fetch(_QUERIES["delete"], tenant_id, list(ids))
    await session.fetch(_QUERIES["delete_tree"], tenant_id, root_id)
    return len(deleted)
