"""Contexts as they change: one that is watched, or all that a filter chooses."""

import asyncio
from collections.abc import AsyncGenerator
from datetime import datetime
from enum import Enum
from typing import Any, NamedTuple
from uuid import UUID

import strawberry

import db.context
import db.watch
from db.context import NIL, Filter
from db.errors import StoreError
from db.records import ContextRecord
from db.watch import OVERLAP, WATCHED_MAX
from schema.connection import PAGE_MAX
from schema.context import Context
from schema.context_change import missing
from schema.errors import LimitExceeded
from schema.request import Request
from schema.scalar import member

_RETRY_SECONDS = 0.5
# What changes all the time is looked at ten times a second by each subscriber, however often it is rung.
_PAUSE_SECONDS = 0.1


@strawberry.enum(description="What has happened to a context.")
class ContextEventKind(Enum):
    """Changes that follow each other closely may be told as one."""

    CREATED = member("created", "It was made: as a root, a fork or a copy.")
    UPDATED = member(
        "updated",
        "Its name, its metadata or the messages that it shows have changed. Of one context that is watched, new "
        "messages are not told here: `messageAppended` does.",
    )
    DELETED = member("deleted", "It was deleted.")
    RESTORED = member("restored", "It is there again.")
    FORKED = member("forked", "It was forked: `fork` is the new context.")


@strawberry.type(description="Something that has happened to a context.")
class ContextEvent:
    """An event of a feed."""

    record: strawberry.Private[ContextRecord]
    kind: ContextEventKind = strawberry.field(description="What has happened.")
    fork_record: strawberry.Private[ContextRecord | None] = None

    @strawberry.field(description="The context as it is now; with `deletedAt` when it is deleted.")
    def context(self) -> Context:
        """Show the row."""
        return Context.of(self.record)

    @strawberry.field(description="For FORKED: the new context.")
    def fork(self) -> Context | None:
        """Show the row."""
        return None if self.fork_record is None else Context.of(self.fork_record)


async def changed(request: Request, context_id: UUID) -> AsyncGenerator[ContextEvent, None]:
    """Check that a context can be watched, and give its changes from now on.

    Raises: NotFound.
    """
    seen = await _look(request, context_id, None)
    if seen is None or seen.record.deleted_at is not None:
        raise missing(context_id)
    return _changes(request, seen)


class _State(NamedTuple):
    """A context at a moment, and its forks of late."""

    record: ContextRecord
    moment: datetime
    forks: list[ContextRecord]


async def _look(request: Request, context_id: UUID, since: datetime | None) -> _State | None:
    """Read a context, with its forks since a moment, or of late, and of a little before."""
    tenant_id = request.tenant_id
    async with request.service.database.snapshot(request.tenant_id) as snapshot:
        moment = await db.watch.moment(snapshot)
        rows = await db.context.by_ids(snapshot, tenant_id, [context_id])
        forks: list[ContextRecord] = []
        place = (context_id, (since or moment) - OVERLAP, NIL)
        while True:
            (page,) = await db.context.forks(snapshot, tenant_id, [place], PAGE_MAX)
            forks += page
            if len(page) < PAGE_MAX:
                return _State(rows[0], moment, forks) if rows else None
            place = (context_id, page[-1].created_at, page[-1].id)


async def _changes(request: Request, seen: _State) -> AsyncGenerator[ContextEvent, None]:
    context_id = seen.record.id
    told = {fork.id: fork.created_at for fork in seen.forks}
    with request.service.live.watches.watch(request.tenant_id, context_id) as watch:
        watch.tell([context_id])  # what has happened since it was read
        while True:
            await watch.changed(1)
            try:
                found = await _look(request, context_id, seen.moment)
            except StoreError:
                await asyncio.sleep(_RETRY_SECONDS)
                watch.tell([context_id])
                continue
            if found is None:
                return
            kind = _difference(seen.record, found.record)
            if kind is not None:
                yield ContextEvent(record=found.record, kind=kind)
            for fork in found.forks:
                if fork.id not in told:
                    yield ContextEvent(record=found.record, kind=ContextEventKind.FORKED, fork_record=fork)
            # Those that are not found may be deleted just now, and come back.
            told = {fork_id: made for fork_id, made in told.items() if made > seen.moment - OVERLAP}
            told |= {fork.id: fork.created_at for fork in found.forks}
            seen = found
            await asyncio.sleep(_PAUSE_SECONDS)


def _difference(was: ContextRecord, now: ContextRecord) -> ContextEventKind | None:
    """Tell what has become of a context, new messages aside."""
    if (was.deleted_at is None) is not (now.deleted_at is None):
        return ContextEventKind.RESTORED if now.deleted_at is None else ContextEventKind.DELETED
    # A message that was deleted or restored shows in the count, or else as a change without a new version.
    silent = was.updated_at != now.updated_at and was.latest_version == now.latest_version
    return ContextEventKind.UPDATED if silent or _shown(was) != _shown(now) else None


def _shown(record: ContextRecord) -> tuple[str | None, Any, int]:
    return record.name, record.metadata, record.latest_version - record.message_count


async def listed(request: Request, chosen: Filter) -> AsyncGenerator[ContextEvent, None]:
    """Give the changes of all contexts that a filter chooses, from now on."""
    with request.service.live.watches.watch_all(request.tenant_id) as watch:
        seen = await _Seen.begin(request)
        watch.began = seen.began
        while True:
            if watch.full:
                raise LimitExceeded(
                    f"More than {WATCHED_MAX} contexts have changed while nobody took their events. "
                    "Read the list again, subscribe anew, and take events faster or filter more."
                )
            ids = await watch.changed(PAGE_MAX)
            try:
                async with request.service.database.snapshot(request.tenant_id) as snapshot:
                    found = await db.context.matching(snapshot, request.tenant_id, chosen, ids)
            except StoreError:
                await asyncio.sleep(_RETRY_SECONDS)
                watch.tell(ids)
                continue
            for record in found:
                kind = seen.kind(record)
                if kind is not None:
                    yield ContextEvent(record=record, kind=kind)
            await asyncio.sleep(_PAUSE_SECONDS)


class _Seen:
    """When each context was last seen to change, of those that have changed since a moment."""

    def __init__(self, began: datetime, changes: dict[UUID, datetime]) -> None:
        self.began = began
        self._changes = changes

    @classmethod
    async def begin(cls, request: Request) -> "_Seen":
        """Begin now: what has changed before is known."""
        async with request.service.database.snapshot(request.tenant_id) as snapshot:
            began = await db.watch.moment(snapshot)
        return cls(began, await db.watch.of_late(request.service.database, request.tenant_id, began))

    def kind(self, record: ContextRecord) -> ContextEventKind | None:
        """Tell what has become of a context since it was last seen."""
        known = self._changes.get(record.id)
        if known == record.updated_at:
            return None
        self._changes[record.id] = record.updated_at
        if len(self._changes) > WATCHED_MAX:
            self._forget()
        if record.deleted_at is not None:
            return ContextEventKind.DELETED
        return (
            ContextEventKind.CREATED if known is None and record.created_at >= self.began else ContextEventKind.UPDATED
        )

    def _forget(self) -> None:
        """Forget what changed so long ago that nobody will look at it again."""
        oldest = max(self._changes.values()) - 2 * OVERLAP
        self._changes = {context_id: moment for context_id, moment in self._changes.items() if moment > oldest}
        # Nothing older is new, though it is not known any more.
        self.began = max(self.began, oldest)
