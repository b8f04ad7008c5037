"""Appending messages: all of a batch, once; after an expected version if that is given, or to a fork made there."""

from collections.abc import Sequence
from contextlib import suppress
from enum import Enum
from uuid import UUID

import strawberry
import uuid_utils.compat

import db.context
import db.idempotency
import db.message
from db.errors import LaneAway
from db.idempotency import Claim
from db.pipeline import Lane
from db.pool import Session
from db.records import ContextRecord, MessageRecord, NewMessage
from schema import context_change, idempotency, message_input
from schema.context import Context
from schema.errors import BadUserInput, Conflict
from schema.message import Message
from schema.message_input import MessageInput
from schema.request import Request
from schema.scalar import member, read_id


@strawberry.enum(description="What to do when a context has gone on since the version that the caller knows.")
class OnConflict(Enum):
    """A choice of `appendMessages`."""

    REJECT = member("reject", "Append nothing: the error CONFLICT names the latest version.")
    FORK = member("fork", "Fork the context at the version that the caller knows, and append to the fork.")


@strawberry.input(description="Messages to append, all of them or none.")
class AppendMessagesInput:
    """A batch."""

    context_id: strawberry.ID = strawberry.field(description="The context.")
    messages: list[MessageInput] = strawberry.field(description="The messages in their order, at least one.")
    expected_version: int | None = strawberry.field(
        default=None,
        description="The latest version that the caller knows: the messages are to follow it and nothing else. "
        "If not given, they follow whatever is there.",
    )
    on_conflict: OnConflict | None = strawberry.field(
        default=OnConflict.REJECT, description="What to do when there are messages after the expected version."
    )
    idempotency_key: str | None = strawberry.field(default=None, description=idempotency.OF_ONE_CONTEXT)


@strawberry.type(description="What was appended.")
class AppendMessagesPayload:
    """A payload."""

    context: Context = strawberry.field(
        description="The context that the messages went to, as it is now: the one named, or a fork of it."
    )
    messages: list[Message] = strawberry.field(description="The messages with their versions, in their order.")
    replayed: bool = strawberry.field(description="Whether an earlier call of this key had appended them already.")
    forked: bool = strawberry.field(description="Whether they went to a new fork.")


async def append(request: Request, given: AppendMessagesInput) -> AppendMessagesPayload:
    """Append a batch.

    Raises: BadUserInput, LimitExceeded, NotFound, Conflict.
    """
    context_id = read_id(given.context_id, "input.contextId")
    key = idempotency.read_key(given.idempotency_key)
    if not given.messages:
        raise BadUserInput("input.messages is empty. Give at least one message.")
    messages = await message_input.read(request.service, given.messages, "input.messages")
    lane = request.service.database.append_lane
    if key is None and given.expected_version is None and lane is not None:
        with suppress(LaneAway):
            return await _append_at_once(request, lane, context_id, messages)
    async with request.transaction() as session:
        if key is not None:
            said = idempotency.hash_of("appendMessages", given.messages)
            claim = Claim(said, messages[0].id, len(messages))
            if earlier := await idempotency.claim(request, session, context_id, key, claim, named_id=context_id):
                return await _replay(request, session, context_id, earlier)
        target_id = context_id
        if given.expected_version is not None:
            target_id = await _target(request, session, context_id, given.expected_version, given.on_conflict)
        record = await db.message.append(session, request.tenant_id, target_id, messages)
        if record is None:
            raise context_change.missing(target_id)
        # Read back what is stored: PostgreSQL normalises metadata.
        stored = await db.message.by_ids(session, request.tenant_id, [message.id for message in messages])
    request.ring(context_id, target_id)
    return _payload(record, stored, context_id, replayed=False)


async def _append_at_once(
    request: Request, lane: Lane, context_id: UUID, messages: Sequence[NewMessage]
) -> AppendMessagesPayload:
    """Append what needs no look at anything before."""
    await request.begin_anew()
    record, stored = await db.message.append_at_once(lane, request.tenant_id, context_id, messages)
    if record is None:
        raise context_change.missing(context_id)
    request.ring(context_id)
    return _payload(record, stored, context_id, replayed=False)


async def _target(
    request: Request, session: Session, context_id: UUID, expected: int, on_conflict: OnConflict | None
) -> UUID:
    """Tell where the messages go, and let nothing come in between: to the context named, or to a fork made here."""
    if on_conflict is OnConflict.FORK:
        # The tree's lock comes before the context's, as where messages are deleted.
        record = await context_change.find(session, request.tenant_id, context_id)
        await db.context.lock_tree_shared(session, request.tenant_id, record.root_id)
    locked = await db.context.lock(session, request.tenant_id, context_id)
    if locked is None:
        raise context_change.missing(context_id)
    latest = locked.latest_version
    if not 0 <= expected <= latest:
        raise BadUserInput(f"input.expectedVersion is {expected}. It must be from 0 to {latest}, the latest version.")
    if expected == latest:
        return context_id
    if on_conflict is not OnConflict.FORK:
        raise Conflict(
            f"input.expectedVersion is {expected}, but the latest version is {latest}. "
            "Read on first, or send onConflict: FORK.",
            latestVersion=latest,
        )
    context_change.check_depth(request, locked)
    fork_id = uuid_utils.compat.uuid7()
    await db.context.fork(session, request.tenant_id, fork_id, locked, expected, None, "{}")
    return fork_id


async def _replay(request: Request, session: Session, context_id: UUID, earlier: Claim) -> AppendMessagesPayload:
    """Show what an earlier call appended, and its context as it is now: also when either was deleted since."""
    stored = await db.idempotency.appended(session, request.tenant_id, earlier)
    if not stored:
        raise context_change.missing(context_id)
    (record,) = await db.context.by_ids(session, request.tenant_id, [stored[0].context_id])
    return _payload(record, stored, context_id, replayed=True)


def _payload(
    record: ContextRecord, stored: Sequence[MessageRecord], named_id: UUID, *, replayed: bool
) -> AppendMessagesPayload:
    return AppendMessagesPayload(
        context=Context.of(record),
        messages=[Message.of(message) for message in stored],
        replayed=replayed,
        forked=record.id != named_id,
    )
