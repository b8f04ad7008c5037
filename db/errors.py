"""What can go wrong with PostgreSQL, in the words of the store: the docstring of each class is what callers read."""

import psycopg
from psycopg import errors
from psycopg_pool import PoolTimeout


class StoreError(Exception):
    """The store failed in a way that callers can act on."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").split("\n", 1)[0])


class Unavailable(StoreError):
    """The database cannot be reached just now. Nothing was lost that was acknowledged; try again."""


class StatementTimeout(StoreError):
    """The database took too long and was stopped. Ask for less, or try again."""


class OutOfRange(StoreError):
    """A total would pass 2147483647, the largest Int of GraphQL. Use another context."""


def translate(error: psycopg.Error) -> Exception:
    """Turn a psycopg failure into one of this family by its SQLSTATE, or give it back when nobody foresaw it."""
    match error:
        case errors.QueryCanceled():
            return StatementTimeout()
        case errors.NumericValueOutOfRange():
            return OutOfRange()
        case errors.CheckViolation() if (error.diag.constraint_name or "").startswith("contexts_counters"):
            return OutOfRange()
        case PoolTimeout():
            return Unavailable("Every connection to the database is busy. Try again in a moment.")
        case errors.OperationalError() | errors.InterfaceError():
            return Unavailable()
        case _:
            return error
