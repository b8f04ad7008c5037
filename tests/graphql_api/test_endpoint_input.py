"""Whatever is sent gets an answer."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schema.errors import Code
from tests.graphql_api.asking import Client
from tests.graphql_api.test_media import NEGOTIATIONS
from tests.graphql_api.test_operation import VALUES


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.mark.parametrize("accept", NEGOTIATIONS)
async def test_the_media_type_is_negotiated(client: Client, accept: str) -> None:
    expected = NEGOTIATIONS[accept]
    answer = await client.post({"query": "{ echo }"}, **({"accept": accept} if accept else {}))
    if expected is None:
        assert (answer.status, answer.code) == (406, Code.BAD_USER_INPUT)
    else:
        assert (answer.status, answer.headers["content-type"]) == (200, f"{expected}; charset=utf-8")


JSON_PIECES = [
    b'{"query":',
    b'"{echo}"',
    b'"variables":',
    b"{}",
    b",",
    b"[",
    b"]",
    b'"\\ud800"',
    b"\xff",
    b"1e999",
    b"-0",
]


@given(st.binary() | st.lists(st.sampled_from(JSON_PIECES), max_size=12).map(b"".join))
async def test_any_bytes_get_an_answer(body: bytes) -> None:
    answer = await Client().post(body)
    assert "data" in answer.json or answer.code


KEYS = st.sampled_from(["query", "variables", "operationName", "extensions", "x"])
QUERIES = st.sampled_from(["{ echo }", "query ($p: PartInput) { part(part: $p) }", "mutation { write }", "{"])


@given(VALUES | st.dictionaries(KEYS, VALUES | QUERIES | st.dictionaries(st.just("p"), VALUES)))
async def test_any_json_gets_an_answer(content: Any) -> None:
    answer = await Client().post(content)
    assert "data" in answer.json or answer.code


DOCUMENT = 'query ($t: String = "x") { a: echo(text: $t) deeper { ...F } } fragment F on Query { colour(colour: RED) }'


@given(
    st.lists(st.tuples(st.integers(0, len(DOCUMENT)), st.integers(0, 9), st.text(max_size=5)), max_size=4),
    st.booleans(),
)
async def test_any_mutilated_document_gets_an_answer(edits: list[tuple[int, int, str]], get: bool) -> None:
    text = DOCUMENT
    for start, length, replacement in edits:
        text = text[:start] + replacement + text[start + length :]
    client = Client()
    answer = await (client.get(query=text) if get else client.post({"query": text}))
    assert "data" in answer.json or answer.code
    assert answer.status in {200, 400, 405}


@given(st.binary(), st.sampled_from(["GET", "HEAD"]))
async def test_any_query_string_gets_an_answer(query_string: bytes, method: str) -> None:
    for tail in (query_string, b"query={echo}&variables=" + query_string, b"query=" + query_string):
        assert (await Client().send(method, query_string=tail)).status in {200, 400, 405}
