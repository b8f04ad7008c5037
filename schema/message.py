"""Messages: their types, and pages of a lineage."""

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Annotated, NamedTuple
from uuid import UUID

import strawberry
from strawberry.scalars import JSON

from db.lineage import Place, Totals
from db.records import ContextRecord, MessageRecord
from schema import connection
from schema.batches import LineagePage, RoleCount
from schema.connection import PageInfo, Size
from schema.errors import BadUserInput
from schema.node import Node
from schema.request import Info
from schema.scalar import member

if TYPE_CHECKING:
    from schema.context import Context


@strawberry.enum(description="Who speaks in a message.")
class Role(Enum):
    """The value is what the store holds."""

    USER = member("user", "The person, or whoever asks.")
    ASSISTANT = member("assistant", "The model. It may call tools.")
    SYSTEM = member("system", "Instructions to the model.")
    TOOL = member("tool", "The result of a tool call, named by `toolCallId`.")


Roles = Annotated[list[Role] | None, strawberry.argument(description="Only messages of these roles.")]


@strawberry.type(description="A call of a tool that an assistant message makes.")
class ToolCall:
    """As the provider produced it."""

    id: str = strawberry.field(description="The provider's id of the call; its result names it as `toolCallId`.")
    name: str = strawberry.field(description="The tool that is called.")
    arguments: JSON = strawberry.field(description="What it is called with: any JSON value, its keys in their order.")


@strawberry.type(description="One message of a context. It never changes; editing is forking before it.")
class Message(Node):
    """A row of `messages`."""

    record: strawberry.Private[MessageRecord]
    version: int = strawberry.field(description="Its place in the lineage: 1 for the first, without gaps.")
    created_at: datetime = strawberry.field(description="When it was appended; never before the message it follows.")
    role: Role = strawberry.field(description="Who speaks.")
    content: str = strawberry.field(description="The text, which may be empty.")
    tool_call_id: str | None = strawberry.field(description="For TOOL messages: the call that this answers.")
    tool_name: str | None = strawberry.field(description="For TOOL messages: the tool that answered, if it was given.")
    token_count: int = strawberry.field(
        description="Tokens: as given when it was appended, or else as counted by the service."
    )
    model: str | None = strawberry.field(description="The model that produced it, if it was given.")
    metadata: JSON = strawberry.field(description="A JSON object of the caller's own.")
    deleted_at: datetime | None = strawberry.field(description="When it was deleted, null while it is not.")

    @classmethod
    def of(cls, record: MessageRecord) -> "Message":
        """Show a row."""
        return cls(
            id=strawberry.ID(str(record.id)),
            record=record,
            version=record.version,
            created_at=record.created_at,
            role=Role(record.role),
            content=record.content,
            tool_call_id=record.tool_call_id,
            tool_name=record.tool_name,
            token_count=record.token_count,
            model=record.model,
            metadata=JSON(record.metadata),
            deleted_at=record.deleted_at,
        )

    @strawberry.field(description="The tool calls of an ASSISTANT message, in order.")
    def tool_calls(self) -> list[ToolCall]:
        """Read the stored JSON."""
        return [
            ToolCall(id=call["id"], name=call["name"], arguments=call["arguments"])
            for call in self.record.tool_calls or ()
        ]

    @strawberry.field(
        description="The context that holds the message; forks inherit it from there, also when that one is deleted."
    )
    async def context(self, info: Info) -> Annotated["Context", strawberry.lazy("schema.context")]:
        """Load the holder."""
        from schema.context import Context

        record = await info.context.loaders.context.load(self.record.context_id)
        if record is None:
            raise LookupError(f"message {self.record.id} is held by no context")
        return Context.of(record)


@strawberry.type(description="A message at its place in a connection.")
class MessageEdge:
    """An edge."""

    cursor: str = strawberry.field(description="Marks this place for `after` and `before`.")
    node: Message = strawberry.field(description="The message.")


class Span(NamedTuple):
    """The messages of a lineage above version `low` and through version `high`, as a connection of this name."""

    reader: ContextRecord
    low: int
    high: int
    name: str

    async def totals(self, info: Info) -> "SpanTotals":
        """Count the visible ones and their tokens."""
        keys = self.totals_keys()
        return self.totals_of(dict(zip(keys, await info.context.loaders.totals.load_many(keys), strict=True)))

    def totals_keys(self) -> list[tuple[UUID, int]]:
        """Name the versions through which totals must be loaded: those of nothing and of everything are known."""
        ends = dict.fromkeys((self.low, self.high))
        return [(self.reader.id, version) for version in ends if version not in {0, self.reader.latest_version}]

    def totals_of(self, loaded: Mapping[tuple[UUID, int], Totals]) -> "SpanTotals":
        """Count the visible ones and their tokens: what is through its end and not through its beginning."""
        low, high = self._through(self.low, loaded), self._through(self.high, loaded)
        return SpanTotals(high.message_count - low.message_count, high.total_tokens - low.total_tokens)

    def _through(self, version: int, loaded: Mapping[tuple[UUID, int], Totals]) -> "SpanTotals":
        if version == 0:
            return SpanTotals(0, 0)
        of = self.reader if version == self.reader.latest_version else loaded[self.reader.id, version]
        return SpanTotals(of.message_count, of.total_tokens)


class SpanTotals(NamedTuple):
    """The visible messages of a span, and their tokens."""

    message_count: int
    total_tokens: int


@strawberry.type(description="A page of messages of a context's lineage, ascending by version.")
class MessageConnection:
    """Lazy: each part is read when it is asked for. `after` and `before` are versions, both exclusive."""

    span: strawberry.Private[Span]
    size: strawberry.Private[Size]
    after: strawberry.Private[int | None]
    before: strawberry.Private[int | None]
    roles: strawberry.Private[tuple[str, ...] | None]

    @strawberry.field(description="The page, each message with its cursor.")
    async def edges(self, info: Info) -> list[MessageEdge]:
        """Read the page."""
        return [
            MessageEdge(cursor=self.cursor(record.version), node=Message.of(record))
            for record in await self._read(info)
        ]

    @strawberry.field(description="The messages of the page without their cursors.")
    async def nodes(self, info: Info) -> list[Message]:
        """Read the page."""
        return [Message.of(record) for record in await self._read(info)]

    @strawberry.field(description="Where the page stands.")
    async def page_info(self, info: Info) -> PageInfo:
        """Read the page; what lies beyond it is read only when that is asked for."""
        return self.placed(await info.context.loaders.lineage.load(self.page))

    def placed(self, found: list[MessageRecord], *, cursors: bool = True) -> PageInfo:
        """Tell where the page that was found stands; without cursors where nobody wants them."""
        records, more = self.cut(found), len(found) > self.size.limit
        newest_first, first, end_of_span = self.size.newest_first, self.span.low + 1, self.span.high + 1
        if records:
            start, end = records[0].version, records[-1].version
        elif newest_first:  # an empty page lies just before its `before`, or else just behind its `after`
            start = min(self.before or end_of_span, end_of_span)
            end = start - 1
        else:
            end = min(max(self.after or 0, self.span.low), self.span.high)
            start = end + 1
        # Where no cursor ends the page there is nothing more than what was read.
        earlier = self.after is not None and self._part(None, max(start, first), 1, newest_first=True)
        later = self.before is not None and self._part(end, None, 1, newest_first=False)
        return PageInfo(
            start_cursor=self.cursor(records[0].version) if records and cursors else None,
            end_cursor=self.cursor(records[-1].version) if records and cursors else None,
            previous=(more and newest_first) or earlier,
            next=(more and not newest_first) or later,
        )

    @strawberry.field(
        description="How many messages the whole connection has, whatever the page; with `roles`, of those roles."
    )
    async def total_count(self, info: Info) -> int:
        """Give the stored counter, or count the roles."""
        if self.role_count is None:
            return (await self.span.totals(info)).message_count
        return await info.context.loaders.role_count.load(self.role_count)

    @property
    def role_count(self) -> RoleCount | None:
        """What must be counted to know how many messages there are; None where the totals tell."""
        span = self.span
        return None if self.roles is None else RoleCount(span.reader.id, span.low, span.high, self.roles)

    @property
    def page(self) -> LineagePage:
        """What is read: one message more than the page has, which tells whether there is more."""
        return self._part(self.after, self.before, self.size.limit + 1, newest_first=self.size.newest_first)

    def cut(self, found: list[MessageRecord]) -> list[MessageRecord]:
        """Take the page from what was found."""
        if len(found) <= self.size.limit:
            return found
        return found[1:] if self.size.newest_first else found[:-1]

    async def _read(self, info: Info) -> list[MessageRecord]:
        return self.cut(await info.context.loaders.lineage.load(self.page))

    def _part(self, after: int | None, before: int | None, limit: int, *, newest_first: bool) -> LineagePage:
        """Read between two versions, and never beyond the span."""
        span = self.span
        if span.low:
            after = max(after or 0, span.low)
        if span.high < span.reader.latest_version:
            before = min(before or span.high + 1, span.high + 1)
        return LineagePage(Place(span.reader.id, after, before), limit, newest_first, self.roles)

    def cursor(self, version: int) -> str:
        """Write the cursor of a message."""
        return connection.write_cursor(self.span.name, self.span.reader.id.hex, version)


def whole(reader: ContextRecord) -> Span:
    """Give all that is readable through a context."""
    return Span(reader, 0, reader.latest_version, "messages")


def page_of(
    span: Span,
    most: int,
    first: int | None,
    after: str | None,
    last: int | None,
    before: str | None,
    roles: list[Role] | None,
) -> MessageConnection:
    """Give the page of a span that the arguments of `messages` ask for, of at most so many.

    Raises: BadUserInput, LimitExceeded.
    """
    return MessageConnection(
        span=span,
        size=connection.size(first, last, most),
        after=_read_version(after, "after", span),
        before=_read_version(before, "before", span),
        roles=None if roles is None else tuple(sorted({role.value for role in roles})),
    )


def _read_version(cursor: str | None, argument: str, span: Span) -> int | None:
    place = connection.read_cursor(cursor, span.name, argument, str, int)
    if place is None:
        return None
    written_for, version = place
    if written_for != span.reader.id.hex or not 1 <= version <= 2**31 - 1:
        raise BadUserInput(f"{argument} is not a cursor of this context's messages. Take it from one of its own pages.")
    return int(version)
