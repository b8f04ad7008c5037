"""Whoever has no credential, a wrong one, or that of another tenant: told nothing, and nothing is done."""

import base64
import uuid
from contextlib import suppress
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from schema.errors import Code
from tests.attacks.victim import Answer, Victim, codes

pytestmark = pytest.mark.usefixtures("nothing_written")

BODY = {"query": "mutation { createContext(input: {}) { context { id } } }"}
READ = {"query": "{ __typename }"}


def secret(victim: Victim) -> str:
    return victim.headers["Authorization"].removeprefix("Bearer ")


def send(victim: Victim, authorization: str, body: Any = None, **headers: str) -> Answer:
    return victim.send(BODY if body is None else body, authorization=authorization, **headers)


def changed(key: str) -> list[str]:
    """Give keys that are nearly that one."""
    flipped = [f"{key[:at]}{'A' if key[at] != 'A' else 'B'}{key[at + 1 :]}" for at in range(4, len(key))]
    tenant = base64.urlsafe_b64encode(b"honest").decode().rstrip("=")
    others = [key[:-1], key + "A", key + "=", key.upper(), key.replace(".", ""), key.replace(".", "..")]
    return [*flipped, *others, f"fpk_{tenant}{key[key.index('.') :]}", "fpk_" + "." * 200, "fpk_", "fpk_.."]


def test_without_a_credential_nothing_is_told(victim: Victim) -> None:
    for method, path in (("POST", "/graphql"), ("GET", "/graphql?query=%7B__typename%7D"), ("HEAD", "/graphql")):
        response = victim.client.request(method, path, headers={"Authorization": ""}, json=BODY)
        assert (response.status_code, response.headers["www-authenticate"][:6]) == (401, "Bearer")
        assert method == "HEAD" or codes(response.json()) == [Code.UNAUTHENTICATED]


def test_a_body_is_not_read_of_who_has_no_credential(victim: Victim) -> None:
    with victim.raw() as raw:
        raw.send(b"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 50000000\r\n\r\n")
        answer = raw.answer()
    assert (answer.status, answer.code) == (401, Code.UNAUTHENTICATED)


@pytest.mark.parametrize(
    "authorization",
    [
        "Bearer",
        "Bearer ",
        "Basic YWRtaW46YWRtaW4=",
        "Bearer null",
        "Bearer undefined",
        "Bearer ' or '1'='1",
        "Bearer eyJhbGciOiJub25lIn0.eyJ0ZW5hbnQiOiJob25lc3QifQ.",
        "Bearer " + "x" * 50_000,
        "Bearer \xff\xfe".encode().decode("latin-1"),
        "Token x",
    ],
    ids=lambda text: repr(text)[:40],
)
def test_what_is_no_key_is_refused(victim: Victim, authorization: str) -> None:
    with victim.raw() as raw:
        raw.send(
            b"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
        )
        raw.send(f"Authorization: {authorization}\r\n\r\n{{}}".encode("latin-1"))
        answer = raw.answer()
    assert (answer.status, answer.code) == (401, Code.UNAUTHENTICATED)


def test_a_key_that_is_changed_anywhere_is_refused_in_the_same_words(victim: Victim) -> None:
    key = secret(victim)
    found = [send(victim, f"Bearer {wrong}") for wrong in changed(key)]
    assert {answer.status for answer in found} == {401}
    assert {answer.code for answer in found} == {Code.UNAUTHENTICATED}
    well_formed = found[-20:-10]
    assert len({answer.body for answer in well_formed}) == 1
    assert all(key[-20:].encode() not in answer.body for answer in found)


def test_two_credentials_are_not_chosen_from(victim: Victim) -> None:
    good = f"Authorization: Bearer {secret(victim)}\r\n"
    for headers in (f"Authorization: Bearer x\r\n{good}", f"{good}Authorization: Bearer x\r\n", good * 2):
        with victim.raw() as raw:
            raw.send(b"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n")
            raw.send(f"Content-Length: 2\r\n{headers}\r\n{{}}".encode())
            answer = raw.answer()
        assert (answer.status, answer.code) == (401, Code.UNAUTHENTICATED)


@pytest.mark.parametrize("tenant", ["honest", "*", "default", "", "%", "x' or '1'='1", "a" * 129, "attacker,honest"])
def test_naming_another_tenant_reaches_nothing_of_it(victim: Victim, tenant: str) -> None:
    answer = send(victim, victim.headers["Authorization"], READ, Forkpoint_Tenant=tenant)
    if tenant:
        assert answer.code in {Code.FORBIDDEN, Code.BAD_USER_INPUT}
        assert answer.status in {400, 403}
    else:
        assert answer.data == {"__typename": "Query"}


def test_a_websocket_without_a_credential_executes_nothing(victim: Victim) -> None:
    payloads: list[Any] = [None, {}, {"Authorization": "Bearer x"}, {"Authorization": 1}, {"Authorization": ["x"]}]
    for payload in payloads:
        with victim.websocket(init=False, additional_headers={}) as socket:
            socket.send({"type": "connection_init", "payload": payload})
            with suppress(ConnectionClosed):  # it may be closed by now
                socket.subscribe(BODY["query"])
            code, reason = socket.closed()
        assert code in {4400, 4401, 4403}
        assert reason


def test_a_key_is_not_guessed_by_trying(victim: Victim) -> None:
    tenant = base64.urlsafe_b64encode(b"honest").decode().rstrip("=")
    with victim.working(10):
        for number in range(200):
            name = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            assert send(victim, f"Bearer fpk_{tenant}.{name}.{number:043}").code == Code.UNAUTHENTICATED


def test_no_secret_is_in_the_log(victim: Victim) -> None:
    key = secret(victim)
    send(victim, f"Bearer {key[:-1]}x")
    victim.send(b"{" + key.encode(), authorization=f"Bearer {key}")
    victim.client.get(f"/graphql?query={key}&access_token={key}")
    assert key.rpartition(".")[2][:20] not in victim.program.said()
