"""How much each tenant may ask in a while: a bucket of points for each, which fills again at a steady rate.

Of a bucket only the time is kept when it will be full again, so that nothing has to be done as it fills. The buckets of
one process are in memory. With FORKPOINT_RATE_SHARED they are in PostgreSQL, and those in memory remember what that
last said: whoever is far over his limit is refused without asking the database.

The library `limits` counts in windows, where twice the limit passes around their border, and has no bucket.
"""

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from db.rate_limit import Charged
from graphql_api.settings import Settings
from schema.errors import LimitExceeded

# Charges a tenant by the seconds that the charge, and those that a whole bucket takes to come back.
ChargeShared = Callable[[str, float, float], Awaitable[Charged]]
Clock = Callable[[], float]

# So much a tenant keeps, unless that is given.
KEPT_SECONDS = 10

# The clock's own resolution: who waits until it passes shall not miss that by a rounding.
_ROUNDING_SECONDS = 1e-6


class Buckets:
    """When the bucket of each tenant will be full; of those that are not listed, it is."""

    def __init__(self, burst_seconds: float, clock: Clock) -> None:
        self._burst_seconds = burst_seconds
        self._clock = clock
        self._full_at: OrderedDict[str, float] = OrderedDict()  # who was charged last, last

    @property
    def tenants(self) -> int:
        """How many are listed."""
        return len(self._full_at)

    def wait(self, tenant_id: str, seconds: float) -> float:
        """Give the time until as much would pass: 0 where it does now."""
        now = self._clock()
        wait = max(self._full_at.get(tenant_id, now), now) + seconds - now - self._burst_seconds
        return wait if wait > _ROUNDING_SECONDS else 0.0

    def take(self, tenant_id: str, seconds: float) -> None:
        """Take as much, which is there."""
        now = self._clock()
        self.learn(tenant_id, max(self._full_at.get(tenant_id, now), now) + seconds)

    def learn(self, tenant_id: str, full_at: float) -> None:
        """Know of a bucket that it will not be full before; forget those that are."""
        now = self._clock()
        self._full_at[tenant_id] = max(full_at, self._full_at.get(tenant_id, full_at))
        self._full_at.move_to_end(tenant_id)
        while self._full_at and next(iter(self._full_at.values())) <= now:
            self._full_at.popitem(last=False)


class Rates:
    """The rate limit of one process, or its part in that of all."""

    def __init__(self, settings: Settings, shared: ChargeShared | None = None, clock: Clock = time.monotonic) -> None:
        self._per_second = settings.rate_points_per_second
        self._burst = settings.rate_points_burst or max(1, round(KEPT_SECONDS * self._per_second))
        self._shared = shared if settings.rate_shared else None
        self._clock = clock
        self.buckets = Buckets(self._seconds(self._burst), clock)

    def check(self, tenant_id: str, points: int) -> None:
        """Look whether a request may pass, as far as this process knows.

        Raises: LimitExceeded.
        """
        if not self._per_second:
            return
        if points > self._burst:
            raise LimitExceeded(
                f"The request costs {points:,} points, and a tenant has never more than {self._burst:,}"
                " (FORKPOINT_RATE_POINTS_BURST): ask for less at a time."
            )
        if wait := self.buckets.wait(tenant_id, self._seconds(points)):
            raise self._too_soon(points, wait)

    async def charge(self, tenant_id: str, points: int) -> None:
        """Charge a request that was looked at.

        Raises: LimitExceeded; the family of db.errors where buckets are shared.
        """
        if self._per_second and (wait := await self._take(tenant_id, points)):
            raise self._too_soon(points, wait)

    async def delay(self, tenant_id: str, points: int) -> None:
        """Charge what must not be lost, as soon as that passes.

        Raises: the family of db.errors where buckets are shared.
        """
        if not self._per_second:
            return
        points = min(points, self._burst)
        while wait := await self._take(tenant_id, points):  # noqa: ASYNC110 - nobody tells but the clock
            await asyncio.sleep(wait)

    async def _take(self, tenant_id: str, points: int) -> float:
        """Take from a bucket; give the time until that would pass where it does not."""
        seconds = self._seconds(points)
        if wait := self.buckets.wait(tenant_id, seconds):
            return wait
        if self._shared is None:
            self.buckets.take(tenant_id, seconds)
            return 0.0
        asked_at = self._clock()
        charged = await self._shared(tenant_id, seconds, self._seconds(self._burst))
        self.buckets.learn(tenant_id, asked_at + charged.full_seconds)
        if charged.passed:
            return 0.0
        return max(charged.full_seconds + seconds - self._seconds(self._burst), _ROUNDING_SECONDS)

    def _seconds(self, points: float) -> float:
        """Give how long so many points take to come back."""
        return points / self._per_second if self._per_second else 0.0

    def _too_soon(self, points: int, wait: float) -> LimitExceeded:
        seconds = max(1, math.ceil(wait))
        return LimitExceeded(
            f"The request costs {points:,} points, more than the tenant has now: it gets {self._per_second:,g} a"
            f" second, and keeps {self._burst:,} (FORKPOINT_RATE_POINTS_PER_SECOND, FORKPOINT_RATE_POINTS_BURST)."
            f" Try again in {seconds:,} s.",
            retryAfterSeconds=seconds,
        )
