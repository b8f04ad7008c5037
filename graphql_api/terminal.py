"""What commands share with whoever typed them: what they say, how they refuse, how they are told to stop."""

import os
import sys


class CommandError(Exception):
    """A command cannot be carried out: a line for each thing that was wrong, without a secret in it."""


def say(text: str) -> None:
    """Print for whoever typed the command; the log has the standard error stream for itself."""
    try:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    except BrokenPipeError:  # `forkpoint serve | tee log`: Ctrl-C ends tee first
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say_aside(text: str) -> None:
    """Print for whoever typed the command, while standard output is for data."""
    sys.stderr.write(f"{text}\n")


class Stop:
    """What SIGINT and SIGTERM do: they exit, which unwinds and closes whatever is open, wherever that is.

    Python drops an exception that a signal's handler raises inside code that ignores exceptions (one in 160 during our
    imports), so whoever is about to work for long looks at `asked` first.
    """

    def __init__(self, status: int) -> None:
        self.asked = False
        self._status = status

    def __call__(self, *_: object) -> None:
        """Handle a signal."""
        self.asked = True
        sys.exit(self._status)
