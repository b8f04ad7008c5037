"""Subscriptions as `Operations` gives them, before any transport."""

import asyncio
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import pytest
from structlog.testing import capture_logs

from db.errors import Unavailable
from graphql_api.operation import Operations, Parameters
from graphql_api.outcome import Outcome
from graphql_api.response_stream import ResponseStream
from schema.errors import Code
from schema.principal import ANYBODY
from tests.graphql_api.asking import SETTINGS, Contexts
from tests.graphql_api.small_schema import FAILURES, SCHEMA, SECRET


@dataclass
class Asker:
    operations: Operations = field(default_factory=lambda: Operations(SCHEMA, SETTINGS))
    contexts: Contexts = field(default_factory=Contexts)

    def open_context(self) -> AbstractAsyncContextManager[Any]:
        return self.contexts(ANYBODY)

    async def begin(self, query: str, variables: dict[str, Any] | None = None) -> Outcome | ResponseStream:
        prepared = self.operations.prepare(Parameters(f"subscription {query}", variables or {}), ANYBODY)
        if isinstance(prepared, Outcome):
            return prepared
        return await self.operations.subscribe(prepared, self.open_context)

    async def stream(self, query: str) -> ResponseStream:
        begun = await self.begin(query)
        assert isinstance(begun, ResponseStream), begun
        return begun

    async def refused(self, query: str, variables: dict[str, Any] | None = None) -> tuple[str, str]:
        begun = await self.begin(query, variables)
        assert isinstance(begun, Outcome)
        self.assert_nothing_is_open()
        return begun.kind, begun.body["errors"][0]["extensions"]["code"]

    def assert_nothing_is_open(self) -> None:
        assert self.operations.subscriptions == 0
        assert all(seen["closed"] for seen in self.contexts.seen)
        assert all(seen.get("source") != "open" for seen in self.contexts.seen)


@pytest.fixture
def asker() -> Asker:
    return Asker()


async def test_each_event_is_an_outcome(asker: Asker) -> None:
    stream = await asker.stream("{ count }")
    assert asker.operations.subscriptions == 1
    assert [outcome.body async for outcome in stream] == [{"data": {"count": str(number)}} for number in (1, 2, 3)]
    asker.assert_nothing_is_open()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_each_event_has_a_context_of_its_own(asker: Asker) -> None:
    stream = await asker.stream("{ objects(to: 3) { number own } }")
    assert len(asker.contexts.seen) == 1  # the source's
    for number in (1, 2, 3):
        assert (await anext(stream)).body == {"data": {"objects": {"number": number, "own": number}}}
        assert [seen["closed"] for seen in asker.contexts.seen] == [False] + [True] * number
    await stream.aclose()
    asker.assert_nothing_is_open()


async def test_an_error_of_one_event_is_in_its_outcome_and_the_stream_goes_on(asker: Asker) -> None:
    stream = await asker.stream("{ objects { number fail } }")
    outcomes = [outcome async for outcome in stream]
    assert [outcome.body["data"]["objects"] for outcome in outcomes] == [{"number": n, "fail": None} for n in (1, 2)]
    assert [outcome.body["errors"][0]["path"] for outcome in outcomes] == [["objects", "fail"]] * 2
    assert {outcome.kind for outcome in outcomes} == {"executed"}


async def test_what_is_wrong_before_the_stream_is_a_request_error(asker: Asker) -> None:
    assert await asker.refused("{") == ("request_error", Code.GRAPHQL_PARSE_FAILED)
    assert await asker.refused("{ nothing }") == ("request_error", Code.GRAPHQL_VALIDATION_FAILED)
    assert await asker.refused("{ ticks count }") == ("request_error", Code.GRAPHQL_VALIDATION_FAILED)
    assert await asker.refused("{ __typename }") == ("request_error", Code.GRAPHQL_VALIDATION_FAILED)
    skipped = "($b: Boolean!) { ticks @skip(if: $b) }"
    assert await asker.refused(skipped, {"b": True}) == ("request_error", Code.GRAPHQL_VALIDATION_FAILED)
    assert await asker.refused("($n: Int!) { count(to: $n) }", {"n": "x"}) == ("request_error", Code.BAD_USER_INPUT)
    assert await asker.refused("($n: Int = 1) { count(to: $n) }", {"n": None}) == (
        "request_error", Code.BAD_USER_INPUT
    )  # fmt: skip
    assert await asker.refused("{ refused }") == ("request_error", Code.NOT_FOUND)
    assert asker.contexts.seen[-1]["refused"]
    with capture_logs():
        assert await asker.refused("{ noSource }") == ("request_error", Code.INTERNAL_SERVER_ERROR)


async def test_a_refusal_says_where(asker: Asker) -> None:
    begun = await asker.begin("{ refused }")
    assert isinstance(begun, Outcome)
    assert begun.body == {
        "errors": [
            {
                "message": "nothing to follow",
                "locations": [{"line": 1, "column": 16}],
                "path": ["refused"],
                "extensions": {"code": "NOT_FOUND"},
            }
        ]
    }


@pytest.mark.parametrize("after", [0, 2])
@pytest.mark.parametrize("how", FAILURES)
async def test_a_source_that_fails_shows_only_what_was_meant_and_ends(asker: Asker, how: str, after: int) -> None:
    with capture_logs() as lines:
        stream = await asker.stream(f'{{ fail(how: "{how}", after: {after}) }}')
        outcomes = [outcome async for outcome in stream]
    assert [outcome.kind for outcome in outcomes] == ["executed"] * after + ["request_error"]
    (error,) = outcomes[-1].body["errors"]
    assert error["extensions"]["code"] == FAILURES[how][1]
    assert SECRET not in str(outcomes)
    assert (error["locations"], error["path"]) == ([{"line": 1, "column": 16}], ["fail"])
    if FAILURES[how][1] is Code.INTERNAL_SERVER_ERROR:
        assert [line["event"] for line in lines] == ["unforeseen error"]
    asker.assert_nothing_is_open()


async def test_a_context_that_cannot_be_opened_refuses_or_ends_the_stream(asker: Asker) -> None:
    stream = await asker.stream("{ count }")
    asker.contexts.enter = Unavailable()
    for outcome, kind in ((await anext(stream), "request_error"), (await asker.begin("{ count }"), "context_error")):
        assert isinstance(outcome, Outcome)
        assert (outcome.kind, outcome.body["errors"][0]["extensions"]["code"]) == (kind, Code.UNAVAILABLE)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    asker.assert_nothing_is_open()


async def test_a_context_that_fails_to_close_takes_no_result_away(asker: Asker) -> None:
    asker.contexts.leave = ValueError(SECRET)
    with capture_logs() as lines:
        stream = await asker.stream("{ count(to: 1) }")
        assert [outcome.body async for outcome in stream] == [{"data": {"count": "1"}}]
    assert [line["event"] for line in lines] == ["unforeseen error"] * 2
    asker.assert_nothing_is_open()


@pytest.mark.parametrize("events", [0, 1, 2])
async def test_closing_a_stream_closes_its_source_and_contexts(asker: Asker, events: int) -> None:
    stream = await asker.stream("{ count }")
    for _ in range(events):
        await anext(stream)
    await stream.aclose()
    await stream.aclose()
    asker.assert_nothing_is_open()


async def test_a_source_that_fails_to_close_is_logged_and_everything_let_go(asker: Asker) -> None:
    stream = await asker.stream("{ failsToClose }")
    await anext(stream)
    with capture_logs() as lines:
        await stream.aclose()
    assert [line["event"] for line in lines] == ["unforeseen error"]
    asker.assert_nothing_is_open()


CANCELLED = [
    "{ neverBegins }",
    "{ never }",
    "{ forever }",
    "{ objects { wait } }",
    "{ slowToClose }",
    "{ withoutPause }",
]


@pytest.mark.parametrize("query", CANCELLED)
async def test_cancelling_in_any_place_leaves_nothing_open(asker: Asker, query: str) -> None:
    async def consume() -> None:
        stream = await asker.stream(query)
        try:
            async for _ in stream:
                pass
        finally:
            await stream.aclose()

    for pauses in range(8):
        task = asyncio.create_task(consume())
        for _ in range(pauses):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        asker.assert_nothing_is_open()


async def test_cancelling_while_the_source_is_closed_lets_go_of_the_rest(asker: Asker) -> None:
    stream = await asker.stream("{ slowToClose }")
    await anext(stream)
    closing = asyncio.create_task(stream.aclose())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    asker.assert_nothing_is_open()


async def test_a_source_that_never_waits_lets_others_run(asker: Asker) -> None:
    async def consume() -> None:
        stream = await asker.stream("{ withoutPause }")
        try:
            async for _ in stream:
                pass
        finally:
            await stream.aclose()

    task = asyncio.create_task(consume())
    for _ in range(3):
        await asyncio.sleep(0)
    assert asker.contexts.seen[0]["given"] < 100
    task.cancel()
    await asyncio.wait([task])
    asker.assert_nothing_is_open()


async def test_a_process_has_so_many_subscriptions_and_no_more() -> None:
    asker = Asker(Operations(SCHEMA, SETTINGS.model_copy(update={"subscriptions_max": 2})))
    streams = [await asker.stream("{ forever }") for _ in range(2)]
    refused = await asker.begin("{ forever }")
    assert isinstance(refused, Outcome)
    assert refused.body["errors"] == [
        {
            "message": "There are 2 subscriptions already, the most of a process (FORKPOINT_SUBSCRIPTIONS_MAX)."
            " Try again in a moment.",
            "extensions": {"code": "UNAVAILABLE", "retryAfterSeconds": 1},
        }
    ]
    await streams.pop().aclose()
    streams.append(await asker.stream("{ forever }"))
    for stream in streams:
        await stream.aclose()
    asker.assert_nothing_is_open()
