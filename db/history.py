"""Whole trees: gives one to be exported, deleted contexts and messages included."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from psycopg.types.numeric import Int8

from db import queries
from db.pool import Snapshot
from db.records import MessageRecord

_QUERIES = queries.load("history")


@dataclass(frozen=True, slots=True)
class Member:
    """A context of a tree, and how many messages it stores itself."""

    id: UUID
    own_count: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a context stores after one version, through another."""

    context_id: UUID
    after: int
    through: int


async def members(snapshot: Snapshot, tenant_id: str, root_id: UUID) -> list[Member]:
    """Give the contexts of a tree, deleted ones too, by depth, time and id: each after its parent.

    Source: history.members.
    """
    return [Member(*row) for row in await snapshot.fetch(_QUERIES["members"], tenant_id, root_id)]


async def messages(
    snapshot: Snapshot, tenant_id: str, stretches: Sequence[Stretch], bytes_max: int
) -> list[MessageRecord]:
    """Give the messages of the stretches in their order, deleted ones too: at least one, then up to some bytes.

    Source: history.messages.
    """
    rows = await snapshot.fetch(
        _QUERIES["messages"],
        tenant_id,
        [stretch.context_id for stretch in stretches],
        [stretch.after for stretch in stretches],
        [stretch.through for stretch in stretches],
        Int8(bytes_max),
    )
    return [MessageRecord(*row) for row in rows]
