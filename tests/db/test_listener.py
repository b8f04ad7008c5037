"""The listener: it hears, looks where it cannot, and comes back whatever is done to it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import psycopg
import pytest
from structlog.testing import capture_logs

from db.doorbell import payloads
from db.errors import Unavailable
from db.listener import Listener, ListenerLimits
from tests.db.lane import through_proxy, until
from tests.db.planting import pooler

LIMITS = ListenerLimits(connect_seconds=5, statement_seconds=5, poll_seconds=0.05, slow_poll_seconds=30)


class Heard:
    """What a listener told."""

    def __init__(self) -> None:
        self.ids: list[tuple[str, UUID]] = []
        self.looks = 0
        self.failure: Exception | None = None

    def hear(self, tenant_id: str, ids: Sequence[UUID]) -> None:
        self.ids += [(tenant_id, context_id) for context_id in ids]

    async def check(self) -> None:
        self.looks += 1
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure


@asynccontextmanager
async def opened(url: str, limits: ListenerLimits = LIMITS) -> AsyncIterator[tuple[Listener, Heard]]:
    heard = Heard()
    listener = Listener(url, limits, heard.hear, heard.check)
    listener.open()
    try:
        yield listener, heard
    finally:
        await listener.close()
        assert not listener.listening


def ring(url: str, *ids: UUID, tenant_id: str = "a") -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for payload in payloads(tenant_id, ids):
            connection.execute("select pg_notify('forkpoint', %s)", [payload])


def terminate(url: str) -> int:
    """End the connection that listens; gives how many there were."""
    with psycopg.connect(url, autocommit=True) as killer:
        return len(
            killer.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() "
                "and (query = 'listen forkpoint;' or query = 'select 1;') and pid <> pg_backend_pid()"
            ).fetchall()
        )


async def test_it_hears_and_looks_once_when_it_begins(database_url: str) -> None:
    async with opened(database_url) as (listener, heard):
        await until(lambda: listener.listening and heard.looks > 0)
        ids = [uuid4() for _ in range(500)]
        ring(database_url, *ids, tenant_id="an odd tenant")
        await until(lambda: heard.ids == [("an odd tenant", context_id) for context_id in ids])
        assert heard.looks <= 2


async def test_what_is_not_ours_is_passed_over(database_url: str) -> None:
    async with opened(database_url) as (listener, heard):
        await until(lambda: listener.listening)
        with psycopg.connect(database_url, autocommit=True) as connection, capture_logs():
            for payload in ("", "hello", "{}", "a b", "é" * 1000):
                connection.execute("select pg_notify('forkpoint', %s)", [payload])
            connection.execute("notify other, 'x'")
            context_id = uuid4()
            ring(database_url, context_id)
            await until(lambda: bool(heard.ids))
        assert heard.ids == [("a", context_id)]
        assert listener.listening


async def test_it_comes_back_however_often_it_is_killed_and_looks_each_time(database_url: str) -> None:
    async with opened(database_url) as (listener, heard):
        with capture_logs():
            for _ in range(30):
                await until(lambda: listener.listening)
                looks = heard.looks
                await until(lambda: terminate(database_url) > 0)
                await until(lambda: not listener.listening)
                await until(lambda looks=looks: listener.listening and heard.looks > looks)  # type: ignore[misc]
            context_id = uuid4()
            ring(database_url, context_id)
            await until(lambda: ("a", context_id) in heard.ids)


async def test_what_is_rung_between_two_waits_is_heard(database_url: str) -> None:
    """It asks for an answer now and then; what comes meanwhile is not lost."""
    limits = ListenerLimits(5, 5, 30, 0.001)
    async with opened(database_url, limits) as (listener, heard):
        await until(lambda: listener.listening)
        ids = [uuid4() for _ in range(200)]
        with psycopg.connect(database_url, autocommit=True) as connection:
            for context_id in ids:
                connection.execute("select pg_notify('forkpoint', %s)", [next(payloads("a", [context_id]))])
                await asyncio.sleep(0)
        await until(lambda: [context_id for _, context_id in heard.ids] == ids)


@pytest.mark.parametrize("failure", [Unavailable(), KeyError("x"), OverflowError(), psycopg.InterfaceError()])
async def test_a_look_that_fails_is_made_again(database_url: str, failure: Exception) -> None:
    async with opened(database_url) as (listener, heard):
        heard.failure = failure
        with capture_logs() as lines:
            await until(lambda: heard.failure is None)
            looks = heard.looks
            await until(lambda: heard.looks > looks)
        assert [line["event"] for line in lines if "look" in line["event"]] == ["listener: could not look for changes"]
        await until(lambda: listener.listening)


async def test_behind_a_pooler_it_looks_again_and_again(database_url: str) -> None:
    with pooler(database_url) as relay:
        async with opened(relay.url()) as (listener, heard):
            await until(lambda: heard.looks > 5)
            assert not listener.listening


async def test_a_server_that_stops_answering_is_noticed(database_url: str) -> None:
    limits = ListenerLimits(connect_seconds=2, statement_seconds=0.2, poll_seconds=0.05, slow_poll_seconds=0.1)
    async with through_proxy(database_url) as (proxy, url), opened(url, limits) as (listener, heard):
        await until(lambda: listener.listening)
        proxy.flowing.clear()
        with capture_logs():
            await until(lambda: not listener.listening)
            looks = heard.looks
            await until(lambda: heard.looks > looks + 3)
            proxy.flowing.set()
            await until(lambda: listener.listening)


async def test_closing_it_at_any_moment_leaves_nothing(database_url: str) -> None:
    before = asyncio.all_tasks()
    for turns in range(30):
        async with opened(database_url):
            for _ in range(turns):
                await asyncio.sleep(0.001)
    assert asyncio.all_tasks() - before == set()
