"""Clients that cost little, because they share the processor with what they measure: HTTP and WebSockets by hand.

They know as much of both protocols as the service uses, and take nothing else.
"""

import asyncio
import os
from base64 import b64encode
from collections.abc import Callable
from typing import Any, Self

import orjson

NEXT = b'"next"'


class ClientError(Exception):
    """An answer that is not what a measurement counts on."""


class _Connection(asyncio.Protocol):
    """A connection whose bytes are collected until `_take` can use them."""

    def __init__(self) -> None:
        self._buffer = b""
        self._transport: Any = None
        self._waiting: asyncio.Future[Any] | None = None

    @classmethod
    async def connect(cls, port: int, *arguments: Any) -> Self:
        """Open a connection."""
        _, made = await asyncio.get_running_loop().create_connection(lambda: cls(*arguments), "127.0.0.1", port)
        return made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell who waits."""
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ClientError(f"the service closed the connection: {exc}"))

    def data_received(self, data: bytes) -> None:
        """Take all that is complete."""
        self._buffer += data
        while self._buffer and (used := self._take(self._buffer)):
            self._buffer = self._buffer[used:]

    def _take(self, data: bytes) -> int:
        """Take what is complete, and tell how many bytes that were; 0 for wait."""
        raise NotImplementedError

    async def _answer(self, data: bytes) -> Any:
        """Send, and wait for what answers it."""
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        return await self._waiting

    def _answered(self, answer: Any) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(answer)

    def close(self) -> None:
        """Close it."""
        self._transport.close()


class Http(_Connection):
    """One connection over which GraphQL requests go one after another."""

    async def ask(self, query: str, **variables: Any) -> Any:
        """Give the data of an answer.

        Raises: ClientError when there are errors.
        """
        body = orjson.dumps({"query": query, "variables": variables})
        head = b"POST /graphql HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        length = b"content-length: %d\r\n\r\n" % len(body)
        answer = orjson.loads(await self._answer(head + length + body))
        if "errors" in answer:
            raise ClientError(answer["errors"][0]["message"])
        return answer["data"]

    def _take(self, data: bytes) -> int:
        head, end, _ = data.partition(b"\r\n\r\n")
        if not end:
            return 0
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r")[0])
        whole = len(head) + len(end) + length
        if len(data) < whole:
            return 0
        self._answered(data[whole - length : whole])
        return whole


class Socket(_Connection):
    """A WebSocket of graphql-transport-ws: `take` is told the id and the data of each event."""

    def __init__(self, take: Callable[[int, Any], None]) -> None:
        super().__init__()
        self._tell = take
        self._open = False
        self.failure: str | None = None

    async def open(self) -> None:
        """Shake hands."""
        key = b64encode(os.urandom(16)).decode()
        await self._answer(
            "GET /graphql HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            f"sec-websocket-key: {key}\r\nsec-websocket-version: 13\r\n"
            "sec-websocket-protocol: graphql-transport-ws\r\n\r\n".encode()
        )
        await self._answer(_frame(1, b'{"type":"connection_init"}'))

    async def subscribe(self, number: int, query: str, **variables: Any) -> None:
        """Subscribe under an id, and wait until all that was sent has been read."""
        payload = {"query": query, "variables": variables}
        self._transport.write(_frame(1, orjson.dumps({"type": "subscribe", "id": str(number), "payload": payload})))
        await self._answer(_frame(1, b'{"type":"ping"}'))

    def connection_lost(self, exc: Exception | None) -> None:
        """Remember it: a measurement counts on connections that last."""
        self.failure = self.failure or f"closed by the service: {exc}"
        super().connection_lost(exc)

    def _take(self, data: bytes) -> int:
        if not self._open:
            head, end, _ = data.partition(b"\r\n\r\n")
            self._open = bool(end)
            if end:
                self._answered(head)
            return len(head) + len(end) if end else 0
        start, length = 2, data[1] if len(data) > 1 else 127
        if length > 125:  # noqa: PLR2004 - RFC 6455, section 5.2
            size = 2 if length == 126 else 8  # noqa: PLR2004 - the same
            start += size
            length = int.from_bytes(data[2:start], "big")
        if len(data) < start or len(data) < start + length:
            return 0
        self._frame(data[0] & 15, data[start : start + length])
        return start + length

    def _frame(self, opcode: int, payload: bytes) -> None:
        if opcode == 9:  # noqa: PLR2004 - a ping
            self._transport.write(_frame(10, payload))
        elif opcode == 8:  # noqa: PLR2004 - a close
            self.failure = f"closed by the service: {payload[2:].decode()}"
        elif NEXT in payload[:60]:
            told = orjson.loads(payload)
            self._tell(int(told["id"]), told["payload"]["data"])
        elif b'"pong"' in payload or b'"connection_ack"' in payload:
            self._answered(None)
        else:
            self.failure = payload.decode()


def _frame(opcode: int, payload: bytes) -> bytes:
    """Write a frame of a client: masked, with a mask that changes nothing."""
    length = len(payload)
    size = bytes([128 | length]) if length < 126 else b"\xfe" + length.to_bytes(2, "big")  # noqa: PLR2004 - RFC 6455
    return bytes([128 | opcode]) + size + b"\0\0\0\0" + payload
