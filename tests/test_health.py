"""Health over HTTP and GraphQL, held against real servers that are stopped, started, frozen and crowded."""

import asyncio
import contextlib
import json
import os
import re
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from db import embedded, migrate
from db.pool import Database, PoolLimits
from graphql_api import __version__
from graphql_api.app import create_app
from graphql_api.settings import Settings
from tests.client import Api, ApiError
from tests.conftest import api_over
from tests.service import serving

HEALTH = """{ health { status timestamp version checks { database { status latencyMs pooled error } } } }"""
CONTEXTS = "{ contexts { totalCount } }"
CREATE = "mutation { createContext(input: {}) { context { id } } }"
# With a key, so that it takes a transaction on a pooled connection.
APPEND = """mutation ($id: ID!, $key: String!) {
  appendMessages(input: {contextId: $id, messages: [{role: USER, content: "hello"}], idempotencyKey: $key}) {
    context { latestVersion }
  }
}"""
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
AWAY = "The database does not answer."
HEALTH_SECONDS = 1.0
# What a loaded machine may add to a time limit.
SLACK_SECONDS = 0.75
RECOVERY_SECONDS_MAX = 5.0


class Server:
    """An embedded PostgreSQL that a test may stop, start, freeze and thaw."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._running = ExitStack()
        self._data = home / "data"
        self.url = ""

    def start(self) -> None:
        found = self._running.enter_context(embedded.running(self._home))
        self.url, self._data = found.url, found.data_folder

    def stop(self) -> None:
        self._running.close()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Neither the postmaster nor any backend does anything, though their sockets stay open."""
        postmaster = int((self._data / "postmaster.pid").read_text().split("\n", 1)[0])
        pids = [postmaster, *children(postmaster)]
        try:
            for pid in pids:
                os.kill(pid, signal.SIGSTOP)
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)


def children(parent: int) -> list[int]:
    tasks = Path(f"/proc/{parent}/task/{parent}/children")
    return [int(pid) for pid in tasks.read_text().split()]


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """Give a home whose database is migrated, and whose server does not run."""
    with tempfile.TemporaryDirectory(prefix="forkpoint-test-", ignore_cleanup_errors=True) as folder:
        place = Path(folder)
        place.chmod(0o755)
        with embedded.running(place / "home") as server:
            migrate.up(server.url)
        yield place / "home"


@pytest.fixture
def server(home: Path) -> Iterator[Server]:
    server = Server(home)
    server.start()
    yield server
    server.stop()


def settings_of(server: Server, **chosen: Any) -> Settings:
    return Settings(
        _env_file=None,
        database_url=SecretStr(server.url),
        log_level="warning",
        log_format="json",
        health_seconds=HEALTH_SECONDS,
        **chosen,
    )


@asynccontextmanager
async def service(server: Server, **chosen: Any) -> AsyncIterator[Api]:
    async with api_over(create_app(settings_of(server, **chosen))) as api:
        yield api


async def probe(api: Api) -> tuple[int, dict[str, Any]]:
    response = await api.http.get("/health")
    return response.status_code, response.json()


async def timed_probe(api: Api) -> tuple[int, str, float]:
    started = time.perf_counter()
    code, body = await probe(api)
    return code, body["status"], time.perf_counter() - started


async def seconds_until(succeeds: Callable[[], Any], seconds_max: float = 30.0) -> float:
    started = time.perf_counter()
    while not await succeeds():
        assert time.perf_counter() - started < seconds_max, "it did not recover"
        await asyncio.sleep(0.05)
    return time.perf_counter() - started


def unsettled(body: dict[str, Any], database: dict[str, Any]) -> None:
    """Check the parts of an answer that differ each time, and take them out."""
    assert MOMENT.fullmatch(body.pop("timestamp"))
    latency_ms = database.pop("latencyMs")
    assert isinstance(latency_ms, float)
    assert 0 < latency_ms < 1000 * HEALTH_SECONDS


async def test_a_healthy_service_answers_in_the_shape_of_the_contract(api: Api) -> None:
    response = await api.http.get("/health")
    body = response.json()
    assert list(body) == ["status", "timestamp", "version", "checks"]
    unsettled(body, body["checks"]["database"])
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert body == {
        "status": "healthy",
        "version": __version__,
        "checks": {"database": {"status": "connected", "pooled": False}},
    }


async def test_graphql_says_the_same_in_its_enums(api: Api) -> None:
    health = (await api(HEALTH))["health"]
    unsettled(health, health["checks"]["database"])
    assert health == {
        "status": "HEALTHY",
        "version": __version__,
        "checks": {"database": {"status": "CONNECTED", "pooled": False, "error": None}},
    }


async def test_head_answers_the_status_without_a_body(database_url: str, tmp_path: Path) -> None:
    async with serving(database_url, tmp_path) as (process,), process.client() as api:
        head = await api.http.head("/health")
        got = await api.http.get("/health")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == got.headers["content-type"] == "application/json"
    assert int(head.headers["content-length"]) > 0


async def test_other_methods_are_refused(api: Api) -> None:
    response = await api.http.post("/health")
    assert response.status_code == 405
    assert set(re.split(", *", response.headers["allow"])) == {"GET", "HEAD"}


async def test_a_stopped_database_is_told_in_general_words_and_logged_in_full(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    async with service(server) as api:
        assert (await probe(api))[0] == 200
        server.stop()
        capsys.readouterr()
        code, body = await probe(api)
        health = (await api(HEALTH))["health"]
        logged = capsys.readouterr().err
        server.start()
    assert MOMENT.fullmatch(body.pop("timestamp"))
    assert MOMENT.fullmatch(health.pop("timestamp"))
    assert (code, body) == (
        503,
        {
            "status": "unhealthy",
            "version": __version__,
            "checks": {"database": {"status": "disconnected", "latencyMs": None, "pooled": False, "error": AWAY}},
        },
    )
    assert health == {
        "status": "UNHEALTHY",
        "version": __version__,
        "checks": {"database": {"status": "DISCONNECTED", "latencyMs": None, "pooled": False, "error": AWAY}},
    }
    errors = [json.loads(line) for line in logged.splitlines() if '"error"' in line]
    assert any("/.s.PGSQL.5432" in entry["error"] for entry in errors)


async def test_a_service_may_start_before_its_database(server: Server) -> None:
    server.stop()
    async with service(server) as api:
        assert (await probe(api))[0] == 503
        server.start()
        seconds = await seconds_until(lambda: healthy(api))
    assert seconds < RECOVERY_SECONDS_MAX


async def healthy(api: Api) -> bool:
    return bool((await probe(api))[1]["status"] == "healthy")


async def answers(api: Api) -> bool:
    try:
        await api(CONTEXTS)
    except ApiError as error:
        if error.code not in {"UNAVAILABLE", "TIMEOUT"}:
            raise
        return False
    return True


async def test_health_and_queries_recover_within_seconds_of_a_restart(server: Server) -> None:
    async with service(server, pool_wait_seconds=1.0) as api:
        assert await answers(api)
        server.stop()
        # Long enough that whoever backs off has backed off far.
        started = time.perf_counter()
        while time.perf_counter() - started < 4:
            assert (await probe(api))[0] == 503
            assert not await answers(api)
        server.start()
        seconds = await asyncio.gather(
            seconds_until(lambda: healthy(api)),
            seconds_until(lambda: answers(api)),
        )
    assert max(seconds) < RECOVERY_SECONDS_MAX


async def test_the_first_queries_after_a_restart_do_not_fail_for_stale_connections(server: Server) -> None:
    async with service(server, pool_size_min=8) as api:
        await asyncio.gather(*(api(CONTEXTS) for _ in range(16)))
        server.stop()
        server.start()
        created = await asyncio.gather(*(api(CREATE) for _ in range(16)), return_exceptions=True)
        listed = await asyncio.gather(*(api(CONTEXTS) for _ in range(16)), return_exceptions=True)
    assert [error for error in (*created, *listed) if isinstance(error, BaseException)] == []


async def test_the_first_probe_after_a_restart_does_not_take_stale_connections_for_an_exhausted_pool(
    server: Server,
) -> None:
    async with service(server, pool_size_min=8) as api:
        await asyncio.gather(*(api(CONTEXTS) for _ in range(16)))
        server.stop()
        server.start()
        code, body = await probe(api)
    assert (code, body["status"]) == (200, "healthy")


async def waiting(connection: psycopg.Connection[Any], count: int) -> bool:
    """Tell whether so many wait for a lock."""
    row = connection.execute("select count(*) from pg_stat_activity where wait_event_type = 'Lock'").fetchone()
    return row == (count,)


@pytest.mark.parametrize("lane", [0, 2])
async def test_an_exhausted_pool_is_degraded_and_answered_within_the_limit(server: Server, lane: int) -> None:
    async with service(server, pool_size_max=2, fast_lane_connections=lane) as api:
        context_id = (await api(CREATE))["createContext"]["context"]["id"]
        with psycopg.connect(server.url) as holder:
            holder.execute("select 1 from contexts where id = %s for update", [context_id])
            blocked = [asyncio.create_task(api(APPEND, id=context_id, key=str(number))) for number in range(2)]
            await seconds_until(lambda: waiting(holder, 2))
            found = await asyncio.gather(*(timed_probe(api) for _ in range(8)))
            started = time.perf_counter()
            body = (await probe(api))[1]
            seconds = time.perf_counter() - started
            holder.rollback()
        appended = await asyncio.gather(*blocked)
        assert await healthy(api)
    unsettled(body, body["checks"]["database"])
    assert body == {
        "status": "degraded",
        "version": __version__,
        "checks": {"database": {"status": "connected", "pooled": False}},
    }
    assert max(seconds, *(seconds for *_, seconds in found)) < HEALTH_SECONDS + SLACK_SECONDS
    assert {(code, status) for code, status, _ in found} == {(200, "degraded")}
    assert sorted(answer["appendMessages"]["context"]["latestVersion"] for answer in appended) == [1, 2]


async def test_a_frozen_database_is_unhealthy_within_the_limit(server: Server) -> None:
    async with service(server) as api:
        assert await healthy(api)
        with server.frozen():
            found = await asyncio.wait_for(asyncio.gather(*(timed_probe(api) for _ in range(3))), 20)
            found.append(await asyncio.wait_for(timed_probe(api), 20))
        seconds = await seconds_until(lambda: healthy(api))
    assert {(code, status) for code, status, _ in found} == {(503, "unhealthy")}
    assert max(seconds for *_, seconds in found) < HEALTH_SECONDS + SLACK_SECONDS
    assert seconds < RECOVERY_SECONDS_MAX


async def test_a_statement_on_a_frozen_database_ends_within_its_limit(server: Server) -> None:
    async with service(server, query_seconds=1.0, pool_wait_seconds=1.0) as api:
        assert await answers(api)
        with server.frozen():
            started = time.perf_counter()
            ended = await asyncio.wait_for(asyncio.gather(*(answers(api) for _ in range(3))), 20)
            seconds = time.perf_counter() - started
        recovered = await seconds_until(lambda: answers(api))
    assert ended == [False] * 3
    assert seconds < 2.0 + 2 * SLACK_SECONDS  # a wait for a connection, then one for the statement
    assert recovered < RECOVERY_SECONDS_MAX


async def test_many_probes_at_once_are_all_answered(api: Api) -> None:
    found = await asyncio.gather(*(timed_probe(api) for _ in range(64)))
    assert {(code, status) for code, status, _ in found} == {(200, "healthy")}


@pytest.mark.parametrize(
    ("url", "pooled"),
    [
        ("postgresql://user@ep-cool-tree-123-pooler.eu-central-1.example/main", True),
        ("postgresql://user@ep-cool-tree-123.eu-central-1.example/main", False),
        ("postgresql://user@/pooler-db?host=/run/postgresql", False),
        ("postgresql://user-pooler:pw@db.example/main", False),
    ],
)
async def test_pooled_is_read_from_the_host_name(url: str, pooled: bool) -> None:
    limits = PoolLimits(size_min=0, size_max=1, wait_seconds=1, connect_seconds=1, statement_seconds=1)
    assert Database(url, limits).pooled is pooled
