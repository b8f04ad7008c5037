"""What docs/postgresql.md shows is what happens: its SQL runs in order and makes roles that can do their part."""

import re
import shlex
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql
from pydantic import SecretStr

from db import migrate
from db.embedded import binaries
from graphql_api.app import create_app
from graphql_api.settings import Settings
from tests import program
from tests.client import Api
from tests.conftest import api_over
from tests.db.migrating import url_for
from tests.schema import calls
from tests.schema.calls import say

PAGE = (Path(__file__).parents[1] / "docs" / "postgresql.md").read_text(encoding="utf-8")
HEADER = re.compile(r"-- in the database (postgres|forkpoint)(, after the first migration)?\n")
EXTENSION = "create extension if not exists vector"


@dataclass(frozen=True)
class Block:
    """A block of SQL: the database it is for, whether that must be migrated, and its statements."""

    database: str
    migrated: bool
    statements: list[str]


def blocks() -> list[Block]:
    found = []
    for text in re.findall(r"^```sql\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL):
        header = HEADER.match(text)
        assert header, text
        statements = re.sub(r"^--.*\n", "", text, flags=re.MULTILINE).split(";\n")
        assert statements.pop() == ""
        found.append(Block(header[1], bool(header[2]), statements))
    return found


class Site:
    """The server of a reader who follows the page, with names of its own."""

    def __init__(self, postgres: str, administrator: str) -> None:
        unique = uuid.uuid4().hex
        self._names = {name: f"{name}_{unique}" for name in ("forkpoint", "forkpoint_owner", "forkpoint_service")}
        self._postgres, self._administrator = postgres, administrator
        self.database, self.owner, self.service = self._names.values()

    def url(self, user: str) -> str:
        return url_for(self._postgres, self.database, user)

    def run(self, block: Block) -> list[Any]:
        """Run each statement as a reader's psql would; gives the rows of the last."""
        rows: list[Any] = []
        database = self.database if block.database == "forkpoint" else "postgres"
        for statement in block.statements:
            # A provider lets its administrators create the extension.
            user = None if statement == EXTENSION else self._administrator
            mine = re.sub(r"\bforkpoint(_owner|_service)?\b", lambda found: self._names[found[0]], statement)
            with psycopg.connect(url_for(self._postgres, database, user), autocommit=True) as connection:
                cursor = connection.execute(mine.encode())
                rows = cursor.fetchall() if cursor.description else []
        return rows

    def remove(self) -> None:
        with psycopg.connect(self._postgres, autocommit=True) as connection:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(self.database)))
            for role in (self.owner, self.service):
                connection.execute(sql.SQL("drop role if exists {}").format(sql.Identifier(role)))


@pytest.fixture(params=["superuser", "none"])
def site(postgres: str, request: pytest.FixtureRequest) -> Iterator[Site]:
    """Give a server that was set up by the page as far as migrating, by a superuser or by one who is none."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        administrator = connection.info.user
        if request.param == "none":
            administrator = f"administrator_{uuid.uuid4().hex}"
            create = sql.SQL("create role {} login createdb createrole")
            connection.execute(create.format(sql.Identifier(administrator)))
        site = Site(postgres, administrator)
        try:
            for block in blocks():
                if not block.migrated:
                    site.run(block)
            yield site
        finally:
            site.remove()
            if request.param == "none":
                connection.execute(sql.SQL("drop role {}").format(sql.Identifier(administrator)))


async def round_trip(site: Site) -> None:
    """Serve as the service role, and do all that is done to rows."""
    url = SecretStr(site.url(site.service))
    settings = Settings(_env_file=None, database_url=url, log_level="error")
    async with api_over(create_app(settings)) as api:
        await everything(api)
        assert (await api.http.get("/health")).status_code == 200


async def everything(api: Api) -> None:
    mine = (await calls.create(api, say("1"), say("2"), name="first", metadata={"a": 1}))["id"]
    await calls.append(api, mine, say("3"))
    fork = (await calls.fork(api, mine, 2))["id"]
    await calls.append(api, fork, say("other"))
    assert (await calls.delete_message(api, fork, 1))["context"]["messageCount"] == 2
    assert await calls.contents(api, mine) == ["2", "3"]
    assert (await calls.restore_message(api, fork, 1))["context"]["messageCount"] == 3
    assert (await calls.update(api, mine, name="second"))["name"] == "second"
    await calls.delete(api, mine)
    await calls.restore(api, mine)
    assert await calls.contents(api, fork) == ["1", "2", "other"]
    assert (await api("{ contexts { totalCount } }"))["contexts"]["totalCount"] >= 2


def refused(url: str, statement: str) -> bool:
    """Tell whether a statement is not allowed; it changes nothing when it is."""
    with psycopg.connect(url) as connection:
        try:
            connection.execute(statement.encode())
        except errors.InsufficientPrivilege:
            return True
        finally:
            connection.rollback()
    return False


FORBIDDEN = [
    "create table mine (id integer)",
    "create temporary table mine (id integer)",
    "create schema mine",
    "create function mine() returns integer language sql as 'select 1'",
    "drop table messages cascade",
    "drop table schema_migrations",
    "truncate messages",
    "alter table messages add column mine integer",
    "create index on messages (content)",
    "drop function append_messages",
    "drop extension vector cascade",
    "insert into schema_migrations (version) values ('1')",
    "delete from schema_migrations",
]


async def test_the_service_role_serves_and_changes_no_table(site: Site) -> None:
    owner, service = site.url(site.owner), site.url(site.service)
    migrate.up(owner)
    for block in blocks():
        if block.migrated:
            site.run(block)
    assert migrate.pending(service) == 0
    await round_trip(site)
    assert [statement for statement in FORBIDDEN if not refused(service, statement)] == []
    # Only who is let in gets in.
    with psycopg.connect(owner) as connection:
        text = "select has_database_privilege('public', current_database(), 'connect')"
        assert connection.execute(text).fetchall() == [(False,)]
    with psycopg.connect(service) as connection:
        text = "select current_setting('statement_timeout'), current_setting('idle_in_transaction_session_timeout')"
        assert connection.execute(text).fetchall() == [("40s", "1min")]


async def test_tables_that_exist_already_are_granted(site: Site) -> None:
    owner, service = site.url(site.owner), site.url(site.service)
    migrate.up(owner)
    with psycopg.connect(owner, autocommit=True) as connection:
        for kind in ("tables", "functions"):
            connection.execute(f"revoke all on all {kind} in schema public from {site.service}".encode())
    assert refused(service, "select from messages")
    for block in blocks():
        if block.migrated:
            site.run(block)
    assert migrate.pending(service) == 0
    await round_trip(site)


async def test_the_owner_role_migrates_up_and_down_and_new_tables_are_served(site: Site) -> None:
    """Without the blocks for what exists already: default privileges alone grant what a migration brings."""
    owner = site.url(site.owner)
    applied = migrate.up(owner)
    await round_trip(site)
    for migration in reversed(applied):
        undone = migrate.down(owner)
        assert undone is not None
        assert undone.version == migration.version
    assert migrate.down(owner) is None
    assert migrate.up(owner) == applied
    await round_trip(site)


def test_the_commands_migrate_as_one_role_and_serve_as_the_other(site: Site, tmp_path: Path) -> None:
    ours = next(text for text in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
    migrating, serving = (line.split()[1:] for line in ours.splitlines() if line.startswith("forkpoint "))
    service, owner = site.url(site.service), site.url(site.owner)
    done = program.run(tmp_path, *migrating, DATABASE_URL=service, FORKPOINT_MIGRATE_URL=owner)
    assert done.returncode == 0, done
    assert serving == ["serve"]
    with program.serving(tmp_path, DATABASE_URL=service) as running:
        answer = program.ask(running.address(), 'mutation { createContext(input: {name: "a"}) { context { name } } }')
        assert answer["createContext"]["context"]["name"] == "a"


def test_the_free_connections_of_the_server_are_counted(site: Site) -> None:
    (asked,) = [block for block in blocks() if "max_connections" in block.statements[0]]
    with psycopg.connect(site.url(site.owner)) as connection:
        text = """
        select sum(case name when 'max_connections' then setting::integer else -setting::integer end)::integer
        from pg_settings where name in ('max_connections', 'superuser_reserved_connections', 'reserved_connections')
        """
        assert site.run(asked) == connection.execute(text).fetchall()


def test_the_example_of_pool_sizes_adds_up() -> None:
    names = ("pool_size_max", "fast_lane_connections", "append_connections")
    default: int = sum(Settings.model_fields[name].default for name in names)
    times = " \N{MULTIPLICATION SIGN} "
    found = re.findall(rf"(\d+){times}(\d+){times}(\d+) \+ 2 = (\d+)", " ".join(PAGE.split()))
    assert len(found) == 3
    for instances, workers, connections, sum_ in found:
        assert int(instances) * int(workers) * int(connections) + 2 == int(sum_)
    assert {int(connections) for *_, connections, _ in found} == {default + 3, 15}
    assert "`FORKPOINT_POOL_SIZE_MAX=4` and `FORKPOINT_APPEND_CONNECTIONS=4`" in PAGE
    assert 4 + Settings.model_fields["fast_lane_connections"].default + 4 + 3 == 15


@pytest.mark.parametrize(
    "default",
    [
        "query_seconds",
        "mutation_seconds",
        "connect_seconds",
        "pool_size_max",
        "fast_lane_connections",
        "append_connections",
    ],
)
def test_the_defaults_that_the_page_names_are_those_of_the_settings(default: str) -> None:
    value = Settings.model_fields[default].default
    assert f"`FORKPOINT_{default.upper()}` " in PAGE.replace("\n", " ")
    assert re.search(rf"FORKPOINT_{default.upper()}`[^()]*\({value:g}\)", PAGE)


def test_every_variable_that_the_page_names_exists() -> None:
    known = {f"FORKPOINT_{name.upper()}" for name in Settings.model_fields}
    assert set(re.findall(r"FORKPOINT_[A-Z_]+", PAGE)) <= known


def test_the_owner_dumps_the_rows_of_all_tenants(site: Site, tmp_path: Path) -> None:
    migrate.up(site.url(site.owner))
    (command,) = [
        text for text in re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL) if "pg_dump" in text
    ]
    mine = re.sub(r"'postgresql://[^']*'", shlex.quote(site.url(site.owner)), command)
    mine = mine.replace(" pg_dump ", f" {shlex.quote(str(binaries() / 'pg_dump'))} ")
    with psycopg.connect(site.url(site.owner)) as connection:
        connection.execute("set forkpoint.tenant = '*'")
        for tenant_id in "ab":
            connection.execute("insert into trees (tenant_id, id) values (%s, gen_random_uuid())", [tenant_id])
    done = subprocess.run(["/bin/sh", "-c", mine], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    dumped = (tmp_path / "forkpoint.sql").read_text()
    assert {line[0] for line in dumped.partition("COPY public.trees ")[2].splitlines()[1:3]} == {"a", "b"}
