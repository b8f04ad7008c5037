"""Headers for browsers: on every answer, whatever path, method and status, also to what is hardly HTTP."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from graphql_api.app import create_app
from graphql_api.graphiql_page import FOLDER
from graphql_api.security_headers import HEADERS
from graphql_api.settings import Settings
from tests.graphql_api.asking import BROWSER
from tests.graphql_api.serving import SECONDS_MAX, listening

DEV = "http://localhost:5173"
SCRIPT = next(file.name for file in FOLDER.iterdir() if file.suffix == ".js")
EVERYWHERE = {name.decode(): value.decode() for name, value in HEADERS}
# What they tell of the machine, or would have browsers do what only a proxy can promise.
NOWHERE = {"server", "x-powered-by", "strict-transport-security", "set-cookie"}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND")
PATHS = (
    "/",
    "/graphql",
    "/graphql/",
    "/health",
    "/health/",
    "/graphiql",
    "/graphiql/",
    "/graphiql/x",
    "/x",
    "//",
    "/%00",
)


@pytest.fixture
async def port(settings: Settings) -> AsyncIterator[int]:
    settings = settings.model_copy(update={"allowed_origins": (DEV,), "body_bytes_max": 1_000})
    async with listening(create_app(settings), settings) as port:
        yield port


def check(headers: httpx2.Headers, **own: str) -> None:
    """Look at the headers of an answer, of which some may be its own."""
    for name, value in (EVERYWHERE | own).items():
        assert headers.get_list(name) == [value], name
    assert not NOWHERE & set(headers)


async def test_whatever_is_asked_the_answer_says_what_browsers_may_do(port: int) -> None:
    seen = set()
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS_MAX) as http:
        for path in PATHS:
            for method in METHODS:
                response = await http.request(method, path)
                seen.add(response.status_code)
                check(response.headers)
                if response.status_code >= 400 and method != "HEAD":
                    assert response.json()["errors"][0]["extensions"]["code"]
    assert seen >= {200, 204, 307, 400, 404, 405}


QUERY = {"query": "{ __typename }"}
ASKED: list[tuple[str, dict[str, Any], int]] = [
    ("POST", {"json": QUERY}, 200),
    ("POST", {"json": {"query": "{ contexts { totalCount } }"}}, 200),
    ("POST", {"json": {"query": "{"}}, 200),
    ("POST", {"json": {"query": "{"}, "headers": {"accept": "application/graphql-response+json"}}, 400),
    ("POST", {"json": QUERY, "headers": {"accept": "text/css"}}, 406),
    ("POST", {"json": QUERY | {"extensions": {"x": "x" * 2_000}}}, 413),
    ("GET", {"params": {"query": "x" * 2_000}}, 200),
    ("POST", {"content": b"x"}, 415),
    ("GET", {"params": {"query": "mutation { __typename }"}}, 405),
    ("POST", {"json": QUERY, "headers": {"host": "evil.example"}}, 421),
    ("POST", {"json": QUERY, "headers": {"accept": "text/event-stream"}}, 200),
    ("OPTIONS", {"headers": {"origin": DEV, "access-control-request-method": "POST"}}, 200),
    ("OPTIONS", {"headers": {"origin": "http://evil.example", "access-control-request-method": "POST"}}, 400),
    ("POST", {"json": QUERY, "headers": {"origin": DEV}}, 200),
]


async def test_so_do_answers_and_errors_of_graphql_and_answers_across_origins(port: int) -> None:
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS_MAX) as http:
        for method, options, status in ASKED:
            response = await http.request(method, "/graphql", **options)
            assert response.status_code == status, options
            check(response.headers)


async def test_the_page_and_its_files_say_what_they_need_and_may_not_be_framed_either(port: int) -> None:
    async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS_MAX) as http:
        page = await http.get("/graphql", headers={"accept": BROWSER})
        policy = page.headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert policy.endswith("frame-ancestors 'none'")
        check(page.headers, **{"content-security-policy": policy, "cross-origin-opener-policy": "same-origin"})
        assert "geolocation=()" in page.headers["permissions-policy"]
        file = await http.get(f"/graphiql/{SCRIPT}")
        own = {
            "content-security-policy": "default-src 'none'; script-src 'self'; frame-ancestors 'none'",
            "cache-control": "public, max-age=31536000, immutable",
        }
        check(file.headers, **own)
        again = await http.get(f"/graphiql/{SCRIPT}", headers={"range": "bytes=999999999-"})
        assert again.status_code == 416
        check(again.headers, **own if "script-src" in again.headers["content-security-policy"] else {})


@pytest.mark.parametrize(
    "sent",
    [
        b"no HTTP at all\r\n\r\n",
        b"GET /graphql HTTP/1.1\r\nHost: localhost\r\nA b: c\r\n\r\n",
        b"POST /graphql HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"GET /graphql HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        b"GET /graphql HTTP/1.1\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 7\r\n\r\n",
    ],
)
async def test_so_does_what_the_server_says_to_what_is_hardly_a_request(port: int, sent: bytes) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    head = (await asyncio.wait_for(reader.read(), SECONDS_MAX)).partition(b"\r\n\r\n")[0]
    writer.close()
    status, *lines = head.decode().split("\r\n")
    assert status.split()[1] in {"400", "426"}
    check(httpx2.Headers([(name, value) for name, _, value in (line.partition(": ") for line in lines)]))


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/graphql", {"origin": "http://evil.example"}, 403),
        ("/nothing", {}, 403),
        ("/health", {}, 403),
    ],
)
async def test_so_does_a_handshake_that_is_refused(port: int, path: str, headers: dict[str, str], status: int) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://127.0.0.1:{port}{path}", additional_headers=headers)
    assert refused.value.response.status_code == status
    check(httpx2.Headers(list(refused.value.response.headers.raw_items())))


async def test_what_fails_in_the_routes_is_told_apart_from_why(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_service: object) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr("graphql_api.app.health.check", fail)
    async with listening(create_app(settings), settings) as port, httpx2.AsyncClient() as http:
        response = await http.get(f"http://127.0.0.1:{port}/health")
    assert (response.status_code, response.json()["errors"][0]["extensions"]["code"]) == (500, "INTERNAL_SERVER_ERROR")
    assert "a secret" not in response.text
    check(response.headers)
