"""The tree of forks that a context belongs to, as a flat list: parents before their forks."""

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

import strawberry

import db.tree
from schema.batches import TreePart
from schema.errors import BadUserInput, LimitExceeded
from schema.request import Info

NODES_DEFAULT = 1_000
NODES_MAX = 10_000

MaxDepth = Annotated[
    int | None,
    strawberry.argument(
        description="Leave out what lies deeper than this: 0 for the root alone, no bound if not given."
    ),
]
FirstNodes = Annotated[
    int | None,
    strawberry.argument(description=f"How many contexts from the root on: at most {NODES_MAX}."),
]


@strawberry.type(description="A context at its place in a tree of forks.")
class ContextTreeNode:
    """Plain values, for there may be thousands."""

    id: strawberry.ID = strawberry.field(description="The context's id.")
    name: str | None = strawberry.field(description="Its name.")
    parent_id: strawberry.ID | None = strawberry.field(
        description="The context that it was forked from, which stands before it in the list; null for the root."
    )
    fork_version: int | None = strawberry.field(
        description="The parent's version that it was forked at, null for the root."
    )
    depth: int = strawberry.field(description="How many forks lie between it and the root: 0 for the root.")
    latest_version: int = strawberry.field(description="The version of its newest message.")
    message_count: int = strawberry.field(description="How many messages are readable through it.")
    total_tokens: int = strawberry.field(description="The tokens of those messages.")
    updated_at: datetime = strawberry.field(description="When what it shows last changed.")
    deleted_at: datetime | None = strawberry.field(
        description="When it was deleted, null while it is not. A deleted context is shown only while one that is not "
        "deleted hangs below it."
    )

    @classmethod
    def of(cls, node: db.tree.Node) -> "ContextTreeNode":
        """Show a node."""
        return cls(
            id=strawberry.ID(str(node.id)),
            name=node.name,
            parent_id=None if node.parent_id is None else strawberry.ID(str(node.parent_id)),
            fork_version=node.fork_version,
            depth=node.depth,
            latest_version=node.latest_version,
            message_count=node.message_count,
            total_tokens=node.total_tokens,
            updated_at=node.updated_at,
            deleted_at=node.deleted_at,
        )


@strawberry.type(description="All contexts that were forked from one root, and from its forks.")
class ContextTree:
    """A tree, or the upper part of it."""

    root: strawberry.ID = strawberry.field(description="The id of the context at the top.")
    nodes: list[ContextTreeNode] = strawberry.field(
        description="The contexts by depth, then by age, so that a parent stands before its forks. Deleted ones are "
        "left out, unless one that is not deleted hangs below."
    )
    truncated: bool = strawberry.field(description="Whether `maxDepth` or `first` left something out.")


async def read(info: Info, tree_id: UUID, max_depth: int | None, first: int | None) -> ContextTree:
    """Read a tree from its root downwards.

    Raises: BadUserInput, LimitExceeded.
    """
    wanted = part(tree_id, max_depth, first)
    found = await info.context.loaders.tree.load(wanted)
    shown = cut(found, max_depth, wanted.limit - 1)
    info.context.charge_tree_nodes(shown=len(shown))
    return show(tree_id, found, [ContextTreeNode.of(node) for node in shown])


def part(tree_id: UUID, max_depth: int | None, first: int | None) -> TreePart:
    """Say what is read: one node more than is wanted, which tells whether there is more.

    Raises: BadUserInput, LimitExceeded.
    """
    if max_depth is not None and max_depth < 0:
        raise BadUserInput(f"maxDepth is {max_depth}. It must be 0 or more.")
    wanted = NODES_DEFAULT if first is None else first
    if wanted < 0:
        raise BadUserInput(f"first is {wanted}. It must be 0 or more.")
    if wanted > NODES_MAX:
        raise LimitExceeded(f"first is {wanted}. It may be {NODES_MAX} at most.")
    return TreePart(tree_id, wanted + 1)


def show(tree_id: UUID, found: Sequence[db.tree.Node], nodes: list[ContextTreeNode]) -> ContextTree:
    """Show a tree of which so much was found; `nodes` are those shown, as the caller shows them."""
    return ContextTree(root=strawberry.ID(str(tree_id)), nodes=nodes, truncated=len(nodes) < len(found))


def cut(found: Sequence[db.tree.Node], max_depth: int | None, wanted: int) -> list[db.tree.Node]:
    """Take the upper part: no deeper than `max_depth`, `wanted` nodes at most, and none whose parent is not there."""
    shown: dict[UUID | None, db.tree.Node] = {}
    for node in found[:wanted]:
        if (max_depth is None or node.depth <= max_depth) and (node.parent_id is None or node.parent_id in shown):
            shown[node.id] = node
    return list(shown.values())
