"""What can go wrong with PostgreSQL, in the words of the store: the docstring of each class is what callers read."""

import psycopg
import structlog
from psycopg import errors
from psycopg_pool import PoolTimeout

log = structlog.get_logger(__name__)


class StoreError(Exception):
    """The store failed in a way that callers can act on."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").split("\n", 1)[0])


class Unavailable(StoreError):
    """The database cannot be reached just now. Nothing was lost that was acknowledged; try again."""


# Of a change whose commit was sent, and not answered.
UNCONFIRMED = (
    "The database went away before it confirmed the change, which may or may not be stored. "
    "Try again with the same idempotency key; without one, read first."
)


class LaneAway(Unavailable):
    """The fast lane has no connection just now. Nothing was done; the pool may be asked."""


class LineBroken(Unavailable):
    """A connection of the fast lane broke. What only reads may be asked of the pool."""


_STOPPED = "The database took too long and was stopped: a statement may take {:g} seconds. Ask for less, or try again."


class StatementTimeout(StoreError):
    """The database took too long and was stopped. Ask for less, or try again."""

    def __init__(self, seconds: float | None = None) -> None:
        super().__init__(None if seconds is None else _STOPPED.format(seconds))


class Unanswered(StatementTimeout):
    """The database took too long to answer. Ask for less, or try again."""


class Duplicate(StoreError):
    """A row with this key is there already."""


class Unforeseen(Exception):
    """A failure that is nobody's input and no outage: a fault of ours."""


class OutOfRange(StoreError):
    """A total would pass 2147483647, the largest Int of GraphQL. Use another context."""


def translate(error: psycopg.Error, seconds: float | None = None) -> Exception:
    """Turn a psycopg failure into one of this family by its SQLSTATE, or into Unforeseen.

    `seconds` is how long the statement was allowed to take. Callers read the family's words; the log has PostgreSQL's
    own, but for the detail, which may quote what is stored.
    """
    words = f"{type(error).__name__}: {error.diag.message_primary or error}"
    log.warning("database failure", sqlstate=error.sqlstate, error=words)
    translated: Exception = Unforeseen(words)
    match error:
        case errors.DeadlockDetected() | errors.SerializationFailure():
            translated = Unavailable("The change met another one on its way and was undone. Try again.")
        case errors.QueryCanceled():
            translated = StatementTimeout(seconds)
        case errors.UniqueViolation():
            translated = Duplicate()
        case errors.NumericValueOutOfRange():
            translated = OutOfRange()
        case PoolTimeout():
            translated = Unavailable(
                "No connection to the database became free in time: it is away, or all are busy. Try again in a moment."
            )
        case errors.OperationalError() | errors.InterfaceError():
            translated = Unavailable()
    return translated
