"""No field that a query or the event of a subscription can ask is without a step or an attribute."""

from collections.abc import Iterator
from typing import Any

import pytest
from graphql import (
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLObjectType,
    get_named_type,
    is_list_type,
    is_non_null_type,
    is_required_argument,
)

from schema.arguments import strawberry_field
from schema.steps import STEPS
from tests.schema.planning import BUILT, ID, bound_of


def object_types() -> Iterator[GraphQLObjectType]:
    """Give every object type that a query or an event can reach."""
    waiting: list[Any] = [BUILT.query_type, BUILT.subscription_type]
    seen = set()
    while waiting:
        kind = get_named_type(waiting.pop())
        if kind in seen:
            continue
        seen.add(kind)
        if isinstance(kind, GraphQLInterfaceType):
            waiting += BUILT.get_possible_types(kind)
        elif isinstance(kind, GraphQLObjectType):
            waiting += [field.type for field in kind.fields.values()]
            yield kind


TYPES = {kind.name: kind for kind in object_types()}


def test_every_resolver_that_a_query_can_reach_has_a_step_and_no_step_is_left_over() -> None:
    resolved = {
        (kind.name, name)
        for kind in TYPES.values()
        for name, field in kind.fields.items()
        if strawberry_field(field).base_resolver is not None
    }
    assert resolved - set(STEPS) == set()
    assert set(STEPS) - resolved == set()


def paths() -> dict[str, str]:
    """Give a selection for each type that leads to its objects, with `%s` for what is asked of them."""
    found = {"Query": "query { %s }", "Subscription": "subscription { %s }"}
    waiting = list(found)
    while waiting:
        name = waiting.pop(0)
        for field_name, field in TYPES[name].fields.items():
            kind = get_named_type(field.type)
            below = BUILT.get_possible_types(kind) if isinstance(kind, GraphQLInterfaceType) else [kind]
            for each in below:
                if each.name in TYPES and each.name not in found:
                    inner = f"{{ ... on {each.name} {{ %s }} }}" if len(below) > 1 else "{ %s }"
                    found[each.name] = found[name].replace("%s", call(field_name, field) + " " + inner)
                    waiting.append(each.name)
    return found


def call(name: str, field: GraphQLField) -> str:
    values = {"ID": f'"{ID}"', "Int": "1"}
    given = []
    for argument, definition in field.args.items():
        if is_required_argument(definition):
            value = values[get_named_type(definition.type).name]
            kind = definition.type.of_type if is_non_null_type(definition.type) else definition.type
            given.append(f"{argument}: {f'[{value}]' if is_list_type(kind) else value}")
    return f"{name}({', '.join(given)})" if given else name


PATHS = paths()
COORDINATES = [(kind, name) for kind in TYPES for name in TYPES[kind].fields]


def test_every_type_is_reached() -> None:
    assert set(PATHS) == set(TYPES)


@pytest.mark.parametrize(("kind", "name"), COORDINATES, ids=lambda value: value)
def test_every_field_that_a_query_can_ask_is_planned(kind: str, name: str) -> None:
    field = TYPES[kind].fields[name]
    below = "" if not hasattr(get_named_type(field.type), "fields") else " { __typename }"
    text = PATHS[kind].replace("%s", call(name, field) + below)
    assert len(bound_of(text).plan.fields) >= PATHS[kind].count("{") - 1 - PATHS[kind].count("... on")
