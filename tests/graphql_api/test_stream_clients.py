"""The streams as the clients read them that people have: npm's graphql-ws and graphql-sse, Python's gql."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from gql import Client, gql
from gql.transport.websockets import WebsocketsTransport
from structlog.testing import capture_logs

from tests.graphql_api.serving import Served, serving, until
from tests.node import run_node

PROGRAMS = Path(__file__).parents[1] / "clients"
CLIENTS = ["graphql_ws", "graphql_sse"]


async def run(name: str, served: Served, *operations: Any, results: int = -1) -> list[Any]:
    """Run a client; gives what it was told."""
    url = served.url.replace("http:", "ws:") if name == "graphql_ws" else served.url
    output = await run_node(PROGRAMS / f"{name}.mjs", url, json.dumps(operations), str(results))
    return [json.loads(line) for line in output.splitlines()]


@pytest.mark.parametrize("name", CLIENTS)
async def test_results_errors_and_completion_arrive(name: str) -> None:
    async with serving() as served:
        operation = {"query": "subscription ($to: Int!) { count(to: $to) }", "variables": {"to": 2}}
        told = await run(name, served, operation)
        events = [["next", {"data": {"count": "1"}}], ["next", {"data": {"count": "2"}}], ["complete"]]
        assert [event for event in told if event[0] not in {"connected", "closed"}] == events
        told = await run(name, served, {"query": "mutation { write }"}, {"query": "{ echo }"})
        assert ["next", {"data": {"write": True}}] in told
        assert ["next", {"data": {"echo": ""}}] in told
        await served.quiet()


@pytest.mark.parametrize("name", CLIENTS)
async def test_a_refusal_arrives_with_its_code_and_leaves_other_operations_alone(name: str) -> None:
    async with serving() as served:
        for query, code in {
            "subscription { refused }": "NOT_FOUND",
            "subscription { nothing }": "GRAPHQL_VALIDATION_FAILED",
            "{": "GRAPHQL_PARSE_FAILED",
        }.items():
            told = await run(name, served, {"query": query}, {"query": "subscription { count(to: 1) }"})
            failures = [event[1] for event in told if event[0] == "error" or "errors" in str(event)]
            (failed,) = failures
            errors = failed if name == "graphql_ws" else failed["errors"]
            assert errors[0]["extensions"]["code"] == code
            assert ["next", {"data": {"count": "1"}}] in told


@pytest.mark.parametrize("name", CLIENTS)
async def test_a_client_that_leaves_closes_its_subscription(name: str) -> None:
    async with serving() as served:
        told = await run(name, served, {"query": "subscription { forever }"}, results=1)
        assert ["next", {"data": {"forever": 1}}] in told
        await served.quiet()


@pytest.mark.parametrize("name", CLIENTS)
async def test_after_a_restart_clients_come_again_by_themselves_and_go_on(name: str) -> None:
    operation = {"query": "subscription ($first: Int!) { forever(first: $first) }", "variables": {"first": 1}}
    async with serving(alone=False) as first:
        program = asyncio.create_task(run(name, first, operation, results=2))
        await until(lambda: first.open == 1 or program.done())
        with capture_logs() as lines:
            await first.stop()
    assert [line["event"] for line in lines] == ["websocket" if name == "graphql_ws" else "request"]
    async with serving(port=first.port) as second:
        told = await program
        await second.quiet()
    assert [event[1] for event in told if event[0] == "next"] == [{"data": {"forever": 1}}, {"data": {"forever": 2}}]
    assert not [event for event in told if event[0] == "error"]
    if name == "graphql_ws":
        assert ["closed", 1012] in told
    assert told.count(["connected", False]) == told.count(["connected", True]) == 1


async def test_gql_subscribes_over_a_websocket() -> None:
    async with serving() as served:
        transport = WebsocketsTransport(url=served.url.replace("http:", "ws:"), subprotocols=["graphql-transport-ws"])
        async with Client(transport=transport) as session:
            found = [result async for result in session.subscribe(gql("subscription { count }"))]
        assert found == [{"count": "1"}, {"count": "2"}, {"count": "3"}]
        await served.quiet()
