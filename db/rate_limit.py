"""Rate limits that hold over all processes: one row for each tenant, charged by one statement."""

from contextlib import suppress
from typing import NamedTuple

from db import queries
from db.call import Recorder
from db.errors import LaneAway, LineBroken
from db.pool import Database, Reader

_QUERIES = queries.load("rate_limit")


class Charged(NamedTuple):
    """Whether a charge has passed, and in how many seconds the bucket will be full again."""

    passed: bool
    full_seconds: float


async def charge(database: Database, tenant_id: str, seconds: float, burst_seconds: float) -> Charged:
    """Take from a tenant's bucket what takes so long to come back, if that much is in it; `burst_seconds` is all of it.

    In the lane of appends, if there is one. Where a line breaks it may be taken twice.
    Raises: the family of db.errors. Source: rate_limit.charge.
    """
    lane = database.append_lane
    if lane is not None:
        with suppress(LaneAway, LineBroken):
            (found,) = await lane.run(tenant_id, _charge(Recorder(), tenant_id, seconds, burst_seconds))
            return Charged(*found)
    async with database.transaction(tenant_id) as session:
        return await _charge(session, tenant_id, seconds, burst_seconds)


async def _charge(reader: Reader, tenant_id: str, seconds: float, burst_seconds: float) -> Charged:
    ((passed, full_us),) = await reader.fetch(
        _QUERIES["charge"], tenant_id, str(round(seconds * 1e6)), str(round(burst_seconds * 1e6))
    )
    return Charged(passed, full_us / 1e6)
