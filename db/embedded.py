"""An embedded PostgreSQL that needs no installation: started with its first client, stopped with its last.

A client first takes a shared lock on `HOME/clients`; while it holds that, no supervisor stops the server. Then, one
client at a time under `HOME/starting`, it looks whether a supervisor lives (`HOME/supervisor` is locked) and starts one
where there is none. It leaves by letting go of its lock, which the kernel does for a client that was killed. The last
one to leave waits until the server has stopped, so that a container may end with it. The other half of this play is
`db.embedded_supervisor`; who runs what where is settled in `db.embedded_home`.
"""

import contextlib
import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from psycopg import pq
from psycopg.conninfo import make_conninfo

from db import embedded_role, embedded_supervisor
from db.embedded_home import EmbeddedError, Site, binaries, runnable_binaries, settle
from db.embedded_supervisor import open_private, try_lock

__all__ = ["EmbeddedError", "EmbeddedServer", "binaries", "running"]

JOIN_SECONDS_MAX = embedded_supervisor.START_SECONDS_MAX + 10.0
LEAVE_SECONDS_MAX = 10.0  # the supervisor goes on stopping the server after we have gone
LOOK_SECONDS = 0.01


@dataclass(frozen=True)
class EmbeddedServer:
    """A server that runs: how to reach it, where its data lie, and whether that is elsewhere than was asked for."""

    url: str
    service_url: str  # for the role of db.embedded_role, when that is made
    data_folder: Path
    home: Path
    moved: bool


@contextmanager
def running(home: Path) -> Iterator[EmbeddedServer]:
    """Start or join the server of this home, and leave it at the end; the last to leave stops the server.

    Raises: EmbeddedError, before the body runs, when there can be no server.
    """
    binaries()  # without them there is nothing to make a home for
    with contextlib.ExitStack() as stack:
        try:
            site = settle(home)
            clients = _open(site, "clients")
            stack.callback(os.close, clients)
            stack.callback(_leave, site, clients)
            fcntl.flock(clients, fcntl.LOCK_SH)
            _join(site)
        except OSError as error:
            raise EmbeddedError(
                f"The embedded database cannot use {error.filename or home}: {error.strerror or error}. "
                "Mend that, name another folder, or set DATABASE_URL."
            ) from error
        yield EmbeddedServer(_url(site), _url(site, embedded_role.ROLE), site.home / "data", site.home, site.moved)


def _url(site: Site, role: str = "forkpoint") -> str:
    # libpq and its like would take the port from the environment, which is meant for another server.
    port = "&port=5432" if "PGPORT" in os.environ else ""
    return f"postgresql://{role}@/forkpoint?host={quote(str(site.socket_folder), safe='')}{port}"


def _open(site: Site, name: str) -> int:
    if site.account is None:
        return open_private(site.home / name)
    return open_private(site.home / name, site.account.uid, site.account.gid)


@contextmanager
def _opened(site: Site, name: str) -> Iterator[int]:
    descriptor = _open(site, name)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _join(site: Site) -> None:
    """Return when the server answers, starting it where nobody did."""
    conninfo = make_conninfo(_url(site), connect_timeout=5).encode()
    deadline = time.monotonic() + JOIN_SECONDS_MAX
    while time.monotonic() < deadline:
        with _opened(site, "starting") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            if not _supervised(site):
                _start(site)
        while _supervised(site) and time.monotonic() < deadline:
            if pq.PGconn.ping(conninfo) == pq.Ping.OK:
                return
            time.sleep(LOOK_SECONDS)
    raise EmbeddedError(
        f"PostgreSQL in {site.home} did not answer for {JOIN_SECONDS_MAX:.0f} seconds. Read its log there."
    )


def _supervised(site: Site) -> bool:
    """Tell whether a supervisor lives: it holds its lock."""
    with _opened(site, "supervisor") as supervisor:
        return not try_lock(supervisor, fcntl.LOCK_SH)


def _start(site: Site) -> None:
    """Start a supervisor and wait for its one line."""
    uid, gid = (site.account.uid, site.account.gid) if site.account else (-1, -1)
    places = (site.home, site.socket_folder, runnable_binaries(site.account))
    with subprocess.Popen(
        # Isolated and without site-packages: it needs the standard library only, and starts faster.
        [sys.executable, "-I", "-S", embedded_supervisor.__file__, *map(str, places), str(uid), str(gid)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        cwd="/",
        start_new_session=True,
    ) as process:
        assert process.stdout is not None  # noqa: S101
        word, _, message = process.stdout.readline().decode().strip().partition(" ")
    if word == "error":
        raise EmbeddedError(message)
    if word not in {"ready", "busy"}:
        raise EmbeddedError(f"The supervisor of PostgreSQL in {site.home} died while starting. Start again.")


def _leave(site: Site, clients: int) -> None:
    """Let go; when nobody else holds on, wait for the server to stop, within a limit."""
    deadline = time.monotonic() + LEAVE_SECONDS_MAX
    fcntl.flock(clients, fcntl.LOCK_UN)
    with contextlib.suppress(OSError):  # somebody removed the home
        while _supervised(site) and time.monotonic() < deadline:
            shared = not try_lock(clients, fcntl.LOCK_EX) and try_lock(clients, fcntl.LOCK_SH)
            fcntl.flock(clients, fcntl.LOCK_UN)
            if shared:  # there are others, and the supervisor is not stopping
                return
            time.sleep(LOOK_SECONDS)
