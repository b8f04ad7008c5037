"""Where two contexts of one tree part, and what each goes on to hold."""

import asyncio
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import strawberry

from db.records import ContextRecord
from db.tree import Meeting
from schema.connection import After, Before, First, Last
from schema.message import MessageConnection, Roles, Span, page_of
from schema.request import Info

if TYPE_CHECKING:
    from schema.context import Context

With = Annotated[strawberry.ID, strawberry.argument(name="with", description="The other context.")]


@strawberry.type(description="Where two contexts of one tree part.")
class CommonAncestor:
    """A meeting of two ways up."""

    meeting: strawberry.Private[Meeting]
    version: int = strawberry.field(
        description="The last version up to which both hold the very same messages: 0 when they share none."
    )

    @classmethod
    def of(cls, meeting: Meeting) -> "CommonAncestor":
        """Show a meeting."""
        return cls(meeting=meeting, version=meeting.version)

    @strawberry.field(
        description="The nearest context from which both were forked, over any number of forks; one of the two where "
        "the other was forked from it. Null while that is deleted."
    )
    def context(self) -> Annotated["Context", strawberry.lazy("schema.context")] | None:
        """Show the context."""
        from schema.context import visible

        return visible(self.meeting.context)


@strawberry.type(description="What one of two contexts holds and the other does not.")
class DiffSide:
    """A lineage above the version where it parts from another one."""

    record: strawberry.Private[ContextRecord]
    version: strawberry.Private[int]

    @strawberry.field(description="The context that holds them.")
    def context(self) -> Annotated["Context", strawberry.lazy("schema.context")]:
        """Show the row."""
        from schema.context import Context

        return Context.of(self.record)

    @strawberry.field(
        description="Its messages after the version where the two part, ascending by version. Without `first` and "
        "`last` the first 50. Cursors are its own: those of the context's messages are refused."
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
        """Give a page of them."""
        most = info.context.service.limits.page_size_max
        return page_of(self.span, most, first, after, last, before, roles)

    @strawberry.field(description="How many these are, deleted ones left out.")
    async def message_count(self, info: Info) -> int:
        """Load the totals."""
        return (await self.span.totals(info)).message_count

    @strawberry.field(description="Their tokens.")
    async def total_tokens(self, info: Info) -> int:
        """Load the totals."""
        return (await self.span.totals(info)).total_tokens

    @property
    def span(self) -> Span:
        """Its messages."""
        return Span(self.record, self.version, self.record.latest_version, f"messages after {self.version}")


@strawberry.type(description="How two contexts differ: what each holds after the last version that both share.")
class ContextDiff:
    """Two sides of one place."""

    common_ancestor: CommonAncestor | None = strawberry.field(
        description="Where they part; null for contexts of two trees, which differ in everything."
    )
    only_here: DiffSide = strawberry.field(description="What only the context that was asked holds.")
    only_there: DiffSide = strawberry.field(description="What only the other context holds.")


async def common_ancestor(info: Info, here_id: UUID, there_id: UUID) -> CommonAncestor | None:
    """Load where two contexts meet; None when the other is missing, deleted or of another tree."""
    found = await compare(info, here_id, there_id)
    return None if found is None else found.common_ancestor


async def compare(info: Info, here_id: UUID, there_id: UUID) -> ContextDiff | None:
    """Load how two contexts differ; None when the other is missing or deleted."""
    loaders = info.context.loaders
    # Also the one that was asked: both are to stand at the moment that the rest is read at.
    here, there = await asyncio.gather(loaders.context.load(here_id), loaders.context.load(there_id))
    if here is None or there is None or there.deleted_at is not None:
        return None
    if here.root_id == there.root_id:
        info.context.charge_ancestors(max(here.depth, there.depth))
    meeting = await loaders.common_ancestor.load((here_id, there_id))
    version = 0 if meeting is None else meeting.version
    return ContextDiff(
        common_ancestor=None if meeting is None else CommonAncestor.of(meeting),
        only_here=DiffSide(record=here, version=version),
        only_there=DiffSide(record=there, version=version),
    )
