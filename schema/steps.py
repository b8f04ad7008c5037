"""Steps: how each field that is no plain attribute is read for all objects of a level at once.

A step takes the objects that the field is asked of, and gives what the field is for each, in their order. Rows stand
for their types (a ContextRecord for a Context); what else there is are the objects that the resolvers make. A step
refuses whatever a resolver would refuse, and the resolvers then say it.
"""

import json
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, cast
from uuid import UUID

import db.context
from db.call import Asking, together
from db.records import Columns, ContextRecord, MessageRecord
from db.window import Frame
from schema import tree as trees
from schema import window as windows
from schema.batches import LineagePage
from schema.connection import PAGE_DEFAULT, PAGE_MAX, PageInfo
from schema.context import ContextConnection, Forks, check_place, one_message
from schema.context_list import Contexts
from schema.context_snapshot import ContextSnapshot
from schema.diff import CommonAncestor, ContextDiff, DiffSide
from schema.health import Health
from schema.message import MessageConnection, Role, Span, SpanTotals, page_of, whole
from schema.moment import Moment
from schema.query import read_ids
from schema.scalar import read_id
from schema.tree import NODES_DEFAULT, ContextTree, ContextTreeNode
from schema.window import Window

# Windows that may run in the fast lane; of messages of some 20 tokens and more.
_LANE_BUDGET_MAX = 32_000
_WINDOW_MESSAGE_TOKENS = 20

_OF_PAGE = frozenset({"edges", "nodes", "pageInfo"})


class Asked(NamedTuple):
    """What is asked of the objects that a step gives: fields by name, and the columns that may be large."""

    fields: frozenset[str]
    columns: Columns
    metadata: bool


class Step(NamedTuple):
    """How a field is read.

    `rows` bounds what is read for one object, from the arguments: None where nothing bounds it, and then the plan does
    not run in the fast lane. `early` asks the same as `run` does, of a context of which only the id is known. A step
    that seldom asks the database is not waited for with a flush of its own.
    """

    run: Callable[..., Any]
    rows: Callable[..., int | None]
    early: Callable[..., Asking[Any] | None] | None = None
    loads: bool = True
    seldom: bool = False


class ContextPage(NamedTuple):
    """A page of contexts, with one more where there is more."""

    connection: ContextConnection
    found: list[ContextRecord]

    @property
    def shown(self) -> list[ContextRecord]:
        """Those of the page."""
        return self.found[: self.connection.source.limit]


class MessagePage(NamedTuple):
    """A page of messages, with one more where there is more."""

    connection: MessageConnection
    found: list[MessageRecord]

    @property
    def shown(self) -> list[MessageRecord]:
        """Those of the page."""
        return self.connection.cut(self.found)


class Edge(NamedTuple):
    """An edge of either."""

    cursor: str | None
    node: ContextRecord | MessageRecord


def _shown(record: ContextRecord | None) -> ContextRecord | None:
    return None if record is None or record.deleted_at is not None else record


def _health(at: Moment, _objects: Sequence[None], _asked: Asked) -> list[Health | None]:
    return [at.health]


async def _context(at: Moment, _objects: Sequence[None], asked: Asked, id: str) -> list[ContextRecord | None]:  # noqa: A002 - the contract
    return [_shown(record) for record in await at.batches.contexts([read_id(id, "id")], metadata=asked.metadata)]


async def _node(
    at: Moment,
    _objects: Sequence[None],
    asked: Asked,
    id: str,  # noqa: A002 - the contract
) -> list[ContextRecord | MessageRecord | None]:
    (found,) = await _load_nodes(at, [read_id(id, "id")], asked)
    return [found]


async def _nodes(
    at: Moment, _objects: Sequence[None], asked: Asked, ids: list[str]
) -> list[list[ContextRecord | MessageRecord | None]]:
    return [await _load_nodes(at, read_ids(ids), asked)]


async def _load_nodes(at: Moment, keys: list[UUID], asked: Asked) -> list[ContextRecord | MessageRecord | None]:
    contexts, messages = await together(
        at.batches.contexts(keys, metadata=asked.metadata), at.batches.messages(keys, asked.columns)
    )
    return [
        _shown(context) or (None if message is None or message.deleted_at is not None else message)
        for context, message in zip(contexts, messages, strict=True)
    ]


async def _contexts(
    at: Moment, _objects: Sequence[None], asked: Asked, first: int | None = PAGE_DEFAULT, **arguments: Any
) -> list[ContextPage]:
    source = Contexts(first, arguments.get("after"), arguments.get("filter"), arguments.get("order_by"))
    found: list[list[ContextRecord]] = [[]]
    if asked.fields & _OF_PAGE:
        found = await at.batches.context_pages([source.page], metadata=asked.metadata)
    return [ContextPage(ContextConnection(source=source), found[0])]


async def _forks(
    at: Moment,
    contexts: Sequence[ContextRecord],
    asked: Asked,
    first: int | None = PAGE_DEFAULT,
    after: str | None = None,
) -> list[ContextPage]:
    sources = [Forks(context.id, first, after) for context in contexts]
    found: list[list[ContextRecord]] = [[] for _ in sources]
    if asked.fields & _OF_PAGE:
        found = await at.batches.forks([source.page for source in sources], metadata=asked.metadata)
    return [ContextPage(ContextConnection(source=source), page) for source, page in zip(sources, found, strict=True)]


def _forks_early(
    at: Moment, context_id: UUID, asked: Asked, first: int | None = PAGE_DEFAULT, after: str | None = None
) -> Asking[Any] | None:
    if not asked.fields & _OF_PAGE:
        return None
    return at.batches.forks([Forks(context_id, first, after).page], metadata=asked.metadata)


def _context_edges(_at: Moment, pages: Sequence[ContextPage], asked: Asked) -> list[list[Edge]]:
    told = "cursor" in asked.fields
    return [
        [Edge(page.connection.source.cursor(record) if told else None, record) for record in page.shown]
        for page in pages
    ]


def _page_nodes(
    _at: Moment, pages: Sequence[ContextPage | MessagePage], _asked: Asked
) -> list[list[ContextRecord] | list[MessageRecord]]:
    return [page.shown for page in pages]


def _page_info(_at: Moment, pages: Sequence[ContextPage | MessagePage], _asked: Asked) -> list[PageInfo]:
    return [page.connection.placed(page.found) for page in pages]  # type: ignore[arg-type] # each finds its own


async def _count_contexts(at: Moment, pages: Sequence[ContextPage], _asked: Asked) -> list[int]:
    sources = [page.connection.source for page in pages]
    parents = [source.parent_id for source in sources if isinstance(source, Forks)]
    if parents:
        return await at.batches.fork_counts(parents)
    return await at.batches.context_counts([cast("Contexts", source).filter for source in sources])


async def _parent(at: Moment, contexts: Sequence[ContextRecord], asked: Asked) -> list[ContextRecord | None]:
    wanted = list(dict.fromkeys(context.parent_id for context in contexts if context.parent_id is not None))
    if not wanted:
        return [None] * len(contexts)
    parents: dict[UUID | None, ContextRecord | None] = dict(
        zip(wanted, await at.batches.contexts(wanted, metadata=asked.metadata), strict=True)
    )
    return [_shown(parents.get(context.parent_id)) for context in contexts]


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
    there = _shown(found[read_id(with_, "with")])
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
    return [_shown(ancestor.meeting.context) for ancestor in found]


async def _pages(at: Moment, connections: list[MessageConnection], asked: Asked) -> list[MessagePage]:
    found: list[list[MessageRecord]] = [[] for _ in connections]
    if asked.fields & _OF_PAGE:
        found = await at.batches.lineages([connection.page for connection in connections], asked.columns)
    return [MessagePage(connection, page) for connection, page in zip(connections, found, strict=True)]


class _PageArguments(NamedTuple):
    first: int | None = None
    after: str | None = None
    last: int | None = None
    before: str | None = None
    roles: list[Role] | None = None


async def _messages(at: Moment, contexts: Sequence[ContextRecord], asked: Asked, **arguments: Any) -> list[MessagePage]:
    page = _PageArguments(**arguments)
    return await _pages(at, [page_of(whole(context), *page) for context in contexts], asked)


def _messages_early(at: Moment, context_id: UUID, asked: Asked, **arguments: Any) -> Asking[Any] | None:
    if not asked.fields & _OF_PAGE:
        return None
    connection = page_of(whole(_known_by_id(context_id)), *_PageArguments(**arguments))
    return at.batches.lineages([connection.page], asked.columns)


async def _span_messages(
    at: Moment, holders: Sequence[ContextSnapshot | DiffSide], asked: Asked, **arguments: Any
) -> list[MessagePage]:
    page = _PageArguments(**arguments)
    return await _pages(at, [page_of(holder.span, *page) for holder in holders], asked)


def _known_by_id(context_id: UUID) -> ContextRecord:
    """Stand for a context of which only the id matters."""
    moment = db.context.EARLIEST
    return ContextRecord(context_id, context_id, None, {}, moment, moment, None, 0, 0, 0, None, None, 0)


def _message_edges(_at: Moment, pages: Sequence[MessagePage], asked: Asked) -> list[list[Edge]]:
    told = "cursor" in asked.fields
    return [
        [Edge(page.connection.cursor(record.version) if told else None, record) for record in page.shown]
        for page in pages
    ]


async def _count_messages(at: Moment, pages: Sequence[MessagePage], _asked: Asked) -> list[int]:
    counts = [page.connection.role_count for page in pages]
    wanted = [count for count in counts if count is not None]
    if wanted:  # then of all, for the argument is one
        return await at.batches.role_counts(wanted)
    return [totals.message_count for totals in await _totals(at, [page.connection.span for page in pages])]


async def _totals(at: Moment, spans: list[Span]) -> list[SpanTotals]:
    keys = list(dict.fromkeys(key for span in spans for key in span.totals_keys()))
    loaded = dict(zip(keys, await at.batches.totals(keys), strict=True)) if keys else {}
    return [span.totals_of(loaded) for span in spans]


async def _span_count(at: Moment, holders: Sequence[ContextSnapshot | DiffSide], _asked: Asked) -> list[int]:
    return [totals.message_count for totals in await _totals(at, [holder.span for holder in holders])]


async def _span_tokens(at: Moment, holders: Sequence[ContextSnapshot | DiffSide], _asked: Asked) -> list[int]:
    return [totals.total_tokens for totals in await _totals(at, [holder.span for holder in holders])]


async def _has_previous(at: Moment, infos: Sequence[PageInfo], _asked: Asked) -> list[bool]:
    return await _any(at, [info.previous for info in infos])


async def _has_next(at: Moment, infos: Sequence[PageInfo], _asked: Asked) -> list[bool]:
    return await _any(at, [info.next for info in infos])


async def _any(at: Moment, sides: list[bool | LineagePage]) -> list[bool]:
    """Look where it is not known whether there is more."""
    unknown = [side for side in sides if not isinstance(side, bool)]
    found = dict(zip(unknown, await at.batches.lineages(unknown), strict=True)) if unknown else {}
    return [side if isinstance(side, bool) else bool(found[side]) for side in sides]


async def _message(
    at: Moment, contexts: Sequence[ContextRecord], asked: Asked, version: int
) -> list[MessageRecord | None]:
    pages = [page for context in contexts if (page := one_message(context.id, version))]
    if not pages:
        return [None] * len(contexts)
    return [page[0] if page else None for page in await at.batches.lineages(pages, asked.columns)]


def _message_early(at: Moment, context_id: UUID, asked: Asked, version: int) -> Asking[Any] | None:
    page = one_message(context_id, version)
    return at.batches.lineages([page], asked.columns) if page else None


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


def _record(_at: Moment, holders: Sequence[ContextSnapshot | DiffSide], _asked: Asked) -> list[ContextRecord]:
    return [holder.record for holder in holders]


async def _window(
    at: Moment,
    contexts: Sequence[ContextRecord],
    asked: Asked,
    budget: int,
    *,
    step: int | None = 0,
    keep_system: bool | None = True,
) -> list[Window]:
    frames = [windows.frame(context.id, None, None, budget, step, keep_system) for context in contexts]
    return await _fit(at, frames, [context.message_count for context in contexts], asked)


def _window_early(
    at: Moment,
    context_id: UUID,
    asked: Asked,
    budget: int,
    *,
    step: int | None = 0,
    keep_system: bool | None = True,
) -> Asking[Any]:
    return at.batches.windows([windows.frame(context_id, None, None, budget, step, keep_system)], asked.columns)


async def _snapshot_window(
    at: Moment,
    snapshots: Sequence[ContextSnapshot],
    asked: Asked,
    budget: int,
    *,
    step: int | None = 0,
    keep_system: bool | None = True,
) -> list[Window]:
    totals = await _totals(at, [snapshot.span for snapshot in snapshots])
    frames = [
        windows.frame(snapshot.record.id, snapshot.version, of.total_tokens, budget, step, keep_system)
        for snapshot, of in zip(snapshots, totals, strict=True)
    ]
    return await _fit(at, frames, [of.message_count for of in totals], asked)


async def _fit(at: Moment, frames: list[Frame], counts: list[int], asked: Asked) -> list[Window]:
    distinct = list(dict.fromkeys(frames))
    fitted = dict(zip(distinct, await at.batches.windows(distinct, asked.columns), strict=True))
    messages_max = at.request.service.limits.window_messages_max
    return [
        windows.show(fitted[frame], frame.budget, count, messages_max, cast("list[Any]", fitted[frame].messages))
        for frame, count in zip(frames, counts, strict=True)
    ]


class _Call(NamedTuple):
    """A tool call, as a plain object."""

    id: str
    name: str
    arguments: Any


def _tool_calls(_at: Moment, messages: Sequence[MessageRecord], _asked: Asked) -> list[list[_Call]]:
    return [
        [_Call(call["id"], call["name"], call["arguments"]) for call in _read_json(message.tool_calls)]
        if message.tool_calls
        else []
        for message in messages
    ]


def _read_json(value: Any) -> list[dict[str, Any]]:
    """Read what came from the fast lane as bytes. Not by orjson, which makes floats of integers over 64 bits."""
    return cast("list[dict[str, Any]]", json.loads(value) if isinstance(value, bytes) else value)


async def _holder(at: Moment, messages: Sequence[MessageRecord], asked: Asked) -> list[ContextRecord]:
    wanted = list(dict.fromkeys(message.context_id for message in messages))
    found = dict(zip(wanted, await at.batches.contexts(wanted, metadata=asked.metadata), strict=True))
    holders = [found[message.context_id] for message in messages]
    if None in holders:
        raise LookupError("a message is held by no context")
    return cast("list[ContextRecord]", holders)


def _one(**_arguments: Any) -> int:
    return 1


def _unbounded(**_arguments: Any) -> None:
    return None


def _page_rows(**arguments: Any) -> int | None:
    """Bound a page: its size, of which more than allowed will be refused. Roles thin it out without a bound."""
    if arguments.get("roles") is not None:
        return None
    sizes = [size for size in (arguments.get("last"), arguments.get("first")) if size is not None]
    return min(abs(sizes[0]) if sizes else PAGE_DEFAULT, PAGE_MAX) + 1


def _list_rows(**arguments: Any) -> int | None:
    return None if arguments.get("filter") is not None else _page_rows(**arguments)


def _count_rows(**arguments: Any) -> int:
    return len(arguments["ids"])


def _window_rows(*, budget: int, **_arguments: Any) -> int | None:
    return None if budget > _LANE_BUDGET_MAX else abs(budget) // _WINDOW_MESSAGE_TOKENS + 1


def _derived(run: Callable[..., Any]) -> Step:
    """Give a step that only looks at what its objects hold."""
    return Step(run, _one, loads=False)


# By type and field, as the schema names them. A test holds them to the schema's resolvers.
STEPS: dict[tuple[str, str], Step] = {
    ("Query", "context"): Step(_context, _one),
    ("Query", "contexts"): Step(_contexts, _list_rows),
    ("Query", "node"): Step(_node, _one),
    ("Query", "nodes"): Step(_nodes, _count_rows),
    ("Query", "health"): _derived(_health),
    ("Context", "parent"): Step(_parent, _one),
    ("Context", "ancestors"): Step(_ancestors, _unbounded),
    ("Context", "forks"): Step(_forks, _page_rows, _forks_early),
    ("Context", "tree"): Step(_tree, _unbounded),
    ("Context", "commonAncestor"): Step(_common_ancestor, _unbounded),
    ("Context", "diff"): Step(_diff, _unbounded),
    ("Context", "messages"): Step(_messages, _page_rows, _messages_early),
    ("Context", "message"): Step(_message, _one, _message_early),
    ("Context", "at"): Step(_at, _one, seldom=True),
    ("Context", "window"): Step(_window, _window_rows, _window_early),
    ("ContextConnection", "edges"): _derived(_context_edges),
    ("ContextConnection", "nodes"): _derived(_page_nodes),
    ("ContextConnection", "pageInfo"): _derived(_page_info),
    ("ContextConnection", "totalCount"): Step(_count_contexts, _unbounded),
    ("ContextSnapshot", "context"): _derived(_record),
    ("ContextSnapshot", "messageCount"): Step(_span_count, _one),
    ("ContextSnapshot", "totalTokens"): Step(_span_tokens, _one),
    ("ContextSnapshot", "messages"): Step(_span_messages, _page_rows),
    ("ContextSnapshot", "window"): Step(_snapshot_window, _window_rows),
    ("CommonAncestor", "context"): _derived(_meeting_context),
    ("DiffSide", "context"): _derived(_record),
    ("DiffSide", "messageCount"): Step(_span_count, _one),
    ("DiffSide", "totalTokens"): Step(_span_tokens, _one),
    ("DiffSide", "messages"): Step(_span_messages, _page_rows),
    ("Message", "toolCalls"): _derived(_tool_calls),
    ("Message", "context"): Step(_holder, _one),
    ("MessageConnection", "edges"): _derived(_message_edges),
    ("MessageConnection", "nodes"): _derived(_page_nodes),
    ("MessageConnection", "pageInfo"): _derived(_page_info),
    ("MessageConnection", "totalCount"): Step(_count_messages, _one, seldom=True),
    ("PageInfo", "hasPreviousPage"): Step(_has_previous, _one, seldom=True),
    ("PageInfo", "hasNextPage"): Step(_has_next, _one, seldom=True),
}
