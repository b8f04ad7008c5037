"""Introspection: where it is allowed it is bounded, and in production it is not allowed."""

import pytest
from graphql import get_introspection_query

from schema.errors import Code
from tests.attacks.victim import Victim

pytestmark = pytest.mark.usefixtures("nothing_written")


@pytest.mark.parametrize(
    "query",
    [
        get_introspection_query(),
        "{ __schema { queryType { name } } }",
        '{ __type(name: "Context") { fields { name } } }',
        "{ ...F } fragment F on Query { a: __schema { types { name } } }",
        "query A { __typename } query B { __schema { types { name } } }",
    ],
    ids=["full", "schema", "type", "in a fragment", "in another operation"],
)
def test_introspection_is_refused_in_production(victim: Victim, query: str) -> None:
    answer = victim.send({"query": query, "operationName": "B"} if "query B" in query else {"query": query})
    assert answer.code in {Code.FORBIDDEN, Code.GRAPHQL_VALIDATION_FAILED}
    assert b"createContext" not in answer.body


def test_the_name_of_a_type_is_told_still(victim: Victim) -> None:
    assert victim.ask("{ __typename health { __typename } }").data == {
        "__typename": "Query",
        "health": {"__typename": "Health"},
    }


@pytest.mark.parametrize("query", ["{ contextz { id } }", '{ context(idd: "x") { id } }', "{ health { statuss } }"])
def test_field_suggestions_are_not_made_in_production(victim: Victim, query: str) -> None:
    answer = victim.ask(query)
    assert answer.code == Code.GRAPHQL_VALIDATION_FAILED
    assert b"Did you mean" not in answer.body


def test_graphiql_is_not_served_in_production(victim: Victim) -> None:
    answer = victim.send(b"", "GET", accept="text/html,*/*;q=0.1")
    assert b"<html" not in answer.body.lower()
    assert victim.client.get("/graphiql/index.js").status_code == 404


def test_introspection_within_introspection_is_refused(victim: Victim) -> None:
    nested = "fields { type { " * 12 + "name" + " } }" * 12
    assert victim.refuse(f"{{ __schema {{ types {{ {nested} }} }} }}") in {Code.LIMIT_EXCEEDED, Code.FORBIDDEN}


def test_introspection_in_circles_is_refused(victim: Victim) -> None:
    text = "{ __schema { types { ...T } } } fragment T on __Type { fields { type { ...T } } }"
    assert victim.refuse(text) in {Code.GRAPHQL_VALIDATION_FAILED, Code.FORBIDDEN}


def test_introspection_by_aliases_is_refused(victim: Victim) -> None:
    fields = " ".join(f"a{n}: __schema {{ types {{ name fields {{ name }} }} }}" for n in range(200))
    assert victim.refuse(f"{{ {fields} }}") in {Code.LIMIT_EXCEEDED, Code.FORBIDDEN}
    inner = " ".join(f"a{n}: fields {{ name }}" for n in range(200))
    assert victim.refuse(f"{{ __schema {{ types {{ {inner} }} }} }}") in {Code.LIMIT_EXCEEDED, Code.FORBIDDEN}


def test_introspection_through_fragments_is_refused(victim: Victim) -> None:
    doubling = " ".join(
        f"fragment F{n} on __Type {{ a: ofType {{ ...F{n + 1} }} b: ofType {{ ...F{n + 1} }} }}" for n in range(20)
    )
    text = f"{{ __schema {{ types {{ ...F0 }} }} }} {doubling} fragment F20 on __Type {{ name }}"
    assert victim.refuse(text) in {Code.LIMIT_EXCEEDED, Code.FORBIDDEN}
