"""Clients that take their time to send or to read, and too many of them: none is waited for without end."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from graphql_api import patience
from graphql_api.patience import SPARE_CONNECTIONS
from tests.graphql_api.serving import SECONDS_MAX, Served, serving, until

HEAD = b"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
ECHO = json.dumps({"query": "{ echo }"}).encode()
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(ECHO) + ECHO
STREAM = HEAD + b"Accept: text/event-stream\r\n"
HANDSHAKE = (
    b"GET /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
)


class Raw:
    """A client that sends bytes."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        await self.loop.sock_sendall(self.client, data)

    async def everything(self) -> bytes:
        """Read until the server closes."""
        received = b""
        async with asyncio.timeout(SECONDS_MAX):
            try:
                while piece := await self.loop.sock_recv(self.client, 65_536):
                    received += piece
            except ConnectionResetError:
                pass
        return received

    async def answer(self) -> bytes:
        """Read one answer, whose end is that of its JSON."""
        received = b""
        async with asyncio.timeout(SECONDS_MAX):
            while not received.endswith(b"}"):
                received += await self.loop.sock_recv(self.client, 65_536)
        return received

    async def refused(self) -> tuple[int, str]:
        """Read why the connection is closed: the status, and the code."""
        head, _, body = (await self.everything()).partition(b"\r\n\r\n")
        assert b"connection: close" in head
        (error,) = json.loads(body)["errors"]
        return int(head.split()[1]), error["extensions"]["code"]


@asynccontextmanager
async def raw(served: Served) -> AsyncIterator[Raw]:
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", served.port))
        yield Raw(client)


async def gone(served: Served) -> None:
    """Wait until the server has no connection any more."""
    await until(lambda: not served.server.server_state.connections)


@pytest.mark.parametrize("beginning", [b"", b"P", b"POST /graphql HTTP/1.1\r\nHost: x\r\nX-A", HEAD, WHOLE + b"POST"])
async def test_a_head_must_arrive_in_its_time(beginning: bytes) -> None:
    async with serving(header_seconds=0.2) as served, raw(served) as client:
        await client.send(beginning)
        if beginning.startswith(WHOLE):
            assert b'"echo":""' in await client.answer()
        assert await client.refused() == (408, "TIMEOUT")
        await gone(served)


async def test_a_head_that_trickles_has_no_more_time() -> None:
    async with serving(header_seconds=0.3) as served, raw(served) as client:

        async def trickle() -> None:
            while True:
                await client.send(b"X-A: b\r\n")
                await asyncio.sleep(0.02)

        await client.send(HEAD)
        trickling = asyncio.create_task(trickle())
        assert (await client.refused())[0] == 408
        trickling.cancel()
        await asyncio.wait([trickling])
        await gone(served)


async def test_a_body_must_arrive_in_its_time() -> None:
    async with serving(body_seconds=0.2) as served, raw(served) as client:
        await client.send(HEAD + b"Content-Length: 1000\r\n\r\n" + ECHO)
        assert await client.refused() == (408, "TIMEOUT")
        await served.quiet()
        await gone(served)


async def test_a_body_that_keeps_coming_has_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "BODY_BYTES_PER_SECOND", 100)
    async with serving(body_seconds=0.1) as served, raw(served) as client:
        body = ECHO + b" " * 1_000
        await client.send(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body[:900])
        await asyncio.sleep(0.5)
        await client.send(body[900:])
        assert b'"echo":""' in await client.answer()


async def test_a_body_that_nobody_reads_any_more_is_not_waited_for() -> None:
    async with serving(body_seconds=0.2) as served, raw(served) as client:
        await client.send(HEAD + b"Content-Length: 100000000\r\n\r\n" + b"x" * 100_000)
        assert b" 413 " in await client.everything()
        await gone(served)


async def test_who_waits_for_an_answer_is_not_slow() -> None:
    async with serving(header_seconds=0.1, body_seconds=0.1) as served:
        served.contexts.gate = asyncio.Event()
        async with raw(served) as client:
            await client.send(WHOLE + WHOLE[:40])  # and begins with the next one
            await asyncio.sleep(0.4)
            served.contexts.gate.set()
            assert b'"echo":""' in await client.everything()
            await gone(served)


@pytest.mark.parametrize("closing", [b"", b"Connection: close\r\n"])
async def test_an_answer_that_is_not_taken_is_given_up(closing: bytes) -> None:
    async with serving(write_seconds=0.2, body_bytes_max=30_000_000) as served, raw(served) as client:
        body = json.dumps({"query": "query ($a: String!) { echo(text: $a) }", "variables": {"a": "x" * 20_000_000}})
        await client.send(HEAD + closing + b"Content-Length: %d\r\n\r\n" % len(body) + body.encode())
        await until(lambda: bool(served.contexts.seen))
        await gone(served)
        await served.quiet()


async def test_an_answer_that_is_taken_slowly_is_sent_to_its_end() -> None:
    async with serving(write_seconds=0.5, body_bytes_max=30_000_000) as served, raw(served) as client:
        size = 10_000_000
        body = json.dumps({"query": "query ($a: String!) { echo(text: $a) }", "variables": {"a": "x" * size}})
        await client.send(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body.encode())
        received = 0
        while piece := await client.loop.sock_recv(client.client, 400_000):
            received += len(piece)
            await asyncio.sleep(0.001)
        assert received > size


async def test_a_stream_that_is_not_read_is_given_up() -> None:
    async with serving(write_seconds=0.2) as served, raw(served) as client:
        body = json.dumps({"query": "subscription { withoutPause(size: 100000) }"}).encode()
        await client.send(STREAM + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await until(lambda: served.operations.subscriptions == 1)
        await served.quiet()
        await gone(served)


async def test_a_connection_too_many_is_refused_and_health_is_not() -> None:
    async with serving(connections_max=3) as served, AsyncExitStack() as clients:
        idle = [await clients.enter_async_context(raw(served)) for _ in range(2)]
        await (await served.socket()).subscribe("subscription { forever }")
        await until(lambda: len(served.server.server_state.connections) == 3)
        for request in (WHOLE, HANDSHAKE):
            async with raw(served) as client:
                await client.send(request)
                assert await client.refused() == (503, "UNAVAILABLE")
        async with raw(served) as client:
            await client.send(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b" 503 " not in (await client.everything()).split(b"\r\n")[0]
        for client in idle:
            client.client.close()
        await until(lambda: len(served.server.server_state.connections) == 1)
        async with raw(served) as client:
            await client.send(WHOLE)
            assert b" 200 " in await client.answer()


async def test_far_too_many_connections_are_closed_at_once() -> None:
    async with serving(connections_max=1) as served, AsyncExitStack() as clients:
        for _ in range(1 + SPARE_CONNECTIONS):
            await clients.enter_async_context(raw(served))
        await until(lambda: len(served.server.server_state.connections) == 1 + SPARE_CONNECTIONS)
        async with raw(served) as client:
            assert await client.refused() == (503, "UNAVAILABLE")


def frame(opcode: int, data: bytes, size: int | None = None) -> bytes:
    """Write a masked frame, or the beginning of one of a larger size."""
    return bytes([opcode, 0xFF]) + (len(data) if size is None else size).to_bytes(8, "big") + bytes(4) + data


async def test_websocket_messages_that_are_not_complete_count_as_bodies() -> None:
    async with serving(bodies_bytes_max=1_000_000, connection_init_seconds=30) as served, AsyncExitStack() as clients:
        found: list[Raw] = []
        for _ in range(3):
            client = await clients.enter_async_context(raw(served))
            await client.send(HANDSHAKE)
            while not (await client.loop.sock_recv(client.client, 4_096)).endswith(b"\r\n\r\n"):
                pass
            await client.send(frame(0x81, b"x" * 400_000, 900_000))
            found.append(client)
        assert (await found[2].everything())[2:4] == (1013).to_bytes(2, "big")
        assert not served.operations.admission.idle
    assert served.operations.admission.idle


async def test_a_websocket_message_has_so_many_fragments_and_no_more() -> None:
    async with serving() as served, raw(served) as client:
        await client.send(HANDSHAKE)
        while not (await client.loop.sock_recv(client.client, 4_096)).endswith(b"\r\n\r\n"):
            pass
        sending = asyncio.create_task(client.send(frame(0x01, b"x") + frame(0x00, b"x") * 50_000))
        assert (await client.everything())[2:4] == (1009).to_bytes(2, "big")
        sending.cancel()
        await asyncio.wait([sending])


async def test_five_hundred_that_never_end_their_requests_hold_nobody_up() -> None:
    async with serving(requests_max=2, request_queue_max=2) as served, AsyncExitStack() as clients:
        pieces: list[Any] = [b"", HEAD, HEAD + b"Content-Length: 900000\r\n\r\n" + b"x" * 1_000]
        for number in range(500):
            client = await clients.enter_async_context(raw(served))
            await client.send(pieces[number % 3])
        async with raw(served) as client:
            for _ in range(20):
                await client.send(WHOLE)
                assert b" 200 " in await client.answer()
