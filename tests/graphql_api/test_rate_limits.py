"""How much a tenant may ask in a while: as a bucket that fills drop by drop would say, in one process and in many."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from db import rate_limit
from db.pool import Database, PoolLimits
from db.rate_limit import Charged
from graphql_api.app import create_app
from graphql_api.rates import Rates
from graphql_api.settings import Settings
from schema.errors import Code, LimitExceeded
from tests import service
from tests.conftest import api_over
from tests.graphql_api.asking import SETTINGS
from tests.graphql_api.serving import serving

POOL = PoolLimits(size_min=1, size_max=4, wait_seconds=5, connect_seconds=5, statement_seconds=5, append_lane_size=2)
# So slow that no test is long enough for a point.
NEVER = 0.001


def limited(per_second: float, burst: int, **settings: Any) -> Settings:
    chosen = {"rate_points_per_second": per_second, "rate_points_burst": burst, **settings}
    return SETTINGS.model_copy(update=chosen)


@dataclass
class Drops:
    """The reference: buckets that are filled, exactly."""

    per_second: int
    burst: int
    levels: dict[str, Fraction] = field(default_factory=dict)

    def pass_time(self, seconds: Fraction) -> None:
        self.levels = {
            tenant: min(level + seconds * self.per_second, Fraction(self.burst))
            for tenant, level in self.levels.items()
        }

    def wait(self, tenant: str, points: int) -> Fraction:
        return max(points - self.levels.get(tenant, Fraction(self.burst)), Fraction(0)) / self.per_second

    def take(self, tenant: str, points: int) -> None:
        self.levels[tenant] = self.levels.get(tenant, Fraction(self.burst)) - points


@given(
    st.lists(st.tuples(st.integers(0, 200), st.sampled_from("ab"), st.integers(1, 70)), max_size=100),
    st.sampled_from([1, 4, 32]),
    st.integers(1, 64),
)
def test_it_agrees_with_buckets_that_fill_drop_by_drop(
    acts: list[tuple[int, str, int]], per_second: int, burst: int
) -> None:
    async def check() -> None:
        now = Fraction(0)
        rates, drops = Rates(limited(per_second, burst), clock=lambda: float(now)), Drops(per_second, burst)
        for ticks, tenant, points in acts:
            now += Fraction(ticks, 64)  # which a float holds exactly
            drops.pass_time(Fraction(ticks, 64))
            if points > burst:
                with pytest.raises(LimitExceeded, match="has never more than") as never:
                    rates.check(tenant, points)
                assert never.value.extensions == {}
            elif wait := drops.wait(tenant, points):
                with pytest.raises(LimitExceeded, match="more than the tenant has now") as later:
                    rates.check(tenant, points)
                assert later.value.extensions == {"retryAfterSeconds": -(-wait // 1)}
                with pytest.raises(LimitExceeded):
                    await rates.charge(tenant, points)
            else:
                rates.check(tenant, points)
                await rates.charge(tenant, points)
                drops.take(tenant, points)

    asyncio.run(check())


async def test_buckets_that_are_full_are_forgotten() -> None:
    now = 0.0
    rates = Rates(limited(1, 10), clock=lambda: now)
    for number in range(1_000):
        now = number / 10
        await rates.charge(f"tenant {number}", 10)
    assert rates.buckets.tenants <= 101  # of the last ten seconds


async def test_without_a_limit_nothing_is_kept() -> None:
    rates = Rates(limited(0, 1))
    for _ in range(10):
        rates.check("a", 1_000_000)
        await rates.charge("a", 1_000_000)
        await rates.delay("a", 1_000_000)
    assert rates.buckets.tenants == 0


async def test_who_asks_too_much_is_told_when_to_come_again() -> None:
    async with serving(rate_points_per_second=0.1, rate_points_burst=2) as served:
        http = await served.http()
        found = [await http.post(served.url, json={"query": "{ __typename }"}) for _ in range(3)]
        assert [each.status_code for each in found] == [200, 200, 429]
        (error,) = found[2].json()["errors"]
        assert found[2].headers["retry-after"] == "10"
        assert error["extensions"] == {"code": "LIMIT_EXCEEDED", "retryAfterSeconds": 10}
        assert error["message"] == (
            "The request costs 1 points, more than the tenant has now: it gets 0.1 a second, and keeps 2"
            " (FORKPOINT_RATE_POINTS_PER_SECOND, FORKPOINT_RATE_POINTS_BURST). Try again in 10 s."
        )
        assert len(served.contexts.seen) == 2  # none is opened for who is refused
        client = await served.socket()
        for document in ("{ __typename }", "subscription { count(to: 1) }"):
            await client.subscribe(document)
            assert await client.error() == Code.LIMIT_EXCEEDED


async def test_events_wait_until_they_are_paid_for_and_none_is_lost() -> None:
    async with serving(rate_points_per_second=100, rate_points_burst=3) as served:
        client = await served.socket()
        await client.subscribe("subscription { count(to: 5) }")
        assert [await client.next() for _ in range(5)] == [{"data": {"count": str(n)}} for n in range(1, 6)]
        assert await client.completed()


async def test_a_client_that_leaves_while_an_event_waits_leaves_nothing() -> None:
    async with serving(rate_points_per_second=NEVER, rate_points_burst=3) as served:
        client = await served.socket()
        await client.subscribe("subscription { count(to: 5) }")
        await client.send({"type": "ping"})
        assert await client.receive() == {"type": "pong"}
        assert served.operations.subscriptions == 1
        await client.connection.close()
        await served.quiet()


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    database = Database(url, POOL)
    await database.open()
    await database.lanes_ready(5)
    yield database
    await database.close()


@pytest.mark.parametrize("way", ["lane", "pool"])
async def test_shared_buckets_say_what_is_left(database_url: str, way: str) -> None:
    async with opened(database_url) as database:
        if way == "pool":
            database.append_lane = None
        charge = partial(rate_limit.charge, database, "a")
        assert await charge(1_000.0, 3_000.0) == Charged(passed=True, full_seconds=1_000.0)
        for passed, full in ((True, 2_500.0), (False, 2_500.0)):
            found = await charge(1_500.0, 3_000.0)
            assert found.passed is passed
            assert full - 10 < found.full_seconds <= full
        assert (await charge(400.0, 3_000.0)).passed
        assert (await rate_limit.charge(database, "b", 3_000.0, 3_000.0)).passed


@pytest.mark.parametrize("jump", [-100_000_000_000, 100_000_000_000])
async def test_a_clock_that_jumps_costs_a_minute_at_most_and_gives_no_more_than_a_bucket(
    database_url: str, jump: int
) -> None:
    async with opened(database_url) as database:
        charge = partial(rate_limit.charge, database, "a")
        await charge(1.0, 1_000.0)
        with psycopg.connect(database_url, autocommit=True) as connection:
            connection.execute("update rate_limits set full_us = full_us - %s", [jump])
        if jump < 0:
            assert await charge(1.0, 1_000.0) == Charged(passed=False, full_seconds=1_060.0)
        else:
            assert await charge(1_000.0, 1_000.0) == Charged(passed=True, full_seconds=1_000.0)
            assert not (await charge(1.0, 1_000.0)).passed


async def test_who_is_far_over_does_not_reach_the_database(database_url: str) -> None:
    async with opened(database_url) as database:
        asked = Counter[str]()

        async def count(tenant_id: str, seconds: float, burst_seconds: float) -> Charged:
            asked[tenant_id] += 1
            return await rate_limit.charge(database, tenant_id, seconds, burst_seconds)

        settings = limited(NEVER, 5, rate_shared=True)
        first, second = Rates(settings, count), Rates(settings, count)
        for _ in range(5):
            await first.charge("a", 1)
        for rates in (first, second):
            for _ in range(20):
                with pytest.raises(LimitExceeded):
                    await rates.charge("a", 1)
        assert asked == {"a": 6}


async def test_two_processes_let_pass_as_much_as_one(database_url: str, tmp_path: Path) -> None:
    chosen = {
        "FORKPOINT_RATE_SHARED": "true",
        "FORKPOINT_RATE_POINTS_PER_SECOND": str(NEVER),
        "FORKPOINT_RATE_POINTS_BURST": "100",
    }
    async with (
        service.serving(database_url, tmp_path, 2, **chosen) as (first, second),
        first.client() as here,
        second.client() as there,
    ):
        body = {"query": "{ __typename }"}
        asking = [api.http.post("/graphql", json=body) for _ in range(100) for api in (here, there)]
        found = Counter([response.status_code for response in await asyncio.gather(*asking)])
    assert found == {200: 100, 429: 100}


async def test_without_a_database_a_shared_limit_is_unavailable() -> None:
    settings = limited(
        1,
        1,
        rate_shared=True,
        database_url=SecretStr("postgresql://nobody@127.0.0.1:1/nothing"),
        pool_wait_seconds=0.2,
        log_level="error",
    )
    async with api_over(create_app(settings)) as api:
        found = await api.http.post("/graphql", json={"query": "{ __typename }"})
        assert (found.status_code, found.json()["errors"][0]["extensions"]["code"]) == (503, "UNAVAILABLE")
