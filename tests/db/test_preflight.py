import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from db import migrate, preflight
from tests.db.migrating import (
    NOTES,
    TABLE,
    Refusing,
    empty_database,
    fill,
    message,
    plain_user,
    rows,
    superuser,
    url_for,
)

Folder = Callable[..., Path]


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with empty_database(postgres) as url:
        yield url


@pytest.fixture
def role(url: str) -> Iterator[str]:
    with plain_user(url) as role:
        yield role


@pytest.fixture
def plain_url(url: str, role: str) -> str:
    return url_for(url, str(conninfo_to_dict(url)["dbname"]), role)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = tmp_path / "migrations"
    made.mkdir()
    return partial(fill, made)


# What is refused before anything is migrated


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "localhost:5432/x",
        "postgresql+psycopg://u:hunter2@localhost/x",
        "postgresql://u:hunter2%@localhost/x",
        "postgresql://u:hunter2@localhost/x?schema=public",
        "postgresql://u:hunter2@[::1/x",
        "postgresql://u:hun@ter2@localhost/x",
        "postgresql://u:hun/ter2@localhost/x",
        "postgresql://u:hun?te@r2@localhost/x",
        "postgresql://u:hunter2@localhost:port/x",
        "postgresql://u:hunter2%ff@localhost/x",
    ],
)
def test_a_url_that_libpq_cannot_read_is_not_repeated(broken: str) -> None:
    assert message(lambda: migrate.pending(broken)) == (
        "The database URL cannot be read. Write DATABASE_URL as postgresql://USER:PASSWORD@HOST:5432/DATABASE, "
        "with special characters percent-encoded and only parameters that libpq knows."
    )


@pytest.mark.parametrize(
    ("unreachable", "place", "reason"),
    [
        ("postgresql://u:hunter2@127.0.0.1:1/x", "127.0.0.1:1", "Connection refused"),
        ("postgresql://u:hunter2@[::1]:1,127.0.0.1:1/x", "[::1]:1, 127.0.0.1:1", "Connection refused"),
        ("postgresql://u:hunter2@/x?host=/nowhere", "/nowhere:5432", "No such file or directory"),
    ],
)
def test_a_server_that_cannot_be_reached_is_named(unreachable: str, place: str, reason: str) -> None:
    for action in (migrate.up, migrate.down, migrate.status, migrate.pending, migrate.dump):
        assert message(partial(action, unreachable)) == (
            f"The database at {place} cannot be reached: {reason}. Start it, or correct DATABASE_URL."
        )


@pytest.mark.parametrize(
    ("reason", "expected"),
    [
        (
            'password authentication failed for user "u"',
            (
                'The database at 127.0.0.1:{} does not let us in: password authentication failed for user "u". '
                "Correct the user or password in DATABASE_URL."
            ),
        ),
        (
            'database "x" does not exist',
            'There is no database "x" at 127.0.0.1:{}. Create it, or correct DATABASE_URL.',
        ),
        (
            "sorry, too many clients already",
            (
                "The database at 127.0.0.1:{} refused the connection: sorry, too many clients already. "
                "Mend that, or correct DATABASE_URL."
            ),
        ),
    ],
)
def test_a_server_that_refuses_is_quoted(reason: str, expected: str) -> None:
    with Refusing(reason) as server:
        text = message(lambda: migrate.up(f"postgresql://u:hunter2@127.0.0.1:{server.port}/x"))
    assert text == expected.format(server.port)


def test_a_database_or_user_that_does_not_exist_is_named(postgres: str) -> None:
    text = message(lambda: migrate.up(url_for(postgres, "no_such_database")))
    assert text.startswith('There is no database "no_such_database" at ')
    text = message(lambda: migrate.up(url_for(postgres, "postgres", "no_such_user")))
    assert 'does not let us in: role "no_such_user" does not exist. ' in text


def test_a_server_too_old_is_refused(url: str, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "POSTGRES_MAJOR_MIN", 99)
    migrations = folder(TABLE)
    text = message(lambda: migrate.up(url, migrations=migrations))
    assert re.fullmatch(
        r"PostgreSQL \d+\.\d+.* is too old: 99 or later is needed\. "
        r"Upgrade the server, or name a newer one in DATABASE_URL\.",
        text,
    )


# pgvector and rights


def test_up_creates_the_extension_where_the_server_offers_it(url: str, folder: Folder) -> None:
    migrate.up(url, migrations=folder())
    assert rows(url, "select extname from pg_extension where extname = 'vector'") == [("vector",)]


def test_a_user_who_may_not_create_the_extension_is_told_who_may(
    url: str, role: str, plain_url: str, folder: Folder
) -> None:
    migrations = folder(TABLE)
    assert message(lambda: migrate.up(plain_url, migrations=migrations)) == (
        f"The user {role} may not create the extension vector. "
        "Run `create extension vector;` in this database once as a superuser, then migrate again."
    )
    with superuser(url) as connection:
        connection.execute("create extension vector")
    assert message(lambda: migrate.up(plain_url, migrations=migrations)) == (
        f"The user {role} may not create tables in schema public. Run `grant create on schema public to {role};` "
        "as its owner, or migrate as the owner of the database."
    )
    with superuser(url) as connection:
        connection.execute(sql.SQL("grant create on schema public to {}").format(sql.Identifier(role)))
    assert migrate.up(plain_url, migrations=migrations) == [NOTES]


def test_a_right_that_one_migration_lacks_is_told(url: str, role: str, plain_url: str, folder: Folder) -> None:
    with superuser(url) as connection:
        connection.execute("create extension vector")
        connection.execute(sql.SQL("grant create on schema public to {}").format(sql.Identifier(role)))
    migrations = folder(("20260101000000_x.sql", "create schema x;", "drop schema x;"))
    text = message(lambda: migrate.up(plain_url, migrations=migrations))
    assert text.startswith("Migration 20260101000000_x.sql failed: permission denied for database ")
    assert f"grant {role} that right (or migrate as the owner of the database) and run" in text


def test_a_user_who_may_not_read_the_versions_is_told(url: str, plain_url: str, folder: Folder) -> None:
    migrations = folder(TABLE)
    migrate.up(url, migrations=migrations)
    text = message(lambda: migrate.pending(plain_url, migrations=migrations))
    assert " refuses: permission denied for table schema_migrations. Grant plain_" in text


def test_a_connection_that_breaks_is_told_in_one_line(url: str) -> None:
    def break_off() -> None:
        with preflight.connect(url) as connection:
            pid = connection.info.backend_pid
            with superuser(url) as other:
                other.execute("select pg_terminate_backend(%s, 5000)", (pid,))
            connection.execute("select 1")

    assert " failed: terminating connection due to administrator command. " in message(break_off)


@pytest.mark.parametrize(("version", "accepted"), [("0.7.4", False), ("0.8.0", True), ("0.10.1", True), ("1.0", True)])
def test_pgvector_versions_are_compared_as_numbers(url: str, folder: Folder, version: str, accepted: bool) -> None:
    migrations = folder()
    with superuser(url) as connection:
        connection.execute("create extension vector")
        connection.execute("update pg_extension set extversion = %s where extname = 'vector'", (version,))
    if accepted:
        assert migrate.up(url, migrations=migrations) == []
    else:
        assert message(lambda: migrate.up(url, migrations=migrations)) == (
            "pgvector 0.7.4 in this database is too old: 0.8 or later is needed. "
            "Run `alter extension vector update;` in this database as the extension's owner."
        )


def test_a_server_that_offers_only_an_old_pgvector_is_told(
    url: str, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "PGVECTOR_VERSION_MIN", (99, 1))
    migrations = folder()
    text = message(lambda: migrate.up(url, migrations=migrations))
    assert re.fullmatch(
        r"The server offers pgvector [\d.]+, which is too old: 99\.1 or later is needed\. "
        r"Update the package postgresql-\d+-pgvector there\.",
        text,
    )


def test_a_server_without_pgvector_is_told_how_to_get_it(
    url: str, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "EXTENSION", "no_such_extension")
    migrations = folder()
    text = message(lambda: migrate.up(url, migrations=migrations))
    assert re.fullmatch(
        r"pgvector is missing on the server: the extension vector is not available\. Install the package "
        r"postgresql-\d+-pgvector there, or use a managed service that has pgvector\.",
        text,
    )
