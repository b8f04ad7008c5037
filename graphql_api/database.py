"""Makes the database ready for a command: starts or joins the embedded one, and migrates it or checks that it is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from db import embedded, embedded_role, migrate, preflight
from graphql_api.settings import Settings
from graphql_api.terminal import CommandError, say


@dataclass(frozen=True)
class Ready:
    """A database to be served: its URL, that of the role that serves, and words for it that hold no password."""

    url: str
    service_url: str
    shown: str


@contextmanager
def ready(settings: Settings, *, migrating: bool, tell: Callable[[str], None] = say) -> Iterator[Ready]:
    """Give a database that answers and is migrated, and at the end leave the embedded one.

    `migrating` says whether to migrate the one of DATABASE_URL, or to refuse it when that is needed; `tell` is told
    what takes its time.
    Raises: CommandError, MigrateError, EmbeddedError.
    """
    if settings.database_url is not None:
        yield _own(settings.database_url.get_secret_value(), settings, migrating=migrating)
        return
    tell("Starting PostgreSQL…")
    with embedded.running(settings.home) as server:
        apply_migrations(server.url, tell)
        embedded_role.make(server.url)
        shown = str(server.home)
        if server.moved:
            shown += f"\n{'':24}(PostgreSQL does not run as root, and its user cannot enter {settings.home.resolve()})"
        yield Ready(server.url, server.service_url, shown)


def _own(url: str, settings: Settings, *, migrating: bool) -> Ready:
    if migrating:
        with to_migrate(settings) as migrate_url:
            apply_migrations(migrate_url)
    waiting = migrate.pending(url)
    if waiting and migrating:
        raise CommandError(
            f"{_count(waiting)} still pending in the database of DATABASE_URL, though that of FORKPOINT_MIGRATE_URL "
            "is migrated. Let both name the same database and schema."
        )
    if waiting:
        raise CommandError(f"{_count(waiting)} pending. Run `forkpoint migrate up`, or serve with --migrate.")
    with preflight.connect(url) as connection:
        info = connection.info
        return Ready(url, url, f"database {info.dbname} at {info.host}:{info.port}")


def apply_migrations(url: str, tell: Callable[[str], None] = say) -> list[migrate.Migration]:
    """Bring a database up to date, and say so before it takes its time.

    Shape: the newly applied, oldest first.
    Raises: MigrateError.
    """
    waiting = migrate.pending(url)
    if waiting:
        tell(f"Applying {waiting} migration{'s' * (waiting != 1)}…")
    return migrate.up(url)


@contextmanager
def to_migrate(settings: Settings) -> Iterator[str]:
    """Give the URL of the database to migrate, and let refusals name where it came from.

    Raises: EmbeddedError.
    """
    if settings.migrate_url is not None:
        with _naming("FORKPOINT_MIGRATE_URL"):
            yield settings.migrate_url.get_secret_value()
    elif settings.database_url is not None:
        yield settings.database_url.get_secret_value()
    else:
        with embedded.running(settings.home) as server:
            yield server.url


@contextmanager
def _naming(variable: str) -> Iterator[None]:
    """Let refusals name the variable that the URL came from, where that is not DATABASE_URL."""
    try:
        yield
    except migrate.MigrateError as error:
        raise migrate.MigrateError(str(error).replace("DATABASE_URL", variable)) from error


def _count(waiting: int) -> str:
    return "1 migration is" if waiting == 1 else f"{waiting} migrations are"
