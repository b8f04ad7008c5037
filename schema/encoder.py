"""Encoders: generated functions that turn the objects of one place in the response into dictionaries, all at once.

Python code is written and compiled once for each selection of a plan: a dictionary display reads the attributes of a
row five times as fast as a loop over the fields does. What is written are names of the schema and of the document,
which GraphQL holds to letters, digits and underscores; values only pass through.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from types import CodeType
from typing import Any

import orjson
from graphql import (
    GraphQLEnumType,
    GraphQLField,
    TypeNameMetaFieldDef,
    get_named_type,
    is_list_type,
    is_non_null_type,
)

from schema.arguments import strawberry_field
from schema.collect import Unplanned
from schema.scalar import write_moment

# Objects in, and for each field with a step its values; dictionaries out, in the order of the objects.
Encoder = Callable[[Sequence[Any], Sequence[Sequence[Any]]], list[dict[str, Any]]]


def write_json(value: Any) -> Any:
    """Pass on the text of JSON that the fast lane brought."""
    return orjson.Fragment(value) if type(value) is bytes else value


def write_leaf(definition: GraphQLField) -> tuple[str, Mapping[str, Any]]:
    """Give the expression that writes a plain attribute of an object `o`, and what it takes beside that object.

    Raises: Unplanned when it is no plain attribute.
    """
    named = get_named_type(definition.type)
    kind = definition.type.of_type if is_non_null_type(definition.type) else definition.type
    if definition is TypeNameMetaFieldDef:
        return "type_name", {}
    if is_list_type(kind):
        raise Unplanned
    made = strawberry_field(definition)
    if made.base_resolver is not None:
        raise Unplanned
    attribute = f"o.{made.python_name}"
    if isinstance(named, GraphQLEnumType):
        table = f"names_{named.name}"
        return f"{table}[{attribute}]", {table: _names(named)}
    if named.name == "DateTime":
        # orjson writes a moment, but leaves out microseconds that are zero.
        return f"(t if (t := {attribute}) is None or t.microsecond else write_moment(t))", {
            "write_moment": write_moment
        }
    if named.name == "JSON":
        return f"write_json({attribute})", {"write_json": write_json}
    return attribute, {}


def _names(kind: GraphQLEnumType) -> dict[Any, str | None]:
    """Map the members of an enum, and the values that rows hold for them, to their names."""
    members = kind.extensions["strawberry-definition"].wrapped_cls
    return {None: None} | {key: member.name for member in members for key in (member, member.value)}


def make_encoder(type_name: str, names: Sequence[str], plain: Mapping[str, tuple[str, Mapping[str, Any]]]) -> Encoder:
    """Make the encoder of a selection: fields in this order, those that are not plain taking the values of a step."""
    scope: dict[str, Any] = {"type_name": type_name}
    entries: list[str] = []
    stepped: list[str] = []
    for name in names:
        if name in plain:
            expression, needed = plain[name]
            scope |= needed
        else:
            expression = f"v{len(stepped)}"
            stepped.append(expression)
        entries.append(f"{name!r}: {expression}")
    loop = f"for o, {', '.join(stepped)} in zip(objects, *values)" if stepped else "for o in objects"
    source = f"def encode(objects, values):\n    return [{{{', '.join(entries)}}} {loop}]\n"
    code = (_known_code if len(source) <= _KNOWN_CHARACTERS_MAX else _code)(source)
    exec(code, scope)  # noqa: S102 - see the module's docstring
    encoder: Encoder = scope["encode"]
    return encoder


def _code(source: str) -> CodeType:
    return compile(source, "<encoder>", "exec")


# Compiling takes 50 to 150 microseconds, and documents have many selections in common. Long ones they have not.
_KNOWN_CHARACTERS_MAX = 1_000
_known_code = lru_cache(maxsize=1_024)(_code)
