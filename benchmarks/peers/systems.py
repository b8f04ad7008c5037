"""The systems: how each is started, with one process and on 127.0.0.1, and what it lacks when it cannot be."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from benchmarks.peers.workloads import Dialect, Workload

ROOT = Path(__file__).resolve().parents[2]
NODE_FOLDER = Path(__file__).parent / "postgraphile"
START_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 10.0
# All systems stay up at the same time, and the embedded server takes 100 connections.
POOL_SIZE = 12
# As `forkpoint serve` configures it.
UVICORN = [
    *("-m", "uvicorn", "--factory", "--loop", "uvloop", "--http", "httptools", "--host", "127.0.0.1"),
    *("--no-access-log", "--no-server-header", "--no-proxy-headers", "--timeout-keep-alive", "75"),
    *("--log-level", "warning"),
]


@dataclass(frozen=True)
class System:
    """Something that answers the workloads."""

    name: str
    title: str
    dialect: Dialect
    factory: str | None
    environment: dict[str, str] = field(default_factory=dict)
    knows_new_documents: bool = True
    # Served from another checkout, and as a role that row security binds.
    root: Path = ROOT
    bound: bool = False

    def answers(self, workload: Workload) -> bool:
        """Tell whether it can take part in a workload."""
        return self.knows_new_documents or not workload.inlined

    def lacks(self) -> str | None:
        """Say what must be installed before it can be started."""
        if self.factory is None and not (NODE_FOLDER / "node_modules" / "postgraphile").exists():
            return f"PostGraphile is not installed: run `npm ci` in {NODE_FOLDER.relative_to(ROOT)}"
        if self.factory is None and not node():
            return "there is no node of version 22 or later"
        return None

    def command(self, port: int) -> list[str]:
        """Give the words that start it."""
        if self.factory is None:
            return [node(), "server.mjs"]
        return [sys.executable, *UVICORN, "--port", str(port), self.factory]


FORKPOINT = "graphql_api.app:create_app"
KEYS = {"FORKPOINT_AUTHENTICATION": "keys", "FORKPOINT_ROW_SECURITY": "off"}
# As on the internet, but for the rate limit of a tenant, which a load like this is over at once.
PRODUCTION = {
    "FORKPOINT_AUTHENTICATION": "keys",
    "FORKPOINT_ENVIRONMENT": "production",
    "FORKPOINT_RATE_POINTS_PER_SECOND": "1000000",
}
TOKENS = {
    "FORKPOINT_AUTHENTICATION": "jwt",
    "FORKPOINT_ROW_SECURITY": "off",
    "FORKPOINT_JWT_ALGORITHMS": "HS256",
    "FORKPOINT_JWT_KEY": secrets.token_hex(),
    "FORKPOINT_JWT_ISSUER": "https://issuer.example",
    "FORKPOINT_JWT_AUDIENCE": "forkpoint",
}
SYSTEMS = [
    System("forkpoint", "Forkpoint", "forkpoint", FORKPOINT),
    System("resolved", "without plans", "forkpoint", FORKPOINT, {"FORKPOINT_PLANNED_READS": "false"}),
    System("pooled", "without fast lane", "forkpoint", FORKPOINT, {"FORKPOINT_FAST_LANE_CONNECTIONS": "0"}),
    System("keys", "with API keys", "forkpoint", FORKPOINT, KEYS),
    System("tokens", "with tokens", "forkpoint", FORKPOINT, TOKENS),
    System("guarded", "guarded", "forkpoint", FORKPOINT, PRODUCTION, bound=True),
    System("postgraphile", "PostGraphile", "postgraphile", None),
    System("limit", "limit", "forkpoint", "benchmarks.peers.limit:Limit", knows_new_documents=False),
]


@dataclass(frozen=True)
class Running:
    """A system that answers: its process and its port."""

    system: System
    pid: int
    port: int
    # What each request says of who sends it.
    authorization: str


@contextlib.contextmanager
def running(system: System, url: str, log: IO[bytes], authorization: str) -> Iterator[Running]:
    """Start a system over a database, and stop it at the end."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FORKPOINT_", "PG"))}
    environment = inherited | {
        "DATABASE_URL": url,
        "FORKPOINT_LOG_LEVEL": "warning",
        "FORKPOINT_POOL_SIZE_MAX": str(POOL_SIZE),
        "PYTHONPATH": str(system.root),
        "PORT": str(port),
        "POOL_SIZE": str(POOL_SIZE),
        "NODE_ENV": "production",
        "GRAPHILE_ENV": "production",
        **system.environment,
    }
    folder = NODE_FOLDER if system.factory is None else system.root
    process = subprocess.Popen(system.command(port), env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        _await(process, port, system.title)
        yield Running(system, process.pid, port, authorization)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await(process: "subprocess.Popen[bytes]", port: int, title: str) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise SystemExit(f"{title} did not start. Read what it said in the log.")


def node() -> str:
    """Find the node that npm installed beside PostGraphile, or one that is new enough; empty when there is none."""
    installed = NODE_FOLDER / "node_modules" / "node" / "bin" / "node"
    if installed.exists():
        return str(installed)
    found = shutil.which("node")
    if found:
        version = subprocess.run([found, "--version"], capture_output=True, check=True, text=True).stdout
        if int(version.removeprefix("v").split(".")[0]) >= 22:  # noqa: PLR2004 - what PostGraphile 5 requires
            return found
    return ""
