"""Brings a database to the schema of this program and back, one caller at a time, with dbmate doing the work.

What dbmate passes over in silence is refused here: two files of one version, and versions in the database that no file
knows. The SQL in this module is its own, since it speaks to databases that have none of our tables yet.
"""

import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg

from db import dbmate, preflight
from db.dbmate import Connection, MigrateError

__all__ = [
    "MIGRATIONS",
    "SCHEMA_FILE",
    "MigrateError",
    "Migration",
    "down",
    "dump",
    "new",
    "pending",
    "status",
    "up",
    "waiting",
]

MIGRATIONS = Path(__file__).parent / "migrations"
SCHEMA_FILE = Path(__file__).parent / "schema.sql"

LOCK_SECONDS_MAX = 60.0
LOCK_POLL_SECONDS = 0.1
LOCK_KEY = 7_236_834_721_906_313_001  # any number that no other program takes for its advisory locks

_STAY = "set idle_session_timeout = 0"  # this session only holds the lock while dbmate works in another
_LOCK = "select pg_try_advisory_lock(%s)"
_UNLOCK = "select pg_advisory_unlock(%s)"
_HAS_TABLE = "select to_regclass('schema_migrations') is not null"
_APPLIED = "select version from schema_migrations order by version"
_FILE_NAME = re.compile(r"(\d+)(.*)\.sql")  # as dbmate reads it
_TEMPLATE = "-- migrate:up\n\n\n-- migrate:down\n\n"
# Lines of a dump that depend on the programs that made it: their versions, a setting that pg_dump 16 does not know, and
# the psql commands that minor releases since August 2025 write.
_MACHINE_LINES = re.compile(
    r"^(?:-- Dumped (?:from database|by pg_dump) version .*|SET transaction_timeout = 0;|\\(?:un)?restrict .*\n?)\n",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Migration:
    """One step of the schema. `name` is empty where the database knows a version for which there is no file here."""

    version: str
    name: str
    applied: bool


def up(url: str, *, migrations: Path = MIGRATIONS) -> list[Migration]:
    """Apply what is pending; one process does, the others wait for it.

    Shape: the newly applied, oldest first; nothing when the database was current.
    Raises: MigrateError.
    """
    files = _files(migrations)
    with preflight.connect(url) as connection:
        preflight.require_version(connection)
        preflight.require_session(connection, url)
        with _lock(connection):
            following = _waiting(connection, files)
            preflight.require_pgvector(connection)
            if not following:
                return []
            preflight.require_tables_allowed(connection)
            dbmate.run(connection, ["migrate", "--strict"], migrations=migrations)
            return [replace(migration, applied=True) for migration in following]


def waiting(connection: Connection, *, migrations: Path = MIGRATIONS) -> list[Migration]:
    """List what `up` would apply.

    Shape: oldest first.
    Raises: MigrateError, where `up` would refuse because of what is applied already.
    """
    return _waiting(connection, _files(migrations))


def down(url: str, *, migrations: Path = MIGRATIONS) -> Migration | None:
    """Roll the newest migration back; None when there is none.

    Raises: MigrateError.
    """
    files = {migration.version: migration for migration in _files(migrations)}
    with preflight.connect(url) as connection:
        preflight.require_version(connection)
        preflight.require_session(connection, url)
        with _lock(connection):
            applied = _applied(connection)
            if not applied:
                return None
            _refuse_newer_database(list(files.values()), applied)
            dbmate.run(connection, ["rollback"], migrations=migrations)
            return files[applied[-1]]


def status(url: str, *, migrations: Path = MIGRATIONS) -> list[Migration]:
    """Tell what is applied, including versions for which there is no file here.

    Shape: oldest first.
    Raises: MigrateError.
    """
    files = _files(migrations)
    with preflight.connect(url) as connection:
        applied = _applied(connection)
    known = [replace(migration, applied=migration.version in applied) for migration in files]
    unknown = [Migration(version, "", applied=True) for version in _unknown(files, applied)]
    return sorted(known + unknown, key=lambda migration: migration.version)


def pending(url: str, *, migrations: Path = MIGRATIONS) -> int:
    """Count the migrations that are not applied: two small statements, for every start of the service.

    Raises: MigrateError.
    """
    return sum(not migration.applied for migration in status(url, migrations=migrations))


def new(name: str, *, migrations: Path = MIGRATIONS) -> Path:
    """Make an empty migration that comes after all others, named after the time and `name`.

    Raises: MigrateError.
    """
    stem = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    if not stem:
        raise MigrateError(f"The name {name!r} has no letters or digits. Say what the migration does, like add_labels.")
    files = _files(migrations)
    # Clocks differ between machines, and two files may be made within a second.
    after = int(files[-1].version) + 1 if files else 0
    file = migrations / f"{max(int(datetime.now(UTC).strftime('%Y%m%d%H%M%S')), after)}_{stem}.sql"
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(_TEMPLATE)
    except OSError as error:
        raise MigrateError(
            f"{file} cannot be written: {error.strerror}. Run this in a checkout that you own."
        ) from error
    return file


def dump(url: str, *, migrations: Path = MIGRATIONS, schema_file: Path = SCHEMA_FILE) -> Path:
    """Write the schema of a database as SQL, the same whichever machine and release of pg_dump writes it.

    Raises: MigrateError.
    """
    with preflight.connect(url) as connection, tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "schema.sql"
        programs = dbmate.pg_dump_folder(connection)
        dbmate.run(connection, ["dump"], migrations=migrations, schema_file=raw, programs=programs)
        text = _MACHINE_LINES.sub("", raw.read_text(encoding="utf-8")).strip() + "\n"
    draft = schema_file.with_name(f".{schema_file.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(schema_file)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise MigrateError(f"{schema_file} cannot be written: {error.strerror}. Run this in a checkout.") from error
    return schema_file


def _files(migrations: Path) -> list[Migration]:
    """List the files of a folder, oldest first, none of them applied as far as files can tell."""
    if not migrations.is_dir():
        raise MigrateError(
            f"The folder of migrations {migrations} is missing. Install forkpoint again, or mend the checkout."
        )
    found: dict[str, Path] = {}
    for file in sorted(migrations.iterdir()):
        match = _FILE_NAME.fullmatch(file.name)
        if match is None:
            continue
        twin = found.setdefault(match[1], file)
        if twin is not file:
            raise MigrateError(
                f"Two migrations have the version {match[1]}: {twin.name} and {file.name}. "
                "Rename the one that nobody has applied to a newer version."
            )
    return [
        Migration(version, file.stem.removeprefix(version).lstrip("_"), applied=False)
        for version, file in sorted(found.items())
    ]


def _waiting(connection: Connection, files: Sequence[Migration]) -> list[Migration]:
    applied = _applied(connection)
    _refuse_newer_database(files, applied)
    found = [migration for migration in files if migration.version not in applied]
    _refuse_disorder(found, applied)
    return found


def _applied(connection: Connection) -> list[str]:
    (has_table,) = preflight.row(connection, _HAS_TABLE)
    return [version for (version,) in connection.execute(_APPLIED)] if has_table else []


def _unknown(files: Sequence[Migration], applied: Sequence[str]) -> list[str]:
    return sorted(set(applied) - {migration.version for migration in files})


def _refuse_newer_database(files: Sequence[Migration], applied: Sequence[str]) -> None:
    unknown = _unknown(files, applied)
    if unknown:
        raise MigrateError(
            f"The database is newer than this program: no file here knows its migration {', '.join(unknown)}. "
            "Install the newer release that brought it."
        )


def _refuse_disorder(waiting: Sequence[Migration], applied: Sequence[str]) -> None:
    if applied and waiting and waiting[0].version < applied[-1]:
        raise MigrateError(
            f"Migration {waiting[0].version}_{waiting[0].name} comes before {applied[-1]}, which is applied already. "
            "Rename it to a newer version."
        )


@contextmanager
def _lock(connection: Connection) -> Iterator[None]:
    """Be the only one who migrates this database.

    It is polled: a session that waits inside PostgreSQL holds a snapshot, and CREATE INDEX CONCURRENTLY, run by the
    holder, waits for that snapshot: a deadlock.
    """
    connection.execute(_STAY)
    deadline = time.monotonic() + LOCK_SECONDS_MAX
    while preflight.row(connection, _LOCK, LOCK_KEY) != (True,):
        if time.monotonic() >= deadline:
            raise MigrateError(
                f"Somebody else has been migrating this database for more than {LOCK_SECONDS_MAX:g} seconds. "
                "Wait until that is done (pg_locks names the session as an advisory lock), then try again."
            )
        time.sleep(LOCK_POLL_SECONDS)
    try:
        yield
    finally:
        # A connection that broke has let go already.
        with suppress(psycopg.Error):
            connection.execute(_UNLOCK, (LOCK_KEY,))
