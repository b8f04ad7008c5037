"""What the steps of a plan read: one moment, asked of by statements that many steps send together.

Batches are coroutines over a reader. Here the reader only notes what it is asked, by a `Call`, and waits to be told the
rows; so `together` can run the batches of many steps at once without an event loop, and whoever drives it sends all
that they ask in one flush.
"""

from collections.abc import Coroutine, Generator, Sequence
from types import coroutine
from typing import Any, TypeVar

from db.line import Call
from db.pool import Row
from db.queries import Query
from schema.batches import Batches
from schema.health import Health
from schema.request import Request

Result = TypeVar("Result")

# Calls go up to whoever drives, their rows come down again.
Rows = Sequence[Row]
# They begin with None.
Asking = Coroutine[list[Call], list[Rows] | None, Result]


class Recorder:
    """A reader that hands its calls up. What was asked early, before anybody needed it, is at hand."""

    def __init__(self) -> None:
        self.early: list[tuple[Call, Rows]] = []

    @coroutine
    def fetch(self, query: Query, *parameters: Any) -> Generator[list[Call], list[Rows], Rows]:
        """Ask for the rows of one named query."""
        call = Call(query, parameters)
        for known, rows in self.early:
            if known == call:
                return rows
        (rows,) = yield [call]
        return rows


class Moment:
    """One moment of the database, for one request."""

    def __init__(self, request: Request, health: Health | None = None) -> None:
        self.request = request
        self.health = health
        self.recorder = Recorder()
        self.batches: Batches = request.batches(self.recorder)


@coroutine
def together(askings: Sequence[Asking[Any]]) -> Generator[list[Call], list[Rows], list[Any]]:
    """Run coroutines side by side, and give their results in order: what they ask at one time is one flush."""
    results: list[Any] = [None] * len(askings)
    told: dict[int, list[Rows] | None] = dict.fromkeys(range(len(askings)))
    while told:
        asked: list[tuple[int, list[Call]]] = []
        for place, rows in told.items():
            try:
                asked.append((place, askings[place].send(rows)))
            except StopIteration as done:
                results[place] = done.value
        told = {}
        if asked:
            calls = [call for _, own in asked for call in own]
            rows_of_all = iter((yield calls))
            told = {place: [next(rows_of_all) for _ in own] for place, own in asked}
    return results
