"""How plans are run: what is asked flush by flush, at which moment, and what happens where no plan gives the answer."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any
from unittest.mock import ANY

import psycopg
import pytest
import structlog

from db.pipeline import Lane
from graphql_api.app import create_app
from graphql_api.settings import Settings
from schema.errors import LimitExceeded
from schema.principal import ANYBODY
from schema.request import Request
from tests.answers import difference, read
from tests.client import Api
from tests.conftest import api_over
from tests.graphql_api.histories import imported
from tests.schema.calls import create, delete_message, fork, say
from tests.schema.locking import locked, waiting
from tests.schema.planning import Runner, asked, running
from tests.test_golden import CASES, HISTORY


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Let warnings be seen."""
    return settings.model_copy(update={"log_level": "warning"})


@pytest.fixture
async def run(settings: Settings) -> AsyncIterator[Runner]:
    async with running(settings) as runner:
        yield runner


ALL_OF_ONE = """query ($id: ID!) { context(id: $id) {
  name messages(last: 2) { totalCount pageInfo { hasPreviousPage } nodes { content } }
  window(budget: 10) { tokenCount messages { version } } forks { nodes { id } } message(version: 1) { content }
} }"""


async def test_all_that_is_known_to_be_asked_of_a_context_leaves_in_one_flush(api: Api, run: Runner) -> None:
    made = await create(api, say("one"), say("two"), say("three"), name="a")
    made_fork = await fork(api, made["id"], 1)
    data, trace = await run(ALL_OF_ONE, id=made["id"])
    assert trace.way == "one flush"
    assert asked(trace) == [["context.by_ids", "context.forks", "lineage.page", "lineage.page", "window.fit"]]
    assert data["context"] == {
        "name": "a",
        "messages": {
            "totalCount": 3,
            "pageInfo": {"hasPreviousPage": True},
            "nodes": [{"content": "two"}, {"content": "three"}],
        },
        "window": {"tokenCount": 3, "messages": [{"version": 1}, {"version": 2}, {"version": 3}]},
        "forks": {"nodes": [{"id": made_fork["id"]}]},
        "message": {"content": "one"},
    }


async def test_what_is_asked_early_of_a_context_that_is_not_there_is_thrown_away(run: Runner) -> None:
    for text in (ALL_OF_ONE, ALL_OF_ONE.replace("version: 1", "version: -1")):
        data, trace = await run(text, id=str(uuid.uuid4()))
        assert (data, trace.way, len(trace.flushes)) == ({"context": None}, "one flush", 1)


LIST = """query ($first: Int!) { contexts(first: $first) { nodes { id
  messages(last: 2) { nodes { content } } window(budget: 5) { tokenCount } parent { id p: parent { id } }
} } }"""


async def test_a_list_with_children_asks_twice_however_many_there_are(api: Api, run: Runner) -> None:
    root = (await create(api, say("one")))["id"]
    for _ in range(100):
        await fork(api, root)
    for first in (1, 10, 100):
        data, trace = await run(LIST, first=first)
        assert len(data["contexts"]["nodes"]) == first
        assert asked(trace) == [
            ["context_list.all_by_updated_at_desc"],
            ["context.by_ids", "lineage.page", "window.fit"],
            *[["window.fit"]] * ((first - 1) // 20),  # some windows at a time: each may be large
        ]
        assert trace.way == "a lease"
    data, trace = await run("{ contexts(first: 100) { nodes { messages(last: 10) { nodes { content } } } } }")
    assert (trace.way, asked(trace)[1]) == ("the pool", ["lineage.page"])  # more rows than others may wait for


async def test_equal_calls_are_sent_once(api: Api, run: Runner) -> None:
    made = await create(api, say("one"), say("two"))
    text = """query ($id: ID!) {
      a: context(id: $id) { messages(first: 9) { nodes { id } } w: window(budget: 9) { tokenCount } }
      b: context(id: $id) {
        messages(first: 9) { nodes { id } } more: messages(first: 9) { nodes { version } } window(budget: 9) { budget }
      }
    }"""
    data, trace = await run(text, id=made["id"])
    assert asked(trace) == [["context.by_ids", "lineage.page", "window.fit"]]
    assert data["a"]["messages"] == data["b"]["messages"]
    text = "{ contexts { nodes { a: ancestors { id } b: ancestors { id } p: parent { id } q: parent { id } } } }"
    await fork(api, made["id"])
    _, trace = await run(text)
    assert asked(trace)[1:] == [["context.ancestors", "context.by_ids"]]


async def test_nothing_is_asked_for_what_no_rows_are_needed(run: Runner) -> None:
    data, trace = await run("{ __typename health { status } }")
    assert (data, trace.flushes) == ({"__typename": "Query", "health": {"status": "HEALTHY"}}, [])


async def test_a_page_that_deletions_thin_out_is_read_on(api: Api, run: Runner) -> None:
    made = await create(api, *(say(str(number)) for number in range(1, 31)))
    for version in range(2, 29):
        await delete_message(api, made["id"], version)
    text = """query ($id: ID!) { context(id: $id) { name
      messages(first: 2) { nodes { content } pageInfo { hasNextPage } } w: window(budget: 2) { fromVersion }
    } }"""
    data, trace = await run(text, id=made["id"])
    assert trace.way == "a lease"
    assert asked(trace)[0] == ["context.by_ids", "lineage.page", "window.fit"]
    assert {name for names in asked(trace)[1:] for name in names} == {"lineage.page"}
    assert data["context"]["messages"] == {
        "nodes": [{"content": "1"}, {"content": "29"}],
        "pageInfo": {"hasNextPage": True},
    }
    text = """query ($id: ID!) { context(id: $id) {
      messages(roles: [ASSISTANT], last: 3) { totalCount nodes { content } }
    } }"""
    data, trace = await run(text, id=made["id"])
    assert (data["context"]["messages"], trace.way) == ({"totalCount": 0, "nodes": []}, "the pool")


async def test_to_know_whether_there_is_more_no_message_is_read_whole(api: Api, run: Runner) -> None:
    made = await create(api, say("one"), say("two"), say("three"))
    text = """query ($id: ID!, $after: String) { context(id: $id) { messages(first: 1, after: $after) {
      nodes { content } pageInfo { hasPreviousPage hasNextPage endCursor }
    } } }"""
    first, _ = await run(text, id=made["id"])
    after = first["context"]["messages"]["pageInfo"]["endCursor"]
    second, trace = await run(text, id=made["id"], after=after)
    assert second["context"]["messages"] == {
        "nodes": [{"content": "two"}],
        "pageInfo": {"hasPreviousPage": True, "hasNextPage": True, "endCursor": ANY},
    }
    assert asked(trace) == [["context.by_ids", "lineage.page"], ["lineage.page"]]
    assert trace.flushes[1][0].parameters[-3:] == (False, False, False)


async def test_the_fast_lane_is_asked_only_what_may_run_there(database_url: str, run: Runner) -> None:
    assert (await imported(database_url, HISTORY.read_bytes())).refused == []
    ways = set()
    for case in CASES:
        if case.name == "introspection_falls_back":
            continue
        _, trace = await run(case.document, **case.variables)
        ways.add(trace.way)
        calls = [call for flush in trace.flushes for call in flush]
        assert trace.way == "the pool" or all(call.query.pipelined for call in calls), case.name
    assert {"one flush", "a lease", "the pool"} <= ways


TWO_LEVELS = """query ($roles: [Role!]) {
  contexts { nodes { latestVersion messages(last: 1, roles: $roles) { nodes { version content } } } }
}"""


async def test_a_line_that_breaks_is_replaced_by_the_pool(database_url: str, api: Api, run: Runner) -> None:
    made = await create(api, say("one"))
    text = "query ($id: ID!) { context(id: $id) { name messages { nodes { content } } } }"
    for document in (text, TWO_LEVELS):
        with structlog.testing.capture_logs() as lines, locked(database_url, "messages"):
            asking = asyncio.create_task(run(document, **({"id": made["id"]} if document is text else {})))
            first = await waiting(database_url)
            with psycopg.connect(database_url, autocommit=True) as connection:
                connection.execute("select pg_terminate_backend(%s)", [first])
            await waiting(database_url, other_than=first)
        data, trace = await asking
        assert trace.way == "the pool"
        assert '"one"' in str(data).replace("'", '"')
        assert [line for line in lines if line["event"] == "a plan failed"] == []
        await run.service.database.lanes_ready(5)
    assert (await run(text, id=made["id"]))[1].way == "one flush"


async def test_without_a_lane_the_pool_answers_the_same(settings: Settings, api: Api, run: Runner) -> None:
    made = await create(api, say("one", metadata={"a": [1, 2.5, None]}), metadata={"b": {}})
    text = "query ($id: ID!) { context(id: $id) { metadata messages { nodes { content metadata } } } }"
    data, trace = await run(text, id=made["id"])
    async with running(settings.model_copy(update={"fast_lane_connections": 0})) as pooled:
        again, over_pool = await pooled(text, id=made["id"])
    assert again == data
    assert (trace.way, over_pool.way) == ("one flush", "the pool")
    assert asked(trace) == asked(over_pool)


FOUR = [
    {"planned_reads": planned, "fast_lane_connections": lines, "debug_extensions": True}
    for planned in (True, False)
    for lines in (4, 0)
]


async def test_neither_plans_nor_the_lane_change_an_answer(database_url: str, settings: Settings) -> None:
    assert (await imported(database_url, HISTORY.read_bytes())).refused == []
    answers: list[list[Any]] = []
    for chosen in FOUR:
        app = create_app(settings.model_copy(update=chosen))
        async with api_over(app) as api:
            answers.append([])
            for case in CASES:
                body = {"query": case.document, "variables": case.variables}
                response = await api.http.post("/graphql", json=body)
                found = read(response.content, case.document)
                if not found.messages and case.name != "introspection_falls_back":
                    assert found.execution == ("planned" if chosen["planned_reads"] else "resolved"), case.name
                answers[-1].append((response.status_code, found.content))
    for other in answers[1:]:
        assert difference(other, answers[0]) is None


async def test_to_renew_a_request_is_to_allow_everything_again(run: Runner) -> None:
    async with Request(run.service, ANYBODY) as request:
        charges: tuple[Callable[[], None], ...] = (
            lambda: request.charge_ancestors(1_000_000),
            lambda: request.charge_tree_nodes(shown=1_000_000),
            lambda: request.charge_tree_nodes(read=1_000_000),
            lambda: request.charge_window_messages(1_000_000),
        )
        for charge in charges:
            for _ in range(2):
                with pytest.raises(LimitExceeded):
                    charge()
            request.renew()
        request.charge_ancestors(1)
        request.charge_tree_nodes(read=1, shown=1)
        request.charge_window_messages(1)


async def test_many_plans_at_once_get_each_its_own_rows(api: Api, run: Runner) -> None:
    ids = [(await create(api, *(say(f"{number}-{version}") for version in range(3))))["id"] for number in range(20)]
    text = """query ($id: ID!, $roles: [Role!], $deep: Boolean!) { context(id: $id) { id
      messages(roles: $roles) { nodes { content context @include(if: $deep) { id } } }
    } }"""
    chosen = [(number % 20, number % 3) for number in range(200)]
    answers = await asyncio.gather(
        *(run(text, id=ids[number], roles=["USER"] if kind == 2 else None, deep=kind == 1) for number, kind in chosen)
    )
    assert {trace.way for _, trace in answers} == {"one flush", "a lease", "the pool"}
    for (number, kind), (data, _) in zip(chosen, answers, strict=True):
        nodes = [
            {"content": f"{number}-{version}"} | ({"context": {"id": ids[number]}} if kind == 1 else {})
            for version in range(3)
        ]
        assert data["context"] == {"id": ids[number], "messages": {"nodes": nodes}}


async def test_a_plan_that_is_cancelled_disturbs_no_other(database_url: str, api: Api, run: Runner) -> None:
    made = await create(api, say("one"))
    text = "query ($id: ID!) { context(id: $id) { messages { nodes { content } } } }"
    with locked(database_url, "messages"):
        tasks = [asyncio.create_task(run(text, id=made["id"])) for _ in range(20)]
        tasks += [asyncio.create_task(run(TWO_LEVELS)) for _ in range(10)]
        await waiting(database_url)
        for task in tasks[::2]:
            task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(found, asyncio.CancelledError) for found in done[::2])
    for found in done[1::2]:
        assert isinstance(found, tuple)
        assert "one" in str(found[0])
    assert isinstance(run.service.database.lane, Lane)
    assert (await run(text, id=made["id"]))[1].way == "one flush"
