"""The fast lane as callers see it, which is not at all: what it cannot answer the pool does, and errors are passing."""

import asyncio
import os
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from db import embedded, migrate
from graphql_api.app import create_app
from graphql_api.settings import Settings
from tests.client import Api, ApiError
from tests.conftest import api_over
from tests.db.lane import outcome, quiet, through_proxy, until
from tests.proxy import pass_all, swallow
from tests.schema import calls
from tests.schema.calls import Json, say

# A page of messages under a context is one flush; parents of parents are a lease.
PAGE = "query ($id: ID!) { context(id: $id) { latestVersion messages(first: 100) { nodes { version content } } } }"
UPWARDS = "query ($id: ID!) { context(id: $id) { name parent { name parent { name messageCount } } } }"
APPEND = """mutation ($id: ID!, $content: String!) {
  appendMessages(input: {contextId: $id, messages: [{role: USER, content: $content, tokenCount: 1}]}) {
    messages { version }
  }
}"""
LIST = "query ($name: String!) { contexts(filter: {nameContains: $name}) { totalCount nodes { name } } }"
# A query of the lane on its way: bound to the unnamed portal. To prepare it says something else.
BOUND = b"\0context.by_ids\0"


def settings_of(url: str, **chosen: Any) -> Settings:
    return Settings(_env_file=None, database_url=SecretStr(url), log_level="error", pool_wait_seconds=3, **chosen)


async def family(api: Api) -> tuple[str, str]:
    """Make a context and a fork of a fork of it; gives the ids of the first and the last."""
    root = (await calls.create(api, say("one"), say("two"), name="root"))["id"]
    middle = (await calls.fork(api, root, 1, name="middle"))["id"]
    return root, (await calls.fork(api, middle, name="leaf"))["id"]


async def check(api: Api, root: str, leaf: str) -> None:
    """Read through one flush and through several."""
    nodes = [{"version": 1, "content": "one"}, {"version": 2, "content": "two"}]
    assert await api(PAGE, id=root) == {"context": {"latestVersion": 2, "messages": {"nodes": nodes}}}
    above = {"name": "middle", "parent": {"name": "root", "messageCount": 2}}
    assert await api(UPWARDS, id=leaf) == {"context": {"name": "leaf", "parent": above}}


@pytest.mark.parametrize("uses", [1.0, 0.5])
async def test_queries_whose_lines_break_are_answered_by_the_pool(database_url: str, uses: float) -> None:
    async with through_proxy(database_url) as (proxy, url), quiet(), api_over(create_app(settings_of(url))) as api:
        root, leaf = await family(api)
        proxy.judge = swallow(BOUND, uses)
        for _ in range(5):
            await asyncio.gather(*(check(api, root, leaf) for _ in range(10)))
        assert proxy.cuts > 5
        proxy.judge = pass_all
        await check(api, root, leaf)


@pytest.mark.parametrize(
    "change",
    ["alter table contexts alter name type varchar(300)", "alter table messages alter model type varchar(300)"],
)
async def test_a_migration_that_changes_results_shows_in_no_answer(database_url: str, change: str) -> None:
    """The pool has prepared none of these statements yet; the lanes have all of them."""
    async with api_over(create_app(settings_of(database_url))) as api:
        root, leaf = await family(api)
    async with quiet(), api_over(create_app(settings_of(database_url))) as api:
        await api(APPEND, id=leaf, content="before")
        with psycopg.connect(database_url) as connection:
            connection.execute(change.encode())
        found = await asyncio.gather(*(api(APPEND, id=leaf, content=f"{n}") for n in range(8)))
        assert sorted(each["appendMessages"]["messages"][0]["version"] for each in found) == list(range(3, 11))
        await asyncio.gather(*(check(api, root, leaf) for _ in range(10)))
        contents = await calls.contents(api, leaf)
    assert sorted(contents) == sorted(["one", "before", *map(str, range(8))])


async def test_what_postgresql_cannot_hold_is_refused_and_disturbs_nobody(api: Api) -> None:
    root, leaf = await family(api)

    async def bad(text: str) -> None:
        assert (await calls.refusal(calls.post(api, LIST, f'{{"name": "{text}"}}')))[0] == "BAD_USER_INPUT"
        variables = f'{{"id": "{root}", "content": "{text}"}}'
        assert (await calls.refusal(calls.post(api, APPEND, variables)))[0] == "BAD_USER_INPUT"

    texts = ["a\\u0000b", "\\ud800", "\\udc00x", "\\ud83d"]
    await asyncio.gather(*map(bad, texts), *(check(api, root, leaf) for _ in range(10)))


async def harass(api: Api, seconds: float, trouble: Callable[[], Awaitable[None]]) -> list[ApiError]:
    """Let readers read while there is trouble; gives what they were told, and checks what they read."""
    root, leaf = await family(api)
    told: list[ApiError] = []
    end = time.monotonic() + seconds

    async def reader() -> None:
        while time.monotonic() < end:
            try:
                await check(api, root, leaf)
            except ApiError as error:
                told.append(error)
                await asyncio.sleep(0.01)

    reading = [asyncio.create_task(reader()) for _ in range(16)]
    while time.monotonic() < end:
        await trouble()
    await asyncio.gather(*reading)
    started = time.perf_counter()
    while True:
        found = await asyncio.gather(*(outcome(check(api, root, leaf)) for _ in range(16)))
        if not any(found):
            break
        assert time.perf_counter() - started < 5
        await asyncio.sleep(0.05)
    assert {error.code for error in told} <= {"UNAVAILABLE"}
    return told


@pytest.mark.every_loop
async def test_terminated_processes_are_told_as_unavailable_or_not_at_all(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as killer:
        async with quiet(), api_over(create_app(settings_of(database_url))) as api:

            async def trouble() -> None:
                killer.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity "
                    "where datname = current_database() and pid <> pg_backend_pid() order by random() limit 3"
                )
                await asyncio.sleep(0.03)

            await harass(api, 2, trouble)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="forkpoint-test-", ignore_cleanup_errors=True) as name:
        place = Path(name)
        place.chmod(0o755)
        yield place


async def test_a_server_that_is_killed_and_comes_back_is_read_again(folder: Path) -> None:
    with embedded.running(folder / "home") as server:
        migrate.up(server.url)
        async with quiet(), api_over(create_app(settings_of(server.url))) as api:

            async def trouble() -> None:
                await asyncio.sleep(0.5)
                os.kill(int((server.data_folder / "postmaster.pid").read_text().split("\n", 1)[0]), signal.SIGKILL)
                await asyncio.sleep(1.5)

            await harass(api, 2, trouble)


async def test_a_lane_that_is_off_changes_no_answer(database_url: str) -> None:
    def connections() -> int:
        with psycopg.connect(database_url) as connection:
            text = (
                "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
            )
            return int(connection.execute(text).fetchall()[0][0])

    # One more is there for appends, until several wait; two ring and listen.
    for size, expected in ((0, 4), (1, 6), (3, 8)):
        settings = settings_of(database_url, fast_lane_connections=size, pool_size_min=2, pool_size_max=2)
        async with quiet(), api_over(create_app(settings)) as api:
            root, leaf = await family(api)
            await until(lambda expected=expected: connections() == expected)  # type: ignore[misc] # bound now
            await check(api, root, leaf)
            assert (await api(APPEND, id=leaf, content="x"))["appendMessages"]["messages"] == [{"version": 2}]
            assert await calls.contents(api, leaf) == ["one", "x"]
    await asyncio.sleep(0)
    assert connections() == 0


async def test_the_service_closes_with_requests_in_flight(database_url: str) -> None:
    async with quiet():
        with psycopg.connect(database_url) as locker:
            async with api_over(create_app(settings_of(database_url))) as api:
                root, leaf = await family(api)
                locker.execute("select from contexts for update")
                asked: list[asyncio.Task[Json]] = [
                    asyncio.create_task(api(APPEND, id=root, content=f"{n}")) for n in range(20)
                ]
                asked += [asyncio.create_task(api(UPWARDS, id=leaf)) for _ in range(20)]
                await asyncio.gather(*asked[20:25])
                started = time.perf_counter()
                closing = asyncio.create_task(outcome(asyncio.gather(*asked, return_exceptions=True)))
            found = await closing
            assert time.perf_counter() - started < 5
        refused = [each for each in found if isinstance(each, Exception)]
        assert {type(each) for each in refused} == {ApiError}
        assert {each.code for each in refused if isinstance(each, ApiError)} == {"UNAVAILABLE"}
        # No append can be answered, and of the reads those that were in time.
        assert all(isinstance(each, ApiError) for each in found[:20])
