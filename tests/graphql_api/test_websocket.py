"""The protocol of WebSockets over real sockets, kept and broken."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs
from websockets.exceptions import InvalidStatus

from graphql_api.operation import SUBSCRIPTION_BYTES_MAX
from graphql_api.websocket import PROTOCOL
from schema.errors import Code
from tests.graphql_api.asking import BODY_BYTES_MAX
from tests.graphql_api.serving import Served, Socket, serving, until
from tests.graphql_api.small_schema import SECRET


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as served:
        yield served


@pytest.fixture
async def client(served: Served) -> Socket:
    return await served.socket()


async def test_a_subscription_gives_its_events_and_completes(client: Socket) -> None:
    await client.subscribe("subscription { count }")
    assert [await client.next() for _ in range(3)] == [{"data": {"count": str(number)}} for number in (1, 2, 3)]
    assert await client.completed()


async def test_variables_and_names_choose_what_is_executed(client: Socket) -> None:
    query = "query A { echo } subscription B($to: Int!) { count(to: $to) }"
    await client.subscribe(query, operationName="B", variables={"to": 1}, extensions=None)
    assert await client.next() == {"data": {"count": "1"}}
    assert await client.completed()


async def test_queries_and_mutations_work_too(served: Served, client: Socket) -> None:
    await client.subscribe('{ echo(text: "é") required(number: 1) }')
    assert await client.next() == {"data": {"echo": "é", "required": 1}}
    assert await client.completed()
    await client.subscribe("mutation { write }")
    assert await client.next() == {"data": {"write": True}}
    assert await client.completed()
    assert [seen["written"] for seen in served.contexts.seen] == [False, True]
    await client.subscribe('{ echo fail(how: "refusal") }')
    failed = await client.next()
    assert (failed["data"], failed["errors"][0]["extensions"]["code"]) == ({"echo": "", "fail": None}, "BAD_USER_INPUT")
    assert await client.completed()


async def test_a_request_error_ends_one_operation_and_leaves_the_others(client: Socket) -> None:
    await client.subscribe("subscription { forever }", "other")
    assert await client.next("other") == {"data": {"forever": 1}}
    for query, code in {
        "{": Code.GRAPHQL_PARSE_FAILED,
        "{ nothing }": Code.GRAPHQL_VALIDATION_FAILED,
        "subscription { refused }": Code.NOT_FOUND,
        'subscription { fail(how: "unavailable") }': Code.UNAVAILABLE,
        "query A { echo } query B { echo }": Code.BAD_USER_INPUT,
        "query ($n: Int!) { required(number: $n) }": Code.BAD_USER_INPUT,
        "{ a: json(value: " + "[" * 300 + "]" * 300 + ") }": Code.LIMIT_EXCEEDED,
    }.items():
        await client.subscribe(query)
        assert await client.error() == code
    await client.subscribe("{ echo }")
    assert await client.next() == {"data": {"echo": ""}}


async def test_a_source_that_fails_in_mid_stream_ends_with_an_error(client: Socket) -> None:
    with capture_logs() as lines:
        await client.subscribe('subscription { fail(how: "value_error", after: 1) }')
        assert await client.next() == {"data": {"fail": 1}}
        message = await client.receive()
    assert (message["type"], message["payload"][0]["extensions"]["code"]) == ("error", "INTERNAL_SERVER_ERROR")
    assert SECRET not in str(message)
    assert lines[0]["error_id"] == message["payload"][0]["extensions"]["errorId"]
    assert lines[0]["event"] == "unforeseen error"


@pytest.mark.parametrize("field", ["forever", "slowToClose", "withoutPause", "failsToClose", "mindsNoCancellation"])
async def test_completing_closes_the_source_and_frees_the_id(served: Served, client: Socket, field: str) -> None:
    with capture_logs():
        await client.subscribe(f"subscription {{ {field} }}")
        await client.next()
        await client.send({"id": "1", "type": "complete"})
        await client.subscribe("{ echo }")
        while (message := await client.receive())["type"] == "next" and "echo" not in message["payload"]["data"]:
            pass
        assert message == {"id": "1", "type": "next", "payload": {"data": {"echo": ""}}}
        assert await client.completed()
        await until(lambda: not (served.open or served.operations.subscriptions))


async def test_completing_what_is_not_there_is_nothing(client: Socket) -> None:
    await client.send({"id": "9", "type": "complete"})
    await client.subscribe("{ echo }")
    assert await client.next() == {"data": {"echo": ""}}


async def test_a_ping_is_answered_before_and_after_the_handshake(served: Served) -> None:
    client = await served.connect()
    await client.send({"type": "ping"})
    assert await client.receive() == {"type": "pong"}
    await client.init()
    await client.send({"type": "pong", "payload": {"a": 1}})
    await client.send({"type": "ping", "payload": {"a": "\ud800"}})
    assert await client.receive() == {"type": "pong", "payload": {"a": "\ud800"}}


SUBSCRIBE = {"id": "1", "type": "subscribe", "payload": {"query": "subscription { forever }"}}
BAD_FRAMES: list[tuple[Any, str]] = [
    (b"{}", "Binary frames are not supported: send text"),
    ("", "The request is not JSON: Expecting value at line 1, column 1."),
    ("{", "The request is not JSON: "),
    ('{"type": NaN}', "The request is not JSON: NaN is not a JSON number."),
    ("[" * 100_000, "The JSON is nested too deeply: nest it less."),
    ('{"type": "ping", "payload": {"n": ' + "9" * 5_000 + "}}", "The JSON holds an integer of more than "),
    ("[]", "A message must be a JSON object with a `type`"),
    ("null", "A message must be a JSON object with a `type`"),
    ('"ping"', "A message must be a JSON object with a `type`"),
    ("{}", "A message must have a `type`, a string"),
    ({"type": 1}, "A message must have a `type`, a string"),
    ({"type": ["ping"]}, "A message must have a `type`, a string"),
    ({"type": "start"}, "There is no message of the type 'start'"),
    ({"type": "é" * 500}, "There is no message of the type '" + "é" * 40 + "'"),
    ({"type": "\ud800"}, "There is no message of the type '\\ud800'"),
    ({"type": "next", "id": "1"}, "There is no message of the type 'next'"),
    ({"type": "ping", "payload": []}, "The `payload` of this message must be a JSON object or null"),
    ({"type": "connection_init", "payload": "x"}, "The `payload` of this message must be a JSON object or null"),
    ({"type": "complete"}, "The `id` of a message must be a string of 1 to 256 characters"),
    ({**SUBSCRIBE, "id": 1}, "The `id` of a message must be a string of 1 to 256 characters"),
    ({**SUBSCRIBE, "id": ""}, "The `id` of a message must be a string of 1 to 256 characters"),
    ({**SUBSCRIBE, "id": "x" * 257}, "The `id` of a message must be a string of 1 to 256 characters"),
    ({**SUBSCRIBE, "payload": None}, "The payload of subscribe: The request must be a JSON object with "),
    ({**SUBSCRIBE, "payload": []}, "The payload of subscribe: Batches are not supported"),
    ({**SUBSCRIBE, "payload": {}}, "The payload of subscribe: `query` must be a string that holds "),
    ({**SUBSCRIBE, "payload": {"query": "{", "variables": []}}, "The payload of subscribe: `variables` must be a "),
]


@pytest.mark.parametrize(("frame", "reason"), BAD_FRAMES, ids=lambda value: ascii(value)[:30])
async def test_what_is_no_message_closes_with_4400_and_says_why(served: Served, frame: Any, reason: str) -> None:
    client = await served.socket()
    await client.subscribe("subscription { forever }", "running")
    await client.next("running")
    await client.send(frame)
    code, told = await client.closed()
    assert code == 4400
    assert told is not None
    assert reason.startswith(told[:100]) or told.startswith(reason)
    await served.quiet()


async def test_the_handshake_of_the_protocol_is_minded(served: Served) -> None:
    client = await served.connect()
    await client.send(SUBSCRIBE)
    assert await client.closed() == (4401, "Unauthorized")
    client = await served.socket()
    await client.send({"type": "connection_init"})
    assert await client.closed() == (4429, "Too many initialisation requests")
    client = await served.socket()
    await client.send(SUBSCRIBE)
    await client.next()
    await client.send(SUBSCRIBE)
    assert await client.closed() == (4409, "Subscriber for 1 already exists")
    for subprotocols in (None, ["graphql-ws"], ["soap", "x"]):
        client = await served.connect(subprotocols=subprotocols)
        assert await client.closed() == (4406, "Subprotocol not acceptable")
    client = await served.connect(subprotocols=["graphql-ws", PROTOCOL])
    assert client.connection.subprotocol == PROTOCOL


async def test_whoever_does_not_begin_in_time_is_sent_away() -> None:
    async with serving(connection_init_seconds=0.1) as served:
        for opening in ([], [{"type": "ping"}]):
            client = await served.connect()
            for frame in opening:
                await client.send(frame)
                assert await client.receive() == {"type": "pong"}
            assert await client.closed() == (4408, "Connection initialisation timeout")
        client = await served.socket()
        await asyncio.sleep(0.2)
        await client.subscribe("{ echo }")
        assert await client.next() == {"data": {"echo": ""}}


async def test_a_connection_has_so_many_operations_and_no_more() -> None:
    async with serving(connection_operations_max=2) as served:
        client, other = await served.socket(), await served.socket()
        for operation_id in ("1", "2"):
            await client.subscribe("subscription { forever }", operation_id)
            await client.next(operation_id)
        await client.subscribe("subscription { forever }", "3")
        assert await client.error("3") == "LIMIT_EXCEEDED"
        await other.subscribe("subscription { forever }")
        await other.next()
        await client.send({"id": "1", "type": "complete"})
        await until(lambda: served.operations.subscriptions == 2)
        await client.subscribe("subscription { forever }", "3")
        await client.next("3")


async def test_a_process_has_so_many_subscriptions_and_no_more() -> None:
    async with serving(subscriptions_max=1) as served:
        clients = [await served.socket() for _ in range(2)]
        await clients[0].subscribe("subscription { forever }")
        await clients[0].next()
        await clients[1].subscribe("subscription { forever }")
        assert await clients[1].error() == "UNAVAILABLE"


async def test_other_paths_and_origins_of_nothing_are_refused_cleanly(served: Served) -> None:
    for path in ("/", "/graphql/", "/graphqlx", "/health"):
        with pytest.raises(InvalidStatus) as refused:
            await served.connect(url=f"ws://127.0.0.1:{served.port}{path}")
        assert refused.value.response.status_code == 403


async def test_a_message_that_is_too_large_is_refused(served: Served, client: Socket) -> None:
    await client.send({"type": "ping", "payload": {"x": "x" * (BODY_BYTES_MAX + 1)}})
    assert (await client.closed())[0] == 1009
    client = await served.socket()
    await client.send({"type": "ping", "payload": {"x": "x" * (BODY_BYTES_MAX - 100)}})
    assert (await client.receive())["type"] == "pong"


async def test_a_subscription_that_is_too_large_to_be_kept_is_refused(client: Socket) -> None:
    for variables, more in (({"unknown": "x" * SUBSCRIPTION_BYTES_MAX}, ""), ({}, "#" * SUBSCRIPTION_BYTES_MAX)):
        await client.subscribe("subscription { count }" + more, variables=variables)
        assert await client.error() == "LIMIT_EXCEEDED"
        await client.subscribe("{ echo }" + more, variables=variables)
        assert await client.next() == {"data": {"echo": ""}}
        assert await client.completed()


async def test_too_many_json_values_are_refused_before_they_are_made() -> None:
    async with serving(body_bytes_max=4_000_000) as served:
        client = await served.socket()
        await client.send('{"type":"ping","payload":{"a":[' + "[]," * 1_000_000 + "0]}}")
        code, reason = await client.closed()
        assert (code, reason and reason[:36]) == (4400, "The body holds more than 1,000,000 J")


async def test_each_connection_has_one_line_in_the_log(served: Served) -> None:
    with capture_logs() as lines:
        client = await served.connect(additional_headers={"x-request-id": "r-1"})
        response = client.connection.response
        assert response is not None
        assert response.headers["x-request-id"] == "r-1"
        await client.send("{")
        await client.closed()
        await (await served.socket()).connection.close(1000)
        await served.quiet()
    assert [(line["event"], line["path"], line["code"]) for line in lines] == [
        ("websocket", "/graphql", 4400),
        ("websocket", "/graphql", 1000),
    ]


async def test_at_shutdown_clients_are_told_to_come_again(served: Served) -> None:
    clients = [await served.socket() for _ in range(3)]
    for field, client in zip(("forever", "slowToClose"), clients, strict=False):
        await client.subscribe(f"subscription {{ {field} }}")
        await client.next()
    with capture_logs() as lines:
        await served.stop()
        assert [(await client.closed())[0] for client in clients] == [1012] * 3
    assert [(line["event"], line["code"]) for line in lines] == [("websocket", 1012)] * 3


async def test_json_is_written_whatever_is_in_it(client: Socket) -> None:
    value = {"a": 10**30, "b": "\ud800", "c": [1.5, None]}
    await client.send(json.dumps({
        "id": "\ud800", "type": "subscribe",
        "payload": {"query": "query ($v: JSON!) { json(value: $v) }", "variables": {"v": value}},
    }))  # fmt: skip
    assert await client.next("\ud800") == {"data": {"json": value}}


async def test_a_page_of_another_site_cannot_connect(served: Served) -> None:
    for origin in ("http://evil.example", "null", f"http://localhost:{served.port + 1}"):
        with pytest.raises(InvalidStatus) as refused:
            await served.connect(origin=origin)
        assert refused.value.response.status_code == 403


async def test_a_page_of_its_own_or_of_an_allowed_origin_connects() -> None:
    async with serving(allowed_origins=("http://localhost:5173",)) as served:
        for origin in (f"http://127.0.0.1:{served.port}", "http://localhost:5173"):
            await served.socket(origin=origin)
