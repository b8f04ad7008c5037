"""Serves: takes the port, makes the database ready, answers requests, and stops everything it started.

What fails cheaply comes first: a port that is taken shows before PostgreSQL is started, and a database that is not
migrated before the application is loaded. uvicorn raises the signal that
ended it once more, for the handler that was there before it: what was opened is closed on the way out.
"""

import asyncio
import errno
import http.client
import importlib.util
import ipaddress
import logging
import multiprocessing
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing
from multiprocessing import resource_tracker
from pathlib import Path
from types import FrameType

import uvicorn
from pydantic import SecretStr
from starlette.applications import Starlette
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import ChangeReload, Multiprocess

from db import preflight
from db.checkup_rights import keeps_tenants_apart
from graphql_api import __version__, database
from graphql_api.auth import is_open, token_verifier
from graphql_api.database import Ready
from graphql_api.server import configure
from graphql_api.settings import Settings, row_security_of
from graphql_api.terminal import CommandError, Stop, say

PACKAGES = ("graphql_api", "schema", "db")
# Files that are no connections of callers: to the database, of the program.
FILES_BESIDE = 500
PROBE_SECONDS_MAX = 60.0
PROBE_AGAIN_SECONDS = 0.1


def serve(settings: Settings, stop: Stop, *, migrating: bool = False, workers: int = 1, reload: bool = False) -> None:
    """Serve until SIGINT or SIGTERM.

    `migrating` says whether to migrate the database of DATABASE_URL; the embedded one always is.
    Raises: CommandError, MigrateError, EmbeddedError.
    """
    _check_trusted(settings)
    _allow_connections(settings)
    token_verifier(settings)
    with (
        closing(_listen_safely(settings)) as listener,
        database.ready(settings, migrating=migrating) as ready,
    ):
        _check_row_security(settings, ready)
        settings = settings.model_copy(update={"database_url": SecretStr(ready.service_url)})

        def announce() -> None:
            say(banner(listener, ready, settings))

        if reload or workers > 1:
            _serve_in_children(settings, listener, announce, stop, workers=workers, reload=reload)
        else:
            _serve_here(settings, listener, announce, stop)


def _allow_connections(settings: Settings) -> None:
    """Let this process and its children have a file for each connection, as far as the system lets them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.connections_max + FILES_BESIDE
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


def _check_trusted(settings: Settings) -> None:
    """Look at the trusted documents here: a worker could tell of a fault only in the log."""
    if settings.trusted_documents is not None or settings.trusted_documents_only:
        from graphql_api.operation import Operations  # with the schema the slowest import, which few need this early
        from schema.root import schema

        Operations(schema._schema, settings)  # noqa: SLF001 - graphql-core's own schema


def _check_row_security(settings: Settings, ready: Ready) -> None:
    """Refuse a role that sees the rows of all tenants, where PostgreSQL is to keep them apart.

    Raises: CommandError, MigrateError.
    """
    if row_security_of(settings):
        with preflight.connect(ready.service_url) as connection:
            found = keeps_tenants_apart(connection)
        if found.status == "failed":
            raise CommandError(f"{found.found} {found.remedy}")


def listen(host: str, port: int) -> socket.socket:
    """Take the port, and let callers wait in line until the service answers.

    A port that is bound without listening could be taken by another process as well.
    Raises: CommandError.
    """
    try:
        # One address: of a name that has several, IPv4 goes first, since what looks for IPv6 tries IPv4 as well.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        return socket.create_server(address[:2], family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        raise CommandError(_why_not_bound(host, port, error)) from error


def _why_not_bound(host: str, port: int, error: OSError | UnicodeError) -> str:
    match error:
        case OSError(errno=errno.EADDRINUSE):
            what = f"Port {port} on {host} is in use. Stop what uses it, or choose another"
        case OSError(errno=errno.EACCES):
            what = f"Port {port} on {host} is reserved for other users. Choose one of 1024 or more"
        case _:
            reason = getattr(error, "strerror", None) or "that is no name of a host"
            return (
                f"Cannot listen on {host}: {reason[0].lower()}{reason[1:]}. "
                "Choose an address of this machine with --host or FORKPOINT_HOST."
            )
    return f"{what} with --port or FORKPOINT_PORT."


def _listen_safely(settings: Settings) -> socket.socket:
    """Take the port, unless other machines would reach it and nobody were asked for a credential.

    Raises: CommandError.
    """
    listener = listen(settings.host, settings.port)
    if is_open(settings) and not settings.allow_unauthenticated and not _is_loopback(listener):
        listener.close()
        raise CommandError(
            f"{settings.host} can be reached from other machines, and there is no authentication: whoever reaches it"
            " would read and write everything. Set FORKPOINT_AUTHENTICATION=keys or jwt, listen on 127.0.0.1, or, where"
            " something else keeps others away, set FORKPOINT_ALLOW_UNAUTHENTICATED=true."
        )
    return listener


def _is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback


def banner(listener: socket.socket, ready: Ready, settings: Settings) -> str:
    """Write what a newcomer needs to know, and what an operator must."""
    url = f"http://{_reachable(listener)}"
    lines = [
        f"\nForkpoint {__version__} is ready.\n",
        f"  {'GraphQL and GraphiQL' if settings.graphiql else 'GraphQL':20}  {url}/graphql",
        f"  Health                {url}/health",
        f"  Data                  {ready.shown}\n",
    ]
    address = listener.getsockname()[0]
    if is_open(settings) and not _is_loopback(listener):
        lines.append(
            f"  Warning: {address} can be reached from other machines, and there is no authentication:\n"
            "  whoever reaches it reads and writes everything.\n"
        )
    return "\n".join([*lines, "  Ctrl-C stops.\n"])


def _reachable(listener: socket.socket) -> str:
    """Give an address to call: of a listener on all addresses, that of this machine."""
    address, port = listener.getsockname()[:2]
    if ipaddress.ip_address(address).is_unspecified:
        address = "::1" if listener.family == socket.AF_INET6 else "127.0.0.1"
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class _Server(uvicorn.Server):
    """uvicorn's server, with words for the terminal, and minding a signal that came before its own handlers."""

    def __init__(self, config: uvicorn.Config, announce: Callable[[], None], stop: Stop) -> None:
        super().__init__(config)
        self._announce = announce
        self._stop = stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.should_exit |= self._stop.asked
        if self.started and not self.should_exit:
            self._announce()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # At a second Ctrl-C uvicorn would not even close the application. Told of SIGTERM it does: only requests go.
        for task in self.server_state.tasks if self.should_exit and sig == signal.SIGINT else ():
            task.cancel()
        super().handle_exit(signal.SIGTERM, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        say("\nStopping…")
        await super().shutdown(sockets)


def _serve_here(settings: Settings, listener: socket.socket, announce: Callable[[], None], stop: Stop) -> None:
    from graphql_api.app import create_app  # the slowest import, when all else is known to work

    _leave_cancellations_out()
    # uvicorn's own news of starting and stopping are said by the banner already.
    level = "warning" if settings.log_level == "info" else settings.log_level
    _Server(configure(create_app(settings), settings, log_level=level), announce, stop).run(sockets=[listener])


def _serve_in_children(
    settings: Settings,
    listener: socket.socket,
    announce: Callable[[], None],
    stop: Stop,
    *,
    workers: int,
    reload: bool,
) -> None:
    from graphql_api import log

    log.configure(settings)
    assert settings.database_url is not None  # noqa: S101
    # The others read what we read; flags have been read already.
    os.environ["DATABASE_URL"] = settings.database_url.get_secret_value()
    os.environ["FORKPOINT_HOST"] = settings.host
    config = configure(
        "graphql_api.serve:create_child",
        settings,
        factory=True,
        log_level=settings.log_level,
        workers=workers,
        reload=reload,
        reload_dirs=_sources() if reload else None,
    )
    threading.Thread(target=_announce_when_answered, args=(_reachable(listener), announce), daemon=True).start()
    _keep_interrupts()
    children = None if reload else Multiprocess(config, [listener])
    run = children.run if children else ChangeReload(config, uvicorn.Server(config).run, [listener]).run
    if not stop.asked:
        run()
    if children and any(process.exitcode == STARTUP_FAILURE for process in children.processes):
        raise CommandError("A worker could not start. The log above says why; mend that and start again.")


def create_child() -> Starlette:
    """Make the application in a process of several, which ends with the process that started it."""
    from graphql_api.app import create_app

    threading.Thread(target=_end_with_parent, daemon=True).start()
    _leave_cancellations_out()
    return create_app()


def _leave_cancellations_out() -> None:
    """Keep the stack traces of requests that were given up at the end out of the log: nothing is wrong with them."""

    def is_news(record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))

    logging.getLogger("uvicorn.error").addFilter(is_news)


def _end_with_parent() -> None:
    # A killed parent cannot tell its children, who would keep the port.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _keep_interrupts() -> None:
    """Keep SIGINT, which a terminal sends to every process, from children, who would die of it while they start.

    They inherit the mask of this thread and get SIGTERM from us instead. Here another thread takes the signal; Python
    runs its handler in this one.
    """
    resource_tracker.ensure_running()  # or it starts with the first child, and unblocks SIGINT when it has
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


def _announce_when_answered(address: str, announce: Callable[[], None]) -> None:
    while True:
        connection = http.client.HTTPConnection(address, timeout=PROBE_SECONDS_MAX)
        try:
            connection.request("HEAD", "/health")
            connection.getresponse()
        except (OSError, http.client.HTTPException):
            time.sleep(PROBE_AGAIN_SECONDS)
        else:
            announce()
            return
        finally:
            connection.close()


def _sources() -> list[str]:
    """Name the folders whose Python files a reloading service watches."""
    specs = [importlib.util.find_spec(name) for name in PACKAGES]
    return [str(Path(spec.origin).parent) for spec in specs if spec and spec.origin]
