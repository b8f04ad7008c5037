"""Steps: how each field that is no plain attribute is read for all objects of a level at once.

A step takes the objects that the field is asked of, and gives what the field is for each, in their order. Rows stand
for their types (a ContextRecord for a Context); what else there is are the objects that the resolvers make. A step
refuses whatever a resolver would refuse, and the resolvers then say it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from db.records import Columns, ContextRecord, MessageRecord
from schema.connection import PAGE_DEFAULT, PAGE_MAX
from schema.moment import Early


class Asked(NamedTuple):
    """What is asked of the objects that a step gives: fields by name, and the columns that may be large."""

    fields: frozenset[str]
    columns: Columns
    metadata: bool


class Step(NamedTuple):
    """How a field is read.

    `rows` bounds what is read for one object, from the arguments: None where nothing bounds it, and then the plan does
    not run in the fast lane. `early` says what `run` will ask, of a context of which only the id is known. A step
    that seldom asks the database is not waited for with a flush of its own.
    """

    run: Callable[..., Any]
    rows: Callable[..., int | None]
    early: Callable[..., Early | None] | None = None
    loads: bool = True
    seldom: bool = False


class Edge(NamedTuple):
    """An edge of either."""

    cursor: str | None
    node: ContextRecord | MessageRecord


def one(**_arguments: Any) -> int:
    """Bound what gives one thing for each object."""
    return 1


def unbounded(**_arguments: Any) -> None:
    """Say that nothing bounds it."""
    return


def page_rows(**arguments: Any) -> int | None:
    """Bound a page: its size, of which more than allowed will be refused. Roles thin it out without a bound."""
    if arguments.get("roles") is not None:
        return None
    sizes = [size for size in (arguments.get("last"), arguments.get("first")) if size is not None]
    return min(abs(sizes[0]) if sizes else PAGE_DEFAULT, PAGE_MAX) + 1


def derived(run: Callable[..., Any]) -> Step:
    """Give a step that only looks at what its objects hold."""
    return Step(run, one, loads=False)


def shown(record: ContextRecord | None) -> ContextRecord | None:
    """Hide a context that is deleted."""
    return None if record is None or record.deleted_at is not None else record
