import asyncio
import gzip
import json
from typing import Any

import pytest
from starlette.types import Message
from structlog.testing import capture_logs

import db.errors
from graphql_api.json_body import encode
from graphql_api.media import GRAPHQL, JSON
from graphql_api.settings import Settings
from schema.errors import BadUserInput, Code, Refusal
from tests.graphql_api.asking import BODY_BYTES_MAX, BROWSER, Answer, Client
from tests.graphql_api.small_schema import FAILURES, SECRET
from tests.graphql_api.test_operation import REQUEST_ERRORS


@pytest.fixture
def client() -> Client:
    return Client()


async def test_a_query_is_answered(client: Client) -> None:
    content = {"query": "query A($t: String!) { echo(text: $t) }", "variables": {"t": "é"}, "operationName": "A"}
    answer = await client.post({**content, "extensions": {"x": 1}, "id": "ignored"})
    headers = {"vary": "accept", "content-type": "application/json; charset=utf-8", "content-length": "22"}
    assert answer == Answer(200, headers, '{"data":{"echo":"é"}}'.encode())
    assert client.contexts.seen == [{"tenant": "default", "written": False, "closed": True, "number": 0}]


# What no media type can answer with 200: the request is not GraphQL over HTTP.
BAD_BODIES: dict[str, tuple[bytes, int, Code]] = {
    "empty": (b"", 400, Code.BAD_USER_INPUT),
    "null": (b"null", 400, Code.BAD_USER_INPUT),
    "number": (b"1", 400, Code.BAD_USER_INPUT),
    "string": (b'"x"', 400, Code.BAD_USER_INPUT),
    "batch": (b'[{"query":"{echo}"}]', 400, Code.BAD_USER_INPUT),
    "cut": (b'{"query": "{echo}"', 400, Code.BAD_USER_INPUT),
    "NaN": (b'{"query": "{echo}", "variables": {"a": NaN}}', 400, Code.BAD_USER_INPUT),
    "Infinity": (b'{"query": "{echo}", "variables": {"a": -Infinity}}', 400, Code.BAD_USER_INPUT),
    "not UTF-8": (b'{"query": "{echo}\xff"}', 400, Code.BAD_USER_INPUT),
    "UTF-16": ('{"query": "{echo}"}'.encode("utf-16"), 400, Code.BAD_USER_INPUT),
    "gzip": (gzip.compress(b'{"query": "{echo}"}'), 400, Code.BAD_USER_INPUT),
    "NUL": (b"\x00", 400, Code.BAD_USER_INPUT),
    "deep": (b"[" * 100_000, 400, Code.LIMIT_EXCEEDED),
    "deep object": (b'{"query":"{echo}","variables":' + b'{"a":' * 50_000, 400, Code.LIMIT_EXCEEDED),
    "long integer": (b'{"query": "{echo}", "variables": {"a": ' + b"9" * 5_000 + b"}}", 400, Code.LIMIT_EXCEEDED),
    "large": (b'{"query": "{echo}"' + b" " * BODY_BYTES_MAX + b"}", 413, Code.LIMIT_EXCEEDED),
    "no query": (b"{}", 400, Code.BAD_USER_INPUT),
    "query null": (b'{"query": null}', 400, Code.BAD_USER_INPUT),
    "query empty": (b'{"query": ""}', 400, Code.BAD_USER_INPUT),
    "query object": (b'{"query": {}}', 400, Code.BAD_USER_INPUT),
    "query list": (b'{"query": ["{echo}"]}', 400, Code.BAD_USER_INPUT),
    "variables list": (b'{"query": "{echo}", "variables": []}', 400, Code.BAD_USER_INPUT),
    "variables string": (b'{"query": "{echo}", "variables": "{}"}', 400, Code.BAD_USER_INPUT),
    "variables false": (b'{"query": "{echo}", "variables": false}', 400, Code.BAD_USER_INPUT),
    "operationName": (b'{"query": "{echo}", "operationName": 0}', 400, Code.BAD_USER_INPUT),
    "extensions": (b'{"query": "{echo}", "extensions": "x"}', 400, Code.BAD_USER_INPUT),
}


@pytest.mark.parametrize("accept", [JSON, GRAPHQL])
@pytest.mark.parametrize("name", BAD_BODIES)
async def test_a_body_that_is_no_request_is_refused(client: Client, name: str, accept: str) -> None:
    body, status, code = BAD_BODIES[name]
    answer = await client.post(body, accept=accept)
    assert (answer.status, answer.code) == (status, code)
    assert answer.headers["content-type"] == f"{accept}; charset=utf-8"
    assert "data" not in answer.json
    assert client.contexts.seen == []


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[]", "Batches are not supported: send one JSON object for each operation."),
        (b'{"query":', "The request is not JSON: Expecting value at line 1, column 10."),
        (b'{"query":"{echo}","variables":1}', "`variables` must be a JSON object or null."),
        (b'{"a": NaN}', "The request is not JSON: NaN is not a JSON number."),
        (b"1" * 5_000, "The JSON holds an integer of more than 4,300 digits, the most allowed."),
    ],
)
async def test_a_refusal_says_what_would_be_right(client: Client, body: bytes, message: str) -> None:
    assert (await client.post(body)).json["errors"][0]["message"] == message


@pytest.mark.parametrize("body", [b"[" + b"[]," * 600_000 + b"0]", b'["' + b'","' * 1_000_001 + b'"]'])
async def test_too_many_json_values_are_refused_before_they_are_made(body: bytes) -> None:
    answer = await Client(Settings(_env_file=None)).post(body)
    assert (answer.status, answer.code) == (413, Code.LIMIT_EXCEEDED)


async def test_commas_inside_a_string_are_no_values() -> None:
    content = {"query": "query ($t: String!) { echo(text: $t) }", "variables": {"t": ',["\\{' * 300_000}}
    answer = await Client(Settings(_env_file=None)).post(content)
    assert answer.json == {"data": {"echo": content["variables"]["t"]}}  # type: ignore[index]


@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": "text/plain"},
        {"content_type": ""},
        {"content_type": "application/json5"},
        {"content_type": "application/x-www-form-urlencoded"},
        {"content_type": "multipart/form-data; boundary=x"},
        {"content_type": "application/json; charset=utf-16"},
        {"content_type": "application/json; charset=latin-1"},
        {"content_type": "application/json, text/plain"},
        {"content_encoding": "gzip"},
        {"content_encoding": "br, identity"},
    ],
)
async def test_what_is_not_plain_json_is_refused(client: Client, headers: dict[str, str]) -> None:
    answer = await client.post({"query": "{ echo }"}, **headers)
    assert (answer.status, answer.code) == (415, Code.BAD_USER_INPUT)


@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": "Application/JSON ; charset=UTF-8"},
        {"content_type": 'application/json; charset="utf-8"; x=y'},
        {"content_encoding": "identity"},
        {"content_length": "twelve"},
    ],
)
async def test_plain_json_is_recognised(client: Client, headers: dict[str, str]) -> None:
    assert (await client.post({"query": "{ echo }"}, **headers)).json == {"data": {"echo": ""}}


async def test_a_byte_order_mark_and_repeated_keys_are_tolerated(client: Client) -> None:
    body = b'\xef\xbb\xbf{"query": "{ nothing }", "query": "{ echo }", "variables": null}'
    assert (await client.post(body)).json == {"data": {"echo": ""}}


@pytest.mark.parametrize("length", [str(BODY_BYTES_MAX + 1), "9" * 30, "9" * 5_000])
async def test_a_declared_length_is_refused_before_reading(client: Client, length: str) -> None:
    answer = await client.deliver("POST", [], content_type=JSON, content_length=length)
    assert (answer.status, answer.code) == (413, Code.LIMIT_EXCEEDED)


async def test_a_client_that_leaves_while_sending_gets_nothing(client: Client) -> None:
    messages: list[Message] = [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    with capture_logs() as lines:
        assert await client.deliver("POST", messages, content_type=JSON) == Answer(0, {}, b"")
    assert lines == []


async def test_integers_of_any_size_and_lone_surrogates_survive(client: Client) -> None:
    value = {"integer": 2**200, "text": "\ud800", "float": 1e308, "deep": json.loads("[" * 300 + "]" * 300)}
    answer = await client.post({"query": "query ($v: JSON!) { json(value: $v) }", "variables": {"v": value}})
    assert answer.json == {"data": {"json": value}}


async def test_a_result_that_is_not_json_is_masked(client: Client) -> None:
    value = {"integer": 2**70, "float": float("inf")}
    body = json.dumps({"query": "query ($v: JSON!) { json(value: $v) }", "variables": {"v": value}})
    with capture_logs() as lines:
        answer = await client.post(body.replace("Infinity", "1e999").encode())
    assert (answer.status, answer.code, answer.json["data"]) == (200, Code.INTERNAL_SERVER_ERROR, None)
    assert [line["event"] for line in lines] == ["unforeseen error"]


def test_a_result_too_deep_to_write_is_refused() -> None:
    value: Any = 0
    for _ in range(100_000):
        value = [value]
    assert json.loads(encode({"data": value}))["errors"][0]["extensions"] == {"code": "LIMIT_EXCEEDED"}


ANSWERED = [query for query in REQUEST_ERRORS if query and not query.startswith("subscription")]


@pytest.mark.parametrize("query", ANSWERED, ids=lambda query: ascii(query[:30]))
async def test_a_request_error_has_the_status_of_its_media_type(client: Client, query: str) -> None:
    plain = await client.post({"query": query})
    strict = await client.post({"query": query}, accept=GRAPHQL)
    assert (plain.status, strict.status) == (200, 400)
    assert plain.code == strict.code == REQUEST_ERRORS[query]
    assert plain.json == strict.json
    assert list(plain.json) == ["errors"]


@pytest.mark.parametrize("accept", [JSON, GRAPHQL])
@pytest.mark.parametrize("how", FAILURES)
async def test_what_was_executed_has_status_200(client: Client, how: str, accept: str) -> None:
    with capture_logs():
        answer = await client.post({"query": f'{{ echo fail(how: "{how}") }}'}, accept=accept)
    assert (answer.status, answer.code) == (200, FAILURES[how][1])
    assert answer.json["data"] == {"echo": "", "fail": None}


class Unauthenticated(Refusal):
    code = Code.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (Unauthenticated("who are you? send a token"), 401, Code.UNAUTHENTICATED),
        (BadUserInput("no such tenant: name another"), 400, Code.BAD_USER_INPUT),
        (db.errors.Unavailable(), 503, Code.UNAVAILABLE),
    ],
)
async def test_a_context_may_refuse(client: Client, failure: Exception, status: int, code: Code) -> None:
    client.contexts.enter = failure
    answer = await client.post({"query": "{ echo }"})
    assert (answer.status, answer.code, list(answer.json)) == (status, code, ["errors"])


@pytest.mark.parametrize("broken", ["enter", "endpoint"])
async def test_the_last_guard_masks_what_nobody_foresaw(
    client: Client, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if broken == "enter":
        client.contexts.enter = ValueError(SECRET)
    else:
        monkeypatch.setattr(client.endpoint, "_operations", None)
    with capture_logs() as lines:
        answer = await client.post({"query": "{ echo }"})
    (error,) = answer.json["errors"]
    assert (answer.status, error["extensions"]["code"]) == (500, Code.INTERNAL_SERVER_ERROR)
    assert SECRET not in error["message"]
    assert [line["error_id"] for line in lines] == [error["extensions"]["errorId"]]


async def test_what_was_executed_is_answered_even_when_closing_fails(client: Client) -> None:
    client.contexts.leave = ValueError(SECRET)
    with capture_logs() as lines:
        answer = await client.post({"query": "mutation { write }"})
    assert answer.json == {"data": {"write": True}}
    assert [line["event"] for line in lines] == ["unforeseen error"]


async def test_cancellation_closes_the_context_and_goes_on(client: Client) -> None:
    with pytest.raises(asyncio.CancelledError):
        await client.post({"query": "{ cancelled }"})


async def test_get_takes_its_parameters_from_the_query_string(client: Client) -> None:
    query = "query A($t: String!) { echo(text: $t) } query B { colour }"
    answer = await client.get(query=query, variables='{"t": "é+ &"}', operationName="A", extensions="{}")
    assert (answer.status, answer.json) == (200, {"data": {"echo": "é+ &"}})
    assert (await client.get(query="{ echo }", variables="", operationName="")).json == {"data": {"echo": ""}}


@pytest.mark.parametrize("accept", [JSON, GRAPHQL])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_get_never_executes_a_mutation(client: Client, method: str, accept: str) -> None:
    query = "query A { echo } mutation B { write }"
    answer = await client.get(method, accept, query=query, operationName="B")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    assert client.contexts.seen == []
    assert (await client.get(query=query, operationName="A")).json == {"data": {"echo": ""}}


@pytest.mark.parametrize(
    ("query_string", "status", "code"),
    [
        (b"", 400, Code.BAD_USER_INPUT),
        (b"query=", 400, Code.BAD_USER_INPUT),
        (b"query=%ff", 400, Code.BAD_USER_INPUT),
        (b"query=\xff", 400, Code.BAD_USER_INPUT),
        ('query={echo(text:"é")}&operationName=é'.encode(), 200, Code.BAD_USER_INPUT),
        (b"query={echo}&variables={", 400, Code.BAD_USER_INPUT),
        (b"query={echo}&variables=[]", 400, Code.BAD_USER_INPUT),
        (b"query={echo}&variables=NaN", 400, Code.BAD_USER_INPUT),
        (b"query={echo}&variables=" + b"[" * 100_000, 400, Code.LIMIT_EXCEEDED),
        (b"query={echo}&extensions=1", 400, Code.BAD_USER_INPUT),
        (b"query={echo}" + b"&" * 1_100_000, 414, Code.LIMIT_EXCEEDED),
        (b"query={nothing}", 200, Code.GRAPHQL_VALIDATION_FAILED),
    ],
    ids=lambda value: ascii(value)[:40],
)
async def test_a_bad_query_string_is_refused(client: Client, query_string: bytes, status: int, code: Code) -> None:
    answer = await client.send("GET", query_string=query_string)
    assert (answer.status, answer.code) == (status, code)


async def test_a_browser_gets_graphiql_and_its_queries_get_json(client: Client) -> None:
    page = await client.get(accept=BROWSER)
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"GraphiQL" in page.body
    other = await client.get(accept=BROWSER, q="{ echo }")
    assert (other.status, len(other.body)) == (200, len(page.body))
    assert (await client.get(accept=BROWSER, query="{ echo }")).json == {"data": {"echo": ""}}
    assert (await client.get(accept="text/html", query="{ echo }")).status == 406
    assert (await client.get(accept="*/*")).status == 400


async def test_without_graphiql_a_browser_gets_json() -> None:
    client = Client(Settings(_env_file=None, graphiql=False))
    assert (await client.get(accept=BROWSER)).status == 400
    assert (await client.get(accept="text/html")).status == 406


async def test_head_is_get_without_a_body(client: Client) -> None:
    got, head = await client.get(query="{ echo }"), await client.get("HEAD", query="{ echo }")
    assert head == Answer(200, got.headers, b"")


async def test_options_and_other_methods_say_what_is_allowed(client: Client) -> None:
    options = await client.send("OPTIONS")
    assert (options.status, options.headers["allow"], options.body) == (204, "GET, HEAD, POST, OPTIONS", b"")
    assert "content-length" not in options.headers
    for method in ("PUT", "DELETE", "PATCH", "TRACE", "X" * 1_000):
        answer = await client.send(method)
        assert (answer.status, answer.code) == (405, Code.BAD_USER_INPUT)
        assert answer.headers["allow"] == "GET, HEAD, POST, OPTIONS"
