"""The answer to a request, whichever way it is sent: what was executed, or why nothing was."""

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from graphql import ExecutionResult, GraphQLError

from schema.cost import Cost
from schema.errors import LimitExceeded, Refusal, present, show

EXECUTION_ERRORS_MAX = 100


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer. A request error means that nothing was executed. Source: GraphQL specification, section 7.1.

    Nothing was executed either where no context could be opened: a context error.
    """

    body: dict[str, Any]
    kind: Literal["request_error", "context_error", "executed"]
    execution: Literal["planned", "resolved"] | None = field(default=None, compare=False)
    cost: Cost | None = field(default=None, compare=False)
    """What it was estimated to cost, where the caller wants to know."""

    def costing(self, cost: Cost | None) -> "Outcome":
        """Give the same, telling what it was estimated to cost."""
        return self if cost is None else replace(self, cost=cost)

    def told(self, *, execution: bool) -> dict[str, Any]:
        """Give the body, with how it came about where that is asked for."""
        extensions: dict[str, Any] = {}
        if execution and self.execution:
            extensions["execution"] = self.execution
        if self.cost is not None:
            extensions["cost"] = self.cost.shown()
        return {**self.body, "extensions": extensions} if extensions else self.body


def refuse(refusal: Refusal) -> Outcome:
    """Answer a request, none of which was executed, with one refusal."""
    return refused([show(refusal)])


def refused(errors: list[dict[str, Any]]) -> Outcome:
    """Answer a request, none of which was executed, with errors that are ready to be shown."""
    return Outcome({"errors": errors}, "request_error")


def unopened(error: Exception) -> Outcome:
    """Answer a request for which no context could be opened."""
    shown = present(GraphQLError(str(error), original_error=error))
    return Outcome({"errors": [shown]}, "context_error")


def executed(result: ExecutionResult) -> Outcome:
    """Answer with what resolvers gave."""
    if not result.errors:
        return Outcome({"data": result.data}, "executed", "resolved")
    errors = [present(error) for error in result.errors[:EXECUTION_ERRORS_MAX]]
    if left_out := len(result.errors) - len(errors):
        errors.append(show(LimitExceeded(f"{left_out:,} more errors are left out.")))
    return Outcome({"errors": errors, "data": result.data}, "executed", "resolved")
