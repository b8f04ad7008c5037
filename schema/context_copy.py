"""Copying a context into an independent root, in one transaction."""

import strawberry
import uuid_utils.compat
from strawberry.scalars import JSON

import db.copy
from db.records import ContextRecord
from schema import context_change
from schema.context import Context
from schema.context_change import NAME_CHARS_MAX
from schema.errors import LimitExceeded
from schema.request import Request
from schema.scalar import read_id


@strawberry.input(description="A context to copy.")
class CopyContextInput:
    """A copy."""

    context_id: strawberry.ID = strawberry.field(description="The context to copy.")
    version: int | None = strawberry.field(
        default=None,
        description="The last version that is copied: 0 for none, the context's latest if not given.",
    )
    name: str | None = strawberry.field(
        default=None, description=f"A name, {NAME_CHARS_MAX} characters at most; that of the context if not given."
    )
    metadata: JSON | None = strawberry.field(
        default=None, description="A JSON object of the caller's own; that of the context if not given."
    )


@strawberry.type(description="What was copied.")
class CopyContextPayload:
    """A payload."""

    context: Context = strawberry.field(description="The copy: a root of its own, which shares nothing.")


async def copy(request: Request, given: CopyContextInput) -> CopyContextPayload:
    """Copy a history into a new root.

    Raises: BadUserInput, LimitExceeded, NotFound.
    """
    source_id = read_id(given.context_id, "input.contextId")
    name = context_change.read_name(given.name, "input.name")
    metadata = context_change.read_metadata(request.service, given.metadata, "input.metadata")
    async with request.transaction() as session:
        source = await context_change.find(session, request.tenant_id, source_id)
        context_change.check_version(source, given.version)
        _check_length(source, given.version, request.service.limits.copy_messages_max)
        record = await db.copy.copy(
            session, request.tenant_id, uuid_utils.compat.uuid7(), source, given.version, name, metadata
        )
    request.ring(record.id)
    return CopyContextPayload(context=Context.of(record))


def _check_length(source: ContextRecord, version: int | None, messages_max: int) -> None:
    count = source.latest_version if version is None else version
    if count > messages_max:
        raise LimitExceeded(
            f"The copy would hold {count} messages. {messages_max} is the most "
            "(FORKPOINT_COPY_MESSAGES_MAX); copy up to an earlier version."
        )
