"""The service as its users start it, and what the kernel tells of it: CPU and memory."""

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers import load

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 15.0
SERVE = "from graphql_api.cli import main; main()"
# The doorbell does not ring: what a service without live readers would be.
SILENT = "from db.live import Live; Live.ring = lambda *_: None; "


@dataclass(frozen=True)
class System:
    """A way to run the service: `before` is Python that runs first."""

    title: str
    environment: dict[str, str] = field(default_factory=dict)
    before: str = ""


RINGING = System("with the doorbell")
RESOLVED = System("without plans", {"FORKPOINT_PLANNED_READS": "false"})
MUTE = System("without the doorbell", before=SILENT)


@dataclass(frozen=True)
class Memory:
    """What a process holds, in megabytes: all; its share of what several hold; and its own alone."""

    resident: float
    proportional: float
    own: float

    def __sub__(self, other: "Memory") -> "Memory":
        return Memory(self.resident - other.resident, self.proportional - other.proportional, self.own - other.own)

    def __str__(self) -> str:
        return f"RSS {self.resident:.1f} MB, PSS {self.proportional:.1f}, USS {self.own:.1f}"


@dataclass(frozen=True)
class Running:
    """A service that answers, and the PostgreSQL below it."""

    pid: int
    port: int
    postmaster: int

    def cpu(self) -> tuple[float, float]:
        """Give the CPU seconds so far, of the service and of PostgreSQL."""
        return load.cpu(self.pid), load.cpu_of_family(self.postmaster)

    def memory(self) -> Memory:
        """Give what the service holds."""
        sizes: dict[str, float] = {}
        for line in Path(f"/proc/{self.pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]:
            name, _, size = line.partition(":")
            sizes[name] = int(size.split()[0]) / 1024
        return Memory(sizes["Rss"], sizes["Pss"], sizes["Private_Clean"] + sizes["Private_Dirty"])


@contextlib.contextmanager
def running(system: System, url: str, postmaster: int) -> Iterator[Running]:
    """Start the service with one process on 127.0.0.1, and stop it at the end."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FORKPOINT_", "PG"))}
    settings = {"DATABASE_URL": url, "FORKPOINT_PORT": str(port), "FORKPOINT_LOG_LEVEL": "warning"}
    process = subprocess.Popen(
        [sys.executable, "-c", system.before + SERVE, "serve"],
        env=inherited | {"PYTHONPATH": str(ROOT)} | settings | system.environment,
        stdout=subprocess.DEVNULL,
    )
    try:
        _await(process, port)
        yield Running(process.pid, port, postmaster)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_SECONDS_MAX)
        with contextlib.suppress(OSError), contextlib.closing(connection):
            connection.request("GET", "/health")
            if connection.getresponse().status == http.client.OK:
                return
        time.sleep(0.05)
    raise SystemExit("The service did not start; above it says why.")
