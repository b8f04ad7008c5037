"""Contexts: their types, and pages of contexts and forks."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Protocol
from uuid import UUID

import strawberry
from strawberry.scalars import JSON

from db.context import EARLIEST, NIL
from db.lineage import Place
from db.records import ContextRecord
from schema import connection, diff, tree, window
from schema.batches import ForksPage, LineagePage
from schema.connection import PAGE_DEFAULT, After, Before, First, Last, PageInfo
from schema.context_snapshot import ContextSnapshot
from schema.diff import CommonAncestor, ContextDiff, With
from schema.errors import BadUserInput
from schema.message import Message, MessageConnection, Roles, page_of, whole
from schema.node import Node
from schema.request import Info
from schema.scalar import read_id
from schema.tree import NODES_DEFAULT, ContextTree, FirstNodes, MaxDepth
from schema.window import Budget, KeepSystem, Step, Window

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
# The bound of a page lies beyond its last version, and is an Int too; no lineage is as long.
_VERSION_MAX = 2**31 - 1


@strawberry.type(
    description="A conversation or agent run: a growing list of messages, which may begin as another one's fork."
)
class Context(Node):
    """A row of `contexts`."""

    record: strawberry.Private[ContextRecord]
    name: str | None = strawberry.field(description="A name of the caller's choice.")
    metadata: JSON = strawberry.field(description="A JSON object of the caller's own.")
    created_at: datetime = strawberry.field(description="When it was made.")
    updated_at: datetime = strawberry.field(
        description="When what it shows last changed: a message, its name, its metadata, its deletion."
    )
    deleted_at: datetime | None = strawberry.field(description="When it was deleted, null while it is not.")
    message_count: int = strawberry.field(
        description="How many messages are readable through it: inherited ones included, deleted ones not."
    )
    total_tokens: int = strawberry.field(description="The tokens of those messages.")
    latest_version: int = strawberry.field(
        description="The version of its newest message, deleted ones included: 0 when it is empty; a new fork starts "
        "at its forkVersion."
    )
    fork_version: int | None = strawberry.field(
        description="The parent's version that it was forked at, null for a root."
    )
    depth: int = strawberry.field(description="How many forks lie between it and its root: 0 for a root.")

    @classmethod
    def of(cls, record: ContextRecord) -> "Context":
        """Show a row."""
        return cls(
            id=strawberry.ID(str(record.id)),
            record=record,
            name=record.name,
            metadata=JSON(record.metadata),
            created_at=record.created_at,
            updated_at=record.updated_at,
            deleted_at=record.deleted_at,
            message_count=record.message_count,
            total_tokens=record.total_tokens,
            latest_version=record.latest_version,
            fork_version=record.fork_version,
            depth=record.depth,
        )

    @strawberry.field(
        description="The context that it was forked from; null for a root, and while the parent is deleted."
    )
    async def parent(self, info: Info) -> "Context | None":
        """Load the parent."""
        if self.record.parent_id is None:
            return None
        return visible(await info.context.loaders.context.load(self.record.parent_id))

    @strawberry.field(
        description="Its parent, its parent's parent and so on to the root; deleted ones are left out. "
        "One request may read as many as the deepest fork can have."
    )
    async def ancestors(self, info: Info) -> list["Context"]:
        """Load the way up."""
        if self.record.parent_id is None:
            return []
        info.context.charge_ancestors(self.record.depth)
        return [Context.of(record) for record in await info.context.loaders.ancestors.load(self.record.id)]

    @strawberry.field(description="The contexts forked from this one, oldest first.")
    def forks(self, info: Info, first: First = PAGE_DEFAULT, after: After = None) -> "ContextConnection":
        """Give a page of forks."""
        most = info.context.service.limits.page_size_max
        return ContextConnection(source=Forks(self.record.id, first, after, most))

    @strawberry.field(description="The whole tree of forks that it belongs to, from the root downwards.")
    async def tree(self, info: Info, max_depth: MaxDepth = None, first: FirstNodes = NODES_DEFAULT) -> ContextTree:
        """Read the tree."""
        return await tree.read(info, self.record.root_id, max_depth, first)

    @strawberry.field(
        description="Where it and another context of its tree part; null when that is missing, deleted or of another "
        "tree."
    )
    async def common_ancestor(self, info: Info, with_: With) -> CommonAncestor | None:
        """Load where they meet."""
        return await diff.common_ancestor(info, self.record.id, read_id(with_, "with"))

    @strawberry.field(
        description="What only it holds and what only another context holds; null when that is missing or deleted."
    )
    async def diff(self, info: Info, with_: With) -> ContextDiff | None:
        """Load the difference."""
        return await diff.compare(info, self.record.id, read_id(with_, "with"))

    @strawberry.field(
        description="The messages readable through it, inherited ones included, ascending by version. "
        "Without `first` and `last` the first 50."
    )
    def messages(
        self,
        info: Info,
        first: First = None,
        after: After = None,
        last: Last = None,
        before: Before = None,
        roles: Roles = None,
    ) -> MessageConnection:
        """Give a page of the lineage."""
        most = info.context.service.limits.page_size_max
        return page_of(whole(self.record), most, first, after, last, before, roles)

    @strawberry.field(
        description="The message of one version, wherever in the lineage it is held; null when deleted or not there."
    )
    async def message(
        self,
        info: Info,
        version: Annotated[int, strawberry.argument(description="The version: 1 for the first message.")],
    ) -> Message | None:
        """Load one message."""
        page = one_message(self.record.id, version)
        for record in await info.context.loaders.lineage.load(page) if page else ():
            return Message.of(record)
        return None

    @strawberry.field(
        description="The context as it was at a version, or at a moment: give one of them. At a moment means at its "
        "last version whose message was appended then or earlier, inherited ones included."
    )
    async def at(
        self,
        info: Info,
        version: Annotated[
            int | None, strawberry.argument(description="From 0, the empty state, to `latestVersion`.")
        ] = None,
        time: Annotated[datetime | None, strawberry.argument(description="Any moment, past or future.")] = None,
    ) -> ContextSnapshot | None:
        """Stand at a version."""
        check_place(version, time)
        if time is not None:
            version = await info.context.loaders.version_at.load((self.record.id, time))
        return ContextSnapshot.of(self.record, version)

    @strawberry.field(
        description="The newest of its messages that fit a budget and can be sent to a model as they are."
    )
    async def window(self, info: Info, budget: Budget, *, step: Step = 0, keep_system: KeepSystem = True) -> Window:
        """Fit a window."""
        record = self.record
        frame = window.frame(record.id, record.latest_version, record.total_tokens, budget, step, keep_system)
        return await window.fit(info, frame, record.message_count)


@strawberry.type(description="A context at its place in a connection.")
class ContextEdge:
    """An edge."""

    cursor: str = strawberry.field(description="Marks this place for `after`.")
    node: Context = strawberry.field(description="The context.")


class Source(Protocol):
    """Where a connection of contexts takes its rows from."""

    limit: int
    continued: bool

    async def read(self, info: Info) -> Sequence[ContextRecord]:
        """Load the page and one row more, which tells whether there is more."""

    async def count(self, info: Info) -> int:
        """Load how many rows all pages have."""

    def cursor(self, record: ContextRecord) -> str:
        """Write the cursor of a row."""


@strawberry.type(description="A page of contexts.")
class ContextConnection:
    """Lazy: each part is read when it is asked for."""

    source: strawberry.Private[Source]

    @strawberry.field(description="The page, each context with its cursor.")
    async def edges(self, info: Info) -> list[ContextEdge]:
        """Read the page."""
        page = (await self.source.read(info))[: self.source.limit]
        return [ContextEdge(cursor=self.source.cursor(record), node=Context.of(record)) for record in page]

    @strawberry.field(description="The contexts of the page without their cursors.")
    async def nodes(self, info: Info) -> list[Context]:
        """Read the page."""
        return [Context.of(record) for record in (await self.source.read(info))[: self.source.limit]]

    @strawberry.field(description="Where the page stands. It has a previous page when it was asked for with `after`.")
    async def page_info(self, info: Info) -> PageInfo:
        """Read the page."""
        return self.placed(await self.source.read(info))

    def placed(self, found: Sequence[ContextRecord], *, cursors: bool = True) -> PageInfo:
        """Tell where the page that was found stands; without cursors where nobody wants them."""
        page = found[: self.source.limit]
        return PageInfo(
            start_cursor=self.source.cursor(page[0]) if page and cursors else None,
            end_cursor=self.source.cursor(page[-1]) if page and cursors else None,
            previous=self.source.continued,
            next=len(found) > len(page),
        )

    @strawberry.field(description="How many contexts the whole connection has, whatever the page.")
    async def total_count(self, info: Info) -> int:
        """Count."""
        return await self.source.count(info)


class Forks:
    """The forks of one context, oldest first."""

    def __init__(self, parent_id: UUID, first: int | None, after: str | None, most: int) -> None:
        self.limit = connection.size(first, most=most).limit
        self.continued = after is not None
        self.parent_id = parent_id
        self._name = f"forks {parent_id.hex}"
        place = connection.read_cursor(after, self._name, "after", int, str)
        start = (EARLIEST, NIL) if place is None else read_place(*place)
        self.page = ForksPage(parent_id, *start, self.limit + 1)

    async def read(self, info: Info) -> Sequence[ContextRecord]:
        """Load the page."""
        return await info.context.loaders.forks.load(self.page)

    async def count(self, info: Info) -> int:
        """Load the count."""
        return await info.context.loaders.fork_count.load(self.parent_id)

    def cursor(self, record: ContextRecord) -> str:
        """Write the moment and the id."""
        return connection.write_cursor(self._name, *write_place(record.created_at, record.id))


def write_place(moment: datetime, context_id: UUID) -> tuple[int, str]:
    """Write a place in an order by time: microseconds since 1970, and the id."""
    return (moment - _EPOCH) // _MICROSECOND, context_id.hex


def read_place(microseconds: int, id_hex: str) -> tuple[datetime, UUID]:
    """Read what `write_place` wrote.

    Raises: BadUserInput when somebody else wrote it.
    """
    try:
        return _EPOCH + microseconds * _MICROSECOND, UUID(id_hex)
    except (ValueError, OverflowError) as error:
        raise BadUserInput("after is not a cursor of this connection. Take it from an edge's cursor.") from error


def one_message(context_id: UUID, version: int) -> LineagePage | None:
    """Give the page that holds one version and nothing else; None for what no lineage can reach."""
    if not 1 <= version < _VERSION_MAX:
        return None
    return LineagePage(Place(context_id, version - 1, version + 1), 1, newest_first=False, roles=None)


def check_place(version: int | None, time: datetime | None) -> None:
    """Check the arguments of `at`.

    Raises: BadUserInput.
    """
    if (version is None) == (time is None):
        raise BadUserInput("at takes either version or time. Give exactly one of them.")


def visible(record: ContextRecord | None) -> Context | None:
    """Show a context that is there and not deleted."""
    return None if record is None or record.deleted_at is not None else Context.of(record)
