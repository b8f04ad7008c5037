"""Streams over HTTP, as Server-Sent Events and as multipart, over real sockets."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from graphql_api.media import EVENT_STREAM, GRAPHQL, JSON, MULTIPART
from graphql_api.operation import SUBSCRIPTION_BYTES_MAX
from schema.errors import Code
from tests.graphql_api.serving import SECONDS_MAX, Served, serving, until
from tests.graphql_api.small_schema import SECRET
from tests.graphql_api.test_media import URQL

NEXT = "event: next\ndata: "
COMPLETE = "event: complete\ndata:\n\n"
PART = "\r\ncontent-type: application/json\r\n\r\n"
STREAMS = [EVENT_STREAM, MULTIPART]


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    async with serving() as served:
        yield served


class Stream:
    """What a client receives of one stream."""

    def __init__(self, response: httpx2.Response) -> None:
        self.response = response
        self._pieces = response.aiter_text()
        self._text = ""

    async def read(self, *patterns: str) -> str:
        """Read until something has come; gives all up to it, and keeps the rest."""
        async with asyncio.timeout(SECONDS_MAX):
            while not (found := re.search("|".join(patterns), self._text)):
                self._text += await anext(self._pieces)
        text, self._text = self._text[: found.end()], self._text[found.end() :]
        return text

    async def rest(self) -> str:
        """Read to the end."""
        async with asyncio.timeout(SECONDS_MAX):
            return self._text + "".join([piece async for piece in self._pieces])


@asynccontextmanager
async def stream(
    served: Served, query: str, accept: str = EVENT_STREAM, method: str = "POST", **variables: Any
) -> AsyncIterator[Stream]:
    client = await served.http()
    body = {"query": query, "variables": json.dumps(variables)} if method == "GET" else None
    options: dict[str, Any] = {"params": body} if body else {"json": {"query": query, "variables": variables}}
    async with client.stream(method, served.url, headers={"accept": accept}, **options) as response:
        yield Stream(response)


async def whole(served: Served, query: str, accept: str = EVENT_STREAM, method: str = "POST", **variables: Any) -> str:
    async with stream(served, query, accept, method, **variables) as answer:
        assert answer.response.status_code == 200
        return await answer.rest()


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_subscription_is_a_stream_of_events(served: Served, method: str) -> None:
    query = "subscription ($to: Int) { count(to: $to) }"
    async with stream(served, query, method=method, to=2) as answer:
        headers = answer.response.headers
        assert headers["content-type"] == "text/event-stream; charset=utf-8"
        assert headers["x-accel-buffering"] == "no"
        assert headers["x-request-id"]
        assert await answer.rest() == (
            ':\n\nevent: next\ndata: {"data":{"count":"1"}}\n\nevent: next\ndata: {"data":{"count":"2"}}\n\n'
            "event: complete\ndata:\n\n"
        )


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_subscription_is_a_multipart_message(served: Served, method: str) -> None:
    async with stream(served, "subscription { count(to: 2) }", MULTIPART, method) as answer:
        headers = answer.response.headers
        assert headers["content-type"] == 'multipart/mixed; boundary="graphql"; subscriptionSpec="1.0"'
        assert headers["x-accel-buffering"] == "no"
        assert await answer.rest() == (
            "\r\n--graphql"
            '\r\ncontent-type: application/json\r\n\r\n{"payload":{"data":{"count":"1"}}}\r\n--graphql'
            '\r\ncontent-type: application/json\r\n\r\n{"payload":{"data":{"count":"2"}}}\r\n--graphql--\r\n'
        )


@pytest.mark.parametrize("accept", STREAMS)
async def test_each_event_comes_at_once(served: Served, accept: str) -> None:
    async with stream(served, "subscription { forever }", accept) as answer:
        await answer.read(r'\{"forever":1\}\}\n\n', r'\{"forever":1\}\}\}\r\n--graphql')
    await served.quiet()


async def test_a_query_has_a_stream_only_where_nothing_else_is_accepted(served: Served) -> None:
    client = await served.http()
    for accept, expected in {
        URQL: GRAPHQL,
        f"{EVENT_STREAM}, {JSON}": JSON,
        f"{EVENT_STREAM}, */*": JSON,
        f"{MULTIPART}, {GRAPHQL}": GRAPHQL,
    }.items():
        found = await client.post(served.url, json={"query": "{ echo }"}, headers={"accept": accept})
        assert found.headers["content-type"] == f"{expected}; charset=utf-8"
        assert found.json() == {"data": {"echo": ""}}
    assert await whole(served, "{ echo }") == f':\n\n{NEXT}{{"data":{{"echo":""}}}}\n\n{COMPLETE}'
    assert await whole(served, "mutation { write }") == f':\n\n{NEXT}{{"data":{{"write":true}}}}\n\n{COMPLETE}'
    assert await whole(served, "{ echo }", MULTIPART) == (
        f'\r\n--graphql{PART}{{"payload":{{"data":{{"echo":""}}}}}}\r\n--graphql--\r\n'
    )
    async with stream(served, "subscription { ticks }", URQL) as answer:
        assert answer.response.headers["content-type"] == f"{EVENT_STREAM}; charset=utf-8"


@pytest.mark.parametrize("accept", ["*/*", JSON, GRAPHQL])
async def test_a_subscription_without_a_stream_is_406(served: Served, accept: str) -> None:
    client = await served.http()
    found = await client.post(served.url, json={"query": "subscription { ticks }"}, headers={"accept": accept})
    (error,) = found.json()["errors"]
    assert (found.status_code, error) == (
        406,
        {
            "message": "A subscription is answered by a stream: accept text/event-stream or "
            "multipart/mixed;subscriptionSpec=1.0, or open a WebSocket with the subprotocol graphql-transport-ws.",
            "extensions": {"code": "BAD_USER_INPUT"},
        },
    )


REFUSED = {
    "{": Code.GRAPHQL_PARSE_FAILED,
    "subscription { nothing }": Code.GRAPHQL_VALIDATION_FAILED,
    "subscription { refused }": Code.NOT_FOUND,
    "subscription ($n: Int!) { count(to: $n) }": Code.BAD_USER_INPUT,
    'subscription { fail(how: "unavailable") }': Code.UNAVAILABLE,
}


@pytest.mark.parametrize("accept", STREAMS)
@pytest.mark.parametrize("query", REFUSED)
async def test_an_error_before_the_first_event_is_told_by_the_stream(served: Served, query: str, accept: str) -> None:
    text = await whole(served, query, accept)
    if accept == EVENT_STREAM:
        assert text.startswith(f":\n\n{NEXT}")
        assert text.endswith(f"\n\n{COMPLETE}")
        content = json.loads(text.removeprefix(f":\n\n{NEXT}").removesuffix(f"\n\n{COMPLETE}"))
    else:
        content = json.loads(text.removeprefix(f"\r\n--graphql{PART}").removesuffix("\r\n--graphql--\r\n"))["payload"]
    assert list(content) == ["errors"]
    assert content["errors"][0]["extensions"]["code"] == REFUSED[query]


async def test_what_is_no_graphql_over_http_keeps_its_status(served: Served) -> None:
    client = await served.http()
    headers = {"accept": EVENT_STREAM}
    found = await client.post(served.url, content=b"{", headers={**headers, "content-type": JSON})
    assert (found.status_code, found.headers["content-type"]) == (400, f"{JSON}; charset=utf-8")
    assert (await client.post(served.url, content=b"{}", headers=headers)).status_code == 415
    assert (await client.get(served.url, headers=headers)).status_code == 400
    for query, allowed in (("mutation { write }", "POST"), ("subscription { ticks }", "GET, POST")):
        method = "GET" if allowed == "POST" else "HEAD"
        found = await client.request(method, served.url, params={"query": query}, headers=headers)
        assert (found.status_code, found.headers["allow"]) == (405, allowed)


async def test_a_source_that_fails_in_mid_stream_ends_it_with_its_error(served: Served) -> None:
    with capture_logs() as lines:
        text = await whole(served, 'subscription { fail(how: "value_error", after: 1) }')
    first, failed, complete, _ = text.removeprefix(":\n\n").split("\n\n")
    assert (first, complete) == (f'{NEXT}{{"data":{{"fail":1}}}}', COMPLETE.strip())
    assert json.loads(failed.removeprefix(NEXT))["errors"][0]["extensions"]["errorId"] == lines[0]["error_id"]
    assert SECRET not in text


@pytest.mark.parametrize("accept", STREAMS)
async def test_signs_of_life_come_while_nothing_else_does(accept: str) -> None:
    heartbeat = ":\n\n" if accept == EVENT_STREAM else f"{PART}{{}}\r\n--graphql"
    async with (
        serving(keep_alive_seconds=0.05) as served,
        stream(served, "subscription { forever }", accept) as answer,
    ):
        await answer.read("forever.*")
        for _ in range(3):
            assert (await answer.read(re.escape(heartbeat))).endswith(heartbeat)


@pytest.mark.parametrize(
    "field", ["never", "forever", "slowToClose", "withoutPause", "neverBegins", "objects { wait }"]
)
async def test_a_client_that_leaves_closes_the_source(served: Served, field: str) -> None:
    async with stream(served, f"subscription {{ {field} }}") as answer:
        await answer.read(":")
        await until(lambda: served.operations.subscriptions == 1)
    await served.quiet()


async def test_a_client_that_leaves_a_query_cancels_it(served: Served) -> None:
    async with stream(served, "{ slow }") as answer:
        await answer.read(":")
        await until(lambda: served.open == 1)
    await served.quiet()


@pytest.mark.parametrize("accept", STREAMS)
async def test_at_shutdown_a_stream_ends_without_its_closing_words(served: Served, accept: str) -> None:
    async with (
        stream(served, "subscription { forever }", accept) as answer,
        stream(served, "subscription { slowToClose }", accept) as other,
    ):
        await answer.read("forever")
        await other.read("slowToClose")
        with capture_logs() as lines:
            async with asyncio.timeout(served.settings.shutdown_seconds / 2):
                await served.stop()
            texts = [await answer.rest(), await other.rest()]
    assert not any("complete" in text or text.endswith("--\r\n") for text in texts)
    assert [(line["event"], line["status"]) for line in lines] == [("request", 200)] * 2


async def test_a_stream_has_one_line_in_the_log_when_it_ends(served: Served) -> None:
    with capture_logs() as lines:
        async with stream(served, "subscription { forever }") as answer:
            await answer.read("forever")
            assert lines == []
        await served.quiet()
    assert [(line["event"], line["method"], line["status"]) for line in lines] == [("request", "POST", 200)]


async def test_streams_count_among_the_subscriptions_of_a_process() -> None:
    async with serving(subscriptions_max=1) as served:
        async with stream(served, "subscription { forever }") as answer:
            await answer.read("forever")
            assert '"code":"UNAVAILABLE"' in await whole(served, "subscription { count }")
        await served.quiet()
        assert COMPLETE in await whole(served, "subscription { count }")


async def test_a_subscription_that_is_too_large_to_be_kept_is_refused(served: Served) -> None:
    text = await whole(served, "subscription { count }", unknown="x" * SUBSCRIPTION_BYTES_MAX)
    assert '"code":"LIMIT_EXCEEDED"' in text


async def test_events_are_one_line_whatever_is_in_them(served: Served) -> None:
    text = await whole(served, "subscription ($t: String!) { count(to: 1, text: $t) }", t="a\nb\r\n\u2028é\n\nevent: x")
    (event, complete, _) = text.removeprefix(":\n\n").split("\n\n")
    assert json.loads(event.removeprefix(NEXT)) == {"data": {"count": "1a\nb\r\n\u2028é\n\nevent: x"}}
    assert complete == COMPLETE.strip()
