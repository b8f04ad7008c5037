"""The doorbell: what it writes, that it rings together and again, and that nothing stops it for good."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from uuid import UUID, uuid4

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from db.doorbell import Doorbell, payloads, read_payload
from tests.db.lane import through_proxy, until
from tests.proxy import Hold

HEX = "0198c0de7d0e70008000000000000000"
TENANTS = ["default", "", " ", "an  odd tenant", "a,b c\n\t'\"\\", "é" * 200, "x" * 7000]


class Hearing:
    """Hears what is rung, over a connection of its own."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self.rung: list[tuple[str, set[UUID]]] = []
        connection.add_notify_handler(lambda notice: self._hear(notice.payload))
        connection.execute("listen forkpoint")
        self._connection = connection

    def _hear(self, payload: str) -> None:
        tenant_id, ids = read_payload(payload)
        self.rung.append((tenant_id, set(ids)))

    def ids(self, tenant_id: str) -> set[UUID]:
        """Give all that was rung of a tenant until now."""
        self._connection.execute("select 1")
        return {context_id for tenant, ids in self.rung if tenant == tenant_id for context_id in ids}


@pytest.fixture
def hearing(database_url: str) -> Iterator[Hearing]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield Hearing(connection)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Doorbell]:
    doorbell = Doorbell(url, 5, 5)
    try:
        yield doorbell
    finally:
        await doorbell.close()


@given(tenant_id=st.text(st.characters(exclude_categories=["Cs"]), max_size=4000), count=st.integers(1, 1000))
def test_what_is_written_is_read_again_and_fits(tenant_id: str, count: int) -> None:
    ids = [uuid4() for _ in range(count)]
    written = list(payloads(tenant_id, ids))
    if 8000 - len(tenant_id.encode()) <= 33:
        assert written == []
        return
    assert max(len(payload.encode()) for payload in written) < 8000
    read = [read_payload(payload) for payload in written]
    assert {tenant for tenant, _ in read} == {tenant_id}
    assert [context_id for _, some in read for context_id in some] == ids


@pytest.mark.parametrize("payload", ["", "x", "x y", HEX, f"{HEX},", f"{HEX}, a", ", ,"])
def test_what_is_not_ours_is_not_read(payload: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whatever is wrong with it
        read_payload(payload)


@pytest.mark.parametrize("tenant_id", TENANTS)
async def test_it_rings_for_any_tenant_and_any_number(database_url: str, hearing: Hearing, tenant_id: str) -> None:
    ids = {uuid4() for _ in range(1000)}
    async with opened(database_url) as doorbell:
        doorbell.ring(tenant_id, *ids)
        await until(lambda: hearing.ids(tenant_id) == ids)


async def test_what_comes_within_a_moment_rings_together_and_once(database_url: str, hearing: Hearing) -> None:
    ids = [uuid4() for _ in range(20)]
    async with opened(database_url) as doorbell:
        for context_id in ids * 10:
            doorbell.ring("a", context_id)
            doorbell.ring("b", context_id)
        await until(lambda: hearing.ids("a") == set(ids))
        await until(lambda: hearing.ids("b") == set(ids))
    assert len(hearing.rung) == 2


async def test_a_bell_whose_connection_is_killed_rings_again(database_url: str, hearing: Hearing) -> None:
    async with opened(database_url) as doorbell:
        for _ in range(5):
            context_id = uuid4()
            with capture_logs():
                doorbell.ring("a", context_id)
                await until(lambda context_id=context_id: context_id in hearing.ids("a"))  # type: ignore[misc]
            with psycopg.connect(database_url) as killer:
                killer.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where query like '%pg_notify%' "
                    "and pid <> pg_backend_pid()"
                )


async def test_while_the_database_is_away_it_waits(database_url: str, hearing: Hearing) -> None:
    async with through_proxy(database_url) as (proxy, url), opened(url) as doorbell:
        proxy.judge = lambda _: 0
        ids = [uuid4() for _ in range(300)]
        with capture_logs() as lines:
            for context_id in ids:
                doorbell.ring("a", context_id)
            await until(lambda: bool(lines))
        proxy.judge = lambda _: None
        await until(lambda: hearing.ids("a") == set(ids))


async def test_what_cannot_be_rung_keeps_nothing_else_from_ringing(database_url: str, hearing: Hearing) -> None:
    async with opened(database_url) as doorbell:
        for poison in ("a\0b", "\ud800"):
            with capture_logs() as lines:
                doorbell.ring(poison, uuid4())
                await until(lambda lines=lines: bool(lines))  # type: ignore[misc]
            context_id = uuid4()
            doorbell.ring("x" * 8000, uuid4())
            doorbell.ring("a", context_id)
            await until(lambda context_id=context_id: context_id in hearing.ids("a"))  # type: ignore[misc]


async def test_closing_it_rings_what_waits(database_url: str, hearing: Hearing) -> None:
    context_id = uuid4()
    async with opened(database_url) as doorbell:
        doorbell.ring("a", context_id)
    assert hearing.ids("a") == {context_id}


@pytest.mark.long  # five seconds, which psycopg waits
async def test_closing_it_does_not_wait_for_a_database_that_does_not_answer(database_url: str) -> None:
    async with through_proxy(database_url) as (proxy, url):
        doorbell = Doorbell(url, 5, 5)
        doorbell.ring("a", uuid4())
        proxy.hold = hold = Hold(b"SELECT ")
        await asyncio.wait_for(hold.held.wait(), 10)
        async with asyncio.timeout(10):
            await doorbell.close()
        hold.released.set()
