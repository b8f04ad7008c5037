"""What a subscription gives: an outcome for each event of its source, and an end that leaves nothing open.

Source: GraphQL specification, section 6.2.3, "Subscription".
"""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from inspect import isawaitable
from typing import Any, Self, cast

from graphql import ExecutionResult, Executor, FieldNode, GraphQLError, located_error
from orjson import Fragment

from graphql_api.outcome import Outcome, executed, refused
from schema.cost import Cost
from schema.errors import mask, present

# A source that never waits would keep everybody else waiting; giving way takes 5 microseconds.
EVENTS_AT_ONCE_MAX = 16

OpenContext = Callable[[], AbstractAsyncContextManager[object]]
# Answers an event in a context by its plan; None where resolvers must.
RunPlan = Callable[[Any, Any], Awaitable[bytes | None]]


class ResponseStream:
    """The outcomes of a subscription, each made when it is asked for: nothing is read ahead.

    The last one is a request error where the source fails. `held` is what is let go when the source has been closed.
    Each tells `cost`, if there is any.
    Whoever takes a stream closes it, also when it was never iterated.
    """

    def __init__(
        self,
        executor: Executor[Any],
        source: AsyncIterable[Any],
        open_context: OpenContext,
        held: AsyncExitStack,
        run_plan: RunPlan | None = None,
        cost: Cost | None = None,
    ) -> None:
        self._executor = executor
        self._source = aiter(source)
        self._open_context = open_context
        self._held = held
        self._run_plan = run_plan
        self._cost = cost
        self._events = 0
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Outcome:
        if self._ended:
            raise StopAsyncIteration
        self._events += 1
        if not self._events % EVENTS_AT_ONCE_MAX:
            await asyncio.sleep(0)
        try:
            event = await anext(self._source)
            return await self._execute(event)
        except StopAsyncIteration:
            await self.aclose()
            raise
        except Exception as error:  # noqa: BLE001 - whatever a source raises is shown or masked
            outcome = refused([present(self._located(error))])
            await self.aclose()
            return outcome

    async def _execute(self, event: Any) -> Outcome:
        """Execute the operation for one event, with a context of its own."""
        outcome: Outcome | None = None
        try:
            async with self._open_context() as context:
                outcome = await self._answer(event, context)
        except Exception as error:
            if outcome is None:
                raise
            mask(error)  # closing failed; what was executed stays executed, and its result is shown
        return outcome

    async def _answer(self, event: Any, context: object) -> Outcome:
        if self._run_plan is not None and (data := await self._run_plan(context, event)) is not None:
            return Outcome({"data": Fragment(data)}, "executed", "planned", self._cost)
        executor = self._executor.build_per_event_executor(event)
        executor.context_value = context
        given = executor.execute_operation(serially=False)
        return executed(cast("ExecutionResult", await given if isawaitable(given) else given)).costing(self._cost)

    def _located(self, error: Exception) -> GraphQLError:
        """Say which field an error of the source belongs to: the only one at the root."""
        field = self._executor.operation.selection_set.selections[0]
        path = [(field.alias or field.name).value] if isinstance(field, FieldNode) else None
        return located_error(error, [field], path)

    async def aclose(self) -> None:
        """End the source, and let go of what was held for it."""
        if self._ended:
            return
        self._ended = True
        close: Callable[[], Awaitable[None]] | None = getattr(self._source, "aclose", None)
        try:
            if close is not None:
                await close()
        except Exception as error:  # noqa: BLE001 - nobody is left to be told
            mask(error)
        finally:
            try:
                await self._held.aclose()
            except Exception as error:  # noqa: BLE001 - the same
                mask(error)
