"""Input objects are made as Strawberry makes them."""

from dataclasses import fields
from typing import Any

import pytest
from graphql import GraphQLInputObjectType, coerce_input_value
from strawberry.types.arguments import convert_argument

from schema.root import schema

BUILT = schema._schema  # noqa: SLF001 - graphql-core's own schema
INPUTS = [kind for kind in BUILT.type_map.values() if isinstance(kind, GraphQLInputObjectType)]

VALUES: dict[str, list[dict[str, Any]]] = {
    "MessageInput": [
        {"role": "USER", "content": ""},
        {"role": "TOOL", "content": "x", "toolCallId": "a", "toolName": None, "metadata": {"a": [1, None]}},
        {"role": "ASSISTANT", "content": "x", "toolCalls": [{"id": "a", "name": "b", "arguments": {"c": 1.5}}]},
        {"role": "ASSISTANT", "content": "x", "toolCalls": None, "tokenCount": 3},
    ],
    "AppendMessagesInput": [
        {"contextId": "1", "messages": []},
        {"contextId": "1", "messages": [{"role": "SYSTEM", "content": "x"}] * 2, "onConflict": "FORK"},
        {"contextId": "1", "messages": {"role": "SYSTEM", "content": "one for a list"}, "onConflict": None},
    ],
    "ContextFilter": [{}, {"updatedSince": "2026-01-01T00:00:00Z", "rootsOnly": True, "metadataContains": {"a": 1}}],
    "ContextOrder": [{}, {"field": "NAME"}, {"direction": None}],
}


def as_strawberry(kind: GraphQLInputObjectType, coerced: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Convert without the hook, also what lies inside."""
    for each in INPUTS:
        monkeypatch.setattr(each.extensions["strawberry-definition"], "from_input", None)
    registry = schema.schema_converter.scalar_registry
    made = convert_argument(coerced, kind.extensions["strawberry-definition"].origin, registry, schema.config)
    monkeypatch.undo()
    return made


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in VALUES.items() for value in values])
def test_an_input_is_made_as_strawberry_makes_it(
    name: str, value: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = BUILT.type_map[name]
    assert isinstance(kind, GraphQLInputObjectType)
    coerced = coerce_input_value(value, kind)
    definition = kind.extensions["strawberry-definition"]
    made = definition.from_input(definition.origin, coerced, None)
    assert made == as_strawberry(kind, coerced, monkeypatch)
    assert type(made) is definition.origin


@pytest.mark.parametrize("kind", INPUTS, ids=str)
def test_every_input_has_a_converter_and_every_field_that_may_be_left_out_a_default(
    kind: GraphQLInputObjectType,
) -> None:
    definition = kind.extensions["strawberry-definition"]
    assert definition.from_input is not None
    required = {
        field.python_name
        for field in definition.fields
        if kind.fields[_name(field)].type.__class__.__name__ == "GraphQLNonNull"
    }
    without_default = {field.name for field in fields(definition.origin) if field.init and _has_no_default(field)}
    assert without_default <= required


def _name(field: Any) -> str:
    return schema.config.name_converter.from_field(field)


def _has_no_default(field: Any) -> bool:
    missing = type(field.default).__name__ == "_MISSING_TYPE"
    return missing and type(field.default_factory).__name__ == "_MISSING_TYPE"
