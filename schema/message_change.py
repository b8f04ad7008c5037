"""Changing messages: delete one, restore one. Each is one transaction."""

from collections.abc import Awaitable, Callable

import strawberry

import db.context
import db.message
from db.message import Turned
from db.pool import Session
from db.records import ContextRecord, MessageRecord
from schema import context_change
from schema.context import Context
from schema.errors import BadUserInput
from schema.message import Message
from schema.request import Request
from schema.scalar import read_id


@strawberry.input(description="The message to delete.")
class DeleteMessageInput:
    """A deletion."""

    context_id: strawberry.ID = strawberry.field(description="Any context that the message is readable through.")
    version: int = strawberry.field(description="The version of the message.")


@strawberry.input(description="The message to restore.")
class RestoreMessageInput:
    """A restoration."""

    context_id: strawberry.ID = strawberry.field(description="Any context that the message was readable through.")
    version: int = strawberry.field(description="The version of the message.")


@strawberry.type(description="What was deleted.")
class DeleteMessagePayload:
    """A payload."""

    message: Message = strawberry.field(description="The message, deleted.")
    context: Context = strawberry.field(description="The context that was named, with its counters as they are now.")


@strawberry.type(description="What was restored.")
class RestoreMessagePayload:
    """A payload."""

    message: Message = strawberry.field(description="The message, there again.")
    context: Context = strawberry.field(description="The context that was named, with its counters as they are now.")


async def delete(request: Request, given: DeleteMessageInput) -> DeleteMessagePayload:
    """Hide a message from every context that reads it; doing it again changes nothing.

    Raises: BadUserInput, NotFound.
    """
    message, context = await _change(request, given.context_id, given.version, db.message.delete)
    return DeleteMessagePayload(message=Message.of(message), context=Context.of(context))


async def restore(request: Request, given: RestoreMessageInput) -> RestoreMessagePayload:
    """Show a message again, to every context that inherits it; doing it again changes nothing.

    Raises: BadUserInput, LimitExceeded, NotFound.
    """
    message, context = await _change(request, given.context_id, given.version, db.message.restore)
    return RestoreMessagePayload(message=Message.of(message), context=Context.of(context))


async def _change(
    request: Request,
    given_id: strawberry.ID,
    version: int,
    change: Callable[[Session, str, ContextRecord, int], Awaitable[Turned | None]],
) -> tuple[MessageRecord, ContextRecord]:
    context_id = read_id(given_id, "input.contextId")
    async with request.transaction() as session:
        reader = await context_change.find(session, request.tenant_id, context_id)
        turned = await change(session, request.tenant_id, reader, version) if version > 0 else None
        if turned is None:
            raise BadUserInput(
                f"input.version is {version}. It must be from 1 to {reader.latest_version}, the latest version."
                if reader.latest_version
                else f"input.version is {version}, but the context has no messages."
            )
        (message,) = await db.message.by_ids(session, request.tenant_id, [turned.message_id])
        (context,) = await db.context.by_ids(session, request.tenant_id, [context_id])
    request.ring(*turned.readers)
    return message, context
