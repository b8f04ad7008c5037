"""One probe of the database, for `GET /health` and for `query { health }` alike."""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass

import psycopg
import structlog

from db import queries
from db.call import Call
from db.errors import StoreError
from db.pipeline import Lane
from db.pool import Database
from db.statement import Connection

log = structlog.get_logger(__name__)

_PROBE = queries.load("health")["probe"]
_FAILURES = (TimeoutError, psycopg.Error, StoreError)


@dataclass(frozen=True, slots=True)
class Probe:
    """What the probe found: no latency when disconnected; `degraded` when connected, but not through the pool."""

    connected: bool
    degraded: bool
    latency_ms: float | None
    pooled: bool


async def probe(database: Database, limit_seconds: float) -> Probe:
    """Ask the database for an answer, and give up after `limit_seconds`.

    Half of the limit belongs to the fast lane and to the pool. When that gives no connection or no answer,
    the connection kept for the probe tells whether the database or only the pool is in trouble. Raises nothing: the
    full error is logged.
    """
    half = limit_seconds / 2
    kept_from = time.perf_counter() + half
    # The fast lane says nothing of the pool, but whether that is exhausted is known without asking.
    if database.lane is not None and database.lane.ready and not database.exhausted:
        try:
            latency_ms = await _through_lane(database.lane, half)
            return Probe(connected=True, degraded=False, latency_ms=latency_ms, pooled=database.pooled)
        except _FAILURES as error:
            log.warning("health probe: no answer through the fast lane", error=_describe(error))
    try:
        left = max(kept_from - time.perf_counter(), 0.001)
        latency_ms = await _within(left, _through_pool(database, left))
        return Probe(connected=True, degraded=False, latency_ms=latency_ms, pooled=database.pooled)
    except _FAILURES as error:
        log.warning("health probe: no answer through the pool", error=_describe(error))
    try:
        latency_ms = await _within(half, _through_kept(database))
        return Probe(connected=True, degraded=True, latency_ms=latency_ms, pooled=database.pooled)
    except _FAILURES as error:
        log.warning("health probe: the database is away", error=_describe(error))
    return Probe(connected=False, degraded=False, latency_ms=None, pooled=database.pooled)


async def _within(seconds: float, asking: Coroutine[None, None, float]) -> float:
    """Await for so long and no longer.

    Not `asyncio.timeout`, which waits for the end of what it cancels: psycopg then asks the server to stop, and a
    frozen server does not.
    """
    task = asyncio.create_task(asking)
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        task.cancel()
        raise TimeoutError(f"no answer within {seconds} s")
    return task.result()


async def _through_lane(lane: Lane, seconds: float) -> float:
    started = time.perf_counter()
    async with asyncio.timeout(seconds):
        await lane.flush([Call(_PROBE, ())], None)
    return round((time.perf_counter() - started) * 1000, 3)


async def _through_pool(database: Database, wait_seconds: float) -> float:
    while True:
        async with database.pooled_connection(wait_seconds) as connection:
            # One that broke while it lay in the pool says nothing of the database, and the pool replaces it.
            try:
                return await _latency_ms(connection)
            except psycopg.OperationalError:
                if not connection.closed:
                    raise


async def _through_kept(database: Database) -> float:
    async with database.kept_connection() as connection:
        return await _latency_ms(connection)


async def _latency_ms(connection: Connection) -> float:
    """Milliseconds for one round trip, waiting for a connection not included."""
    started = time.perf_counter()
    await connection.execute(_PROBE.text)
    return round((time.perf_counter() - started) * 1000, 3)


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
