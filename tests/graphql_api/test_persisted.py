import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from graphql_api.media import GRAPHQL, JSON
from graphql_api.settings import Settings
from schema.errors import Code
from tests.graphql_api.asking import BROWSER, Answer, Client

ECHO, TEXT, NEW = "{ echo }", "query ($t: String) { echo(text: $t) }", '{ echo(text: "é") }'


def hashed(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def persisted(text: str, **others: Any) -> dict[str, Any]:
    """Give a request that names a document by its hash."""
    return {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": hashed(text)}}, **others}


def shown(answer: Answer) -> tuple[int, str, str]:
    (error,) = answer.json["errors"]
    return answer.status, answer.code, error["message"]


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    path = tmp_path / "persisted.json"
    path.write_text(json.dumps({"echo": ECHO, "write": "mutation { write }"}))
    return path


def make(documents: Path, **settings: Any) -> Client:
    return Client(Settings(_env_file=None, trusted_documents=documents, **settings))


async def test_a_hash_is_asked_for_then_sent_with_its_text_then_known(client: Client) -> None:
    not_found = ("PERSISTED_QUERY_NOT_FOUND", "PersistedQueryNotFound")
    assert shown(await client.post(persisted(TEXT))) == (200, *not_found)
    assert shown(await client.post(persisted(TEXT), accept=GRAPHQL)) == (400, *not_found)
    assert (await client.post(persisted(TEXT, query=TEXT, variables={"t": "1"}))).json == {"data": {"echo": "1"}}
    for query in ({}, {"query": None}, {"query": ""}, {"query": TEXT}):
        assert (await client.post(persisted(TEXT, variables={"t": "2"}, **query))).json == {"data": {"echo": "2"}}
    answer = await client.post({"documentId": f"sha256:{hashed(TEXT)}", "variables": {"t": "3"}})
    assert answer.json == {"data": {"echo": "3"}}


async def test_a_hash_is_sent_by_get_too(client: Client) -> None:
    extensions = json.dumps(persisted(ECHO)["extensions"])
    for accept in ("", JSON, BROWSER):
        assert (await client.get(accept=accept, extensions=extensions)).code == Code.PERSISTED_QUERY_NOT_FOUND
    assert (await client.get(query=ECHO, extensions=extensions)).json == {"data": {"echo": ""}}
    assert (await client.get(accept=BROWSER, extensions=extensions)).json == {"data": {"echo": ""}}
    assert (await client.get("HEAD", extensions=extensions)).status == 200


async def test_a_mutation_known_by_its_hash_is_not_executed_by_get(client: Client) -> None:
    mutation = "mutation { write }"
    assert (await client.post(persisted(mutation, query=mutation))).json == {"data": {"write": True}}
    assert (await client.get(extensions=json.dumps(persisted(mutation)["extensions"]))).status == 405


async def test_only_a_valid_document_is_remembered_and_only_with_its_own_hash(client: Client) -> None:
    assert (await client.post(persisted("{ nothing }", query="{ nothing }"))).code == Code.GRAPHQL_VALIDATION_FAILED
    assert (await client.post(persisted("{ nothing }"))).code == Code.PERSISTED_QUERY_NOT_FOUND
    message = "`sha256Hash` is not the SHA-256 of `query`: hash the text as it is sent, in UTF-8."
    for _ in range(2):
        assert shown(await client.post(persisted(ECHO, query=NEW))) == (200, Code.BAD_USER_INPUT, message)
        assert (await client.post(persisted("\ud800".encode("utf-8", "replace").decode(), query="\ud800"))).json[
            "errors"
        ]
        await client.post(persisted(ECHO, query=ECHO))
    assert (await client.post(persisted(NEW))).code == Code.PERSISTED_QUERY_NOT_FOUND


HASH = "0" * 64


@pytest.mark.parametrize(
    "value",
    [
        1,
        [],
        "x",
        False,
        {},
        {"version": 1},
        {"sha256Hash": HASH},
        {"version": 2, "sha256Hash": HASH},
        {"version": "1", "sha256Hash": HASH},
        {"version": True, "sha256Hash": HASH},
        {"version": 1, "sha256Hash": HASH[1:]},
        {"version": 1, "sha256Hash": HASH + "\n"},
        {"version": 1, "sha256Hash": "G" * 64},
        {"version": 1, "sha256Hash": "A" * 64},
        {"version": 1, "sha256Hash": 0},
        {"version": 1, "sha256Hash": {}},
    ],
)
@pytest.mark.parametrize("query", [{}, {"query": ECHO}])
async def test_what_is_no_persisted_query_is_refused(client: Client, value: Any, query: dict[str, str]) -> None:
    answer = await client.post({"extensions": {"persistedQuery": value}, **query})
    assert (answer.status, answer.code) == (200, Code.BAD_USER_INPUT)


async def test_extensions_without_a_hash_name_no_document(client: Client) -> None:
    for extensions in ({}, None, {"persistedQuery": None}, {"other": 1}):
        answer = await client.post({"extensions": extensions})
        assert (answer.status, answer.code) == (400, Code.BAD_USER_INPUT)
        assert (await client.post({"extensions": extensions, "query": ECHO})).json == {"data": {"echo": ""}}


async def test_persisted_queries_can_be_switched_off(documents: Path) -> None:
    client = make(documents, persisted_queries=False)
    for query in ({}, {"query": TEXT}):
        refusal = (200, Code.BAD_USER_INPUT, "PersistedQueryNotSupported")
        assert shown(await client.post(persisted(TEXT, **query))) == refusal
    assert (await client.post({"query": TEXT, "variables": {"t": "1"}})).json == {"data": {"echo": "1"}}
    assert (await client.post(persisted(ECHO))).json == {"data": {"echo": ""}}


async def test_a_trusted_document_is_known_by_its_id_and_its_hash(documents: Path) -> None:
    client = make(documents)
    ids = ["echo", hashed(ECHO), f"sha256:{hashed(ECHO)}"]
    requests: list[dict[str, Any]] = [{"documentId": document_id} for document_id in ids]
    for request in [
        *requests,
        persisted(ECHO),
        {"documentId": "echo", "query": ""},
        {"query": ECHO, "documentId": None},
    ]:
        assert (await client.post(request)).json == {"data": {"echo": ""}}
    assert (await client.get(documentId="echo")).json == {"data": {"echo": ""}}
    assert (await client.get(accept=BROWSER, documentId="echo")).json == {"data": {"echo": ""}}
    assert (await client.get(documentId="write")).status == 405


@pytest.mark.parametrize("document_id", ["nothing", "sha256:", f"sha256:{'0' * 64}", "x" * 5_000, "\ud800"])
async def test_an_unknown_id_is_not_found(client: Client, document_id: str) -> None:
    assert (await client.post({"documentId": document_id})).code == Code.PERSISTED_QUERY_NOT_FOUND


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"documentId": 1}, 400),
        ({"documentId": []}, 400),
        ({"documentId": ""}, 400),
        ({"documentId": "echo", "query": 1}, 400),
        ({"documentId": "echo", "query": ECHO}, 200),
        (persisted(ECHO, documentId="echo"), 200),
    ],
)
async def test_an_id_stands_alone_and_is_a_string(documents: Path, request_: dict[str, Any], status: int) -> None:
    answer = await make(documents).post(request_)
    assert (answer.status, answer.code) == (status, Code.BAD_USER_INPUT)


@pytest.mark.parametrize("accept", [JSON, GRAPHQL])
async def test_with_only_trusted_documents_nothing_else_is_executed(documents: Path, accept: str) -> None:
    client = make(documents, trusted_documents_only=True)
    for request in ({"query": ECHO}, {"documentId": "echo"}, persisted(ECHO), persisted(ECHO, query=ECHO)):
        assert (await client.post(request, accept=accept)).json == {"data": {"echo": ""}}
    message = "Only trusted documents are executed here, and this is none of them: send one of those."
    for request in ({"query": f"{ECHO} "}, {"query": "{"}, persisted(TEXT, query=TEXT)):
        assert shown(await client.post(request, accept=accept)) == (403, Code.FORBIDDEN, message)
    assert (await client.post(persisted(TEXT))).code == Code.PERSISTED_QUERY_NOT_FOUND
    assert len(client.contexts.seen) == 4
