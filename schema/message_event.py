"""Messages as they come: what is there after a version, and then what is appended."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import UUID

import strawberry

import db.context
from db.feed import read
from db.records import MessageRecord
from schema.context_change import missing
from schema.errors import BadUserInput
from schema.message import Message
from schema.request import Request


@strawberry.type(description="A message that a context has got, or had after the version that was asked for.")
class MessageEvent:
    """A message of a feed."""

    record: strawberry.Private[MessageRecord]
    version: int = strawberry.field(
        description="The version of the message. Pass the last one seen as `afterVersion` to go on from there."
    )
    latest_version: int = strawberry.field(
        description="The latest version of the context when the message was read: more are coming until it is reached."
    )

    @strawberry.field(description="The message.")
    def message(self) -> Message:
        """Show the row."""
        return Message.of(_with_values(self.record))


def _with_values(record: MessageRecord) -> MessageRecord:
    """Read JSON that came as PostgreSQL's bytes."""
    calls, metadata = record.tool_calls, record.metadata
    return record._replace(
        tool_calls=json.loads(calls) if isinstance(calls, bytes) else calls,
        metadata=json.loads(metadata) if isinstance(metadata, bytes) else metadata,
    )


async def appended(request: Request, context_id: UUID, after_version: int | None) -> AsyncGenerator[MessageEvent, None]:
    """Check that a context can be followed from a version on, None for its latest, and give what follows it.

    Raises: BadUserInput, NotFound; what goes wrong later is waited out.
    """
    service, tenant_id = request.service, request.tenant_id
    for record in await read(
        service.database, tenant_id, lambda reader: db.context.by_ids(reader, tenant_id, [context_id], metadata=False)
    ):
        if record.deleted_at is None:
            latest = record.latest_version
            break
    else:
        raise missing(context_id)
    if after_version is not None and not 0 <= after_version <= latest:
        raise BadUserInput(f"afterVersion is {after_version}. It must be from 0 to {latest}, the latest version.")
    return _events(request, context_id, latest if after_version is None else after_version)


async def _events(request: Request, context_id: UUID, version: int) -> AsyncGenerator[MessageEvent, None]:
    async with aclosing(request.service.live.feeds.follow(request.tenant_id, context_id, version)) as feed:
        async for news in feed:
            for record in news.messages:
                yield MessageEvent(record=record, version=record.version, latest_version=news.latest_version)
