"""Valid documents, each parsed, limited and validated once however often it is sent.

A document is found by its exact text (`known`, `find`), or by the structure of its text with the literals as variables
(`shared`), so that texts with inlined ids are one document. Bounded by count and bytes; the least recently used is
forgotten first, and with it all that others remember in its `memo`. Trusted documents are never forgotten.
"""

from collections import OrderedDict
from enum import Enum
from typing import Any, Generic, TypeVar

from graphql import (
    DocumentNode,
    FieldNode,
    GraphQLError,
    GraphQLSchema,
    GraphQLSyntaxError,
    OperationDefinitionNode,
    validate,
)
from graphql.validation import ASTValidationRule, specified_rules
from graphql.validation.validate import ValidationAbortedError

from graphql_api import literals
from graphql_api.limits import check_document, read_document
from graphql_api.literals import Lifting, Structure
from graphql_api.settings import Settings
from schema.errors import BadUserInput, Code, LimitExceeded, Refusal, present_request, show

REQUEST_ERRORS_MAX = 20
DOCUMENTS_MAX = 1_000
DOCUMENTS_BYTES_MAX = 16 * 1024 * 1024
STRUCTURES_MAX = 1_000
STRUCTURES_BYTES_MAX = 8 * 1024 * 1024
# Measured with tracemalloc: a token of a parsed document holds 340 to 560 bytes, and 400 more in the plan made of it.
TOKEN_BYTES = 800
# An error that is shown: its message and its places, at their longest.
ERROR_BYTES = 8_192
# A string that is a part of a structure.
PART_BYTES = 80

Errors = list[dict[str, Any]]
Key = TypeVar("Key")
Value = TypeVar("Value")


class Forbidden(Refusal):
    """Only trusted documents are executed, and this is none."""

    code = Code.FORBIDDEN


class Invalid(Exception):
    """A document that is not executed, and the errors that say why, ready to be shown."""

    def __init__(self, errors: Errors) -> None:
        super().__init__(errors[0]["message"])
        self.errors = errors


class Document:
    """A valid document. `memo` is empty: whoever plans an operation keeps the plan there, for as long as this lives."""

    __slots__ = ("memo", "node", "operations")

    def __init__(self, node: DocumentNode) -> None:
        operations = [part for part in node.definitions if isinstance(part, OperationDefinitionNode)]
        self.node = node
        self.operations = {part.name.value if part.name else None: part for part in operations}
        self.memo: dict[Any, Any] = {}

    def choose(self, name: str | None) -> OperationDefinitionNode:
        """Choose the operation to execute. Source: GraphQL specification, GetOperation.

        Raises: BadUserInput unless exactly one is meant.
        """
        operations = self.operations
        if name is None:
            if len(operations) == 1:
                return next(iter(operations.values()))
            if not operations:
                raise BadUserInput("The document has no operation: add a query or a mutation.")
            raise BadUserInput(f"The document has {len(operations)} operations: say which one in operationName.")
        if (operation := operations.get(name)) is None:
            raise BadUserInput(
                f"The document has no operation called {name[:100]!r}: operationName must name one of it."
            )
        return operation


class Documents:
    """The documents of one schema.

    `only_trusted` says whether nothing else is executed than what was trusted.
    """

    def __init__(self, schema: GraphQLSchema, settings: Settings, *, only_trusted: bool = False) -> None:
        self._schema = schema
        self._settings = settings
        self._only_trusted = only_trusted
        self._trusted: dict[str, Document] = {}
        self._recent: Recent[str, Document | Errors] = Recent(DOCUMENTS_MAX, DOCUMENTS_BYTES_MAX)
        self._structures: Recent[_StructureKey, Lifting | Document | _Mark] = Recent(
            STRUCTURES_MAX, STRUCTURES_BYTES_MAX
        )

    def known(self, text: str) -> Document | None:
        """Give the document of this very text if it is there."""
        if (document := self._trusted.get(text)) is not None:
            return document
        found = None if self._only_trusted else self._recent.get(text)
        return found if isinstance(found, Document) else None

    def find(self, text: str) -> Document:
        """Give the document of this very text; parse, limit and validate it when it is new.

        Raises: Invalid; Forbidden.
        """
        if (document := self._trusted.get(text)) is not None:
            return document
        if self._only_trusted:
            raise Forbidden("Only trusted documents are executed here, and this is none of them: send one of those.")
        found = self._recent.get(text)
        if found is None:
            found = self._read(text)
        if isinstance(found, Document):
            return found
        raise Invalid(found)

    def trust(self, text: str) -> None:
        """Keep the document of this text for good.

        Raises: Invalid.
        """
        found = self._read(text)
        if not isinstance(found, Document):
            raise Invalid(found)
        self._trusted[text] = found

    def shared(self, text: str) -> tuple[Document, dict[str, Any]] | None:
        """Give a document whose variables stand for literals of this text, and their values.

        Executed with these values over those of the caller (`{**variables, **values}`: no variable of the caller has
        such a name) it gives what the document of `text` gives, which is valid. Only queries have one. The first text
        of a structure has none either, so that a text of its own costs no more. `find` tells what is None here.
        """
        cut = None if self._only_trusted else literals.scan(text)
        if cut is None:
            return None
        structure, tokens = cut
        lifting = self._structures.get(structure)
        if lifting is None:
            self._structures.put(structure, _Mark.SEEN, _structure_bytes(structure))
            return None
        if lifting is _Mark.SEEN:
            lifting = self._learn(structure, text)
        if not isinstance(lifting, Lifting):
            return None
        document = self._lifted(structure, lifting.rest(tokens), text)
        values = lifting.values(tokens)
        return None if document is None or values is None else (document, values)

    def _lifted(self, structure: Structure, rest: tuple[str, ...], text: str) -> Document | None:
        """Give the document of a structure in which the literals `rest` stand as they are."""
        key = structure, rest
        found = self._structures.get(key)
        if found is None and rest:
            self._structures.put(key, _Mark.SEEN, _structure_bytes(structure) + _structure_bytes(rest))
            return None
        if not isinstance(found, Document):
            self._learn(structure, text)
            found = self._structures.get(key)
        return found if isinstance(found, Document) else None

    def _learn(self, structure: Structure, text: str) -> Lifting | None:
        """Lift the literals of a text, and remember the document that results."""
        try:
            document = self.find(text)
        except Invalid:
            return None  # which may be the fault of a value
        try:
            lifted = literals.lift(self._schema, document.node, text)
        except RecursionError:
            lifted = None
        cut = literals.scan(text)
        if lifted is None or cut is None:
            self._structures.put(structure, _Mark.UNSHARED, _structure_bytes(structure))
            return None
        lifting, node = lifted
        rest = lifting.rest(cut[1])
        size_bytes = _structure_bytes(structure) + _structure_bytes(rest) + _document_bytes(document.node)
        kept = self._structures.put((structure, rest), Document(node), size_bytes)
        self._structures.put(structure, lifting if kept else _Mark.UNSHARED, _structure_bytes(structure))
        return lifting if kept else None

    def _read(self, text: str) -> Document | Errors:
        """Parse, limit and validate a text, and remember what came of it."""
        try:
            node = read_document(text, self._settings)
            check_document(node, self._settings)
            errors = self._validate(node)
        except Refusal as refusal:
            errors = [show(refusal)]
        except GraphQLError as error:
            errors = [present_request(error, _code(error))]
        except RecursionError:  # how deep is too deep depends on who asks: not remembered
            return [show(LimitExceeded("The request is nested too deeply: nest fields and fragments less."))]
        text_bytes = 4 * len(text)
        if errors:
            self._recent.put(text, errors, text_bytes + ERROR_BYTES * len(errors))
            return errors
        document = Document(node)
        self._recent.put(text, document, text_bytes + _document_bytes(node))
        return document

    def _validate(self, node: DocumentNode) -> Errors:
        errors = validate(
            self._schema,
            node,
            specified_rules if self._settings.introspection else (*specified_rules, NoIntrospection),
            max_errors=REQUEST_ERRORS_MAX,
            hide_suggestions=not self._settings.suggestions,
        )
        if errors and isinstance(errors[-1], ValidationAbortedError) and errors[-1].message == "Validation aborted.":
            raise LimitExceeded("The document is too complex to validate: repeat fewer fields and fragments.")
        return [present_request(error, Code.GRAPHQL_VALIDATION_FAILED) for error in errors]


class NoIntrospection(ASTValidationRule):
    """The schema is not told: neither `__schema` nor `__type` is asked. `__typename` stays."""

    def enter_field(self, node: FieldNode, *_: Any) -> None:
        """Refuse one of them."""
        if node.name.value in {"__schema", "__type"}:
            message = (
                f"The schema is not told here: leave out {node.name.value!r}, and read the file `schema.graphql` of"
                " this version instead (FORKPOINT_INTROSPECTION)."
            )
            self.report_error(GraphQLError(message, node))


class _Mark(Enum):
    """What else is known of a structure: it was seen once, or its documents cannot share."""

    SEEN = 1
    UNSHARED = 2


_StructureKey = Structure | tuple[Structure, tuple[str, ...]]


class Recent(Generic[Key, Value]):
    """What was used last, by key: at most `entries_max`, of at most `bytes_max` together."""

    def __init__(self, entries_max: int, bytes_max: int) -> None:
        self._entries: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size_bytes(self) -> int:
        """What the entries weigh, as it was said when they were put."""
        return self._size_bytes

    def get(self, key: Key) -> Value | None:
        """Give a value, which is then the last to be forgotten."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry[0]

    def put(self, key: Key, value: Value, size_bytes: int) -> bool:
        """Remember a value, in the place of an earlier one, and forget what is too much then.

        False for what is too large: one such would push out a hundred usual ones.
        """
        if key in self._entries:
            self._size_bytes -= self._entries.pop(key)[1]
        if size_bytes > self._bytes_max // 8:
            return False
        self._entries[key] = value, size_bytes
        self._size_bytes += size_bytes
        while len(self._entries) > self._entries_max or self._size_bytes > self._bytes_max:
            _, (_, freed_bytes) = self._entries.popitem(last=False)
            self._size_bytes -= freed_bytes
        return True


def _document_bytes(node: DocumentNode) -> int:
    return node.token_count * TOKEN_BYTES


def _structure_bytes(parts: tuple[str, ...]) -> int:
    return sum(PART_BYTES + 4 * len(part) for part in parts)


def _code(error: GraphQLError) -> Code:
    return Code.GRAPHQL_PARSE_FAILED if isinstance(error, GraphQLSyntaxError) else Code.GRAPHQL_VALIDATION_FAILED
