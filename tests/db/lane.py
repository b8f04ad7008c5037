"""A fast lane for tests, with queries of their own; whatever it leaves behind is missed or complained of."""

import asyncio
import gc
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, LiteralString
from urllib.parse import urlsplit

import psycopg

from db.call import Call
from db.errors import LaneAway, LineBroken
from db.pipeline import Lane, LaneLimits, Lease
from db.queries import Query
from tests.proxy import Proxy, over_tcp, postgres_socket

# Whose rows the lane is asked for.
TENANT = "someone"

LIMITS = LaneLimits(size=3, in_flight_max=4, wait_seconds=20, connect_seconds=5, statement_seconds=20)


def query(name: str, text: LiteralString) -> Query:
    return Query(f"test.{name}", "many", text)


BACKEND = query("backend", "select pg_backend_pid()")
NUMBER = query("number", "select $1::integer")
NUMBERS = query("numbers", "select n from generate_series(1, $1::integer) n order by n")
COUNT = query("count", "select count(*) from noted")
NOTE = query("note", "insert into noted (n) values ($1::integer) returning n")
DIVIDE = query("divide", "select 1 / $1::integer")
INFINITE = query("infinite", "select 'infinity'::timestamptz + make_interval(secs => $1::integer)")
FAIL = query("fail", "select fail($1::text)")
SLEEP = query("sleep", "select $1::integer, pg_sleep($2::integer / 1000.0)::text")
LOCKED = query("locked", "select $1::integer, pg_advisory_xact_lock_shared(1)::text")
QUERIES = (BACKEND, NUMBER, NUMBERS, COUNT, NOTE, DIVIDE, INFINITE, FAIL, SLEEP, LOCKED)

PLANTED = """
create table noted (n integer unique);
create function fail(code text) returns integer language plpgsql as $$
begin
  raise exception 'a secret' using errcode = code, detail = 'a secret', hint = 'a secret';
end
$$;
"""


def plant(database_url: str) -> None:
    """Make what the queries ask."""
    with psycopg.connect(database_url) as connection:
        connection.execute(PLANTED)


class Lock:
    """Holds up every LOCKED, from `hold` to `release`."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def hold(self) -> None:
        self._connection.execute("select pg_advisory_lock(1)")

    def release(self) -> None:
        self._connection.execute("select pg_advisory_unlock(1)")


@asynccontextmanager
async def quiet() -> AsyncIterator[None]:
    """Check that nothing is complained of to the event loop, and that no task is left."""
    complaints: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    before = asyncio.all_tasks()
    loop.set_exception_handler(lambda _, context: complaints.append(context))
    try:
        yield
        # A fixture ends in another task than it began in; a proxy needs a moment to see that a connection is closed.
        await until(lambda: not asyncio.all_tasks() - before - {asyncio.current_task()})
        gc.collect()
        await asyncio.sleep(0)
        assert complaints == []
    finally:
        loop.set_exception_handler(None)


@asynccontextmanager
async def opened(
    url: str,
    *queries: Query,
    session: str = "read_at_one_moment",
    whole: bool = True,
    row_security: bool = False,
    **chosen: Any,
) -> AsyncIterator[Lane]:
    """Give a lane, with all its lines at the beginning and at the end unless it is not to be `whole`."""
    limits = LIMITS._replace(**chosen)
    async with quiet():
        lane = Lane(url, limits, session, queries or QUERIES, json_as_bytes=True, row_security=row_security)
        lane.open()
        try:
            if whole:
                await recovered(lane, limits.size)
            yield lane
            if whole:
                await recovered(lane, limits.size)
        finally:
            await lane.close()


async def backends(lane: Lane, size: int) -> set[int]:
    """Name the server processes of that many lines, when nothing is under way there any more."""
    pids: set[int] = set()
    leases: deque[AbstractAsyncContextManager[Lease]] = deque()
    try:
        async with asyncio.timeout(5):
            while len(pids) < size:
                if len(leases) == size:
                    # The others are leased, so that this goes to the line that was let go.
                    await leases.popleft().__aexit__(None, None, None)
                    pids.add((await ask(lane, BACKEND))[0][0])
                lease = lane.lease(TENANT)
                await lease.__aenter__()
                leases.append(lease)
    finally:
        while leases:
            await leases.popleft().__aexit__(None, None, None)
    return pids


async def recovered(lane: Lane, size: int) -> float:
    """Wait until every line can be had; gives how many seconds it took."""
    started = time.perf_counter()
    while True:
        try:
            assert len(await backends(lane, size)) == size
        except (LaneAway, LineBroken, TimeoutError):
            assert time.perf_counter() - started < 10, "lines are missing"
            await asyncio.sleep(0.01)
        else:
            return time.perf_counter() - started


async def ask(lane: Lane, asked: Query, *parameters: Any) -> Any:
    """Give the rows of one query in a batch of its own."""
    (rows,) = await lane.flush([Call(asked, parameters)], TENANT)
    return rows


async def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not true():  # noqa: ASYNC110 - what is waited for rings no bell
            await asyncio.sleep(0.005)


async def outcome(awaited: Awaitable[Any]) -> Any:
    """Give what comes of it, be it an error."""
    return (await asyncio.gather(awaited, return_exceptions=True))[0]


@asynccontextmanager
async def through_proxy(database_url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """Give a proxy to the server of a URL, and the URL through it."""
    parts = urlsplit(database_url)
    async with over_tcp(postgres_socket(database_url)) as (proxy, port):
        yield proxy, f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}"
