"""The endpoint over real sockets, as uvicorn serves it."""

import socket
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

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
    endpoint = GraphQLEndpoint(Operations(SCHEMA, SETTINGS), Contexts(), SETTINGS)
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


def exchange(server: uvicorn.Server, data: bytes) -> bytes:
    """Send bytes as they are; give all that comes back until the server closes or is quiet for a while."""
    received = b""
    with socket.create_connection(("127.0.0.1", server.config.port), timeout=2) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        while chunk := connection.recv(65_536):
            received += chunk
    return received


@pytest.mark.parametrize(
    ("head", "body", "status"),
    [
        ("POST /graphql HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 4", b"null", b"400"),
        ("POST /graphql HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 2", b"\xff\xfe", b"400"),
        ("POST /graphql HTTP/1.1\r\nContent-Length: 4", b"null", b"415"),
        (f"GET /graphql?query={quote('{ echo }')} HTTP/1.1\r\nAccept: \xff", b"", b"200"),
        ("GET /graphql?query=%ff%fe HTTP/1.1", b"", b"400"),
        ("BREW /graphql HTTP/1.1", b"", b"400"),  # uvicorn's own refusal
    ],
)
def test_over_a_socket_malformed_requests_are_answered(
    server: uvicorn.Server, head: str, body: bytes, status: bytes
) -> None:
    request = head.encode("latin-1") + b"\r\nHost: test\r\nConnection: close\r\n\r\n" + body
    assert exchange(server, request).split(b" ", 2)[1] == status


def test_over_a_socket_a_client_that_leaves_harms_nobody(server: uvicorn.Server, http: httpx2.Client) -> None:
    head = b"POST /graphql HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    with socket.create_connection(("127.0.0.1", server.config.port)) as connection:
        connection.sendall(head)
    assert http.post("/graphql", json={"query": "{ echo }"}).status_code == 200
