"""Looks at a database before anything is migrated: is it there, may we in, is it new enough, has it pgvector."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from typing import Any, LiteralString

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict

from db.dbmate import Connection, MigrateError, one_line

CONNECT_SECONDS_MAX = 5
POSTGRES_MAJOR_MIN = 16
PGVECTOR_VERSION_MIN = (0, 8)
EXTENSION = "vector"

_PGVECTOR = """
select available.default_version, installed.extversion
from (select %s::name as extname) as wanted
left join pg_available_extensions as available on available.name = wanted.extname
left join pg_extension as installed on installed.extname = wanted.extname
"""
_MAY_CREATE = """
select quote_ident(current_schema()), has_schema_privilege(current_schema(), 'create'), quote_ident(current_user)
"""
_BACKEND = "select pg_backend_pid()"
_LOOKS = 10  # a busy pooler may give the same process again by chance
_UNREADABLE = (
    "The database URL cannot be read. Write DATABASE_URL as postgresql://USER:PASSWORD@HOST:5432/DATABASE, "
    "with special characters percent-encoded and only parameters that libpq knows."
)
_REFUSALS = (
    "authentication failed",
    "no password supplied",
    "is not permitted to log in",
    "permission denied for database",
)


@contextmanager
def connect(url: str) -> Iterator[Connection]:
    """Connect in autocommit mode, and tell failures of the connection, then and later, in one line.

    Raises: MigrateError.
    """
    place = place_of(url)
    try:
        connection: Connection = psycopg.connect(
            url,
            autocommit=True,
            connect_timeout=CONNECT_SECONDS_MAX,
            prepare_threshold=None,  # a pooler may stand in front
        )
    # ValueError: bytes that are no UTF-8, a port that is no number.
    except (psycopg.Error, ValueError) as error:
        raise MigrateError(_why_not_connected(place, error)) from None
    with connection, telling(connection, place):
        yield connection


@contextmanager
def telling(connection: Connection, place: str) -> Iterator[None]:
    """Tell failures of statements in one line.

    Raises: MigrateError.
    """
    try:
        yield
    except errors.InsufficientPrivilege as error:
        user = connection.info.user
        raise MigrateError(
            f"The database at {place} refuses: {one_line(error.diag.message_primary or str(error))}. "
            f"Grant {user} that right, or use a URL of another user."
        ) from error
    except psycopg.Error as error:
        raise MigrateError(
            f"The database at {place} failed: {one_line(error.diag.message_primary or str(error))}. "
            "Mend that and try again."
        ) from error


def row(connection: Connection, statement: LiteralString, *parameters: Any) -> tuple[Any, ...]:
    """Give the one row of a statement that always has one."""
    found = connection.execute(statement, parameters).fetchone()
    if found is None:
        raise LookupError(statement)
    return found


def require_version(connection: Connection) -> None:
    """Refuse a server that lacks what our SQL needs.

    Raises: MigrateError.
    """
    if connection.info.server_version < POSTGRES_MAJOR_MIN * 10_000:
        version = connection.info.parameter_status("server_version")
        raise MigrateError(
            f"PostgreSQL {version} is too old: {POSTGRES_MAJOR_MIN} or later is needed. "
            "Upgrade the server, or name a newer one in DATABASE_URL."
        )


def require_session(connection: Connection, url: str) -> None:
    """Refuse a pooler that hands each transaction another server process: no lock holds there, and dbmate fails.

    One that keeps a process for each client is let through. They are told apart by a second client that holds a
    transaction: either it was given the process of the first, or the first is given another one now.
    Raises: MigrateError.
    """
    before = row(connection, _BACKEND)
    if before == (connection.info.backend_pid,):
        return
    with connect(url) as other:
        for _ in range(_LOOKS):
            with other.transaction():
                if row(other, _BACKEND) != before == row(connection, _BACKEND):
                    continue
            raise MigrateError(
                f"The database at {place_of(url)} is behind a pooler in transaction mode, where no lock holds. "
                "Let FORKPOINT_MIGRATE_URL name the server directly."
            )


def require_tables_allowed(connection: Connection) -> None:
    """Refuse a user that may not create tables, before the first statement fails.

    Raises: MigrateError.
    """
    schema, allowed, user = row(connection, _MAY_CREATE)
    if not allowed:
        place = f"schema {schema}" if schema else "any schema of its search_path"
        raise MigrateError(
            f"The user {user} may not create tables in {place}. Run `grant create on schema {schema or 'public'} "
            f"to {user};` as its owner, or migrate as the owner of the database."
        )


def require_pgvector(connection: Connection) -> None:
    """See to it that the database has pgvector, and create the extension where the server only offers it.

    It is no migration, because creating it may take a superuser while everything else takes none.

    Raises: MigrateError.
    """
    if installed_pgvector(connection) is None:
        _create_pgvector(connection)


def installed_pgvector(connection: Connection) -> str | None:
    """Give the version of pgvector in the database, or None where the server only offers it.

    Raises: MigrateError, when it is missing on the server or too old.
    """
    available, installed = row(connection, _PGVECTOR, EXTENSION)
    package = f"postgresql-{connection.info.server_version // 10_000}-pgvector"
    wanted = ".".join(map(str, PGVECTOR_VERSION_MIN))
    if installed is not None and not _is_new_enough(installed):
        first = "" if _is_new_enough(available or "") else f"Update the package {package} on the server, then run "
        raise MigrateError(
            f"pgvector {installed} in this database is too old: {wanted} or later is needed. "
            f"{first or 'Run '}`alter extension vector update;` in this database as the extension's owner."
        )
    if installed is None and available is None:
        raise MigrateError(
            f"pgvector is missing on the server: the extension vector is not available. Install the package {package} "
            "there, or use a managed service that has pgvector."
        )
    if installed is None and not _is_new_enough(available):
        raise MigrateError(
            f"The server offers pgvector {available}, which is too old: {wanted} or later is needed. "
            f"Update the package {package} there."
        )
    return None if installed is None else str(installed)


def _create_pgvector(connection: Connection) -> None:
    try:
        connection.execute("create extension if not exists vector")
    except errors.InsufficientPrivilege as error:
        raise MigrateError(
            f"The user {connection.info.user} may not create the extension vector. "
            "Run `create extension vector;` in this database once as a superuser, then migrate again."
        ) from error


def _is_new_enough(version: str) -> bool:
    return tuple(map(int, re.findall(r"\d+", version))) >= PGVECTOR_VERSION_MIN


def place_of(url: str) -> str:
    """Name the server that a URL means, without its user and password.

    Raises: MigrateError, when libpq cannot read the URL, or would take a piece of the password for something else.
    """
    # libpq's own words repeat the URL, and with it the password; so all that is wrong with it gets one answer.
    unreadable = MigrateError(_UNREADABLE)
    authority, _, path = url.partition("?")[0].partition("://")[2].partition("/")
    if not url.strip() or authority.count("@") > 1 or "@" in path:
        raise unreadable
    try:
        parameters = conninfo_to_dict(url)
    except (psycopg.Error, ValueError):
        raise unreadable from None
    defaults = {option.keyword.decode(): (option.val or b"").decode() for option in psycopg.pq.Conninfo.get_defaults()}
    host = str(parameters.get("host") or parameters.get("hostaddr") or defaults.get("host") or "localhost")
    port = str(parameters.get("port") or defaults.get("port") or "5432")
    if not re.fullmatch(r"[\d,]*", port) or "@" in host[1:]:  # at the front it marks an abstract socket
        raise unreadable
    # Of several hosts, each has its port or all have the same.
    ports = cycle(part or "5432" for part in port.split(","))
    hosts = (f"[{part}]" if ":" in part else part for part in host.split(","))
    return ", ".join(f"{part}:{number}" for part, number in zip(hosts, ports, strict=False))


def _why_not_connected(place: str, error: Exception) -> str:
    # When several addresses were tried, the first line tells of the last of them.
    reason = one_line(str(error).split("\n", 1)[0])
    reason = re.sub(r"^connection (?:failed|is bad): (?:connection to server .*? failed: )?(?:FATAL: +)?", "", reason)
    refused = "FATAL: " in str(error)
    if re.fullmatch(r'database ".*" does not exist', reason):
        return f"There is no {reason.removesuffix(' does not exist')} at {place}. Create it, or correct DATABASE_URL."
    if re.fullmatch(r'role ".*" does not exist', reason) or any(words in reason for words in _REFUSALS):
        return f"The database at {place} does not let us in: {reason}. Correct the user or password in DATABASE_URL."
    if refused:
        return f"The database at {place} refused the connection: {reason}. Mend that, or correct DATABASE_URL."
    return f"The database at {place} cannot be reached: {reason}. Start it, or correct DATABASE_URL."
