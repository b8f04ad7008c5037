"""How much a process does at once: who is more waits in a queue, and who is too many is told at once to come again.

Without it everybody would be served so slowly that nobody waits for the answer. The turns go round the tenants, so that
who asks a lot waits for nobody but itself; and when the queue is full, the tenant with most in it gives way to one with
less. Bodies count by their bytes and not by a turn, or a client that sends slowly would hold one.
"""

import asyncio
from collections import OrderedDict
from typing import Final

from graphql_api.settings import Settings
from schema.errors import Code, Refusal

# When to come again: turns are short, so a second frees many.
RETRY_SECONDS: Final = 1
# Bodies of so many bytes are not counted: a connection's own buffers hold as much.
SMALL_BODY_BYTES: Final = 64 * 1024

# A tenant's requests, or the events of its subscriptions: these take turns with one another, too.
Line = tuple[str, bool]
Turns = OrderedDict[asyncio.Future[None], None]


class Unavailable(Refusal):
    """There is no room for another one now."""

    code = Code.UNAVAILABLE

    def __init__(self, message: str) -> None:
        super().__init__(f"{message} Try again in a moment.", retryAfterSeconds=RETRY_SECONDS)


class Admission:
    """The turns of one process, and the bytes of the bodies that it holds."""

    def __init__(self, settings: Settings) -> None:
        self._turns_max = settings.requests_max
        self._free = settings.requests_max
        self._queue_max = settings.request_queue_max
        self._wait_seconds = settings.request_wait_seconds
        self._lines: OrderedDict[Line, Turns] = OrderedDict()  # the next one first
        self._queued = 0  # of requests; events are as many as there are subscriptions, and wait as long as it takes
        self._bytes_max = max(settings.bodies_bytes_max, settings.body_bytes_max)
        self._tenant_bytes_max = max(settings.bodies_bytes_max // 2, settings.body_bytes_max)
        self._bytes: dict[str, int] = {}
        self._bytes_held = 0

    @property
    def idle(self) -> bool:
        """Whether nothing is under way and nothing held."""
        return self._free == self._turns_max and not (self._lines or self._queued or self._bytes or self._bytes_held)

    def check(self, tenant_id: str) -> None:
        """Look whether a request of a tenant may come in, before anything of it is read.

        Raises: Unavailable.
        """
        if not self._free and self._queued >= self._queue_max and self._longest(tenant_id) is None:
            raise self._full()

    def turn(self, tenant_id: str, *, event: bool = False) -> "Turn":
        """Give what is to be entered for as long as a request is executed, or an event is answered."""
        return Turn(self, (tenant_id, event))

    def held(self) -> "Held":
        """Give what counts the bytes that a request's body holds."""
        return Held(self)

    async def _wait(self, line: Line) -> None:
        """Wait for one's turn.

        Raises: Unavailable.
        """
        is_event = line[1]
        if not is_event and self._queued >= self._queue_max:
            self._push_out(line)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(line, OrderedDict())[turn] = None
        self._queued += not is_event
        try:
            async with asyncio.timeout(None if is_event else self._wait_seconds):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.leave()  # it came in the very moment that nobody waited any more
            else:
                self._forget(line, turn)
            if isinstance(error, TimeoutError):
                message = f"No turn came within {self._wait_seconds:g} seconds (FORKPOINT_REQUEST_WAIT_SECONDS)."
                raise Unavailable(message) from None
            raise
        finally:
            self._queued -= not is_event

    def leave(self) -> None:
        """Give one's turn to who is next."""
        while self._lines:
            line, turns = self._lines.popitem(last=False)
            turn, _ = turns.popitem(last=False)
            if turns:
                self._lines[line] = turns
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1

    def take(self) -> bool:
        """Take a turn if one is free; then nobody waits."""
        if not self._free:
            return False
        self._free -= 1
        return True

    def _longest(self, tenant_id: str) -> Line | None:
        """Find the tenant with most in the queue, unless that has no more than this one would have."""
        line = max((line for line in self._lines if not line[1]), key=lambda line: len(self._lines[line]), default=None)
        own = len(self._lines.get((tenant_id, False), ()))
        return line if line is not None and len(self._lines[line]) > own + 1 else None

    def _push_out(self, line: Line) -> None:
        """Let the last one of the tenant with most in the queue give way.

        Raises: Unavailable where that is who comes.
        """
        longest = self._longest(line[0])
        if longest is None:
            raise self._full()
        turn, _ = self._lines[longest].popitem()
        if not turn.done():
            turn.set_exception(self._full())

    def _forget(self, line: Line, turn: asyncio.Future[None]) -> None:
        turns = self._lines.get(line)
        if turns is not None and turn in turns:
            del turns[turn]
            if not turns:
                del self._lines[line]

    def _full(self) -> Unavailable:
        return Unavailable(
            f"{self._turns_max:,} requests are under way and {self._queue_max:,} wait, the most of a process"
            " (FORKPOINT_REQUESTS_MAX, FORKPOINT_REQUEST_QUEUE_MAX)."
        )

    def hold(self, tenant_id: str, size: int) -> None:
        """Hold so many bytes more, or less.

        Raises: Unavailable.
        """
        own = self._bytes.get(tenant_id, 0) + size
        if size > 0 and (own > self._tenant_bytes_max or self._bytes_held + size > self._bytes_max):
            raise Unavailable(
                f"The bodies of the requests under way have more than {self._bytes_max:,} bytes, the most of a process,"
                f" or those of one tenant more than {self._tenant_bytes_max:,} (FORKPOINT_BODIES_BYTES_MAX)."
            )
        self._bytes_held += size
        if own:
            self._bytes[tenant_id] = own
        else:
            del self._bytes[tenant_id]


class Turn:
    """A turn, for as long as it is entered.

    Raises: Unavailable.
    """

    __slots__ = ("_admission", "_line")

    def __init__(self, admission: Admission, line: Line) -> None:
        self._admission = admission
        self._line = line

    async def __aenter__(self) -> None:
        if not self._admission.take():
            await self._admission._wait(self._line)  # noqa: SLF001 - a part of it

    async def __aexit__(self, *_failure: object) -> None:
        self._admission.leave()


class Held:
    """The bytes of one request, until it is answered."""

    __slots__ = ("_admission", "_size", "_tenant_id")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._tenant_id = ""
        self._size = 0

    def grow(self, tenant_id: str, size: int) -> None:
        """Hold so many bytes in all.

        Raises: Unavailable.
        """
        if size > SMALL_BODY_BYTES:
            self._admission.hold(tenant_id, size - self._size)
            self._tenant_id, self._size = tenant_id, size

    def release(self) -> None:
        """Hold nothing any more."""
        if self._size:
            self._admission.hold(self._tenant_id, -self._size)
            self._size = 0
