"""The fast lane loses connections, servers and its own end: everybody is told in time, and lines are made anew."""

import asyncio
import time
from collections.abc import Iterator

import psycopg
import pytest

from db.call import Call
from db.errors import LaneAway, LineBroken, Unanswered, Unavailable
from db.pipeline import Lane
from tests.db.lane import (
    LIMITS,
    LOCKED,
    NUMBER,
    NUMBERS,
    TENANT,
    Lock,
    ask,
    opened,
    outcome,
    plant,
    quiet,
    recovered,
    through_proxy,
    until,
)
from tests.proxy import cut_anywhere, pass_all

pytestmark = pytest.mark.every_loop


@pytest.fixture
def planted_url(database_url: str) -> str:
    plant(database_url)
    return database_url


@pytest.fixture
def lock(planted_url: str) -> Iterator[Lock]:
    with psycopg.connect(planted_url, autocommit=True) as connection:
        lock = Lock(connection)
        lock.hold()
        yield lock


async def test_connections_cut_at_any_byte_mix_nothing_up(planted_url: str) -> None:
    told: list[Exception] = []

    async def client(number: int, lane: Lane, end: float) -> None:
        while time.monotonic() < end:
            try:
                rows = [await ask(lane, NUMBER, number), await ask(lane, NUMBERS, number)]
                async with lane.lease(TENANT) as lease:
                    rows += await lease.flush([Call(NUMBER, (-number,))])
                assert rows == [[(number,)], [(n,) for n in range(1, number + 1)], [(-number,)]]
            except Unavailable as error:
                told.append(error)
                await asyncio.sleep(0.005)

    async with through_proxy(planted_url) as (proxy, url), opened(url, connect_seconds=2) as lane:
        proxy.judge = cut_anywhere(0.02)
        await asyncio.gather(*(client(number, lane, time.monotonic() + 2) for number in range(20)))
        proxy.judge = pass_all
        assert await recovered(lane, LIMITS.size) < 3
        assert proxy.cuts > 20
    assert {type(error) for error in told} == {LineBroken, LaneAway}


async def test_terminated_processes_are_replaced_and_whoever_waits_is_told(planted_url: str, lock: Lock) -> None:
    """uvloop tells of a failed socket once; the server's last words, there to be read, used to hide it."""
    async with opened(planted_url) as lane:
        with psycopg.connect(planted_url, autocommit=True) as killer:
            for _ in range(5):
                asked = [asyncio.create_task(outcome(ask(lane, LOCKED, n))) for n in range(LIMITS.size * 4)]
                queued = [asyncio.create_task(outcome(ask(lane, NUMBER, n))) for n in range(5)]
                await asyncio.sleep(0.05)
                killer.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() "
                    "and query like '%pg_advisory_xact_lock_shared%' and pid <> pg_backend_pid()"
                )
                assert {type(found) for found in await asyncio.gather(*asked)} == {LineBroken}
                # Whoever waits in the queue is sent away with the last line, or served by the first new one.
                for number, found in enumerate(await asyncio.gather(*queued)):
                    assert type(found) is LaneAway or found == [(number,)]
                lock.release()
                assert await recovered(lane, LIMITS.size) < 3
                lock.hold()


async def test_a_line_that_breaks_within_a_large_answer_is_noticed_at_once(planted_url: str) -> None:
    async with through_proxy(planted_url) as (proxy, url), opened(url, size=1, in_flight_max=8) as lane:
        for place in range(12):
            await recovered(lane, 1)
            chunks = iter([None] * place + [7_000])  # the proxy then leaves unread what was sent to it
            proxy.judge = lambda _, chunks=chunks: next(chunks, None)  # type: ignore[misc] # bound now
            started = time.perf_counter()
            asked = [lane.flush([Call(NUMBERS, (20_000,))], TENANT) for _ in range(8)]
            asked.append(lane.flush([Call(NUMBER, (1,))] * 500, TENANT))
            for found in await asyncio.gather(*map(outcome, asked)):
                assert isinstance(found, list | LineBroken | LaneAway)
            assert time.perf_counter() - started < 5
        proxy.judge = pass_all
        assert proxy.cuts == 12


async def test_a_lease_whose_holder_says_nothing_is_ended_by_the_server(planted_url: str) -> None:
    async with opened(planted_url, size=1, statement_seconds=0.2) as lane:
        async with lane.lease(TENANT) as lease:
            assert await lease.flush([Call(NUMBER, (1,))]) == [[(1,)]]
            await asyncio.sleep(0.5)
            for _ in range(2):
                assert type(await outcome(lease.flush([Call(NUMBER, (2,))]))) is LaneAway
        await recovered(lane, 1)
        assert await ask(lane, NUMBER, 3) == [(3,)]


async def test_a_lane_closes_with_batches_in_flight_and_in_the_queue(planted_url: str, lock: Lock) -> None:
    async with opened(planted_url, whole=False, size=2, in_flight_max=2) as lane:
        await recovered(lane, 2)
        asked = [asyncio.create_task(outcome(ask(lane, LOCKED, n))) for n in range(10)]
        leased = asyncio.create_task(outcome(lane.lease(TENANT).__aenter__()))
        await asyncio.sleep(0.05)
        started = time.perf_counter()
        await lane.close()
        found = await asyncio.gather(*asked, leased)
        assert time.perf_counter() - started < 1
        assert [type(each) for each in found] == [LineBroken] * 4 + [LaneAway] * 7
        lock.release()
        for again in (ask(lane, NUMBER, 1), lane.lease(TENANT).__aenter__()):
            with pytest.raises(LaneAway):
                await again
    with psycopg.connect(planted_url, autocommit=True) as connection:
        text = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        await until(lambda: connection.execute(text).fetchall() == [(1,)])  # the lock's own


async def test_a_lane_makes_lines_as_somebody_waits_and_none_while_it_is_closed(planted_url: str) -> None:
    async with quiet(), through_proxy(planted_url) as (proxy, url):
        made = 0

        def count(chunk: bytes) -> None:
            nonlocal made
            made += b"\0database\0" in chunk  # a connection begins

        proxy.judge = count
        for ticks in range(30):
            made = 0
            async with opened(url, whole=False, size=4, in_flight_max=1, begin_with=1) as lane:
                await until(lambda lane=lane: lane.ready)  # type: ignore[misc] # bound now
                assert await ask(lane, NUMBER, 1) == [(1,)]
                assert made == 1

                async def client(lane: Lane) -> None:
                    while type(await outcome(ask(lane, NUMBER, 2))) is list:
                        pass

                clients = [asyncio.create_task(client(lane)) for _ in range(12)]
                for _ in range(ticks):
                    await asyncio.sleep(0)
                if ticks % 10 == 0:
                    await recovered(lane, 4)
                    assert made == 4
                await lane.close()
                await asyncio.gather(*clients)


async def test_a_frozen_server_answers_nobody_and_everybody_is_told_in_time(planted_url: str) -> None:
    async with through_proxy(planted_url) as (proxy, url), opened(url, statement_seconds=0.2, wait_seconds=3) as lane:
        proxy.flowing.clear()
        started = time.perf_counter()
        found = await asyncio.gather(*(outcome(ask(lane, NUMBER, n)) for n in range(20)))
        assert time.perf_counter() - started < 3
        proxy.flowing.set()
        in_flight = LIMITS.size * LIMITS.in_flight_max
        kinds = [type(each) for each in found]
        assert (kinds.count(Unanswered), kinds.count(LineBroken)) == (LIMITS.size, in_flight - LIMITS.size)
        assert set(kinds[in_flight:]) == {LaneAway}


async def test_many_statements_wait_no_longer_for_a_frozen_server_than_one(planted_url: str) -> None:
    async with through_proxy(planted_url) as (proxy, url), opened(url, statement_seconds=0.2) as lane:
        proxy.flowing.clear()
        started = time.perf_counter()
        found = await outcome(lane.flush([Call(NUMBER, (n,)) for n in range(30)], TENANT))
        assert (type(found), time.perf_counter() - started < 5) == (Unanswered, True)
        proxy.flowing.set()
