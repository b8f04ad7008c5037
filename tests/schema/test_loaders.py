"""How many statements a request runs: a number that depends on its shape and not on how much it finds."""

import uuid
from collections import Counter
from collections.abc import Sequence
from typing import Any, LiteralString

import pytest

from db import pool, queries, statement
from db.call import Row
from db.statement import Connection
from graphql_api.app import create_app
from graphql_api.settings import Settings
from tests.client import Api
from tests.conftest import api_over

CREATE = """mutation ($name: String!) {
  createContext(input: {name: $name, messages: [
    {role: USER, content: "one", tokenCount: 1}, {role: ASSISTANT, content: "two", tokenCount: 1}
  ]}) { context { id } }
}"""
FORK = "mutation ($id: ID!) { forkContext(input: {contextId: $id, version: 1}) { context { id } } }"
APPEND = """mutation ($id: ID!) {
  appendMessages(input: {contextId: $id, messages: [{role: USER, content: "more", tokenCount: 1}]}) { forked }
}"""
DELETE_MESSAGE = "mutation ($id: ID!) { deleteMessage(input: {contextId: $id, version: 2}) { context { id } } }"
DELETE = "mutation ($id: ID!) { deleteContext(input: {contextId: $id}) { context { id } } }"

EVERYTHING = """query ($first: Int!) {
  contexts(first: $first) {
    totalCount pageInfo { hasNextPage hasPreviousPage endCursor }
    nodes {
      id
      parent { id parent { id } }
      ancestors { id }
      forks(first: 3) { totalCount pageInfo { hasNextPage } nodes { id forks { totalCount } } }
      first: messages(first: 2) {
        totalCount pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
        edges { cursor node { id context { id name parent { id } } } }
      }
      last: messages(last: 2, roles: [USER]) {
        totalCount pageInfo { hasNextPage hasPreviousPage }
        nodes { id context { id } }
      }
      message(version: 1) { id context { id } }
    }
  }
}"""
PARENTS = "query ($first: Int!) { contexts(first: $first) { nodes { id parent { id name parent { id } } } } }"
MESSAGES = """query ($first: Int!) {
  contexts(first: $first) { nodes { messages(last: 10) { nodes { content context { id } } } } }
}"""
LIST = "query ($first: Int!) { contexts(first: $first) { nodes { id name messageCount depth } } }"
NODES = """query ($ids: [ID!]!) {
  nodes(ids: $ids) { id ... on Context { parent { id } } ... on Message { context { id } } }
}"""

TEXTS = {query.text: query.name for stem in queries.stems() for query in queries.load(stem).values()}


ENDS = ("commit", "rollback")


class Statements:
    """Counts what is sent to PostgreSQL, and sends it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: Counter[str] = Counter()
        self.transactions: dict[str, int] = {}
        run = statement.run_statement

        async def counted(
            connection: Connection,
            text: LiteralString,
            parameters: Sequence[Any],
            seconds: float,
            **options: Any,
        ) -> Sequence[Row]:
            self.sent[TEXTS.get(text, text)] += 1
            return await run(connection, text, parameters, seconds, **options)

        monkeypatch.setattr(pool, "run_statement", counted)

    async def of(self, api: Api, document: str, **variables: Any) -> tuple[dict[str, Any], Counter[str]]:
        """Give the answer and what it took, without what a new connection takes."""
        self.sent.clear()
        data = await api(document, **variables)
        sent = self.sent.copy()
        for name in [name for name in sent if name.startswith("pool.") or name == "health.backend"]:
            del sent[name]
        self.transactions = {text: sent.pop(text) for text in list(sent) if text.startswith(("begin", *ENDS))}
        return data, sent


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Let resolvers answer, over the pool."""
    return settings.model_copy(update={"planned_reads": False, "fast_lane_connections": 0})


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Statements:
    return Statements(monkeypatch)


@pytest.fixture
async def forest(api: Api) -> list[str]:
    """Make trees of 110 contexts: forks of forks, some parents deleted, some messages deleted."""
    ids: list[str] = []
    for tree in range(10):
        root = (await api(CREATE, name=f"tree {tree}"))["createContext"]["context"]["id"]
        ids.append(root)
        for number in range(10):
            parent = ids[-1] if number % 3 else root
            made = (await api(FORK, id=parent))["forkContext"]["context"]["id"]
            await api(APPEND, id=made)
            ids.append(made)
    for root in ids[::33]:
        await api(DELETE_MESSAGE, id=root)
    await api(DELETE, id=ids[11])
    return ids


@pytest.mark.parametrize(
    ("document", "statements_max"),
    [(LIST, 1), (PARENTS, 3), (MESSAGES, 3), (EVERYTHING, 18)],
    ids=["list", "parents", "messages", "everything"],
)
async def test_a_list_runs_as_many_statements_for_a_hundred_contexts_as_for_ten(
    api: Api, forest: list[str], statements: Statements, document: str, statements_max: int
) -> None:
    assert len(forest) == 110
    few_found, few = await statements.of(api, document, first=10)
    many_found, many = await statements.of(api, document, first=100)
    assert (len(few_found["contexts"]["nodes"]), len(many_found["contexts"]["nodes"])) == (10, 100)
    assert many == few
    assert many.total() <= statements_max
    assert list(statements.transactions.values()) == [1, 1]  # its begin, its end


async def test_parents_that_many_share_are_loaded_once(api: Api, forest: list[str], statements: Statements) -> None:
    assert forest
    _, sent = await statements.of(api, PARENTS, first=100)
    assert set(sent) == {"context_list.all_by_updated_at_desc", "context.by_ids"}
    assert sent["context.by_ids"] <= 2  # the parents, and those of theirs that are not among them


async def test_nodes_run_as_many_statements_for_a_hundred_ids_as_for_ten(
    api: Api, forest: list[str], statements: Statements
) -> None:
    found, _ = await statements.of(api, MESSAGES, first=1)
    assert found["contexts"]["nodes"]
    _, few = await statements.of(api, NODES, ids=forest[:10])
    data, many = await statements.of(api, NODES, ids=[*forest[:99], str(uuid.uuid4())])
    assert [node and node["id"] for node in data["nodes"]] == [
        *[None if context_id == forest[11] else context_id for context_id in forest[:99]],
        None,
    ]
    assert many == few
    assert many.total() <= 3


async def test_trees_and_differences_run_as_many_statements_for_a_hundred_ids_as_for_ten(
    api: Api, forest: list[str], statements: Statements
) -> None:
    document = """query ($ids: [ID!]!, $with: ID!) { nodes(ids: $ids) { ... on Context {
      tree(first: 12) { nodes { id } }
      shallow: tree(first: 12, maxDepth: 1) { truncated }
      commonAncestor(with: $with) { version context { id } }
      diff(with: $with) {
        onlyHere { context { id } totalTokens messages(first: 3) { totalCount nodes { id } } }
        onlyThere { messageCount messages(last: 2) { nodes { id } } }
      }
    } } }"""
    with_first = {"with": forest[0]}
    _, few = await statements.of(api, document, ids=forest[:20:2], **with_first)
    _, many = await statements.of(api, document, ids=forest[::2], **with_first)
    assert many == few
    assert (many["tree.nodes"], many["tree.common_ancestors"], many["lineage.totals"]) == (1, 1, 1)
    assert many.total() <= 8


async def test_the_same_field_asked_for_twice_is_read_once(api: Api, forest: list[str], statements: Statements) -> None:
    document = """query ($id: ID!) {
      a: context(id: $id) { id messages { nodes { id } } }
      b: context(id: $id) { name messages { edges { node { version } } totalCount pageInfo { hasNextPage } } }
    }"""
    _, sent = await statements.of(api, document, id=forest[5])
    assert (sent["context.by_ids"], sent["lineage.page"]) == (1, 1)


async def test_a_query_that_reads_no_rows_takes_no_connection(api: Api, statements: Statements) -> None:
    _, sent = await statements.of(api, "{ __typename }")
    assert (sent, statements.transactions) == ({}, {})


async def test_a_mutation_commits_once(api: Api, forest: list[str], statements: Statements) -> None:
    _, sent = await statements.of(api, APPEND, id=forest[0])
    assert sent == {"message.append": 1, "message.by_ids": 1}
    assert statements.transactions == {"begin": 1, "commit": 1}


async def test_what_one_field_fails_on_takes_nothing_from_others_and_leaves_nothing_behind(settings: Settings) -> None:
    document = """query ($with: ID!) { contexts {
      nodes { diff(with: $with) { onlyHere { messageCount } } }
      edges { node { window(budget: 100) { budget } diff(with: $with) { onlyThere { messageCount } } } }
    } }"""
    chosen = {"window_messages_max": 1, "pool_size_max": 2, "pool_wait_seconds": 1.0, "planned_reads": False}
    async with api_over(create_app(settings.model_copy(update=chosen))) as api:
        made = [(await api(CREATE, name=str(number)))["createContext"]["context"]["id"] for number in range(12)]
        for with_ in made:
            answer = (await api.http.post("/graphql", json={"query": document, "variables": {"with": with_}})).json()
            assert {error["extensions"]["code"] for error in answer["errors"]} == {"LIMIT_EXCEEDED"}
        assert (await api("{ contexts { totalCount } }")) == {"contexts": {"totalCount": 12}}
