"""Feeds: what the subscribers of one process watch, read from the database once for all of them.

Whoever follows a context has a *tail*: a position in its lineage, and what is above. A tail first reads the log by
itself, version by version, until it has reached the end; from then on it is *live*, and takes what is pushed. One pump
reads the contexts that the doorbell names, many in one statement, and pushes what is new to the live tails of each.

Nothing is missed or repeated, because a position is a version: a tail leaves out what it has, and when something was
pushed that does not follow what it has, it reads the log again. It does the same when it is slow and too much waits
for it, so what a slow subscriber costs is bounded. A bell that nobody hears is no loss either: `check` compares.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, TypeVar, cast
from uuid import UUID

import structlog

from db import lineage, queries
from db.call import Asking, Recorder, Row
from db.context import NIL
from db.errors import LaneAway, LineBroken, StoreError, Unforeseen
from db.lineage import News
from db.pool import Database, Reader

log = structlog.get_logger(__name__)

_QUERIES = queries.load("feed")
_MOMENT = queries.load("doorbell")["moment"]

Key = tuple[str, UUID]
T = TypeVar("T")

# Of this many contexts the pump reads so many versions in one statement: 1,000 rows, which others wait for.
_PLACES = 20
_PUSHED = 50
# So many versions a tail reads in one statement.
_REPLAYED = 100
# What may wait for one tail; more is left in the log until it comes for it.
_HELD_MESSAGES_MAX = 256
_HELD_CHARACTERS_MAX = 1024 * 1024
# `check` asks for so many contexts in one statement.
_CHECKED = 1_000
# Changed contexts that may wait for one watch.
WATCHED_MAX = 10_000
_RETRY_SECONDS = 0.5
# A change is seen when it is committed, and is of the time when its transaction began. Nearly all last milliseconds.
OVERLAP = timedelta(minutes=2)


async def read(database: Database, ask: Callable[[Reader], Asking[T]]) -> T:
    """Read what takes one statement, JSON as the bytes that PostgreSQL sent: in the fast lane if there is one.

    Raises: the family of db.errors.
    """
    if database.lane is not None:
        with suppress(LaneAway, LineBroken):
            (found,) = await database.lane.run(ask(Recorder()))
            return found  # type: ignore[no-any-return] # `run` gives what was asked
    async with database.snapshot(json_as_bytes=True) as snapshot:
        return await ask(snapshot)


async def moment(reader: Reader) -> datetime:
    """Give the time of the database. Source: doorbell.moment."""
    ((found,),) = await reader.fetch(_MOMENT)
    return cast("datetime", found)


class Tail:
    """The position of one subscriber in the lineage of one context, and what waits for it.

    While it is not live it reads the log, and nothing is pushed to it.
    """

    def __init__(self, version: int) -> None:
        self.version = version
        self.live = False
        self.waiting: deque[News] = deque()
        self.pushed = asyncio.Event()
        self._messages = 0
        self._characters = 0

    def push(self, news: News) -> None:
        """Take what is new; when that is too much, leave it in the log."""
        if not self.live:
            return
        self.waiting.append(news)
        self._messages += len(news.messages)
        self._characters += _characters(news)
        if self._messages > _HELD_MESSAGES_MAX or self._characters > _HELD_CHARACTERS_MAX:
            self.fall_back()
        self.pushed.set()

    async def take(self) -> News | None:
        """Give what was pushed next, as soon as there is something; None when it must be read from the log."""
        while self.live and not self.waiting:
            self.pushed.clear()
            await self.pushed.wait()
        if not self.live:
            return None
        news = self.waiting.popleft()
        self._messages -= len(news.messages)
        self._characters -= _characters(news)
        return news

    def fall_back(self) -> None:
        """Read the log again from here."""
        self.live = False
        self.waiting.clear()
        self._messages = self._characters = 0


def _characters(news: News) -> int:
    return sum(
        len(message.content) + len(message.tool_calls or b"") + len(message.metadata) for message in news.messages
    )


class _Feed:
    """One context that is followed. Its head is the version through which all has been pushed, None with no live tail.

    `rung` says that a bell has rung while nothing could be pushed.
    """

    def __init__(self) -> None:
        self.tails: set[Tail] = set()
        self.head: int | None = None
        self.rung = False


class Watch:
    """Which contexts may have changed since somebody last looked: one that is named, or any of the tenant's.

    When it is `full`, it takes no more.
    """

    def __init__(self, began: datetime | None = None) -> None:
        self.began = began
        # When each was last seen to change, so that nothing is looked at twice.
        self.seen: dict[UUID, datetime] = {}
        self.state: object = None
        self._changed: dict[UUID, None] = {}
        self._told = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether more has changed than is kept, and so was lost."""
        return len(self._changed) > WATCHED_MAX

    def tell(self, ids: Iterable[UUID]) -> None:
        """Take what has changed."""
        if self.full:
            return
        self._changed.update(dict.fromkeys(ids))
        if self._changed:
            self._told.set()

    async def changed(self, most: int) -> list[UUID]:
        """Give some of what has changed, as soon as there is something."""
        await self._told.wait()
        found = list(islice(self._changed, most))
        for context_id in found:
            del self._changed[context_id]
        if not self._changed:
            self._told.clear()
        return found


class Feeds:
    """All that is watched in one process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._feeds: dict[Key, _Feed] = {}
        self._watches: dict[Key, set[Watch]] = {}
        self._lists: dict[str, set[Watch]] = {}
        # How far the changes of each tenant with lists have been looked through.
        self._marks: dict[str, datetime] = {}
        self._rung: dict[str, dict[UUID, None]] = {}
        self._ring = asyncio.Event()
        self._pumping: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Start to push."""
        self._pumping = asyncio.create_task(self._pump())

    async def close(self) -> None:
        """Stop."""
        if self._pumping is not None:
            self._pumping.cancel()
            await asyncio.gather(self._pumping, return_exceptions=True)

    def hear(self, tenant_id: str, ids: Sequence[UUID]) -> None:
        """Take what a bell says has changed."""
        for context_id in ids:
            key = (tenant_id, context_id)
            if key in self._feeds:
                self._rung.setdefault(tenant_id, {})[context_id] = None
                self._ring.set()
            for watch in self._watches.get(key, ()):
                watch.tell([context_id])
        for watch in self._lists.get(tenant_id, ()):
            watch.tell(ids)

    async def follow(self, tenant_id: str, context_id: UUID, version: int) -> AsyncIterator[News]:
        """Give what the context has above a version, and then what it gets, until it is deleted.

        While the database is away it waits. Nothing is held for whoever stops iterating and closes this.
        """
        key = (tenant_id, context_id)
        tail = Tail(version)
        feed = self._feeds.setdefault(key, _Feed())
        feed.tails.add(tail)
        try:
            while True:
                if tail.live:
                    news = await tail.take()
                    if news is None or news.after > tail.version:
                        tail.fall_back()
                        continue
                else:
                    news = await self._replay(key, feed, tail)
                    if news is None:
                        return
                if news.through > tail.version:
                    messages = [message for message in news.messages if message.version > tail.version]
                    tail.version = news.through
                    yield news._replace(messages=messages)
                if news.is_last:
                    return
        finally:
            feed.tails.discard(tail)
            if not feed.tails:
                del self._feeds[key]

    async def _replay(self, key: Key, feed: _Feed, tail: Tail) -> News | None:
        """Read the log, and go live at its end."""
        tenant_id, context_id = key
        while True:
            try:
                (news,) = await self._since(tenant_id, [(context_id, tail.version)], _REPLAYED)
                break
            except (StoreError, Unforeseen) as error:
                log.warning("feed: could not be read", error=f"{type(error).__name__}: {error}")
                await asyncio.sleep(_RETRY_SECONDS)
        if news is None or news.is_last:
            return news
        at_end = news.through == news.latest_version
        if feed.head is None and at_end:
            feed.head = news.through
        # What has been pushed meanwhile this tail did not take.
        if at_end and feed.head is not None and feed.head <= news.through:
            tail.live = True
            if feed.rung:
                feed.rung = False
                self.hear(tenant_id, [context_id])
        return news

    async def _since(self, tenant_id: str, places: Sequence[tuple[UUID, int]], width: int) -> list[News | None]:
        return await read(self._database, lambda reader: lineage.since(reader, tenant_id, places, width))

    async def _pump(self) -> None:
        while True:
            await self._ring.wait()
            self._ring.clear()
            while self._rung:
                tenant_id, rung = next(iter(self._rung.items()))
                ids = list(islice(rung, _PLACES))
                for context_id in ids:
                    del rung[context_id]
                if not rung:
                    del self._rung[tenant_id]
                try:
                    await self._push(tenant_id, ids)
                except (StoreError, Unforeseen) as error:
                    log.warning("feed: could not be read", error=f"{type(error).__name__}: {error}")
                    await asyncio.sleep(_RETRY_SECONDS)
                    self._rung.setdefault(tenant_id, {}).update(dict.fromkeys(ids))

    async def _push(self, tenant_id: str, ids: Sequence[UUID]) -> None:
        """Read what is new in some contexts, and push it to those who are live."""
        places: list[tuple[UUID, int]] = []
        for context_id in ids:
            feed = self._feeds.get((tenant_id, context_id))
            if feed is None:
                continue
            if feed.head is None or not any(tail.live for tail in feed.tails):
                feed.head, feed.rung = None, True
            else:
                places.append((context_id, feed.head))
        if not places:
            return
        for (context_id, head), news in zip(places, await self._since(tenant_id, places, _PUSHED), strict=True):
            feed = self._feeds.get((tenant_id, context_id))
            if feed is None or feed.head != head:
                continue  # all have left meanwhile
            new = news or News(head, head, head, deleted=True, messages=[])
            feed.head = new.through
            for tail in feed.tails:
                tail.push(new)
            if new.through < new.latest_version:
                self.hear(tenant_id, [context_id])

    @contextmanager
    def watch(self, tenant_id: str, context_id: UUID) -> Iterator[Watch]:
        """Be told when a context may have changed, or may have been forked."""
        key = (tenant_id, context_id)
        watch = Watch()
        self._watches.setdefault(key, set()).add(watch)
        try:
            yield watch
        finally:
            self._watches[key].discard(watch)
            if not self._watches[key]:
                del self._watches[key]

    @contextmanager
    def watch_all(self, tenant_id: str, began: datetime) -> Iterator[Watch]:
        """Be told which contexts of the tenant may have changed since `began`."""
        watch = Watch(began)
        self._lists.setdefault(tenant_id, set()).add(watch)
        self._marks.setdefault(tenant_id, began)
        try:
            yield watch
        finally:
            self._lists[tenant_id].discard(watch)
            if not self._lists[tenant_id]:
                del self._lists[tenant_id], self._marks[tenant_id]

    async def check(self) -> None:
        """Look for what nobody was told of, by some statements for all that is watched.

        Raises: the family of db.errors.
        """
        watched: dict[str, set[UUID]] = {}
        for tenant_id, context_id in (*self._feeds, *self._watches):
            watched.setdefault(tenant_id, set()).add(context_id)
        for tenant_id, ids in watched.items():
            rest = sorted(ids)
            while rest:
                some, rest = rest[:_CHECKED], rest[_CHECKED:]
                await self._check_some(tenant_id, some)
        for tenant_id in list(self._lists):
            await self._check_lists(tenant_id)

    async def _check_some(self, tenant_id: str, ids: list[UUID]) -> None:
        rows = await read(self._database, lambda reader: _fetch(reader, "states", tenant_id, ids))
        states = {row[0]: row[1:] for row in rows}
        for context_id in ids:
            state = states.get(context_id)
            feed = self._feeds.get((tenant_id, context_id))
            if feed is not None and (state is None or state[2] or state[0] != feed.head):
                self._rung.setdefault(tenant_id, {})[context_id] = None
                self._ring.set()
            for watch in self._watches.get((tenant_id, context_id), ()):
                if watch.state != state:
                    watch.state = state
                    watch.tell([context_id])

    async def _check_lists(self, tenant_id: str) -> None:
        """Look through what has changed since the last time, and a little before."""
        place = (self._marks[tenant_id] - OVERLAP, NIL)
        while True:
            after = place
            rows = await read(self._database, lambda reader: _fetch(reader, "changed", tenant_id, *after, _CHECKED))  # noqa: B023 - awaited here
            for watch in self._lists.get(tenant_id, ()):
                watch.tell(
                    context_id
                    for context_id, moment in rows
                    if watch.seen.get(context_id) != moment and (watch.began is None or moment > watch.began)
                )
            if rows and tenant_id in self._marks:
                place = (rows[-1][1], rows[-1][0])
                self._marks[tenant_id] = max(self._marks[tenant_id], place[0])
            if len(rows) < _CHECKED:
                return


async def _fetch(reader: Reader, name: str, *parameters: Any) -> Sequence[Row]:
    return await reader.fetch(_QUERIES[name], *parameters)
