"""The cost of an operation as callers meet it: told when they ask, and refused when it is too much."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from graphql_api.app import create_app
from graphql_api.settings import Settings
from graphql_api.websocket import PROTOCOL
from tests.client import Api, ApiError
from tests.conftest import api_over
from tests.graphql_api.serving import Socket, listening
from tests.schema.calls import create, say

ASKING = {"cost": True}
PAGE = "query ($first: Int) { contexts(first: $first) { nodes { id } } }"
TOLD = {"rows": 3, "bytes": 157, "points": 3}
TREE = "{ contexts(first: 1000) { nodes { messages(first: 1000) { nodes { content } } } } }"


def chosen(settings: Settings, **changes: Any) -> Settings:
    return settings.model_copy(update=changes)


async def post(api: Api, query: str, **body: Any) -> dict[str, Any]:
    told: dict[str, Any] = (await api.http.post("/graphql", json={"query": query, **body})).json()
    return told


@pytest.mark.parametrize("planned", [True, False])
async def test_it_is_told_to_those_who_ask(settings: Settings, planned: bool) -> None:
    async with api_over(create_app(chosen(settings, planned_reads=planned))) as api:
        asked = {"variables": {"first": 3}, "extensions": ASKING}
        assert await post(api, PAGE, **asked) == {"data": {"contexts": {"nodes": []}}, "extensions": {"cost": TOLD}}
        got = await api.http.get(
            "/graphql",
            params={"query": PAGE, "variables": '{"first": 3}', "extensions": json.dumps(ASKING)},
        )
        assert got.json()["extensions"] == {"cost": TOLD}


@pytest.mark.parametrize("extensions", [None, {}, {"cost": False}, {"cost": 1}, {"cost": "true"}, {"cost": {}}])
async def test_it_is_told_to_nobody_else(api: Api, extensions: Any) -> None:
    assert "extensions" not in await post(api, PAGE, extensions=extensions)


async def test_it_stands_beside_how_the_answer_came_about(settings: Settings) -> None:
    async with api_over(create_app(chosen(settings, debug_extensions=True))) as api:
        told = await post(api, "{ contexts(first: 3) { nodes { id } } }", extensions=ASKING)
        assert told["extensions"] == {"execution": "planned", "cost": TOLD}


async def test_texts_that_differ_in_literals_cost_each_their_own(api: Api) -> None:
    for first in (3, 4, 5, 6, 5):
        told = await post(api, f"{{ contexts(first: {first}) {{ nodes {{ id }} }} }}", extensions=ASKING)
        assert told["extensions"]["cost"]["rows"] == first


async def test_mutations_and_errors_tell_it_too(api: Api) -> None:
    mutation = "mutation ($i: CreateContextInput!) { createContext(input: $i) { context { id } } }"
    given = {"messages": [{"role": "USER", "content": "one"}]}
    told = await post(api, mutation, variables={"i": given}, extensions=ASKING)
    assert told["extensions"]["cost"]["rows"] == 3
    failed = await post(api, '{ context(id: "x") { id } }', extensions=ASKING)
    assert (failed["data"], failed["extensions"]["cost"]["rows"]) == ({"context": None}, 1)


@pytest.mark.parametrize(
    ("changes", "asked", "allowed"),
    [
        ({"cost_rows_max": 999_999}, "1,001,000", "999,999 rows (FORKPOINT_COST_ROWS_MAX)"),
        ({"cost_rows_max": 2_000_000, "cost_bytes_max": 1_000}, "", "1,000 bytes (FORKPOINT_COST_BYTES_MAX)"),
    ],
)
async def test_what_may_take_too_much_is_refused_with_what_was_asked_and_what_is_allowed(
    settings: Settings, changes: dict[str, int], asked: str, allowed: str
) -> None:
    async with api_over(create_app(chosen(settings, **changes))) as api:
        body = await post(api, TREE, extensions=ASKING)
        (error,) = body["errors"]
        assert error["message"].startswith(f"The operation may take {asked}")
        assert f" of at most {allowed}" in error["message"]
        assert error["extensions"]["code"] == "LIMIT_EXCEEDED"
        assert error["extensions"]["cost"] == body["extensions"]["cost"]
        assert error["extensions"]["cost"]["rows"] == 1_001_000
        assert "data" not in body
        unasked = await post(api, TREE)
        assert "extensions" not in unasked
        assert unasked["errors"] == body["errors"]


async def test_a_million_messages_in_one_answer_are_refused_by_default(api: Api) -> None:
    with pytest.raises(ApiError, match=r"1,001,000 of at most 250,000 rows"):
        await api(TREE)
    deep = "forks(first: 1000) { nodes { " * 10 + "id" + " } }" * 10
    with pytest.raises(ApiError, match=r"of at most 250,000 rows"):
        await api(f"{{ contexts(first: 1000) {{ nodes {{ {deep} }} }} }}")


@pytest.mark.parametrize("planned", [True, False])
@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("contexts(first: {}) {{ nodes {{ id }} }}", "first"),
        ('context(id: "{id}") {{ messages(first: {}) {{ nodes {{ id }} }} }}', "first"),
        ('context(id: "{id}") {{ messages(last: {}) {{ totalCount }} }}', "last"),
        ('context(id: "{id}") {{ forks(first: {}) {{ nodes {{ id }} }} }}', "first"),
        ('context(id: "{id}") {{ at(version: 1) {{ messages(last: {}) {{ nodes {{ id }} }} }} }}', "last"),
        (
            'context(id: "{id}") {{ diff(with: "{id}") {{ onlyHere {{ messages(last: {}) {{ totalCount }} }} }} }}',
            "last",
        ),
        ("apiKeys(first: {}) {{ nodes {{ id }} }}", "first"),
    ],
)  # fmt: skip
async def test_a_setting_bounds_every_page(settings: Settings, field: str, name: str, planned: bool) -> None:
    async with api_over(create_app(chosen(settings, page_size_max=60, planned_reads=planned))) as api:
        made = await create(api, say("one"))

        def document(size: int) -> str:
            return f"{{ {field.format(size, id=made['id'])} }}"

        refused = await post(api, document(61))
        most = f"{name} is 61. It may be 60 at most (FORKPOINT_PAGE_SIZE_MAX); page with cursors for more."
        assert [(error["message"], error["extensions"]["code"]) for error in refused["errors"]] == [
            (most, "LIMIT_EXCEEDED")
        ]
        if "apiKeys" not in field:  # for which there must be some
            assert "errors" not in await post(api, document(60))


@pytest.mark.parametrize("planned", [True, False])
async def test_the_same_setting_bounds_ids(settings: Settings, planned: bool) -> None:
    async with api_over(create_app(chosen(settings, page_size_max=60, planned_reads=planned))) as api:
        made = await create(api)
        query = "query ($ids: [ID!]!) { nodes(ids: $ids) { id } }"
        assert len((await api(query, ids=[made["id"]] * 60))["nodes"]) == 60
        with pytest.raises(ApiError, match=r"ids holds 61 ids. It may hold 60 at most \(FORKPOINT_PAGE_SIZE_MAX\)"):
            await api(query, ids=[made["id"]] * 61)


@asynccontextmanager
async def served(settings: Settings) -> AsyncIterator[int]:
    async with listening(create_app(settings), settings) as port:
        yield port


@asynccontextmanager
async def socket_to(port: int) -> AsyncIterator[Socket]:
    async with connect(f"ws://127.0.0.1:{port}/graphql", subprotocols=[Subprotocol(PROTOCOL)]) as connection:
        yield await Socket(connection).init()


FOLLOW = "subscription ($id: ID!) { messageAppended(contextId: $id, afterVersion: 0) { message { content } } }"


async def test_over_a_websocket_each_answer_and_event_tells_it(settings: Settings) -> None:
    async with served(settings) as port, socket_to(port) as client:
        await client.subscribe(
            'mutation { createContext(input: {messages: [{role: USER, content: "a"}, {role: USER, content: "b"}]})'
            " { context { id } } }"
        )
        made = (await client.next())["data"]["createContext"]["context"]
        assert await client.completed()
        await client.subscribe(PAGE, variables={"first": 3}, extensions=ASKING)
        assert (await client.next())["extensions"] == {"cost": TOLD}
        assert await client.completed()
        await client.subscribe(FOLLOW, variables={"id": made["id"]}, extensions=ASKING)
        for content in ("a", "b"):
            event = await client.next()
            assert event["data"] == {"messageAppended": {"message": {"content": content}}}
            assert event["extensions"]["cost"]["rows"] == 1
        await client.subscribe(TREE, "2")
        message = await client.receive()
        assert (message["type"], message["id"]) == ("error", "2")
        assert message["payload"][0]["extensions"]["cost"]["rows"] == 1_001_000


async def test_each_event_is_capped_and_a_subscription_that_may_cost_more_never_begins(settings: Settings) -> None:
    small = chosen(settings, cost_rows_max=30)
    many = FOLLOW.replace("{ content }", "{ context { messages(first: 30) { nodes { id } } } }")
    async with served(small) as port, socket_to(port) as client:
        await client.subscribe(many, variables={"id": "01a20a2a-5fc8-7415-a8b9-a63dbb25b4c9"})
        assert await client.error() == "LIMIT_EXCEEDED"


async def test_server_sent_events_tell_it(settings: Settings) -> None:
    async with served(settings) as port, httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        body = {"query": PAGE, "variables": {"first": 3}, "extensions": ASKING}
        answer = await http.post("/graphql", json=body, headers={"accept": "text/event-stream"})
        told = json.loads(answer.text.split("data: ", 1)[1].split("\n", 1)[0])
        assert told == {"data": {"contexts": {"nodes": []}}, "extensions": {"cost": TOLD}}


async def test_a_batch_says_how_many_operations_it_holds_and_that_one_is_allowed(api: Api) -> None:
    for count in (2, 1_000):
        answer = await api.http.post("/graphql", json=[{"query": "{ __typename }"}] * count)
        (error,) = answer.json()["errors"]
        assert (answer.status_code, error["extensions"]["code"]) == (400, "LIMIT_EXCEEDED")
        assert error["message"].startswith(f"The request is a batch of {count:,} operations; one operation is allowed")
