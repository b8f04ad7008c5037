"""Connections, the service and PostgreSQL die while many append: the acknowledged is there, nothing is half there."""

import asyncio
import os
import random
import signal
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest
from pydantic import SecretStr

from db import embedded, migrate
from graphql_api.app import create_app
from graphql_api.settings import Settings
from tests.client import Api, ApiError
from tests.conftest import api_over
from tests.db.lane import until as eventually
from tests.proxy import before_postgresql, cut_anywhere, pass_all, swallow
from tests.service import Service

WRITERS = 16
CONTEXTS = 4
RECOVERY_SECONDS_MAX = 5.0
TROUBLE_SECONDS_MAX = 60.0
CREATE = "mutation { createContext(input: {}) { context { id } } }"
LIST = "{ contexts { totalCount } }"
APPEND = """mutation ($id: ID!, $messages: [MessageInput!]!) {
  appendMessages(input: {contextId: $id, messages: $messages}) { messages { version } }
}"""
# What callers may read when a connection was lost. Nothing of it comes from PostgreSQL or a library.
CODES = {"UNAVAILABLE", "TIMEOUT"}
WORDS = (
    "The database cannot be reached just now.",
    "The database took too long",
    "The database went away before",
    "No connection to the database",
)


class Ledger:
    """What the writers sent, and what they were told."""

    def __init__(self, ids: list[str]) -> None:
        self.ids = ids
        self.sent: dict[str, tuple[str, int]] = {}
        self.acknowledged: dict[str, list[int]] = {}
        self.refused: list[ApiError] = []
        self.broken = 0

    async def write(self, api: Api, writer: str, until: asyncio.Event) -> None:
        """Append batches until told to stop, whatever happens to them."""
        dice = random.Random(writer)
        number = 0
        while not until.is_set():
            number += 1
            label, size, context_id = f"{writer}/{number}", dice.randint(1, 6), dice.choice(self.ids)
            self.sent[label] = context_id, size
            messages = [{"role": "USER", "content": f"{label}/{n}", "tokenCount": 3} for n in range(size)]
            try:
                payload = await api(APPEND, id=context_id, messages=messages)
            except ApiError as error:
                self.refused.append(error)
            except httpx2.TransportError:  # the service itself died
                self.broken += 1
                await asyncio.sleep(0.02)
            else:
                self.acknowledged[label] = [m["version"] for m in payload["appendMessages"]["messages"]]

    def check_errors(self) -> None:
        """Check that callers read of a passing trouble, in words of ours."""
        assert {error.code for error in self.refused} <= CODES
        assert [error.message for error in self.refused if not error.message.startswith(WORDS)] == []

    def check_stored(self, database_url: str) -> None:
        """Check that every acknowledged batch is stored where it was said to be, and every other is whole or absent."""
        with psycopg.connect(database_url) as connection:
            rows = connection.execute(
                "select context_id::text, version, content from messages order by context_id, version"
            ).fetchall()
            totals = connection.execute(
                "select id::text, latest_version, message_count, total_tokens from contexts"
            ).fetchall()
        stored: dict[str, list[tuple[str, int, int]]] = {}
        versions: dict[str, list[int]] = {context_id: [] for context_id in self.ids}
        for context_id, version, content in rows:
            label, _, place = content.rpartition("/")
            stored.setdefault(label, []).append((context_id, version, int(place)))
            versions[context_id].append(version)
        for label, found in stored.items():
            context_id, size = self.sent[label]
            first = found[0][1]
            assert found == [(context_id, first + n, n) for n in range(size)], "a batch is torn, or there twice"
        assert self.acknowledged == {
            label: [version for _, version, _ in found] for label, found in stored.items() if label in self.acknowledged
        }
        for context_id, latest, count, tokens in totals:
            assert versions[context_id] == list(range(1, latest + 1))
            assert (count, tokens) == (latest, 3 * latest)


def troubled(ledger: Ledger) -> bool:
    """Tell whether enough was told as done, and something as not."""
    return len(ledger.acknowledged) > 20 and bool(ledger.refused)


async def contexts(api: Api) -> list[str]:
    return [(await api(CREATE))["createContext"]["context"]["id"] for _ in range(CONTEXTS)]


async def harass(
    api: Api, seconds: float, trouble: Callable[[], Awaitable[None]], enough: Callable[[Ledger], bool]
) -> Ledger:
    """Let writers append while there is trouble, and a little after it: so long, and until enough has happened."""
    ledger = Ledger(await contexts(api))
    until = asyncio.Event()
    writing = [asyncio.create_task(ledger.write(api, str(number), until)) for number in range(WRITERS)]
    started = time.monotonic()
    while time.monotonic() < started + seconds or not enough(ledger):
        assert time.monotonic() < started + TROUBLE_SECONDS_MAX, "too little happens"
        await trouble()
    await asyncio.sleep(0.2)
    until.set()
    await asyncio.gather(*writing)
    return ledger


async def seconds_to_recover(api: Api) -> float:
    """Wait until several queries at once and the probe are answered."""
    started = time.perf_counter()
    while True:
        found = await asyncio.gather(*(api(LIST) for _ in range(WRITERS)), return_exceptions=True)
        health = (await api.http.get("/health")).json()["status"]
        if health == "healthy" and not any(isinstance(answer, BaseException) for answer in found):
            return time.perf_counter() - started
        assert time.perf_counter() - started < 30, found
        await asyncio.sleep(0.05)


def settings_of(url: str, **chosen: Any) -> Settings:
    return Settings(_env_file=None, database_url=SecretStr(url), log_level="error", pool_wait_seconds=3, **chosen)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="forkpoint-test-", ignore_cleanup_errors=True) as name:
        place = Path(name)
        place.chmod(0o755)
        yield place


async def test_connections_cut_at_any_byte_tear_no_batch(database_url: str, folder: Path) -> None:
    judge = cut_anywhere(0.02)
    async with before_postgresql(database_url, folder) as (proxy, url), api_over(create_app(settings_of(url))) as api:

        async def trouble() -> None:
            proxy.judge = judge
            await asyncio.sleep(0.5)

        ledger = await harass(api, 4, trouble, lambda ledger: troubled(ledger) and proxy.cuts > 20)
        proxy.judge = pass_all
        seconds = await seconds_to_recover(api)
    ledger.check_stored(database_url)
    ledger.check_errors()
    assert seconds < RECOVERY_SECONDS_MAX


async def test_terminated_backends_tear_no_batch(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as killer:
        async with api_over(create_app(settings_of(database_url))) as api:

            async def trouble() -> None:
                killer.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity "
                    "where datname = current_database() and pid <> pg_backend_pid() order by random() limit 2"
                )
                await asyncio.sleep(0.05)

            ledger = await harass(api, 4, trouble, troubled)
            seconds = await seconds_to_recover(api)
    ledger.check_stored(database_url)
    ledger.check_errors()
    assert seconds < RECOVERY_SECONDS_MAX


async def test_cancelled_statements_are_told_as_timeouts(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as killer:
        async with api_over(create_app(settings_of(database_url))) as api:

            async def trouble() -> None:
                killer.execute(
                    "select pg_cancel_backend(pid) from pg_stat_activity "
                    "where datname = current_database() and pid <> pg_backend_pid() and state = 'active'"
                )
                await asyncio.sleep(0.02)

            ledger = await harass(api, 2, trouble, lambda _: True)
    ledger.check_stored(database_url)
    ledger.check_errors()


async def test_a_killed_service_loses_nothing_that_it_acknowledged(database_url: str, folder: Path) -> None:
    survivor = Service(database_url, folder, "survivor")
    victim = Service(database_url, folder, "victim0")
    try:
        await asyncio.gather(survivor.ready(), victim.ready())
        async with survivor.client() as api:
            ledger = Ledger(await contexts(api))
            for number in range(1, 4):
                until = asyncio.Event()
                async with victim.client() as doomed:
                    writing = [
                        asyncio.create_task(ledger.write(doomed, f"{number}.{n}", until)) for n in range(WRITERS)
                    ]
                    await asyncio.sleep(random.uniform(0.3, 0.8))
                    await eventually(lambda number=number: len(ledger.acknowledged) > 10 * number)  # type: ignore[misc] # bound now
                    victim.kill()
                    until.set()
                    await asyncio.gather(*writing)
                victim = Service(database_url, folder, f"victim{number}")
                await victim.ready()
            # Nobody holds a lock any more: the other process writes at once.
            started = time.perf_counter()
            for context_id in ledger.ids:
                ledger.sent[label := f"after/{context_id}"] = context_id, 1
                message = {"role": "USER", "content": f"{label}/0", "tokenCount": 3}
                payload = await api(APPEND, id=context_id, messages=[message])
                ledger.acknowledged[label] = [payload["appendMessages"]["messages"][0]["version"]]
            seconds = time.perf_counter() - started
    finally:
        survivor.kill()
        victim.kill()
    assert ledger.broken >= WRITERS
    assert len(ledger.acknowledged) > 20
    ledger.check_stored(database_url)
    assert ledger.refused == []
    assert seconds < RECOVERY_SECONDS_MAX


async def test_a_killed_postgresql_loses_nothing_that_was_acknowledged(folder: Path) -> None:
    with embedded.running(folder / "home") as server:
        migrate.up(server.url)
        async with api_over(create_app(settings_of(server.url))) as api:

            async def trouble() -> None:
                await asyncio.sleep(0.7)
                postmaster = int((server.data_folder / "postmaster.pid").read_text().split("\n", 1)[0])
                os.kill(postmaster, signal.SIGKILL)
                await asyncio.sleep(0.3)
                await seconds_to_recover(api)

            ledger = await harass(api, 2, trouble, troubled)
            seconds = await seconds_to_recover(api)
        ledger.check_stored(server.url)
        ledger.check_errors()
        assert seconds < RECOVERY_SECONDS_MAX


async def test_a_commit_that_nobody_confirmed_is_told_as_uncertain(database_url: str, folder: Path) -> None:
    """The proxy swallows the answer to COMMIT, so the change is stored though the caller cannot know."""
    async with before_postgresql(database_url, folder) as (proxy, url), api_over(create_app(settings_of(url))) as api:
        proxy.judge = swallow(b"COMMIT\0")
        with pytest.raises(ApiError) as caught:
            await api(CREATE)
        proxy.judge = pass_all
        assert (caught.value.code, caught.value.message) == (
            "UNAVAILABLE",
            (
                "The database went away before it confirmed the change, which may or may not be stored. "
                "Try again with the same idempotency key; without one, read first."
            ),
        )
        assert (await api(LIST))["contexts"]["totalCount"] == 1
