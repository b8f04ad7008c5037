"""What an operation costs at most, in rows and bytes, from its document and arguments alone: before it is executed.

An operation is measured once for each choice of `@include` and `@skip`: what is left is merged, field by field, into
places. A place is where objects stand in the response, as many for each one above it as a list is long. Of a request
only the lengths that are in its variables are read then, a microsecond or two.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    IntValueNode,
    ListValueNode,
    NullValueNode,
    ObjectValueNode,
    OperationDefinitionNode,
    ValueNode,
    VariableNode,
    get_named_type,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
    value_from_ast_untyped,
)

from schema.collect import Collected, Collector, conditions_of, fragments_of
from schema.request import TREE_NODES_MAX, WINDOWS_MAX
from schema.tree import NODES_MAX
from schema.weight import (
    INTROSPECTION_LEAF,
    INTROSPECTION_LISTS,
    LEAVES,
    OBJECT,
    OF_HOLDER,
    PAID_BY_PAGE,
    QUOTED,
    ROW_TYPES,
    ROWS,
    SHORT,
    SIZED,
    TEXT,
    UNKNOWN,
    WORD,
    Sized,
)

# What every reader of JSON takes for a whole number; more is not told.
COST_MAX = 2**53 - 1
_KIB = 1024
# Choices of conditions that are kept for one operation.
_CHOICES_MAX = 64


@dataclass(frozen=True, slots=True)
class Cost:
    """An estimate: rows that are read or written at most, and the usual bytes of the answer and of what is written.

    `usual_rows` are fewer than `rows` where a list is hardly ever as long as it may be.
    """

    rows: int
    bytes: int
    usual_rows: int | None = None

    @property
    def points(self) -> int:
        """One number of both, never 0: usual rows, or KiB where these are more."""
        return max(1, self.rows if self.usual_rows is None else self.usual_rows, -(-self.bytes // _KIB))

    def shown(self) -> dict[str, int]:
        """Give it as callers are told it."""
        return {"rows": self.rows, "bytes": self.bytes, "points": self.points}


def lengths(
    *, page_size_max: int, fork_depth_max: int, window_messages_max: int, append_messages_max: int
) -> dict[str, int]:
    """Give how long lists may be, by the names in `schema.weight`."""
    return {
        "page_size_max": page_size_max,
        "tree_nodes_max": NODES_MAX,
        "tree_nodes_of_all": TREE_NODES_MAX,
        "fork_depth_max": fork_depth_max,
        "window_messages_max": window_messages_max,
        "window_messages_of_all": WINDOWS_MAX * window_messages_max,
        "append_messages_max": append_messages_max,
    }


Length = Callable[[Mapping[str, Any]], int]


@dataclass(slots=True)
class _Place:
    """Where objects stand: how many for each above, at most how many of all, and what each takes."""

    above: int
    length: int | Length
    of_all: int | None = None
    rows: int = 0
    bytes: int = 0
    share: int = 1


class Costs:
    """The costs of one operation of a valid document, for whatever variables come with it."""

    def __init__(
        self,
        schema: GraphQLSchema,
        document: DocumentNode,
        operation: OperationDefinitionNode,
        most: Mapping[str, int],
    ) -> None:
        self._schema = schema
        self._operation = operation
        self._fragments = fragments_of(document)
        self._most = most
        self._conditions = conditions_of(operation, self._fragments)
        self._defaults = {
            definition.variable.name.value: value_from_ast_untyped(definition.default_value)
            for definition in operation.variable_definitions or ()
            if definition.default_value is not None
        }
        self._choices: dict[tuple[bool | None, ...], Cost | _Lines] = {}

    def of(self, given: Mapping[str, Any]) -> Cost:
        """Estimate for the variables of a request, which need not be valid: those that are not are refused later."""
        variables = {**self._defaults, **given} if self._defaults else given
        choice: tuple[bool | None, ...] = ()
        if self._conditions:
            values = [variables.get(name) for name in self._conditions]
            choice = tuple([value if value is True or value is False else None for value in values])
        measured = self._choices.get(choice)
        if measured is None:
            if len(self._choices) >= _CHOICES_MAX:
                self._choices.clear()
            measured = self._choices[choice] = self._measure(choice)
        return measured if isinstance(measured, Cost) else measured.cost(variables)

    def _measure(self, choice: tuple[bool | None, ...]) -> "Cost | _Lines":
        conditions = dict(zip(self._conditions, choice, strict=True))
        collector = Collector(self._schema, self._fragments, conditions, otherwise=True)
        root = self._schema.get_root_type(self._operation.operation)
        measuring = _Measuring(self._schema, collector, self._most)
        if root is not None:
            measuring.add(root, [self._operation.selection_set], 0, None)
        lines = _Lines(measuring.places)
        return lines.cost({}) if lines.are_known else lines


class _Lines:
    """The places of an operation, from the top down."""

    __slots__ = ("_lines", "_usual")

    def __init__(self, places: list[_Place]) -> None:
        self._lines = [(place.above, *_length(place.length), place.of_all, place.rows, place.bytes) for place in places]
        shares = [place.share for place in places]
        self._usual = shares if any(share != 1 for share in shares) else None

    @property
    def are_known(self) -> bool:
        """Whether no length is in a variable."""
        return all(read is None for _, _, read, _, _, _ in self._lines)

    def cost(self, variables: Mapping[str, Any]) -> Cost:
        """Add up what is there at most, and of what is hardly ever there, what is usual."""
        rows, size_bytes = self._total(variables, None)
        if self._usual is None:
            return Cost(min(rows, COST_MAX), min(size_bytes, COST_MAX))
        usual_rows, size_bytes = self._total(variables, self._usual)
        return Cost(min(rows, COST_MAX), min(size_bytes, COST_MAX), min(usual_rows, COST_MAX))

    def _total(self, variables: Mapping[str, Any], shares: list[int] | None) -> tuple[int, int]:
        """Count the objects at each place, and add up what they take."""
        rows = size_bytes = 0
        counts: list[int] = []
        for above, length, read, of_all, own_rows, own_bytes in self._lines:
            count = length if read is None else read(variables)
            if shares is not None:
                count = -(-count // shares[len(counts)])
            if above >= 0:
                count *= counts[above]
                if of_all is not None and count > of_all:
                    count = of_all
            counts.append(count)
            rows += count * own_rows
            size_bytes += count * own_bytes
        return rows, size_bytes


def _length(length: int | Length) -> tuple[int, Length | None]:
    return (length, None) if isinstance(length, int) else (0, length)


class _Measuring:
    """Finds the places of one operation."""

    def __init__(self, schema: GraphQLSchema, collector: Collector, most: Mapping[str, int]) -> None:
        self._schema = schema
        self._collector = collector
        self._most = most
        self._written: dict[str, _Place] = {}
        self.places = [_Place(-1, 1)]

    def add(self, parent: GraphQLObjectType, sets: list[Any], at: int, holder: int | None) -> None:
        """Add what is asked of each object at a place; `holder` is the place of what its lists hold."""
        for name, found in self._collector.collect(parent, sets).items():
            place = self.places[at]
            place.bytes += len(name) + QUOTED
            named = get_named_type(found.definition.type)
            key = parent.name, found.field_name
            if parent.name == "Mutation":
                self._add_written(found.nodes[0])
            place.rows += ROWS.get(key, 0)
            if is_leaf_type(named):
                place.bytes += _leaf(*key)
                continue
            place.bytes += OBJECT
            below, held = at, None
            is_list = _is_list(found)
            if key in OF_HOLDER:
                below = at if holder is None else holder
            elif (sized := SIZED.get(key)) is not None:
                held = self._place(at, sized, found)
                below = held if is_list else at
            elif is_list:
                below = self._add_place(at, _short(*key))
            elif named.name in ROW_TYPES and key not in PAID_BY_PAGE:
                place.rows += 1
            for kind in self._kinds(named):
                self.add(kind, found.below, below, held)

    def _kinds(self, named: Any) -> Iterator[GraphQLObjectType]:
        """Give the types that an object may be of. Each counts, though it is of one."""
        if isinstance(named, GraphQLInterfaceType):
            yield from self._schema.get_possible_types(named)
        elif isinstance(named, GraphQLObjectType):
            yield named

    def _add_place(self, above: int, length: int | Length, of_all: int | None = None, rows: int = 0) -> int:
        self.places.append(_Place(above, length, of_all, rows))
        return len(self.places) - 1

    def _place(self, above: int, sized: Sized, found: Collected) -> int:
        """Add the place of what a field holds."""
        most = self._most[sized.most]
        length = _length_of(sized, found.nodes[0], most)
        reads = sized.read_by is None or self._asks(found, sized.read_by)
        of_all = None if sized.of_all is None else self._most[sized.of_all]
        index = self._add_place(above, length, of_all, int(reads))
        self.places[index].share = sized.share
        return index

    def _asks(self, found: Collected, names: frozenset[str]) -> bool:
        kind = get_named_type(found.definition.type)
        assert isinstance(kind, GraphQLObjectType)  # noqa: S101 - a connection is no interface
        return any(below.field_name in names for below in self._collector.collect(kind, found.below).values())

    def _add_written(self, node: FieldNode) -> None:
        """Add the bytes of what a mutation is given; each variable is weighed once, however often it is written."""
        waiting: list[ValueNode] = [argument.value for argument in node.arguments or ()]
        while waiting:
            value = waiting.pop()
            if isinstance(value, VariableNode):
                name = value.name.value
                if name not in self._written:
                    index = self._add_place(0, lambda variables, name=name: weigh(variables.get(name)))  # type: ignore[misc]
                    self._written[name] = self.places[index]
                self._written[name].bytes += 1
            elif isinstance(value, ListValueNode):
                waiting += value.values
            elif isinstance(value, ObjectValueNode):
                waiting += [field.value for field in value.fields]
            else:
                self.places[0].bytes += len(str(getattr(value, "value", "")))


def _is_list(found: Collected) -> bool:
    kind = found.definition.type
    return is_list_type(kind.of_type if is_non_null_type(kind) else kind)


def _leaf(type_name: str, field_name: str) -> int:
    if field_name == "__typename":
        return WORD
    return INTROSPECTION_LEAF if type_name.startswith("__") else LEAVES.get(type_name, {}).get(field_name, TEXT)


def _short(type_name: str, field_name: str) -> int:
    return (
        INTROSPECTION_LISTS.get(field_name, UNKNOWN)
        if type_name.startswith("__")
        else SHORT.get((type_name, field_name), UNKNOWN)
    )


def weigh(value: Any) -> int:
    """Give the bytes of all texts and numbers in a JSON value."""
    total = 0
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            total += len(part) if part.isascii() else len(part.encode("utf-8", "surrogatepass"))
        elif isinstance(part, list):
            waiting += part
        elif isinstance(part, dict):
            waiting += part
            waiting += part.values()
        elif part is not None:
            total += 8
    return total


def _length_of(sized: Sized, node: FieldNode, most: int) -> int | Length:
    """Give the length of a list, or what reads it from variables."""
    given = {argument.name.value: argument.value for argument in node.arguments or ()}
    values = [given[name] for name in sized.arguments if name in given]
    reader = _READERS[sized.by]
    if sized.by == "messages" and values and isinstance(values[0], ObjectValueNode):
        values = [field.value for field in values[0].fields if field.name.value == "messages"]
        reader = _items
    default = sized.default

    def read(variables: Mapping[str, Any]) -> int:
        found = [length for value in values if (length := reader(value, variables)) is not None]
        return min(max(found) if found else default, most)

    if not any(isinstance(value, VariableNode) for value in values):
        return read({})
    if sized.by != "number" or len(values) > 1 or not isinstance(values[0], VariableNode):
        return read
    variable = values[0].name.value

    def read_int(variables: Mapping[str, Any]) -> int:
        """Do the same in half a microsecond for what is nearly always there."""
        value = variables.get(variable)
        if type(value) is not int:
            return read(variables)
        return 0 if value < 0 else min(value, most)

    return read_int


def _number(node: ValueNode, variables: Mapping[str, Any]) -> int | None:
    """Read an Int; None for null, and for what is none. A negative one is refused later."""
    if isinstance(node, VariableNode):
        value = variables.get(node.name.value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        return max(value, 0) if type(value) is int else None
    return max(int(node.value), 0) if isinstance(node, IntValueNode) else None


def _items(node: ValueNode, variables: Mapping[str, Any]) -> int | None:
    """Count the items of a list; what is none is a list of one."""
    if isinstance(node, VariableNode):
        return _count(variables.get(node.name.value))
    if isinstance(node, ListValueNode):
        return len(node.values)
    return None if isinstance(node, NullValueNode) else 1


def _count(value: Any) -> int | None:
    if value is None:
        return None
    return len(value) if isinstance(value, list) else 1


def _messages(node: ValueNode, variables: Mapping[str, Any]) -> int | None:
    """Count the messages of an input object that is a variable."""
    value = variables.get(node.name.value) if isinstance(node, VariableNode) else None
    return _count(value.get("messages")) if isinstance(value, dict) else None


_READERS: dict[str, Callable[[ValueNode, Mapping[str, Any]], int | None]] = {
    "number": _number,
    "length": _items,
    "messages": _messages,
    "nothing": lambda _node, _variables: None,
}
