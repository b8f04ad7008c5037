"""Whatever the schema allows, and what it nearly allows, sent to the live service: nothing is unforeseen.

hypothesis-graphql makes the documents: valid ones, and ones with a mistake in them. What stands for ids and texts is
often something that is there, so that it leads further in.
"""

import json
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import hypothesis
import pytest
from graphql import GraphQLSchema, ValueNode, parse_value
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from hypothesis_graphql import Mode, mutations, nodes, queries

from schema.errors import Code
from tests.attacks.places import PLACES, SCHEMA
from tests.attacks.test_injection import INJECTIONS
from tests.attacks.victim import Answer, Honest, Socket, Victim, codes
from tests.document_values import literal

MIB = 1024 * 1024
# After the first documents, which fill caches and connections.
GROWTH_BYTES_MAX = 100 * MIB
# The service's own connections, those that listen, and what looks in from here.
SESSIONS_MAX = 30
UNKNOWN = "0198c0de-7d0e-7000-8000-000000000000"

# Those of the machine: a document that is costly meets them where the machine is slow.
EXCUSED = {Code.TIMEOUT, Code.UNAVAILABLE}

how_many = pytest.mark.parametrize("examples", [40, pytest.param(6_000, marks=pytest.mark.long)])


class Prey:
    """What is there: ids and cursors of contexts and messages."""

    def __init__(self, victim: Victim) -> None:
        create = "mutation ($input: CreateContextInput!) { createContext(input: $input) { context { id } } }"
        fork = "mutation ($id: ID!) { forkContext(input: {contextId: $id, version: 2}) { context { id } } }"
        call = {"id": "c1", "name": "tool", "arguments": {"a": [1]}}
        messages = [
            {"role": "SYSTEM", "content": "s"},
            {"role": "ASSISTANT", "content": "é", "toolCalls": [call]},
            {"role": "TOOL", "content": "t", "toolCallId": "c1"},
            {"role": "USER", "content": "u", "metadata": {"a": 1}},
        ]
        self.ids: list[str] = []
        for name in ("prey", "", None):
            made = victim.ask(create, input={"name": name, "messages": messages}).data["createContext"]["context"]["id"]
            self.ids += [made, victim.ask(fork, id=made).data["forkContext"]["context"]["id"]]
        self.cursors: list[str] = []
        for context_id in tuple(self.ids):
            query = "query ($id: ID!) { context(id: $id) { messages { edges { cursor node { id } } } } }"
            for edge in victim.ask(query, id=context_id).data["context"]["messages"]["edges"]:
                self.cursors.append(edge["cursor"])
                self.ids.append(edge["node"]["id"])


@pytest.fixture(scope="module")
def prey(victim: Victim) -> Prey:
    """Make what is there to be found."""
    return Prey(victim)


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
NUMBERS = st.integers(-2, 8) | st.sampled_from([50, 1_000, 1_001, 2**31 - 1, -(2**31), 2**31, 2**63, 10**40])


def scalars(prey: Prey) -> dict[str, st.SearchStrategy[ValueNode]]:
    """Give values to scalars. A third is of no sense."""
    texts = st.sampled_from([*INJECTIONS, "", "prey", "c1", "\0", "é" * 300]) | st.text(max_size=20)
    moments = st.datetimes().map(lambda moment: moment.isoformat() + "Z")
    return {
        "ID": (st.sampled_from([*prey.ids, UNKNOWN]) | st.sampled_from([*prey.ids[:6], "x", "", "\0"])).map(
            nodes.String
        ),
        "String": (texts | st.sampled_from([*prey.cursors, "prey"])).map(nodes.String),
        "Int": NUMBERS.map(nodes.Int),
        "DateTime": (moments | moments | st.sampled_from(["", "yesterday", "2026-13-01T00:00:00Z"])).map(nodes.String),
        "JSON": st.dictionaries(
            st.from_regex("[a-z]{1,5}", fullmatch=True), st.integers() | st.text(max_size=9), max_size=3
        ).map(_value),
    }


def _value(value: Any) -> ValueNode:
    written = literal(value, random.Random(0))
    assert written is not None
    return parse_value(written)


def fuzz(strategy: st.SearchStrategy[Any], examples: int, check: Callable[[Any], None]) -> None:
    """Check so many examples."""
    settings = hypothesis.settings(
        max_examples=examples, database=None, suppress_health_check=list(HealthCheck), print_blob=False
    )
    given(strategy)(settings(check))()


def foreseen(answer: Answer) -> None:
    """Check that an answer is one of those that are described."""
    assert answer.status in {200, 400, 429, 503}, (answer.status, answer.body)
    content = answer.json
    if "errors" in content:
        assert answer.status != 503 or set(codes(content)) <= EXCUSED
        assert codes(content)
    else:
        assert set(content) == {"data"}


@pytest.fixture(autouse=True)
def no_growth(victim: Victim) -> Iterator[None]:
    """Check that nothing is left of what was sent."""
    before = victim.memory()
    yield
    grown = victim.memory() - before
    assert grown < GROWTH_BYTES_MAX
    ((sessions,),) = victim.sql("select count(*) from pg_stat_activity where datname = current_database()")
    assert sessions < SESSIONS_MAX


@how_many
@pytest.mark.parametrize("mode", [Mode.POSITIVE, Mode.NEGATIVE], ids=["valid", "invalid"])
def test_any_query_is_answered_as_described(victim: Victim, prey: Prey, mode: Mode, examples: int) -> None:
    strategy = queries(SCHEMA, custom_scalars=scalars(prey), codec=None, mode=mode)
    fuzz(strategy, examples, lambda query: foreseen(victim.send({"query": query})))


@how_many
@pytest.mark.parametrize("mode", [Mode.POSITIVE, Mode.NEGATIVE], ids=["valid", "invalid"])
def test_any_mutation_is_answered_as_described(victim: Victim, prey: Prey, mode: Mode, examples: int) -> None:
    strategy = mutations(SCHEMA, custom_scalars=scalars(prey), codec=None, mode=mode)
    fuzz(strategy, examples, lambda query: foreseen(victim.send({"query": query})))
    assert victim.half_written() == []


@how_many
@pytest.mark.parametrize("mode", [Mode.POSITIVE, Mode.NEGATIVE], ids=["valid", "invalid"])
def test_any_subscription_is_answered_as_described(victim: Victim, prey: Prey, mode: Mode, examples: int) -> None:
    # Documents are made for queries and mutations only.
    told = GraphQLSchema(query=SCHEMA.subscription_type)
    strategy = queries(told, custom_scalars=scalars(prey), codec=None, mode=mode)

    with victim.websocket() as socket:

        def check(query: str) -> None:
            socket.subscribe(f"subscription {query}")
            end(socket)

        fuzz(strategy, examples, check)


def end(socket: Socket) -> None:
    """Read what an operation gives until it is over."""
    socket.send({"type": "ping"})
    while (message := socket.receive())["type"] != "pong":
        foreseen_frame(message)
    socket.send({"type": "complete", "id": "1"})
    socket.send({"type": "ping"})
    while (message := socket.receive())["type"] != "pong":
        foreseen_frame(message)


def foreseen_frame(message: Any) -> None:
    if message["type"] == "error":
        assert codes({"errors": message["payload"]})
    elif message["type"] == "next":
        assert "errors" not in message["payload"] or codes(message["payload"])
    else:
        assert message == {"id": "1", "type": "complete"}


@how_many
def test_any_value_of_a_variable_is_answered_as_described(victim: Victim, prey: Prey, examples: int) -> None:
    places = [place for place in PLACES if place.operation != "subscription"]

    def check(drawn: tuple[Any, Any]) -> None:
        place, value = drawn
        body = place.body("x", prey.ids[0], by_variable=True) | {"variables": {"value": value}}
        foreseen(victim.send(json.dumps(body).encode()))

    fuzz(st.tuples(st.sampled_from(places), JSONS), examples * 2, check)


@how_many
def test_any_bytes_are_answered_as_described(victim: Victim, examples: int) -> None:
    def check(body: bytes) -> None:
        answer = victim.send(body)
        assert answer.status in {200, 400, 413}
        assert "data" in answer.json or codes(answer.json)

    pieces = [
        b'{"query":',
        b'"{__typename}"',
        b'"variables":',
        b"{}",
        b",",
        b"[",
        b"]",
        b"}",
        b'"\\ud800"',
        b"\xff",
        b"1e999",
    ]
    fuzz(st.binary() | st.lists(st.sampled_from(pieces), max_size=12).map(b"".join), examples, check)


@pytest.mark.long
def test_ten_minutes_of_anything_leave_nothing(victim: Victim, honest: Honest) -> None:
    def some(examples: int) -> None:
        alive = scalars(Prey(victim))  # what was there before may have been deleted
        strategy = st.one_of(
            [
                make(SCHEMA, custom_scalars=alive, codec=None, mode=mode)
                for make in (queries, mutations)
                for mode in (Mode.POSITIVE, Mode.NEGATIVE)
            ]
        )
        fuzz(strategy, examples, lambda query: foreseen(victim.send({"query": query})))
        assert victim.half_written() == []

    some(1_000)
    memory, descriptors = victim.memory(), victim.descriptors()
    end_seconds = time.monotonic() + 600
    while time.monotonic() < end_seconds:
        some(500)
        assert victim.memory() - memory < GROWTH_BYTES_MAX
        assert victim.descriptors() <= descriptors + SESSIONS_MAX
    assert honest.failures == []
