"""Pages of other sites, in the browser of somebody who may use the service: they neither write nor read."""

import json
from urllib.parse import urlencode

import pytest
from websockets.exceptions import InvalidStatus

from schema.errors import Code
from tests.attacks.victim import Victim

pytestmark = pytest.mark.usefixtures("nothing_written")

WRITE = "mutation { createContext(input: {}) { context { id } } }"
BODY = json.dumps({"query": WRITE}).encode()
FOREIGN = "https://evil.example"


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "text/plain; charset=utf-8",
        "text/plain;application/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "",
        "application/json, text/plain",
        "application/jsonp",
        "text/json",
        "application/csp-report",
    ],
)
def test_what_a_page_can_send_without_asking_is_refused(victim: Victim, content_type: str) -> None:
    for body in (BODY, urlencode({"query": WRITE}).encode(), WRITE.encode()):
        answer = victim.send(body, content_type=content_type, origin=FOREIGN)
        assert (answer.status, answer.code) == (415, Code.BAD_USER_INPUT)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_no_mutation_is_made_by_get(victim: Victim, method: str) -> None:
    for values in (
        {"query": WRITE},
        {"query": f"query A {{ __typename }} {WRITE.replace('mutation', 'mutation B')}", "operationName": "B"},
    ):
        answer = victim.send(b"", method, f"/graphql?{urlencode(values)}", origin=FOREIGN)
        assert answer.status == 405
    for extra in (
        {"x_http_method_override": "POST"},
        {"x_method_override": "POST"},
        {"content_type": "application/json"},
    ):
        answer = victim.send(BODY, method, f"/graphql?{urlencode({'query': WRITE, '_method': 'POST'})}", **extra)
        assert answer.status == 405


def test_a_page_of_another_origin_is_not_allowed_to_read(victim: Victim) -> None:
    for origin in (FOREIGN, "null", victim.address, victim.address.replace("127.0.0.1", "localhost"), "file://"):
        answer = victim.send({"query": "{ __typename }"}, origin=origin)
        assert [name for name in answer.headers if name.startswith("access-control-")] == []
        asked = victim.send(
            b"",
            "OPTIONS",
            origin=origin,
            access_control_request_method="POST",
            access_control_request_headers="content-type",
        )
        assert [name for name in asked.headers if name.startswith("access-control-")] == []


@pytest.mark.parametrize(
    "origin",
    [
        FOREIGN,
        "null",
        "file://",
        "http://127.0.0.1",
        "http://127.0.0.1.evil.example:{port}",
        "http://evil.example#127.0.0.1:{port}",
        "http://evil.example@127.0.0.1:{port}",
        "http://127.0.0.1:{port}@evil.example",
        "http://127.0.0.1:{port}.evil.example",
        "http://127.0.0.1:{port}/",
        "http://localhost:{port}",
        "ws://127.0.0.1:{port}",
        "http://127.0.0.1:0{port}",
        "http://127.0.0.1:{port}, https://evil.example",
        " ",
    ],
)
def test_a_page_of_another_origin_opens_no_websocket(victim: Victim, origin: str) -> None:
    with (
        pytest.raises(InvalidStatus) as refused,
        victim.websocket(origin=origin.format(port=victim.port)),
    ):
        pass
    assert refused.value.response.status_code == 403


def test_a_page_that_names_two_hosts_opens_no_websocket(victim: Victim) -> None:
    handshake = (
        f"GET /graphql HTTP/1.1\r\nHost: 127.0.0.1:{victim.port}\r\nHost: evil.example\r\nOrigin: {FOREIGN}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n"
    )
    with victim.raw() as raw:
        raw.send(handshake.encode())
        assert raw.answer().status == 421


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "evil.example:80",
        "localhost.evil.example",
        "",
        "127.0.0.1, evil.example",
        "[::1].evil.example",
        "0x7f000001",
    ],
)
def test_a_name_that_was_bound_anew_reaches_nothing(victim: Victim, host: str) -> None:
    content = f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\nConnection: close\r\n"
    credentials = "".join(f"{name}: {value}\r\n" for name, value in victim.headers.items())
    with victim.raw() as raw:
        raw.send(f"POST /graphql HTTP/1.1\r\nHost: {host}\r\n{content}{credentials}\r\n".encode(), BODY)
        answer = raw.answer()
    assert (answer.status, answer.code) == (421, Code.BAD_USER_INPUT)


def test_no_answer_is_kept_by_a_cache(victim: Victim) -> None:
    query = urlencode({"query": "{ __typename }"})
    for answer in (victim.send({"query": "{ __typename }"}), victim.send(b"", "GET", f"/graphql?{query}")):
        assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("no-store", "nosniff")
        assert answer.headers["content-type"].startswith("application/")
        assert "set-cookie" not in answer.headers


def test_a_cookie_grants_nothing_and_is_given_to_nobody(victim: Victim) -> None:
    answer = victim.send({"query": "{ __typename }"}, cookie="session=1; forkpoint=admin; tenant=other")
    assert answer.data == {"__typename": "Query"}
    assert "set-cookie" not in answer.headers
