"""What happens where no plan gives the answer: the resolvers do, as if nobody had tried before them."""

import json
from itertools import product

import pytest
import structlog

from graphql_api.app import create_app
from graphql_api.settings import Settings
from tests.client import Api
from tests.conftest import api_over
from tests.schema.calls import create, delete_message, fork, say
from tests.schema.locking import locked
from tests.schema.planning import running
from tests.schema.test_loaders import Statements


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Let warnings be seen."""
    return settings.model_copy(update={"log_level": "warning"})


REFUSED = [
    '{ context(id: "1") { id } }',
    '{ node(id: "x") { id } health { version } }',
    'query ($id: ID!) { nodes(ids: [$id, "2"]) { id } }',
    "query ($id: ID!) { context(id: $id) { name messages(first: -1) { totalCount } } }",
    "query ($id: ID!) { context(id: $id) { messages(first: 1001) { totalCount } n: name } }",
    "query ($id: ID!) { context(id: $id) { messages(first: 1, last: 1) { nodes { id } } } }",
    'query ($id: ID!) { context(id: $id) { messages(after: "x") { nodes { id } } } }',
    'query ($id: ID!) { context(id: $id) { forks(after: "é") { nodes { id } } } }',
    "query ($id: ID!) { context(id: $id) { window(budget: 0) { budget } a: window(budget: 1, step: -1) { budget } } }",
    "query ($id: ID!) { context(id: $id) { at { version } b: at(version: 99) { version } } }",
    'query ($id: ID!) { context(id: $id) { at(version: 1, time: "2026-01-01T00:00:00Z") { version } } }',
    'query ($id: ID!) { context(id: $id) { diff(with: "no") { commonAncestor { version } } } }',
    "query ($id: ID!) { context(id: $id) { tree(first: 0) { root } t: tree(maxDepth: -1) { root } } }",
    '{ contexts(filter: {metadataContains: []}) { nodes { id } } c: contexts(after: "x") { totalCount } }',
    'query ($id: ID!) { contexts(filter: {parentId: "x"}) { nodes { id } } context(id: $id) { id } }',
    "query ($n: Int!, $id: ID!) { context(id: $id) { messages(first: $n) { totalCount } } }",
    "query ($id: ID!, $with: ID!) { context(id: $id) { diff(with: $with) { onlyHere { messageCount } } } }",
]


async def test_what_a_step_refuses_the_resolvers_refuse_in_their_words(settings: Settings, api: Api) -> None:
    made = await create(api, say("one"))
    unplanned = create_app(settings.model_copy(update={"planned_reads": False}))
    async with api_over(unplanned) as resolved:
        for text in REFUSED:
            body = {"query": text, "variables": {"id": made["id"]}}
            with structlog.testing.capture_logs() as lines:
                first, second = [await each.http.post("/graphql", json=body) for each in (api, resolved)]
            assert "errors" in first.json(), text
            assert first.json() == second.json()
            assert first.status_code == second.status_code
            assert lines == []


ODD_TEXTS = [
    "\x00",
    "\ud800",
    "a\x00b",
    "",
    " ",
    "\u2028",
    "%",
    "\\",
    "x" * 100_000,
    "0198c0de-7d0e-7000-8000-00000000000\u0660",
]
ODD = {
    "query ($t: ID!) { context(id: $t) { id } }": lambda text: text,
    "query ($t: ID!) { nodes(ids: [$t]) { id } }": lambda text: text,
    "query ($t: String) { contexts(after: $t) { nodes { id } } }": lambda text: text,
    "query ($t: String) { contexts(filter: {nameContains: $t}) { nodes { id name } } }": lambda text: text,
    "query ($t: ID) { contexts(filter: {parentId: $t}) { totalCount } }": lambda text: text,
    "query ($t: JSON) { contexts(filter: {metadataContains: $t}) { totalCount } }": lambda text: {text: [text]},
}


async def test_odd_texts_are_answered_as_by_resolvers_and_nothing_fails(settings: Settings, api: Api) -> None:
    await create(api, say("one"), name="%")
    unplanned = create_app(settings.model_copy(update={"planned_reads": False}))
    async with api_over(unplanned) as resolved:
        for text, (document, make) in product(ODD_TEXTS, ODD.items()):
            # Escapes carry lone surrogates, too.
            body = json.dumps({"query": document, "variables": {"t": make(text)}}).encode()
            with structlog.testing.capture_logs() as lines:
                first, second = [
                    await each.http.post("/graphql", content=body, headers={"content-type": "application/json"})
                    for each in (api, resolved)
                ]
            assert first.json() == second.json(), (document, text[:20])
            assert lines == [], (document, text[:20])


# What is refused stands last and first: it meets what was charged before it whatever the order of steps is.
ALLOWED = """query ($id: ID!, $last: Int!, $first: Int!) {
  a: context(id: $id) { messages(first: $first) { totalCount } }
  context(id: $id) { ancestors { id } window(budget: 100) { tokenCount } tree { truncated } }
  b: context(id: $id) { messages(first: $last) { totalCount } }
}"""


async def test_what_a_plan_has_read_is_not_charged_to_the_resolvers_after_it(
    settings: Settings, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    tip = (await create(api, say("one"), say("two")))["id"]
    for _ in range(3):
        tip = (await fork(api, tip))["id"]
    # As many as are allowed, and not one more.
    monkeypatch.setattr("schema.request.TREE_NODES_MAX", 4)
    monkeypatch.setattr("schema.request.WINDOWS_MAX", 1)
    chosen = {"fork_depth_max": 3, "window_messages_max": 2, "debug_extensions": True}
    async with api_over(create_app(settings.model_copy(update=chosen))) as tight:
        for first, last, execution, refused in (
            (5, 5, "planned", []),
            (-1, 5, "resolved", ["a"]),
            (5, -1, "resolved", ["b"]),
        ):
            body = {"query": ALLOWED, "variables": {"id": tip, "first": first, "last": last}}
            answer = (await tight.http.post("/graphql", json=body)).json()
            assert answer["extensions"] == {"execution": execution}
            assert [error["path"][0] for error in answer.get("errors", [])] == refused
        twice = ALLOWED.replace("ancestors {", "more: ancestors { id } ancestors {")
        answer = (
            await tight.http.post("/graphql", json={"query": twice, "variables": {"id": tip, "first": 5, "last": 5}})
        ).json()
        ((path, code),) = [(error["path"], error["extensions"]["code"]) for error in answer["errors"]]
        assert (path[0], path[-1] in {"more", "ancestors"}, code) == ("context", True, "LIMIT_EXCEEDED")


async def test_a_flush_that_was_not_the_last_is_not_charged(settings: Settings, api: Api) -> None:
    made = await create(api, *(say(str(number)) for number in range(1, 31)))
    for version in range(2, 29):
        await delete_message(api, made["id"], version)
    aliases = " ".join(f"w{number}: window(budget: {100 + number}) {{ tokenCount }}" for number in range(10))
    text = f"query ($id: ID!) {{ context(id: $id) {{ messages(first: 2) {{ nodes {{ id }} }} {aliases} }} }}"
    async with running(settings.model_copy(update={"window_messages_max": 3})) as run:
        data, trace = await run(text, id=made["id"])
    assert trace.way == "a lease"
    assert data["context"]["w9"] == {"tokenCount": 3}


async def test_a_plan_that_fails_is_logged_and_the_resolvers_answer(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("schema.execute._ask_early", None)
    app = create_app(settings.model_copy(update={"debug_extensions": True}))
    async with api_over(app) as api:
        with structlog.testing.capture_logs() as lines:
            answer = (await api.http.post("/graphql", json={"query": "{ contexts { totalCount } }"})).json()
    assert answer == {"data": {"contexts": {"totalCount": 0}}, "extensions": {"execution": "resolved"}}
    assert [(line["event"], line["log_level"]) for line in lines] == [("a plan failed", "warning")]


async def test_a_failure_of_the_store_is_shown_once_and_not_asked_again(
    database_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """query ($id: ID!) {
      __typename context(id: $id) { messages { nodes { content } } window(budget: 5) { budget } }
    }"""
    async with api_over(create_app(settings.model_copy(update={"query_seconds": 0.3}))) as api:
        made = await create(api, say("one"))
        await api(text, id=made["id"])
        statements = Statements(monkeypatch)
        with structlog.testing.capture_logs() as lines, locked(database_url, "messages"):
            body = {"query": text, "variables": {"id": made["id"]}}
            answer = (await api.http.post("/graphql", json=body)).json()
        ((path, code),) = [(error["path"], error["extensions"]["code"]) for error in answer["errors"]]
        assert (path, code, answer["data"]) == (["context"], "TIMEOUT", {"__typename": "Query", "context": None})
        assert statements.sent.total() == 0  # nothing went to the pool
        assert [line["event"] for line in lines] == ["database failure"]
        assert (await api(text, id=made["id"]))["context"]["messages"]["nodes"] == [{"content": "one"}]
