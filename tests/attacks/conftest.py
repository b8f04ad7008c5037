"""The service that is attacked, started once as operators start it, and what holds during and after an attack."""

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg import sql

from tests import program
from tests.attacks.victim import SECONDS_MAX, Honest, Raw, Victim
from tests.conftest import copied
from tests.db.migrating import plain_user
from tests.program import folder_for_all

MIB = 1024 * 1024
# Above what it has after its start. Most of it is one body of the largest size, and what is read from it.
MEMORY_GROWTH_MAX = 400 * MIB
MEMORY_KEPT_MAX = 200 * MIB
# Connections to the database that are opened as they are needed, and what callers keep open between tests.
DESCRIPTORS_MAX = 40


def until(holds: Callable[[], bool]) -> None:
    """Wait for what comes about by itself, as connections end."""
    deadline = time.monotonic() + SECONDS_MAX
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def served_by_a_role_of_its_own(url: str) -> Iterator[str]:
    """Give the URL of a role that owns no table, as docs/postgresql.md has it."""
    with plain_user(url) as role:
        with psycopg.connect(url, autocommit=True) as connection:
            for grant in (
                "grant select, insert, update, delete on all tables in schema public to {}",
                "revoke insert, update, delete on schema_migrations from {}",
                "grant execute on all functions in schema public to {}",
            ):
                connection.execute(sql.SQL(grant).format(sql.Identifier(role)))
        split = urlsplit(url)
        yield urlunsplit(split._replace(netloc=f"{role}@{split.netloc.rpartition('@')[2]}"))


@pytest.fixture(scope="session")
def victim(postgres: str, template: str) -> Iterator[Victim]:
    """Serve as in production. Only this knows how that is done."""
    with (
        copied(postgres, template) as owner_url,
        served_by_a_role_of_its_own(owner_url) as url,
        folder_for_all() as folder,
    ):
        in_production = {
            "DATABASE_URL": url,
            "FORKPOINT_ENVIRONMENT": "production",
            "FORKPOINT_AUTHENTICATION": "keys",
        }

        def key(tenant: str) -> dict[str, str]:
            """Make a key, as an operator does; gives the header that carries it."""
            named = ("--name", tenant, "--scopes", "admin", "--tenant", tenant)
            done = program.run(folder, "keys", "create", *named, DATABASE_URL=url)
            assert done.returncode == 0, done
            return {"Authorization": f"Bearer {done.stdout.strip()}"}

        attacker, honest = key("attacker"), key("honest")
        with program.serving(folder, **in_production) as running:
            victim = Victim(running, running.address(), owner_url, attacker, honest)
            with contextlib.closing(victim.client), contextlib.closing(Honest(victim)) as first:
                for _ in range(20):
                    first.look()
                yield victim


@pytest.fixture(scope="session")
def fresh(victim: Victim) -> tuple[int, int]:
    """Memory and descriptors of a service that was used a little."""
    return victim.memory(), victim.descriptors()


@pytest.fixture(scope="session")
def honest(victim: Victim) -> Iterator[Honest]:
    """Ask honestly."""
    with contextlib.closing(Honest(victim)) as honest:
        yield honest


@pytest.fixture(scope="session")
def slow_clients(victim: Victim) -> Iterator[list[Raw]]:
    """Begin to send, and go on no further; the limits are half a minute, which other attacks need not wait for."""
    head = "POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n" + "".join(
        f"{name}: {value}\r\n" for name, value in victim.headers.items()
    )
    beginnings = [
        "",
        "POST /gra",
        f"{head}X-A: b",
        f"{head}Content-Length: 1000\r\n\r\n{{",
        f"{head}Transfer-Encoding: chunked\r\n\r\n5\r\n{{",
    ]
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(victim.raw()) for _ in beginnings]
        for client, beginning in zip(clients, beginnings, strict=True):
            client.send(beginning.encode())
        yield clients


@pytest.fixture(autouse=True)
def besieged(victim: Victim, honest: Honest, fresh: tuple[int, int], slow_clients: list[Raw]) -> Iterator[None]:
    """Check, of every attack, that others are served meanwhile, and that the service is afterwards what it was."""
    assert slow_clients
    victim.forget_peak()
    said = len(victim.program.said())
    with honest.asking():
        yield
    assert victim.program.process.poll() is None
    until(lambda: victim.descriptors() < fresh[1] + DESCRIPTORS_MAX)
    assert victim.memory("VmHWM") < fresh[0] + MEMORY_GROWTH_MAX
    assert victim.memory() < fresh[0] + MEMORY_KEPT_MAX
    assert victim.half_written() == []
    log = victim.program.said()[said:]
    assert "Traceback" not in log
    assert '"level":"error"' not in log


@pytest.fixture(scope="session")
def own_id(victim: Victim) -> str:
    """Id of a context of who attacks."""
    messages = [{"role": "USER", "content": f"message {number}"} for number in range(20)]
    query = "mutation ($input: CreateContextInput!) { createContext(input: $input) { context { id } } }"
    return str(victim.ask(query, input={"name": "own", "messages": messages}).data["createContext"]["context"]["id"])


@pytest.fixture
def nothing_written(victim: Victim, honest: Honest, own_id: str) -> Iterator[None]:
    """Check that an attack writes nothing."""
    assert own_id != honest.id
    before = victim.rows(honest.id)
    yield
    assert victim.rows(honest.id) == before
