"""Changing contexts: create, fork, update, delete, restore. Each is one transaction."""

from typing import Any
from uuid import UUID

import strawberry
import uuid_utils.compat
from strawberry.scalars import JSON

import db.context
import db.message
from db.context import NIL
from db.idempotency import Claim
from db.pool import Session
from db.records import ContextRecord
from schema import idempotency, message_input
from schema.context import Context
from schema.errors import BadUserInput, LimitExceeded, NotFound
from schema.message_input import MessageInput
from schema.request import Request, Service
from schema.scalar import read_id
from schema.storable import check_object, check_text, json_text, jsonb_length

NAME_CHARS_MAX = 255


@strawberry.input(description="A context to make.")
class CreateContextInput:
    """A root."""

    name: str | None = strawberry.field(default=None, description=f"A name, {NAME_CHARS_MAX} characters at most.")
    metadata: JSON | None = strawberry.field(default=None, description="A JSON object of the caller's own.")
    messages: list[MessageInput] | None = strawberry.field(default=None, description="Its first messages.")
    idempotency_key: str | None = strawberry.field(default=None, description=idempotency.OF_ALL_CONTEXTS)


@strawberry.input(description="A fork to make.")
class ForkContextInput:
    """A fork."""

    context_id: strawberry.ID = strawberry.field(description="The context to fork; it becomes the parent.")
    version: int | None = strawberry.field(
        default=None,
        description="The last version that the fork inherits: 0 for none, the parent's latest if not given.",
    )
    name: str | None = strawberry.field(default=None, description=f"A name, {NAME_CHARS_MAX} characters at most.")
    metadata: JSON | None = strawberry.field(default=None, description="A JSON object of the caller's own.")
    idempotency_key: str | None = strawberry.field(default=None, description=idempotency.OF_ALL_CONTEXTS)


@strawberry.input(description="What to change of a context. What is not given stays as it is.")
class UpdateContextInput:
    """An update."""

    context_id: strawberry.ID = strawberry.field(description="The context.")
    name: str | None = strawberry.field(default=None, description=f"A new name, {NAME_CHARS_MAX} characters at most.")
    metadata: JSON | None = strawberry.field(
        default=None, description="A new JSON object, in place of the whole of the old one."
    )


@strawberry.input(description="The context to delete.")
class DeleteContextInput:
    """A deletion."""

    context_id: strawberry.ID = strawberry.field(description="The context.")


@strawberry.input(description="The context to restore.")
class RestoreContextInput:
    """A restoration."""

    context_id: strawberry.ID = strawberry.field(description="The context.")


@strawberry.type(description="What was made.")
class CreateContextPayload:
    """A payload."""

    context: Context = strawberry.field(description="The new context.")
    replayed: bool = strawberry.field(description="Whether an earlier call of this key had made it already.")


@strawberry.type(description="What was forked.")
class ForkContextPayload:
    """A payload."""

    context: Context = strawberry.field(description="The fork.")
    replayed: bool = strawberry.field(description="Whether an earlier call of this key had made it already.")


@strawberry.type(description="What was updated.")
class UpdateContextPayload:
    """A payload."""

    context: Context = strawberry.field(description="The context as it is now.")


@strawberry.type(description="What was deleted.")
class DeleteContextPayload:
    """A payload."""

    context: Context = strawberry.field(description="The context, deleted. Its forks keep what they inherited.")


@strawberry.type(description="What was restored.")
class RestoreContextPayload:
    """A payload."""

    context: Context = strawberry.field(description="The context, there again.")


async def create(request: Request, given: CreateContextInput) -> CreateContextPayload:
    """Make a root with its first messages.

    Raises: BadUserInput, LimitExceeded, Conflict.
    """
    key = idempotency.read_key(given.idempotency_key)
    name = read_name(given.name, "input.name")
    metadata = read_metadata(request.service, given.metadata, "input.metadata") or "{}"
    messages = await message_input.read(
        request.service, given.messages or [], "input.messages", beside_bytes=jsonb_length(metadata)
    )
    context_id = uuid_utils.compat.uuid7()
    async with request.transaction() as session:
        if key is not None:
            said = idempotency.hash_of("createContext", given.name, given.metadata, given.messages)
            claim = Claim(said, context_id, len(messages))
            if earlier := await idempotency.claim(request, session, NIL, key, claim, named_id=None):
                return CreateContextPayload(context=await _made(request, session, earlier), replayed=True)
        record = await db.context.create(session, request.tenant_id, context_id, name, metadata)
        if messages:
            record = _there(await db.message.append(session, request.tenant_id, context_id, messages), context_id)
    request.ring(context_id)
    return CreateContextPayload(context=Context.of(record), replayed=False)


async def fork(request: Request, given: ForkContextInput) -> ForkContextPayload:
    """Make a fork: one row.

    Raises: BadUserInput, LimitExceeded, NotFound, Conflict.
    """
    key = idempotency.read_key(given.idempotency_key)
    parent_id = read_id(given.context_id, "input.contextId")
    name = read_name(given.name, "input.name")
    metadata = read_metadata(request.service, given.metadata, "input.metadata") or "{}"
    fork_id = uuid_utils.compat.uuid7()
    async with request.transaction() as session:
        if key is not None:
            said = idempotency.hash_of("forkContext", str(parent_id), given.version, given.name, given.metadata)
            if earlier := await idempotency.claim(
                request, session, NIL, key, Claim(said, fork_id, 0), named_id=parent_id
            ):
                return ForkContextPayload(context=await _made(request, session, earlier), replayed=True)
        parent = await find(session, request.tenant_id, parent_id)
        check_version(parent, given.version)
        check_depth(request, parent)
        record = await db.context.fork(session, request.tenant_id, fork_id, parent, given.version, name, metadata)
    request.ring(parent_id, fork_id)
    return ForkContextPayload(context=Context.of(record), replayed=False)


async def update(request: Request, given: UpdateContextInput) -> UpdateContextPayload:
    """Change what is given; nothing given changes nothing.

    Raises: BadUserInput, LimitExceeded, NotFound.
    """
    context_id = read_id(given.context_id, "input.contextId")
    name = read_name(given.name, "input.name")
    metadata = read_metadata(request.service, given.metadata, "input.metadata")
    async with request.transaction() as session:
        if name is None and metadata is None:
            record = await find(session, request.tenant_id, context_id)
        else:
            found = await db.context.update(session, request.tenant_id, context_id, name, metadata)
            record = _there(found, context_id)
    request.ring(context_id)
    return UpdateContextPayload(context=Context.of(record))


async def delete(request: Request, given: DeleteContextInput) -> DeleteContextPayload:
    """Hide a context.

    Raises: BadUserInput, NotFound.
    """
    context_id = read_id(given.context_id, "input.contextId")
    async with request.transaction() as session:
        record = _there(await db.context.delete(session, request.tenant_id, context_id), context_id)
    request.ring(context_id)
    return DeleteContextPayload(context=Context.of(record))


async def restore(request: Request, given: RestoreContextInput) -> RestoreContextPayload:
    """Show a context again; one that is not deleted stays as it is.

    Raises: BadUserInput, NotFound.
    """
    context_id = read_id(given.context_id, "input.contextId")
    async with request.transaction() as session:
        record = await db.context.restore(session, request.tenant_id, context_id)
        if record is None:
            record = await find(session, request.tenant_id, context_id)
    request.ring(context_id)
    return RestoreContextPayload(context=Context.of(record))


async def find(session: Session, tenant_id: str, context_id: UUID) -> ContextRecord:
    """Read a context that is about to change.

    Raises: NotFound when it is unknown or deleted.
    """
    for record in await db.context.by_ids(session, tenant_id, [context_id]):
        if record.deleted_at is None:
            return record
    raise missing(context_id)


def _there(record: ContextRecord | None, context_id: UUID) -> ContextRecord:
    if record is None:
        raise missing(context_id)
    return record


def missing(context_id: UUID) -> NotFound:
    """Refuse a change of a context that is not there to change."""
    return NotFound(f"There is no context {context_id}, or it is deleted.")


async def _made(request: Request, session: Session, earlier: Claim) -> Context:
    """Show what an earlier call made, as it is now: also when it was deleted since."""
    for record in await db.context.by_ids(session, request.tenant_id, [earlier.result_id]):
        return Context.of(record)
    raise missing(earlier.result_id)


def check_depth(request: Request, parent: ContextRecord) -> None:
    """Refuse a fork that would be too deep.

    Raises: LimitExceeded.
    """
    depth_max = request.service.limits.fork_depth_max
    if parent.depth >= depth_max:
        raise LimitExceeded(
            f"The fork would be {parent.depth + 1} forks deep. {depth_max} is the most "
            "(FORKPOINT_FORK_DEPTH_MAX); fork an ancestor."
        )


def check_version(record: ContextRecord, version: int | None) -> None:
    """Refuse to fork or copy at a version that the lineage does not have.

    Raises: BadUserInput.
    """
    if version is not None and not 0 <= version <= record.latest_version:
        raise BadUserInput(
            f"input.version is {version}. It must be from 0 to {record.latest_version}, the latest version."
        )


def read_name(name: str | None, place: str) -> str | None:
    """Check a name; `place` names it in error messages.

    Raises: BadUserInput, LimitExceeded.
    """
    if name is None:
        return None
    check_text(name, place)
    if len(name) > NAME_CHARS_MAX:
        raise LimitExceeded(f"{place} has {len(name)} characters. It may have {NAME_CHARS_MAX} at most.")
    return name


def read_metadata(service: Service, metadata: Any, place: str) -> str | None:
    """Check metadata and give it as JSON text; as `read_name`."""
    if metadata is None:
        return None
    check_object(metadata, place)
    text = json_text(metadata)
    size, size_max = jsonb_length(text), service.limits.append_bytes_max
    if size > size_max:
        raise LimitExceeded(f"{place} takes {size} bytes. It may take {size_max} at most (FORKPOINT_APPEND_BYTES_MAX).")
    return text
