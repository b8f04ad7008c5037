"""From a request to its result: find the document, choose the operation, execute.

Nothing here knows HTTP. Nothing before `execute` awaits, and no connection is held until then.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import Any, Literal, TypeGuard, cast

import orjson
from graphql import ExecutionResult, Executor, GraphQLSchema, OperationDefinitionNode, OperationType
from strawberry.execution import optimized_is_awaitable

from graphql_api import trusted
from graphql_api.documents import Document, Documents, Invalid
from graphql_api.limits import check_variables
from graphql_api.persisted import Persisted
from graphql_api.settings import Settings
from schema.errors import BadUserInput, Code, LimitExceeded, Refusal, present, present_request, show
from schema.execute import Bound, Plans

# Each quotes the value it is about: five times 50 MB cost half a second.
VARIABLE_ERRORS_MAX = 5
EXECUTION_ERRORS_MAX = 100

# Strawberry's faster test for awaitables, which it types as a plain predicate.
_IS_AWAITABLE = cast("Callable[[Any], TypeGuard[Awaitable[Any]]]", optimized_is_awaitable)


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a request asks. Source: GraphQL over HTTP, "Request parameters"."""

    query: str | None
    variables: dict[str, Any] = field(default_factory=dict)
    operation_name: str | None = None
    extensions: dict[str, Any] = field(default_factory=dict)
    document_id: str | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document that may be executed, and which of its operations shall be.

    A query that is `planned` may share its document with other texts; `text` is its own.
    """

    document: Document
    operation: OperationDefinitionNode
    parameters: Parameters
    text: str
    planned: Bound | None = None

    @property
    def type(self) -> OperationType:
        """Query, mutation or subscription."""
        return self.operation.operation


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer. A request error means that nothing was executed. Source: GraphQL specification, section 7.1."""

    body: dict[str, Any]
    kind: Literal["request_error", "executed"]
    execution: Literal["planned", "resolved"] | None = field(default=None, compare=False)


class Operations:
    """Prepares and executes the operations of one schema.

    Raises: CommandError for trusted documents that cannot be read or executed.
    """

    def __init__(self, schema: GraphQLSchema, settings: Settings, plans: Plans | None = None) -> None:
        self._schema = schema
        self._plans = plans
        self._documents = Documents(schema, settings, only_trusted=settings.trusted_documents_only)
        self._persisted = Persisted(self._documents, trusted.load(settings, self._documents), settings)

    def prepare(self, parameters: Parameters) -> Prepared | Outcome:
        """Find the document, new or known, and choose the operation."""
        try:
            text = self._persisted.text(parameters.query, parameters.document_id, parameters.extensions)
            if self._plans is not None:
                planned = self._plan(self._plans, text, parameters)
                if planned is not None:
                    return planned
            document = self._documents.find(text)
            operation = document.choose(parameters.operation_name)
            check_variables(self._schema, operation, parameters.variables)
        except Invalid as invalid:
            return refused(invalid.errors)
        except Refusal as refusal:
            return refuse(refusal)
        return Prepared(document, operation, parameters, text)

    def _plan(self, plans: Plans, text: str, parameters: Parameters) -> Prepared | None:
        """Find the plan of a query, and bind its arguments; None where resolvers must answer or refuse."""
        document, variables = self._documents.known(text), parameters.variables
        if document is None:
            if (shared := self._documents.shared(text)) is not None:
                document, values = shared
                variables = variables | values
            else:
                document = self._documents.find(text)
        operation = document.choose(parameters.operation_name)
        try:
            planner = document.memo[parameters.operation_name]
        except KeyError:
            planner = document.memo[parameters.operation_name] = plans.planner(document.node, operation)
        if planner is None:
            return None
        if not planner.variables.plain:
            check_variables(self._schema, operation, variables)
        bound = plans.bind(planner, variables)
        return None if bound is None else Prepared(document, operation, parameters, text, bound)

    async def execute(self, prepared: Prepared, context: Any) -> Outcome:
        """Execute a query or mutation with `context` as every resolver's context.

        Cancelling cancels the resolvers too.
        """
        if prepared.planned is not None and self._plans is not None:
            data = await self._plans.run(prepared.planned, context)
            if data is not None:
                return Outcome({"data": orjson.Fragment(data)}, "executed", "planned")
        return await self._resolve(prepared, context)

    async def _resolve(self, prepared: Prepared, context: object) -> Outcome:
        if prepared.type is OperationType.SUBSCRIPTION:
            return refuse(BadUserInput("A subscription cannot be answered by one response: send a query or mutation."))
        document = prepared.document
        if prepared.planned is not None:  # no plan gave an answer, and this may be another text's document
            try:
                document = self._documents.find(prepared.text)
            except Invalid as invalid:
                return refused(invalid.errors)
        executor = Executor.build(
            self._schema,
            document.node,
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
        return Outcome({"data": result.data}, "executed", "resolved")
    errors = [present(error) for error in result.errors[:EXECUTION_ERRORS_MAX]]
    if left_out := len(result.errors) - len(errors):
        errors.append(show(LimitExceeded(f"{left_out:,} more errors are left out.")))
    return Outcome({"errors": errors, "data": result.data}, "executed", "resolved")
