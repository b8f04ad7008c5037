"""Values for the arguments of random documents: sensible ones for the place where they stand, and mischievous ones.

An argument is known by its name. One that is not known here yet gets any value of its type.
"""

import dataclasses
import json
import random
import re
from dataclasses import dataclass
from typing import Any, Literal

from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInputType,
    get_named_type,
    get_nullable_type,
    is_list_type,
    is_non_null_type,
)

INT_MAX = 2**31 - 1
UNKNOWN_ID = "0198c0de-7d0e-7000-8000-000000000000"
NAME = re.compile("[_A-Za-z][_0-9A-Za-z]*")

SIZES = (0, 1, 1, 2, 2, 3, 5, 20)
BUDGETS = (1, 2, 5, 10, 20, 40, 80, 200, 1_000, 100_000, INT_MAX)
STEPS = (0, 1, 7, 16, 50, 1_000, INT_MAX)
DEEP: list[Any] = []
for _ in range(101):
    DEEP = [DEEP]

# What its type allows, and its field does not.
SENSELESS: dict[str, tuple[Any, ...]] = {
    "Int": (-1, -7, 1_001, 10_001, INT_MAX, -(2**31)),
    "Boolean": (True, False),
    "ID": ("", "x", 5, UNKNOWN_ID[1:], f"{{{UNKNOWN_ID}}}", f"{UNKNOWN_ID} ", f"{UNKNOWN_ID}\n", "é" * 36, "\0"),
    "String": ("", "x", "W10", "bnVsbA", "WyJtZXNzYWdlcyJd", "é", "a b", "\0"),
    "DateTime": ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2026-01-01T00:00:00-18:00"),
    "JSON": ([1], "x", 5, True, [], {"a": "\0"}, {"\0": 1}, {"a": DEEP}, {"a": 10**1_000}, {"a": 2**64}),
}
# What its type does not allow either.
FOREIGN: dict[str, tuple[Any, ...]] = {
    "Int": (INT_MAX + 1, 1.5, "3", True, [1], {"a": 1}),
    "Boolean": ("true", 1, "", [True]),
    "ID": (1.5, True, [], "\ud800"),
    "String": (5, True, ["x"], "\ud800"),
    "DateTime": ("yesterday", "2026-01-01", "2026-01-01T00:00:00", "10000-01-01T00:00:00Z", 5, "", "\ud800"),
    "JSON": ({"a": "\ud800"}, {"a": 10**4_000}),
}

Mischief = Literal["none", "senseless", "foreign"]


class Member(str):
    """The name of an enum's member, which a document writes without quotes."""

    __slots__ = ()


@dataclass(frozen=True)
class Pool:
    """What is there to be asked for. Connections are named as `connection` does."""

    contexts: tuple[str, ...]
    messages: tuple[str, ...]
    deleted: tuple[str, ...]
    """Contexts and messages."""
    relatives: dict[str, tuple[str, ...]]
    """Of each context those of its tree, deleted ones too."""
    latest: dict[str, int]
    """The latest version of each context."""
    cursors: dict[str, tuple[str, ...]]
    stands: dict[str, tuple[int, ...]]
    """The versions of a context whose snapshots have cursors here."""
    pairs: dict[str, tuple[str, ...]]
    """The contexts whose differences to one have cursors here."""
    moments: tuple[str, ...]
    names: tuple[str, ...]
    metadata: tuple[dict[str, Any], ...]


@dataclass(frozen=True)
class Place:
    """Where an argument stands: of which object as far as that is known, and what the field was given already."""

    name: str | None
    """As `below` names it: a context by its id, the query by an empty text, None for what is not known."""
    field: str
    given: dict[str, Any] = dataclasses.field(default_factory=dict)


def connection(place: Place) -> str | None:
    """Name the connection that a field gives there; None when it is not known."""
    if place.name is None:
        return None
    order = place.given.get("orderBy")
    order = order if isinstance(order, dict) else {}
    if place.field == "contexts":
        return f"contexts {order.get('field') or 'UPDATED_AT'} {order.get('direction') or 'DESC'}"
    return f"{place.name} {place.field}"


def below(place: Place) -> str | None:  # noqa: PLR0911 - one for each kind of field
    """Name the object that a field gives there; None when it is not known."""
    here, given = place.name, place.given
    if here is None:
        return None
    match place.field:
        case "context" | "node" if here == "":
            return str(given.get("id")).lower()
        case "at" if given.get("version") is not None:
            return f"{here} at {given['version']}"
        case "diff":
            return f"{here} diff {given.get('with')}"
        case "onlyHere" | "onlyThere":
            return f"{here} {place.field}"
        case "context" if " at " in here:
            return here.split()[0]
    return None


class Values:
    """Draws values. With mischief, one in some is wrong: it has no sense, or is not even of its type."""

    def __init__(self, pool: Pool, source: random.Random, mischief: Mischief) -> None:
        self.pool = pool
        self.random = source
        self.mischief = mischief

    def gives(self, name: str, kind: GraphQLInputType, place: Place) -> bool:
        """Say whether to give an argument or input field at all."""
        if place.field == "at":  # takes exactly one, a version more often, because that has cursors
            return self.wrong() if place.given else name == "version" or self.random.random() < 0.5
        if name in {"first", "last"} and {"first", "last"} & place.given.keys() and not self.wrong():
            return False
        if name in {"after", "before"}:
            return self.random.random() < 0.6 if self._cursors(place) else self.wrong()
        if is_non_null_type(kind):
            return not (self.mischief == "foreign" and self.random.random() < 0.02)
        return self.random.random() < (0.5 if name == "first" else 0.3)

    def wrong(self) -> bool:
        """Say whether to do something wrong here."""
        return self.mischief != "none" and self.random.random() < 0.12

    def value(self, name: str, kind: GraphQLInputType, place: Place) -> Any:
        """Draw a value of an argument or input field, or of something inside it."""
        named = get_named_type(kind)
        if self.wrong():
            return self._wrong(name, kind, place)
        if not is_non_null_type(kind) and place.field != "at" and self.random.random() < 0.05:
            return None
        if is_list_type(get_nullable_type(kind)):
            if self.random.random() < 0.1:  # the specification makes a list of it
                return self._single(name, get_named_type(kind), place)
            drawn = [self._single(name, named, place) for _ in range(self.random.choice((0, 1, 2, 3, 5)))]
            return drawn + drawn[:1] if self.random.random() < 0.2 else drawn
        return self._single(name, named, place)

    def _single(self, name: str, kind: Any, place: Place) -> Any:  # noqa: PLR0911 - one for each type
        if isinstance(kind, GraphQLEnumType):
            return Member(self.random.choice(list(kind.values)))
        if isinstance(kind, GraphQLInputObjectType):
            return {
                part: self.value(part, kind.fields[part].type, place)
                for part in self.random.sample(list(kind.fields), len(kind.fields))
                if is_non_null_type(kind.fields[part].type) or self.random.random() < 0.4
            }
        match kind.name:
            case "Int":
                return self._whole_number(name, place)
            case "ID":
                return self._id(name, place)
            case "String":
                return self._text(name, place)
            case "Boolean":
                return self.random.random() < 0.5
            case "DateTime":
                return self._moment()
            case "JSON":
                return self._object()
        raise LookupError(f"no values for {kind}")

    def _whole_number(self, name: str, place: Place) -> int:  # noqa: PLR0911 - one for each kind of argument
        draw = self.random
        match name:
            case "first" | "last":
                return draw.choice(SIZES)
            case "version":
                latest = self.pool.latest.get(place.name or "")
                if place.field != "at":  # none is refused
                    return draw.choice((draw.randint(-1, (latest or 4) + 1), INT_MAX, 1))
                stands = self.pool.stands.get(place.name or "", ())
                if stands and draw.random() < 0.8:
                    return draw.choice(stands)
                return draw.randint(0, 0 if latest is None else latest)
            case "budget":
                return draw.choice(BUDGETS) if draw.random() < 0.5 else draw.randint(1, 300)
            case "step":
                return draw.choice(STEPS)
        return draw.randint(0, 6)

    def _id(self, name: str, place: Place) -> str:
        draw, pool = self.random, self.pool
        if name == "with" and place.name and draw.random() < 0.85:
            pairs = pool.pairs.get(place.name, ())
            near = pairs if pairs and draw.random() < 0.7 else pool.relatives.get(place.name, pool.contexts)
            return draw.choice(near)
        among = draw.choices(
            (pool.contexts, pool.messages, pool.deleted, (UNKNOWN_ID,)),
            (12, 12, 2, 1) if place.field in {"node", "nodes"} else (30, 1, 2, 1),
        )[0]
        chosen = str(draw.choice(among))
        return chosen.upper() if draw.random() < 0.05 else chosen

    def _text(self, name: str, place: Place) -> str:
        if name in {"after", "before"} and (cursors := self._cursors(place)):
            return self.random.choice(cursors)
        text = self.random.choice(self.pool.names)
        start = self.random.randrange(len(text) + 1)
        return text[start : start + self.random.choice((1, 1, 2, 255))]

    def _cursors(self, place: Place) -> tuple[str, ...]:
        name = connection(place)
        return self.pool.cursors.get(name, ()) if name else ()

    def _moment(self) -> str:
        moment = self.random.choice(self.pool.moments)
        return moment.replace("Z", "+00:00") if self.random.random() < 0.2 else moment

    def _object(self) -> dict[str, Any]:
        whole = self.random.choice(self.pool.metadata)
        return dict(self.random.sample(list(whole.items()), self.random.randint(0, min(2, len(whole)))))

    def _wrong(self, name: str, kind: GraphQLInputType, place: Place) -> Any:
        named, draw = get_named_type(kind), self.random
        if name in {"after", "before"} and draw.random() < 0.7:
            cursor = draw.choice(draw.choice(list(self.pool.cursors.values())))
            return cursor if draw.random() < 0.6 else cursor[:-1] + draw.choice("AQgw")
        if self.mischief == "senseless":
            values = SENSELESS.get(named.name)
            return draw.choice(values) if values else self._single(name, named, place)
        if draw.random() < 0.1:
            return None
        if isinstance(named, GraphQLEnumType):
            return draw.choice((Member("NOBODY"), "USER", "NOBODY", 1, [Member("USER"), None]))
        if isinstance(named, GraphQLInputObjectType):
            return draw.choice(({"nothing": 1}, [], "x", {"field": None, "direction": None}))
        return draw.choice(FOREIGN[named.name])


def literal(value: Any, source: random.Random) -> str | None:  # noqa: PLR0911 - one for each kind of value
    """Write a value as it stands in a document; None when no literal says it."""
    match value:
        case Member():
            return str(value)
        case str():
            if '"' not in value and "\\" not in value and value.isprintable() and source.random() < 0.05:
                return f'"""{value}"""' if value == value.strip() else json.dumps(value)
            return json.dumps(value, ensure_ascii=not value.isprintable() or source.random() < 0.5)
        case list():
            parts = [literal(part, source) for part in value]
            return None if None in parts else f"[{', '.join(map(str, parts))}]"
        case dict():
            written = {key: literal(part, source) for key, part in value.items()}
            if None in written.values() or not all(NAME.fullmatch(key) for key in written):
                return None
            return f"{{{', '.join(f'{key}: {part}' for key, part in written.items())}}}"
    return json.dumps(value)
