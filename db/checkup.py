"""Examines a database: can it be reached, is it what our SQL needs, may we change it, does it stand as it should.

Nothing is written and no finding holds a password, so it may be run against production. The questions are put to the
catalog, beyond what tables of ours hold.
"""

import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from db import checkup_rights as rights
from db import migrate, preflight, queries
from db.dbmate import Connection, MigrateError
from db.finding import Finding, failed, ok, refused, skipped, warning

CHECKS = (
    "reachability",
    "version",
    "pgvector",
    "migrate-rights",
    "write-rights",
    "row-security",
    "migrations",
    "pooler",
    "read-write",
    "clock",
    "connections",
)
ANSWER_SECONDS_MAX = 10.0
PROBES = 3

_PROBE = queries.load("health")["probe"].text
_BACKEND = queries.load("pool")["backend"].text
_MAY_CREATE_PGVECTOR = """
select asking.rolsuper or not offered.superuser
  or offered.trusted and has_database_privilege(current_database(), 'create')
from pg_available_extensions as available
join pg_available_extension_versions as offered
  on offered.name = available.name and offered.version = available.default_version
cross join pg_roles as asking
where available.name = %s
  and asking.rolname = current_user
"""
_READ_ONLY = """
select
  pg_is_in_recovery(), read_only.setting = 'on', read_only.source, quote_ident(current_user),
  quote_ident(current_database())
from pg_settings as read_only
where read_only.name = 'default_transaction_read_only'
"""
_CLOCK = "select extract(epoch from clock_timestamp())::double precision"
# The connections that listen and notify.
LIVE_SIZE = 2

# `reserved_connections` came with PostgreSQL 16.
_CONNECTIONS = """
select least(
  current_setting('max_connections')::integer
    - current_setting('superuser_reserved_connections')::integer
    - coalesce(current_setting('reserved_connections', true), '0')::integer,
  nullif(asking.rolconnlimit, -1),
  nullif(asked.datconnlimit, -1)
)
from pg_roles as asking
cross join pg_database as asked
where asking.rolname = current_user
  and asked.datname = current_database()
"""
_NONE_PENDING = ok("None is pending.")
_CLOSERS = {
    "client": "Take default_transaction_read_only out of the options in DATABASE_URL.",
    "user": "Run `alter role {role} reset default_transaction_read_only;` and connect anew.",
    "database": "Run `alter database {database} reset default_transaction_read_only;` and connect anew.",
    "database user": (
        "Run `alter role {role} in database {database} reset default_transaction_read_only;` and connect anew."
    ),
}
_CLOSED_FOR_ALL = (
    "Run `alter system set default_transaction_read_only = off;` and `select pg_reload_conf();` as a superuser."
)


@dataclass(frozen=True)
class Wanted:
    """What the service will ask of the database, and how it will be migrated."""

    migrate_url: str | None
    migrated_when_served: bool
    workers: int
    pool_size_min: int
    pool_size_max: int
    lane_size: int
    clock_seconds_max: float
    row_security: bool = False


def examine(url: str, wanted: Wanted) -> dict[str, Finding]:
    """Examine the database that a URL names.

    Shape: findings by the names in CHECKS; of a database that cannot be reached, "reachability" alone.
    """
    with ExitStack() as stack:
        started = time.perf_counter()
        try:
            connection = stack.enter_context(preflight.connect(url))
        except MigrateError as error:
            return {"reachability": refused(error)}
        connected_ms = (time.perf_counter() - started) * 1000
        direct, refusal = connection, None
        if wanted.migrate_url is not None:
            try:
                direct = stack.enter_context(preflight.connect(wanted.migrate_url))
            except MigrateError as error:
                refusal = refused(MigrateError(str(error).replace("DATABASE_URL", "FORKPOINT_MIGRATE_URL")))
        patient = _Patient(connection, direct, refusal, wanted)
        found = {
            "reachability": patient.ask(lambda: _reachability(connection, connected_ms)),
            "migrations": patient.ask(lambda: _migrations(connection, wanted)),
        }
        if found["reachability"].status == "ok":
            migrated = found["migrations"] == _NONE_PENDING
            found |= {name: patient.ask(check) for name, check in _checks(patient, migrated=migrated).items()}
            if found["version"].status == "failed":  # what pgvector needs there, it needs on the newer server
                found["pgvector"] = skipped("version failed")
        return found


@dataclass(frozen=True)
class _Patient:
    """A database that is being examined: as the service reaches it, and `direct` as migrations do, unless refused."""

    connection: Connection
    direct: Connection
    refusal: Finding | None
    wanted: Wanted

    def ask(self, check: Callable[[], Finding]) -> Finding:
        """Carry one check out, within a limit of time, and take failures of its statements for findings."""
        connections = {self.connection, self.direct}
        if any(connection.closed for connection in connections):
            return skipped("the connection was lost")
        started = time.monotonic()
        timer = threading.Timer(ANSWER_SECONDS_MAX, _hang_up, [connection.fileno() for connection in connections])
        timer.start()
        try:
            with preflight.telling(self.connection, _shown(self.connection)):
                return check()
        except MigrateError as error:
            if time.monotonic() - started >= ANSWER_SECONDS_MAX:
                return failed(
                    f"The database gave no answer for {ANSWER_SECONDS_MAX:g} seconds.",
                    "Look in pg_stat_activity for what holds a lock on the tables, such as a migration under way.",
                )
            return refused(error)
        finally:
            timer.cancel()


def _checks(patient: _Patient, *, migrated: bool) -> dict[str, Callable[[], Finding]]:
    connection, direct, refusal, wanted = patient.connection, patient.direct, patient.refusal, patient.wanted
    return {
        "version": lambda: _version(connection),
        "pgvector": lambda: _pgvector(connection, direct, wanted),
        "migrate-rights": lambda: refusal or _may_migrate(connection, direct, wanted, migrated=migrated),
        "write-rights": lambda: rights.may_write(connection, migrated=migrated),
        "row-security": lambda: _row_security(connection, wanted, migrated=migrated),
        "pooler": lambda: _pooler(connection, direct, wanted, refusal),
        "read-write": lambda: _read_write(connection),
        "clock": lambda: _clock(connection, wanted),
        "connections": lambda: _connections(connection, wanted),
    }


def _hang_up(*descriptors: int) -> None:
    """Break connections whose server does not answer; a frozen one would not hear a request to stop, either."""
    for descriptor in descriptors:
        with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connected:
            connected.shutdown(socket.SHUT_RDWR)


def _shown(connection: Connection) -> str:
    return f"{connection.info.host}:{connection.info.port}"


def _reachability(connection: Connection, connected_ms: float) -> Finding:
    latencies_ms = []
    for _ in range(PROBES):
        started = time.perf_counter()
        preflight.row(connection, _PROBE)
        latencies_ms.append((time.perf_counter() - started) * 1000)
    return ok(
        f"The database {connection.info.dbname} at {_shown(connection)} answers in {min(latencies_ms):.2f} ms; "
        f"connecting took {connected_ms:.0f} ms."
    )


def _version(connection: Connection) -> Finding:
    preflight.require_version(connection)
    return ok(f"PostgreSQL {connection.info.parameter_status('server_version')}.")


def _pgvector(connection: Connection, direct: Connection, wanted: Wanted) -> Finding:
    installed = preflight.installed_pgvector(connection)
    if installed is not None:
        return ok(f"pgvector {installed}.")
    if wanted.migrated_when_served:
        return ok("pgvector is on the server, and `forkpoint serve` creates the extension.")
    found = "pgvector is on the server, but the extension is not created in this database."
    (allowed,) = preflight.row(direct, _MAY_CREATE_PGVECTOR, preflight.EXTENSION)
    if allowed:
        return warning(found, "Run `forkpoint migrate up`, which creates it.")
    return failed(
        f"{found[:-1]}, and the role {rights.role(direct)} may not create it.",
        "Run `create extension vector;` in this database once as a superuser.",
    )


def _may_migrate(connection: Connection, direct: Connection, wanted: Wanted, *, migrated: bool) -> Finding:
    if not rights.is_same_database(connection, direct):
        return failed(
            "FORKPOINT_MIGRATE_URL leads to other tables than DATABASE_URL.",
            "Let both name the same server, database and schema.",
        )
    # Whoever names a URL for migrations means it to be able to.
    return rights.may_migrate(direct, needed=not migrated or wanted.migrate_url is not None)


def _migrations(connection: Connection, wanted: Wanted) -> Finding:
    if rights.closed_schema(connection) is not None or not rights.may_read_versions(connection):
        return skipped("write-rights failed")
    waiting = migrate.waiting(connection)
    if not waiting:
        return _NONE_PENDING
    found = f"{len(waiting)} pending, from {waiting[0].version}_{waiting[0].name} on"
    if wanted.migrated_when_served:
        return ok(f"{found}; `forkpoint serve` applies them.")
    return failed(f"{found}.", "Run `forkpoint migrate up`.")


def _row_security(connection: Connection, wanted: Wanted, *, migrated: bool) -> Finding:
    if not wanted.row_security:
        return ok("It is off: the predicates of the statements alone keep tenants apart.")
    if wanted.migrated_when_served:
        return ok("It is on; `forkpoint serve` makes a role that it binds.")
    return rights.keeps_tenants_apart(connection) if migrated else skipped("migrations are pending")


def _pooler(connection: Connection, direct: Connection, wanted: Wanted, refusal: Finding | None) -> Finding:
    if wanted.migrate_url is not None and refusal is None and _is_pooled(direct):
        return warning(
            f"Migrations go through the pooler at {_shown(direct)}.",
            "Let FORKPOINT_MIGRATE_URL name the server itself, without the pooler.",
        )
    if not _is_pooled(connection):
        return ok("There is none.")
    if wanted.migrate_url is None:
        return warning(
            f"A pooler is in front at {_shown(connection)}, and migrations would go through it.",
            "Set FORKPOINT_MIGRATE_URL to a URL of the same database that goes around the pooler.",
        )
    return ok(f"One is in front at {_shown(connection)}; migrations go around it by FORKPOINT_MIGRATE_URL.")


def _is_pooled(connection: Connection) -> bool:
    """Tell by what db.pool goes by: the name of the host, or being served by another process than greeted us."""
    (backend_pid,) = preflight.row(connection, _BACKEND)
    return "-pooler" in connection.info.host or backend_pid != connection.info.backend_pid


def _read_write(connection: Connection) -> Finding:
    in_recovery, read_only, source, role, database = preflight.row(connection, _READ_ONLY)
    if in_recovery:
        return failed(
            "The server is in recovery: a standby, which takes no writes.",
            "Name the primary in DATABASE_URL; of several hosts, `target_session_attrs=read-write` finds it.",
        )
    if read_only:
        return failed(
            f"Transactions are read-only: default_transaction_read_only is on (set by: {source}).",
            _CLOSERS.get(source, _CLOSED_FOR_ALL).format(role=role, database=database),
        )
    return ok("The server takes writes.")


def _clock(connection: Connection, wanted: Wanted) -> Finding:
    before = time.time()
    (there,) = preflight.row(connection, _CLOCK)
    after = time.time()
    ahead = there - (before + after) / 2
    # The answer was made at some moment between the two.
    if abs(ahead) - (after - before) / 2 <= wanted.clock_seconds_max:
        return ok(f"The database's clock agrees with this machine's ({round(ahead, 3) + 0.0:+.3f} s).")
    return warning(
        f"The database's clock is {abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} this machine's.",
        "Synchronise the one that is wrong, on Linux by `timedatectl set-ntp true`.",
    )


def _connections(connection: Connection, wanted: Wanted) -> Finding:
    if _is_pooled(connection):
        return ok("The pooler in front shares the server's connections out; its own limit was not examined.")
    (allowed,) = preflight.row(connection, _CONNECTIONS)
    own = wanted.lane_size + LIVE_SIZE
    sizes = (wanted.pool_size_max + own, wanted.pool_size_min + own)
    most, least = (wanted.workers * size for size in sizes)
    processes = "One process takes" if wanted.workers == 1 else f"{wanted.workers} processes take"
    found = f"{processes} up to {most} connections of the {allowed} that the server allows"
    if most <= allowed:
        return ok(f"{found}: room for {allowed // sizes[0]} such processes.")
    fits = allowed // wanted.workers
    if fits > own:
        first = f"Set FORKPOINT_POOL_SIZE_MAX={fits - own}, or raise"
    elif fits > LIVE_SIZE:
        first = f"Set FORKPOINT_FAST_LANE_CONNECTIONS=0 and FORKPOINT_POOL_SIZE_MAX={fits - LIVE_SIZE}, or raise"
    else:
        first = "Serve with fewer processes, or raise"
    remedy = f"{first} what the server allows (max_connections, or the limit of the role or the database)."
    return (failed if least > allowed else warning)(f"{found}.", remedy)
