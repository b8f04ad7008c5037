"""The endpoint over real sockets, as uvicorn serves it."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

from graphql_api.auth import Authenticator
from graphql_api.endpoint import GraphQLEndpoint
from graphql_api.log import RequestLog
from graphql_api.media import JSON
from graphql_api.operation import Operations
from graphql_api.server import configure
from schema.errors import Code
from tests.graphql_api.asking import BODY_BYTES_MAX, BROWSER, SETTINGS, Contexts, code_of
from tests.graphql_api.small_schema import SCHEMA


@pytest.fixture(scope="module")
def server() -> Iterator[uvicorn.Server]:
    """Serve over a real socket from a thread."""
    endpoint = GraphQLEndpoint(Operations(SCHEMA, SETTINGS), Authenticator(), Contexts(), SETTINGS)
    app = Starlette(routes=[Route("/graphql", endpoint)], middleware=[Middleware(RequestLog)])
    listening = socket.create_server(("127.0.0.1", 0))
    running = uvicorn.Server(configure(app, SETTINGS, lifespan="off"))
    thread = threading.Thread(target=running.run, args=([listening],))
    thread.start()
    while not running.started:
        time.sleep(0.01)
    running.config.port = listening.getsockname()[1]
    yield running
    running.should_exit = True
    thread.join()
    listening.close()


@pytest.fixture
def http(server: uvicorn.Server) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=f"http://127.0.0.1:{server.config.port}", timeout=30) as client:
        yield client


def test_over_http_every_method_is_answered(http: httpx2.Client) -> None:
    found = http.post("/graphql", json={"query": "{ echo }"}, headers={"x-request-id": "r-1"})
    assert (found.status_code, found.json(), found.headers["x-request-id"]) == (200, {"data": {"echo": ""}}, "r-1")
    assert http.get("/graphql", params={"query": "{ echo }"}).json() == {"data": {"echo": ""}}
    head = http.head("/graphql", params={"query": "{ echo }"})
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "20")
    assert http.options("/graphql").status_code == 204
    assert http.delete("/graphql").headers["allow"] == "GET, HEAD, POST, OPTIONS"
    assert "GraphiQL" in http.get("/graphql", headers={"accept": BROWSER}).text


@pytest.mark.parametrize("chunked", [False, True])
def test_over_http_a_large_body_is_refused_and_the_connection_lives_on(http: httpx2.Client, chunked: bool) -> None:
    body = b" " * (20 * BODY_BYTES_MAX)
    content: Any = (body[start : start + 65_536] for start in range(0, len(body), 65_536)) if chunked else body
    found = http.post("/graphql", content=content, headers={"content-type": JSON})
    assert found.status_code == 413
    assert code_of(found.status_code, found.headers, found.content) == Code.LIMIT_EXCEEDED
    assert http.post("/graphql", json={"query": "{ echo }"}).status_code == 200


def test_over_http_requests_do_not_wait_for_each_other(http: httpx2.Client) -> None:
    outcomes: list[int] = []
    content = {"query": "{ " + " ".join(f"a{number}: echo" for number in range(500)) + " }"}

    def ask() -> None:
        outcomes.append(http.post("/graphql", json=content).status_code)

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [200] * 16


Exchanged = list[tuple[int, Any]]


def exchange(server: uvicorn.Server, *pieces: bytes) -> Exchanged:
    """Send bytes as they are, piece by piece; give the status and body of all that comes back until the server closes.

    A body that is JSON is read; the others are uvicorn's own refusals.
    """
    with socket.create_connection(("127.0.0.1", server.config.port), timeout=30) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def send() -> None:
            for piece in pieces:
                connection.sendall(piece)

        sending = threading.Thread(target=send)
        sending.start()
        answers = list(read_answers(connection))
        sending.join()
    return answers


def read_answers(connection: socket.socket) -> Iterator[tuple[int, Any]]:
    with connection.makefile("rb") as received:
        while status := received.readline():
            headers = dict(
                line.decode("latin-1").lower().rstrip().split(": ", 1) for line in iter(received.readline, b"\r\n")
            )
            body = received.read(int(headers.get("content-length", 0)))
            is_json = headers.get("content-type", "").startswith(JSON)
            yield int(status.split()[1]), json.loads(body) if is_json else body.decode()


def request(first: str, *headers: str, body: bytes = b"", close: bool = True) -> bytes:
    lines = [f"{first} HTTP/1.1", "Host: test", *headers, *(["Connection: close"] if close else [])]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


POST, AS_JSON = "POST /graphql", "Content-Type: application/json"
QUERY = b'{"query":"{echo}"}'
LENGTH, CHUNKED = f"Content-Length: {len(QUERY)}", "Transfer-Encoding: chunked"
IN_CHUNKS = b"8;x=y\r\n" + QUERY[:8] + b"\r\na\r\n" + QUERY[8:] + b"\r\n0\r\nX-Trailer: x\r\n\r\n"
ECHO = {"data": {"echo": ""}}
# uvicorn's own refusal, of what is not HTTP.
NO_HTTP = (400, "Invalid HTTP request received.")

# What is sent, and what comes back; a code stands for a refusal of ours.
EXCHANGES: dict[str, tuple[bytes, tuple[int, Any]]] = {
    "null": (request(POST, AS_JSON, "Content-Length: 4", body=b"null"), (400, Code.BAD_USER_INPUT)),
    "not UTF-8": (request(POST, AS_JSON, "Content-Length: 2", body=b"\xff\xfe"), (400, Code.BAD_USER_INPUT)),
    "no content type": (request(POST, LENGTH, body=QUERY), (415, Code.BAD_USER_INPUT)),
    "content type twice": (
        request(POST, AS_JSON, "Content-Type: text/plain", LENGTH, body=QUERY),
        (415, Code.BAD_USER_INPUT),
    ),
    "content type on two lines": (
        request(POST, "Content-Type: application/json;\r\n charset=utf-8", LENGTH, body=QUERY),
        NO_HTTP,
    ),
    "byte order mark": (request(POST, AS_JSON, "Content-Length: 21", body=b"\xef\xbb\xbf" + QUERY), (200, ECHO)),
    "chunks": (request(POST, AS_JSON, CHUNKED, body=IN_CHUNKS), (200, ECHO)),
    "chunks of no length": (request(POST, AS_JSON, CHUNKED, body=b"x\r\n" + QUERY), NO_HTTP),
    "chunks and a length": (request(POST, AS_JSON, CHUNKED, LENGTH, body=IN_CHUNKS), NO_HTTP),
    "no length": (request(POST, AS_JSON), (400, Code.BAD_USER_INPUT)),
    "a length too short": (request(POST, AS_JSON, "Content-Length: 9", body=QUERY), (400, Code.BAD_USER_INPUT)),
    "two lengths": (request(POST, AS_JSON, LENGTH, "Content-Length: 9", body=QUERY), NO_HTTP),
    "a length below zero": (request(POST, AS_JSON, "Content-Length: -1", body=QUERY), NO_HTTP),
    "a length that is none": (request(POST, AS_JSON, "Content-Length: 0x12", body=QUERY), NO_HTTP),
    "a length of 23 digits": (request(POST, AS_JSON, f"Content-Length: {'9' * 23}", body=QUERY), NO_HTTP),
    "a length too large": (request(POST, AS_JSON, "Content-Length: 99999999999"), (413, Code.LIMIT_EXCEEDED)),
    "too large and asked first": (
        request(POST, AS_JSON, "Content-Length: 99999999999", "Expect: 100-continue"),
        (413, Code.LIMIT_EXCEEDED),
    ),
    "compressed": (request(POST, AS_JSON, "Content-Encoding: gzip", LENGTH, body=QUERY), (415, Code.BAD_USER_INPUT)),
    "accept twice": (
        request(POST, AS_JSON, LENGTH, "Accept: text/css", "Accept: */*;q=0.1", body=QUERY),
        (200, ECHO),
    ),
    "accept nothing": (request(POST, AS_JSON, LENGTH, "Accept: */*;q=0", body=QUERY), (406, Code.BAD_USER_INPUT)),
    "accept an empty line": (request(POST, AS_JSON, LENGTH, "Accept:", body=QUERY), (200, ECHO)),
    "accept no ASCII": (request("GET /graphql?query={echo}", "Accept: \xff"), (200, ECHO)),
    "a whole URL": (request("POST http://elsewhere.example/graphql", AS_JSON, LENGTH, body=QUERY), (200, ECHO)),
    "an escaped path": (request("POST /%67raphql", AS_JSON, LENGTH, body=QUERY), (200, ECHO)),
    "another path": (request("POST //graphql", AS_JSON, LENGTH, body=QUERY), (404, "Not Found")),
    "escapes": (request("GET /graphql?query=%7Becho%28text%3A+%22%C3%A9%22%29%7D"), (200, {"data": {"echo": "é"}})),
    "escapes that are none": (request("GET /graphql?query={echo}&x=%zz&y=%"), (200, ECHO)),
    "escapes of no UTF-8": (request("GET /graphql?query=%ff%fe"), (400, Code.BAD_USER_INPUT)),
    "overlong UTF-8": (request("GET /graphql?query={echo}%C0%AF"), (400, Code.BAD_USER_INPUT)),
    "raw UTF-8": (request("GET /graphql?query={echo}&x=\xc3\xa9"), NO_HTTP),
    "a fragment": (request("GET /graphql?query={echo}#x"), (200, ECHO)),
    "empty values": (request("GET /graphql?query={echo}&variables=&extensions=&operationName="), (200, ECHO)),
    "null values": (request("GET /graphql?query={echo}&variables=null&extensions=null"), (200, ECHO)),
    "no values": (request("GET /graphql?query={echo}&variables&extensions&operationName"), (200, ECHO)),
    "a semicolon": (request("GET /graphql?query={echo};variables=1"), (200, Code.GRAPHQL_PARSE_FAILED)),
    "GET with a body": (request("GET /graphql", AS_JSON, LENGTH, body=QUERY), (400, Code.BAD_USER_INPUT)),
    "GET with two documents": (
        request("GET /graphql?query={echo}", AS_JSON, LENGTH, body=QUERY.replace(b"echo", b"none")),
        (200, ECHO),
    ),
    "POST to a query": (
        request("POST /graphql?query={echo}", AS_JSON, "Content-Length: 2", body=b"{}"),
        (400, Code.BAD_USER_INPUT),
    ),
    "a long URL": (request("GET /graphql?query={echo}&x=" + "x" * 70_000), NO_HTTP),
    "an unknown method": (request("BREW /graphql"), NO_HTTP),
    "a method in lower case": (request("post /graphql", AS_JSON, LENGTH, body=QUERY), NO_HTTP),
    "a tunnel": (request("CONNECT example.org:443"), NO_HTTP),
    "lines that end in LF": (request(POST, AS_JSON, LENGTH, body=QUERY).replace(b"\r\n", b"\n"), NO_HTTP),
    "HTTP/1.0": (request(POST, AS_JSON, LENGTH, body=QUERY).replace(b"HTTP/1.1", b"HTTP/1.0"), (200, ECHO)),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", NO_HTTP),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", NO_HTTP),
}


@pytest.mark.parametrize("name", EXCHANGES)
def test_over_a_socket_whatever_is_sent_is_answered(server: uvicorn.Server, name: str) -> None:
    sent, (status, expected) = EXCHANGES[name]
    ((found, body),) = exchange(server, sent)
    assert (found, code_in(body) if isinstance(expected, Code) else body) == (status, expected)


def code_in(body: Any) -> str:
    return str(body["errors"][0]["extensions"]["code"])


def test_over_a_socket_who_asks_first_is_told_to_go_on(server: uvicorn.Server) -> None:
    sent = request(POST, AS_JSON, LENGTH, "Expect: 100-continue", body=QUERY)
    assert exchange(server, sent) == [(100, ""), (200, ECHO)]


def test_over_a_socket_a_body_that_never_ends_is_not_answered_and_harms_nobody(
    server: uvicorn.Server, http: httpx2.Client
) -> None:
    with socket.create_connection(("127.0.0.1", server.config.port), timeout=30) as connection:
        connection.sendall(request(POST, AS_JSON, "Content-Length: 100", body=QUERY))
        assert http.post("/graphql", json={"query": "{ echo }"}).json() == ECHO
        connection.shutdown(socket.SHUT_WR)
        assert list(read_answers(connection)) == []


OFFER = ("Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")
WITH_OFFER = (*OFFER, "Connection: Upgrade, HTTP2-Settings")
OFFERS: dict[str, bytes] = {
    "a length": request(POST, AS_JSON, LENGTH, *WITH_OFFER, body=QUERY, close=False),
    "chunks": request(POST, AS_JSON, CHUNKED, *WITH_OFFER, body=IN_CHUNKS, close=False),
    "nothing": request("GET /graphql?query={echo}", *WITH_OFFER, close=False),
    "another protocol": request(POST, AS_JSON, LENGTH, "Upgrade: x/1", "Connection: upgrade", body=QUERY, close=False),
}
LAST = request(POST, AS_JSON, LENGTH, body=QUERY)


@pytest.mark.parametrize("name", OFFERS)
def test_over_a_socket_who_offers_another_protocol_is_answered_in_this_one(server: uvicorn.Server, name: str) -> None:
    offer = OFFERS[name]
    head, rest = offer[: offer.index(b"\r\n\r\n") + 4], offer[offer.index(b"\r\n\r\n") + 4 :]
    assert exchange(server, offer, LAST) == [(200, ECHO)] * 2
    assert exchange(server, head, rest, LAST) == [(200, ECHO)] * 2
    assert exchange(server, *(bytes([each]) for each in offer + LAST)) == [(200, ECHO)] * 2
    assert exchange(server, LAST.replace(b"Connection: close\r\n", b"") + offer * 3 + LAST) == [(200, ECHO)] * 5


def test_over_a_socket_an_offer_changes_nothing_else(server: uvicorn.Server) -> None:
    closing = "Connection: Upgrade, HTTP2-Settings, close"
    assert exchange(server, request(POST, AS_JSON, LENGTH, *OFFER, closing, body=QUERY, close=False)) == [(200, ECHO)]
    asking = request(POST, AS_JSON, LENGTH, *WITH_OFFER, "Expect: 100-continue", body=QUERY)
    assert exchange(server, asking) == [(100, ""), (200, ECHO)]
    plain = request(POST, LENGTH, *WITH_OFFER, body=QUERY)
    assert [(status, code_in(body)) for status, body in exchange(server, plain)] == [(415, Code.BAD_USER_INPUT)]
    assert exchange(server, request(POST, AS_JSON, CHUNKED, *WITH_OFFER, body=b"x\r\n")) == [(400, NO_HTTP[1])]
    assert exchange(server, request("CONNECT example.org:443", *WITH_OFFER)) == [NO_HTTP]


def test_over_a_socket_a_thousand_offers_at_once_are_answered(server: uvicorn.Server) -> None:
    assert exchange(server, OFFERS["nothing"] * 1_000 + LAST) == [(200, ECHO)] * 1_001


def test_over_a_socket_a_client_that_leaves_harms_nobody(server: uvicorn.Server, http: httpx2.Client) -> None:
    head = b"POST /graphql HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    with socket.create_connection(("127.0.0.1", server.config.port)) as connection:
        connection.sendall(head)
    assert http.post("/graphql", json={"query": "{ echo }"}).status_code == 200
