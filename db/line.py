"""One connection in libpq's pipeline mode: batches of statements go out, and come back in order.

Source: https://www.postgresql.org/docs/current/libpq-pipeline-mode.html
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime
from operator import index
from typing import Any
from uuid import UUID

import psycopg
import structlog
from psycopg import AsyncConnection
from psycopg.abc import AdaptContext
from psycopg.adapt import Buffer, Loader, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, Format
from psycopg.pq.abc import PGconn, PGresult

from db.call import Call, Row
from db.errors import LaneAway, LineBroken, Unanswered, Unforeseen, translate
from db.queries import Query

log = structlog.get_logger(__name__)

# Beyond the time limit of a statement a server that is alive answers a whole batch within this: its statements are
# small, and one that is not ends the batch by its own limit. So nobody waits longer for a frozen server.
_GRACE_SECONDS = 1.0

# Prepared on every line beside its queries.
BEGIN, COMMIT, ROLLBACK = b"begin", b"commit", b"rollback"
_ENDS = tuple((name, name) for name in (BEGIN, COMMIT, ROLLBACK))

# What is sent: the name of a prepared statement and its parameters, or the text of one and None.
Statement = tuple[bytes, list[bytes | None] | None]


class _JsonbLoader(Loader):
    """Hand jsonb on as it came, without its version byte: the text of JSON, to be sent on and not to be read."""

    format = Format.BINARY

    def load(self, data: Buffer) -> bytes:
        return bytes(data[1:])


class _JsonLoader(Loader):
    """Hand json on as it came."""

    format = Format.BINARY

    def load(self, data: Buffer) -> bytes:
        return bytes(data)


def load_json_as_bytes(context: AdaptContext) -> None:
    """Let JSON of this connection or cursor come as the bytes that PostgreSQL sent."""
    context.adapters.register_loader("json", _JsonLoader)
    context.adapters.register_loader("jsonb", _JsonbLoader)


def encode(value: Any) -> bytes | None:
    """Write a parameter in PostgreSQL's text format; every query says the type of its parameters.

    psycopg's own dumpers take 13 microseconds for those of a page, this takes 2.

    Raises ValueError for text with U+0000, which would end it, and for lone surrogates, which UTF-8 has not; TypeError
    for what is of no kind that a query takes.
    """
    if value is None:
        return None
    kind = type(value)
    if kind is list or kind is tuple:
        return ("{" + ",".join(["NULL" if item is None else _item(item) for item in value]) + "}").encode()
    return _text(value).encode()


def _text(value: Any) -> str:
    kind = type(value)
    if kind is str:
        if "\x00" in value:
            raise ValueError("a parameter holds U+0000")
        return value  # type: ignore[no-any-return] # its type was just compared
    if kind is bool:
        return "t" if value else "f"
    if kind is UUID:
        return value.hex  # type: ignore[no-any-return] # its type was just compared
    if kind is datetime:
        return value.isoformat()  # type: ignore[no-any-return] # its type was just compared
    return str(index(value))


def _item(value: Any) -> str:
    text = _text(value)
    if type(value) is not str:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


class Batch:
    """Statements of one flush, and whoever waits for their rows.

    It `begins` a transaction, or goes on with one. It `commits` by itself, or not, or only `ends` one.
    """

    __slots__ = (
        "answered",
        "begins",
        "commits",
        "done",
        "ends",
        "error",
        "failed",
        "rows",
        "seconds",
        "statements",
        "too_early",
    )

    def __init__(
        self, statements: list[Statement], seconds: float, *, begins: bool = True, commits: bool = False
    ) -> None:
        self.statements = statements
        self.seconds = seconds
        self.begins = begins
        self.commits = commits
        self.ends = False
        self.answered = 0
        self.failed = self.too_early = False
        self.done: asyncio.Future[list[list[Row]]] = asyncio.get_running_loop().create_future()
        self.rows: list[list[Row]] = []
        self.error: Exception | None = None

    @classmethod
    def ending(cls, name: bytes, seconds: float) -> "Batch":
        """Make one that ends a transaction, for which nobody waits."""
        batch = cls([(name, [])], seconds, begins=False)
        batch.ends = True
        batch.done.cancel()
        return batch

    def fail(self, error: Exception) -> None:
        """Tell whoever waits, if anybody still does."""
        if not self.done.done():
            self.done.set_exception(error)


class Line:
    """One connection: batches go out and come back in order.

    `freed` is told that another one may go out, `again` of one that any line may be sent: this has done none of it.
    """

    def __init__(
        self, connection: AsyncConnection[Row], freed: Callable[["Line"], None], again: Callable[[Batch], None]
    ) -> None:
        self.leased = True  # by whoever makes it, until everything is prepared
        self.under_way: deque[Batch] = deque()
        self.broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._connection = connection  # kept, or it would be closed
        self._pgconn: PGconn = connection.pgconn
        self._socket = connection.pgconn.socket
        self._transformer = Transformer(connection)
        self._freed = freed
        self._again = again
        self._writing = False
        self._deadline = 0.0
        self._watching: asyncio.TimerHandle | None = None
        self._pgconn.enter_pipeline_mode()
        self._loop.add_reader(self._socket, self._read)

    async def ask(self, text: bytes, *parameters: bytes, seconds: float) -> list[Row]:
        """Run a statement that is not prepared, and give its rows."""
        batch = Batch([], seconds)
        self._pgconn.send_query_params(text, parameters, result_format=Format.BINARY)
        self._pgconn.pipeline_sync()
        self._follow(batch)
        return [row for rows in await batch.done for row in rows]

    async def prepare(self, prepared: Sequence[Query], seconds: float) -> None:
        """Let the server prepare every query under its name, and wait for it to say so."""
        batch = Batch([], seconds)
        for name, text in [*((query.name.encode(), query.text.encode()) for query in prepared), *_ENDS]:
            self._pgconn.send_prepare(name, text)
        self._pgconn.pipeline_sync()
        self._follow(batch)
        await batch.done

    def takes(self, in_flight_max: int) -> bool:
        """Tell whether another batch may be sent, when no more than so many may be under way."""
        return not self.leased and len(self.under_way) < in_flight_max and not self.broken.done()

    def send(self, batch: Batch) -> None:
        """Send a batch behind those under way."""
        if self.broken.done():
            batch.fail(LaneAway())
            return
        try:
            for name, parameters in batch.statements:
                if parameters is None:
                    self._pgconn.send_query_params(name, parameters)
                else:
                    self._pgconn.send_query_prepared(name, parameters, None, Format.BINARY)
            self._pgconn.pipeline_sync()
        except psycopg.Error as error:
            self.under_way.append(batch)
            self._lose(error)
            return
        self._follow(batch)

    def release(self) -> None:
        """End a lease: others may send again."""
        self.leased = False
        self._freed(self)

    def end(self, first: Exception | None = None) -> None:
        """Close the connection; whoever waits is told that it broke, the first one what is known of its batch."""
        if self.broken.done():
            return
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        if self._watching is not None:
            self._watching.cancel()
        self._pgconn.finish()
        self.broken.set_result(None)
        if first is not None and self.under_way:
            self.under_way.popleft().fail(first)
        for batch in self.under_way:
            batch.fail(LineBroken())
        self.under_way.clear()

    def _lose(self, error: psycopg.Error) -> None:
        self.end()  # before anything else: whoever waits must be told, even if the log cannot be written
        log.warning("fast lane: a connection broke", error=f"{type(error).__name__}: {error}")

    def _follow(self, batch: Batch) -> None:
        self.under_way.append(batch)
        if len(self.under_way) == 1:
            self._watch_first()
        self._flush()

    def _flush(self) -> None:
        try:
            unsent = self._pgconn.flush()
        except psycopg.Error as error:
            self._lose(error)
            return
        if unsent and not self._writing:
            self._loop.add_writer(self._socket, self._flush)
        elif self._writing and not unsent:
            self._loop.remove_writer(self._socket)
        self._writing = bool(unsent)

    def _read(self) -> None:
        try:
            # Twice, because uvloop tells of a socket that has failed only once, along with what there is still to read.
            for _ in range(2):
                self._pgconn.consume_input()
                while self.under_way and not self._pgconn.is_busy():
                    result = self._pgconn.get_result()
                    if result is not None:  # None only parts the statements
                        self._take(self.under_way[0], result)
                if self.broken.done():
                    return
        except psycopg.Error as error:
            self._lose(error)

    def _take(self, batch: Batch, result: PGresult) -> None:
        status = result.status
        if status == ExecStatus.TUPLES_OK:
            if batch.error is None and not batch.done.done():
                try:
                    self._transformer.set_pgresult(result)
                    batch.rows.append(self._transformer.load_rows(0, result.ntuples, tuple))
                except Exception as error:  # noqa: BLE001 - a value that Python cannot hold is that batch's alone
                    batch.error = Unforeseen(f"{type(error).__name__}: {error}")
        elif status == ExecStatus.PIPELINE_SYNC:
            self.under_way.popleft()
            self._watch_first()
            self._finish(batch)
            self._freed(self)
            return
        elif status == ExecStatus.FATAL_ERROR:
            self._fail(batch, error_from_result(result))
        batch.answered += 1

    def _fail(self, batch: Batch, failure: psycopg.Error) -> None:
        if failure.sqlstate == _ABORTED and batch.begins and not batch.answered:
            batch.too_early = True  # sent behind one that failed, before its ROLLBACK: none of it was done
            return
        batch.failed = True
        if batch.error is None:
            batch.error = translate(failure, batch.seconds)
        if failure.sqlstate in _LOST:
            self.end(LaneAway())  # the server has undone the batch
        elif batch.commits and batch.answered == len(batch.statements) - 1:
            self.end(batch.error)  # the COMMIT itself: there may be nothing to roll back but what others have begun

    def _finish(self, batch: Batch) -> None:
        if batch.failed and batch.commits:
            self._undo(batch.seconds)
        if batch.too_early and not batch.done.done():
            self._send_again(batch)
        elif batch.error is not None:
            batch.fail(batch.error)
        elif not batch.done.done():
            batch.done.set_result(batch.rows)

    def _undo(self, seconds: float) -> None:
        """End a transaction that has failed; its COMMIT was left out like all that followed what failed."""
        # That of a lease which is given up does, too. Behind it a ROLLBACK would undo what others have begun meanwhile.
        if not any(batch.ends for batch in self.under_way):
            self.send(Batch.ending(ROLLBACK, seconds))

    def _send_again(self, batch: Batch) -> None:
        """Have a batch sent once more that was sent too early: a lease's here, where it has the line to itself."""
        batch.answered, batch.too_early = 0, False
        if batch.commits:
            self._again(batch)
        else:
            self.send(batch)

    def _watch_first(self) -> None:
        """Have the first batch watched, from now on that it is the first."""
        if not self.under_way:
            return
        self._deadline = self._loop.time() + self.under_way[0].seconds + _GRACE_SECONDS
        # One timer serves many batches: it is set again at its end, or when a batch has less time than those before.
        if self._watching is None or self._watching.when() > self._deadline:
            if self._watching is not None:
                self._watching.cancel()
            self._watching = self._loop.call_at(self._deadline, self._watch)

    def _watch(self) -> None:
        """Give up on a server that does not answer: it would have ended a statement by itself."""
        self._watching = None
        if not self.under_way:
            return
        if self._loop.time() < self._deadline:
            self._watching = self._loop.call_at(self._deadline, self._watch)
        else:
            self.end(Unanswered())
            log.warning("fast lane: no answer in time")


# Nothing is done in a transaction that has failed (in_failed_sql_transaction), until it ends.
_ABORTED = "25P02"
# The prepared statements are of no use any more: a migration has changed what they, or what functions that they call,
# give (feature_not_supported, datatype_mismatch), or they are gone (invalid_sql_statement_name).
_LOST = {"0A000", "42804", "26000"}


def statement(call: Call) -> Statement:
    """Write a call as it is sent: the name that it is prepared under, and its parameters."""
    return call.query.name.encode(), [encode(value) for value in call.parameters]
