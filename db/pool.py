"""The only way to a connection: a pool of them, read through snapshots and written through transactions.

A read is a *snapshot*: one REPEATABLE READ READ ONLY transaction, begun at its first statement, so that everything
one GraphQL query reads stands at one moment, and a query that reads nothing takes no connection. A write is a
*transaction*. Both are one tenant's, and begin on a connection that answers: one that broke while it lay in the pool is
thrown away and another is tried, which is always safe, because nothing but BEGIN was sent, and whose rows it is for. No
answer depends on session state, so a transaction pooler may stand in front: what is set where none does only saves
time.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, LiteralString, Protocol, Self

import psycopg
import structlog
from psycopg import AsyncConnection, AsyncRawCursor
from psycopg.conninfo import conninfo_to_dict
from psycopg.types.numeric import Int4BinaryDumper, Int4Dumper
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from db import queries
from db.call import Row
from db.errors import UNCONFIRMED, StatementTimeout, Unavailable, translate
from db.pipeline import Lane, LaneLimits
from db.queries import Query
from db.row_security import EVERY_TENANT, SET_EVERY_TENANT, set_local
from db.statement import Connection, UtcLoader, run_statement, run_together

log = structlog.get_logger(__name__)


_QUERIES = queries.load("pool")


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """How many connections, and how long each wait may last."""

    size_min: int
    size_max: int
    wait_seconds: float
    connect_seconds: float
    statement_seconds: float
    # How long a statement of a snapshot, or in the fast lane, may take: as long as others, unless it is given.
    read_seconds: float | None = None
    # Connections of the fast lane, and the most for appends; 0 for none.
    lane_size: int = 0
    append_lane_size: int = 0
    # Between two looks for what has changed: where PostgreSQL cannot notify, and for notifications that were lost.
    poll_seconds: float = 1.0
    slow_poll_seconds: float = 30.0
    # Whether each transaction is told whose rows it may touch; without, they may touch those of all tenants.
    row_security: bool = False

    @property
    def reading_seconds(self) -> float:
        """The longest time that a statement takes which only reads."""
        return self.statement_seconds if self.read_seconds is None else self.read_seconds


class Reader(Protocol):
    """Whatever runs named queries: a Session, a Snapshot, or one that only notes what it is asked."""

    def fetch(self, query: Query, *parameters: Any) -> Awaitable[Sequence[Row]]:
        """Run one named query and give its rows.

        Raises: the family of db.errors.
        """


class Session:
    """Statements on one connection, inside one transaction that is already begun.

    `json_as_bytes` says whether JSON is to come as the bytes that PostgreSQL sent, as from the fast lane.
    """

    def __init__(self, connection: Connection, statement_seconds: float, *, json_as_bytes: bool = False) -> None:
        self._connection = connection
        self._statement_seconds = statement_seconds
        self._json_as_bytes = json_as_bytes

    async def fetch(self, query: Query, *parameters: Any) -> Sequence[Row]:
        """Run one named query and give its rows.

        Raises: the family of db.errors.
        """
        if not query.replanned or self._connection.prepare_threshold is None:
            return await self._run(query, *parameters)
        await self._run(_QUERIES["plan_anew"])
        rows = await self._run(query, *parameters)
        await self._run(_QUERIES["plan_once_again"])
        return rows

    async def use_indexes(self) -> None:
        """Plan by index for the rest of the transaction, before it puts many rows into tables that may be small.

        Plans are kept, also those of foreign keys: one made while a table is small reads all of it at each call,
        however large it has become.
        """
        await self._run(_QUERIES["use_indexes"])

    async def _run(self, query: Query, *parameters: Any) -> Sequence[Row]:
        seconds = self._statement_seconds
        return await run_statement(self._connection, query.text, parameters, seconds, json_as_bytes=self._json_as_bytes)


class Over(Exception):
    """A snapshot was asked that is closed: what asked it has outlived its request."""


class Snapshot:
    """What one query reads of one tenant: all at one moment, over one connection, taken at the first statement."""

    def __init__(self, database: "Database", tenant_id: str, *, json_as_bytes: bool = False) -> None:
        self._database = database
        self._tenant_id = tenant_id
        self._json_as_bytes = json_as_bytes
        self._lock = asyncio.Lock()
        self._session: Session | None = None
        self._connection: Connection | None = None
        self._failure: Exception | None = None
        self._running: asyncio.Task[Any] | None = None
        self._closed = False

    async def fetch(self, query: Query, *parameters: Any) -> Sequence[Row]:
        """Run one named query and give its rows.

        Raises: the family of db.errors.
        """
        # Loaders run at the same time; a connection answers one statement after the other.
        async with self._lock:
            if self._closed:
                # Loaders may outlive the request that asked them. Nobody would give another connection back.
                raise Over
            if self._failure is not None:
                # The transaction is over, and with it the moment: the others fail as the first one did, and at once.
                raise self._failure
            self._running = asyncio.current_task()
            try:
                if self._session is None:
                    begin: LiteralString = "begin isolation level repeatable read read only"
                    self._connection = await self._database.begin(begin, self._tenant_id)
                    seconds = self._database.limits.reading_seconds
                    self._session = Session(self._connection, seconds, json_as_bytes=self._json_as_bytes)
                return await self._session.fetch(query, *parameters)
            except Exception as error:
                self._failure = error
                raise
            except asyncio.CancelledError:
                if self._closed:  # whoever still waits is told, and so comes to an end
                    raise Over from None
                raise
            finally:
                self._running = None

    def fail(self, failure: Exception) -> None:
        """Let all that is asked from now on fail like this, since it failed like this elsewhere."""
        self._failure = failure

    async def close(self) -> None:
        """Stop what still runs, and give the connection back. Nothing is read any more."""
        self._closed = True
        if self._running is not None:
            self._running.cancel()
        async with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            await self._database.let_go(connection)


class Database:
    """A PostgreSQL server, behind a pool for requests and one connection kept for the health probe.

    Reads and writes are two sides from the start, so that reads may go to a replica one day; now one pool serves both.
    """

    def __init__(self, url: str, limits: PoolLimits) -> None:
        self.limits = limits
        self.pooled = _names_pooler(url)
        self.url = url
        self.lane = self._lane(
            "read_at_one_moment", queries.pipelined(writing=False), limits.lane_size, in_flight_max=32
        )
        # An append may wait for another one's lock, and no third shall wait behind it. Each waits for the disk,
        # which is flushed once for as many as wait together.
        self.append_lane = self._lane(
            "write", queries.pipelined(writing=True), limits.append_lane_size, in_flight_max=1
        )
        self._probe_lock = asyncio.Lock()
        self._probe_connection: Connection | None = None
        self._pool = AsyncConnectionPool[Connection](
            url,
            min_size=min(limits.size_min, limits.size_max),
            max_size=limits.size_max,
            timeout=limits.wait_seconds,
            # Past this the pool stops trying by itself and the next request starts it anew, so that it is back within a
            # second of the server rather than at the end of a long back-off.
            reconnect_timeout=1.0,
            kwargs={"autocommit": True, "cursor_factory": AsyncRawCursor, "connect_timeout": self._connect_timeout},
            configure=self._configure,
            open=False,
        )

    async def open(self) -> None:
        """Start making connections, without waiting for the first."""
        await self._pool.open()
        for lane in self._lanes:
            lane.open()

    async def close(self) -> None:
        """Close every connection."""
        # The pool first, or it would be asked for what the lanes leave unanswered.
        await self._pool.close()
        for lane in self._lanes:
            await lane.close()
        async with self._probe_lock:
            if self._probe_connection is not None:
                await self._probe_connection.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_failure: object) -> None:
        await self.close()

    async def lanes_ready(self, seconds: float) -> None:
        """Wait until each lane has a connection or will have none, but no longer."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not all(lane.settled for lane in self._lanes) and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - only a command waits
            await asyncio.sleep(0.01)

    @asynccontextmanager
    async def snapshot(self, tenant_id: str, *, json_as_bytes: bool = False) -> AsyncIterator[Snapshot]:
        """Read what is one tenant's, at one moment."""
        snapshot = Snapshot(self, tenant_id, json_as_bytes=json_as_bytes)
        try:
            yield snapshot
        finally:
            await snapshot.close()

    @asynccontextmanager
    async def transaction(self, tenant_id: str) -> AsyncIterator[Session]:
        """Write what is one tenant's, all or nothing: committed at the end of the block, undone when the block raises.

        Raises: Unavailable when the server goes away before it has confirmed; then the change may or may not be stored.
        """
        connection = await self.begin("begin", tenant_id)
        try:
            yield Session(connection, self.limits.statement_seconds)
        except BaseException:
            await self.rollback(connection)
            raise
        await self.commit(connection)

    async def begin(self, statement: LiteralString, tenant_id: str) -> Connection:
        """Take a connection that answers, and begin a transaction on it for one tenant."""
        deadline = asyncio.get_running_loop().time() + self.limits.wait_seconds
        while True:
            remaining = max(deadline - asyncio.get_running_loop().time(), 0.001)
            try:
                connection = await self._pool.getconn(timeout=remaining)
            except psycopg.Error as error:
                raise translate(error) from None
            try:
                # Behind a pooler this is where one waits for a free connection: in its queue.
                seconds = min(self.limits.wait_seconds, self.limits.statement_seconds)
                if self.limits.row_security:
                    await run_together(connection, statement.encode(), set_local(tenant_id), seconds=seconds)
                elif self.pooled:  # where sessions are told nothing
                    await run_together(connection, statement.encode(), set_local(EVERY_TENANT), seconds=seconds)
                else:
                    await run_statement(connection, statement, (), seconds)
            except Unavailable:
                await self._pool.putconn(connection)
            except StatementTimeout as error:
                await self._pool.putconn(connection)
                raise translate(PoolTimeout("nothing answered BEGIN in time")) from error
            except BaseException:
                await self._pool.putconn(connection)
                raise
            else:
                return connection

    async def commit(self, connection: Connection) -> None:
        """Make the transaction last and give the connection back.

        Raises: Unavailable when the server does not confirm it.
        """
        try:
            await run_statement(connection, "commit", (), self.limits.statement_seconds)
        except (StatementTimeout, Unavailable) as error:
            raise Unavailable(UNCONFIRMED) from error
        finally:
            await self._pool.putconn(connection)

    async def rollback(self, connection: Connection) -> None:
        """End the transaction without a trace and give the connection back."""
        await self._end(connection, "rollback")

    async def let_go(self, connection: Connection) -> None:
        """End a transaction that only read and give the connection back.

        By COMMIT: psycopg forgets every statement that it has prepared on the connection when it sees a ROLLBACK. To
        prepare them again cost a page of 50 0.3 ms of 1.4.
        """
        await self._end(connection, "commit")

    async def _end(self, connection: Connection, statement: LiteralString) -> None:
        try:
            # A connection that broke has nothing left to end.
            if not connection.closed:
                with suppress(StatementTimeout, Unavailable):
                    await run_statement(connection, statement, (), self.limits.statement_seconds)
        finally:
            await self._pool.putconn(connection)

    @property
    def exhausted(self) -> bool:
        """Whether a request for a pooled connection would have to wait for another one."""
        stats = self._pool.get_stats()
        full = stats.get("pool_size", 0) >= stats["pool_max"] and not stats.get("pool_available", 0)
        return full or bool(stats.get("requests_waiting", 0))

    @asynccontextmanager
    async def pooled_connection(self, wait_seconds: float) -> AsyncIterator[Connection]:
        """Lend a connection of the pool to the health probe."""
        async with self._pool.connection(timeout=wait_seconds) as connection:
            yield connection

    @asynccontextmanager
    async def kept_connection(self) -> AsyncIterator[Connection]:
        """Lend the connection kept for the health probe; it is made anew when it has broken."""
        async with self._probe_lock:
            if self._probe_connection is None or self._probe_connection.closed:
                self._probe_connection = await AsyncConnection.connect(
                    self.url, autocommit=True, cursor_factory=AsyncRawCursor, connect_timeout=self._connect_timeout
                )
                await self._configure(self._probe_connection)
            try:
                yield self._probe_connection
            except BaseException:
                await self._probe_connection.close()
                raise

    @property
    def _lanes(self) -> list[Lane]:
        return [lane for lane in (self.lane, self.append_lane) if lane is not None]

    def _lane(self, session: str, prepared: Sequence[Query], size: int, *, in_flight_max: int) -> Lane | None:
        if not size or self.pooled:
            return None
        reading = session != "write"
        seconds = self.limits.reading_seconds if reading else self.limits.statement_seconds
        waits = (self.limits.wait_seconds, self.limits.connect_seconds, seconds)
        limits = LaneLimits(size, in_flight_max, *waits, begin_with=size if reading else 1)
        return Lane(self.url, limits, session, prepared, json_as_bytes=reading, row_security=self.limits.row_security)

    @property
    def _connect_timeout(self) -> int:
        # libpq counts in whole seconds and takes less than two for two.
        return max(2, round(self.limits.connect_seconds))

    async def _configure(self, connection: Connection) -> None:
        # Loaders live in Python's side of the connection: a pooler does not see them.
        connection.adapters.register_loader("timestamptz", UtcLoader)
        # One width for every integer, so that a statement is prepared once and not once for each size of number. Lists
        # are sent as text; left to itself psycopg takes all lists of a statement to be as narrow as the first.
        connection.adapters.register_dumper(int, Int4Dumper)
        connection.adapters.register_dumper(int, Int4BinaryDumper)
        # Asked only until a pooler is known: behind one even this waits for a connection of the pooler's.
        if not self.pooled:
            text, seconds = _QUERIES["backend"].text, self.limits.statement_seconds
            ((backend_pid,),) = await run_statement(connection, text, (), seconds, prepare=False)
            if backend_pid != connection.info.backend_pid:
                self.pooled = True
        if self.pooled:
            # A transaction pooler hands each transaction another server process, which has not prepared the statement.
            connection.prepare_threshold = None
        else:
            connection.prepare_threshold = 0
            # Left to itself PostgreSQL plans most statements anew each time: a page of 50 then takes 1.1 ms, not 0.6.
            await run_statement(
                connection, _QUERIES["plan_once"].text, (), self.limits.statement_seconds, prepare=False
            )
            if not self.limits.row_security:
                await run_together(connection, SET_EVERY_TENANT, seconds=self.limits.statement_seconds)


def _names_pooler(url: str) -> bool:
    """Tell whether a host of the URL has the name of a pooler; others show themselves by their first answer."""
    try:
        return "-pooler" in str(conninfo_to_dict(url).get("host") or "")
    except (psycopg.Error, ValueError):  # connecting will say what is wrong with it
        return False
