"""Calls: what functions of the store ask, noted instead of run, so that many of them ask together.

They are coroutines that await nothing but a reader. A `Recorder` is a reader that hands each call up to whoever drives
the coroutine, and gives back the rows that it is told. So no event loop is needed to run many side by side, and what
they ask at one time leaves in one flush.
"""

from collections.abc import Coroutine, Generator, Sequence
from types import coroutine
from typing import Any, NamedTuple, TypeVar

from db.queries import Query

Row = tuple[Any, ...]
Rows = Sequence[Row]
Result = TypeVar("Result")


class Call(NamedTuple):
    """A named query and its parameters, the tenant first."""

    query: Query
    parameters: tuple[Any, ...]


# Calls go up, the rows of each come down. The first thing that comes down is None, which begins.
Asking = Coroutine[list[Call], Sequence[Rows] | None, Result]


class Recorder:
    """A reader that hands its calls up."""

    @coroutine
    def fetch(self, query: Query, *parameters: Any) -> Generator[list[Call], Sequence[Rows], Rows]:
        """Ask for the rows of one named query."""
        (rows,) = yield [Call(query, parameters)]
        return rows


@coroutine
def together(*askings: Asking[Any]) -> Generator[list[Call], Sequence[Rows], list[Any]]:
    """Run coroutines side by side, and give their results in order."""
    results: list[Any] = [None] * len(askings)
    told: dict[int, Sequence[Rows] | None] = dict.fromkeys(range(len(askings)))
    while told:
        asked: dict[int, list[Call]] = {}
        for place, rows in told.items():
            try:
                asked[place] = askings[place].send(rows)
            except StopIteration as done:
                results[place] = done.value
        told = {}
        if asked:
            rows_of_all = iter((yield [call for own in asked.values() for call in own]))
            told = {place: [next(rows_of_all) for _ in own] for place, own in asked.items()}
    return results
