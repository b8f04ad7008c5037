"""Feeds: the messages that the subscribers of one process follow, read from the database once for all of them.

Whoever follows a context has a *tail*: a position in its lineage, and what is above. A tail first reads the log by
itself, version by version, until it has reached the end; from then on it is *live*, and takes what is pushed. One pump
reads the contexts that the doorbell names, many in one statement, and pushes what is new to the live tails of each.

Nothing is missed or repeated, because a position is a version: a tail leaves out what it has, and when something was
pushed that does not follow what it has, it reads the log again. It does the same when it is slow and too much waits
for it, so what a slow subscriber costs is bounded. A bell that nobody hears is no loss either: `check` compares.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import suppress
from itertools import islice
from typing import TypeVar
from uuid import UUID

import structlog

from db import lineage, queries
from db.call import Asking, Recorder, Row
from db.errors import LaneAway, LineBroken, StatementTimeout, StoreError, Unavailable
from db.lineage import News
from db.pool import Database, Reader

log = structlog.get_logger(__name__)

_HEADS = queries.load("feed")["heads"]

Key = tuple[str, UUID]
T = TypeVar("T")

# Of this many contexts the pump reads so many versions in one statement: 1,000 rows, which others wait for.
_PLACES = 20
_PUSHED = 50
# So many versions a tail reads in one statement: fewer at first, and while they are large.
_REPLAYED_FIRST = 16
_REPLAYED_MAX = 128
# What may wait for one tail; more is left in the log until it comes for it.
_HELD_MESSAGES_MAX = 256
_HELD_CHARACTERS_MAX = 1024 * 1024
# `check` asks for so many contexts in one statement.
_CHECKED = 1_000
_RETRY_SECONDS = 0.5


async def read(database: Database, tenant_id: str, ask: Callable[[Reader], Asking[T]]) -> T:
    """Read what one statement gives of a tenant, JSON as PostgreSQL's bytes: in the fast lane if there is one.

    Raises: the family of db.errors.
    """
    if database.lane is not None:
        with suppress(LaneAway, LineBroken):
            (found,) = await database.lane.run(tenant_id, ask(Recorder()))
            return found  # type: ignore[no-any-return] # `run` gives what was asked
    async with database.snapshot(tenant_id, json_as_bytes=True) as snapshot:
        return await ask(snapshot)


class Tail:
    """The position of one subscriber in the lineage of one context, and what waits for it.

    While it is not live it reads the log, and nothing is pushed to it.
    """

    def __init__(self, version: int) -> None:
        self.version = version
        self.live = False
        self.waiting: deque[News] = deque()
        self.pushed = asyncio.Event()
        self.width = _REPLAYED_FIRST
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

    def measure(self, news: News) -> None:
        """Read more at a time, or less, by what was just read."""
        large = _characters(news) > _HELD_CHARACTERS_MAX // 2
        self.width = max(1, self.width // 2) if large else min(2 * self.width, _REPLAYED_MAX)

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
        self.pushed.set()


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


class Feeds:
    """All that is followed in one process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._feeds: dict[Key, _Feed] = {}
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
            if (tenant_id, context_id) in self._feeds:
                self._rung.setdefault(tenant_id, {})[context_id] = None
                self._ring.set()

    async def follow(self, tenant_id: str, context_id: UUID, version: int) -> AsyncGenerator[News, None]:
        """Give what the context has above a version, and then what it gets, until it is deleted.

        While the database is away it waits. Nothing is held for whoever stops iterating and closes this.

        Raises: Unforeseen, as when a row cannot be read.
        """
        key = (tenant_id, context_id)
        tail = Tail(version)
        feed = self._feeds.setdefault(key, _Feed())
        feed.tails.add(tail)
        try:
            while True:
                pushed = tail.live
                news = await (tail.take() if pushed else self._replay(key, feed, tail))
                if pushed and (news is None or news.after > tail.version):
                    tail.fall_back()
                    continue
                if news is None:
                    return
                if news.through > tail.version:
                    messages = [message for message in news.messages if message.version > tail.version]
                    tail.version = news.through
                    yield news._replace(messages=messages)
                if news.is_last:
                    if not pushed:
                        return
                    tail.fall_back()  # it may have been read before this tail was here, and the context be back
        finally:
            feed.tails.discard(tail)
            if not feed.tails:
                del self._feeds[key]

    async def _replay(self, key: Key, feed: _Feed, tail: Tail) -> News | None:
        """Read the log, and go live at its end."""
        tenant_id, context_id = key
        while True:
            try:
                (news,) = await self._since(tenant_id, [(context_id, tail.version)], tail.width)
                break
            except StoreError as error:
                log.warning("feed: could not be read", error=_describe(error))
                if isinstance(error, StatementTimeout):
                    tail.width = max(1, tail.width // 2)
                await asyncio.sleep(_RETRY_SECONDS)
        if news is None or news.is_last:
            return news
        tail.measure(news)
        # It is past the end where the database has lost what a client has seen, as when a replica took over too early.
        at_end = news.through >= news.latest_version
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
        return await read(self._database, tenant_id, lambda reader: lineage.since(reader, tenant_id, places, width))

    async def _pump(self) -> None:
        while True:
            await self._ring.wait()
            self._ring.clear()
            while self._rung:
                tenant_id, ids = self._next()
                try:
                    await self._push(tenant_id, ids)
                except Unavailable as error:
                    log.warning("feed: could not be read", error=_describe(error))
                    await asyncio.sleep(_RETRY_SECONDS)
                    self.hear(tenant_id, ids)
                except Exception as error:  # noqa: BLE001 - what is wrong with some contexts stops no others
                    log.warning("feed: could not be read together", error=_describe(error))
                    self._let_read(tenant_id, ids)

    def _next(self) -> tuple[str, list[UUID]]:
        """Take some of what has rung, of each tenant in turn."""
        tenant_id = next(iter(self._rung))
        rung = self._rung.pop(tenant_id)
        ids = list(islice(rung, _PLACES))
        for context_id in ids:
            del rung[context_id]
        if rung:
            self._rung[tenant_id] = rung
        return tenant_id, ids

    def _let_read(self, tenant_id: str, ids: Iterable[UUID]) -> None:
        """Let each tail of some contexts read the log by itself."""
        for context_id in ids:
            feed = self._feeds.get((tenant_id, context_id))
            for tail in feed.tails if feed is not None else ():
                tail.fall_back()

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

    async def check(self) -> None:
        """Look for what no bell has told, by one statement for a thousand contexts.

        Raises: the family of db.errors.
        """
        followed: dict[str, list[UUID]] = {}
        for tenant_id, context_id in self._feeds:
            followed.setdefault(tenant_id, []).append(context_id)
        for tenant_id, ids in followed.items():
            for start in range(0, len(ids), _CHECKED):
                await self._check(tenant_id, ids[start : start + _CHECKED])

    async def _check(self, tenant_id: str, ids: list[UUID]) -> None:
        rows = await read(self._database, tenant_id, lambda reader: _fetch_heads(reader, tenant_id, ids))
        heads = {context_id: (latest, deleted) for context_id, latest, deleted in rows}
        self.hear(tenant_id, [each for each in ids if heads.get(each) != (self._head(tenant_id, each), False)])

    def _head(self, tenant_id: str, context_id: UUID) -> int | None:
        feed = self._feeds.get((tenant_id, context_id))
        return None if feed is None else feed.head


async def _fetch_heads(reader: Reader, tenant_id: str, ids: Sequence[UUID]) -> Sequence[Row]:
    return await reader.fetch(_HEADS, tenant_id, list(ids))


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
