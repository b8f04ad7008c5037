"""Loads one system with one workload by wrk, and reads what it cost the server process and PostgreSQL."""

import os
import shutil
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from benchmarks.peers.systems import Running

SCRIPT = Path(__file__).parent / "requests.lua"
TICKS = os.sysconf("SC_CLK_TCK")
GRACE_SECONDS = 30.0
LATE_SECONDS = 10
HEAD_BYTES = 60


class LoadError(Exception):
    """A run that measured something else than what was asked for."""


@dataclass(frozen=True, slots=True)
class Run:
    """What one run showed: rate a second, milliseconds, CPU microseconds a request."""

    rate: float
    p50: float
    p99: float
    server_cpu: float
    postgres_cpu: float


@dataclass(frozen=True, slots=True)
class Load:
    """How hard and how long."""

    connections: int
    seconds: int


def missing() -> str | None:
    """Say what must be installed."""
    return None if shutil.which("wrk") else "wrk is not installed: the distribution has it (`apt-get install wrk`)"


def run(
    running: Running, bodies: Iterable[Any], load: Load, postmaster: int, answer_bytes: float, *, once: bool
) -> Run:
    """Send the bodies, over and over or each `once`, to a system whose answers have so many bytes.

    Raises: LoadError when requests failed, answers were much smaller, or there were too few bodies.
    """
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"forkpoint-peers-{os.getpid()}.bodies"  # noqa: S108 - no secret
    lines = [orjson.dumps(body) for body in bodies]
    path.write_bytes(b"\n".join(lines) + b"\n")
    try:
        before = cpu(running.pid), cpu_of_family(postmaster)
        found = _wrk(running, load, path)
        server, postgres = cpu(running.pid) - before[0], cpu_of_family(postmaster) - before[1]
    finally:
        path.unlink()
    requests = found["requests"]
    if not requests or found["refused"] or found["failed"] or found["late"]:
        raise LoadError(f"{running.system.title}: {found}")
    # Errors come with status 200 too. Their answers are short.
    if found["bytes"] / requests < answer_bytes / 2 + HEAD_BYTES / 2:
        raise LoadError(f"{running.system.title} gave {found['bytes'] / requests:.0f} bytes, not {answer_bytes:.0f}")
    if once and requests > len(lines):
        raise LoadError(f"{running.system.title} took all {len(lines)} documents before the time was over: shorten it")
    return Run(
        rate=requests / found["microseconds"] * 1e6,
        p50=found["p50"] / 1000,
        p99=found["p99"] / 1000,
        server_cpu=server / requests * 1e6,
        postgres_cpu=postgres / requests * 1e6,
    )


def median(runs: Sequence[Run]) -> Run:
    """Give the median of each figure."""
    names = Run.__dataclass_fields__
    return Run(**{name: statistics.median(getattr(each, name) for each in runs) for name in names})


def resident_megabytes(pid: int) -> float:
    """Give the memory that a process holds."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _wrk(running: Running, load: Load, bodies: Path) -> dict[str, int]:
    command = ["wrk", "--threads", "1", "--connections", str(load.connections), "--duration", f"{load.seconds}s"]
    finished = subprocess.run(
        [
            *command,
            "--timeout",
            f"{LATE_SECONDS}s",
            "--latency",
            "--script",
            str(SCRIPT),
            f"http://127.0.0.1:{running.port}",
        ],
        env=os.environ | {"PEERS_BODIES": str(bodies), "PEERS_AUTHORIZATION": running.authorization},
        capture_output=True,
        check=False,
        timeout=load.seconds + GRACE_SECONDS,
    )
    lines = finished.stdout.splitlines()
    if finished.returncode or not lines or not lines[-1].startswith(b"{"):
        raise LoadError(f"wrk failed: {finished.stdout!r} {finished.stderr!r}")
    found: dict[str, int] = orjson.loads(lines[-1])
    return found


def cpu(pid: int) -> float:
    """Give the CPU seconds of a process with all its threads."""
    return _times(pid)[0]


def cpu_of_family(postmaster: int) -> float:
    """Give the CPU seconds of PostgreSQL: its first process, those that are its children, and those that were."""
    own, ended = _times(postmaster)
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text(encoding="ascii").split()
    return own + ended + sum(_times(int(child))[0] for child in children)


def _times(pid: int) -> tuple[float, float]:
    """Give the CPU seconds of a process, and of its children that have ended; nothing when it has gone."""
    try:
        # The name in parentheses may hold anything; what follows it are numbers.
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0, 0.0
    user, system, ended_user, ended_system = (int(field) / TICKS for field in fields[11:15])
    return user + system, ended_user + ended_system
