"""What a document and its variables may cost, decided before anything of them is validated or executed.

Everything here is linear in the size of what was sent: a fragment is measured once however often it is spread, so a
document of 827 bytes whose fragments double forty times is refused in microseconds.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, NamedTuple

from graphql import (
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLInputType,
    GraphQLSchema,
    GraphQLSyntaxError,
    OperationDefinitionNode,
    SelectionSetNode,
    Visitor,
    is_input_object_type,
    is_list_type,
    is_non_null_type,
    parse,
    type_from_ast,
    visit,
)

from graphql_api.settings import Settings
from schema.errors import LimitExceeded
from schema.weight import INTROSPECTION_LISTS

# The lexer reads character by character: 524,288 of the dearest (escapes in a string) cost 140 ms.
CHARACTERS_MAX = 524_288
# Comments are no tokens: a million characters of empty ones cost 720 ms.
COMMENTS_MAX = 1_000
# Each operation is validated with all fragments that it reaches. No client needs a hundred of them in one document.
OPERATIONS_MAX = 100
# graphql-core compares every two fields of one response name, and every two fragments of one selection set, at 2 to
# 5 microseconds a pair. 200 fields of one name are 19,900 pairs.
PAIRS_MAX = 20_000
# Introspection is executed without ever yielding to other requests, and its lists multiply: 200 aliases of `fields`
# inside `fields` block for 5 seconds. The standard query with all its options asks for 230 fields and costs 6,792.
INTROSPECTION_FIELDS_MAX = 300
INTROSPECTION_COST_MAX = 15_000
# graphql-core itself stops at 200; its recursion and Strawberry's fit the interpreter's stack well before.
VARIABLES_DEPTH_MAX = 50


def read_document(text: str, settings: Settings) -> DocumentNode:
    """Parse a document.

    Raises: LimitExceeded when it is too long or nested too deeply; GraphQLSyntaxError when it is not GraphQL.
    """
    if len(text) > CHARACTERS_MAX:
        raise LimitExceeded(
            f"The document has {len(text):,} characters; at most {CHARACTERS_MAX:,} are allowed."
            " Long texts belong into the variables."
        )
    try:
        document = parse(text, max_lexical_tokens=settings.document_tokens_max, max_comments=COMMENTS_MAX)
    except GraphQLSyntaxError as error:
        # The parser marks its limits only by this ending; what it quotes of the document always stands in quotes.
        if not error.message.endswith("Parsing aborted."):
            raise
        refusal = _parser_refusal(error.message, settings)
    else:
        _unlink(document)
        return document
    raise refusal


def _unlink(document: DocumentNode) -> None:
    """Part the tokens, which nobody goes through any more: as a list of circles they lie until the collector comes."""
    token = document.loc.start_token if document.loc else None
    while token is not None:
        following = token.next
        token.prev = token.next = None
        token = following


def _parser_refusal(message: str, settings: Settings) -> LimitExceeded:
    if "comments" in message:
        return LimitExceeded(f"The document has more than {COMMENTS_MAX:,} comments, which is the most allowed.")
    if "tokens" in message:
        allowed = f"{settings.document_tokens_max:,} tokens, which is the most allowed"
        return LimitExceeded(f"The document has more than {allowed} (FORKPOINT_DOCUMENT_TOKENS_MAX).")
    return LimitExceeded("The document is nested too deeply: at most 200 levels of braces and brackets are allowed.")


def check_document(document: DocumentNode, settings: Settings) -> None:
    """Measure every definition: depth, fields, repetitions, operations.

    Raises: LimitExceeded; GraphQLError for fragments that spread each other in a circle, which have no size.
    """
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    if len(operations) > OPERATIONS_MAX:
        raise LimitExceeded(f"The document has {len(operations):,} operations; at most {OPERATIONS_MAX:,} are allowed.")
    ruler = _Ruler(document, settings.document_root_fields_max)
    _check_directives(document, settings)
    roots = list(ruler.roots())
    total = 0
    for root in roots:
        depth, fields, aliases = ruler.measure(root.selection_set)
        if depth > settings.document_depth_max:
            raise LimitExceeded(
                f"Fields are nested {depth:,} deep; at most {settings.document_depth_max:,} levels are allowed"
                " (FORKPOINT_DOCUMENT_DEPTH_MAX)."
            )
        _check_aliases(aliases, settings)
        if fields > settings.document_fields_max:
            raise LimitExceeded(
                f"The operation asks for {_told(fields)} fields, each fragment counted wherever it is spread; at most"
                f" {settings.document_fields_max:,} are allowed (FORKPOINT_DOCUMENT_FIELDS_MAX)."
            )
        total += fields
    if total > settings.document_tokens_max:
        raise LimitExceeded(
            f"The operations together ask for {total:,} fields; at most {settings.document_tokens_max:,} are allowed"
            " (FORKPOINT_DOCUMENT_TOKENS_MAX). Send fewer operations in one document."
        )
    for root in roots:
        ruler.compare(root)


def _check_aliases(aliases: int, settings: Settings) -> None:
    if aliases > settings.document_aliases_max:
        raise LimitExceeded(
            f"The operation has {_told(aliases)} aliases, each fragment counted wherever it is spread; at most"
            f" {settings.document_aliases_max:,} are allowed (FORKPOINT_DOCUMENT_ALIASES_MAX)."
        )


def _check_directives(document: DocumentNode, settings: Settings) -> None:
    """Count directives as they are written: fragments that are spread often multiply fields, which are limited."""
    counter = _Directives()
    visit(document, counter)
    if counter.found > settings.document_directives_max:
        raise LimitExceeded(
            f"The document has {counter.found:,} directives; at most {settings.document_directives_max:,} are allowed"
            " (FORKPOINT_DOCUMENT_DIRECTIVES_MAX)."
        )


class _Directives(Visitor):
    def __init__(self) -> None:
        super().__init__()
        self.found = 0

    def enter_directive(self, *_: Any) -> None:
        self.found += 1


def _told(count: int) -> str:
    return f"{count:,}" if count < 1_000_000_000 else "over 1,000,000,000"  # noqa: PLR2004


class _Size(NamedTuple):
    depth: int
    fields: int
    aliases: int


@dataclass(slots=True)
class _Level:
    """The selections that end up in one object of the response: what is merged, and so compared."""

    fields: dict[str, list[FieldNode]] = field(default_factory=dict)
    spreads: dict[str, FragmentSpreadNode] = field(default_factory=dict)


class _Ruler:
    """Measures the definitions of one document, each fragment once."""

    def __init__(self, document: DocumentNode, root_fields_max: int) -> None:
        self._root_fields_max = root_fields_max
        self._definitions = [
            node for node in document.definitions if isinstance(node, OperationDefinitionNode | FragmentDefinitionNode)
        ]
        self._fragments = {
            node.name.value: node for node in self._definitions if isinstance(node, FragmentDefinitionNode)
        }
        self._sizes: dict[str, _Size] = {}
        self._open: list[str] = []
        self._costs: dict[str, int] = {}
        self._pairs = 0

    def roots(self) -> Iterator[OperationDefinitionNode | FragmentDefinitionNode]:
        """Give what no other definition contains: operations, and fragments that nobody spreads.

        Validation visits those fragments too, so they may not cost more than an operation.
        """
        for definition in self._definitions:
            self.measure(definition.selection_set)
        for definition in self._definitions:
            name = definition.name.value if isinstance(definition, FragmentDefinitionNode) else None
            if name is None or name not in self._sizes or self._fragments[name] is not definition:
                yield definition

    def measure(self, selections: SelectionSetNode) -> _Size:
        """Depth, number and aliases of the fields below, fragments counted wherever they are spread."""
        depth = fields = aliases = 0
        for selection in selections.selections:
            if isinstance(selection, FieldNode):
                below = self.measure(selection.selection_set) if selection.selection_set else _Size(0, 0, 0)
                depth, fields = max(depth, below.depth + 1), fields + below.fields + 1
                aliases += below.aliases + (selection.alias is not None)
                continue
            if isinstance(selection, FragmentSpreadNode):
                below = self._measure_fragment(selection)
            else:
                below = self.measure(selection.selection_set)  # type: ignore[attr-defined]
            depth, fields, aliases = max(depth, below.depth), fields + below.fields, aliases + below.aliases
        return _Size(depth, fields, aliases)

    def _measure_fragment(self, spread: FragmentSpreadNode) -> _Size:
        name = spread.name.value
        if name in self._sizes:
            return self._sizes[name]
        if name in self._open:
            circle = " -> ".join([*self._open[self._open.index(name) :], name])
            raise GraphQLError(f"Fragments may not contain themselves: {circle}.", spread)
        if name not in self._fragments:
            return _Size(0, 0, 0)  # validation tells the caller
        self._open.append(name)
        self._sizes[name] = size = self.measure(self._fragments[name].selection_set)
        self._open.pop()
        return size

    def compare(self, root: OperationDefinitionNode | FragmentDefinitionNode) -> None:
        """Count the comparisons of OverlappingFieldsCanBeMerged, which is quadratic, and refuse too many.

        Visits each field of the response once, so the number of fields must have been checked before.
        """
        levels = [[root.selection_set]]
        for number in count():
            if not levels:
                return
            level = self._flatten(levels.pop())
            for nodes in level.fields.values():
                self._pairs += len(nodes) * (len(nodes) - 1) // 2
                below = [node.selection_set for node in nodes if node.selection_set]
                if below:
                    levels.append(below)
            self._pairs += len(level.spreads) * (len(level.spreads) - 1) // 2
            if self._pairs > PAIRS_MAX:
                raise LimitExceeded(
                    f"The document repeats fields or fragments too often: it takes {self._pairs:,} comparisons and more"
                    f" to merge them, and at most {PAIRS_MAX:,} are allowed, about 200 of the same name. Ask for each"
                    " field once."
                )
            if number == 0:
                if isinstance(root, OperationDefinitionNode):
                    self._check_root_fields(len(level.fields))
                self._check_introspection(level)

    def _check_root_fields(self, count: int) -> None:
        if count > self._root_fields_max:
            raise LimitExceeded(
                f"The operation has {count:,} fields at its root; at most {self._root_fields_max:,} are allowed"
                " (FORKPOINT_DOCUMENT_ROOT_FIELDS_MAX)."
            )

    def _check_introspection(self, root: _Level) -> None:
        asked = [
            node.selection_set
            for nodes in root.fields.values()
            for node in nodes
            if node.name.value in {"__schema", "__type"} and node.selection_set
        ]
        fields = sum(self.measure(selections).fields for selections in asked)
        if fields > INTROSPECTION_FIELDS_MAX:
            raise LimitExceeded(
                f"The operation asks for {fields:,} fields about the schema;"
                f" at most {INTROSPECTION_FIELDS_MAX:,} are allowed."
            )
        items = sum(map(self._introspection_cost, asked))
        if items > INTROSPECTION_COST_MAX:
            raise LimitExceeded(
                f"The operation asks for about {items:,} list items of the schema; at most {INTROSPECTION_COST_MAX:,}"
                " are allowed: ask for fewer lists inside lists."
            )

    def _introspection_cost(self, selections: SelectionSetNode) -> int:
        """Estimate how many list items introspection will give."""
        cost = 0
        for selection in selections.selections:
            if isinstance(selection, FragmentSpreadNode):
                cost += self._fragment_cost(selection.name.value)
                continue
            nested = selection.selection_set  # type: ignore[attr-defined]
            below = self._introspection_cost(nested) if nested else 0
            name = selection.name.value if isinstance(selection, FieldNode) else ""
            cost += (1 + below) * INTROSPECTION_LISTS[name] if name in INTROSPECTION_LISTS else below
        return cost

    def _fragment_cost(self, name: str) -> int:
        if name not in self._costs and name in self._fragments:
            self._costs[name] = self._introspection_cost(self._fragments[name].selection_set)
        return self._costs.get(name, 0)

    def _flatten(self, sets: list[SelectionSetNode]) -> _Level:
        level = _Level()
        while sets:
            for selection in sets.pop().selections:
                if isinstance(selection, FieldNode):
                    name = (selection.alias or selection.name).value
                    level.fields.setdefault(name, []).append(selection)
                elif not isinstance(selection, FragmentSpreadNode):
                    sets.append(selection.selection_set)  # type: ignore[attr-defined]
                elif selection.name.value not in level.spreads:
                    level.spreads[selection.name.value] = selection
                    if fragment := self._fragments.get(selection.name.value):
                        sets.append(fragment.selection_set)
        return level


def check_variables(
    schema: GraphQLSchema, operation: OperationDefinitionNode, variables: dict[str, Any], items_max: int
) -> None:
    """Count the list items that would be coerced one by one; what lies inside a custom scalar is not counted.

    An item costs 3 microseconds to coerce, an input object 25 and more.

    Raises: LimitExceeded.
    """
    items = 0
    stack: list[tuple[Any, GraphQLInputType, int]] = []
    for definition in operation.variable_definitions or ():
        kind = type_from_ast(schema, definition.type)
        if kind is not None:
            stack.append((variables.get(definition.variable.name.value), kind, 0))  # type: ignore[arg-type]
    while stack:
        value, kind, depth = stack.pop()
        if depth > VARIABLES_DEPTH_MAX:
            raise LimitExceeded(f"The variables are nested more than {VARIABLES_DEPTH_MAX} deep, the most allowed.")
        if is_non_null_type(kind):
            kind = kind.of_type
        if isinstance(value, list) and is_list_type(kind):
            items += len(value)
            if items > items_max:
                raise LimitExceeded(
                    f"The variables hold {items:,} list items or more; at most {items_max:,} are allowed"
                    " (FORKPOINT_VARIABLES_ITEMS_MAX)."
                )
            stack.extend((item, kind.of_type, depth + 1) for item in value)
        elif isinstance(value, dict) and is_input_object_type(kind):
            stack.extend((value[name], part.type, depth + 1) for name, part in kind.fields.items() if name in value)
