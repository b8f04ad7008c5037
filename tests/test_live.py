"""Subscribers lose nothing and get nothing twice, whatever is killed while many append; and idle ones cost nothing."""

import asyncio
import json
import os
import random
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as how
from hypothesis import strategies as st
from pydantic import SecretStr
from websockets.asyncio.client import unix_connect
from websockets.exceptions import WebSocketException

from db import embedded, migrate
from graphql_api.settings import Settings
from graphql_api.websocket import PROTOCOL
from tests import strategies
from tests.client import Api, ApiError
from tests.db.feeding import Log
from tests.db.lane import through_proxy
from tests.graphql_api.serving import Socket
from tests.live import MESSAGES, Local, Stream, local
from tests.model import Context
from tests.schema import calls
from tests.schema.calls import say
from tests.service import Service, serving
from tests.strategies import Command
from tests.test_history import World, run

CONTEXTS = 3
LIVE = "{ health { checks { live { status } } } }"
# What takes longer has failed.
SECONDS_MAX = 60.0


def settings_of(url: str, **chosen: Any) -> Settings:
    return Settings(_env_file=None, database_url=SecretStr(url), log_level="error", **chosen)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Give a folder with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="forkpoint-test-", ignore_cleanup_errors=True) as name:
        place = Path(name)
        place.chmod(0o755)
        yield place


async def soon(holds: Callable[[], bool]) -> None:
    """Wait for what comes about by itself, and no longer than that can take: whether it has is seen by others."""
    deadline = time.monotonic() + SECONDS_MAX
    while not holds() and time.monotonic() < deadline:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.002)


class Subscriber:
    """A client that follows a context from its beginning, and when it is cut off goes on elsewhere from what it saw."""

    def __init__(self, services: list[Service], context_id: str, dice: random.Random) -> None:
        self.services = services
        self.context_id = context_id
        self.versions: list[int] = []
        self.connections = 0
        self._dice = dice
        self._socket: Socket | None = None
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while True:
            with suppress(OSError, WebSocketException, TimeoutError):
                await self._follow(self._dice.choice(self.services))
            self._socket = None
            await asyncio.sleep(0.01)

    async def _follow(self, service: Service) -> None:
        async with unix_connect(
            str(service.socket),
            "ws://localhost/graphql",
            subprotocols=[PROTOCOL],
            compression=None,
        ) as connection:
            self._socket = await Socket(connection).init()
            self.connections += 1
            latest = self.versions[-1] if self.versions else 0
            await self._socket.subscribe(MESSAGES, variables={"id": self.context_id, "after": latest})
            async for text in connection:
                frame = json.loads(text)
                if frame["type"] != "next":  # the database is away while it begins
                    assert frame["payload"][0]["extensions"]["code"] in {"UNAVAILABLE", "TIMEOUT"}, frame
                    return
                event = frame["payload"]["data"]["messageAppended"]
                assert event["message"]["content"] == str(event["version"])
                self.versions.append(event["version"])

    def kill(self) -> None:
        """Cut its connection, as when a client dies."""
        if self._socket is not None:
            self._socket.connection.transport.abort()

    async def has(self, latest: int) -> None:
        """Wait for all, and see that it got each once, in order."""
        await soon(lambda: len(self.versions) >= latest or self.task.done())
        if self.task.done():
            self.task.result()
        assert self.versions == list(range(1, latest + 1))

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


async def write(services: list[Service], number: int, context_id: str, until: asyncio.Event, seconds: float) -> None:
    """Append what is numbered as it is versioned, through a service; whoever fails looks how far it has come."""
    while not until.is_set():
        with suppress(ApiError, httpx2.HTTPError):
            async with services[number % len(services)].client() as api:
                await append(api, context_id, until, seconds)
        await asyncio.sleep(0.02)


async def append(api: Api, context_id: str, until: asyncio.Event, seconds: float) -> None:
    latest = (await calls.read(api, context_id))["latestVersion"]
    while not until.is_set():
        batch = [say(str(version)) for version in range(latest + 1, latest + 1 + random.choice([1, 1, 1, 5]))]
        # So that one that was stored unconfirmed is not followed by another of its number.
        payload = await calls.append(api, context_id, *batch, expectedVersion=latest)
        latest = payload["context"]["latestVersion"]
        await asyncio.sleep(seconds)


def latest_versions(url: str) -> dict[str, int]:
    with psycopg.connect(url) as connection:
        return dict(connection.execute("select id::text, latest_version from contexts").fetchall())


async def harass(
    url: str, services: list[Service], trouble: Callable[[list[Subscriber]], Awaitable[None]], *, pause: float = 0.01
) -> list[Subscriber]:
    """Let writers append and subscribers follow while there is trouble; each must get everything once, in order."""
    ids = []
    async with services[0].client() as api:
        for number in range(CONTEXTS):
            root = (await calls.create(api, *(say(str(version)) for version in range(1, 6))))["id"]
            ids.append(root if number % 2 else (await calls.fork(api, root, 3))["id"])
    dice = random.Random(1)
    until = asyncio.Event()
    followers = [Subscriber(services, context_id, dice) for context_id in ids for _ in range(3)]
    writers = [
        asyncio.create_task(write(services, number, context_id, until, pause)) for number, context_id in enumerate(ids)
    ]
    try:
        await trouble(followers)
        # Whatever it was, they all go on.
        await soon(lambda: all(len(follower.versions) > 10 for follower in followers))
        until.set()
        await asyncio.gather(*writers)
        latest = latest_versions(url)
        for follower in followers:
            await follower.has(latest[follower.context_id])
            assert len(follower.versions) > 10
    finally:
        until.set()
        await asyncio.gather(*writers, return_exceptions=True)
        for follower in followers:
            await follower.leave()
    return followers


LISTENERS = (
    "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() "
    "and query = 'listen forkpoint;' and pid <> pg_backend_pid()"
)
BELLS = LISTENERS.replace("= 'listen forkpoint;'", "like '%pg_notify%'")
EVERYBODY = LISTENERS.replace("query = 'listen forkpoint;'", "true")


@pytest.mark.parametrize("kills", [60, pytest.param(600, marks=pytest.mark.long)])
async def test_listening_connections_are_killed_again_and_again(database_url: str, folder: Path, kills: int) -> None:
    """What is rung meanwhile is heard by nobody, and no slow look comes to help."""
    async with serving(database_url, folder, 2, FORKPOINT_LOG_LEVEL="error") as services:

        async def trouble(_followers: list[Subscriber]) -> None:
            killed = 0
            with psycopg.connect(database_url, autocommit=True) as killer:
                while killed < kills:
                    killed += len(killer.execute(LISTENERS).fetchall())
                    await asyncio.sleep(0.02)

        await harass(database_url, services, trouble)


async def test_bells_and_all_other_connections_are_killed(database_url: str, folder: Path) -> None:
    async with serving(database_url, folder, 2, FORKPOINT_LOG_LEVEL="error") as services:

        async def trouble(_followers: list[Subscriber]) -> None:
            with psycopg.connect(database_url, autocommit=True) as killer:
                for turn in range(60):
                    killer.execute(BELLS if turn % 3 else EVERYBODY)
                    await asyncio.sleep(0.03)

        await harass(database_url, services, trouble)


@pytest.mark.parametrize("kills", [200, pytest.param(2_000, marks=pytest.mark.long)])
async def test_clients_that_die_go_on_from_what_they_saw(database_url: str, folder: Path, kills: int) -> None:
    async with serving(database_url, folder, 2) as services:

        async def trouble(followers: list[Subscriber]) -> None:
            dice = random.Random(2)
            while sum(follower.connections for follower in followers) < kills:
                dice.choice(followers).kill()
                await asyncio.sleep(0.002)

        followers = await harass(database_url, services, trouble)
    assert sum(follower.connections for follower in followers) >= kills


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.long)])
async def test_clients_of_servers_that_are_killed_go_on_elsewhere(database_url: str, folder: Path, kills: int) -> None:
    async with serving(database_url, folder, 1) as services:
        victim = Service(database_url, folder, "victim")
        await victim.ready()
        services.append(victim)

        async def trouble(_followers: list[Subscriber]) -> None:
            for number in range(kills):
                await asyncio.sleep(0.3)
                services[1].kill()
                services[1] = Service(database_url, folder, f"victim{number}")
                await services[1].ready()

        try:
            await harass(database_url, services, trouble)
        finally:
            services.pop().kill()


@pytest.mark.parametrize("how_often", [2, pytest.param(20, marks=pytest.mark.long)])
async def test_streams_outlive_a_database_that_is_killed_or_frozen(folder: Path, how_often: int) -> None:
    home = folder / "home"
    with embedded.running(home) as server:
        migrate.up(server.url)
        async with serving(server.url, folder, 1, FORKPOINT_LOG_LEVEL="error") as services:

            async def trouble(followers: list[Subscriber]) -> None:
                for turn in range(how_often):
                    await asyncio.sleep(0.3)
                    postmaster = int((server.data_folder / "postmaster.pid").read_text().split("\n", 1)[0])
                    if turn % 5 == 1:  # more often within a minute, and its supervisor would give up
                        os.kill(postmaster, signal.SIGKILL)
                    else:
                        await freeze(server.url, postmaster)
                    await healthy(services[0])
                    before = [len(follower.versions) for follower in followers]
                    deadline = time.monotonic() + SECONDS_MAX
                    while any(len(each.versions) <= n for each, n in zip(followers, before, strict=True)):
                        assert time.monotonic() < deadline
                        await asyncio.sleep(0.01)

            followers = await harass(server.url, services, trouble)
    # None of them was cut off.
    assert [follower.connections for follower in followers] == [1] * len(followers)


async def freeze(url: str, postmaster: int) -> None:
    """Stop every process of the server for a while."""
    with psycopg.connect(url) as connection:
        pids = [row[0] for row in connection.execute("select pid from pg_stat_activity").fetchall()]
        own = connection.info.backend_pid
    stopped = [postmaster, *(pid for pid in pids if pid != own)]
    for pid in stopped:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(0.5)
    finally:
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


async def healthy(service: Service) -> None:
    async with service.client() as api:
        deadline = time.monotonic() + SECONDS_MAX
        while (await api.http.get("/health")).json()["status"] != "healthy":
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)


# Where nobody rings, and where nobody hears


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Local]:
    async with local(settings) as api:
        yield api


async def test_what_no_bell_tells_is_found_by_the_slow_look(settings: Settings) -> None:
    async with local(settings.model_copy(update={"slow_poll_seconds": 0.2})) as api:
        log = Log(api.service.database)
        context_id = await log.create("1")
        async with api.subscribe(MESSAGES, id=str(context_id)) as stream:
            for version in range(2, 6):
                await log.append(context_id, str(version))
                assert await stream.versions(1) == [version]
            await log.delete(context_id)
            assert await stream.completed()


async def test_another_process_is_heard_at_once(settings: Settings) -> None:
    """No look comes to help: it would be after half a minute."""
    async with local(settings) as one, local(settings) as other:
        context_id = (await calls.create(one, say("1")))["id"]
        async with one.subscribe(MESSAGES, id=context_id) as here, other.subscribe(MESSAGES, id=context_id) as there:
            for version, writer in enumerate((one, other, one), start=2):
                await calls.append(writer, context_id, say(str(version)))
                assert await here.versions(1) == [version]
                assert await there.versions(1) == [version]


async def live_status(api: Api) -> str:
    return str((await api(LIVE))["health"]["checks"]["live"]["status"])


async def test_health_says_how_changes_are_learned_of(database_url: str, folder: Path) -> None:
    async with serving(database_url, folder, 1, FORKPOINT_LOG_LEVEL="error") as (service,), service.client() as api:

        async def until(status: str) -> None:
            deadline = time.monotonic() + SECONDS_MAX
            while await live_status(api) != status:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)

        await until("LISTENING")
        assert list((await api.http.get("/health")).json()["checks"]) == ["database"]
        with psycopg.connect(database_url, autocommit=True) as killer:
            killer.execute("alter database %s with connection limit 0" % killer.info.dbname)  # noqa: UP031
            killer.execute(LISTENERS)
            await until("POLLING")
            answer = await api.http.get("/health")
            assert (answer.status_code, answer.json()["checks"]["live"]) == (200, {"status": "polling"})
            killer.execute("alter database %s with connection limit -1" % killer.info.dbname)  # noqa: UP031
        await until("LISTENING")


async def test_on_a_replica_subscribers_look_and_go_on_when_it_is_promoted(folder: Path) -> None:
    home = folder / "home"
    with embedded.running(home) as server:
        migrate.up(server.url)
        async with local(settings_of(server.url)) as api:
            context_id = (await calls.create(api, say("1"), say("2")))["id"]
        owner = server.data_folder.stat()
    standby = server.data_folder / "standby.signal"
    standby.touch()
    os.chown(standby, owner.st_uid, owner.st_gid)
    with embedded.running(home) as server:
        async with (
            local(settings_of(server.url, poll_seconds=0.1), listening=False) as api,
            api.subscribe(MESSAGES, id=context_id, after=0) as stream,
        ):
            assert await stream.versions(2) == [1, 2]
            with psycopg.connect(server.url, autocommit=True) as connection:
                assert connection.execute("select pg_is_in_recovery()").fetchall() == [(True,)]
                assert await live_status(api) == "POLLING"
                connection.execute("select pg_promote()")
            await Log(api.service.database).append(UUID(context_id), "3")
            assert await stream.versions(1) == [3]
        async with local(settings_of(server.url)) as api:  # which waits until it listens
            assert await live_status(api) == "LISTENING"


# Against the model


class Watcher:
    """A subscriber, and what it must have got: what was to be seen when it began, and each message as it came."""

    def __init__(self, stream: Stream, after: int) -> None:
        self.expected: list[int] = []
        self.latest = after
        self.ends = False
        self.got: list[int] = []
        self.task = asyncio.create_task(self._take(stream))

    def expect(self, context: Context) -> None:
        """Expect what the context shows above what was there before, and the end when it is deleted."""
        if not self.ends:
            self.expected += [message.version for message in context.lineage[self.latest :] if not message.deleted]
            self.latest = context.latest_version
            self.ends = context.deleted

    async def _take(self, stream: Stream) -> None:
        with suppress(StopAsyncIteration):
            while True:
                self.got.append((await stream.next())["version"])

    async def caught_up(self) -> None:
        """Wait until it has got all that it must, and ended if it must."""
        await soon(lambda: len(self.got) >= len(self.expected) and (self.task.done() or not self.ends))
        assert self.got == self.expected
        assert self.task.done() is self.ends


@pytest.mark.parametrize(
    "examples", [15, pytest.param(500, marks=pytest.mark.long)], ids=lambda count: f"{count} examples"
)
def test_each_gets_what_the_model_shows(settings: Settings, examples: int) -> None:
    @how(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(history=strategies.histories, dice=st.randoms(use_true_random=False))
    def hold(history: list[Command], dice: random.Random) -> None:
        asyncio.run(_follow_history(settings, history, dice))

    hold()


async def _follow_history(settings: Settings, history: list[Command], dice: random.Random) -> None:
    async with local(settings) as api, AsyncExitStack() as subscribed:
        world = World(api)
        watching: list[tuple[Watcher, int]] = []
        try:
            for command in history:
                await run(world, command)
                for watcher, key in watching:
                    watcher.expect(world.model.stored[key])
                for watcher, _ in watching:
                    await watcher.caught_up()
                key = dice.randrange(len(world.model.stored))
                if (context := world.model.context(key)) is not None and len(watching) < 6:
                    after = dice.randint(0, context.latest_version)
                    stream = await subscribed.enter_async_context(
                        api.subscribe(MESSAGES, id=world.ids[key], after=after)
                    )
                    watching.append((Watcher(stream, after), key))
                    watching[-1][0].expect(context)
                    await watching[-1][0].caught_up()
        finally:
            for watcher, _ in watching:
                watcher.task.cancel()
            await asyncio.gather(*(watcher.task for watcher, _ in watching), return_exceptions=True)


# What it costs


@pytest.mark.parametrize("messages", [1_000, pytest.param(5_000, marks=pytest.mark.long)])
async def test_clients_that_do_not_read_cost_little_delay_nobody_and_miss_nothing(
    database_url: str, folder: Path, messages: int
) -> None:
    slow_ones, batch = 10, 100
    async with (
        # Who does not read does not answer to signs of life either.
        serving(database_url, folder, 1, FORKPOINT_KEEP_ALIVE_SECONDS="300") as (service,),
        service.client() as api,
        AsyncExitStack() as connected,
    ):
        context_id = (await calls.create(api, say("1")))["id"]
        slow = []
        for _ in range(slow_ones):
            connection = await connected.enter_async_context(
                unix_connect(
                    str(service.socket),
                    "ws://localhost/graphql",
                    subprotocols=[PROTOCOL],
                    compression=None,
                    max_queue=1,
                )
            )
            slow.append(await Socket(connection).init())
            await slow[-1].subscribe(MESSAGES, variables={"id": context_id, "after": 0})
        quick = Subscriber([service], context_id, random.Random(1))
        await quick.has(1)
        began, large = memory_bytes(service), {"x": "x" * 16_000}
        for first in range(2, messages + 2, batch):
            appended = [say(f"{version}", metadata=large) for version in range(first, first + batch)]
            await calls.append(api, context_id, *appended)
            await quick.has(first + batch - 1)
        assert memory_bytes(service) - began < slow_ones * messages * 16_000 / 2
        for socket in slow:
            found = [(await socket.next())["data"]["messageAppended"]["version"] for _ in range(messages + 1)]
            assert found == list(range(1, messages + 2))
        await quick.leave()


def memory_bytes(service: Service) -> int:
    pages = int(Path(f"/proc/{service.process.pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def test_idle_subscriptions_cost_the_database_nothing(settings: Settings, database_url: str) -> None:
    count = 500
    answers = 0

    def judge(chunk: bytes) -> None:
        nonlocal answers
        answers += chunk.count(b"SELECT ")

    async with through_proxy(database_url) as (proxy, url):
        proxy.judge = judge
        async with (
            local(settings.model_copy(update={"database_url": SecretStr(url)})) as api,
            AsyncExitStack() as subscribed,
        ):
            contexts = [(await calls.create(api, say("1")))["id"] for _ in range(20)]
            tasks = []
            for number in range(count):
                stream = await subscribed.enter_async_context(api.subscribe(MESSAGES, id=contexts[number % 20]))
                tasks.append(asyncio.create_task(stream.next()))
            feeds = api.live.feeds._feeds  # noqa: SLF001 - nobody else can tell
            await soon(lambda: sum(tail.live for feed in feeds.values() for tail in feed.tails) == count)
            began = answers
            await asyncio.sleep(1)
            assert answers == began
            for _ in range(10):  # each look is one for all of them
                await api.live.feeds.check()
                await api.live.watches.check()
            assert 0 < answers - began <= 10
            for context_id in contexts:
                await calls.append(api, context_id, say("2"))
            assert [event["version"] for event in await asyncio.gather(*tasks)] == [2] * count
