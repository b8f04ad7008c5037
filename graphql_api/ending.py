"""Ends tasks, also those that lose a cancellation.

On Python 3.11 `asyncio.wait_for` does, when it comes together with the result that is waited for; psycopg's pool waits
by it. A stream whose client has left would then stay until its next event, which may never come.
"""

import asyncio
from typing import Any

# Longer than what a task has to tidy up takes, but when the database does not answer; and then that is safe to give up.
AGAIN_SECONDS = 1.0


def end(task: asyncio.Task[Any]) -> None:
    """Cancel a task, and once more after each second until it has ended."""
    if task.done():
        return
    task.cancel()
    again = task.get_loop().call_later(AGAIN_SECONDS, end, task)
    task.add_done_callback(lambda _: again.cancel())
