"""Pages of other origins: none may use the service unless its origin is allowed, by HTTP or by a WebSocket."""

from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from graphql_api.app import create_app
from graphql_api.origin import may_connect
from graphql_api.settings import Settings, refusals
from tests.conftest import api_over
from tests.graphql_api.asking import BROWSER

DEV = "http://localhost:5173"


def read(monkeypatch: pytest.MonkeyPatch, value: str) -> tuple[str, ...]:
    monkeypatch.setenv("FORKPOINT_ALLOWED_ORIGINS", value)
    return Settings(_env_file=None).allowed_origins


LISTS = {
    "": (),
    " , ": (),
    "*": ("*",),
    DEV: (DEV,),
    f" {DEV}/ ,https://app.example.org": (DEV, "https://app.example.org"),
    f'["{DEV}", "{DEV}"]': (DEV,),
    "[]": (),
    "HTTP://LocalHost:80,https://A.example:443,http://a.example:443": (
        "http://localhost",
        "https://a.example",
        "http://a.example:443",
    ),
    "http://[::1]:8000": ("http://[::1]:8000",),
    "chrome-extension://abcdef, tauri://localhost": ("chrome-extension://abcdef", "tauri://localhost"),
}


@pytest.mark.parametrize("value", LISTS)
def test_origins_are_read_as_browsers_write_them(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    assert read(monkeypatch, value) == LISTS[value]


NO_ORIGIN = "an origin is a scheme, a host and perhaps a port, such as http://localhost:5173, or * for all"
NO_LIST = "it must be origins separated by commas, or a JSON list of them"
NULL = "any page can make its origin null: allow * if all pages may call"
REFUSED = {
    "localhost": NO_ORIGIN,
    "localhost:5173": NO_ORIGIN,
    "//localhost": NO_ORIGIN,
    f"{DEV}/app": NO_ORIGIN,
    f"{DEV}?": NO_ORIGIN,
    f"{DEV}#": NO_ORIGIN,
    f"{DEV}?x": NO_ORIGIN,
    "http://user@localhost": NO_ORIGIN,
    "http://localhost:": NO_ORIGIN,
    "http://localhost:0": NO_ORIGIN,
    "http://localhost:65536": NO_ORIGIN,
    "http://localhost:five": NO_ORIGIN,
    "http://[::1": NO_ORIGIN,
    "http://*.example.org": NO_ORIGIN,
    "http://bücher.example": NO_ORIGIN,
    f"{DEV} {DEV}": NO_ORIGIN,
    "file://": NO_ORIGIN,
    "null": NULL,
    f"{DEV},Null": NULL,
    "[1]": NO_LIST,
    "[": NO_LIST,
    f"[{DEV}]": NO_LIST,
    '[["*"]]': NO_LIST,
}


@pytest.mark.parametrize("value", REFUSED)
def test_what_no_browser_sends_as_an_origin_cannot_be_allowed(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    with pytest.raises(ValidationError) as refused:
        read(monkeypatch, value)
    assert [message for _, message in refusals(refused.value)] == [REFUSED[value]]


def handshake(*origins: str, host: str | None = "127.0.0.1:8000") -> list[tuple[bytes, bytes]]:
    headers = [(b"origin", origin.encode("latin-1")) for origin in origins]
    return headers if host is None else [(b"host", host.encode("latin-1")), *headers]


SAME = [
    ("http://127.0.0.1:8000", "127.0.0.1:8000"),
    ("http://localhost:8000", "localhost:8000"),
    ("http://[::1]:8000", "[::1]:8000"),
    ("http://example.org", "example.org"),
    ("http://example.org", "example.org:80"),
    ("https://example.org", "example.org"),  # TLS ends at a proxy
    ("https://example.org", "example.org:443"),
    ("https://Example.org:443", "EXAMPLE.ORG"),
]


@pytest.mark.parametrize(("origin", "host"), SAME)
def test_a_page_may_connect_to_where_it_came_from(origin: str, host: str) -> None:
    assert may_connect(handshake(origin, host=host), ())


OTHERS = [
    ("http://evil.example", "127.0.0.1:8000"),
    ("http://127.0.0.1", "127.0.0.1:8000"),
    ("http://127.0.0.1:5173", "127.0.0.1:8000"),
    ("http://localhost:8000", "127.0.0.1:8000"),
    ("http://127.0.0.1:8000.evil.example", "127.0.0.1:8000"),
    ("http://127.0.0.1:8000@evil.example", "127.0.0.1:8000"),
    ("http://evil.example#127.0.0.1:8000", "127.0.0.1:8000"),
    ("http://evil.example/127.0.0.1:8000", "127.0.0.1:8000"),
    ("http://sub.example.org", "example.org"),
    ("http://example.org", "sub.example.org"),
    ("http://example.org.", "example.org"),
    ("http://example.org:443", "example.org:80"),
    ("https://example.org", "example.org:80"),
    ("ftp://example.org", "example.org"),
    ("chrome-extension://abcdef", "abcdef"),
    ("file://", ""),
    ("null", "null"),
    ("null", "127.0.0.1:8000"),
    ("", ""),
    ("", "127.0.0.1:8000"),
    ("http://", ""),
    ("127.0.0.1:8000", "127.0.0.1:8000"),
    ("//127.0.0.1:8000", "127.0.0.1:8000"),
    ("http://127.0.0.1:8000/", "127.0.0.1:8000"),
    ("http://127.0.0.1:8000, http://evil.example", "127.0.0.1:8000"),
    ("http://evil.example http://127.0.0.1:8000", "127.0.0.1:8000"),
    ("http://a:b@127.0.0.1:8000", "127.0.0.1:8000"),
    ("http://127.0.0.1:8000", "a@127.0.0.1:8000"),
    ("http://127.0.0.1:99999", "127.0.0.1:99999"),
    ("http://[::1", "[::1"),
    ("http://\xe9.example", "127.0.0.1:8000"),
]


@pytest.mark.parametrize(("origin", "host"), OTHERS)
def test_a_page_from_elsewhere_may_not_connect(origin: str, host: str) -> None:
    assert not may_connect(handshake(origin, host=host), (DEV,))


def test_what_is_no_browser_may_connect() -> None:
    for host in ("127.0.0.1:8000", "", None):
        assert may_connect(handshake(host=host), ())


def test_a_page_of_an_allowed_origin_may_connect() -> None:
    allowed = (DEV, "https://app.example.org", "tauri://localhost")
    for origin in (*allowed, "HTTP://LOCALHOST:5173", "https://app.example.org:443"):
        assert may_connect(handshake(origin), allowed)
        assert may_connect(handshake(origin, host=None), allowed)
        assert not may_connect(handshake(origin), ())
    for origin in ("http://app.example.org", "https://localhost:5173", "http://localhost", "null"):
        assert not may_connect(handshake(origin), allowed)
        assert may_connect(handshake(origin), ("*",))


def test_what_is_not_clear_may_not_connect() -> None:
    same, evil = "http://127.0.0.1:8000", "http://evil.example"
    for origins in ((same, same), (same, evil), (evil, same)):
        assert not may_connect(handshake(*origins), ())
    assert not may_connect(handshake(same, host=None), ())
    assert not may_connect([*handshake(evil), (b"host", b"evil.example")], ())
    # Headers that only proxies or servers may set say nothing here.
    assert not may_connect([*handshake(evil), (b"x-forwarded-host", b"evil.example")], ())
    assert may_connect(iter(handshake(same)), ())


@given(st.binary(max_size=30), st.binary(max_size=30))
def test_any_handshake_is_decided(origin: bytes, host: bytes) -> None:
    assert not may_connect([(b"origin", origin), (b"host", host)], ()) or host.lower() in origin.lower()


PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "content-type,x-any"}
EXPOSED = "Allow, Server-Timing, X-Request-ID"
QUERY = {"query": "{ __typename }"}


def across(response: httpx2.Response) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.startswith("access-control-")}


def with_origins(settings: Settings, *origins: str) -> Settings:
    return settings.model_copy(update={"allowed_origins": origins})


async def test_without_the_setting_no_answer_speaks_of_origins(settings: Settings) -> None:
    async with api_over(create_app(settings)) as api:
        headers = {"origin": DEV}
        preflight = await api.http.options("/graphql", headers=headers | PREFLIGHT)
        assert (preflight.status_code, preflight.headers["allow"]) == (204, "GET, HEAD, POST, OPTIONS")
        for response in (
            preflight,
            await api.http.post("/graphql", json=QUERY, headers=headers),
            await api.http.get("/graphql", params=QUERY, headers=headers),
            await api.http.get("/health", headers=headers),
        ):
            assert across(response) == {}
            assert "origin" not in response.headers.get("vary", "").lower()


ASKED: list[tuple[str, str, dict[str, Any], int]] = [
    ("POST", "/graphql", {"json": QUERY}, 200),
    ("POST", "/graphql", {"json": {}}, 400),
    ("POST", "/graphql", {"content": b"{}"}, 415),
    ("GET", "/graphql", {"params": QUERY}, 200),
    ("GET", "/graphql", {"params": {"query": "mutation { __typename }"}}, 405),
    ("GET", "/graphql", {"headers": {"accept": BROWSER}}, 200),
    ("HEAD", "/graphql", {"params": QUERY}, 200),
    ("OPTIONS", "/graphql", {}, 204),
    ("GET", "/health", {}, 200),
    ("GET", "/nowhere", {}, 404),
]


async def test_a_page_of_an_allowed_origin_reads_answers_and_no_other(settings: Settings) -> None:
    async with api_over(create_app(with_origins(settings, DEV))) as api:
        for method, path, options, status in ASKED:
            for origin in (DEV, "http://localhost:5174", "null", None):
                sent = options | {"headers": options.get("headers", {}) | ({"origin": origin} if origin else {})}
                response = await api.http.request(method, path, **sent)
                assert response.status_code == status
                assert "origin" in response.headers["vary"].lower().split(", ")
                assert len(response.headers.get_list("x-request-id")) == 1
                told = across(response)
                assert told.get("access-control-allow-origin") == (DEV if origin == DEV else None)
                assert told.get("access-control-expose-headers") == (EXPOSED if origin else None)
                assert "access-control-allow-credentials" not in told


@pytest.mark.parametrize("path", ["/graphql", "/health"])
async def test_a_browser_that_asks_first_learns_that_json_may_be_posted(settings: Settings, path: str) -> None:
    async with api_over(create_app(with_origins(settings, DEV, "https://app.example.org"))) as api:
        response = await api.http.options(path, headers={"origin": DEV} | PREFLIGHT)
        assert (response.status_code, across(response)) == (
            200,
            {
                "access-control-allow-origin": DEV,
                "access-control-allow-methods": "GET, HEAD, POST",
                "access-control-allow-headers": "content-type,x-any",
                "access-control-max-age": "600",
            },
        )
        for refused in ({"origin": "http://evil.example"}, {"origin": "null"}, {"origin": f"{DEV}.evil.example"}):
            response = await api.http.options(path, headers=refused | PREFLIGHT)
            assert response.status_code == 400
            assert "access-control-allow-origin" not in response.headers
        response = await api.http.options(
            path, headers={"origin": DEV} | PREFLIGHT | {"access-control-request-method": "DELETE"}
        )
        assert response.status_code == 400


async def test_a_page_of_a_public_address_may_ask_a_private_one_when_it_is_allowed(settings: Settings) -> None:
    async with api_over(create_app(with_origins(settings, DEV))) as api:
        headers = {"origin": DEV, "access-control-request-private-network": "true"} | PREFLIGHT
        response = await api.http.options("/graphql", headers=headers)
        assert (response.status_code, response.headers["access-control-allow-private-network"]) == (200, "true")


async def test_every_origin_may_be_allowed(settings: Settings) -> None:
    async with api_over(create_app(with_origins(settings, "*"))) as api:
        for origin in (DEV, "null"):
            response = await api.http.post("/graphql", json=QUERY, headers={"origin": origin})
            assert (response.json(), response.headers["access-control-allow-origin"]) == (
                {"data": {"__typename": "Query"}},
                "*",
            )
            preflight = await api.http.options("/graphql", headers={"origin": origin} | PREFLIGHT)
            assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, "*")
