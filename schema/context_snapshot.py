"""Context snapshots: a context as it was at one of its versions."""

from typing import TYPE_CHECKING, Annotated

import strawberry

from db.records import ContextRecord
from schema import window
from schema.connection import After, Before, First, Last
from schema.errors import BadUserInput
from schema.message import MessageConnection, Roles, Span, page_of
from schema.request import Info
from schema.window import Budget, KeepSystem, Step, Window

if TYPE_CHECKING:
    from schema.context import Context


@strawberry.type(
    description="A context as it was at a version: the messages appended until then. One that has been deleted since "
    "stays hidden here too, and one that has been restored is shown."
)
class ContextSnapshot:
    """Versions are never reused and messages never change, so a snapshot is a version and nothing else."""

    record: strawberry.Private[ContextRecord]
    version: int = strawberry.field(description="The version it stands at: 0 is the empty state.")

    @classmethod
    def of(cls, record: ContextRecord, version: int | None) -> "ContextSnapshot":
        """Stand at a version.

        Raises: BadUserInput when the context does not reach it.
        """
        if version is None or not 0 <= version <= record.latest_version:
            raise BadUserInput(
                f"version is {version}. It must be from 0 to {record.latest_version}, the latest version."
            )
        return cls(record=record, version=version)

    @strawberry.field(description="The context, as it is now.")
    def context(self) -> Annotated["Context", strawberry.lazy("schema.context")]:
        """Show the row."""
        from schema.context import Context

        return Context.of(self.record)

    @strawberry.field(description="How many messages it has, inherited ones included and deleted ones not.")
    async def message_count(self, info: Info) -> int:
        """Load the totals."""
        return (await self.span.totals(info)).message_count

    @strawberry.field(description="The tokens of those messages.")
    async def total_tokens(self, info: Info) -> int:
        """Load the totals."""
        return (await self.span.totals(info)).total_tokens

    @strawberry.field(
        description="Its messages, inherited ones included, ascending by version. Without `first` and `last` the "
        "first 50. Cursors are its own: those of the context or of another version are refused."
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
        """Give a page of the lineage through the version."""
        most = info.context.service.limits.page_size_max
        return page_of(self.span, most, first, after, last, before, roles)

    @strawberry.field(
        description="The newest of its messages that fit a budget and can be sent to a model as they are."
    )
    async def window(self, info: Info, budget: Budget, *, step: Step = 0, keep_system: KeepSystem = True) -> Window:
        """Fit a window that ends at the version."""
        totals = await self.span.totals(info)
        frame = window.frame(self.record.id, self.version, totals.total_tokens, budget, step, keep_system)
        return await window.fit(info, frame, totals.message_count)

    @property
    def span(self) -> Span:
        """Its messages."""
        return Span(self.record, 0, self.version, f"messages at {self.version}")
