"""Pages after the Relay connection specification: arguments, cursors, page info.

Source: https://relay.dev/graphql/connections.htm
"""

import base64
import binascii
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
import strawberry

from schema.batches import LineagePage
from schema.errors import BadUserInput, LimitExceeded
from schema.request import Info

PAGE_DEFAULT = 50
PAGE_MAX = 1000

# What of a connection takes its page.
OF_PAGE = frozenset({"edges", "nodes", "pageInfo"})

First = Annotated[
    int | None,
    strawberry.argument(description=f"How many from the start: at most {PAGE_MAX}, {PAGE_DEFAULT} if not given."),
]
After = Annotated[str | None, strawberry.argument(description="Start after this cursor of the same connection.")]

Last = Annotated[
    int | None,
    strawberry.argument(description=f"How many from the end: at most {PAGE_MAX}. Not together with `first`."),
]
Before = Annotated[str | None, strawberry.argument(description="End before this cursor of the same connection.")]


@dataclass(frozen=True, slots=True)
class Size:
    """How many, and from which end."""

    limit: int
    newest_first: bool


def size(first: int | None, last: int | None = None, most: int = PAGE_MAX) -> Size:
    """Read `first` and `last`; without either the first 50.

    Raises: BadUserInput when both are given or one is negative, LimitExceeded when one is more than allowed.
    """
    if first is not None and last is not None:
        raise BadUserInput("first and last are both given. Give one of them.")
    name, value = ("last", last) if last is not None else ("first", first)
    if value is None:
        return Size(PAGE_DEFAULT, newest_first=False)
    if value < 0:
        raise BadUserInput(f"{name} is {value}. It must be 0 or more.")
    if value > most:
        raise LimitExceeded(
            f"{name} is {value}. It may be {most} at most (FORKPOINT_PAGE_SIZE_MAX); page with cursors for more."
        )
    return Size(value, newest_first=last is not None)


def write_cursor(connection: str, *place: Any) -> str:
    """Write a cursor: the connection it belongs to, then the place in it. Opaque to callers."""
    return base64.urlsafe_b64encode(orjson.dumps([connection, *place])).decode().rstrip("=")


def read_cursor(cursor: str | None, connection: str, argument: str, *types: type) -> tuple[Any, ...] | None:
    """Read the place that `write_cursor` wrote, whose parts are of `types`; None when there is no cursor.

    Raises: BadUserInput when it is not a cursor of this connection.
    """
    if cursor is None:
        return None
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        parts = orjson.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (UnicodeEncodeError, binascii.Error, orjson.JSONDecodeError):
        parts = None
    match parts:
        case [str(written), *place] if written == connection and [type(part) for part in place] == list(types):
            return tuple(place)
    raise BadUserInput(
        f"{argument} is not a cursor of this connection. Take it from an edge's cursor or from pageInfo, "
        "with the same arguments for order."
    )


@strawberry.type(description="Where a page stands in its connection.")
class PageInfo:
    """What lies on a side of the page is known, or else where to look when a caller wants to know."""

    start_cursor: str | None = strawberry.field(description="Cursor of the first edge, null for an empty page.")
    end_cursor: str | None = strawberry.field(description="Cursor of the last edge, null for an empty page.")
    previous: strawberry.Private[bool | LineagePage]
    next: strawberry.Private[bool | LineagePage]

    @strawberry.field(description="Whether there is more before this page.")
    async def has_previous_page(self, info: Info) -> bool:
        """Answer from what is known, or look."""
        return self.previous if isinstance(self.previous, bool) else await _any(info, self.previous)

    @strawberry.field(description="Whether there is more after this page.")
    async def has_next_page(self, info: Info) -> bool:
        """Answer from what is known, or look."""
        return self.next if isinstance(self.next, bool) else await _any(info, self.next)


async def _any(info: Info, part: LineagePage) -> bool:
    return bool(await info.context.loaders.lineage.load(part))
