"""The same time for each of many tasks, watched by one timer.

It does what `asyncio.timeout` does, whose timer for each takes 5 microseconds; this takes less than one.
"""

import asyncio
from typing import Self


class Deadlines:
    """Those of one process that have so many seconds each."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._running: dict[Deadline, None] = {}  # the first one to end first
        self._timer: asyncio.TimerHandle | None = None

    def add(self, deadline: "Deadline") -> None:
        """Watch one."""
        loop = asyncio.get_running_loop()
        deadline.ends_at = loop.time() + self.seconds
        self._running[deadline] = None
        if self._timer is None:
            self._timer = loop.call_at(deadline.ends_at, self._look)

    def remove(self, deadline: "Deadline") -> None:
        """Watch it no more."""
        self._running.pop(deadline, None)

    def _look(self) -> None:
        """Stop whose time is over; look again when that of the next one is."""
        self._timer, loop = None, asyncio.get_running_loop()
        while self._running:
            first = next(iter(self._running))
            if first.ends_at > loop.time():
                self._timer = loop.call_at(first.ends_at, self._look)
                return
            del self._running[first]
            first.stop()


class Deadline:
    """One task's, for as long as it is entered: past it the task is cancelled, and leaves with TimeoutError."""

    __slots__ = ("_all", "_cancelling", "_task", "ends_at", "expired")

    def __init__(self, deadlines: Deadlines) -> None:
        self._all = deadlines
        self.ends_at = 0.0
        self.expired = False

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - whoever awaits is one
        self._task, self._cancelling = task, task.cancelling()
        self._all.add(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _traceback: object) -> None:
        self._all.remove(self)
        # Where somebody else has cancelled it, too, that goes first.
        if self.expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def stop(self) -> None:
        """End the task's time."""
        self.expired = True
        self._task.cancel()
