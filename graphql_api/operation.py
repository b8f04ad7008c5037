"""From a request to its result: find the document, choose the operation, execute.

Nothing here knows HTTP. Nothing before `execute` awaits, and no connection is held until then.
"""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from inspect import isawaitable
from typing import Any, TypeGuard, cast

import orjson
from graphql import (
    ExecutionResult,
    Executor,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
)
from graphql.execution import create_source_event_stream
from strawberry.execution import optimized_is_awaitable

from graphql_api import trusted
from graphql_api.admission import Unavailable
from graphql_api.documents import Document, Documents, Invalid
from graphql_api.gate import Gate
from graphql_api.limits import check_variables
from graphql_api.outcome import Outcome, executed, refuse, refused, unopened
from graphql_api.persisted import Persisted
from graphql_api.rates import Rates
from graphql_api.response_stream import OpenContext, ResponseStream, RunPlan
from graphql_api.settings import Settings
from schema.cost import Cost, Costs, lengths
from schema.errors import BadUserInput, Code, LimitExceeded, Refusal, mask, present, present_request
from schema.execute import Bound, Plans
from schema.principal import Principal, Scope

# Each quotes the value it is about: five times 50 MB cost half a second.
VARIABLE_ERRORS_MAX = 5

# A subscription is kept for as long as it is open, with its document and variables: 10,000 of them hold 640 MiB.
SUBSCRIPTION_BYTES_MAX = 64 * 1024

# Strawberry's faster test for awaitables, which it types as a plain predicate.
_IS_AWAITABLE = cast("Callable[[Any], TypeGuard[Awaitable[Any]]]", optimized_is_awaitable)


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a request asks, and how large it was. Source: GraphQL over HTTP, "Request parameters"."""

    query: str | None
    variables: dict[str, Any] = field(default_factory=dict)
    operation_name: str | None = None
    extensions: dict[str, Any] = field(default_factory=dict)
    document_id: str | None = None
    size_bytes: int = 0

    @property
    def asks_cost(self) -> bool:
        """Whether `extensions` holds `{"cost": true}`."""
        return bool(self.extensions) and self.extensions.get("cost") is True


@dataclass(frozen=True, slots=True)
class Prepared:
    """A document that may be executed for somebody, and which of its operations shall be.

    A query that is `planned` may share its document with other texts; `text` is its own.
    """

    document: Document
    operation: OperationDefinitionNode
    parameters: Parameters
    text: str
    principal: Principal
    cost: Cost
    planned: Bound | None = None

    @property
    def type(self) -> OperationType:
        """Query, mutation or subscription."""
        return self.operation.operation

    @property
    def cost_to_tell(self) -> Cost | None:
        """What it is estimated to cost, where the caller asks for that."""
        return self.cost if self.parameters.asks_cost else None


class TooCostly(LimitExceeded):
    """It may take more rows or bytes than a request may."""

    def __init__(self, cost: Cost, most: Cost) -> None:
        if cost.rows > most.rows:
            asked, allowed, setting = cost.rows, f"{most.rows:,} rows", "FORKPOINT_COST_ROWS_MAX"
        else:
            asked, allowed, setting = cost.bytes, f"{most.bytes:,} bytes", "FORKPOINT_COST_BYTES_MAX"
        super().__init__(
            f"The operation may take {asked:,} of at most {allowed} ({setting}), by the lengths of its lists: ask for"
            " smaller pages, or for less inside of them.",
            cost=cost.shown(),
        )
        self.cost = cost


class Operations:
    """Prepares and executes the operations of one schema.

    Raises: CommandError for trusted documents that cannot be read or executed.
    """

    def __init__(
        self, schema: GraphQLSchema, settings: Settings, plans: Plans | None = None, rates: Rates | None = None
    ) -> None:
        self._schema = schema
        self._plans = plans
        self._documents = Documents(schema, settings, only_trusted=settings.trusted_documents_only)
        self._persisted = Persisted(self._documents, trusted.load(settings, self._documents), settings)
        self._lengths = lengths(
            page_size_max=settings.page_size_max,
            fork_depth_max=settings.fork_depth_max,
            window_messages_max=settings.window_messages_max,
            append_messages_max=settings.append_messages_max,
        )
        self._cost_max = Cost(settings.cost_rows_max, settings.cost_bytes_max)
        self._settings = settings
        self._gate = Gate(settings, rates or Rates(settings))
        self.admission = self._gate.admission
        self._subscriptions_max = settings.subscriptions_max
        self.subscriptions = 0  # those that are open now

    def prepare(self, parameters: Parameters, principal: Principal) -> Prepared | Outcome:
        """Find the document, new or known, and choose the operation, if it may be executed for whoever asks."""
        try:
            principal.require(Scope.READ)
            text = self._persisted.text(parameters.query, parameters.document_id, parameters.extensions)
            if self._plans is not None:
                planned = self._plan(self._plans, text, parameters, principal)
                if planned is not None:
                    return planned
            document = self._documents.find(text)
            operation = document.choose(parameters.operation_name)
            if operation.operation is OperationType.MUTATION:
                principal.require(Scope.WRITE)
            check_variables(self._schema, operation, parameters.variables, self._settings.variables_items_max)
            cost = self._cost(document, operation, parameters.variables)
        except Invalid as invalid:
            return refused(invalid.errors)
        except TooCostly as refusal:
            return refuse(refusal).costing(refusal.cost if parameters.asks_cost else None)
        except Refusal as refusal:
            return refuse(refusal)
        return Prepared(document, operation, parameters, text, principal, cost)

    def _plan(self, plans: Plans, text: str, parameters: Parameters, principal: Principal) -> Prepared | None:
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
            check_variables(self._schema, operation, variables, self._settings.variables_items_max)
        bound = plans.bind(planner, variables)
        if bound is None:
            return None
        cost = self._cost(document, operation, variables)
        return Prepared(document, operation, parameters, text, principal, cost, bound)

    def _cost(self, document: Document, operation: OperationDefinitionNode, variables: dict[str, Any]) -> Cost:
        """Estimate what an operation costs.

        Raises: LimitExceeded.
        """
        key = Costs, operation.name.value if operation.name else None
        costs: Costs | None = document.memo.get(key)
        if costs is None:
            costs = document.memo[key] = Costs(self._schema, document.node, operation, self._lengths)
        cost, most = costs.of(variables), self._cost_max
        if cost.rows > most.rows or cost.bytes > most.bytes:
            raise TooCostly(cost, most)
        return cost

    async def answer(self, prepared: Prepared, open_context: OpenContext) -> Outcome:
        """Execute a query or mutation with a context of its own, when the gate lets it."""
        execute = partial(self._answer, prepared, open_context)
        changing = prepared.type is OperationType.MUTATION
        return await self._gate.run(execute, prepared.principal.tenant_id, prepared.cost.points, changing=changing)

    async def _answer(self, prepared: Prepared, open_context: OpenContext) -> Outcome:
        entered, outcome = False, None
        try:
            async with open_context() as context:
                entered = True
                outcome = await self.execute(prepared, context)
        except Exception as error:
            if not entered:  # presented like any other failure, with its code
                return unopened(error)
            if outcome is None:
                raise
            mask(error)  # closing failed; what was executed stays executed, and its result is shown
        return outcome

    async def execute(self, prepared: Prepared, context: Any) -> Outcome:
        """Execute a query or mutation with `context` as every resolver's context.

        Cancelling cancels the resolvers too.
        """
        if prepared.planned is not None and self._plans is not None:
            data = await self._plans.run(prepared.planned, context)
            if data is not None:
                return Outcome({"data": orjson.Fragment(data)}, "executed", "planned", prepared.cost_to_tell)
        return (await self._resolve(prepared, context)).costing(prepared.cost_to_tell)

    async def _resolve(self, prepared: Prepared, context: object) -> Outcome:
        if prepared.type is OperationType.SUBSCRIPTION:
            return refuse(BadUserInput("A subscription cannot be answered by one response: send a query or mutation."))
        executor = self._executor(prepared, context)
        if isinstance(executor, Outcome):
            return executor
        result = executor.execute_operation()
        if isawaitable(result):
            result = await result
        return executed(cast("ExecutionResult", result))  # this Executor delivers nothing incrementally

    async def subscribe(self, prepared: Prepared, open_context: OpenContext) -> Outcome | ResponseStream:
        """Begin a subscription; each of its events is executed with a context of its own, when its turn has come.

        A request error where there is nothing to be streamed. The last outcome is one too where the source fails. The
        caller closes the stream, also when it was never iterated. The source's own context lives as long as it.
        """
        if self.subscriptions >= self._settings.subscriptions_max:
            return refuse(
                Unavailable(
                    f"There are {self.subscriptions:,} subscriptions already, the most of a process"
                    " (FORKPOINT_SUBSCRIPTIONS_MAX)."
                )
            )
        if prepared.parameters.size_bytes > SUBSCRIPTION_BYTES_MAX:
            message = (
                f"The request for a subscription has {prepared.parameters.size_bytes:,} bytes;"
                f" at most {SUBSCRIPTION_BYTES_MAX:,} are allowed."
            )
            return refuse(LimitExceeded(message))
        self.subscriptions += 1
        async with AsyncExitStack() as held:
            held.callback(self._forget_subscription)
            begin = partial(self._begin, prepared, open_context, held)
            return await self._gate.run(begin, prepared.principal.tenant_id, prepared.cost.points)

    async def _begin(
        self, prepared: Prepared, open_context: OpenContext, held: AsyncExitStack
    ) -> Outcome | ResponseStream:
        """Open the source; what is `held` is left to the stream."""
        try:
            context = await held.enter_async_context(open_context())
        except Exception as error:  # noqa: BLE001 - presented like any other failure, with its code
            return unopened(error)
        executor = self._executor(prepared, context)
        if isinstance(executor, Outcome):
            return executor
        source = create_source_event_stream(executor)
        if isawaitable(source):
            source = await source
        if isinstance(source, ExecutionResult):
            return refused([present(error) for error in source.errors or ()])
        open_event = partial(self._gate.event, open_context, prepared.principal.tenant_id, prepared.cost.points)
        return ResponseStream(
            executor, source, open_event, held.pop_all(), self._event_plan(prepared), prepared.cost_to_tell
        )

    def _event_plan(self, prepared: Prepared) -> RunPlan | None:
        """Give what answers the events of a subscription, where a plan does."""
        plans, planned = self._plans, prepared.planned
        if plans is None or planned is None:
            return None
        return lambda context, event: plans.run(planned, context, event=event)

    def _forget_subscription(self) -> None:
        self.subscriptions -= 1

    def _executor(self, prepared: Prepared, context: object) -> Executor[Any] | Outcome:
        """Bind the variables for resolvers."""
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
            hide_suggestions=not self._settings.suggestions,
        )
        if isinstance(executor, list):
            return refused([present_request(error, Code.BAD_USER_INPUT) for error in executor])
        return executor
