"""SQL, JSON, patterns and paths in every place that takes text: each is kept as it is, or refused."""

from collections.abc import Iterator
from typing import Any

import pytest

from schema.errors import Code
from tests.attacks.places import PLACES, TEXTS, Place
from tests.attacks.victim import Victim, codes

INJECTIONS = [
    "'; create table pwned (); --",
    "x' or '1'='1",
    "x') union select id, content from messages --",
    '"; create table pwned (); --',
    "\\'; create table pwned (); --",
    "'||(select version())||'",
    "$$; create table pwned (); $$",
    "%s %(name)s %% {0} $1 :name ?",
    "{}' || '{\"a\": 1}'::jsonb",
    '{"$where": "sleep(1000)", "$ne": null}',
    '$.** ? (@ like_regex ".*")',
    "%_%\\%",
    "(a+)+$" + "a" * 30 + "!",
    "a & b | !c <-> d:* ''",
    "../../../../etc/passwd",
    "x\r\nSet-Cookie: a=b\r\n\r\n<script>alert(1)</script>",
    "{{7*7}}${7*7}<%= 7*7 %>",
    "0198c0de-7d0e-7000-8000-000000000000' or true --",
    "2026-01-01T00:00:00Z'; create table pwned (); --",
    "infinity",
]
CANARY = "canary ' \" \\ ; -- %s {} $1"
REFUSALS = {
    Code.BAD_USER_INPUT,
    Code.LIMIT_EXCEEDED,
    Code.NOT_FOUND,
    Code.CONFLICT,
    Code.GRAPHQL_VALIDATION_FAILED,
    Code.FORBIDDEN,
}


@pytest.fixture(scope="module")
def context_id(victim: Victim) -> str:
    """Id of a context to be attacked."""
    messages: list[dict[str, Any]] = [{"role": "USER", "content": f"message {number}"} for number in range(3)]
    return str(create(victim, name="attacked", messages=messages)["id"])


@pytest.fixture(autouse=True)
def canary(victim: Victim) -> Iterator[None]:
    """Check that what is stored beside is not touched, and that no SQL was executed."""
    context = create(victim, name=CANARY, messages=[{"role": "USER", "content": CANARY}])
    tables = victim.sql("select relname::text from pg_class where relkind in ('r', 'v', 'S') order by 1")
    yield
    query = "query ($id: ID!) { context(id: $id) { name messages { nodes { content } } } }"
    expected = {"name": CANARY, "messages": {"nodes": [{"content": CANARY}]}}
    assert victim.ask(query, id=context["id"]).data == {"context": expected}
    assert victim.sql("select relname::text from pg_class where relkind in ('r', 'v', 'S') order by 1") == tables


def create(victim: Victim, **given: Any) -> Any:
    query = """mutation ($input: CreateContextInput!) {
      createContext(input: $input) { replayed context { id name metadata } }
    }"""
    return victim.ask(query, input=given).data["createContext"]["context"]


def test_every_argument_that_takes_text_is_attacked() -> None:
    coordinates = {place.coordinate for place in PLACES}
    assert {
        "Query.context.id",
        "Query.contexts.filter.nameContains",
        "Context.messages.after",
        "Mutation.createContext.input.metadata",
        "Mutation.appendMessages.input.messages.toolCalls.arguments",
        "Subscription.contextsChanged.filter.nameContains",
    } <= coordinates
    assert {"String", "ID", "JSON", "DateTime"} == TEXTS


@pytest.mark.parametrize("by_variable", [False, True], ids=["literal", "variable"])
@pytest.mark.parametrize("operation", ["query", "mutation"])
def test_text_in_any_argument_is_only_text(
    victim: Victim, context_id: str, operation: str, *, by_variable: bool
) -> None:
    for number, place in enumerate(PLACES):
        if place.operation == operation:
            # Some for each place, so that all are tried soon; each literal makes another document, which takes longer.
            for text in INJECTIONS[number % 2 :: 2] if by_variable else INJECTIONS[number % 5 :: 5]:
                if body := place.body(text, context_id, by_variable=by_variable):
                    check(place, victim.send(body).json)


def check(place: Place, content: Any) -> None:
    assert "data" in content or "errors" in content
    if "errors" in content:
        assert set(codes(content)) <= REFUSALS, (place.coordinate, content)


@pytest.mark.parametrize("by_variable", [False, True], ids=["literal", "variable"])
def test_text_in_any_argument_of_a_subscription_is_only_text(
    victim: Victim, context_id: str, *, by_variable: bool
) -> None:
    with victim.websocket() as socket:
        for place in PLACES:
            if place.operation == "subscription":
                for number, text in enumerate(INJECTIONS):
                    if not (payload := place.body(text, context_id, by_variable=by_variable)):
                        continue
                    socket.send({"type": "subscribe", "id": str(number), "payload": payload})
                    socket.send({"type": "complete", "id": str(number)})
                socket.send({"type": "ping"})
                while (message := socket.receive())["type"] != "pong":
                    if message["type"] == "error":
                        check(place, {"errors": message["payload"]})


@pytest.mark.parametrize("text", INJECTIONS)
def test_what_is_stored_comes_back_as_it_was_sent(victim: Victim, text: str) -> None:
    call = {"id": text, "name": text, "arguments": {text: [text, {"a": text}]}}
    messages = [
        {"role": "ASSISTANT", "content": text, "toolCalls": [call], "model": text, "metadata": {text: text}},
        {"role": "TOOL", "content": text, "toolCallId": text, "toolName": text},
    ]
    given = {"name": text, "metadata": {text: text}, "messages": messages, "idempotencyKey": f"key {text}"}
    made = create(victim, **given)
    assert create(victim, **given) == made
    query = """query ($id: ID!) { context(id: $id) { name metadata messages { nodes {
      content model metadata toolCallId toolName toolCalls { id name arguments }
    } } } }"""
    found = victim.ask(query, id=made["id"]).data["context"]
    assert (found["name"], found["metadata"]) == (text, {text: text})
    first, second = found["messages"]["nodes"]
    assert first == {
        "content": text,
        "model": text,
        "metadata": {text: text},
        "toolCallId": None,
        "toolName": None,
        "toolCalls": [call],
    }
    assert (second["content"], second["toolCallId"], second["toolName"]) == (text, text, text)


@pytest.mark.parametrize("text", ["%", "_", "\\", "a%b", "[a-z]", ".*", "^", "$", "*", "(", "\\d", "a' or 'a"])
def test_signs_of_patterns_find_only_themselves(victim: Victim, text: str) -> None:
    unique = f"sign {text} {id(text)}"
    made = create(victim, name=unique)
    create(victim, name=unique.replace(text, "Z"))
    query = "query ($name: String) { contexts(filter: {nameContains: $name}) { nodes { id } } }"
    assert victim.ask(query, name=unique).data == {"contexts": {"nodes": [{"id": made["id"]}]}}


def test_metadata_that_looks_like_operators_is_compared_as_it_is(victim: Victim) -> None:
    for metadata in ({"$ne": None}, {"a": {"$gt": ""}}, {"a->b": 1}, {"a": "' or '1'='1"}, {"": ""}, {"@>": "{}"}):
        made = create(victim, name="operators", metadata={"marker": 7, **metadata})
        query = "query ($m: JSON) { contexts(filter: {metadataContains: $m}, first: 1000) { nodes { id } } }"
        found = victim.ask(query, m={"marker": 7, **metadata}).data["contexts"]["nodes"]
        assert {"id": made["id"]} in found
        assert all(each["id"] >= made["id"] for each in found)
