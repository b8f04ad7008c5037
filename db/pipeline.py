"""The fast lane: a few connections in libpq's pipeline mode, shared by everything that runs in one event loop.

A *batch* is the statements of one flush: they leave together, come back together and end at one Sync, so they are one
transaction of the server's. Sessions that read are REPEATABLE READ by default, so a batch sees one moment without a
BEGIN. With row security on it has one, to say whose rows it is for, and a COMMIT; what fails is then followed by a
ROLLBACK, and what was sent behind it meanwhile, which the server has not begun, is sent again.

Batches of many requests follow each other on one *line* and are answered in order; one that fails, or that nobody waits
for any more, disturbs none of the others. Who must ask again at the same moment *leases* a line: no other batch goes
there before that transaction has ended.

Only queries marked `pipelined` are run here, because a batch waits for those before it. They are prepared when a line
is made, and a line takes part only when the server has said that all of them are. What breaks is made anew; whoever
waited there is told by `LineBroken`, and may ask the pool. Behind a transaction pooler there is no lane.

A whole request takes 46 to 60 microseconds of Python like this, a statement on a pooled connection 220 to 240.
"""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar

import psycopg
import structlog
from psycopg import AsyncConnection, AsyncRawCursor

from db import queries
from db.call import Asking, Call, Row, together
from db.errors import LaneAway, StoreError, Unavailable, Unforeseen
from db.line import BEGIN, COMMIT, Batch, Line, Statement, load_json_as_bytes, statement
from db.queries import Query
from db.row_security import SET_EVERY_TENANT, set_local

log = structlog.get_logger(__name__)

T = TypeVar("T")

_SESSIONS = queries.load("pipeline")
_BACKEND = queries.load("pool")["backend"]

# Batches that may wait here; more are refused at once.
WAITING_MAX = 1_000
_RETRY_SECONDS = 0.1
_RETRY_SECONDS_MAX = 1.0


class LaneLimits(NamedTuple):
    """How many lines, how many batches each may have under way, and how long each wait may last.

    What is more than the lines may have under way waits here, where whichever line is free first takes it. A lane may
    `begin_with` fewer lines, and then makes others when somebody waits.
    """

    size: int
    in_flight_max: int
    wait_seconds: float
    connect_seconds: float
    statement_seconds: float
    begin_with: int | None = None


class Lease:
    """A line of one's own, for as long as one transaction lasts."""

    def __init__(self, statement_seconds: float, begin: Sequence[Statement]) -> None:
        self.taken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._line: Line | None = None
        self._statement_seconds = statement_seconds
        self._begin = begin
        self._begun = False

    def take(self, line: Line) -> None:
        """Have this line: from now on nobody else sends there."""
        line.leased = True
        self._line = line
        self.taken.set_result(None)

    async def flush(self, calls: Sequence[Call]) -> list[list[Row]]:
        """As `Lane.flush`, at the moment of this lease's first."""
        if self._line is None:
            raise LaneAway
        statements = [statement(call) for call in calls]
        begins = not self._begun
        if begins:
            self._begun = True
            statements = [*self._begin, *statements]
        batch = Batch(statements, self._statement_seconds, begins=begins)
        self._line.send(batch)
        return await batch.done

    def end(self) -> None:
        """End the transaction, and let others have the line: what they send comes after the end."""
        if self._line is None:
            return
        if self._begun:
            self._line.send(Batch.ending(COMMIT, self._statement_seconds))
        self._line.release()


class Lane:
    """A few lines, each made anew when it breaks."""

    def __init__(
        self,
        url: str,
        limits: LaneLimits,
        session: str,
        prepared: Sequence[Query],
        *,
        json_as_bytes: bool,
        row_security: bool = False,
    ) -> None:
        self._url = url
        self._json_as_bytes = json_as_bytes
        self._row_security = row_security
        self._limits = limits
        self._session = _SESSIONS[session]
        self._prepared = prepared
        self._lines: list[Line] = []
        # Who waits for a line, the first one first, and what is to be done with the line.
        self._waiting: OrderedDict[asyncio.Future[Any], Callable[[Line], None]] = OrderedDict()
        self._keepers: list[asyncio.Task[None]] = []

    @property
    def ready(self) -> bool:
        """Whether any line is there."""
        return bool(self._lines)

    @property
    def settled(self) -> bool:
        """Whether any line is there, or none will be, as behind a pooler."""
        return self.ready or all(keeper.done() for keeper in self._keepers)

    def open(self) -> None:
        """Start making lines, without waiting for the first."""
        self._keepers = [asyncio.create_task(self._keep()) for _ in range(self._limits.begin_with or self._limits.size)]

    async def close(self) -> None:
        """Close every line; whoever waits is told."""
        while self._keepers:  # whoever waits meanwhile may have begun another one
            keepers, self._keepers = self._keepers, []
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)

    async def flush(self, calls: Sequence[Call], tenant_id: str | None) -> list[list[Row]]:
        """Run named queries of one tenant as one transaction in one round trip, and give the rows of each.

        What reads no table is of no tenant.
        Raises: the family of db.errors; LineBroken when it may be asked again elsewhere.
        """
        statements = [statement(call) for call in calls]
        seconds = self._limits.statement_seconds
        if self._row_security:
            batch = Batch([*self._begin(tenant_id), *statements, (COMMIT, [])], seconds, commits=True)
        else:
            batch = Batch(statements, seconds)
        return await self._have_line(batch.done, lambda line: line.send(batch))

    def _begin(self, tenant_id: str | None) -> list[Statement]:
        if not self._row_security or tenant_id is None:
            return [(BEGIN, [])]
        return [(BEGIN, []), (set_local(tenant_id), None)]

    async def run(self, tenant_id: str, *askings: Asking[Any]) -> list[Any]:
        """Run what asks a Recorder as one transaction in one round trip, and give the results in order.

        Raises: as `flush`.
        """
        asking = together(*askings)
        rows = await self.flush(next(asking), tenant_id)
        try:
            asking.send(rows)
        except StopIteration as done:
            results: list[Any] = done.value
            return results
        raise AssertionError("what runs in one round trip asks once")

    @asynccontextmanager
    async def lease(self, tenant_id: str | None) -> AsyncIterator[Lease]:
        """Have a line alone, for a transaction of several flushes, of one tenant.

        Raises: as `flush`.
        """
        lease = Lease(self._limits.statement_seconds, self._begin(tenant_id))
        try:
            await self._have_line(lease.taken, lease.take)
            yield lease
        finally:
            lease.end()

    async def _have_line(self, done: asyncio.Future[T], take: Callable[[Line], None]) -> T:
        """Do something with a line, at once or as soon as there is a free one, and wait for what comes of it."""
        line = self._pick()
        if line is not None:
            take(line)
            return await done
        if not self._lines:
            raise LaneAway
        if len(self._keepers) < self._limits.size:
            self._keepers.append(asyncio.create_task(self._keep()))
        if len(self._waiting) >= WAITING_MAX:
            raise Unavailable("Too many requests are waiting for the database. Try again in a moment.")
        self._waiting[done] = take
        too_late = asyncio.get_running_loop().call_later(self._limits.wait_seconds, self._give_up, done)
        try:
            return await done
        finally:
            too_late.cancel()
            self._waiting.pop(done, None)

    def _give_up(self, done: asyncio.Future[Any]) -> None:
        if self._waiting.pop(done, None) is not None and not done.done():
            done.set_exception(Unavailable("The database is too busy to answer in time. Try again in a moment."))

    def _pick(self) -> Line | None:
        """Choose the line with the least to do; those who wait already come first."""
        best: Line | None = None
        least = self._limits.in_flight_max
        if not self._waiting:
            for line in self._lines:
                if line.takes(least):
                    best, least = line, len(line.under_way)
        return best

    def _free(self, line: Line) -> None:
        """Let those who wait have a line, the first one first."""
        while self._waiting and line.takes(self._limits.in_flight_max):
            done, take = self._waiting.popitem(last=False)
            if not done.done():
                take(line)

    def _send_again(self, batch: Batch) -> None:
        """Let whichever line is free first have what was sent too early, before those who wait."""
        self._waiting[batch.done] = lambda line: line.send(batch)
        self._waiting.move_to_end(batch.done, last=False)
        asyncio.get_running_loop().call_later(self._limits.wait_seconds, self._give_up, batch.done)
        for line in self._lines:
            self._free(line)

    async def _keep(self) -> None:
        """Keep one line: make it, and make it anew when it has broken."""
        pause = _RETRY_SECONDS
        while True:
            try:
                line = await self._connect()
            except _Pooled:
                log.info("fast lane: off, because a connection pooler stands in front of the database")
                return
            except (psycopg.Error, StoreError, Unforeseen, TimeoutError, OSError) as error:
                log.warning("fast lane: no connection", error=f"{type(error).__name__}: {error}")
                await asyncio.sleep(pause)
                pause = min(2 * pause, _RETRY_SECONDS_MAX)
                continue
            pause = _RETRY_SECONDS
            self._lines.append(line)
            line.release()
            try:
                await asyncio.shield(line.broken)
            finally:
                self._lines.remove(line)
                line.end()
                if not self._lines:
                    self._send_away()

    async def _connect(self) -> Line:
        seconds = self._limits.connect_seconds
        async with asyncio.timeout(seconds):
            connection = await AsyncConnection.connect(
                self._url, autocommit=True, cursor_factory=AsyncRawCursor, connect_timeout=max(2, round(seconds))
            )
            if self._json_as_bytes:
                load_json_as_bytes(connection)
            line = Line(connection, self._free, self._send_again)
            try:
                if await line.ask(_BACKEND.text.encode(), seconds=seconds) != [(connection.info.backend_pid,)]:
                    raise _Pooled  # noqa: TRY301 - the connection is closed like after any failure
                milliseconds = round(self._limits.statement_seconds * 1000)
                await line.ask(self._session.text.encode(), str(milliseconds).encode(), seconds=seconds)
                if not self._row_security:
                    await line.ask(SET_EVERY_TENANT, seconds=seconds)
                await line.prepare(self._prepared, seconds)
            except BaseException:
                line.end()
                raise
            return line

    def _send_away(self) -> None:
        while self._waiting:
            done, _ = self._waiting.popitem(last=False)
            if not done.done():
                done.set_exception(LaneAway())


class _Pooled(Exception):
    """The server process that answers is not the one that greeted."""
