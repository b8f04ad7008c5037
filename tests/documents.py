"""Random documents: what a caller might ask of a schema, whatever fields it has.

They are drawn from `random.Random(seed)` and a pool, which say all about them: a document that fails is made again from
its seed. Hypothesis would need some hundred draws for each and could not shrink them as well as a reducer that knows
selections (`tests/reducing.py`).
"""

import random
import re
from dataclasses import dataclass
from typing import Any

from graphql import (
    GraphQLBoolean,
    GraphQLField,
    GraphQLInputType,
    GraphQLInterfaceType,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLSchema,
    get_named_type,
    get_nullable_type,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
    is_required_argument,
)

from tests.document_values import NAME, Mischief, Place, Pool, Values, below, literal

DEPTH_MAX = 9
FIELDS_MAX = 60
# So many objects of one selection are read at most, as far as lists can be foreseen.
FAN_MAX = 60
PAGE = 8  # of the usual list, when nothing says how many

VARIABLE = re.compile(r"\$(v\d+)")
SPREAD = re.compile(r"\.\.\.(F\d+)")


@dataclass(frozen=True)
class Document:
    """A request, without what makes it one of HTTP."""

    text: str
    variables: dict[str, Any]
    operation_name: str | None

    def body(self) -> dict[str, Any]:
        """Give the body to send."""
        body: dict[str, Any] = {"query": self.text}
        if self.variables:
            body["variables"] = self.variables
        if self.operation_name is not None:
            body["operationName"] = self.operation_name
        return body


@dataclass(frozen=True)
class Variable:
    """A variable: how it is declared, and what is sent for it unless nothing is."""

    declared: str
    sent: bool
    value: Any


@dataclass(frozen=True)
class Fragment:
    """A named fragment that may be spread again: where it does not multiply more than where it was written."""

    name: str
    kind: str
    fan: int


@dataclass(frozen=True)
class Spot:
    """Where a selection set stands: how deep, read for how many objects, and which one if that is known."""

    depth: int
    fan: int
    place: str | None


Composite = GraphQLObjectType | GraphQLInterfaceType


def draw(schema: GraphQLSchema, pool: Pool, seed: int) -> Document:
    """Make the document of a seed. Three in four are meant to have no errors."""
    source = random.Random(seed)
    mischief: list[Mischief] = ["none", "senseless", "foreign"]
    return Writer(schema, pool, source, source.choices(mischief, (70, 20, 10))[0]).document()


class Writer:
    """Writes one document.

    A response name stands for one field with one text of arguments in the whole document, so that whatever is merged
    agrees.
    """

    def __init__(self, schema: GraphQLSchema, pool: Pool, source: random.Random, mischief: Mischief) -> None:
        self.schema = schema
        self.random = source
        self.values = Values(pool, source, mischief)
        self.variables: dict[str, Variable] = {}
        self.fragments: list[Fragment] = []
        self.definitions: dict[str, str] = {}
        self.names: dict[str, tuple[str, str]] = {}
        self.asked: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        self.left = source.choice((6, 15, 30, FIELDS_MAX))
        self.condition = GraphQLNonNull(GraphQLBoolean)

    def chance(self, probability: float) -> bool:
        """Say yes so often."""
        return self.random.random() < probability

    def document(self) -> Document:
        """Write operations, the fragments they use, and the variables."""
        query = self.schema.query_type
        assert query is not None
        count = self.random.choice((1,) * 9 + (2, 3))
        bodies = [self.selections(query, Spot(0, 1, "")) for _ in range(count)]
        named = count > 1 or self.chance(0.3)
        operations = [self._operation(body, f"Op{index}" if named else "") for index, body in enumerate(bodies)]
        chosen = f"Op{self.random.randrange(count)}" if count > 1 or (named and self.chance(0.5)) else None
        foreign = self.values.mischief == "foreign"
        if foreign and self.chance(0.1):
            chosen = self.random.choice((None, "Nobody", "", "op0"))
        used = self._reach(bodies)
        parts = operations + [self.definitions[name] for name in self.definitions if name in used]
        self.random.shuffle(parts)
        text = self.random.choice(("\n", " ", "\n\n# more\n", "\r\n,")).join(parts)
        if foreign and self.chance(0.2):
            text = self._spoil(text)
        sent = {name: variable.value for name, variable in self.variables.items() if variable.sent}
        if self.chance(0.05):
            sent["unused"] = {"a": [1, None]}
        if foreign and sent and self.chance(0.1):
            sent.pop(self.random.choice(list(sent)))
        return Document(text, sent, chosen)

    def _operation(self, body: str, name: str) -> str:
        used = {each for part in self._reach([body]).values() for each in VARIABLE.findall(part)}
        declared = [self.variables[each].declared for each in self.variables if each in used]
        if not declared and not name and self.chance(0.5):
            return body
        variables = f"({', '.join(declared)})" if declared else ""
        return f"query {name}{variables} {body}"

    def _reach(self, bodies: list[str]) -> dict[str, str]:
        """Give the bodies and all fragments that they spread, whatever the way."""
        reached = {f"body {index}": body for index, body in enumerate(bodies)}
        waiting = list(bodies)
        while waiting:
            for name in SPREAD.findall(waiting.pop()):
                if name not in reached:
                    reached[name] = self.definitions[name]
                    waiting.append(self.definitions[name])
        return reached

    def _spoil(self, text: str) -> str:
        """Make a document that is refused before anything is read."""
        places = [place.start() for place in re.finditer(r"[{}()$:]| id\b| name\b", text)]
        at = self.random.choice(places)
        return text[:at] + self.random.choice(("", "nothing ", "{", "$", "(first: 1)", "…")) + text[at + 1 :]

    def selections(self, kind: Composite, spot: Spot) -> str:
        """Write a selection set."""
        parts = self._fields(kind, spot)
        if kind.name == "Query" and self.chance(0.01):
            parts.append("__schema { queryType { name fields { name } } }")
        if self.chance(0.1) or not parts:
            parts.append(self.random.choice(("__typename", f"{kind.name.lower()}Type: __typename")))
        if isinstance(kind, GraphQLInterfaceType):
            parts += [
                self._fragment(possible, self._fields(possible, spot), spot)
                for possible in self.schema.get_possible_types(kind)
                if self.chance(0.8)
            ]
        for interface in kind.interfaces:
            if self.chance(0.06):
                parts.append(self._fragment(interface, self._fields(interface, spot), spot))
        self.random.shuffle(parts)
        parts = self._grouped(kind, parts, spot) + self._spreads(kind, spot)
        separator = self.random.choice((" ", " ", " ", "\n  ", ", "))
        return f"{{ {separator.join(parts)} }}"

    def _grouped(self, kind: Composite, parts: list[str], spot: Spot) -> list[str]:
        """Move some of the parts into fragments."""
        if not self.chance(0.25):
            return parts
        start = self.random.randrange(len(parts))
        end = self.random.randint(start + 1, len(parts))
        grouped = parts[start:end]
        if self.chance(0.3):
            fragment = f"...{self._directives()} {{ {' '.join(grouped)} }}"
        else:
            fragment = self._fragment(kind, grouped, spot)
        return [*parts[:start], fragment, *parts[end:]]

    def _fragment(self, kind: Composite, parts: list[str], spot: Spot) -> str:
        """Write a fragment in its place, or a named one; `kind` is what its parts are asked of."""
        body = f"{{ {' '.join(parts or ['__typename'])} }}"
        form = self.random.random()
        if form < 0.3:
            name = f"F{len(self.definitions)}"
            self.definitions[name] = f"fragment {name} on {kind.name} {body}"
            if not re.search(r"\b(after|before|at|version)\b", body):  # these mean something in one place only
                self.fragments.append(Fragment(name, kind.name, spot.fan))
            return f"...{name}{self._directives()}"
        inline = f"... on {kind.name}{self._directives()} {body}"
        if form < 0.5 and kind.interfaces:
            return f"... on {kind.interfaces[0].name} {{ {inline} {self._named('id', '')} }}"
        return inline

    def _spreads(self, kind: Composite, spot: Spot) -> list[str]:
        kinds = {kind.name} | {interface.name for interface in kind.interfaces}
        if isinstance(kind, GraphQLInterfaceType):
            kinds |= {possible.name for possible in self.schema.get_possible_types(kind)}
        known = [each for each in self.fragments if each.kind in kinds and spot.fan <= max(each.fan, 4)]
        if not known or not self.chance(0.2):
            return []
        return [f"...{self.random.choice(known).name}{self._directives()}"]

    def _fields(self, kind: Composite, spot: Spot) -> list[str]:
        """Write some of the fields of a type, at least one where one can be."""
        leaves = [name for name, field in kind.fields.items() if is_leaf_type(get_named_type(field.type))]
        others = [name for name in kind.fields if name not in leaves]
        chosen = [name for name in leaves if self.chance(0.3)]
        if self.left > 0 and spot.depth < DEPTH_MAX:
            wanted = self.random.choice((1, 1, 2, 3)) if spot.depth < 4 else self.random.choice((0, 1, 1, 2))
            chosen += self.random.sample(others, min(len(others), wanted))
            # Few connections have cursors that are known here: they are asked more often.
            paged = [name for name in others if f"{spot.place} {name}" in self.values.pool.cursors]
            chosen += [name for name in paged if name not in chosen and self.chance(0.5)]
        elif not leaves and spot.depth < DEPTH_MAX + 4:
            chosen += self.random.sample(others, 1)
        if not chosen and leaves:
            chosen = [self.random.choice(leaves)]
        self.random.shuffle(chosen)
        written: list[str] = []
        for name in chosen:
            again = 2 if self.chance(0.08) else 1
            written += [part for _ in range(again) for part in self._field(kind, name, kind.fields[name], spot)]
        return written

    def _field(self, parent: Composite, name: str, field: GraphQLField, spot: Spot) -> list[str]:
        """Write a field, now and then twice to be merged; nothing where it would read too much."""
        self.left -= 1
        given, text = self._arguments(f"{parent.name}.{name}", name, field, spot)
        head = f"{self._named(name, text)}{text}"
        kind = get_named_type(field.type)
        if is_leaf_type(kind):
            leaf = f"{head}{self._directives()}"
            return [leaf, head] if self.chance(0.03) else [leaf]
        fan = spot.fan * self._factor(name, field, given)
        if fan > FAN_MAX and spot.depth > 0:
            return []
        inside = Spot(spot.depth + 1, fan, below(Place(spot.place, name, given)))
        assert isinstance(kind, GraphQLObjectType | GraphQLInterfaceType)
        return [
            f"{head}{self._directives()} {self.selections(kind, inside)}" for _ in range(2 if self.chance(0.08) else 1)
        ]

    @staticmethod
    def _factor(name: str, field: GraphQLField, given: dict[str, Any]) -> int:
        """Estimate how many objects a field gives for each that it is asked of; a connection's count at its head."""
        for size in (given.get("first"), given.get("last"), given.get("ids")):
            if isinstance(size, list):
                return max(1, len(size))
            if isinstance(size, int):
                return max(1, min(size, PAGE * 2))
        is_list = is_list_type(get_nullable_type(field.type))
        inside = name in {"edges", "nodes"} and not field.args
        return PAGE if ("first" in field.args or is_list) and not inside else 1

    def _named(self, name: str, arguments: str) -> str:
        """Give what stands before the arguments, such that its response name is no other field's."""
        candidates = [name]
        if self.chance(0.12):
            candidates.insert(0, self.random.choice(("a", "b", "name", "id", "_1", "value", f"{name}Again")))
        for response in candidates:
            if self.names.setdefault(response, (name, arguments)) == (name, arguments):
                return name if response == name else f"{response}: {name}"
        for number in range(2, 10_000):
            response = f"{name}{number}"
            if self.names.setdefault(response, (name, arguments)) == (name, arguments):
                return f"{response}: {name}"
        raise AssertionError(name)

    def _arguments(self, coordinate: str, name: str, field: GraphQLField, spot: Spot) -> tuple[dict[str, Any], str]:
        """Draw arguments, or take those of an earlier selection, so that the two are merged where they meet."""
        if not field.args:
            return {}, ""
        earlier = [
            (given, text)
            for text, given in self.asked.get(coordinate, ())
            if not {"after", "before", "version"} & given.keys()
        ]
        if earlier and self.chance(0.25):
            return self.random.choice(earlier)
        place = Place(spot.place, name)
        # Cursors last, for they belong to what the others choose.
        names = sorted(field.args, key=lambda each: (each in {"after", "before"}, self.random.random()))
        written: list[str] = []
        for each in names:
            kind = field.args[each].type
            if not self.values.gives(each, kind, place):
                continue
            value = self.values.value(each, kind, place)
            place.given[each] = value
            written.append(
                f"{each}: {self._value(kind, value, has_default=not is_required_argument(field.args[each]))}"
            )
        self.random.shuffle(written)
        text = f"({', '.join(written)})" if written else ""
        self.asked.setdefault(coordinate, []).append((text, place.given))
        return place.given, text

    def _value(self, kind: GraphQLInputType, value: Any, *, has_default: bool) -> str:
        """Write a value as a literal or as a variable; what no literal says is a variable."""
        written = None if self.chance(0.4) else self._literal(kind, value)
        return written if written is not None else self._variable(kind, value, nullable=has_default)

    def _literal(self, kind: GraphQLInputType, value: Any) -> str | None:
        """Write a literal, whose parts may be variables where it is a list or an object."""
        nullable = get_nullable_type(kind)
        if isinstance(value, list) and is_list_type(nullable) and self.chance(0.5):
            return f"[{', '.join(self._value(nullable.of_type, part, has_default=False) for part in value)}]"
        if isinstance(value, dict) and self.chance(0.7):
            fields: dict[str, Any] | None = getattr(nullable, "fields", None)
            kinds: dict[str, Any] = {
                name: nullable if fields is None else fields[name].type
                for name in value
                if fields is None or name in fields
            }
            if kinds.keys() == value.keys() and all(map(NAME.fullmatch, value)):
                parts = [f"{name}: {self._value(kinds[name], part, has_default=True)}" for name, part in value.items()]
                return f"{{{', '.join(parts)}}}"
        return literal(value, self.random)

    def _variable(self, kind: GraphQLInputType, value: Any, *, nullable: bool) -> str:
        """Declare a variable of a value: sent, or by default, or null in one of its ways."""
        name = f"v{len(self.variables)}"
        type_text = str(kind)
        default = literal(value, self.random)
        form = self.random.random()
        if value is None and not is_non_null_type(kind):
            sent = form < 0.5
            self.variables[name] = Variable(f"${name}: {type_text}{' = null' if form > 0.8 else ''}", sent, None)
        elif form < 0.2 and default is not None:
            # Only a default is given; then a nullable variable may stand where null may not.
            plain = type_text.rstrip("!") if self.chance(0.5) else type_text
            self.variables[name] = Variable(f"${name}: {plain} = {default}", sent=False, value=None)
        elif form < 0.35 and default is not None:
            self.variables[name] = Variable(f"${name}: {type_text} = {default}", sent=True, value=value)
        else:
            strict = "" if is_non_null_type(kind) or value is None or not nullable or self.chance(0.6) else "!"
            self.variables[name] = Variable(f"${name}: {type_text}{strict}", sent=True, value=self._other_form(value))
        return f"${name}"

    def _other_form(self, value: Any) -> Any:
        """Say a whole number as JSON may also say it."""
        return float(value) if type(value) is int and abs(value) < 2**31 and self.chance(0.1) else value

    def _directives(self) -> str:
        if not self.chance(0.06):
            return ""
        names = self.random.choice((["include"], ["skip"], ["include", "skip"], ["skip", "include"]))
        written = ""
        for name in names:
            passes = (name == "include") != self.chance(0.25)
            written += f" @{name}(if: {self._value(self.condition, passes, has_default=False)})"
        return written
