"""Runs a plan: level by level, each step once for all objects of its level, and what a level asks in one flush.

A plan gives an answer without errors or none. Whatever is unusual (an argument that a step refuses, a value that
cannot be written) is left to resolvers, which answer from the beginning; so there is one place that knows errors.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

import orjson
import strawberry
import structlog
from graphql import DocumentNode, GraphQLError, OperationDefinitionNode

from db.call import Asking, Call, Rows
from db.errors import LaneAway, LineBroken, StoreError, Unforeseen
from schema import health
from schema.collect import Unplanned
from schema.errors import Refusal
from schema.health import Health
from schema.moment import Moment, Trace, Way
from schema.plan import Branch, Field, Plan, Planner, Selection
from schema.request import Request
from schema.scalar import read_id

log = structlog.get_logger(__name__)

Flush = Callable[[Sequence[Call]], Awaitable[Sequence[Rows]]]

# Plans that may read more rows go through the pool: 1,000 take some 3 ms, for which others wait.
LANE_ROWS_MAX = 1_000
# The same goes for plans of more statements, however little each gives.
LANE_STATEMENTS_MAX = 50


@dataclass(frozen=True, slots=True)
class Bound:
    """A plan with the arguments of one request; `rows` bounds what it reads, None where nothing does."""

    plan: Plan
    arguments: list[dict[str, Any]]
    rows: int | None

    @property
    def is_small(self) -> bool:
        """Whether others may wait for it."""
        return self.rows is not None and self.rows <= LANE_ROWS_MAX and self.plan.statements <= LANE_STATEMENTS_MAX


class Plans:
    """The plans of one schema's queries."""

    def __init__(self, schema: strawberry.Schema) -> None:
        self._schema = schema

    def planner(self, document: DocumentNode, operation: OperationDefinitionNode) -> Planner | None:
        """Give the planner of an operation, None for one that no plan can answer."""
        try:
            return Planner(self._schema, document, operation)
        except Unplanned:
            return None

    def bind(self, planner: Planner, given: Mapping[str, Any]) -> Bound | None:
        """Choose the plan for the variables given, and bind its arguments; None when resolvers must answer."""
        try:
            variables = planner.variables.read(given)
            plan = planner.plan(variables.coerced)
            arguments = [binder(variables) for binder in plan.binders]
        except (Unplanned, GraphQLError):
            return None
        return Bound(plan, arguments, _rows(plan, arguments))

    async def run(
        self, bound: Bound, request: Request, trace: Trace | None = None, *, event: object = None
    ) -> bytes | None:
        """Answer a query, or a subscription's event: give the data as JSON, None when resolvers must answer.

        When the store fails, resolvers on the same request say so, and do not ask it again.
        """
        try:
            data = await _run(bound, _Begin(request, trace, event))
            with suppress(TypeError):  # what orjson cannot write: integers over 64 bits, lone surrogates
                return orjson.dumps(data, option=orjson.OPT_UTC_Z)
        except StoreError as error:
            request.snapshot.fail(error)
        except (Refusal, Unforeseen):
            pass
        except Exception as error:
            log.warning("a plan failed", exc_info=error)
        request.renew()
        return None


def _rows(plan: Plan, arguments: list[dict[str, Any]]) -> int | None:
    """Bound the rows that will be read: each field's, for each of those that the fields above it may give."""
    total = 0
    counts: list[int] = []
    for field in plan.fields:
        own = field.step.rows(**arguments[field.number])
        if own is None:
            return None
        count = own * (counts[field.above.number] if field.above else 1)
        counts.append(count)
        if field.step.loads:
            total += count
    return total


class _AnotherFlush(Exception):
    """More must be asked, which one flush was thought to bring."""


async def _run(bound: Bound, begin: "_Begin") -> dict[str, Any]:
    request = begin.request
    tenant_id = request.tenant_id
    if bound.plan.health:
        begin.health = await health.check(request.service)
    lane = request.service.database.lane
    if lane is not None and lane.ready and bound.is_small:
        try:
            if bound.plan.one_flush:
                try:
                    return await _answer(
                        bound, begin.moment("one flush"), partial(lane.flush, tenant_id=tenant_id), once=True
                    )
                except _AnotherFlush:
                    request.renew()
            async with lane.lease(tenant_id) as lease:
                return await _answer(bound, begin.moment("a lease"), lease.flush)
        except (LaneAway, LineBroken):
            request.renew()
    async with request.service.database.snapshot(tenant_id, json_as_bytes=True) as snapshot:

        async def flush(calls: Sequence[Call]) -> list[Rows]:
            return [await snapshot.fetch(call.query, *call.parameters) for call in calls]

        return await _answer(bound, begin.moment("the pool"), flush)


@dataclass(slots=True)
class _Begin:
    """What a plan begins with, each time that it has to begin."""

    request: Request
    trace: Trace | None
    event: object
    health: Health | None = None

    def moment(self, way: Way) -> Moment:
        if self.trace is not None:
            self.trace.way, self.trace.flushes = way, []
        return Moment(self.request, self.health, self.trace, self.event)


async def _answer(bound: Bound, at: Moment, flush: Flush, *, once: bool = False) -> dict[str, Any]:
    """Run the steps. Those that wait for rows ask in one flush; then those below them are ready."""
    root = _Level(bound.plan.root, [at.event])
    ready = root.works
    waiting = _ask_early(bound, at)
    flushes = 0
    while True:
        while ready:
            work = ready.pop()
            given = work.field.step.run(at, work.objects, work.field.asked, **bound.arguments[work.field.number])
            if work.field.step.loads:
                _Waiting(given, work.descend).go_on(None, waiting, ready)
            else:
                ready += work.descend(given)
        if not waiting:
            break
        flushes += 1
        if once and flushes > 1:
            raise _AnotherFlush
        calls: list[Call] = []
        for asking in waiting:
            calls += [call for call in asking.calls if call not in calls]
        if at.trace is not None:
            at.trace.flushes.append(calls)
        rows = await flush(calls)
        told, waiting = waiting, []
        for asking in told:
            asking.go_on([rows[calls.index(call)] for call in asking.calls], waiting, ready)
    (data,) = root.encode()
    return data


def _ask_early(bound: Bound, at: Moment) -> list["_Waiting"]:
    """Ask what will surely be asked below a context of which only the id is known yet."""
    waiting: list[_Waiting] = []
    for field in bound.plan.early:
        above = field.above
        arguments = bound.arguments[field.number]
        # What nothing bounds may take several flushes, and then it would be asked twice.
        if above is None or field.step.early is None or field.step.rows(**arguments) is None:
            continue
        context_id = read_id(bound.arguments[above.number]["id"], "id")
        try:
            early = field.step.early(context_id, field.asked, **arguments)
        except Refusal:
            continue  # it is refused only if the context is there
        if early is not None:
            _Waiting(at.asking(early), partial(at.remember, early)).go_on(None, waiting, [])
    return waiting


class _Waiting:
    """A coroutine that waits for rows, and who is told what it gives; that may make other work ready."""

    __slots__ = ("_asking", "_done", "calls")

    def __init__(self, asking: Asking[list[Any]], done: Callable[[list[Any]], list["_Work"]]) -> None:
        self._asking = asking
        self._done = done
        self.calls: list[Call] = []

    def go_on(self, rows: list[Rows] | None, waiting: list["_Waiting"], ready: list["_Work"]) -> None:
        """Tell it its rows, none to begin: then it asks for more, or is done."""
        try:
            self.calls = self._asking.send(rows)
        except StopIteration as done:
            ready += self._done(done.value)
        else:
            waiting.append(self)


class _Work:
    """A field, for all objects of a level."""

    __slots__ = ("_found", "_level", "field", "objects")

    def __init__(self, field: Field, objects: list[Any]) -> None:
        self.field = field
        self.objects = objects
        self._found: list[Any] = []
        self._level: _Level | None = None

    def descend(self, found: list[Any]) -> list["_Work"]:
        """Take what was found for each object, and give the work that this makes ready."""
        self._found = found
        if self.field.below is None:
            return []
        if self.field.many:
            below = [item for items in found for item in items if item is not None]
        else:
            below = [item for item in found if item is not None]
        self._level = _Level(self.field.below, below)
        return self._level.works

    def encode(self) -> list[Any]:
        """Give what the field is in the response, for each object."""
        if self._level is None:
            return self._found
        encoded = iter(self._level.encode())
        if not self.field.many:
            return [None if item is None else next(encoded) for item in self._found]
        return [
            [None if item is None else next(encoded) for item in items]
            if None in items
            else list(islice(encoded, len(items)))
            for items in self._found
        ]


class _Level:
    """The objects at one place of the response, by their type."""

    __slots__ = ("_objects", "_parts", "_selection", "works")

    def __init__(self, selection: Selection, objects: list[Any]) -> None:
        self._objects = objects
        self._selection = selection
        self._parts: list[tuple[Branch, list[Any], list[_Work]]] = []
        self.works: list[_Work] = []
        for kind, branch in selection.branches:
            own = objects if len(selection.branches) == 1 else [item for item in objects if type(item) is kind]
            if own:
                works = [_Work(field, own) for field in branch.fields]
                self._parts.append((branch, own, works))
                self.works += works

    def encode(self) -> list[dict[str, Any]]:
        """Give each object as it stands in the response."""
        encoded = [branch.encode(own, [work.encode() for work in works]) for branch, own, works in self._parts]
        if len(encoded) <= 1:
            return encoded[0] if encoded else []
        by_kind = {type(own[0]): iter(values) for (_, own, _), values in zip(self._parts, encoded, strict=True)}
        return [next(by_kind[type(item)]) for item in self._objects]
