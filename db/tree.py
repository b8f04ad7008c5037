"""Trees of forks: all contexts of a tree, and where two of them meet."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from db import queries
from db.pool import Reader
from db.records import ContextRecord

_QUERIES = queries.load("tree")

# Of how many deleted contexts of a tree is looked whether any that is not deleted hangs below. Each costs a few seeks,
# 3 microseconds; soft deletion of more in one tree is nothing that anybody does.
DELETED_MAX = 100_000


@dataclass(frozen=True, slots=True)
class Node:
    """A context at its place in a tree. `deleted_at` is set only where one that is not deleted hangs below."""

    id: UUID
    name: str | None
    parent_id: UUID | None
    fork_version: int | None
    depth: int
    latest_version: int
    message_count: int
    total_tokens: int
    updated_at: datetime
    deleted_at: datetime | None


@dataclass(frozen=True, slots=True)
class Meeting:
    """Where the ways up from two contexts meet, and the last version whose messages both read, 0 for none."""

    context: ContextRecord
    version: int


async def nodes(
    reader: Reader, tenant_id: str, trees: Sequence[tuple[UUID, int]], *, deleted_max: int = DELETED_MAX
) -> list[list[Node]]:
    """Give the nodes of each (tree, how many at most) by depth, then by age.

    A node's parent stands before it, unless the tree has more than `deleted_max` deleted contexts: then a deleted
    parent may be missing. Source: tree.nodes.
    """
    tree_ids, wanted = zip(*trees, strict=True)
    found: list[list[Node]] = [[] for _ in trees]
    for ordinal, *row in await reader.fetch(_QUERIES["nodes"], tenant_id, list(tree_ids), list(wanted), deleted_max):
        found[ordinal - 1].append(Node(*row))
    return found


async def common_ancestors(reader: Reader, tenant_id: str, pairs: Sequence[tuple[UUID, UUID]]) -> list[Meeting | None]:
    """Give where two contexts meet, deleted or not; None for those of two trees. Source: tree.common_ancestors."""
    here, there = zip(*pairs, strict=True)
    found: list[Meeting | None] = [None for _ in pairs]
    for ordinal, version, *row in await reader.fetch(_QUERIES["common_ancestors"], tenant_id, list(here), list(there)):
        found[ordinal - 1] = Meeting(ContextRecord(*row), version)
    return found
