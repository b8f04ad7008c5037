"""One line: what is asked comes back as it was sent, what goes wrong is told to whom it belongs, in words of ours."""

import asyncio
import os
import signal
import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from db.call import Call
from db.errors import (
    Duplicate,
    LaneAway,
    LineBroken,
    OutOfRange,
    StatementTimeout,
    Unanswered,
    Unavailable,
    Unforeseen,
)
from db.line import encode
from db.pipeline import Lane
from db.queries import Query
from tests.db.lane import (
    BACKEND,
    COUNT,
    DIVIDE,
    FAIL,
    INFINITE,
    NOTE,
    NUMBER,
    NUMBERS,
    QUERIES,
    SLEEP,
    TENANT,
    ask,
    backends,
    opened,
    outcome,
    plant,
    query,
    recovered,
    through_proxy,
    until,
)

ONE: dict[str, Any] = {"size": 1, "in_flight_max": 8}


@pytest.fixture
def planted_url(database_url: str) -> str:
    plant(database_url)
    return database_url


# Parameters

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=40) | st.sampled_from(
    [
        "",
        " ",
        "NULL",
        "null",
        '"',
        "\\",
        '\\"',
        "{}",
        "{a,b}",
        ",",
        "a,b",
        "'",
        "$1",
        "\u2028",
        "🎈👩\u200d🚀",
        "\x7f\x01",
        "é" * 9,
    ]
)
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=ZONES | st.just(UTC)) | st.sampled_from(  # noqa: DTZ001 - a bound; the zone comes beside it
    [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
)
SMALL = st.integers(-(2**31), 2**31 - 1) | st.sampled_from([-(2**31), -1, 0, 2**31 - 1])
LARGE = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-(2**63), 0, 2**63 - 1])
KINDS: dict[LiteralString, st.SearchStrategy[Any]] = {
    "text": TEXTS,
    "uuid": st.uuids(),
    "timestamptz": MOMENTS,
    "integer": SMALL,
    "bigint": LARGE,
    "boolean": st.booleans(),
}


def lists(items: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(items | st.none(), max_size=6)


ECHOES: dict[LiteralString, Query] = {
    kind: query(f"echo_{kind}", "select $1::" + kind + ", $2::" + kind + "[]") for kind in KINDS
}
PARAMETERS = st.lists(
    st.sampled_from(list(KINDS)).flatmap(
        lambda kind: st.tuples(st.just(kind), KINDS[kind] | st.none(), lists(KINDS[kind]) | st.none())
    ),
    max_size=8,
)


@pytest.fixture
async def echo(database_url: str) -> Any:
    async with opened(database_url, BACKEND, *ECHOES.values(), **ONE) as lane:
        yield lane


@given(asked=PARAMETERS)
@example(asked=[("text", "x" * 1_000_000, ["y" * 500_000, None, "\\" * 200_000])])
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_parameters_of_every_kind_come_back_as_they_went(echo: Lane, asked: list[Any]) -> None:
    found = await echo.flush([Call(ECHOES[kind], (value, values)) for kind, value, values in asked], TENANT)
    assert found == [[(value, values)] for _, value, values in asked]


class Text(str):
    __slots__ = ()


BAD: tuple[Any, ...] = ("a\0b", "\ud800", "x\udfff", ["fine", "\0"], ["\udc80"], 1.5, 2.0, b"x", {}, Text("7"))


async def test_what_postgresql_cannot_take_is_refused_before_anything_is_sent(echo: Lane) -> None:
    """A float used to lose its fraction without a word."""
    before = await backends(echo, 1)
    beside = [asyncio.create_task(ask(echo, ECHOES["integer"], n, [n])) for n in range(20)]
    for bad in BAD:
        with pytest.raises((ValueError, TypeError)):
            await echo.flush([Call(ECHOES["integer"], (1, [])), Call(ECHOES["text"], (bad, None))], TENANT)
        async with echo.lease(TENANT) as lease:
            with pytest.raises((ValueError, TypeError)):
                await lease.flush([Call(ECHOES["text"], (None, bad))])
            assert await lease.flush([Call(ECHOES["integer"], (2, []))]) == [[(2, [])]]
    assert await asyncio.gather(*beside) == [[(n, [n])] for n in range(20)]
    assert await backends(echo, 1) == before


def test_parameters_are_written_in_the_text_format() -> None:
    written = {
        None: None,
        True: b"t",
        -7: b"-7",
        'a"\\': b'a"\\',
        UUID(int=10): b"0000000000000000000000000000000a",
        ("NULL", None, 'a"\\,{', ""): b'{"NULL",NULL,"a\\"\\\\,{",""}',
        (): b"{}",
    }
    assert {value: encode(value) for value in written} == written


# Failures


MET = "The change met another one on its way and was undone. Try again."
AWAY = "The database cannot be reached just now. Nothing was lost that was acknowledged; try again."
ALLOWED = "a statement may take 20 seconds."
SQLSTATES = {
    "40P01": (Unavailable, MET),
    "40001": (Unavailable, MET),
    "57014": (StatementTimeout, f"The database took too long and was stopped: {ALLOWED} Ask for less, or try again."),
    "23505": (Duplicate, "A row with this key is there already."),
    "22003": (OutOfRange, "A total would pass 2147483647, the largest Int of GraphQL. Use another context."),
    "53300": (Unavailable, AWAY),
    "57P01": (Unavailable, AWAY),
    "22012": (Unforeseen, "DivisionByZero: a secret"),
    "42P01": (Unforeseen, "UndefinedTable: a secret"),
    "XX000": (Unforeseen, "InternalError_: a secret"),
    "ZZ999": (Unforeseen, "DatabaseError: a secret"),
}


async def test_a_failure_is_told_in_words_of_ours_to_its_own_batch(planted_url: str) -> None:
    async with opened(planted_url, **ONE) as lane:
        before = await backends(lane, 1)
        for sqlstate, own in SQLSTATES.items():
            failing = [Call(NUMBER, (1,)), Call(FAIL, (sqlstate,)), Call(NUMBER, (2,)), Call(DIVIDE, (0,))]
            asked = [ask(lane, NUMBER, 1), lane.flush(failing, TENANT), ask(lane, NUMBER, 3)]
            first, failed, last = await asyncio.gather(*map(outcome, asked))
            assert (first, (type(failed), str(failed)), last) == ([(1,)], own, [(3,)])
        assert await backends(lane, 1) == before


async def test_a_value_that_python_cannot_hold_fails_its_batch_alone(planted_url: str) -> None:
    async with opened(planted_url, **ONE) as lane:
        asked = [ask(lane, NUMBER, 1), ask(lane, INFINITE, 0), ask(lane, NUMBERS, 3), ask(lane, DIVIDE, 0)]
        found = await asyncio.gather(*map(outcome, asked))
        assert [found[0], type(found[1]), found[2], type(found[3])] == [
            [(1,)],
            Unforeseen,
            [(1,), (2,), (3,)],
            Unforeseen,
        ]
        # The rows of what comes after it in its batch are not taken for its own.
        both = await outcome(lane.flush([Call(NUMBER, (1,)), Call(INFINITE, (0,)), Call(NUMBER, (2,))], TENANT))
        assert (type(both), "DataError" in str(both)) == (Unforeseen, True)


async def test_a_read_line_writes_nothing_and_a_batch_that_fails_leaves_nothing(planted_url: str) -> None:
    async with opened(planted_url, **ONE) as lane:
        with pytest.raises(Unforeseen, match="ReadOnlySqlTransaction"):
            await ask(lane, NOTE, 1)
    async with opened(planted_url, session="write", **ONE) as lane:
        with pytest.raises(Duplicate):
            await lane.flush([Call(NOTE, (1,)), Call(NOTE, (2,)), Call(NOTE, (1,))], TENANT)
        assert await ask(lane, COUNT) == [(0,)]
        assert await lane.flush([Call(NOTE, (1,)), Call(NOTE, (2,)), Call(COUNT, ())], TENANT) == [
            [(1,)],
            [(2,)],
            [(2,)],
        ]


async def test_a_statement_past_its_time_is_stopped_alone(planted_url: str) -> None:
    async with opened(planted_url, statement_seconds=0.3, **ONE) as lane:
        before = await backends(lane, 1)
        started = time.perf_counter()
        asked = [ask(lane, NUMBER, 1), ask(lane, SLEEP, 2, 60_000), ask(lane, NUMBER, 3), ask(lane, SLEEP, 4, 50)]
        first, slow, *last = await asyncio.gather(*map(outcome, asked))
        assert (first, type(slow), *last) == ([(1,)], StatementTimeout, [(3,)], [(4, "")])
        assert 0.3 <= time.perf_counter() - started < 1.3
        assert await backends(lane, 1) == before


# A server that does not answer


async def test_a_server_that_says_nothing_is_given_up_in_time(planted_url: str) -> None:
    async with through_proxy(planted_url) as (proxy, url), opened(url, statement_seconds=0.2, **ONE) as lane:
        # A batch of many statements has more time, and those behind it must not be given as much.
        await lane.flush([Call(NUMBER, (n,)) for n in range(200)], TENANT)
        proxy.flowing.clear()
        started = time.perf_counter()
        first, *others = await asyncio.gather(*(outcome(ask(lane, NUMBER, n)) for n in range(5)))
        assert 1.1 < time.perf_counter() - started < 2.5
        assert [type(first), *map(type, others)] == [Unanswered, *[LineBroken] * 4]
        proxy.flowing.set()
        assert await recovered(lane, 1) < 3


async def test_a_frozen_process_of_the_server_is_given_up_and_replaced(planted_url: str) -> None:
    async with opened(planted_url, statement_seconds=0.2, **ONE) as lane:
        (pid,) = await backends(lane, 1)
        await ask(lane, NUMBER, 0)  # so that nothing else is under way
        os.kill(pid, signal.SIGSTOP)
        try:
            first, second = await asyncio.gather(*(outcome(ask(lane, NUMBER, n)) for n in range(2)))
            assert [type(first), type(second)] == [Unanswered, LineBroken]
            await recovered(lane, 1)
            assert await backends(lane, 1) != {pid}
        finally:
            os.kill(pid, signal.SIGCONT)


async def test_a_lane_closes_at_once_while_the_server_says_nothing(planted_url: str) -> None:
    """While a line is being made too: psycopg would wait for a server to confirm that it stops."""
    async with through_proxy(planted_url) as (proxy, url):
        for wait in (0.0, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05):
            async with opened(url, whole=False, connect_seconds=30) as lane:
                await asyncio.sleep(wait)
                proxy.flowing.clear()
                await asyncio.sleep(0.01)
                started = time.perf_counter()
                await lane.close()
                assert time.perf_counter() - started < 1
                proxy.flowing.set()


# Preparing


async def test_a_line_takes_part_only_when_every_query_is_prepared(planted_url: str) -> None:
    """A failure used to end the making of lines for good, and left the closed socket with the event loop."""
    late = query("late", "select n from later")
    async with opened(planted_url, *QUERIES, late, whole=False, connect_seconds=2) as lane:
        for _ in range(60):
            assert not lane.ready
            with pytest.raises(LaneAway):
                await ask(lane, NUMBER, 1)
            await asyncio.sleep(0.01)
        with psycopg.connect(planted_url) as connection:
            connection.execute("create table later as select 7 as n")
        await until(lambda: lane.ready)
        assert await ask(lane, late) == [(7,)]
        assert await ask(lane, NUMBER, 1) == [(1,)]


@pytest.mark.parametrize("change", ["alter table later alter column n type bigint", "deallocate all"])
async def test_a_line_whose_statements_are_of_no_use_any_more_is_replaced(planted_url: str, change: str) -> None:
    """The server has undone such a batch, so that even what writes may be asked of the pool."""
    with psycopg.connect(planted_url) as connection:
        connection.execute("create table later as select 7 as n")
    late, forget = query("late", "select n from later"), query("forget", "deallocate all")
    async with opened(planted_url, *QUERIES, late, forget, session="write", **ONE) as lane:
        assert await ask(lane, late) == [(7,)]
        if change == forget.text:
            await lane.flush([Call(forget, ())], TENANT)
        else:
            with psycopg.connect(planted_url) as connection:
                connection.execute(change.encode())
        asked = [lane.flush([Call(NOTE, (1,)), Call(late, ())], TENANT), ask(lane, NUMBER, 1)]
        failed, behind = await asyncio.gather(*map(outcome, asked))
        assert [type(failed), type(behind)] == [LaneAway, LineBroken]
        await recovered(lane, 1)
        assert await lane.flush([Call(late, ()), Call(COUNT, ())], TENANT) == [[(7,)], [(0,)]]
