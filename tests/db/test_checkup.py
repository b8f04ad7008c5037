"""Examining a database: each fault is found, and the SQL of a remedy mends it."""

import re
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from db import checkup, checkup_rights, migrate, preflight
from db.checkup import Wanted
from db.dbmate import Connection, MigrateError
from db.finding import Finding, failed, ok, skipped, warning
from tests.db.migrating import Refusing, Relay, empty_database, plain_user, rows, superuser, url_for
from tests.db.planting import paste, pooler, summary

WANTED = Wanted(
    migrate_url=None,
    migrated_when_served=False,
    workers=1,
    pool_size_min=2,
    pool_size_max=10,
    lane_size=6,
    clock_seconds_max=5,
)
PENDING = f"{len(list(migrate.MIGRATIONS.iterdir()))} pending, from 20261123100000_contexts on"
MIGRATE = Finding("failed", f"{PENDING}.", "Run `forkpoint migrate up`.")
TABLES_OF = "select relname from pg_class where relkind in ('r', 'p') and relnamespace = 'public'::regnamespace"
FUNCTIONS_OF = """
select proname from pg_proc p where pronamespace = 'public'::regnamespace
and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')
"""


@pytest.fixture
def role(database_url: str) -> Iterator[str]:
    """A role that may do nothing, with a name that SQL must quote."""
    with plain_user(database_url) as plain:
        name = f"app-{plain}"
        with superuser(database_url) as connection:
            connection.execute(sql.SQL("alter role {} rename to {}").format(*map(sql.Identifier, (plain, name))))
            yield name
            connection.execute(sql.SQL("alter role {} rename to {}").format(*map(sql.Identifier, (name, plain))))


@pytest.fixture
def plain_url(database_url: str, role: str) -> str:
    return url_for(database_url, str(conninfo_to_dict(database_url)["dbname"]), role)


def test_of_a_healthy_database_everything_is_ok(database_url: str) -> None:
    found = checkup.examine(database_url, WANTED)
    assert summary(found) == {}
    assert sorted(found) == sorted(checkup.CHECKS)
    assert re.fullmatch(
        r"The database test_\w+ at /.*:5432 answers in \d+\.\d\d ms; connecting took \d+ ms\.",
        found["reachability"].found,
    )
    assert re.fullmatch(r"PostgreSQL \d+\.\d+.*\.", found["version"].found)
    assert re.fullmatch(r"pgvector [\d.]+\.", found["pgvector"].found)
    assert found["migrations"] == ok("None is pending.")
    assert found["connections"] == ok(
        "One process takes up to 18 connections of the 97 that the server allows: room for 5 such processes."
    )


def test_of_a_database_that_cannot_be_reached_nothing_else_is_said() -> None:
    assert checkup.examine("postgresql://u:hunter2@127.0.0.1:1/x", WANTED) == {
        "reachability": failed(
            "The database at 127.0.0.1:1 cannot be reached: Connection refused.", "Start it, or correct DATABASE_URL."
        )
    }


def test_a_checkup_writes_nothing(database_url: str) -> None:
    before = rows(
        database_url, "select pg_current_wal_insert_lsn() is not null, sum(n_tup_ins) from pg_stat_user_tables"
    )
    with superuser(database_url) as connection:
        (snapshot,) = connection.execute("select pg_snapshot_xmax(pg_current_snapshot())::text").fetchall()
        checkup.examine(database_url, WANTED)
        # Whoever writes takes a transaction number.
        assert connection.execute("select pg_snapshot_xmax(pg_current_snapshot())::text").fetchall() == [snapshot]
    assert before == rows(database_url, "select true, sum(n_tup_ins) from pg_stat_user_tables")


def test_every_table_and_function_of_ours_is_among_those_whose_rights_are_examined(database_url: str) -> None:
    assert {name for (name,) in rows(database_url, TABLES_OF)} == set(checkup_rights.TABLES)
    assert {name for (name,) in rows(database_url, FUNCTIONS_OF)} == set(checkup_rights.FUNCTIONS)


# An empty database


def test_an_empty_database_is_to_be_migrated(postgres: str) -> None:
    with empty_database(postgres) as url:
        found = checkup.examine(url, WANTED)
    assert found["pgvector"] == warning(
        "pgvector is on the server, but the extension is not created in this database.",
        "Run `forkpoint migrate up`, which creates it.",
    )
    assert found["migrations"] == MIGRATE
    assert found["write-rights"] == skipped("migrations are pending")
    assert summary(found) == {"pgvector": "warning", "migrations": "failed", "write-rights": "skipped"}


def test_what_serving_migrates_by_itself_needs_no_remedy(postgres: str) -> None:
    with empty_database(postgres) as url:
        found = checkup.examine(url, replace(WANTED, migrated_when_served=True))
    assert summary(found) == {"write-rights": "skipped"}
    assert found["migrations"].found == f"{PENDING}; `forkpoint serve` applies them."
    assert found["pgvector"].found == "pgvector is on the server, and `forkpoint serve` creates the extension."


def test_a_role_that_may_not_create_anything_is_given_the_sql_for_it(postgres: str) -> None:
    with empty_database(postgres) as url, plain_user(url) as role:
        plain_url = url_for(url, str(conninfo_to_dict(url)["dbname"]), role)
        found = checkup.examine(plain_url, WANTED)
        assert found["pgvector"] == failed(
            f"pgvector is on the server, but the extension is not created in this database, and the role {role} "
            "may not create it.",
            "Run `create extension vector;` in this database once as a superuser.",
        )
        assert found["migrate-rights"] == failed(
            f"The user {role} may not create tables in schema public.",
            f"Run `grant create on schema public to {role};` as its owner, or migrate as the owner of the database.",
        )
        for name in ("pgvector", "migrate-rights"):
            paste(url, found[name].remedy)
        mended = checkup.examine(plain_url, WANTED)
        assert summary(mended) == {"migrations": "failed", "write-rights": "skipped"}


# Rights


def test_a_role_without_rights_is_given_the_sql_for_each_one(database_url: str, plain_url: str, role: str) -> None:
    found = checkup.examine(plain_url, WANTED)
    assert found["migrations"] == skipped("write-rights failed")
    lacking = [f"{', '.join(rights)} on {table}" for table, rights in checkup_rights.TABLES.items()]
    grants = [f'grant {right} to "{role}";' for right in lacking]
    assert found["write-rights"] == failed(
        f'The role "{role}" lacks {"; ".join(lacking)}.', f"Run `{' '.join(grants)}` as the owner of the tables."
    )
    paste(database_url, found["write-rights"].remedy)
    mended = checkup.examine(plain_url, WANTED)
    assert mended["write-rights"].status == mended["migrations"].status == "ok"


def test_a_single_right_that_lacks_is_named(database_url: str, plain_url: str, role: str) -> None:
    paste(database_url, checkup.examine(plain_url, WANTED)["write-rights"].remedy)
    with superuser(database_url) as connection:
        connection.execute("revoke execute on function append_messages from public")
    found = checkup.examine(plain_url, WANTED)["write-rights"]
    assert found == failed(
        f'The role "{role}" lacks execute on function append_messages.',
        f'Run `grant execute on function append_messages to "{role}";` as the owner of the tables.',
    )
    paste(database_url, found.remedy)
    assert checkup.examine(plain_url, WANTED)["write-rights"].status == "ok"


def test_a_schema_that_is_closed_to_the_role_is_no_missing_migration(
    database_url: str, plain_url: str, role: str
) -> None:
    with superuser(database_url) as connection:
        connection.execute("revoke usage on schema public from public")
    found = checkup.examine(plain_url, WANTED)
    assert found["write-rights"] == failed(
        f'The role "{role}" may not use the schema public, which holds the tables.',
        f'Run `grant usage on schema public to "{role}";` as its owner.',
    )
    assert found["migrations"] == skipped("write-rights failed")


def test_a_role_that_only_writes_is_warned_of_where_nothing_needs_migrating(database_url: str, plain_url: str) -> None:
    paste(database_url, checkup.examine(plain_url, WANTED)["write-rights"].remedy)
    assert summary(checkup.examine(plain_url, WANTED)) == {"migrate-rights": "warning"}
    by_owner = replace(WANTED, migrate_url=database_url)
    assert summary(checkup.examine(plain_url, by_owner)) == {}
    by_itself = replace(WANTED, migrate_url=plain_url)
    assert summary(checkup.examine(database_url, by_itself)) == {"migrate-rights": "failed"}


def test_tables_of_another_owner_are_named(database_url: str, plain_url: str, role: str) -> None:
    with superuser(database_url) as connection:
        connection.execute(sql.SQL("grant create on schema public to {}").format(sql.Identifier(role)))
    by_other = replace(WANTED, migrate_url=plain_url)
    tables = ", ".join(sorted(checkup_rights.TABLES))
    assert checkup.examine(database_url, by_other)["migrate-rights"] == failed(
        f'The role "{role}" may create tables, but {tables} belong to forkpoint.',
        "Set FORKPOINT_MIGRATE_URL to a URL of forkpoint, such as postgresql://forkpoint:PASSWORD@HOST:5432/DATABASE.",
    )


def test_a_table_that_was_dropped_is_missed(database_url: str) -> None:
    with superuser(database_url) as connection:
        connection.execute("drop table messages")
    assert checkup.examine(database_url, WANTED)["write-rights"] == failed(
        "There is no messages in the database, though no migration is pending.",
        "Restore the database from a backup, or name a new one in DATABASE_URL.",
    )


# The other URL


def test_a_migrate_url_that_leads_nowhere_is_named_and_stops_nothing_else(database_url: str) -> None:
    with Refusing('password authentication failed for user "u"') as server:
        url = f"postgresql://u:hunter2@127.0.0.1:{server.port}/x"
        found = checkup.examine(database_url, replace(WANTED, migrate_url=url))
    assert summary(found) == {"migrate-rights": "failed"}
    assert found["migrate-rights"].remedy == "Correct the user or password in FORKPOINT_MIGRATE_URL."


def test_a_migrate_url_of_another_database_is_found(database_url: str, postgres: str) -> None:
    found = checkup.examine(database_url, replace(WANTED, migrate_url=postgres))
    assert summary(found) == {"migrate-rights": "failed"}
    assert found["migrate-rights"] == failed(
        "FORKPOINT_MIGRATE_URL leads to other tables than DATABASE_URL.",
        "Let both name the same server, database and schema.",
    )


def test_a_pooler_is_warned_of_unless_migrations_go_around_it(database_url: str) -> None:
    with pooler(database_url) as way:
        found = checkup.examine(way.url(), WANTED)
        assert summary(found) == {"pooler": "warning"}
        assert found["pooler"] == warning(
            f"A pooler is in front at 127.0.0.1:{way.port}, and migrations would go through it.",
            "Set FORKPOINT_MIGRATE_URL to a URL of the same database that goes around the pooler.",
        )
        assert found["connections"].found.startswith("The pooler in front shares ")
        around = checkup.examine(way.url(), replace(WANTED, migrate_url=database_url))
        assert summary(around) == {}
        assert around["pooler"].found.endswith("; migrations go around it by FORKPOINT_MIGRATE_URL.")
        through = checkup.examine(way.url(), replace(WANTED, migrate_url=way.url()))
        assert through["pooler"] == warning(
            f"Migrations go through the pooler at 127.0.0.1:{way.port}.",
            "Let FORKPOINT_MIGRATE_URL name the server itself, without the pooler.",
        )


def test_a_pooler_is_known_by_its_name(database_url: str) -> None:
    with Relay(database_url) as way:
        found = checkup.examine(way.url(host="db-pooler.invalid", hostaddr="127.0.0.1"), WANTED)
    assert found["pooler"].found.startswith("A pooler is in front at db-pooler.invalid:")


# How the server stands


@pytest.mark.parametrize(
    ("planted", "source"),
    [
        ("alter database {database} set default_transaction_read_only = on", "database"),
        ("alter role {role} set default_transaction_read_only = on", "user"),
        ("alter role {role} in database {database} set default_transaction_read_only = on", "database user"),
    ],
)
def test_a_read_only_default_is_found_where_it_was_set(
    database_url: str, plain_url: str, role: str, planted: str, source: str
) -> None:
    names = {"role": sql.Identifier(role), "database": sql.Identifier(str(conninfo_to_dict(database_url)["dbname"]))}
    with superuser(database_url) as connection:
        connection.execute(sql.SQL(planted).format(**names))
        found = checkup.examine(plain_url, WANTED)["read-write"]
        assert found.status == "failed"
        assert found.found == f"Transactions are read-only: default_transaction_read_only is on (set by: {source})."
        paste(plain_url.replace(role, "forkpoint") + "&options=-cdefault_transaction_read_only%3Doff", found.remedy)
    assert checkup.examine(plain_url, WANTED)["read-write"].status == "ok"


def test_a_read_only_default_in_the_url_is_found_there(database_url: str) -> None:
    found = checkup.examine(f"{database_url}&options=-cdefault_transaction_read_only%3Don", WANTED)["read-write"]
    assert found.remedy == "Take default_transaction_read_only out of the options in DATABASE_URL."


def test_a_standby_is_found(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "_READ_ONLY", "select true, false, 'default', 'r', 'd'")
    found = checkup.examine(database_url, WANTED)["read-write"]
    assert found.found == "The server is in recovery: a standby, which takes no writes."
    assert "target_session_attrs=read-write" in str(found.remedy)


@pytest.mark.parametrize(("offset", "words"), [(60, "60.0 s behind"), (-60, "60.0 s ahead of")])
def test_a_clock_that_is_off_is_warned_of(
    database_url: str, monkeypatch: pytest.MonkeyPatch, offset: float, words: str
) -> None:
    now = time.time
    monkeypatch.setattr("db.checkup.time.time", lambda: now() + offset)
    found = checkup.examine(database_url, WANTED)["clock"]
    assert found == warning(
        f"The database's clock is {words} this machine's.",
        "Synchronise the one that is wrong, on Linux by `timedatectl set-ntp true`.",
    )


@pytest.mark.parametrize(
    ("changes", "status", "remedy"),
    [
        ({"workers": 5}, "ok", None),
        ({"workers": 7}, "warning", "Set FORKPOINT_POOL_SIZE_MAX=5, or raise "),
        ({"workers": 7, "pool_size_min": 10}, "failed", "Set FORKPOINT_POOL_SIZE_MAX=5, or raise "),
        (
            {"workers": 20},
            "failed",
            "Set FORKPOINT_FAST_LANE_CONNECTIONS=0 and FORKPOINT_POOL_SIZE_MAX=2, or raise ",
        ),
        ({"workers": 98}, "failed", "Serve with fewer processes, or raise "),
    ],
)
def test_processes_share_what_the_server_allows(
    database_url: str, changes: dict[str, int], status: str, remedy: str | None
) -> None:
    found = checkup.examine(database_url, replace(WANTED, **changes))["connections"]  # type: ignore[arg-type]
    assert found.status == status
    assert (found.remedy or "").startswith(remedy or "")
    assert (found.remedy is None) == (remedy is None)


def test_a_limit_of_the_role_counts_as_the_server_s(database_url: str, plain_url: str, role: str) -> None:
    with superuser(database_url) as connection:
        connection.execute(sql.SQL("alter role {} connection limit 5").format(sql.Identifier(role)))
    found = checkup.examine(plain_url, WANTED)["connections"]
    assert found.found == "One process takes up to 18 connections of the 5 that the server allows."


# Row security


GUARDED = replace(WANTED, row_security=True)


def grant_all(database_url: str, plain_url: str) -> None:
    while (remedy := checkup.examine(plain_url, WANTED)["write-rights"].remedy) is not None:
        paste(database_url, remedy)


def test_a_role_that_row_security_does_not_bind_is_named(database_url: str, plain_url: str, role: str) -> None:
    grant_all(database_url, plain_url)
    assert checkup.examine(database_url, WANTED)["row-security"].status == "ok"  # it is off
    found = checkup.examine(database_url, GUARDED)["row-security"]
    assert (found.status, found.found) == (
        "failed",
        "The role forkpoint is a superuser, whom row security does not bind.",
    )
    assert checkup.examine(plain_url, GUARDED)["row-security"] == ok(
        f'Row security binds the role "{role}" on every table.'
    )
    with superuser(database_url) as connection:
        connection.execute(sql.SQL("alter role {} bypassrls").format(sql.Identifier(role)))
    found = checkup.examine(plain_url, GUARDED)["row-security"]
    assert found.found == f'The role "{role}" has BYPASSRLS, whom row security does not bind.'


def test_a_table_without_forced_row_security_is_named_and_mended(database_url: str, plain_url: str, role: str) -> None:
    grant_all(database_url, plain_url)
    with superuser(database_url) as connection:
        connection.execute("alter table calls no force row level security")
        connection.execute("alter table messages disable row level security")
    found = checkup.examine(plain_url, GUARDED)["row-security"]
    assert (found.status, found.found) == ("failed", "Row security is not forced on messages, calls.")
    paste(database_url, found.remedy)
    assert checkup.examine(plain_url, GUARDED)["row-security"].status == "ok"
    with superuser(database_url) as connection:
        connection.execute(sql.SQL("alter table calls owner to {}").format(sql.Identifier(role)))
    found = checkup.examine(plain_url, GUARDED)["row-security"]
    assert (found.status, found.found) == (
        "warning",
        f'The role "{role}" owns tables, and may take their row security away.',
    )


# When examining itself fails


def test_a_database_that_gives_no_answer_is_not_waited_for(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "ANSWER_SECONDS_MAX", 0.3)
    with superuser(database_url) as connection, connection.transaction():
        connection.execute("lock table schema_migrations in access exclusive mode")
        found = checkup.examine(database_url, WANTED)
    assert found["migrations"] == failed(
        "The database gave no answer for 0.3 seconds.",
        "Look in pg_stat_activity for what holds a lock on the tables, such as a migration under way.",
    )
    assert found["clock"] == skipped("the connection was lost")


def refuse(_connection: Connection) -> None:
    raise MigrateError("Everything is wrong")


def test_a_refusal_of_one_sentence_has_a_remedy_all_the_same(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "require_version", refuse)
    assert checkup.examine(database_url, WANTED)["version"] == failed("Everything is wrong", "Mend that and try again.")
