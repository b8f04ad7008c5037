"""Names that the service is called by: a page whose own name resolves to us reaches nothing (DNS rebinding)."""

import asyncio
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from graphql_api.app import create_app
from graphql_api.origin import hosts, is_called
from graphql_api.settings import Settings, refusals
from graphql_api.websocket import PROTOCOL
from tests.conftest import api_over
from tests.graphql_api.serving import SECONDS_MAX, Socket, listening

QUERY = {"query": "{ __typename }"}
LOCAL = {"localhost", "127.0.0.1", "[::1]"}


def read(monkeypatch: pytest.MonkeyPatch, value: str) -> tuple[str, ...]:
    monkeypatch.setenv("FORKPOINT_ALLOWED_HOSTS", value)
    return Settings(_env_file=None).allowed_hosts


LISTS = {
    "": (),
    " , ": (),
    "*": ("*",),
    "api.example.org, API.example.org": ("api.example.org",),
    "[::1],10.0.0.1": ("[::1]", "10.0.0.1"),
    '["a.example", "[::1]"]': ("a.example", "[::1]"),
    "my_service": ("my_service",),
}


@pytest.mark.parametrize("value", LISTS)
def test_hosts_are_read_as_clients_write_them(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    assert read(monkeypatch, value) == LISTS[value]


@pytest.mark.parametrize(
    "value", ["a:80", "http://a", "*.a", "a/b", "a@b", "::1", "[::1", "[::1]:80", "bücher.example"]
)
def test_what_is_no_host_cannot_be_allowed(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    with pytest.raises(ValidationError) as refused:
        read(monkeypatch, value)
    message = "a host is a name or an address without a port, such as api.example.org or [::1], or * for all"
    assert [message for _, message in refusals(refused.value)] == [message]


@pytest.mark.parametrize(
    ("address", "names"),
    [
        ("127.0.0.1", LOCAL),
        ("127.0.0.2", LOCAL | {"127.0.0.2"}),
        ("::1", LOCAL),
        ("localhost", LOCAL),
        ("LOCALHOST", LOCAL),
        ("0.0.0.0", {"*"}),  # noqa: S104 - what is looked at
        ("::", {"*"}),
        ("10.0.0.1", {"*"}),
        ("forkpoint.internal", {"*"}),
        ("", {"*"}),
    ],
)
def test_a_loopback_address_has_its_names_and_any_other_any(address: str, names: set[str]) -> None:
    assert hosts((), address) == names
    assert hosts(("a.example",), address) == {"a.example"}


OURS = ["localhost", "LOCALHOST", "localhost:8000", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8000", "localhost:"]
OTHERS = [
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "evil.example.localhost",
    "127.0.0.1.evil.example",
    "localhost.",
    "evil.example#localhost",
    "evil.example@localhost",
    "localhost@evil.example",
    "localhost:80:80",
    "localhost:evil.example",
    "localhost, evil.example",
    " localhost",
    "localhost\x00",
    "127.1",
    "2130706433",
    "0x7f.0.0.1",
    "0.0.0.0",  # noqa: S104 - what is looked at
    "::1",
    "[::1",
    "[0:0::1]",
    "[::ffff:127.0.0.1]",
    "localhost:999999",
    "l\u00f6calhost",
    "",
]


@pytest.mark.parametrize("host", OURS)
def test_what_is_ours_is_known_at_any_port(host: str) -> None:
    assert is_called([(b"host", host.encode("latin-1"))], LOCAL)


@pytest.mark.parametrize("host", OTHERS)
def test_what_only_looks_like_ours_is_not(host: str) -> None:
    assert not is_called([(b"host", host.encode("latin-1"))], LOCAL)


def test_what_is_not_named_or_named_twice_is_not_ours() -> None:
    assert not is_called([], LOCAL)
    assert not is_called([(b"host", b"localhost"), (b"host", b"localhost")], LOCAL)
    assert not is_called([(b"x-forwarded-host", b"localhost")], LOCAL)
    assert not is_called([(b"host", b"evil.example"), (b"x-forwarded-host", b"localhost")], LOCAL)


@given(st.binary(max_size=40))
def test_any_host_is_decided(host: bytes) -> None:
    assert is_called([(b"host", host)], LOCAL) is (host.lower().rpartition(b":")[0].decode("latin-1") in LOCAL) or (
        host.lower().decode("latin-1") in LOCAL
    )


async def test_a_page_under_a_name_of_its_own_can_neither_read_nor_write(settings: Settings) -> None:
    evil = {"host": "evil.example:8000", "origin": "http://evil.example:8000"}
    requests: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/graphql", {"json": QUERY}),
        ("GET", "/graphql", {"params": QUERY}),
        ("GET", "/graphql", {"headers": {"accept": "text/html"}}),
        ("OPTIONS", "/graphql", {}),
        ("GET", "/", {}),
        ("GET", "/graphiql/x", {}),
        ("GET", "/nowhere", {}),
    ]
    async with listening(create_app(settings), settings) as port:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS_MAX) as http:
            for method, path, options in requests:
                response = await http.request(method, path, **options | {"headers": options.get("headers", {}) | evil})
                assert (response.status_code, response.json()) == (421, REFUSAL)
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://evil.example:{port}/graphql", host="127.0.0.1", subprotocols=[Subprotocol(PROTOCOL)])
        assert refused.value.response.status_code == 421
        async with connect(
            f"ws://localhost:{port}/graphql", host="127.0.0.1", subprotocols=[Subprotocol(PROTOCOL)]
        ) as it:
            await Socket(it).init()


REFUSAL = {
    "errors": [
        {
            "message": "The Host header must be one of 127.0.0.1, [::1], localhost, with any port. "
            "Others are allowed by FORKPOINT_ALLOWED_HOSTS.",
            "extensions": {"code": "BAD_USER_INPUT"},
        }
    ]
}


async def test_probes_call_by_any_address(settings: Settings) -> None:
    async with api_over(create_app(settings.model_copy(update={"allowed_hosts": ("api.example.org",)}))) as api:
        assert (await api.http.get("/health", headers={"host": "10.1.2.3:8000"})).status_code == 200
        assert (await api.http.get("/graphql", params=QUERY, headers={"host": "10.1.2.3:8000"})).status_code == 421
        assert (await api.http.get("/graphql", params=QUERY, headers={"host": "API.example.org"})).status_code == 200


async def test_a_service_that_other_machines_reach_has_any_name_unless_it_is_told(settings: Settings) -> None:
    public = settings.model_copy(update={"host": "0.0.0.0"})  # noqa: S104 - nothing listens here
    named = public.model_copy(update={"allowed_hosts": ("api.example.org",)})
    every = settings.model_copy(update={"allowed_hosts": ("*",)})
    for chosen, status in ((public, 200), (named, 421), (every, 200)):
        async with api_over(create_app(chosen)) as api:
            headers = {"host": "evil.example"}
            assert (await api.http.get("/graphql", params=QUERY, headers=headers)).status_code == status


async def test_an_old_client_that_names_no_host_is_told_to(settings: Settings) -> None:
    async with listening(create_app(settings), settings) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /graphql?query=%7B__typename%7D HTTP/1.0\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), SECONDS_MAX)).startswith(b"HTTP/1.1 421 ")
        writer.close()
