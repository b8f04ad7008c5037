"""Input objects, made from what callers send by converters that are put together once.

Strawberry looks at the types and names of all fields of an input for each value anew: 100 of the 470 microseconds that
an append cost the process. Its hook `from_input` is for those who know better.
"""

from collections.abc import Callable, Mapping
from typing import Any

import strawberry
from graphql import GraphQLInputObjectType
from strawberry.types.arguments import InputContext
from strawberry.types.base import StrawberryList, StrawberryObjectDefinition, StrawberryOptional

Convert = Callable[[Any], Any]


def convert_at_once(schema: strawberry.Schema) -> None:
    """Let the inputs of a schema be made by converters of their own."""
    inputs = [kind for kind in schema._schema.type_map.values() if isinstance(kind, GraphQLInputObjectType)]  # noqa: SLF001 - graphql-core's own schema
    made: dict[type, Convert] = {}
    for kind in inputs:
        definition: StrawberryObjectDefinition = kind.extensions["strawberry-definition"]
        made[definition.origin] = _maker(schema, definition, made)
        definition.from_input = _hook(made[definition.origin])


def _hook(convert: Convert) -> Callable[[type, Mapping[str, Any], InputContext], Any]:
    return lambda _type, value, _context: convert(value)


def _maker(schema: strawberry.Schema, definition: StrawberryObjectDefinition, made: dict[type, Convert]) -> Convert:
    """Give what makes an input of the coerced values of its fields; those that were not sent have their defaults."""
    fields = {
        schema.config.name_converter.from_field(field): (
            field.python_name,
            _converter(field.resolve_type(type_definition=definition), made),
        )
        for field in definition.fields
    }
    make = definition.origin

    def convert(value: Mapping[str, Any]) -> Any:
        given = {}
        for name, sent in value.items():
            python_name, converted = fields[name]
            given[python_name] = sent if sent is None or converted is None else converted(sent)
        return make(**given)

    return convert


def _converter(kind: Any, made: dict[type, Convert]) -> Convert | None:
    """Give what a value of a type that is not null becomes; None for one that is right as graphql-core coerced it."""
    if isinstance(kind, StrawberryOptional):
        return _converter(kind.of_type, made)
    if isinstance(kind, StrawberryList):
        item = _converter(kind.of_type, made)
        # graphql-core gives the same default to all requests, so a list is copied.
        return list if item is None else lambda value: [part if part is None else item(part) for part in value]
    if isinstance(getattr(kind, "__strawberry_definition__", None), StrawberryObjectDefinition):
        return lambda value: made[kind](value)  # noqa: PLW0108 - which may be made only later
    return None
