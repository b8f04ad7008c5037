"""The service as processes of its own, for tests that need several of them, or one to kill."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2

from tests.client import Api

ROOT = Path(__file__).parents[1]
START_SECONDS_MAX = 30.0
SERVE = """
import sys
import uvicorn
from graphql_api import server
from graphql_api.app import create_app
from graphql_api.settings import Settings
# Longer than any test's pause, or a request may meet a connection that is just being closed for idleness.
server.KEEP_ALIVE_SECONDS = 300
settings = Settings()
uvicorn.Server(server.configure(create_app(settings), settings, uds=sys.argv[1])).run()
"""


class Service:
    """One process that serves over a Unix socket, so that no port can be taken."""

    def __init__(self, database_url: str, folder: Path, name: str, **chosen: str) -> None:
        self.socket = folder / f"{name}.sock"
        self.log = folder / f"{name}.log"
        kept = {key: value for key, value in os.environ.items() if not key.startswith("FORKPOINT_")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVE, str(self.socket)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,  # no .env of whoever runs the tests
                env=kept
                | {"DATABASE_URL": database_url, "PYTHONPATH": str(ROOT), "FORKPOINT_LOG_LEVEL": "warning"}
                | chosen,
            )

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Api]:
        """Speak to it over connections of one's own."""
        transport = httpx2.AsyncHTTPTransport(uds=str(self.socket))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as http:
            yield Api(http)

    async def ready(self) -> None:
        """Wait for its first healthy answer."""
        deadline = time.monotonic() + START_SECONDS_MAX
        async with self.client() as api:
            while True:
                try:
                    if (await api.http.get("/health")).status_code == 200:
                        return
                except httpx2.TransportError:
                    pass
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise TimeoutError(self.log.read_text())
                await asyncio.sleep(0.05)

    def kill(self) -> None:
        """End it without warning."""
        self.process.kill()
        self.process.wait()


@asynccontextmanager
async def serving(database_url: str, folder: Path, count: int = 1, **chosen: str) -> AsyncIterator[list[Service]]:
    """Run several processes over one database, with `chosen` in their environment."""
    services = [Service(database_url, folder, f"service{number}", **chosen) for number in range(count)]
    try:
        await asyncio.gather(*(service.ready() for service in services))
        yield services
        assert [service.log.read_text() for service in services if service.process.poll() is not None] == []
    finally:
        for service in services:
            service.kill()
