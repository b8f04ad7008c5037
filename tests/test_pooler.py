"""Behind a pooler everything works as it does without: held against PgBouncer, and against TLS in front of it.

PgBouncer 1.18, the one of Debian 12, does not carry prepared statements: whatever is left on a server connection, or
looked for there, shows at once when clients take turns on few of them.
"""

import asyncio
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, LiteralString
from urllib.parse import quote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr

from db import migrate
from db.errors import LaneAway, StatementTimeout, Unavailable, Unforeseen
from db.health import probe
from db.pool import Database, PoolLimits
from db.queries import Query
from graphql_api.app import create_app
from graphql_api.ending import end
from graphql_api.settings import Settings
from tests.client import Api, ApiError
from tests.conftest import api_over
from tests.db.migrating import Relay, empty_database, message
from tests.db.two_tenants import plant
from tests.live import MESSAGES, local
from tests.schema import calls
from tests.schema.calls import say
from tests.service import ROOT, serving

SERVER_CONNECTIONS = 3
CLIENTS = 16
PROCESSES = 2
START_SECONDS_MAX = 10.0
RECOVERY_SECONDS_MAX = 5.0
LIMITS = PoolLimits(size_min=1, size_max=8, wait_seconds=5, connect_seconds=5, statement_seconds=10)
HEALTH = "{ health { status checks { database { status pooled } } } }"


def program() -> str:
    """Find PgBouncer, which Debian puts where only root looks."""
    found = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    if found:
        return found
    reason = "PgBouncer is not installed (Debian: apt-get install pgbouncer)"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class PgBouncer:
    """PgBouncer in front of the server of `database_url`, as the user that this server runs as."""

    def __init__(self, database_url: str, folder: Path, **options: Any) -> None:
        server = conninfo_to_dict(database_url)
        self._program, self._folder, self._database = program(), folder, server
        self._owner = Path(str(server["host"])).stat().st_uid
        self._options = {
            "listen_port": 6432,
            "unix_socket_dir": folder,
            "auth_type": "any",
            "pool_mode": "transaction",
            "default_pool_size": SERVER_CONNECTIONS,
            "max_client_conn": 500,
            "server_login_retry": 1,
        } | options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return self._url("", host=str(self._folder))

    def tcp_url(self, **parameters: str) -> str:
        return self._url(f"127.0.0.1:{self._options['listen_port']}", **parameters)

    def _url(self, place: str, **parameters: str) -> str:
        if not place:
            parameters["port"] = str(self._options["listen_port"])
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())
        return f"postgresql://{self._database['user']}@{place}/{self._database['dbname']}?{query}"

    def start(self) -> None:
        server = " ".join(f"{key}={self._database[key]}" for key in ("host", "port", "user") if key in self._database)
        options = "\n".join(f"{key} = {value}" for key, value in self._options.items())
        file = self._folder / "pgbouncer.ini"
        file.write_text(f"[databases]\n* = {server}\n[pgbouncer]\n{options}\n")
        run_as: dict[str, Any] = {"user": self._owner, "group": self._owner, "extra_groups": []}
        with (self._folder / "pgbouncer.log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, file], stdin=subprocess.DEVNULL, stdout=log, stderr=log, **run_as if is_root() else {}
            )
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._answers():
            assert self._process.poll() is None, (self._folder / "pgbouncer.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as client:
            return client.connect_ex(f"{self._folder}/.s.PGSQL.{self._options['listen_port']}") == 0

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None


def is_root() -> bool:
    return os.geteuid() == 0


@pytest.fixture
def folder(postgres: str) -> Iterator[Path]:
    """Give a folder with a short name that belongs to the user of the server."""
    with tempfile.TemporaryDirectory(prefix="forkpoint-test-") as made:
        folder = Path(made)
        folder.chmod(0o755)
        if is_root():
            owner = Path(str(conninfo_to_dict(postgres)["host"])).stat()
            os.chown(folder, owner.st_uid, owner.st_gid)
        yield folder


@contextmanager
def running(pooler: PgBouncer) -> Iterator[PgBouncer]:
    try:
        pooler.start()
        yield pooler
    finally:
        pooler.stop()


@pytest.fixture
def pooler(database_url: str, folder: Path) -> Iterator[PgBouncer]:
    """Give a transaction pooler that has fewer connections than anybody would like."""
    with running(PgBouncer(database_url, folder)) as pooler:
        yield pooler


@asynccontextmanager
async def opened(url: str, limits: PoolLimits = LIMITS) -> AsyncIterator[Database]:
    database = Database(url, limits)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@asynccontextmanager
async def api_of(url: str, **chosen: Any) -> AsyncIterator[Api]:
    settings = Settings(_env_file=None, database_url=SecretStr(url), log_level="warning", log_format="json", **chosen)
    async with api_over(create_app(settings)) as api:
        yield api


async def ask(database: Database, text: LiteralString) -> Any:
    """Give the one value of a statement in a snapshot of its own."""
    async with database.snapshot("default") as snapshot:
        ((value,),) = await snapshot.fetch(Query("test", "one", text))
        return value


async def prepares(database: Database) -> bool:
    """Tell whether a connection for requests prepares its statements."""
    connection = await database.begin("begin", "default")
    threshold = connection.prepare_threshold
    await database.rollback(connection)
    return threshold is not None


def server_connections(database_url: str) -> int:
    with psycopg.connect(database_url) as connection:
        text = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        return int(connection.execute(text).fetchall()[0][0])


# Everything works


async def live(api: Api, name: str) -> None:
    """Do what a client does, and check every answer."""
    context = await calls.create(api, say("1"), say("2"), say("3"), name=name)
    mine = context["id"]
    for version in range(4, 7):
        payload = await calls.append(api, mine, say(str(version)))
        assert [message["version"] for message in payload["messages"]] == [version]
    fork = (await calls.fork(api, mine, 4))["id"]
    await calls.append(api, fork, say("other 5"), say("other 6"))
    assert (await calls.delete_message(api, fork, 2))["context"]["messageCount"] == 5
    both = await asyncio.gather(calls.contents(api, mine), calls.contents(api, fork))
    assert list(both) == [["1", "3", "4", "5", "6"], ["1", "3", "4", "other 5", "other 6"]]
    assert (await calls.restore_message(api, mine, 2))["context"]["totalTokens"] == 6
    await calls.delete(api, mine)
    # What is listed depends on its parameters, so this statement is planned at each call.
    listing = "query ($name: String) { contexts(filter: {nameContains: $name}) { totalCount nodes { id } } }"
    assert await api(listing, name=name) == {"contexts": {"totalCount": 0, "nodes": []}}
    await calls.restore(api, mine)
    assert await api(listing, name=name) == {"contexts": {"totalCount": 1, "nodes": [{"id": mine}]}}
    assert await calls.contents(api, fork) == ["1", "2", "3", "4", "other 5", "other 6"]


# In session mode each client keeps a server connection, so there it takes as many as there are clients.
@pytest.mark.parametrize(("mode", "size"), [("transaction", SERVER_CONNECTIONS), ("session", 60)])
async def test_many_clients_of_several_processes_take_turns_on_few_connections(
    database_url: str, folder: Path, tmp_path: Path, mode: str, size: int
) -> None:
    with running(PgBouncer(database_url, folder, pool_mode=mode, default_pool_size=size)) as pooler:
        async with serving(pooler.url, tmp_path, PROCESSES) as services:

            async def client(number: int) -> None:
                async with services[number % PROCESSES].client() as api:
                    await live(api, f"client {number}.")

            await asyncio.gather(*map(client, range(CLIENTS)))
            assert server_connections(database_url) <= size
            for service in services:
                async with service.client() as api:
                    database = {"status": "CONNECTED", "pooled": True}
                    assert await api(HEALTH) == {"health": {"status": "HEALTHY", "checks": {"database": database}}}
                    assert (await api.http.get("/health")).json()["checks"]["database"]["pooled"] is True
            assert [service.log.read_text() for service in services] == [""] * PROCESSES


async def test_subscribers_look_for_what_is_new_and_health_says_so(pooler: PgBouncer, database_url: str) -> None:
    polling = Settings(_env_file=None, database_url=SecretStr(pooler.url), log_level="error", poll_seconds=0.1)
    direct = polling.model_copy(update={"database_url": SecretStr(database_url)})
    status = "{ health { checks { live { status } } } }"
    async with local(polling, listening=False) as one, local(polling, listening=False) as other, local(direct) as third:
        context_id = (await calls.create(one, say("1")))["id"]
        streams = [api.subscribe(MESSAGES, id=context_id, after=0) for api in (one, other, third)]
        async with streams[0] as first, streams[1] as second, streams[2] as last:
            for version, writer in enumerate((one, other, third, one), start=2):
                await calls.append(writer, context_id, say(str(version)))
            for stream in (first, second, last):
                assert await stream.versions(5) == [1, 2, 3, 4, 5]
            await calls.delete(third, context_id)
            for stream in (first, second, last):
                assert await stream.completed()
        for api, expected in ((one, "POLLING"), (other, "POLLING"), (third, "LISTENING")):
            assert await api(status) == {"health": {"checks": {"live": {"status": expected}}}}


async def test_a_snapshot_stands_at_one_moment(pooler: PgBouncer, database_url: str) -> None:
    count: LiteralString = "select count(*) from trees"
    asked = Query("test", "one", count)
    with psycopg.connect(database_url, autocommit=True) as writer:
        async with opened(pooler.url) as database, database.snapshot("default") as snapshot:
            for _ in range(3):
                assert await snapshot.fetch(asked) == [(0,)]
                # Others use the pooler meanwhile, and see what was written.
                writer.execute("insert into trees (tenant_id, id) values ('default', gen_random_uuid())")
                assert await ask(database, count) > 0


async def test_tenants_that_share_a_server_connection_see_their_own(
    service_url: str, database_url: str, folder: Path
) -> None:
    with psycopg.connect(database_url) as connection:
        for tenant_id in "ab":
            plant(connection, tenant_id)
    seen = Query("test", "many", "select distinct tenant_id from contexts order by tenant_id")
    told = Query("test", "one", "select current_setting('forkpoint.tenant', true)")

    async def look(database: Database, tenant_id: str, *, failing: bool) -> list[tuple[Any, ...]]:
        async with database.snapshot(tenant_id) as snapshot:
            found = [*await snapshot.fetch(told), *await snapshot.fetch(seen)]
            if failing:
                with pytest.raises(Unforeseen):
                    await snapshot.fetch(Query("test", "one", "select 1 / 0"))
            return found

    with running(PgBouncer(service_url, folder, default_pool_size=1)) as pooler:
        async with opened(pooler.url, replace(LIMITS, row_security=True)) as database:
            tenants = "abab" * 10
            looks = [look(database, each, failing=number % 3 == 0) for number, each in enumerate(tenants)]
            assert await asyncio.gather(*looks) == [[(each,), (each,)] for each in tenants]
            with psycopg.connect(pooler.url) as connection:  # nothing is left for whoever comes next
                assert connection.execute(told.text).fetchone() in {("",), (None,)}
                assert connection.execute(seen.text).fetchall() == []
        async with opened(pooler.url) as database:
            assert await look(database, "a", failing=False) == [("*",), ("a",), ("b",)]


async def test_there_is_no_fast_lane_and_everything_is_answered_without(pooler: PgBouncer) -> None:
    async with opened(pooler.url, replace(LIMITS, lane_size=2, append_lane_size=2)) as database:
        for lane in (database.lane, database.append_lane):
            assert lane is not None
            for _ in range(20):
                assert not lane.ready
                with pytest.raises(LaneAway):
                    await lane.flush([], "default")
                await asyncio.sleep(0.01)
        assert await ask(database, "select count(*) from pg_prepared_statements") == 0
        assert (await probe(database, 5)).pooled
    async with api_of(pooler.url, fast_lane_connections=8) as api:
        await asyncio.gather(*(live(api, f"client {number}.") for number in range(4)))


async def test_nothing_is_left_on_the_server_connections(pooler: PgBouncer) -> None:
    async with api_of(pooler.url) as api:
        await asyncio.gather(*(live(api, f"client {number}.") for number in range(8)))
    text = """
    select
      pg_backend_pid(),
      (select count(*) from pg_prepared_statements),
      (select count(*) from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()),
      (select count(*) from pg_listening_channels()),
      (select count(*) from pg_settings where source = 'session'),
      current_setting('plan_cache_mode')
    """
    with ExitStack() as stack:  # at the same time, so that each has another one
        held = [stack.enter_context(psycopg.connect(pooler.url)) for _ in range(SERVER_CONNECTIONS)]
        found = [connection.execute(text).fetchall()[0] for connection in held]
    assert len({pid for pid, *_ in found}) == SERVER_CONNECTIONS
    assert {tuple(state) for _, *state in found} == {(0, 0, 0, 0, "auto")}


# Waits have an end


async def test_a_statement_past_its_time_is_stopped_and_the_pooler_serves_on(
    pooler: PgBouncer, database_url: str
) -> None:
    async with opened(pooler.url, replace(LIMITS, statement_seconds=0.5)) as database:
        for _ in range(2):
            started = time.monotonic()
            ended = await asyncio.gather(
                *(ask(database, "select pg_sleep(30)") for _ in range(SERVER_CONNECTIONS)), return_exceptions=True
            )
            assert [type(error) for error in ended] == [StatementTimeout] * SERVER_CONNECTIONS
            assert time.monotonic() - started < 3
            assert await asyncio.gather(*(ask(database, "select 1") for _ in range(20))) == [1] * 20
    assert still_sleeping(database_url) == 0


async def test_a_cancelled_statement_is_stopped_and_nobody_elses(pooler: PgBouncer, database_url: str) -> None:
    async with opened(pooler.url) as database:
        others = asyncio.gather(*(ask(database, "select 1 from pg_sleep(0.002)") for _ in range(300)))
        for _ in range(10):
            task = asyncio.create_task(ask(database, "select pg_sleep(30)"))
            await asyncio.sleep(0.05)
            end(task)
            with pytest.raises(asyncio.CancelledError):
                await task
        assert await others == [1] * 300
    assert still_sleeping(database_url) == 0


def still_sleeping(database_url: str) -> int:
    with psycopg.connect(database_url) as connection:
        text = """
        select count(*) from pg_stat_activity
        where query like '%pg_sleep(30)%' and state = 'active' and pid <> pg_backend_pid()
        """
        return int(connection.execute(text).fetchall()[0][0])


async def test_the_wait_in_the_queue_of_the_pooler_has_an_end(pooler: PgBouncer) -> None:
    async with opened(pooler.url, replace(LIMITS, wait_seconds=0.5)) as database:
        assert await ask(database, "select 1") == 1
        with ExitStack() as stack:
            for _ in range(SERVER_CONNECTIONS):
                stack.enter_context(psycopg.connect(pooler.url)).execute("select 1")
            started = time.monotonic()
            ended = await asyncio.gather(*(ask(database, "select 1") for _ in range(12)), return_exceptions=True)
            assert time.monotonic() - started < 4
            assert {(type(error), str(error)[:48]) for error in ended} == {
                (Unavailable, "No connection to the database became free in tim")
            }
            assert not (await probe(database, 0.5)).connected
        assert await answers_again(database) < RECOVERY_SECONDS_MAX
        assert (await probe(database, 2.0)).connected


async def answers_again(database: Database) -> float:
    """Give the seconds until the first answer."""
    started = time.monotonic()
    while True:
        try:
            assert await ask(database, "select 1") == 1
        except (Unavailable, StatementTimeout):
            assert time.monotonic() - started < START_SECONDS_MAX
            await asyncio.sleep(0.05)
        else:
            return time.monotonic() - started


# Poolers come and go


async def test_it_recovers_by_itself_when_the_pooler_or_its_connections_die(
    pooler: PgBouncer, database_url: str
) -> None:
    stored: dict[str, list[str]] = {}
    refused: list[ApiError] = []
    done = asyncio.Event()

    async def write(api: Api, mine: str) -> None:
        number = 0
        while not done.is_set():
            number += 1
            try:
                await calls.append(api, mine, say(str(number)))
            except ApiError as error:
                refused.append(error)
                await asyncio.sleep(0.02)
            else:
                stored[mine].append(str(number))

    async with api_of(pooler.url, health_seconds=1.0, pool_wait_seconds=1.0) as api:
        stored.update({(await calls.create(api))["id"]: [] for _ in range(8)})
        writers = [asyncio.create_task(write(api, mine)) for mine in stored]
        for number in (signal.SIGKILL, signal.SIGTERM):
            await asyncio.sleep(0.3)
            await asyncio.to_thread(pooler.stop, number)
            assert await status(api) == (503, "disconnected", True)
            await asyncio.to_thread(pooler.start)
            assert await healthy_again(api) < RECOVERY_SECONDS_MAX
        await asyncio.sleep(0.3)
        end_server_connections(database_url)
        assert await healthy_again(api) < RECOVERY_SECONDS_MAX
        await asyncio.sleep(0.3)
        done.set()
        await asyncio.gather(*writers)
        assert {error.code for error in refused} == {"UNAVAILABLE"}
        for mine, acknowledged in stored.items():
            found = await calls.contents(api, mine)
            # What was refused may be stored nevertheless, when the answer was lost; never twice, and in order.
            assert set(found) >= set(acknowledged)
            assert found == sorted(set(found), key=int)


def end_server_connections(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(
            """
            select pg_terminate_backend(pid) from pg_stat_activity
            where datname = current_database() and pid <> pg_backend_pid()
            """
        )


async def status(api: Api) -> tuple[int, str, bool]:
    answer = await api.http.get("/health")
    found = answer.json()["checks"]["database"]
    return answer.status_code, found["status"], found["pooled"]


async def healthy_again(api: Api) -> float:
    """Give the seconds until health says so and a request is answered."""
    started = time.monotonic()
    while True:
        if await status(api) == (200, "connected", True):
            await api("{ contexts { totalCount } }")
            return time.monotonic() - started
        assert time.monotonic() - started < START_SECONDS_MAX
        await asyncio.sleep(0.05)


# Poolers are told from servers


async def test_a_pooler_is_known_after_the_first_connection(pooler: PgBouncer) -> None:
    async with opened(pooler.url) as database:
        assert (await probe(database, 2.0)).pooled
        assert not await prepares(database)
        async with database.kept_connection() as connection:
            assert connection.prepare_threshold is None


async def test_a_proxy_that_passes_everything_on_is_no_pooler(database_url: str) -> None:
    with Relay(database_url) as relay:
        async with opened(relay.url()) as database:
            assert not (await probe(database, 2.0)).pooled
            assert await prepares(database)
            assert await ask(database, "select current_setting('plan_cache_mode')") == "force_generic_plan"


async def test_a_server_with_the_name_of_a_pooler_is_only_slower(database_url: str) -> None:
    with Relay(database_url) as relay:
        url = relay.url(hostaddr="127.0.0.1").replace("@127.0.0.1", "@ep-tree-pooler.example.com")
        async with opened(url) as database:
            assert (await probe(database, 2.0)).pooled
            assert not await prepares(database)
            assert await ask(database, "select current_setting('plan_cache_mode')") == "auto"


@pytest.mark.parametrize(
    ("url", "pooled"),
    [
        ("postgresql://u@ep-tree-pooler.example.com/main", True),
        ("postgresql:///main?host=ep-tree-pooler.example.com&user=u", True),
        ("postgresql://u@db.example.com,ep-tree-pooler.example.com:6432/main", True),
        ("host=ep-tree-pooler.example.com dbname=main", True),
        ("postgresql://u-pooler:-pooler@db.example.com/main-pooler?application_name=x-pooler", False),
        ("postgresql:///main", False),
        ("postgresql://[-pooler", False),
    ],
)
async def test_before_the_first_connection_the_name_of_the_host_tells(url: str, pooled: bool) -> None:
    assert Database(url, LIMITS).pooled is pooled


async def test_a_pooler_that_cannot_be_reached_is_told_by_its_name(database_url: str) -> None:
    name = conninfo_to_dict(database_url)["dbname"]
    place = f"postgresql://u@ep-tree-pooler.example.com:1/{name}?hostaddr=127.0.0.1"
    async with api_of(place, health_seconds=1.0) as api:
        assert await status(api) == (503, "disconnected", True)


# TLS is what the URL says


@pytest.fixture
def certificates(folder: Path) -> dict[str, Path]:
    """Make two certificates that sign themselves: of this machine, and of nobody we know."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificates")
    for name in ("ours", "other"):
        words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=forkpoint"
        files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.crt")]
        names = ["-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run([openssl, *words.split(), *names, *files], check=True, capture_output=True)
        (folder / f"{name}.key").chmod(0o644)  # made by root, read by the pooler's user
    return {name: folder / f"{name}.crt" for name in ("ours", "other")}


@pytest.fixture(params=["pooler", "server"])
def tls_url(
    request: pytest.FixtureRequest, database_url: str, folder: Path, certificates: dict[str, Path]
) -> Iterator[str]:
    """Give a URL over TCP of what takes only clients with TLS: PgBouncer, or a proxy that is no pooler."""
    key = certificates["ours"].with_suffix(".key")
    if request.param == "server":
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificates["ours"], key)
        with Relay(database_url, tls) as relay:
            yield relay.url()
        return
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    options = {
        "client_tls_sslmode": "require",
        "client_tls_key_file": key,
        "client_tls_cert_file": certificates["ours"],
    }
    with running(PgBouncer(database_url, folder, listen_addr="127.0.0.1", listen_port=port, **options)) as pooler:
        yield pooler.tcp_url()


@pytest.mark.parametrize("sslmode", ["require", "verify-full"])
async def test_with_tls_everything_works(tls_url: str, certificates: dict[str, Path], sslmode: str) -> None:
    root = f"&sslrootcert={quote(str(certificates['ours']), safe='')}" if sslmode == "verify-full" else ""
    url = f"{tls_url}sslmode={sslmode}{root}"
    async with api_of(url, query_seconds=2.0, mutation_seconds=2.0) as api:
        await asyncio.gather(*(live(api, f"client {number}.") for number in range(4)))
    async with opened(url, replace(LIMITS, statement_seconds=0.3)) as database:
        # The request to stop goes over TLS too.
        with pytest.raises(StatementTimeout):
            await ask(database, "select pg_sleep(30)")
        assert await ask(database, "select 1") == 1
        async with database.kept_connection() as connection:
            assert connection.pgconn.ssl_in_use


REFUSED = [
    ("pooler", "sslmode=disable", "SSL required"),
    ("pooler", "sslmode=verify-full&sslrootcert={other}", "certificate verify failed"),
    ("server", "sslmode=verify-ca&sslrootcert={other}", "certificate verify failed"),
    ("server", "sslmode=verify-full&sslrootcert={ours}.missing", "does not exist"),
    ("server", "sslmode=verify-full&sslrootcert={ours}&host=localhost&hostaddr=127.0.0.1", "does not match host name"),
    ("server", "sslmode=require&channel_binding=require", "channel binding required"),
]


@pytest.mark.parametrize(("tls_url", "parameters", "reason"), REFUSED, indirect=["tls_url"])
async def test_what_the_url_demands_of_tls_is_never_waived(
    tls_url: str, certificates: dict[str, Path], capsys: pytest.CaptureFixture[str], parameters: str, reason: str
) -> None:
    url = tls_url + parameters.format(**certificates)
    async with api_of(url, pool_wait_seconds=0.3, health_seconds=1.0) as api:
        with pytest.raises(ApiError) as refused:
            await api("{ contexts { totalCount } }")
        assert (refused.value.code, "free in time" in refused.value.message) == ("UNAVAILABLE", True)
        assert (await status(api))[:2] == (503, "disconnected")
    assert reason in capsys.readouterr().err
    assert reason in message(lambda: migrate.up(url))


async def test_a_command_says_in_one_line_why_the_server_is_not_trusted(
    database_url: str, folder: Path, certificates: dict[str, Path]
) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificates["ours"], certificates["ours"].with_suffix(".key"))
    with Relay(database_url, tls) as relay:
        url = relay.url(sslmode="verify-full", sslrootcert=str(certificates["other"]))
        for command in ("migrate up", "migrate status", "serve"):
            status, out, err = await asyncio.to_thread(run, command, url, folder)
            assert (status, out, err.count("\n")) == (1, "", 1)
            assert err.startswith(f"The database at 127.0.0.1:{relay.port} cannot be reached: ")
            assert "certificate verify failed" in err


def run(command: str, database_url: str, folder: Path) -> tuple[int, str, str]:
    """Run `forkpoint` as it lies here; gives its status and what it said."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FORKPOINT_")}
    done = subprocess.run(
        [sys.executable, "-m", "graphql_api", *command.split()],
        env=environment | {"DATABASE_URL": database_url, "FORKPOINT_PORT": "0", "PYTHONPATH": str(ROOT)},
        cwd=folder,  # no .env of whoever runs the tests
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


# Migrating


async def test_migrating_through_a_transaction_pooler_is_refused_with_the_remedy(postgres: str, folder: Path) -> None:
    with empty_database(postgres) as url, running(PgBouncer(url, folder)) as pooler:
        for action in (migrate.up, migrate.down):
            refused = message(lambda action=action: action(pooler.url))  # type: ignore[misc]
            assert "is behind a pooler in transaction mode" in refused
            assert refused.endswith("Let FORKPOINT_MIGRATE_URL name the server directly.")
        # Others use the pooler meanwhile.
        async with opened(pooler.url) as database:
            others = asyncio.gather(*(ask(database, "select 1 from pg_sleep(0.002)") for _ in range(1000)))
            for _ in range(20):
                refused = await asyncio.to_thread(message, lambda: migrate.up(pooler.url))
                assert "is behind a pooler in transaction mode" in refused
            assert not others.done()
            assert await others == [1] * 1000
        # It looked at the server and left nothing there, not even the lock.
        assert migrate.up(url) == await asyncio.to_thread(migrate.status, pooler.url)
        assert migrate.pending(pooler.url) == 0


@pytest.mark.parametrize("size", [1, SERVER_CONNECTIONS])
async def test_a_transaction_pooler_is_seen_however_many_connections_it_has(
    database_url: str, folder: Path, size: int
) -> None:
    for robin in (0, 1):
        options = {"default_pool_size": size, "server_round_robin": robin}
        with running(PgBouncer(database_url, folder, **options)) as pooler:
            with ExitStack() as stack:  # so that it has idle connections of which to choose
                for _ in range(size):
                    stack.enter_context(psycopg.connect(pooler.url)).execute("select 1")
            assert "in transaction mode" in message(lambda pooler=pooler: migrate.up(pooler.url))  # type: ignore[misc]


def test_migrating_through_a_session_pooler_works(postgres: str, folder: Path) -> None:
    with empty_database(postgres) as url, running(PgBouncer(url, folder, pool_mode="session")) as pooler:
        applied = migrate.up(pooler.url)
        assert applied == migrate.status(url)
        assert migrate.down(pooler.url) == replace(applied[-1], applied=False)
        assert migrate.up(pooler.url) == applied[-1:]
