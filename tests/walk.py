"""A walk through the whole schema: a document for every field, and for every place that takes an argument.

All of it is found by introspection. A *slot* is one place that a caller fills: an argument, or a field of an input at
any depth. What is not known here is not passed over: a slot without a kind, and a required one without a value, end the
walk with a KeyError.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from graphql import (
    GraphQLArgument,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    get_named_type,
    get_nullable_type,
    is_leaf_type,
    is_list_type,
    is_required_argument,
    is_required_input_field,
)

Json = dict[str, Any]
Composite = GraphQLObjectType | GraphQLInterfaceType

# So many levels are selected below the field that is walked, unless fewer are wanted.
DEPTH = 2


class Kind(Enum):
    """What may be sent at a place that leads to rows."""

    ID = "an id"
    CURSOR = "a cursor"
    VERSION = "a version"
    KEY = "an idempotency key"
    CALL = "the id of a tool call"
    NAME = "a part of a name"
    METADATA = "a part of metadata"


LEADING = {
    "after": Kind.CURSOR,
    "before": Kind.CURSOR,
    "version": Kind.VERSION,
    "afterVersion": Kind.VERSION,
    "expectedVersion": Kind.VERSION,
    "idempotencyKey": Kind.KEY,
    "toolCallId": Kind.CALL,
    "toolCalls.id": Kind.CALL,
    "nameContains": Kind.NAME,
    "metadataContains": Kind.METADATA,
}

# What leads to no row, and why.
_SIZE = "It says how much is given, of what another argument chose."
_STORED = "It is stored, and nothing is found by it."
_CHOICE = "It chooses among the tenant's own."
HARMLESS = {
    **dict.fromkeys(("first", "last", "maxDepth", "budget", "step", "keepSystem", "tokenCount"), _SIZE),
    **dict.fromkeys(
        ("name", "metadata", "content", "role", "toolName", "model", "toolCalls.name", "toolCalls.arguments"), _STORED
    ),
    **dict.fromkeys(
        ("roles", "time", "updatedSince", "rootsOnly", "includeDeleted", "field", "direction", "onConflict"), _CHOICE
    ),
    **dict.fromkeys(("scopes", "expiresAt"), "It is what a new API key may do."),
}


@dataclass(frozen=True)
class Slot:
    """A place for a value: `path` goes from an argument of a field through inputs; `[]` is the first item of a list."""

    parent: str
    field: str
    path: tuple[str, ...]
    kind: Kind

    def __str__(self) -> str:
        """Give its coordinate."""
        return f"{self.parent}.{self.field}({'.'.join(self.path)})"


def slots(schema: GraphQLSchema) -> list[Slot]:
    """Give every place that takes what may lead to rows.

    Raises: KeyError for a place whose kind nobody has decided.
    """
    found = []
    for parent in objects(schema):
        for name, field in parent.fields.items():
            for path, kind in _paths(field.args):
                leads = _leads(path, kind)
                if leads is not None:
                    found.append(Slot(parent.name, name, path, leads))
    return found


def without_slots(schema: GraphQLSchema) -> list[tuple[str, str]]:
    """Give the fields of the roots that have no such place, by type and name."""
    with_some = {(slot.parent, slot.field) for slot in slots(schema)}
    roots = [kind for kind in (schema.query_type, schema.mutation_type, schema.subscription_type) if kind]
    return [(kind.name, name) for kind in roots for name in kind.fields if (kind.name, name) not in with_some]


def unknown(schema: GraphQLSchema) -> set[str]:
    """Give what is said here of places that no schema has any more."""
    fields = [field for parent in objects(schema) for field in parent.fields.values()]
    return {*LEADING, *HARMLESS} - {_name(path) for field in fields for path, _ in _paths(field.args)}


def _name(path: tuple[str, ...]) -> str:
    names = [each for each in path if each != "[]"]
    return ".".join(names[-2:]) if "toolCalls" in names[-2:-1] else names[-1]


def _leads(path: tuple[str, ...], kind: Any) -> Kind | None:
    if get_named_type(kind).name == "ID":
        return Kind.ID
    name = _name(path)
    return None if name in HARMLESS else LEADING[name]


def _paths(given: dict[str, GraphQLArgument] | dict[str, GraphQLInputField]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Give the leaves of arguments."""
    for name, each in given.items():
        item = ("[]",) if is_list_type(get_nullable_type(each.type)) else ()
        kind = get_named_type(each.type)
        if isinstance(kind, GraphQLInputObjectType):
            for path, leaf in _paths(kind.fields):
                yield (name, *item, *path), leaf
        else:
            yield (name, *item), each.type


def objects(schema: GraphQLSchema) -> list[GraphQLObjectType]:
    """Give the types that have fields, without those of introspection."""
    return [
        kind
        for name, kind in schema.type_map.items()
        if isinstance(kind, GraphQLObjectType) and not name.startswith("__")
    ]


class Walk:
    """Writes documents. `values` are arguments that lead to what the caller has, by coordinate or by name."""

    def __init__(self, schema: GraphQLSchema, values: Json) -> None:
        self.schema = schema
        self.values = values
        self.depth = DEPTH
        # The coordinates of fields that stood in any document.
        self.visited: set[str] = set()
        self._ways = self._find_ways()

    def _find_ways(self) -> dict[str, tuple[tuple[str, str], ...]]:
        """Find the shortest way from a root to each type, as pairs of a type and its field."""
        ways: dict[str, tuple[tuple[str, str], ...]] = {}
        roots = [self.schema.query_type, self.schema.mutation_type, self.schema.subscription_type]
        waiting = deque([root for root in roots if root is not None])
        ways.update({root.name: () for root in waiting})
        while waiting:
            parent = waiting.popleft()
            for name, field in parent.fields.items():
                kind = get_named_type(field.type)
                if isinstance(kind, GraphQLObjectType) and kind.name not in ways:
                    ways[kind.name] = (*ways[parent.name], (parent.name, name))
                    waiting.append(kind)
        return ways

    def document(self, parent: str, name: str, given: Json) -> tuple[str, Json]:
        """Write a document that asks one field, with arguments beside or in place of the usual ones; and variables."""
        kind = self._type(parent)
        field = kind.fields[name]
        arguments = self._arguments(parent, field, name) | given
        variables = ", ".join(f"${each}: {field.args[each].type}" for each in arguments)
        passed = ", ".join(f"{each}: ${each}" for each in arguments)
        text = f"{name}{f'({passed})' if passed else ''}{self._selected(field, self.depth)}"
        self.visited.add(f"{parent}.{name}")
        way = self._ways[parent]
        for above, step in reversed(way):
            text = f"{self._asked(above, step)} {{ {text} }}"
        root = way[0][0] if way else parent
        return f"{root.lower()}{f'({variables})' if variables else ''} {{ {text} }}", arguments

    def _type(self, name: str) -> GraphQLObjectType:
        kind = self.schema.type_map[name]
        assert isinstance(kind, GraphQLObjectType)
        return kind

    def _asked(self, parent: str, name: str) -> str:
        """Write a field with its usual arguments."""
        self.visited.add(f"{parent}.{name}")
        kind = self.schema.type_map[parent]
        assert isinstance(kind, GraphQLObjectType | GraphQLInterfaceType)
        given = self._arguments(parent, kind.fields[name], name)
        return f"{name}({', '.join(f'{each}: {literal(value)}' for each, value in given.items())})" if given else name

    def _selected(self, field: GraphQLField, depth: int) -> str:
        kind = get_named_type(field.type)
        if is_leaf_type(kind):
            return ""
        assert isinstance(kind, GraphQLObjectType | GraphQLInterfaceType)
        return f" {self.everything(kind, depth)}"

    def everything(self, kind: Composite, depth: int) -> str:
        """Select all fields of a type, to a depth."""
        parts = ["__typename"]
        if isinstance(kind, GraphQLInterfaceType):
            parts += [
                f"... on {each.name} {self.everything(each, depth)}" for each in self.schema.get_possible_types(kind)
            ]
        else:
            for name, field in kind.fields.items():
                if is_leaf_type(get_named_type(field.type)):
                    parts.append(self._asked(kind.name, name))
                elif depth > 0:
                    parts.append(f"{self._asked(kind.name, name)}{self._selected(field, depth - 1)}")
        return f"{{ {' '.join(parts)} }}"

    def _arguments(self, parent: str, field: GraphQLField, name: str) -> Json:
        """Give the arguments that a field needs."""
        coordinate = f"{parent}.{name}"
        return {
            each: self._value(f"{coordinate}({each})", argument)
            for each, argument in field.args.items()
            if is_required_argument(argument) or f"{coordinate}({each})" in self.values
        }

    def _value(self, coordinate: str, place: GraphQLArgument | GraphQLInputField) -> Any:
        if coordinate in self.values:
            return self.values[coordinate]
        kind = get_named_type(place.type)
        if isinstance(kind, GraphQLInputObjectType):
            value: Any = self.input(kind)
        else:
            value = self.values[coordinate.rpartition("(")[2].rstrip(")").rpartition(".")[2]]
        return [value] if is_list_type(get_nullable_type(place.type)) else value

    def input(self, kind: GraphQLInputObjectType, *, whole: bool = False) -> Json:
        """Fill an input: what it needs, or `whole` all that has a usual value."""
        return {
            name: self._value(f"{kind.name}.{name}", field)
            for name, field in kind.fields.items()
            if is_required_input_field(field) or f"{kind.name}.{name}" in self.values or (whole and name in self.values)
        }

    def filled(self, slot: Slot, value: Any, *, whole: bool = False) -> Json:
        """Give the arguments of a slot's field with a value in the slot."""
        field = self._type(slot.parent).fields[slot.field]
        first, *rest = slot.path
        argument = field.args[first]
        if len(slot.path) == 1:
            return {first: value}
        return {first: self._with(argument.type, rest, value, whole=whole)}

    def _with(self, kind: Any, path: list[str], value: Any, *, whole: bool) -> Any:
        if not path:
            return value
        first, *rest = path
        if first == "[]":
            return [self._with(kind, rest, value, whole=whole)]
        named = get_named_type(kind)
        assert isinstance(named, GraphQLInputObjectType)
        given = self.input(named, whole=whole)
        return given | {first: self._with(named.fields[first].type, rest, value, whole=whole)}


def literal(value: Any) -> str:
    """Write a value as GraphQL; names of enums are given as Enum."""
    match value:
        case Enum():
            return value.name
        case bool() | None:
            return {True: "true", False: "false", None: "null"}[value]
        case str():
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case list():
            return f"[{', '.join(literal(each) for each in value)}]"
        case dict():
            return f"{{{', '.join(f'{name}: {literal(each)}' for name, each in value.items())}}}"
    return str(value)
