"""Every place of the schema that takes text, and a document that gives it one.

They are read from the schema, so that what is new there is attacked without anybody thinking of it.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInputType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    build_schema,
    get_named_type,
    get_nullable_type,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
)

from tests.document_values import Member, literal

SCHEMA = build_schema((Path(__file__).parents[2] / "schema.graphql").read_text(encoding="utf-8"))
TEXTS = {"String", "ID", "JSON", "DateTime"}
CONTEXT = "CONTEXT"
"""Stands for the id of a context that is there."""

Composite = GraphQLObjectType | GraphQLInterfaceType
Path_ = tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """An argument, or a part of one; `head` and `tail` are the document around its value."""

    operation: str
    argument: str
    path: Path_
    kind: GraphQLInputType
    head: str
    tail: str

    @property
    def coordinate(self) -> str:
        """Name it."""
        return ".".join((self.argument, *self.path))

    def body(self, text: str, context_id: str, *, by_variable: bool) -> dict[str, Any]:
        """Give a request with a text at this place; an empty one where no literal says it."""
        value = with_text(self.kind, self.path, text, context_id)
        head, tail = (part.replace(CONTEXT, context_id) for part in (self.head, self.tail))
        if by_variable:
            return {
                "query": f"{self.operation} ($value: {self.kind}) {head}$value{tail}",
                "variables": {"value": value},
            }
        written = literal(value, random.Random(0))
        return {"query": f"{self.operation} {head}{written}{tail}"} if written is not None else {}


def places() -> list[Place]:
    """Give each place of the schema once."""
    roots = {
        "query": SCHEMA.query_type,
        "mutation": SCHEMA.mutation_type,
        "subscription": SCHEMA.subscription_type,
    }
    found: dict[str, Place] = {}
    for operation, root in roots.items():
        waiting: list[tuple[Any, str, str]] = [(root, "{ ", " }")]
        seen: set[str] = set()
        while waiting:
            kind, head, tail = waiting.pop(0)
            if kind.name not in seen:
                seen.add(kind.name)
                for place in _of_fields(operation, kind, head, tail, waiting):
                    found.setdefault(place.coordinate, place)
    return list(found.values())


def _of_fields(operation: str, kind: Composite, head: str, tail: str, waiting: list[Any]) -> Iterator[Place]:
    for name, field in kind.fields.items():
        below = get_named_type(field.type)
        required = {key: _sensible(each.type) for key, each in field.args.items() if is_non_null_type(each.type)}
        for argument, each in field.args.items():
            others = "".join(f", {key}: {_written(value)}" for key, value in required.items() if key != argument)
            for path in _texts(each.type):
                yield Place(
                    operation,
                    f"{kind.name}.{name}.{argument}",
                    path,
                    each.type,
                    f"{head}{name}({argument}: ",
                    f"{others}) {_leaves(below)}{tail}",
                )
        if isinstance(below, Composite):
            given = ", ".join(f"{key}: {_written(value)}" for key, value in required.items())
            waiting.append((below, f"{head}{name}{f'({given})' if given else ''} {{ ", f" }}{tail}"))


def _texts(kind: GraphQLInputType, seen: Path_ = ()) -> Iterator[Path_]:
    """Give the ways inside an argument to all that takes text."""
    named = get_named_type(kind)
    if isinstance(named, GraphQLInputObjectType):
        for name, field in named.fields.items():
            if named.name not in seen:
                yield from ((name, *path) for path in _texts(field.type, (*seen, named.name)))
    elif named.name in TEXTS:
        yield ()


def with_text(kind: GraphQLInputType, path: Path_, text: str, context_id: str) -> Any:
    """Build a value with a text at a place inside it, and sensible values beside."""
    named = get_named_type(kind)
    if isinstance(named, GraphQLInputObjectType):
        value: Any = _sensible(named, context_id)
        value[path[0]] = with_text(named.fields[path[0]].type, path[1:], text, context_id)
    else:
        value = {text: [text]} if named.name == "JSON" else text
    return [value] if is_list_type(get_nullable_type(kind)) else value


def _sensible(kind: GraphQLInputType, context_id: str = CONTEXT) -> Any:
    named = get_named_type(kind)
    if isinstance(named, GraphQLInputObjectType):
        value: Any = {
            name: _sensible(field.type, context_id)
            for name, field in named.fields.items()
            if is_non_null_type(field.type)
        }
    elif isinstance(named, GraphQLEnumType):
        value = Member(next(iter(named.values)))
    else:
        value = {
            "ID": context_id,
            "Int": 1,
            "Boolean": False,
            "String": "x",
            "JSON": {},
            "DateTime": "2026-01-01T00:00:00Z",
        }[named.name]
    return [value] if is_list_type(get_nullable_type(kind)) else value


def _written(value: Any) -> str:
    written = literal(value, random.Random(0))
    assert written is not None
    return written


def _leaves(kind: Any) -> str:
    """Select what is plain of a type."""
    if not isinstance(kind, Composite):
        return ""
    plain = [name for name, field in kind.fields.items() if is_leaf_type(get_named_type(field.type)) and not field.args]
    return f"{{ {' '.join(plain or ['__typename'])} }}"


PLACES = places()
