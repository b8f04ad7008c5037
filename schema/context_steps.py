"""Steps that give contexts: by id, in lists, up and down their trees, and at a version."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast
from uuid import UUID

from db.records import ContextRecord, MessageRecord
from schema import tree as trees
from schema.connection import OF_PAGE, PAGE_DEFAULT, PAGE_MAX
from schema.context import ContextConnection, Forks, check_place
from schema.context_list import Contexts
from schema.context_snapshot import ContextSnapshot
from schema.diff import CommonAncestor, ContextDiff, DiffSide
from schema.moment import Early, Moment
from schema.scalar import read_id
from schema.step import Asked, Edge, Step, derived, one, page_rows, shown, unbounded
from schema.tree import NODES_DEFAULT, ContextTree, ContextTreeNode


class ContextPage(NamedTuple):
    """A page of contexts, with one more where there is more."""

    connection: ContextConnection
    found: list[ContextRecord]

    @property
    def shown(self) -> list[ContextRecord]:
        """Those of the page."""
        return self.found[: self.connection.source.limit]


async def _context(at: Moment, _objects: Sequence[None], asked: Asked, id: str) -> list[ContextRecord | None]:  # noqa: A002 - the contract
    return [shown(record) for record in await at.batches.contexts([read_id(id, "id")], metadata=asked.metadata)]


async def _contexts(
    at: Moment, _objects: Sequence[None], asked: Asked, first: int | None = PAGE_DEFAULT, **arguments: Any
) -> list[ContextPage]:
    most = at.request.service.limits.page_size_max
    source = Contexts(first, arguments.get("after"), arguments.get("filter"), arguments.get("order_by"), most)
    found: list[list[ContextRecord]] = [[]]
    if asked.fields & OF_PAGE:
        found = await at.batches.context_pages([source.page], metadata=asked.metadata)
    return [ContextPage(ContextConnection(source=source), found[0])]


async def _forks(
    at: Moment,
    contexts: Sequence[ContextRecord],
    asked: Asked,
    first: int | None = PAGE_DEFAULT,
    after: str | None = None,
) -> list[ContextPage]:
    most = at.request.service.limits.page_size_max
    sources = [Forks(context.id, first, after, most) for context in contexts]
    found: list[list[ContextRecord]] = [[] for _ in sources]
    if asked.fields & OF_PAGE:
        found = await at.ask("forks", [source.page for source in sources], metadata=asked.metadata)
    return [ContextPage(ContextConnection(source=source), page) for source, page in zip(sources, found, strict=True)]


def _forks_early(
    context_id: UUID, asked: Asked, first: int | None = PAGE_DEFAULT, after: str | None = None
) -> Early | None:
    if not asked.fields & OF_PAGE:
        return None
    return Early("forks", [Forks(context_id, first, after, PAGE_MAX).page], {"metadata": asked.metadata})


def _context_edges(_at: Moment, pages: Sequence[ContextPage], asked: Asked) -> list[list[Edge]]:
    told = "cursor" in asked.fields
    return [
        [Edge(page.connection.source.cursor(record) if told else None, record) for record in page.shown]
        for page in pages
    ]


async def _count_contexts(at: Moment, pages: Sequence[ContextPage], _asked: Asked) -> list[int]:
    sources = [page.connection.source for page in pages]
    parents = [source.parent_id for source in sources if isinstance(source, Forks)]
    if parents:
        return await at.batches.fork_counts(parents)
    return await at.batches.context_counts([cast("Contexts", source).filter for source in sources])


async def _parent(at: Moment, contexts: Sequence[ContextRecord], asked: Asked) -> list[ContextRecord | None]:
    return await _by_id(at, [context.parent_id for context in contexts], asked)


async def _by_id(at: Moment, ids: Sequence[UUID | None], asked: Asked) -> list[ContextRecord | None]:
    """Read contexts that others name, each once; None where none is named."""
    wanted = list(dict.fromkeys(context_id for context_id in ids if context_id is not None))
    found: dict[UUID | None, ContextRecord | None] = {}
    if wanted:
        found.update(zip(wanted, await at.batches.contexts(wanted, metadata=asked.metadata), strict=True))
    return [shown(found.get(context_id)) for context_id in ids]


async def _ancestors(at: Moment, contexts: Sequence[ContextRecord], asked: Asked) -> list[list[ContextRecord]]:
    forks = [context for context in contexts if context.parent_id is not None]
    for fork in forks:
        at.request.charge_ancestors(fork.depth)
    wanted = list(dict.fromkeys(fork.id for fork in forks))
    found = await at.batches.ancestors(wanted, metadata=asked.metadata) if wanted else []
    ancestors = dict(zip(wanted, found, strict=True))
    return [ancestors.get(context.id, []) for context in contexts]


async def _tree(
    at: Moment,
    contexts: Sequence[ContextRecord],
    _asked: Asked,
    max_depth: int | None = None,
    first: int | None = NODES_DEFAULT,
) -> list[ContextTree]:
    parts = {context.root_id: trees.part(context.root_id, max_depth, first) for context in contexts}
    found = dict(zip(parts, await at.batches.trees(list(parts.values())), strict=True))
    shown: list[ContextTree] = []
    for context in contexts:
        nodes = found[context.root_id]
        kept = trees.cut(nodes, max_depth, parts[context.root_id].limit - 1)
        at.request.charge_tree_nodes(shown=len(kept))
        shown.append(trees.show(context.root_id, nodes, cast("list[ContextTreeNode]", kept)))
    return shown


async def _diff(at: Moment, contexts: Sequence[ContextRecord], asked: Asked, with_: str) -> list[ContextDiff | None]:
    ids = list(dict.fromkeys([*(context.id for context in contexts), read_id(with_, "with")]))
    # Also those that were asked: what is shown of them may need more columns.
    found = dict(zip(ids, await at.batches.contexts(ids, metadata=asked.metadata), strict=True))
    there = shown(found[read_id(with_, "with")])
    if there is None:
        return [None] * len(contexts)
    for context in contexts:
        if context.root_id == there.root_id:
            at.request.charge_ancestors(max(context.depth, there.depth))
    meetings = await at.batches.common_ancestors([(context.id, there.id) for context in contexts])
    differences: list[ContextDiff | None] = []
    for context, meeting in zip(contexts, meetings, strict=True):
        version = 0 if meeting is None else meeting.version
        differences.append(
            ContextDiff(
                common_ancestor=None if meeting is None else CommonAncestor.of(meeting),
                only_here=DiffSide(record=cast("ContextRecord", found[context.id]), version=version),
                only_there=DiffSide(record=there, version=version),
            )
        )
    return differences


async def _common_ancestor(
    at: Moment, contexts: Sequence[ContextRecord], asked: Asked, with_: str
) -> list[CommonAncestor | None]:
    return [None if found is None else found.common_ancestor for found in await _diff(at, contexts, asked, with_)]


def _meeting_context(_at: Moment, found: Sequence[CommonAncestor], _asked: Asked) -> list[ContextRecord | None]:
    return [shown(ancestor.meeting.context) for ancestor in found]


async def _at(
    at: Moment,
    contexts: Sequence[ContextRecord],
    _asked: Asked,
    version: int | None = None,
    time: datetime | None = None,
) -> list[ContextSnapshot]:
    check_place(version, time)
    if time is None:
        return [ContextSnapshot.of(context, version) for context in contexts]
    versions = await at.batches.versions_at([(context.id, time) for context in contexts])
    return [ContextSnapshot.of(context, found) for context, found in zip(contexts, versions, strict=True)]


async def _holder(at: Moment, messages: Sequence[MessageRecord], asked: Asked) -> list[ContextRecord]:
    wanted = list(dict.fromkeys(message.context_id for message in messages))
    found = dict(zip(wanted, await at.batches.contexts(wanted, metadata=asked.metadata), strict=True))
    holders = [found[message.context_id] for message in messages]
    if None in holders:
        raise LookupError("a message is held by no context")
    return cast("list[ContextRecord]", holders)


def _list_rows(**arguments: Any) -> int | None:
    return None if arguments.get("filter") is not None else page_rows(**arguments)


STEPS: dict[tuple[str, str], Step] = {
    ("Query", "context"): Step(_context, one),
    ("Query", "contexts"): Step(_contexts, _list_rows),
    ("Context", "parent"): Step(_parent, one),
    ("Context", "ancestors"): Step(_ancestors, unbounded),
    ("Context", "forks"): Step(_forks, page_rows, _forks_early),
    ("Context", "tree"): Step(_tree, unbounded),
    ("Context", "commonAncestor"): Step(_common_ancestor, unbounded),
    ("Context", "diff"): Step(_diff, unbounded),
    ("Context", "at"): Step(_at, one, seldom=True),
    ("ContextConnection", "edges"): derived(_context_edges),
    ("ContextConnection", "totalCount"): Step(_count_contexts, unbounded),
    ("CommonAncestor", "context"): derived(_meeting_context),
    ("Message", "context"): Step(_holder, one),
}
