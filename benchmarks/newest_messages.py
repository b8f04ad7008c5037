"""Requests per second for a context with its newest 50 messages, against the same statements without GraphQL.

    python benchmarks/newest_messages.py [--seconds 5] [--connections 32] [--rounds 3]

The named alternative is the least that Python can do here: one ASGI handler that takes a connection from the same pool,
reads the same two statements in one snapshot and writes them with orjson. Both run one process over one embedded server
with the same 200 contexts of 250 messages each; rounds alternate, and the medians are compared. What counts is the
ratio: the absolute figures belong to the machine.
"""

import argparse
import asyncio
import contextlib
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from pathlib import Path

import orjson
import uuid_utils.compat
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import db.context
import db.lineage
import db.message
from db import embedded, migrate
from db.lineage import Place
from db.pool import Database, PoolLimits
from db.records import NewMessage

TENANT_ID = "default"
CONTEXTS = 200
MESSAGES = 250
NEWEST = 50
LIMITS = PoolLimits(size_min=2, size_max=16, wait_seconds=5, connect_seconds=5, statement_seconds=30)
HEAD = b"POST /graphql HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
DOCUMENT = """query ($id: ID!) {
  context(id: $id) {
    id name updatedAt messageCount
    messages(last: 50) { nodes { id version role content tokenCount createdAt } pageInfo { hasPreviousPage } }
  }
}"""


def create_alternative() -> Starlette:
    """Make the handler without GraphQL."""
    database = Database(os.environ["DATABASE_URL"], LIMITS)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        await database.open()
        yield
        await database.close()

    async def newest(request: Request) -> Response:
        context_id = orjson.loads(await request.body())["variables"]["id"]
        async with database.snapshot() as snapshot:
            (context,) = await db.context.by_ids(snapshot, TENANT_ID, [context_id])
            place = Place(context.id, None, None)
            (messages,) = await db.lineage.page(snapshot, TENANT_ID, [place], NEWEST + 1, newest_first=True, roles=None)
        body = {"context": asdict(context), "messages": [asdict(message) for message in messages[1:]]}
        return Response(orjson.dumps(body), media_type="application/json")

    return Starlette(routes=[Route("/graphql", newest, methods=["POST"])], lifespan=lifespan)


async def fill(url: str) -> list[str]:
    """Store the contexts, and give their ids."""
    words = [
        "the",
        "store",
        "keeps",
        "what",
        "agents",
        "say",
        "and",
        "forks",
        "where",
        "they",
        "change",
        "their",
        "mind",
    ]
    chance = random.Random(1)
    database = Database(url, LIMITS)
    await database.open()
    ids = []
    for _ in range(CONTEXTS):
        messages = [
            NewMessage(
                id=uuid_utils.compat.uuid7(),
                role=("user", "assistant")[index % 2],
                content=" ".join(chance.choices(words, k=40)),
                tool_calls=None,
                tool_call_id=None,
                tool_name=None,
                token_count=45,
                model=None,
                metadata="{}",
            )
            for index in range(MESSAGES)
        ]
        async with database.transaction() as session:
            context = await db.context.create(session, TENANT_ID, uuid_utils.compat.uuid7(), "benchmark", "{}")
            await db.message.append(session, TENANT_ID, context.id, messages)
        ids.append(str(context.id))
    await database.close()
    return ids


@contextlib.contextmanager
def serving(factory: str, url: str) -> Iterator[int]:
    """Serve an application in a process of its own, and give its port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "--factory", factory, "--port", str(port), "--log-level", "error"]
    environment = {**os.environ, "DATABASE_URL": url, "FORKPOINT_LOG_LEVEL": "error", "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([*command, "--no-access-log"], env=environment, cwd=ROOT / "benchmarks") as process:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        yield port
        process.send_signal(signal.SIGINT)


async def load(port: int, ids: list[str], seconds: float, connections: int) -> tuple[float, float]:
    """Send requests over so many connections at once; give requests per second and the median in milliseconds."""
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    async def client(seed: int) -> None:
        chance = random.Random(seed)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.perf_counter() < end:
            body = orjson.dumps({"query": DOCUMENT, "variables": {"id": chance.choice(ids)}})
            started = time.perf_counter()
            writer.write(HEAD % len(body) + body)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            answer = await reader.readexactly(length)
            latencies.append(time.perf_counter() - started)
            assert answer.count(b'"content"') == NEWEST, answer[:300]
        writer.close()

    await asyncio.gather(*(client(seed) for seed in range(connections)))
    return len(latencies) / seconds, statistics.median(latencies) * 1000


def main() -> None:
    """Fill, serve, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    systems = {"forkpoint": "graphql_api.app:create_app", "without GraphQL": "newest_messages:create_alternative"}
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in systems}
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        Path(folder).chmod(0o755)
        server = stack.enter_context(embedded.running(Path(folder) / "home"))
        migrate.up(server.url)
        ids = asyncio.run(fill(server.url))
        ports = {name: stack.enter_context(serving(factory, server.url)) for name, factory in systems.items()}
        for port in ports.values():
            asyncio.run(load(port, ids, 1, arguments.connections))
        for _ in range(arguments.rounds):
            for name, port in ports.items():
                results[name].append(asyncio.run(load(port, ids, arguments.seconds, arguments.connections)))
    rates = {name: statistics.median(rate for rate, _ in rounds) for name, rounds in results.items()}
    print(f"a context with its newest {NEWEST} messages, one process, {arguments.connections} connections")
    for name, rounds in results.items():
        latency = statistics.median(latency for _, latency in rounds)
        ratio = rates[name] / rates["without GraphQL"]
        print(f"{name:16} {rates[name]:8.0f} requests/s   median {latency:6.1f} ms   {ratio:5.2f} x")


ROOT = Path(__file__).resolve().parent.parent

if __name__ == "__main__":
    main()
