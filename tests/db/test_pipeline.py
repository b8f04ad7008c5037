"""The fast lane: one moment for a batch and for a lease, each its own answer, an end to every wait, no trace left."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db.call import Call
from db.errors import Duplicate, LineBroken, StatementTimeout, Unavailable, Unforeseen
from db.pipeline import WAITING_MAX, Lane
from tests.db.lane import (
    COUNT,
    DIVIDE,
    FAIL,
    INFINITE,
    LIMITS,
    LOCKED,
    NOTE,
    NUMBER,
    NUMBERS,
    SLEEP,
    TENANT,
    Lock,
    ask,
    backends,
    opened,
    outcome,
    plant,
    through_proxy,
    until,
)
from tests.proxy import pass_all

TOO_BUSY = "The database is too busy to answer in time. Try again in a moment."


@pytest.fixture
def planted_url(database_url: str) -> str:
    plant(database_url)
    return database_url


@pytest.fixture
async def lane(planted_url: str) -> AsyncIterator[Lane]:
    async with opened(planted_url) as lane:
        yield lane


@pytest.fixture(params=[False, True], ids=["row security off", "on"])
async def written(planted_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Lane]:
    """A lane that may write, whose unique number 0 is taken."""
    with psycopg.connect(planted_url) as connection:
        connection.execute("insert into noted values (0)")
    async with opened(planted_url, session="write", row_security=request.param) as lane:
        yield lane


@pytest.fixture
def lock(planted_url: str) -> Iterator[Lock]:
    with psycopg.connect(planted_url, autocommit=True) as connection:
        lock = Lock(connection)
        lock.hold()
        yield lock


# One moment


async def test_a_batch_stands_at_one_moment(lane: Lane, planted_url: str) -> None:
    with psycopg.connect(planted_url, autocommit=True) as writer:
        asked = lane.flush([Call(COUNT, ()), Call(SLEEP, (1, 300)), Call(COUNT, ())], TENANT)
        batch = asyncio.create_task(asked)
        await asyncio.sleep(0.1)
        writer.execute("insert into noted values (1)")
        assert await ask(lane, COUNT) == [(1,)]
        assert not batch.done()
        assert await batch == [[(0,)], [(1, "")], [(0,)]]


async def test_a_lease_stands_at_the_moment_of_its_first_flush_and_is_nobody_elses(planted_url: str) -> None:
    async with opened(planted_url, size=1, in_flight_max=2) as lane:
        with psycopg.connect(planted_url, autocommit=True) as writer:
            async with lane.lease(TENANT) as lease:
                writer.execute("insert into noted values (1)")
                assert await lease.flush([Call(COUNT, ())]) == [[(1,)]]
                writer.execute("insert into noted values (2)")
                others = [asyncio.create_task(ask(lane, COUNT)) for _ in range(10)]
                failing = asyncio.create_task(outcome(ask(lane, DIVIDE, 0)))
                await asyncio.sleep(0.05)
                assert await lease.flush([Call(COUNT, ()), Call(COUNT, ())]) == [[(1,)], [(1,)]]
                assert not any(other.done() for other in others)
            assert await asyncio.gather(*others) == [[(2,)]] * 10
            assert isinstance(await failing, Unforeseen)
            assert await ask(lane, COUNT) == [(2,)]


@pytest.mark.parametrize("leaves", [False, True])
async def test_who_was_next_is_not_sent_into_a_lease_that_begins_in_that_moment(planted_url: str, leaves: bool) -> None:
    """Its answer makes room for the next one, who used to send behind BEGIN, or to end the lease when it had left."""
    async with opened(planted_url, size=1, in_flight_max=1) as lane:

        async def hold() -> None:
            assert await ask(lane, NUMBER, 1) == [(1,)]
            async with lane.lease(TENANT) as lease:
                if leaves:
                    following.cancel()
                assert await lease.flush([Call(COUNT, ())]) == [[(0,)]]
                other = asyncio.create_task(outcome(ask(lane, DIVIDE, 0)))
                await asyncio.sleep(0.05)
                assert await lease.flush([Call(COUNT, ())]) == [[(0,)]]
            assert isinstance(await other, Unforeseen)

        holding = asyncio.create_task(hold())
        following = asyncio.create_task(ask(lane, DIVIDE, 0))
        await holding
        assert isinstance(await outcome(following), Unforeseen | asyncio.CancelledError)


async def test_a_lease_ends_with_its_holder(planted_url: str) -> None:
    async with opened(planted_url, size=1) as lane:

        async def hold(end: str) -> None:
            async with lane.lease(TENANT) as lease:
                if end == "sends nothing":
                    return
                await lease.flush([Call(COUNT, ())])
                if end == "fails":
                    await lease.flush([Call(DIVIDE, (0,))])
                if end == "raises":
                    raise KeyError
                await lease.flush([Call(SLEEP, (1, 300))])

        for number, end in enumerate(["raises", "is cancelled", "fails", "sends nothing"]):
            holder = asyncio.create_task(hold(end))
            await asyncio.sleep(0.1)
            if end == "is cancelled":
                holder.cancel()
            await outcome(holder)
            with psycopg.connect(planted_url, autocommit=True) as writer:
                writer.execute("insert into noted values (%s)", [number])
            assert await ask(lane, COUNT) == [(number + 1,)]


async def test_whoever_stops_waiting_for_a_lease_leaves_no_trace(planted_url: str) -> None:
    async def hold(lane: Lane) -> None:
        async with lane.lease(TENANT) as lease:
            assert await lease.flush([Call(NUMBER, (1,))]) == [[(1,)]]

    async with opened(planted_url, size=1, in_flight_max=1) as lane:
        for ticks in range(40):
            waiting = [asyncio.create_task(hold(lane)) for _ in range(3)]
            asking = [asyncio.create_task(ask(lane, NUMBER, n)) for n in range(3)]
            for _ in range(ticks):
                await asyncio.sleep(0 if ticks % 2 else 0.0003)
            for task in (*waiting[1:], asking[1]):
                task.cancel()
            found = await asyncio.gather(*asking, *waiting, return_exceptions=True)
            assert [found[0], found[2], found[3]] == [[(0,)], [(2,)], None]
            assert await ask(lane, NUMBER, 7) == [(7,)]


# Each its own answer


async def test_two_hundred_at_once_are_answered_each_with_its_own_rows(lane: Lane) -> None:
    asked = [lane.flush([Call(NUMBER, (n,)), Call(NUMBERS, (n % 7,)), Call(NUMBER, (-n,))], TENANT) for n in range(200)]
    own = [[[(n,)], [(row,) for row in range(1, n % 7 + 1)], [(-n,)]] for n in range(200)]
    assert await asyncio.gather(*asked) == own


@dataclass(frozen=True)
class Asked:
    """A batch of a client, in a lease or not, which goes away after so many turns of the loop if it does."""

    kinds: tuple[str, ...]
    cancelled_after: int | None
    leased: bool


FAILURES: dict[str, type[Exception]] = {
    "divide": Unforeseen,
    "duplicate": Duplicate,
    "stopped": StatementTimeout,
    "infinite": Unforeseen,
}
ASKED = st.builds(
    Asked,
    kinds=st.lists(st.sampled_from(["number", "number", "numbers", "none", "slow", *FAILURES]), max_size=4).map(tuple),
    cancelled_after=st.none() | st.integers(0, 12) | st.sampled_from([30, 100]),
    leased=st.sampled_from([False, False, False, True]),
)


def call_of(kind: str, number: int) -> tuple[Call, Any]:
    """Give a call, and the rows that belong to it."""
    calls: dict[str, tuple[Call, Any]] = {
        "number": (Call(NUMBER, (number,)), [(number,)]),
        "numbers": (Call(NUMBERS, (3,)), [(1,), (2,), (3,)]),
        "none": (Call(NUMBERS, (0,)), []),
        "slow": (Call(SLEEP, (number, 2)), [(number, "")]),
        "divide": (Call(DIVIDE, (0,)), None),
        "duplicate": (Call(NOTE, (0,)), None),
        "stopped": (Call(FAIL, ("57014",)), None),
        "infinite": (Call(INFINITE, (0,)), None),
    }
    return calls[kind]


async def play(lane: Lane, asked: Asked, number: int) -> None:
    """Ask, and check that what comes of it is this one's own."""
    made = [call_of(kind, 10 * number + place) for place, kind in enumerate(asked.kinds)]
    calls, own = [call for call, _ in made], [rows for _, rows in made]
    failure = next((FAILURES[kind] for kind in asked.kinds if kind in FAILURES), None)

    async def run() -> Any:
        if not asked.leased:
            return await lane.flush(calls, TENANT)
        async with lane.lease(TENANT) as lease:
            return [(await lease.flush([call]))[0] for call in calls]

    task = asyncio.create_task(run())
    if asked.cancelled_after is not None:
        for _ in range(asked.cancelled_after):
            await asyncio.sleep(0)
        task.cancel()
    found = await outcome(task)
    if asked.cancelled_after is not None and isinstance(found, asyncio.CancelledError):
        return
    if failure is None:
        assert found == own, asked
    else:
        assert type(found) is failure, asked


@given(all_asked=st.lists(ASKED, min_size=1, max_size=30))
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_in_every_interleaving_each_is_answered_with_its_own(written: Lane, all_asked: list[Asked]) -> None:
    await asyncio.gather(*(play(written, asked, number) for number, asked in enumerate(all_asked)))
    assert [await ask(written, NUMBER, n) for n in range(3)] == [[(n,)] for n in range(3)]


async def test_what_interleaves_never_breaks_a_line(written: Lane) -> None:
    before = await backends(written, LIMITS.size)
    kinds = ["number", *FAILURES, "slow", "none"]
    all_asked = [Asked((kinds[n % 7], kinds[n % 5]), n % 11 if n % 3 == 0 else None, n % 8 == 0) for n in range(200)]
    await asyncio.gather(*(play(written, asked, number) for number, asked in enumerate(all_asked)))
    assert await backends(written, LIMITS.size) == before


# An end to every wait


async def test_no_more_are_under_way_than_allowed(planted_url: str, lock: Lock) -> None:
    sent = 0

    def count(chunk: bytes) -> None:
        nonlocal sent
        sent += chunk.count(b"S\0\0\0\4") if b"test.locked" in chunk or b"test.number" in chunk else 0

    async with through_proxy(planted_url) as (proxy, url), opened(url, size=1, in_flight_max=5) as lane:
        await ask(lane, NUMBER, 0)
        proxy.judge = count
        first = asyncio.create_task(ask(lane, LOCKED, 0))
        others = [asyncio.create_task(ask(lane, NUMBER, n)) for n in range(30)]
        await asyncio.sleep(0.2)
        assert sent == 5
        for task in others[:10]:
            task.cancel()  # its place in the queue is free, but not the one on the line
        await asyncio.sleep(0.1)
        assert sent == 5
        lock.release()
        assert await first == [(0, "")]
        assert await asyncio.gather(*others[10:]) == [[(n,)] for n in range(10, 30)]
        proxy.judge = pass_all


async def test_a_full_queue_refuses_at_once_and_whoever_leaves_it_makes_room(planted_url: str, lock: Lock) -> None:
    """Whoever had been cancelled used to hold its place until a line came to it."""
    async with opened(planted_url, size=2, in_flight_max=1) as lane:
        held = [asyncio.create_task(ask(lane, LOCKED, n)) for n in range(2)]
        waiting = [asyncio.create_task(ask(lane, NUMBER, n)) for n in range(WAITING_MAX)]
        await asyncio.sleep(0)
        for asked in (lambda: ask(lane, NUMBER, 1), lambda: lane.lease(TENANT).__aenter__()):
            with pytest.raises(Unavailable, match=r"^Too many requests are waiting"):
                await asyncio.wait_for(asked(), 0.5)
        for task in waiting[10:]:
            task.cancel()
        await asyncio.sleep(0)
        more = [asyncio.create_task(ask(lane, NUMBER, n)) for n in range(10, WAITING_MAX)]
        await asyncio.sleep(0)
        lock.release()
        assert await asyncio.gather(*held) == [[(0, "")], [(1, "")]]
        assert await asyncio.gather(*waiting[:10], *more) == [[(n,)] for n in range(WAITING_MAX)]


async def test_whoever_waits_too_long_is_told_so(planted_url: str, lock: Lock) -> None:
    async with opened(planted_url, size=1, in_flight_max=1, wait_seconds=0.3) as lane:
        held = asyncio.create_task(ask(lane, LOCKED, 0))
        await asyncio.sleep(0.05)
        started = time.perf_counter()
        asked = [ask(lane, NUMBER, 1), lane.lease(TENANT).__aenter__(), ask(lane, NUMBER, 2)]
        found = await asyncio.gather(*map(outcome, asked))
        assert 0.3 <= time.perf_counter() - started < 1
        assert [(type(each), str(each)) for each in found] == [(Unavailable, TOO_BUSY)] * 3
        lock.release()
        assert await held == [(0, "")]  # a batch that was sent has another limit, however long it takes
        assert await ask(lane, NUMBER, 3) == [(3,)]


async def test_a_new_line_takes_as_many_as_it_may(planted_url: str, lock: Lock) -> None:
    """It used to take one, and the next ones only as answers came."""
    sent = 0

    def count(chunk: bytes) -> None:
        nonlocal sent
        sent += chunk.count(b"S\0\0\0\4") if b"test.locked" in chunk and b"select" not in chunk else 0

    async with through_proxy(planted_url) as (proxy, url), opened(url, size=2, in_flight_max=3) as lane:
        held = [asyncio.create_task(outcome(ask(lane, LOCKED, n))) for n in range(6)]
        await asyncio.sleep(0.1)
        waiting = [asyncio.create_task(ask(lane, LOCKED, n)) for n in range(3)]
        proxy.judge = count
        with psycopg.connect(planted_url, autocommit=True) as killer:
            blocked = "from pg_stat_activity where datname = current_database() and wait_event = 'advisory'"
            assert killer.execute(f"select count(*) {blocked}".encode()).fetchall() == [(2,)]
            killer.execute(f"select pg_terminate_backend(pid, 5000) {blocked} limit 1".encode())
        await until(lambda: sum(each.done() for each in held) == 3)
        assert [type(each.result()) for each in held if each.done()] == [LineBroken] * 3
        # Those that waited are all sent when the new line is there, though nothing has been answered.
        await until(lambda: sent == 3)
        lock.release()
        assert await asyncio.gather(*waiting) == [[(n, "")] for n in range(3)]
        await asyncio.gather(*held)
