"""The limit: one ASGI handler without GraphQL, which sends the statements of Forkpoint and passes JSON through.

It knows the documents of the workloads by heart. A few connections in libpq's pipeline mode serve all requests, with
one Sync for each. Appends have connections of their own, and more: nothing begins while a commit before it waits.
"""

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

import orjson
import psycopg
import uuid_utils.compat
from psycopg import pq

from benchmarks.peers import workloads
from benchmarks.peers.limit_statements import STATEMENTS

Message = MutableMapping[str, Any]
READ_LANES = 8
WRITE_LANES = 12
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]


class Lane:
    """A connection in pipeline mode: a statement is sent at once, answers come in the order of the statements."""

    def __init__(self, url: str, statements: Sequence[tuple[bytes, str]]) -> None:
        self._connection = connection = psycopg.connect(url, autocommit=True)
        connection.execute("set plan_cache_mode = force_generic_plan")
        connection.execute("set timezone = 'UTC'")
        self._libpq = libpq = connection.pgconn
        for name, text in statements:
            prepared = libpq.prepare(name, text.encode())
            assert prepared.status == pq.ExecStatus.COMMAND_OK, prepared.error_message.decode()
        libpq.nonblocking = 1
        libpq.enter_pipeline_mode()
        self._waiting: deque[asyncio.Future[bytes]] = deque()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(libpq.socket, self._read)

    def __len__(self) -> int:
        return len(self._waiting)

    def send(self, name: bytes, parameters: Sequence[bytes]) -> "asyncio.Future[bytes]":
        """Send a prepared statement, and promise the values that it gives, between commas."""
        future = self._loop.create_future()
        self._waiting.append(future)
        self._libpq.send_query_prepared(name, parameters)
        self._libpq.pipeline_sync()
        self._flush()
        return future

    def close(self) -> None:
        """End the connection; nothing waits for it any more."""
        self._loop.remove_reader(self._libpq.socket)
        self._connection.close()

    def _flush(self) -> None:
        if self._libpq.flush():
            self._loop.add_writer(self._libpq.socket, self._flush_rest)

    def _flush_rest(self) -> None:
        if not self._libpq.flush():
            self._loop.remove_writer(self._libpq.socket)

    def _read(self) -> None:
        libpq = self._libpq
        libpq.consume_input()
        while self._waiting and not libpq.is_busy():
            result = libpq.get_result()
            if result is None:
                continue
            future = self._waiting[0]
            if result.status == pq.ExecStatus.PIPELINE_SYNC:
                self._waiting.popleft()
            elif future.done():
                pass
            elif result.status == pq.ExecStatus.TUPLES_OK:
                future.set_result(b",".join(result.get_value(row, 0) or b"" for row in range(result.ntuples)))
            else:
                future.set_exception(RuntimeError(result.error_message.decode()))


class Limit:
    """The application."""

    def __init__(self) -> None:
        self._names = {document: f"s{number}".encode() for number, document in enumerate(STATEMENTS)}
        self._reading: list[Lane] = []
        self._writing: list[Lane] = []

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, or take part in starting and stopping."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message.get("more_body"):
                break
        request = orjson.loads(body)
        document, values = request["query"], request["variables"]
        parameters = [str(value).encode() for value in values.values()]
        lanes = self._reading
        if document == workloads.APPEND["forkpoint"]:
            lanes = self._writing
            parameters.insert(1, str(uuid_utils.compat.uuid7()).encode())
        found = await min(lanes, key=len).send(self._names[document], parameters)
        answer = STATEMENTS[document].head + found + STATEMENTS[document].tail
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        self.open(os.environ["DATABASE_URL"])
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.close()
        await send({"type": "lifespan.shutdown.complete"})

    def open(self, url: str) -> None:
        """Connect."""
        statements = [(name, STATEMENTS[document].text) for document, name in self._names.items()]
        self._reading = [Lane(url, statements) for _ in range(READ_LANES)]
        self._writing = [Lane(url, statements) for _ in range(WRITE_LANES)]

    def close(self) -> None:
        """Disconnect."""
        for lane in self._reading + self._writing:
            lane.close()
