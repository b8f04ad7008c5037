"""From the text of a request to its result: parse, limit, validate, choose the operation, execute.

Nothing here knows HTTP. Nothing before `execute` awaits, and no connection is held until then.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any, Literal, TypeGuard, cast

from graphql import (
    DocumentNode,
    ExecutionResult,
    Executor,
    GraphQLError,
    GraphQLSchema,
    GraphQLSyntaxError,
    OperationDefinitionNode,
    OperationType,
    validate,
)
from graphql.validation.validate import ValidationAbortedError
from strawberry.execution import optimized_is_awaitable

from graphql_api.limits import check_document, check_variables, read_document
from graphql_api.settings import Settings
from schema.errors import BadUserInput, Code, LimitExceeded, Refusal, present, present_request, show

REQUEST_ERRORS_MAX = 20
# Each quotes the value it is about: five times 50 MB cost half a second.
VARIABLE_ERRORS_MAX = 5
EXECUTION_ERRORS_MAX = 100
CACHED_DOCUMENTS_MAX = 1_000
# Measured with tracemalloc: a token of a parsed document holds 400 to 560 bytes.
CACHED_BYTES_MAX = 64 * 1024 * 1024
TOKEN_BYTES = 560

# Strawberry's faster test for awaitables, which it types as a plain predicate.
_IS_AWAITABLE = cast("Callable[[Any], TypeGuard[Awaitable[Any]]]", optimized_is_awaitable)


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a request asks. Source: GraphQL over HTTP, "Request parameters"."""

    query: str
    variables: dict[str, Any] = field(default_factory=dict)
    operation_name: str | None = None
    extensions: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document that may be executed, and which of its operations shall be."""

    document: DocumentNode
    operation: OperationDefinitionNode
    parameters: Parameters

    @property
    def type(self) -> OperationType:
        """Query, mutation or subscription."""
        return self.operation.operation


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer. A request error means that nothing was executed. Source: GraphQL specification, section 7.1."""

    body: dict[str, Any]
    kind: Literal["request_error", "executed"]


class Operations:
    """Prepares and executes the operations of one schema."""

    def __init__(self, schema: GraphQLSchema, settings: Settings) -> None:
        self._schema = schema
        self._settings = settings
        self._documents = _Documents()

    def prepare(self, parameters: Parameters) -> Prepared | Outcome:
        """Find the document in the cache, or parse, limit and validate it; then choose the operation."""
        try:
            document = self._documents.get(parameters.query)
            if document is None:
                document = read_document(parameters.query, self._settings)
                check_document(document, self._settings)
                if errors := self._validate(document):
                    return errors
                self._documents.put(parameters.query, document)
            operation = _choose(document, parameters.operation_name)
            check_variables(self._schema, operation, parameters.variables)
        except Refusal as refusal:
            return refuse(refusal)
        except GraphQLError as error:
            return refused([present_request(error, _code(error))])
        except RecursionError:
            return refuse(LimitExceeded("The request is nested too deeply: nest fields and fragments less."))
        return Prepared(document, operation, parameters)

    def _validate(self, document: DocumentNode) -> Outcome | None:
        errors = validate(self._schema, document, max_errors=REQUEST_ERRORS_MAX)
        if not errors:
            return None
        if isinstance(errors[-1], ValidationAbortedError) and errors[-1].message == "Validation aborted.":
            return refuse(LimitExceeded("The document is too complex to validate: repeat fewer fields and fragments."))
        return refused([present_request(error, Code.GRAPHQL_VALIDATION_FAILED) for error in errors])

    async def execute(self, prepared: Prepared, context: object) -> Outcome:
        """Execute a query or mutation with `context` as every resolver's context.

        Cancelling cancels the resolvers too.
        """
        if prepared.type is OperationType.SUBSCRIPTION:
            return refuse(BadUserInput("A subscription cannot be answered by one response: send a query or mutation."))
        executor = Executor.build(
            self._schema,
            prepared.document,
            context_value=context,
            raw_variable_values=prepared.parameters.variables,
            operation_name=prepared.parameters.operation_name,
            max_coercion_errors=VARIABLE_ERRORS_MAX,
            is_awaitable=_IS_AWAITABLE,
        )
        if isinstance(executor, list):
            return refused([present_request(error, Code.BAD_USER_INPUT) for error in executor])
        result = executor.execute_operation()
        if isawaitable(result):
            result = await result
        return _executed(cast("ExecutionResult", result))  # this Executor delivers nothing incrementally


def refuse(refusal: Refusal) -> Outcome:
    """Answer a request, none of which was executed, with one refusal."""
    return refused([show(refusal)])


def refused(errors: list[dict[str, Any]]) -> Outcome:
    """Answer a request, none of which was executed, with errors that are ready to be shown."""
    return Outcome({"errors": errors}, "request_error")


def _executed(result: ExecutionResult) -> Outcome:
    if not result.errors:
        return Outcome({"data": result.data}, "executed")
    errors = [present(error) for error in result.errors[:EXECUTION_ERRORS_MAX]]
    if left_out := len(result.errors) - len(errors):
        errors.append(show(LimitExceeded(f"{left_out:,} more errors are left out.")))
    return Outcome({"errors": errors, "data": result.data}, "executed")


def _code(error: GraphQLError) -> Code:
    return Code.GRAPHQL_PARSE_FAILED if isinstance(error, GraphQLSyntaxError) else Code.GRAPHQL_VALIDATION_FAILED


def _choose(document: DocumentNode, name: str | None) -> OperationDefinitionNode:
    """Choose the operation to execute. Source: GraphQL specification, GetOperation.

    Raises: BadUserInput unless exactly one is meant.
    """
    operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
    if name is None:
        if len(operations) == 1:
            return operations[0]
        if not operations:
            raise BadUserInput("The document has no operation: add a query or a mutation.")
        raise BadUserInput(f"The document has {len(operations)} operations: say which one in operationName.")
    for operation in operations:
        if operation.name and operation.name.value == name:
            return operation
    raise BadUserInput(f"The document has no operation called {name[:100]!r}: operationName must name one of it.")


class _Documents:
    """Valid documents by their text, the least recently used forgotten first. Validation costs 1.4 to 1.9 ms."""

    def __init__(self) -> None:
        self._entries: OrderedDict[str, tuple[DocumentNode, int]] = OrderedDict()
        self._size_bytes = 0

    def get(self, text: str) -> DocumentNode | None:
        entry = self._entries.get(text)
        if entry is None:
            return None
        self._entries.move_to_end(text)
        return entry[0]

    def put(self, text: str, document: DocumentNode) -> None:
        size_bytes = document.token_count * TOKEN_BYTES + 4 * len(text)
        if size_bytes > CACHED_BYTES_MAX // 8:
            return  # one such document would push out a hundred usual ones
        self._entries[text] = document, size_bytes
        self._size_bytes += size_bytes
        while len(self._entries) > CACHED_DOCUMENTS_MAX or self._size_bytes > CACHED_BYTES_MAX:
            _, (_, freed_bytes) = self._entries.popitem(last=False)
            self._size_bytes -= freed_bytes
