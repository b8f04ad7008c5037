"""No page of another site can write: what browsers send across origins without asking first is refused, or only reads.

Source: https://fetch.spec.whatwg.org/#simple-header, and the methods GET and HEAD.
"""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from graphql_api.media import GRAPHQL, JSON
from graphql_api.settings import Settings
from schema.errors import Code
from tests.graphql_api.asking import BROWSER, Client

WRITE = "mutation Write { write }"
HASH = sha256(WRITE.encode()).hexdigest()
BODY = json.dumps({"query": WRITE}).encode()


@pytest.fixture
def client() -> Client:
    return Client()


# What forms, beacons and `fetch` can be made to send without a question beforehand, and what comes near to it.
SIMPLE = [
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "multipart/form-data; boundary=x",
    "text/plain",
    "text/plain; charset=utf-8",
    "text/plain;charset=UTF-8",
    "text/plain; application/json",
    "text/plain;a=application/json",
    "text/plain, application/json",
    "TEXT/PLAIN",
    " text/plain",
    "",
    " ",
    ";",
    "; charset=utf-8",
]

BODIES = {
    "JSON": BODY,
    "a form": urlencode({"query": WRITE}).encode(),
    "a form of JSON": b"%s=" % BODY,
    "a form of plain text": b'{"query":"mutation Write { write }","x":"="}\r\n',
    "parts": (
        b'--x\r\nContent-Disposition: form-data; name="operations"\r\n\r\n' + BODY + b"\r\n"
        b'--x\r\nContent-Disposition: form-data; name="map"\r\n\r\n{}\r\n--x--\r\n'
    ),
    "a document": WRITE.encode(),
}

# Other servers take a simple content type with one of these. Here they change nothing.
EXTRAS: list[dict[str, str]] = [
    {},
    {"x_requested_with": "XMLHttpRequest"},
    {"apollo_require_preflight": "true"},
    {"x_apollo_operation_name": "Write"},
    {"graphql_preflight": "1"},
    {"x_content_type": JSON},
]


@pytest.mark.parametrize("content_type", SIMPLE)
async def test_a_simple_content_type_is_refused_whatever_comes_with_it(client: Client, content_type: str) -> None:
    for body in BODIES.values():
        for extra in EXTRAS:
            answer = await client.send("POST", body, b"", content_type=content_type, **extra)
            assert (answer.status, answer.code) == (415, Code.BAD_USER_INPUT)
    assert client.contexts.seen == []


async def test_a_missing_content_type_is_refused(client: Client) -> None:
    for body in (*BODIES.values(), b""):
        for extra in EXTRAS:
            answer = await client.send("POST", body, b"", **extra)
            assert (answer.status, answer.code) == (415, Code.BAD_USER_INPUT)
    # What is written in the address is not read instead.
    answer = await client.send("POST", b"", urlencode({"query": WRITE}).encode())
    assert answer.status == 415
    assert client.contexts.seen == []


# A mutation that only reads is one, too.
MUTATIONS: dict[str, dict[str, str]] = {
    "plain": {"query": WRITE},
    "without a name": {"query": "mutation { write }"},
    "that writes nothing": {"query": "mutation { __typename }"},
    "below a comment": {"query": "# query\n\ufeffmutation { write }"},
    "of several, chosen": {"query": f"query Read {{ echo }} {WRITE}", "operationName": "Write"},
    "with a fragment": {"query": "mutation { ...F } fragment F on Mutation { write }"},
    "with a directive": {"query": "mutation { write @skip(if: true) }"},
    "by its hash": {"extensions": json.dumps({"persistedQuery": {"version": 1, "sha256Hash": HASH}})},
    "with its hash": {"query": WRITE, "extensions": json.dumps({"persistedQuery": {"version": 1, "sha256Hash": HASH}})},
    "by the id of its hash": {"documentId": f"sha256:{HASH}"},
    "by its trusted id": {"documentId": "write"},
    "chosen of a trusted one": {"documentId": "both", "operationName": "Write"},
}


@pytest.fixture
def knowing(tmp_path: Path) -> Client:
    """Knows the mutation by every name that there is."""
    path = tmp_path / "trusted.json"
    path.write_text(json.dumps({"write": WRITE, "both": f"query Read {{ echo }} {WRITE}"}))
    return Client(Settings(_env_file=None, trusted_documents=path))


@pytest.mark.parametrize("name", MUTATIONS)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_get_and_head_execute_no_mutation_in_any_disguise(knowing: Client, method: str, name: str) -> None:
    values = MUTATIONS[name]
    for accept in (JSON, GRAPHQL, "*/*", BROWSER):
        answer = await knowing.get(method, accept, **values)
        assert (answer.status, answer.headers["allow"]) == (405, "POST")
        if method == "GET":
            assert answer.json["errors"][0]["message"] == "A mutation must be sent by POST: GET only reads."
    assert knowing.contexts.seen == []
    # By POST it is what it says.
    content: dict[str, Any] = values | {"extensions": json.loads(values.get("extensions", "{}"))}
    assert "data" in (await knowing.post(content)).json
    assert len(knowing.contexts.seen) == 1


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_mutation_that_was_sent_by_post_is_still_none_for_get(client: Client, method: str) -> None:
    persisted = {"persistedQuery": {"version": 1, "sha256Hash": HASH}}
    assert (await client.post({"query": WRITE, "extensions": persisted})).json == {"data": {"write": True}}
    for values in ({"query": WRITE}, {"extensions": json.dumps(persisted)}, {"documentId": f"sha256:{HASH}"}):
        assert (await client.get(method, **values)).status == 405
    assert len(client.contexts.seen) == 1


HIDDEN: list[dict[str, str]] = [
    {"x_http_method_override": "POST"},
    {"x_http_method": "POST"},
    {"x_method_override": "POST"},
    {"content_type": JSON},
]


@pytest.mark.parametrize("headers", HIDDEN, ids=str)
async def test_no_header_makes_a_get_a_post(client: Client, headers: dict[str, str]) -> None:
    query_string = urlencode({"query": WRITE, "_method": "POST"}).encode()
    answer = await client.send("GET", BODY, query_string, **headers)
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert (await client.send("GET", BODY, b"query={echo}", **headers)).json == {"data": {"echo": ""}}
    assert [context["written"] for context in client.contexts.seen] == [False]


async def test_of_a_name_that_is_given_twice_only_one_counts(client: Client) -> None:
    read, write = urlencode({"query": "{ echo }"}), urlencode({"query": WRITE})
    assert (await client.send("GET", b"", f"{read}&{write}".encode())).status == 405
    assert (await client.send("GET", b"", f"{write}&{read}".encode())).json == {"data": {"echo": ""}}
    assert [context["written"] for context in client.contexts.seen] == [False]
