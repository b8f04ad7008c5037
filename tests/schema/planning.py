"""Plans for tests: of a document's text, and run over a database with a trace of what was asked."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import strawberry
from graphql import get_operation_ast, parse, validate

from graphql_api.app import service_of
from graphql_api.settings import Settings
from schema.collect import Unplanned
from schema.execute import Bound, Plans
from schema.moment import Trace
from schema.plan import Field, Plan, Planner
from schema.principal import ANYBODY
from schema.request import Request, Service
from schema.root import schema

BUILT = schema._schema  # noqa: SLF001 - graphql-core's own schema
ID = "0198c0de-7d0e-7000-8000-000000000000"


def planner_of(text: str, of: strawberry.Schema = schema, name: str | None = None) -> Planner:
    """Give the planner of a valid document.

    Raises: Unplanned.
    """
    document = parse(text)
    assert validate(of._schema, document) == []  # noqa: SLF001 - graphql-core's own schema
    operation = get_operation_ast(document, name)
    assert operation is not None
    return Planner(of, document, operation)


def plan_of(text: str, **variables: Any) -> Plan:
    """Give the plan for values of the variables.

    Raises: Unplanned.
    """
    planner = planner_of(text)
    return planner.plan(planner.variables.read(variables).coerced)


def bound_of(text: str, **variables: Any) -> Bound:
    """Give the plan with its arguments.

    Raises: Unplanned.
    """
    bound = Plans(schema).bind(planner_of(text), variables)
    if bound is None:
        raise Unplanned
    return bound


def field_of(plan: Plan, *path: str) -> Field:
    """Give the field at a path of response names."""
    found: Field | None = None
    for name in path:
        (found,) = (field for field in plan.fields if field.name == name and field.above is found)
    assert found is not None
    return found


@dataclass
class Runner:
    """Runs plans as a service does, each in a request of its own."""

    service: Service
    plans: Plans

    async def __call__(self, text: str, **variables: Any) -> tuple[Any, Trace]:
        """Give the data, None where no plan gives it, and how it was read."""
        async with Request(self.service, ANYBODY) as request:
            return await self.run(request, text, **variables)

    async def run(self, request: Request, text: str, **variables: Any) -> tuple[Any, Trace]:
        """As a call, for a given request."""
        trace = Trace()
        data = await self.plans.run(bound_of(text, **variables), request, trace)
        return None if data is None else json.loads(data), trace


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Runner]:
    """Open a service, with its fast lane if that is not off."""
    service = service_of(settings)
    await service.database.open()
    try:
        await service.database.lanes_ready(settings.connect_seconds)
        yield Runner(service, Plans(schema))
    finally:
        await service.database.close()


def asked(trace: Trace) -> list[list[str]]:
    """Name the queries of each flush, in order of their names."""
    return [sorted(call.query.name for call in calls) for calls in trace.flushes]
