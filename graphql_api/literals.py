"""Literals of a document taken as variables, so that documents that differ in nothing else are one document.

`scan` cuts a text, by one regular expression, into its structure and its literals: plain strings and integers. Every
text is cut by itself, and everything that the lexer reads otherwise (comments, block strings, strings with escapes,
floats, names with digits) stays in the structure as it is written. So two texts of one structure are the same tokens
but for the values of their literals.

`lift` puts variables in the place of those literals whose position is of a type that reads a value of a variable as it
reads a literal. The others stay, and must be equal for two texts to be the same document.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, cast

from graphql import (
    GRAPHQL_MAX_INT,
    GRAPHQL_MIN_INT,
    DocumentNode,
    FragmentDefinitionNode,
    GraphQLFloat,
    GraphQLID,
    GraphQLInt,
    GraphQLScalarType,
    GraphQLSchema,
    GraphQLString,
    IntValueNode,
    ListValueNode,
    NamedTypeNode,
    NameNode,
    NonNullTypeNode,
    ObjectValueNode,
    OperationDefinitionNode,
    OperationType,
    StringValueNode,
    TypeInfo,
    TypeInfoVisitor,
    Undefined,
    VariableDefinitionNode,
    VariableNode,
    Visitor,
    get_nullable_type,
    is_input_object_type,
    is_list_type,
    is_scalar_type,
    validate,
    visit,
)

# Literals and comments of a text. Whoever inlines more of them hardly sends the same structure twice.
TOKENS_MAX = 200
# The worst of this size costs 6 ms, a usual document 6 microseconds.
CHARACTERS_MAX = 65_536

# What may hold a quote, a hash or a digit that is not what it looks like. A string or block string that never ends is a
# token as well: without that, and without the possessive quantifiers, the time would be quadratic. It begins with one
# set of characters, for which `re` can look quickly; the look-behinds say which of them it was. An integer of more than
# ten digits is out of range, and none of ours.
TOKENS = re.compile(
    r"""(
    ["\#0-9-]
    (?: (?<=") (?: ""  (?: [^"\\]++ | \\\"{3} | \\ | "(?!"") )*+  (?: "{3} )?     # a block string
               | (?!"") (?: [^"\\\r\n]++ | \\[^\r\n] )*+  "?                      # a string
               )
      | (?<=\#) [^\r\n]*+
      | (?<=[0-9-]) (?<![\w.+-].)                                                 # not in a name or another number
        (?: (?<=0) | (?<=-) (?: 0 | [1-9][0-9]{0,9} ) | (?<=[1-9]) [0-9]{0,9} )
        (?![\w.])
      )
    )""",
    re.VERBOSE | re.ASCII,
)
_SURROGATE = re.compile("[\ud800-\udfff]")

Structure = tuple[str, ...]
Read = Callable[[str], Any]


def scan(text: str) -> tuple[Structure, list[str]] | None:
    """Cut a text into its structure and its literals as they are written.

    None without literals, and for what is too long or has too many.
    """
    if len(text) > CHARACTERS_MAX:
        return None
    parts: list[str] = TOKENS.split(text, TOKENS_MAX + 1)
    if not 1 < len(parts) <= 2 * TOKENS_MAX + 1:
        return None
    literals = []
    for place in range(1, len(parts), 2):
        token = parts[place]
        if _is_literal(token):
            literals.append(token)
            # No token begins with a letter, so these stand for nothing else.
            parts[place] = "String" if token[0] == '"' else "Int"
    return (tuple(parts), literals) if literals else None


def _is_literal(token: str) -> bool:
    if token[0] == '"':
        plain = token[-1] == '"' and len(token) > 1 and "\\" not in token and not token.startswith('"""')
        # Of surrogates the lexer takes some, in pairs, and refuses others.
        return plain and (token.isascii() or _SURROGATE.search(token) is None)
    return token[0] != "#"


class Slot(NamedTuple):
    """A literal that became a variable: which one, its name, and how its value is read."""

    place: int
    name: str
    read: Read


@dataclass(frozen=True, slots=True)
class Lifting:
    """What became of the literals of one structure."""

    slots: tuple[Slot, ...]
    kept: tuple[int, ...]

    def rest(self, literals: Sequence[str]) -> tuple[str, ...]:
        """Give the literals that stay in the document."""
        return tuple([literals[place] for place in self.kept])

    def values(self, literals: Sequence[str]) -> dict[str, Any] | None:
        """Read the values of the variables; None when one of them would not be valid in the document."""
        try:
            return {name: read(literals[place]) for place, name, read in self.slots}
        except Exception:  # noqa: BLE001 - custom scalars raise what they like, and the exact document tells the caller
            return None


def lift(schema: GraphQLSchema, document: DocumentNode, text: str) -> tuple[Lifting, DocumentNode] | None:
    """Put variables in the place of the literals of `document`, which is valid and was parsed from `text`.

    None when there are none, or when the result might mean something else for other values. Only a document of one
    operation, a query, is taken: all its fragments are reached by it, and so may use its variables.
    """
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    others = [node for node in document.definitions if isinstance(node, FragmentDefinitionNode)]
    if len(operations) != 1 or len(operations) + len(others) != len(document.definitions):
        return None
    if operations[0].operation is not OperationType.QUERY:
        return None
    starts = [token.start() for token in TOKENS.finditer(text) if _is_literal(token[0])]
    types = TypeInfo(schema)
    lifter = _Lifter(types, starts, _prefix(operations[0]))
    lifted = cast("DocumentNode", visit(document, TypeInfoVisitor(types, lifter)))
    if not lifter.slots:
        return None
    lifted = replace(lifted, definitions=tuple(_declare(node, lifter.declared) for node in lifted.definitions))
    # Fields of one name are merged only if their arguments are equal, which two variables never are. So this refuses
    # all documents whose validity would depend on the values.
    if validate(schema, lifted, max_errors=1):
        return None
    taken = {slot.place for slot in lifter.slots}
    return Lifting(tuple(lifter.slots), tuple(place for place in range(len(starts)) if place not in taken)), lifted


def _prefix(operation: OperationDefinitionNode) -> str:
    """Give the beginning of a name that no variable has: the same for all documents of a structure."""
    names = [definition.variable.name.value for definition in operation.variable_definitions or ()]
    prefix = "_"
    while any(name.startswith(prefix) for name in names):
        prefix += "_"
    return prefix


def _declare(node: Any, declared: list[VariableDefinitionNode]) -> Any:
    if not isinstance(node, OperationDefinitionNode):
        return node
    return replace(node, variable_definitions=(*(node.variable_definitions or ()), *declared))


class _Lifter(Visitor):
    """Replaces literals by variables, in arguments of fields and in the lists and input objects inside them."""

    def __init__(self, types: TypeInfo, starts: list[int], prefix: str) -> None:
        super().__init__()
        self.slots: list[Slot] = []
        self.declared: list[VariableDefinitionNode] = []
        self._types = types
        self._places = {start: place for place, start in enumerate(starts)}
        self._prefix = prefix

    def enter_directive(self, *_: Any) -> Any:
        return self.SKIP

    def enter_variable_definition(self, *_: Any) -> Any:
        return self.SKIP

    def enter_list_value(self, _node: ListValueNode, *_: Any) -> Any:
        # What stands in a list or object of a custom scalar is that scalar's own business.
        return None if is_list_type(get_nullable_type(self._types.get_parent_input_type())) else self.SKIP

    def enter_object_value(self, _node: ObjectValueNode, *_: Any) -> Any:
        return None if is_input_object_type(get_nullable_type(self._types.get_input_type())) else self.SKIP

    def enter_int_value(self, node: IntValueNode, *_: Any) -> Any:
        return self._lift(node, _reader_of_int)

    def enter_string_value(self, node: StringValueNode, *_: Any) -> Any:
        return self._lift(node, _reader_of_string)

    def _lift(
        self, node: IntValueNode | StringValueNode, reader: Callable[[GraphQLScalarType], Read | None]
    ) -> VariableNode | None:
        kind = get_nullable_type(self._types.get_input_type())
        place = self._places.get(node.loc.start) if node.loc else None
        if place is None or not is_scalar_type(kind) or (read := reader(kind)) is None:
            return None
        name = NameNode(value=f"{self._prefix}{place}")
        self.slots.append(Slot(place, name.value, read))
        # It has a value always, so it fits where null is allowed and where it is not.
        type_node = NonNullTypeNode(type=NamedTypeNode(name=NameNode(value=kind.name)))
        self.declared.append(VariableDefinitionNode(variable=VariableNode(name=name), type=type_node))
        return VariableNode(name=name, loc=node.loc)


def _reader_of_int(kind: GraphQLScalarType) -> Read | None:
    if kind is GraphQLInt:
        return _read_int
    if kind is GraphQLFloat:
        return float
    return str if kind is GraphQLID else None


def _read_int(token: str) -> int:
    value = int(token)
    if not GRAPHQL_MIN_INT <= value <= GRAPHQL_MAX_INT:
        raise ValueError
    return value


def _reader_of_string(kind: GraphQLScalarType) -> Read | None:
    if kind is GraphQLString or kind is GraphQLID:
        return _read_string
    # A scalar with no reading of literals of its own reads the value that is written there, as it does of a variable.
    own = (
        kind.coerce_input_literal
        or getattr(kind.parse_literal, "__func__", None) is not GraphQLScalarType.parse_literal
    )
    return None if own else _Checked(kind)


def _read_string(token: str) -> str:
    return token[1:-1]


class _Checked:
    """Reads the string of a custom scalar, and raises what the scalar does when it is none of its values."""

    __slots__ = ("_kind",)

    def __init__(self, kind: GraphQLScalarType) -> None:
        self._kind = kind

    def __call__(self, token: str) -> str:
        text = token[1:-1]
        if self._kind.coerce_input_value(text) is Undefined:
            raise ValueError
        return text
