"""The command `forkpoint`: how it begins, how it fails and how it ends; what it can do is in `graphql_api.commands`."""

import signal
import sys

from graphql_api.terminal import CommandError, Stop

INTERRUPTED = 130  # what shells give a program that SIGINT ended


def main() -> None:
    """Run the program and exit: 0 when it did what was asked, 1 when it could not, 2 when it was asked wrongly.

    To stop is what a signal asks of `serve`, so it exits with 0 then.
    """
    stop = Stop(0 if sys.argv[1:2] == ["serve"] else INTERRUPTED)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    from graphql_api import commands  # takes a moment, in which Ctrl-C is to show no stack trace either

    try:
        commands.app(prog_name="forkpoint", obj=stop)
    except Exception as error:
        if not isinstance(error, _refusals()):
            raise
        sys.stderr.write(f"{error}\n")
        sys.exit(1)


def _refusals() -> tuple[type[Exception], ...]:
    """Give the errors whose message is meant for whoever typed the command, of the modules that this command uses."""
    families = (("db.migrate", "MigrateError"), ("db.embedded", "EmbeddedError"))
    return (CommandError, *(getattr(sys.modules[module], name) for module, name in families if module in sys.modules))
