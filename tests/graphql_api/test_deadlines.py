"""Many tasks with one timer: each is stopped at its time, as by `asyncio.timeout`, and nobody else is."""

import asyncio
from contextlib import suppress

import pytest

from graphql_api.deadlines import Deadline, Deadlines


async def test_each_is_stopped_at_its_time_and_nobody_before() -> None:
    deadlines = Deadlines(0.1)
    ended: list[str] = []

    async def work(name: str, seconds: float) -> None:
        time = Deadline(deadlines)
        with suppress(TimeoutError), time:
            await asyncio.sleep(seconds)
        assert time.expired is (seconds > 1)
        ended.append(name)

    first = asyncio.create_task(work("first", 60))
    await asyncio.sleep(0.05)
    await asyncio.gather(first, work("second", 60), work("short", 0.01))
    assert ended == ["short", "first", "second"]


async def test_a_cancellation_from_outside_stays_one() -> None:
    deadlines = Deadlines(0.05)

    async def work() -> None:
        with Deadline(deadlines):
            try:
                await asyncio.sleep(60)
            finally:
                task.cancel()

    task = asyncio.create_task(work())
    with pytest.raises(asyncio.CancelledError):
        await task
    early = asyncio.create_task(work())
    await asyncio.sleep(0)
    early.cancel()
    with pytest.raises(asyncio.CancelledError):
        await early


async def test_a_failure_of_its_own_goes_before() -> None:
    with pytest.raises(TimeoutError, match="own"), Deadline(Deadlines(60)) as time:
        raise TimeoutError("own")
    assert not time.expired


async def test_who_takes_no_notice_is_not_told_twice() -> None:
    with Deadline(Deadlines(0.01)) as time, suppress(asyncio.CancelledError):
        await asyncio.sleep(60)
    assert time.expired
    task = asyncio.current_task()
    assert task
    assert task.cancelling() == 0
    await asyncio.sleep(0)
