"""Calls: what functions ask is noted, asked in one flush, and each is told its own rows."""

from collections.abc import Generator, Sequence
from typing import Any

import pytest

from db.call import Call, Recorder, Row, Rows, together
from db.queries import Query

ONE, TWO, THREE = (Query(f"test.{name}", "many", "select 1") for name in ("one", "two", "three"))


async def twice(reader: Recorder, number: int) -> list[Row]:
    """Ask, and ask for what came of it."""
    rows: list[Row] = []
    for query in (ONE, TWO):
        rows += await reader.fetch(query, number)
    return rows


async def once(reader: Recorder, number: int) -> list[Row]:
    return list(await reader.fetch(THREE, number))


async def never(number: int) -> int:
    return number


def drive(asking: Generator[list[Call], Sequence[Rows], list[Any]]) -> tuple[list[list[Call]], list[Any]]:
    """Answer each call with its own name and parameter; gives the flushes, and the results."""
    flushes: list[list[Call]] = []
    try:
        flushes.append(next(asking))
        while True:
            flushes.append(asking.send([[(call.query.name, *call.parameters)] for call in flushes[-1]]))
    except StopIteration as done:
        return flushes, done.value


def test_what_runs_side_by_side_asks_in_one_flush_and_is_told_its_own() -> None:
    reader = Recorder()
    flushes, results = drive(together(once(reader, 1), never(2), twice(reader, 3), once(reader, 4)))
    assert flushes == [[Call(THREE, (1,)), Call(ONE, (3,)), Call(THREE, (4,))], [Call(TWO, (3,))]]
    assert results == [[("test.three", 1)], 2, [("test.one", 3), ("test.two", 3)], [("test.three", 4)]]


def test_those_who_run_side_by_side_may_do_so_within_others() -> None:
    reader = Recorder()

    async def pair(number: int) -> list[Any]:
        return await together(once(reader, number), twice(reader, number))

    flushes, results = drive(together(pair(1), once(reader, 2), pair(3)))
    assert [len(flush) for flush in flushes] == [5, 2]
    own = [[("test.three", n), [("test.one", n), ("test.two", n)]] for n in (1, 3)]
    assert results == [[[own[0][0]], own[0][1]], [("test.three", 2)], [[own[1][0]], own[1][1]]]


def test_what_asks_nothing_needs_no_flush() -> None:
    assert drive(together(never(1), never(2))) == ([], [1, 2])
    assert drive(together()) == ([], [])


def test_a_failure_goes_to_whoever_drives() -> None:
    async def fails(reader: Recorder) -> None:
        await reader.fetch(ONE, 1)
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        drive(together(once(Recorder(), 1), fails(Recorder())))
