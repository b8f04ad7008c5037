"""Many at once: connections, requests, subscriptions. Who is honest is served meanwhile."""

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from schema.errors import Code
from tests.attacks.victim import Victim

pytestmark = pytest.mark.usefixtures("nothing_written")

# As many as the usual limit of open files lets a test and a service have.
CONNECTIONS = 400


def head(victim: Victim, length: int, *lines: str) -> bytes:
    sent = [
        "POST /graphql HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Type: application/json",
        f"Content-Length: {length}",
        *(f"{name}: {value}" for name, value in victim.headers.items()),
        *lines,
        "",
        "",
    ]
    return "\r\n".join(sent).encode()


def request(victim: Victim, query: str, *lines: str) -> bytes:
    body = json.dumps({"query": query}).encode()
    return head(victim, len(body), *lines) + body


def test_hundreds_of_idle_connections_leave_others_alone(victim: Victim) -> None:
    before = victim.memory()
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(victim.raw()) for _ in range(CONNECTIONS)]
        for raw in connections:
            raw.send(request(victim, "{ __typename }"))
        assert [raw.answer().data for raw in connections] == [{"__typename": "Query"}] * CONNECTIONS
        # 10,000 of them would be some 200 MiB.
        assert victim.memory() - before < CONNECTIONS * 100_000
        for _ in range(20):
            assert victim.ask("{ __typename }").data == {"__typename": "Query"}


def test_connections_that_come_and_go_leave_nothing(victim: Victim) -> None:
    for number in range(1_000):
        with victim.raw() as raw:
            if number % 3 == 0:
                raw.send(b"POST /graphql HTTP/1.1\r\n")
            elif number % 3 == 1:
                raw.send(request(victim, "{ contexts { totalCount } }"))


def test_many_costly_requests_at_once_are_answered_or_turned_away(victim: Victim) -> None:
    query = "{ " + " ".join(f"a{n}: contexts(first: 50) {{ nodes {{ id name metadata }} }}" for n in range(20)) + " }"
    body = json.dumps({"query": query}).encode()

    def ask(_number: int) -> int:
        with victim.raw() as raw:
            raw.send(head(victim, len(body), "Connection: close") + body)
            answer = raw.answer()
        if "errors" in answer.json:
            assert answer.code in {Code.UNAVAILABLE, Code.LIMIT_EXCEEDED, Code.TIMEOUT}
        return answer.status

    with ThreadPoolExecutor(40) as pool:
        statuses = list(pool.map(ask, range(120)))
    assert set(statuses) <= {200, 400, 429, 503}
    assert statuses.count(200) > 0


def test_requests_whose_callers_left_are_not_waited_for(victim: Victim) -> None:
    query = "{ " + " ".join(f"a{n}: contexts(first: 50) {{ nodes {{ id }} }}" for n in range(20)) + " }"
    for _ in range(100):
        with victim.raw() as raw:
            raw.send(request(victim, query))
    assert victim.ask("{ __typename }").data == {"__typename": "Query"}


def test_hundreds_of_streams_on_as_many_connections_are_held(victim: Victim, own_id: str) -> None:
    query = f'subscription {{ contextChanged(contextId: "{own_id}") {{ __typename }} }}'
    before = victim.memory()
    with contextlib.ExitStack() as stack:
        streams = [stack.enter_context(victim.raw()) for _ in range(200)]
        for raw in streams:
            raw.send(request(victim, query, "Accept: text/event-stream"))
        for raw in streams:
            assert b"200" in raw.socket.recv(1_000)
        assert victim.memory() - before < 200 * 200_000
        assert victim.ask("{ __typename }").data == {"__typename": "Query"}


def test_hundreds_of_subscriptions_on_a_few_connections_are_held(victim: Victim, own_id: str) -> None:
    query = "subscription ($id: ID!) { messageAppended(contextId: $id, afterVersion: 0) { version } }"
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            socket = stack.enter_context(victim.websocket())
            for number in range(100):
                socket.subscribe(query, str(number), variables={"id": own_id})
            seen: set[Any] = set()
            while len(seen) < 100:
                message = socket.receive()
                assert message["type"] == "next", message
                seen.add(message["id"])


def test_a_stream_that_nobody_reads_is_held_up(victim: Victim, own_id: str) -> None:
    asked = "{ version message { content } }"
    query = f'subscription {{ messageAppended(contextId: "{own_id}", afterVersion: 0) {asked} }}'
    before = victim.memory()
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            raw = stack.enter_context(victim.raw())
            raw.send(request(victim, query, "Accept: text/event-stream"))
        assert victim.ask("{ __typename }").data == {"__typename": "Query"}
        assert victim.memory() - before < 50 * 1024 * 1024
