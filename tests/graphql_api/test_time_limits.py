"""How long statements, requests and events may take, and what is said and stored when they took longer."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest

from graphql_api.app import create_app
from graphql_api.settings import Settings
from tests.client import Api, ApiError
from tests.conftest import api_over
from tests.graphql_api.serving import serving
from tests.schema.calls import create
from tests.schema.locking import locked

APPEND = """mutation ($id: ID!, $key: String) {
  appendMessages(input: { contextId: $id, messages: [{ role: USER, content: "one" }], idempotencyKey: $key }) {
    context { latestVersion }
  }
}"""
READ = "query ($id: ID!) { context(id: $id) { latestVersion } }"


@asynccontextmanager
async def api_with(settings: Settings, **chosen: Any) -> AsyncIterator[Api]:
    async with api_over(create_app(settings.model_copy(update=chosen))) as api:
        yield api


async def timed_out(api: Api, document: str, **variables: Any) -> str:
    with pytest.raises(ApiError) as failed:
        await api(document, **variables)
    assert failed.value.code == "TIMEOUT"
    return failed.value.message


@pytest.mark.parametrize("lanes", [0, 4])
async def test_each_kind_of_operation_has_a_time_of_its_own(database_url: str, settings: Settings, lanes: int) -> None:
    async with api_with(settings, query_seconds=0.2, mutation_seconds=0.4, fast_lane_connections=lanes) as api:
        made = await create(api)
        with locked(database_url, "contexts"):
            assert "a statement may take 0.2 seconds" in await timed_out(api, READ, id=made["id"])
            assert "a statement may take 0.4 seconds" in await timed_out(api, APPEND, id=made["id"])
            assert "a statement may take 0.4 seconds" in await timed_out(api, APPEND, id=made["id"], key="a")
        assert await api(READ, id=made["id"]) == {"context": {"latestVersion": 0}}


@pytest.mark.parametrize("key", [None, "a"])
async def test_a_request_past_its_time_is_stopped_and_leaves_nothing_half_written(
    database_url: str, settings: Settings, key: str | None
) -> None:
    async with api_with(settings, request_seconds=0.3) as api:
        made = await create(api)
        with locked(database_url, "contexts"):
            message = await timed_out(api, READ, id=made["id"])
            assert message == (
                "It took longer than 0.3 seconds, the most allowed (FORKPOINT_REQUEST_SECONDS), and was stopped."
                " Ask for less, or try again."
            )
            assert "Some of its changes may be stored" in await timed_out(api, APPEND, id=made["id"], key=key)
        # What was on its way is stored as a whole or not at all, and the same key tells which.
        versions = (await api(APPEND, id=made["id"], key="a"))["appendMessages"]["context"]["latestVersion"]
        with psycopg.connect(database_url) as connection:
            found = connection.execute("select version from messages order by version").fetchall()
        assert found == [(version,) for version in range(1, versions + 1)]
        for _ in range(20):
            await api(READ, id=made["id"])


async def test_a_request_past_its_time_gives_its_turn_back() -> None:
    async with serving(request_seconds=0.1, requests_max=1, request_queue_max=0) as served:
        http = await served.http()
        for _ in range(3):
            answer = (await http.post(served.url, json={"query": "{ slow }"})).json()
            assert (answer["errors"][0]["extensions"], answer["data"]) == ({"code": "TIMEOUT"}, None)


async def test_a_source_that_never_begins_is_given_up() -> None:
    async with serving(request_seconds=0.1) as served:
        client = await served.socket()
        await client.subscribe("subscription { neverBegins }")
        assert await client.error() == "TIMEOUT"
        await client.connection.close()
        await served.quiet()


async def test_an_event_past_its_time_ends_its_subscription() -> None:
    async with serving(subscription_seconds=0.1) as served:
        client = await served.socket()
        await client.subscribe("subscription { objects { wait } }")
        message = await client.receive()
        (error,) = message["payload"]
        assert (message["type"], error["extensions"]["code"]) == ("error", "TIMEOUT")
        assert re.match(r"An event took longer than 0\.1 seconds, .* subscribe again", error["message"])
        await client.connection.close()
        await served.quiet()


async def test_a_resolver_that_times_out_by_itself_is_a_failure_of_its_own() -> None:
    async with serving(request_seconds=30) as served:
        http = await served.http()
        answer = (await http.post(served.url, json={"query": '{ fail(how: "asyncio_timeout") }'})).json()
        assert answer["errors"][0]["extensions"]["code"] == "INTERNAL_SERVER_ERROR"
