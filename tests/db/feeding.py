"""What tests of feeds share: a log that is written without a bell, and readers of it that can be met on their way."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import db.context
import db.message
from db.feed import Feeds
from db.lineage import News
from db.pool import Database, PoolLimits
from db.records import NewMessage
from graphql_api.ending import end
from tests.db.lane import through_proxy, until
from tests.proxy import Hold, Proxy

TENANT = "default"
LIMITS: dict[str, Any] = {
    "size_min": 2,
    "size_max": 6,
    "wait_seconds": 5,
    "connect_seconds": 5,
    "statement_seconds": 20,
}
# What takes longer has failed.
SECONDS_MAX = 20.0
# The end of the answer to a statement that reads, and not to BEGIN or COMMIT.
ANSWER = b"SELECT "


@asynccontextmanager
async def opened(url: str, **chosen: Any) -> AsyncIterator[Database]:
    database = Database(url, PoolLimits(**LIMITS | chosen))
    await database.open()
    try:
        yield database
    finally:
        await database.close()


def message(content: str = "") -> NewMessage:
    return NewMessage(uuid4(), "user", content, None, None, None, 1, None, "{}")


class Log:
    """Writes, and rings no bell."""

    def __init__(self, database: Database, tenant_id: str = TENANT) -> None:
        self.database = database
        self.tenant_id = tenant_id

    async def create(self, *contents: str) -> UUID:
        async with self.database.transaction(self.tenant_id) as session:
            context = await db.context.create(session, self.tenant_id, uuid4(), None, "{}")
        await self.append(context.id, *contents)
        return context.id

    async def append(self, context_id: UUID, *contents: str) -> None:
        if contents:
            async with self.database.transaction(self.tenant_id) as session:
                messages = [message(content) for content in contents]
                assert await db.message.append(session, self.tenant_id, context_id, messages)

    async def fork(self, context_id: UUID, version: int) -> UUID:
        async with self.database.transaction(self.tenant_id) as session:
            (parent,) = await db.context.by_ids(session, self.tenant_id, [context_id])
            return (await db.context.fork(session, self.tenant_id, uuid4(), parent, version, None, "{}")).id

    async def delete(self, context_id: UUID) -> None:
        async with self.database.transaction(self.tenant_id) as session:
            assert await db.context.delete(session, self.tenant_id, context_id)

    async def restore(self, context_id: UUID) -> None:
        async with self.database.transaction(self.tenant_id) as session:
            assert await db.context.restore(session, self.tenant_id, context_id)

    async def delete_message(self, context_id: UUID, version: int) -> None:
        async with self.database.transaction(self.tenant_id) as session:
            (reader,) = await db.context.by_ids(session, self.tenant_id, [context_id])
            assert await db.message.delete(session, self.tenant_id, reader, version)


class Follower:
    """Follows a context, and keeps what it was given."""

    def __init__(self, feeds: Feeds, context_id: UUID, version: int = 0, tenant_id: str = TENANT) -> None:
        self.news: list[News] = []
        self.versions: list[int] = []
        # While this is cleared, it takes nothing.
        self.takes = asyncio.Event()
        self.takes.set()
        self.task = asyncio.create_task(self._follow(feeds, tenant_id, context_id, version))

    async def _follow(self, feeds: Feeds, tenant_id: str, context_id: UUID, version: int) -> None:
        async with aclosing(feeds.follow(tenant_id, context_id, version)) as following:
            async for news in following:
                self.news.append(news)
                self.versions += [each.version for each in news.messages]
                await self.takes.wait()

    async def has(self, *versions: int) -> None:
        """Wait for what must come, and see that nothing else has."""
        try:
            async with asyncio.timeout(SECONDS_MAX):
                while len(self.versions) < len(versions) and not self.task.done():  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.002)
        except TimeoutError:
            pass
        assert self.versions == list(versions)

    async def ended(self) -> None:
        """Wait for the end."""
        await asyncio.wait_for(self.task, SECONDS_MAX)

    async def leave(self) -> None:
        """Leave, wherever it is just now, as clients of streams do."""
        end(self.task)
        _, staying = await asyncio.wait({self.task}, timeout=SECONDS_MAX)
        assert not staying, self.task.get_stack()


def tails(feeds: Feeds, context_id: UUID, tenant_id: str = TENANT) -> tuple[int, int]:
    """Count those that follow a context, and those of them that are live."""
    feed = feeds._feeds.get((tenant_id, context_id))  # noqa: SLF001 - nobody else can tell
    found = set() if feed is None else feed.tails
    return len(found), sum(tail.live for tail in found)


async def live(feeds: Feeds, context_id: UUID, count: int = 1, tenant_id: str = TENANT) -> None:
    """Wait until so many follow a context and all of them are live."""
    await until(lambda: tails(feeds, context_id, tenant_id) == (count, count), SECONDS_MAX)


class Stage:
    """Feeds that read through a proxy, which can hold an answer up; and a log that is written past it."""

    def __init__(self, feeds: Feeds, log: Log, proxy: Proxy) -> None:
        self.feeds, self.log, self.proxy = feeds, log, proxy

    async def held(self) -> Hold:
        """Wait until the next answer is held: what was read is of this moment, and nobody has it yet."""
        assert self.proxy.hold is not None
        await asyncio.wait_for(self.proxy.hold.held.wait(), SECONDS_MAX)
        return self.proxy.hold

    def hold(self) -> None:
        self.proxy.hold = Hold(ANSWER)

    def hear(self, context_id: UUID) -> None:
        self.feeds.hear(TENANT, [context_id])


@asynccontextmanager
async def staged(database_url: str) -> AsyncIterator[Stage]:
    """Open all of it; afterwards nobody may be left."""
    async with (
        through_proxy(database_url) as (proxy, url),
        opened(url) as reading,
        opened(database_url) as writing,
    ):
        feeds = Feeds(reading)
        feeds.open()
        try:
            yield Stage(feeds, Log(writing), proxy)
        finally:
            if proxy.hold is not None:
                proxy.hold.released.set()
            await feeds.close()
