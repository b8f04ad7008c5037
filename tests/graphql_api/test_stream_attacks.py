"""Clients that vanish, flood, or never read: nothing of them stays, and nobody else waits for them."""

import asyncio
import gc
import io
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from graphql_api import log
from graphql_api.event_stream import HttpStream
from graphql_api.response_stream import ResponseStream
from graphql_api.websocket import _Connection
from tests.graphql_api.asking import SETTINGS
from tests.graphql_api.serving import Served, serving, until

INIT = {"type": "connection_init"}
HANDSHAKE = (
    b"GET /graphql HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
)


def frame(content: Any) -> bytes:
    """Write a masked text frame; a mask of zeroes leaves the text as it is."""
    data = json.dumps(content).encode()
    size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + len(data).to_bytes(2, "big")
    return b"\x81" + size + bytes(4) + data


@asynccontextmanager
async def raw(served: Served, *pieces: bytes) -> AsyncIterator[socket.socket]:
    """A client that sends, and reads nothing by itself; it vanishes without a word."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # closing resets
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", served.port))
        for piece in pieces:
            await loop.sock_sendall(client, piece)
            if piece is HANDSHAKE:
                while not (await loop.sock_recv(client, 4_096)).endswith(b"\r\n\r\n"):
                    pass
        yield client


@contextmanager
def nothing_left() -> Iterator[None]:
    """Check that no connection or stream stays in memory but what other tests left: an error keeps its frames."""

    def alive() -> int:
        gc.collect()
        return sum(isinstance(each, _Connection | HttpStream | ResponseStream) for each in gc.get_objects())

    before = alive()
    yield
    assert alive() <= before


async def until_open(served: Served, count: int) -> None:
    await until(lambda: served.operations.subscriptions == count)


def over_websocket(query: str) -> tuple[bytes, ...]:
    return HANDSHAKE, frame(INIT), frame({"id": "1", "type": "subscribe", "payload": {"query": query}})


def over_http(query: str) -> tuple[bytes, ...]:
    body = json.dumps({"query": query}).encode()
    head = "POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAccept: text/event-stream\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode(), body


WAYS = {"websocket": over_websocket, "event stream": over_http}
FIELDS = ["forever", "never", "neverBegins", "slowToClose", "withoutPause", "objects { wait }"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "field", ["forever", "never", "neverBegins", "slowToClose", "withoutPause", "objects { wait }"]
)
async def test_a_client_that_vanishes_leaves_nothing(way: str, field: str) -> None:
    with nothing_left(), capture_logs() as lines:
        async with serving() as served:
            for _ in range(20):
                async with raw(served, *WAYS[way](f"subscription {{ {field} }}")):
                    await until_open(served, 1)
                await served.quiet()
    assert {line["event"] for line in lines} == {"websocket" if way == "websocket" else "request"}


@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_vanishes_leaves_nothing_though_the_source_loses_a_cancellation(way: str) -> None:
    with nothing_left(), capture_logs():
        async with serving() as served:
            async with raw(served, *WAYS[way]("subscription { losesACancellation }")):
                await until(lambda: any("waits" in seen for seen in served.contexts.seen))
            await served.quiet()


async def test_an_operation_that_was_completed_ends_though_its_source_loses_a_cancellation() -> None:
    async with serving() as served:
        client = await served.socket()
        await client.subscribe("subscription { losesACancellation }")
        await client.next()
        await until(lambda: any("waits" in seen for seen in served.contexts.seen))
        await client.send({"id": "1", "type": "complete"})
        await until_open(served, 0)


@pytest.mark.parametrize("way", WAYS)
async def test_a_thousand_opens_and_closes_leave_nothing(way: str) -> None:
    async def come_and_go(served: Served, number: int) -> None:
        async with raw(served, *WAYS[way]("subscription { forever }")) as client:
            if number % 2:
                assert await asyncio.get_running_loop().sock_recv(client, 1)

    with nothing_left(), capture_logs():
        async with serving() as served:
            for _ in range(20):
                await asyncio.gather(*(come_and_go(served, number) for number in range(50)))
            await served.quiet()
            await until(lambda: not served.server.server_state.connections)


@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_never_reads_makes_nothing_grow_and_delays_nobody(way: str) -> None:
    with capture_logs():
        async with serving() as served, raw(served, *WAYS[way]("subscription { withoutPause(size: 100000) }")):
            await until_open(served, 1)
            other = await served.socket()
            for _ in range(20):
                await other.subscribe("subscription { count(to: 100) }")
                for _ in range(100):
                    await other.next()
                assert await other.completed()
            given = served.contexts.seen[0]["given"]
            assert given < 200  # what the kernel's buffers hold
            await other.subscribe("subscription { count(to: 1000) }")
            for _ in range(1000):
                await other.next()
            assert served.contexts.seen[0]["given"] == given
            buffers = [
                connection.transport.get_write_buffer_size() for connection in served.server.server_state.connections
            ]
            assert max(buffers) < 300_000  # one message, and what may wait before it


async def test_a_client_that_never_reads_nor_answers_is_given_up() -> None:
    with capture_logs() as lines:
        async with (
            serving(keep_alive_seconds=0.2) as served,
            raw(served, *over_websocket("subscription { withoutPause(size: 100000) }")),
            raw(served, *over_websocket("subscription { forever }")),
        ):
            await until_open(served, 2)
            await served.quiet()
            assert not served.server.server_state.connections
    assert [line["event"] for line in lines] == ["websocket"] * 2


@pytest.mark.parametrize("way", WAYS)
async def test_a_client_that_never_reads_does_not_hold_up_the_end(way: str) -> None:
    with capture_logs() as lines:
        async with serving() as served, raw(served, *WAYS[way]("subscription { withoutPause(size: 100000) }")):
            await until_open(served, 1)
            async with asyncio.timeout(served.settings.shutdown_seconds / 2):
                await served.stop()
    assert [line["event"] for line in lines] == ["websocket" if way == "websocket" else "request"]


@pytest.mark.parametrize(
    "piece", [b"\x81\xff" + b"\x7f" * 12, b"\xf1\x80" + bytes(4), b"\x81\x81" + bytes(4) + b"\xff"]
)
async def test_a_breach_of_the_protocol_below_ends_what_is_under_way_in_silence(piece: bytes) -> None:
    stream = io.StringIO()
    log.configure(SETTINGS, stream)
    with capture_logs() as lines:
        async with serving() as served:
            for _ in range(20):
                async with raw(served, *over_websocket("subscription { withoutPause }")) as client:
                    await until_open(served, 1)
                    loop = asyncio.get_running_loop()
                    await loop.sock_sendall(client, piece)
                    while await loop.sock_recv(client, 65_536):
                        pass
                await served.quiet()
    assert [line["event"] for line in lines] == ["websocket"] * 20
    assert "Traceback" not in stream.getvalue()
    assert '"level":"error"' not in stream.getvalue()


async def test_a_flood_of_pings_is_answered_as_fast_as_it_is_read() -> None:
    async with serving() as served:
        client = await served.socket()
        largest = 0

        async def flood() -> None:
            for number in range(20_000):
                await client.send({"type": "ping", "payload": {"number": number}})

        flooding = asyncio.create_task(flood())
        for number in range(20_000):
            assert await client.receive() == {"type": "pong", "payload": {"number": number}}
            if not number % 100:
                (connection,) = served.server.server_state.connections
                largest = max(largest, connection.transport.get_write_buffer_size())
        await flooding
        assert largest < 100_000


async def test_a_flood_of_subscriptions_that_are_slow_to_close_meets_the_limit() -> None:
    async with serving(connection_operations_max=5) as served:
        client = await served.socket()
        for _ in range(200):
            await client.subscribe("subscription { slowToClose }")
            await client.send({"id": "1", "type": "complete"})
            assert served.operations.subscriptions <= 5
        await client.send({"type": "ping"})
        while (message := await client.receive())["type"] != "pong":
            assert message["type"] == "next" or message["payload"][0]["extensions"]["code"] == "LIMIT_EXCEEDED"
        await client.connection.close()
        await served.quiet()


@pytest.mark.parametrize("way", WAYS)
async def test_requests_that_are_cancelled_leave_nothing(way: str) -> None:
    with capture_logs():
        async with serving() as served:
            for field in ("forever", "never", "neverBegins", "slowToClose", "objects { wait }"):
                async with raw(served, *WAYS[way](f"subscription {{ {field} }}")):
                    await until_open(served, 1)
                    for task in served.server.server_state.tasks:
                        task.cancel()
                    await served.quiet()


async def test_a_hundred_subscriptions_on_one_connection_do_not_mix() -> None:
    async with serving() as served:
        client = await served.socket()
        for number in range(100):
            await client.subscribe(f'subscription {{ count(to: 20, text: " of {number}") }}', str(number))
        found: dict[str, list[Any]] = {}
        ended = 0
        while ended < 100:
            message = await client.receive()
            if message["type"] == "complete":
                ended += 1
            else:
                found.setdefault(message["id"], []).append(message["payload"]["data"]["count"])
    assert found == {str(n): [f"{event} of {n}" for event in range(1, 21)] for n in range(100)}
