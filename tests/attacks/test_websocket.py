"""Floods and breaches on WebSockets: each ends its own connection at most."""

import base64
import json
import os
import zlib
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from graphql_api.websocket import PROTOCOL
from schema.errors import Code
from tests.attacks.victim import Raw, Victim

pytestmark = pytest.mark.usefixtures("nothing_written")

MIB = 1024 * 1024
UNKNOWN = "0198c0de-7d0e-7000-8000-000000000000"
INIT = {"type": "connection_init"}


def subscription(context_id: str = UNKNOWN) -> str:
    return f'subscription {{ contextChanged(contextId: "{context_id}") {{ __typename }} }}'


def upgraded(victim: Victim, *lines: str) -> Raw:
    """Open a WebSocket by hand."""
    raw = victim.raw()
    sent = [
        "GET /graphql HTTP/1.1",
        f"Host: 127.0.0.1:{victim.port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Protocol: {PROTOCOL}",
        *(f"{name}: {value}" for name, value in victim.headers.items()),
        *lines,
        "",
        "",
    ]
    raw.send("\r\n".join(sent).encode())
    answer = raw.answer()
    assert answer.status == 101
    assert "permessage-deflate" not in answer.headers.get("sec-websocket-extensions", "")
    return raw


def frame(content: bytes, first: int = 0x81) -> bytes:
    """Write a masked frame; a mask of zeroes leaves the content as it is."""
    if len(content) < 126:
        return bytes([first, 0x80 | len(content)]) + bytes(4) + content
    if len(content) < 65_536:
        return bytes([first, 0xFE]) + len(content).to_bytes(2, "big") + bytes(4) + content
    return bytes([first, 0xFF]) + len(content).to_bytes(8, "big") + bytes(4) + content


def test_a_subscription_before_the_credentials_is_refused(victim: Victim) -> None:
    with victim.websocket(init=False) as socket:
        socket.subscribe("{ __typename }")
        assert socket.closed() == (4401, "Unauthorized")


def test_an_id_that_is_in_use_is_refused(victim: Victim, own_id: str) -> None:
    with victim.websocket() as socket:
        socket.subscribe(subscription(own_id))
        socket.subscribe(subscription(own_id))
        assert socket.closed() == (4409, "Subscriber for 1 already exists")


def test_a_second_initialisation_is_refused(victim: Victim) -> None:
    with victim.websocket() as socket:
        socket.send(INIT)
        assert socket.closed()[0] == 4429


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "null",
        "[]",
        "{",
        "{}",
        '{"type": 1}',
        '{"type": "subscribe"}',
        '{"type": "subscribe", "id": ""}',
        '{"type": "subscribe", "id": 1, "payload": {"query": "{ __typename }"}}',
        json.dumps({"type": "subscribe", "id": "x" * 257, "payload": {"query": "{ __typename }"}}),
        json.dumps({"type": "subscribe", "id": "1", "payload": []}),
        json.dumps({"type": "subscribe", "id": "1", "payload": {"query": 1}}),
        json.dumps({"type": "connection_init", "payload": "x"}),
        json.dumps({"type": "nothing of ours" * 1_000}),
        json.dumps({"type": "next", "id": "1", "payload": {}}),
        "[" * 1_000_000,
        '{"type": "ping", "payload": ' + "9" * 1_000_000 + "}",
        b"binary",
        b"\xff\xfe",
    ],
    ids=lambda sent: repr(sent[:40]),
)
def test_what_is_no_message_of_the_protocol_ends_the_connection(victim: Victim, sent: str | bytes) -> None:
    with victim.websocket() as socket:
        socket.send(sent)
        code, reason = socket.closed()
        assert code in {4400, 4429, 4413}
        assert reason
        assert len(reason) < 124


def test_a_frame_over_the_largest_body_ends_the_connection(victim: Victim) -> None:
    with upgraded(victim) as raw:
        raw.send(bytes([0x81, 0xFF]) + (2**62).to_bytes(8, "big") + bytes(4), b"x" * MIB)
        assert b"\x03\xf1" in raw.everything()  # 1009, too big
    with upgraded(victim) as raw:
        raw.send(bytes([0x81, 0xFF]) + (51 * MIB).to_bytes(8, "big") + bytes(4), b"x" * MIB)
        assert b"\x03\xf1" in raw.everything()


def test_a_message_of_many_fragments_over_the_largest_body_ends_the_connection(victim: Victim) -> None:
    with upgraded(victim) as raw:
        raw.send(frame(b" " * MIB, 0x01), *[frame(b" " * MIB, 0x00)] * 51)
        assert b"\x03\xf1" in raw.everything()


def test_a_message_of_a_hundred_thousand_empty_fragments_ends_the_connection(victim: Victim) -> None:
    with victim.working(), upgraded(victim) as raw:
        raw.send(frame(b"", 0x01), frame(b"", 0x00) * 100_000)
        received = raw.everything()
        assert received == b"" or b"\x03\xf1" in received


def test_compressed_messages_are_not_offered_and_not_read(victim: Victim) -> None:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = compressor.compress(b" " * 100 * MIB) + compressor.flush(zlib.Z_SYNC_FLUSH)
    with upgraded(victim, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits") as raw:
        raw.send(frame(bomb[:-4], 0xC1))
        assert b"\x03\xea" in raw.everything()  # 1002, a breach of the protocol


@pytest.mark.parametrize(
    "sent",
    [
        b"\x81\x05hello",
        frame(b"x", 0xF1),
        frame(b"x", 0x83),
        frame(b"x" * 126, 0x89),
        frame(b"", 0x09),
        frame(b"x", 0x80),
        frame(b"\xff\xff"),
        frame(b"\xed\xa0\x80"),
        frame(b"\x00", 0x88),
        frame(b"\x00\x01", 0x88),
        b"\x81\xff" + b"\xff" * 12,
    ],
    ids=repr,
)
def test_a_breach_of_the_protocol_below_ends_the_connection(victim: Victim, sent: bytes) -> None:
    with upgraded(victim) as raw:
        raw.send(sent)
        raw.everything()


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-WebSocket-Version: 13": "Sec-WebSocket-Version: 99"},
        {"Connection: Upgrade": "Connection: close"},
        {"GET ": "POST "},
        {"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==": "Sec-WebSocket-Key: x"},
        {"Upgrade: websocket": "Upgrade: h2c, websocket"},
    ],
    ids=repr,
)
def test_a_handshake_that_is_none_opens_nothing(victim: Victim, headers: dict[str, str]) -> None:
    handshake = (
        f"GET /graphql HTTP/1.1\r\nHost: 127.0.0.1:{victim.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Protocol: {PROTOCOL}\r\n\r\n"
    )
    for written, instead in headers.items():
        handshake = handshake.replace(written, instead)
    with victim.raw() as raw:
        raw.send(handshake.encode())
        raw.end()
        assert b" 101 " not in raw.everything()


def test_a_flood_of_operations_meets_the_limit_of_the_connection(victim: Victim, own_id: str) -> None:
    with victim.websocket() as socket:
        for number in range(300):
            socket.subscribe(subscription(own_id), f"id {number}")
        assert [socket.code() for _ in range(200)] == [Code.LIMIT_EXCEEDED] * 200
        socket.send({"type": "ping"})
        assert socket.receive() == {"type": "pong"}


def test_a_flood_of_ids_that_come_and_go_leaves_nothing(victim: Victim, own_id: str) -> None:
    with victim.working(), victim.websocket() as socket:
        for number in range(1_000):
            socket.subscribe(subscription(own_id), str(number))
            socket.send({"type": "complete", "id": str(number)})
        for number in range(10_000):
            socket.send({"type": "complete", "id": f"unknown {number}"})
        socket.send({"type": "ping"})
        while (message := socket.receive())["type"] != "pong":
            assert message["type"] == "error"
            assert message["payload"][0]["extensions"]["code"] == Code.LIMIT_EXCEEDED


def test_a_flood_of_pings_is_answered_one_by_one(victim: Victim) -> None:
    with victim.working(), victim.websocket() as socket:
        for number in range(5_000):
            socket.send({"type": "ping", "payload": {"n": number}})
            assert socket.receive() == {"type": "pong", "payload": {"n": number}}


def test_a_flood_of_ping_frames_of_a_client_that_does_not_read_is_held_up(victim: Victim) -> None:
    with upgraded(victim) as raw:
        raw.socket.setblocking(False)  # the socket's own
        sent = 0
        try:
            while sent < 64 * MIB:
                sent += raw.socket.send(frame(b"x" * 125, 0x89) * 1_000)
        except BlockingIOError:
            pass
        assert victim.ask("{ __typename }").data == {"__typename": "Query"}


def test_costly_documents_are_refused_here_too(victim: Victim) -> None:
    doubling = " ".join(f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(40))
    documents = [
        f"{{ ...F0 }} {doubling} fragment F40 on Query {{ __typename }}",
        "{ " + " ".join(f"a{number}: health {{ status }}" for number in range(10_000)) + " }",
        "{ ...A } fragment A on Query { ...A }",
        "#\n" * 100_000 + "{ __typename }",
        "query " + "($a: [Int])" * 5_000 + " { __typename }",
    ]
    with victim.websocket() as socket:
        for query in documents:
            with victim.working():
                socket.subscribe(query)
                assert socket.code() in {
                    Code.LIMIT_EXCEEDED,
                    Code.GRAPHQL_VALIDATION_FAILED,
                    Code.GRAPHQL_PARSE_FAILED,
                }


def test_payloads_of_millions_end_the_connection(victim: Victim) -> None:
    with victim.websocket() as socket, victim.working():
        socket.send('{"type": "ping", "payload": [' + "1," * 5_000_000 + "1]}")
        assert socket.closed()[0] in {4400, 1009}


def test_payloads_of_the_initialisation_are_read_and_forgotten(victim: Victim) -> None:
    payloads: list[Any] = [{"a": "x" * MIB}, {str(number): number for number in range(10_000)}, {"__proto__": {}}]
    for payload in payloads:
        with victim.websocket(init=False) as socket:
            socket.send({"type": "connection_init", "payload": payload})
            assert socket.receive() == {"type": "connection_ack"}


def test_other_protocols_are_closed_with_a_reason(victim: Victim) -> None:
    for protocols in (["graphql-ws"], ["x" * 200], None):
        with victim.websocket(init=False, subprotocols=protocols) as socket:
            with pytest.raises(ConnectionClosed):
                socket.connection.recv(60)
            assert socket.connection.close_code == 4406


def test_several_hundred_connections_that_say_nothing_leave_others_alone(victim: Victim) -> None:
    waiting = [upgraded(victim) for _ in range(300)]
    try:
        for _ in range(10):
            assert victim.ask("{ __typename }").data == {"__typename": "Query"}
    finally:
        for raw in waiting:
            raw.socket.close()
