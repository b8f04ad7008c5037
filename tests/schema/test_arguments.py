"""Arguments of plans are those that a resolver gets, or the plan leaves the request to the resolvers."""

import enum
import json
from datetime import datetime
from typing import Annotated, Any

import pytest
import strawberry
from graphql import (
    FieldNode,
    GraphQLError,
    GraphQLField,
    OperationDefinitionNode,
    OperationType,
    execute_sync,
    parse,
    validate,
)
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from strawberry.scalars import JSON
from strawberry.schema.config import StrawberryConfig

from schema.arguments import Variables, bind_arguments, strawberry_field
from schema.collect import Unplanned
from schema.scalar import DateTime, Json


@strawberry.enum
class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@strawberry.input
class Part:
    name: str
    class_: int | None = strawberry.field(name="class", default=None)
    colour: Colour = Colour.RED
    time: datetime | None = strawberry.UNSET
    parts: list["Part"] | None = None
    value: JSON | None = None


@strawberry.input(one_of=True)
class Choice:
    id: strawberry.ID | None = strawberry.UNSET
    number: int | None = strawberry.UNSET


SEEN: list[str] = []


def see(given: dict[str, Any]) -> bool:
    """Note what a resolver was called with, types and all."""
    SEEN.append(repr(given))
    return True


@strawberry.type
class Query:
    @strawberry.field
    def optional(  # noqa: PLR0917 - GraphQL gives arguments by name
        self,
        number: int | None = 7,
        id: strawberry.ID | None = strawberry.UNSET,  # noqa: A002 - the usual name of an argument
        text_of: str = "x",
        from_: Annotated[int | None, strawberry.argument(name="from")] = None,
        flag: bool | None = None,
        ratio: float | None = strawberry.UNSET,
        colour: Colour | None = Colour.BLUE,
        colours: list[Colour] | None = None,
        numbers: list[list[int] | None] | None = None,
        time: datetime | None = None,
        value: JSON | None = None,
        part: Part | None = None,
        parts: list[Part | None] | None = None,
        choice: Choice | None = None,
    ) -> bool:
        return see(locals())

    @strawberry.field
    def required(
        self,
        number: int,
        ids: list[strawberry.ID],
        colour: Colour,
        part: Part,
        flag: bool = True,
    ) -> bool:
        return see(locals())


SCHEMA = strawberry.Schema(Query, config=StrawberryConfig(scalar_map={datetime: DateTime, JSON: Json}))
BUILT = SCHEMA._schema  # noqa: SLF001 - graphql-core's own schema


def definition_of(name: str) -> GraphQLField:
    definition = BUILT.get_field(BUILT.get_root_type(OperationType.QUERY), name)  # type: ignore[arg-type] # it has one
    assert definition is not None
    return definition


def resolved(text: str, variables: dict[str, Any]) -> str | None:
    """Give what the resolver is called with, None where it is not called."""
    SEEN.clear()
    execute_sync(BUILT, parse(text), root_value=None, variable_values=variables)
    return SEEN.pop() if SEEN else None


def planned(text: str, variables: dict[str, Any]) -> str | None:
    """Give what the resolver would be called with, None where the plan leaves that to it."""
    (operation,) = parse(text).definitions
    assert isinstance(operation, OperationDefinitionNode)
    (node,) = operation.selection_set.selections
    assert isinstance(node, FieldNode)
    definition = definition_of(node.name.value)
    try:
        arguments = bind_arguments(SCHEMA, definition, node)(Variables(SCHEMA, operation).read(variables))
    except (Unplanned, GraphQLError):
        return None
    SEEN.clear()
    strawberry_field(definition).base_resolver.wrapped_func(None, **arguments)
    return SEEN.pop()


NUMBERS = st.sampled_from([0, -1, 2**31 - 1, -(2**31)])
TEXTS = st.sampled_from(["", "x", "RED", "é", '"', "1", "true"])
MOMENTS = st.sampled_from(["2026-11-23T20:09:00Z", "2026-11-23T20:09:00.5+01:00"])
SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "Int": NUMBERS,
    "ID": TEXTS | NUMBERS,
    "String": TEXTS,
    "Boolean": st.booleans(),
    "Float": NUMBERS | st.sampled_from([0.5, 1e300, 2.0]),
    "Colour": st.sampled_from(["RED", "BLUE"]),
    "DateTime": MOMENTS,
    "JSON": st.recursive(
        st.none() | st.booleans() | NUMBERS | TEXTS, lambda inner: st.lists(inner, max_size=2), max_leaves=4
    ),
}
ODD: st.SearchStrategy[Any] = st.sampled_from([
    *(None, 2**31, 10**30, "GREEN", "now", "\ud800", "{}", True, 1.0, 0.5),
    *([], {}, [None], [[1]]),
])  # fmt: skip
FIELDS = {
    "Part": {"name": "String!", "class": "Int", "colour": "Colour!", "time": "DateTime", "parts": "[Part!]",
             "value": "JSON"},
    "Choice": {"id": "ID", "number": "Int"},
}  # fmt: skip


class Name(str):
    """A name that stands in a document without quotes."""

    __slots__ = ()


class Cases:
    """Draws documents of one field, with values for its variables."""

    def __init__(self, draw: st.DrawFn, *, nested: bool = True) -> None:
        self.draw = draw
        self.nested = nested
        self.variables: dict[str, str] = {}
        self.values: dict[str, Any] = {}

    def chance(self, one_in: int) -> bool:
        return self.draw(st.integers(1, one_in)) == one_in

    def value(self, kind: str, *, literal: bool, depth: int = 0) -> Any:
        """Draw a value of a type; one of a variable, which nothing has checked, is now and then of another."""
        if not literal and self.chance(12):
            return self.draw(ODD)
        if literal and depth and self.nested and self.chance(4):
            return Name(f"${self.variable(kind)}")
        if not kind.endswith("!") and self.chance(6):
            return None
        return self.right(kind.removesuffix("!"), literal=literal, depth=depth)

    def right(self, named: str, *, literal: bool, depth: int) -> Any:
        if named.startswith("["):
            return self.list_of(named[1:-1], literal=literal, depth=depth + 1)
        if named in FIELDS:
            return self.input(named, literal=literal, depth=depth + 1)
        if named == "JSON" and literal and self.nested and self.chance(2):
            kinds = self.draw(st.lists(st.sampled_from(["Int", "ID", "String!", "Boolean", "JSON"]), max_size=2))
            return {"list": [Name(f"${self.variable(kind)}") for kind in kinds], "one": Name(f"${self.variable('ID')}")}
        found = self.draw(SCALARS[named])
        return Name(found) if named == "Colour" and literal else found

    def list_of(self, kind: str, *, literal: bool, depth: int) -> Any:
        if self.chance(5) and not kind.startswith("["):
            return self.value(kind, literal=literal, depth=depth)  # a list of one
        return [self.value(kind, literal=literal, depth=depth) for _ in range(self.draw(st.integers(0, 2)))]

    def input(self, named: str, *, literal: bool, depth: int) -> dict[str, Any]:
        kinds = FIELDS[named]
        if named == "Choice":
            name = self.draw(st.sampled_from(sorted(kinds)))
            return {name: self.value(f"{kinds[name]}!", literal=literal, depth=depth)}
        chosen = [name for name in kinds if name == "name" or self.chance(2 + depth)]
        return {name: self.value(kinds[name], literal=literal, depth=depth) for name in chosen}

    def variable(self, kind: str) -> str:
        """Declare a variable for a position, and draw its value."""
        name = f"v{len(self.variables)}"
        declared, default = kind, ""
        if self.chance(4):
            declared = f"{kind.removesuffix('!')}!"
        elif self.chance(3):
            declared = kind.removesuffix("!")
            default = f" = {write(Cases(self.draw, nested=False).value(f'{declared}!', literal=True))}"
        self.variables[name] = f"${name}: {declared}{default}"
        if not self.chance(4):
            self.values[name] = self.value(declared, literal=False)
        return name

    def document(self) -> str:
        field = self.draw(st.sampled_from(["optional", "optional", "required"]))
        given = []
        for name, argument in definition_of(field).args.items():
            if field == "optional" and not self.chance(4):
                continue
            kind = str(argument.type)
            if self.chance(2):
                given.append(f"{name}: ${self.variable(kind)}")
            else:
                given.append(f"{name}: {write(self.value(kind, literal=True))}")
        arguments = f"({', '.join(given)})" if given else ""
        declared = f"query ({', '.join(self.variables.values())}) " if self.variables else ""
        return f"{declared}{{ {field}{arguments} }}"


def write(value: Any) -> str:
    """Write a literal."""
    match value:
        case Name():
            return str(value)
        case str():
            return (
                '"'
                + "".join(each if each.isalnum() and each.isascii() else f"\\u{ord(each):04x}" for each in value)
                + '"'
            )
        case list():
            return f"[{', '.join(map(write, value))}]"
        case dict():
            return f"{{{', '.join(f'{name}: {write(part)}' for name, part in value.items())}}}"
    return json.dumps(value)


@st.composite
def cases(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    drawn = Cases(draw)
    return drawn.document(), drawn.values


@settings(max_examples=300, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(cases())
def test_what_is_bound_is_what_a_resolver_is_called_with(case: tuple[str, dict[str, Any]]) -> None:
    text, variables = case
    assume(not validate(BUILT, parse(text)))
    expected = resolved(text, variables)
    event("called" if expected else "not called")
    assert planned(text, variables) == expected


KNOWN: dict[str, dict[str, Any]] = {
    "{ optional(number: null, flag: null, colour: null, part: null) }": {},
    "{ optional }": {},
    "query ($n: Int) { optional(number: $n, from: $n) }": {},
    "query ($n: Int = null) { optional(number: $n, from: $n) }": {},
    "query ($n: Int = 3) { optional(number: $n, from: $n) }": {"n": None},
    "query ($t: String) { optional(textOf: $t) }": {},
    "query ($c: Colour, $d: [Colour!]) { optional(colour: $c, colours: $d) }": {"c": "RED", "d": "BLUE"},
    "query ($p: Part) { optional(part: $p, parts: [$p, null]) }": {"p": {"name": "n", "parts": {"name": "m"}}},
    'query ($n: Int, $c: Colour!) { optional(part: {name: "n", class: $n, colour: $c}) }': {"c": "BLUE"},
    "query ($n: Int) { optional(value: {a: [$n, 1], b: $n, c: RED}) }": {},
    'query ($i: ID!) { required(number: 1, ids: [$i, 2], colour: RED, part: {name: ""}) }': {"i": 1},
    'query ($i: [ID!]!) { required(number: 1, ids: $i, colour: RED, part: {name: ""}) }': {"i": "one"},
    'query ($f: Float) { optional(ratio: $f, time: "2026-11-23T20:09:00+01:00") }': {"f": 1},
    "query ($n: Int!) { optional(choice: {number: $n}) }": {"n": 0},
}  # fmt: skip


@pytest.mark.parametrize("text", KNOWN)
def test_what_may_stand_in_a_document_is_bound_without_a_resolver(text: str) -> None:
    assert validate(BUILT, parse(text)) == []
    expected = resolved(text, KNOWN[text])
    assert expected is not None
    assert planned(text, KNOWN[text]) == expected


WRONG: dict[str, list[dict[str, Any]]] = {
    "query ($n: Int!) { optional(number: $n) }": [{}, {"n": None}, {"n": True}, {"n": 1.5}, {"n": "1"}, {"n": 2**31}],
    'query ($t: String = "x") { optional(textOf: $t) }': [{"t": None}, {"t": 1}, {"t": []}],
    "query ($i: ID) { optional(id: $i) }": [{"i": True}, {"i": 1.5}, {"i": ["x"]}],
    "query ($f: Boolean) { optional(flag: $f) }": [{"f": 1}, {"f": "true"}],
    "query ($p: Part) { optional(part: $p) }": [{"p": {}}, {"p": {"name": "n", "x": 1}}, {"p": {"name": None}}],
    "query ($c: Choice) { optional(choice: $c) }": [{"c": {}}, {"c": {"id": "1", "number": 1}}, {"c": {"id": None}}],
    "query ($t: DateTime) { optional(time: $t) }": [{"t": "now"}, {"t": 1}, {"t": "0001-01-01T00:00:00+14:00"}],
    "query ($n: Int) { optional(numbers: [[$n]], number: $n) }": [{"n": "x"}, {}],
}


@pytest.mark.parametrize(("text", "variables"), [(text, each) for text, given in WRONG.items() for each in given])
def test_what_a_resolver_is_not_called_with_is_left_to_it(text: str, variables: dict[str, Any]) -> None:
    assert resolved(text, variables) is None
    assert planned(text, variables) is None
