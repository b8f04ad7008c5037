"""Lists of a tenant's contexts: how they are filtered and ordered."""

from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from typing import assert_never, cast
from uuid import UUID

import strawberry
from strawberry.scalars import JSON

import db.context
from db.context import Direction, Order
from db.records import ContextRecord
from schema import connection
from schema.batches import ContextsPage
from schema.context import read_place, write_place
from schema.request import Info
from schema.scalar import member, read_id
from schema.storable import check_object, check_text, json_text


@strawberry.input(description="Which contexts to list: those that meet every condition given.")
class ContextFilter:
    """All conditions hold together."""

    name_contains: str | None = strawberry.field(
        default=None, description="The name contains this text, upper and lower case being the same."
    )
    metadata_contains: JSON | None = strawberry.field(
        default=None,
        description="The metadata contains this JSON object: these keys with these values, from the top down "
        "(PostgreSQL's `@>`).",
    )
    roots_only: bool | None = strawberry.field(default=None, description="Leave forks out.")
    parent_id: strawberry.ID | None = strawberry.field(default=None, description="Only forks of this context.")
    updated_since: datetime | None = strawberry.field(default=None, description="Updated at or after this moment.")
    include_deleted: bool | None = strawberry.field(default=None, description="Deleted contexts too.")


@strawberry.enum(description="What contexts are ordered by. Those that are equal are ordered by id.")
class ContextOrderField(Enum):
    """The value is the column."""

    UPDATED_AT = member("updated_at", "When they last changed.")
    CREATED_AT = member("created_at", "When they were made.")
    NAME = member("name", "Their name, by code point; without a name counts as an empty one.")


@strawberry.enum(description="Which end comes first.")
class OrderDirection(Enum):
    """The value stands in the name of the query."""

    ASC = member("asc", "Smallest or earliest first.")
    DESC = member("desc", "Largest or latest first.")


@strawberry.input(description="How contexts are ordered.")
class ContextOrder:
    """Newest first unless something else is asked for."""

    field: ContextOrderField | None = strawberry.field(
        default=ContextOrderField.UPDATED_AT, description="What they are ordered by."
    )
    direction: OrderDirection | None = strawberry.field(
        default=OrderDirection.DESC, description="Which end comes first."
    )


class Contexts:
    """The contexts of the tenant that a filter chooses, in an order."""

    def __init__(
        self,
        first: int | None,
        after: str | None,
        chosen: ContextFilter | None,
        order: ContextOrder | None,
        most: int,
    ) -> None:
        self.limit = connection.size(first, most=most).limit
        self.continued = after is not None
        self.filter = read_filter(chosen or ContextFilter())
        order = order or ContextOrder()
        self._order = order.field or ContextOrderField.UPDATED_AT
        self._direction = order.direction or OrderDirection.DESC
        self._name = f"contexts {self._order.value} {self._direction.value}"
        self._after = self._read_after(after)

    @property
    def page(self) -> ContextsPage:
        """What is read."""
        order, direction = cast("Order", self._order.value), cast("Direction", self._direction.value)
        return ContextsPage(self.filter, order, direction, self._after, self.limit + 1)

    async def read(self, info: Info) -> Sequence[ContextRecord]:
        """Load the page."""
        return await info.context.loaders.contexts.load(self.page)

    async def count(self, info: Info) -> int:
        """Load the count."""
        return await info.context.loaders.context_count.load(self.filter)

    def cursor(self, record: ContextRecord) -> str:
        """Write the value that the order compares, and the id."""
        match self._order:
            case ContextOrderField.UPDATED_AT:
                return connection.write_cursor(self._name, *write_place(record.updated_at, record.id))
            case ContextOrderField.CREATED_AT:
                return connection.write_cursor(self._name, *write_place(record.created_at, record.id))
            case ContextOrderField.NAME:
                return connection.write_cursor(self._name, record.name or "", record.id.hex)
            case _:
                assert_never(self._order)

    def _read_after(self, after: str | None) -> tuple[datetime | str, UUID] | None:
        by_name = self._order is ContextOrderField.NAME
        place = connection.read_cursor(after, self._name, "after", str if by_name else int, str)
        if place is None:
            return None
        if not by_name:
            return read_place(*place)
        check_text(place[0], "after")
        return place[0], read_place(0, place[1])[1]


def read_filter(chosen: ContextFilter) -> db.context.Filter:
    """Check a filter.

    Raises: BadUserInput.
    """
    if chosen.name_contains is not None:
        check_text(chosen.name_contains, "filter.nameContains")
    if chosen.metadata_contains is not None:
        check_object(chosen.metadata_contains, "filter.metadataContains")
    return db.context.Filter(
        name_contains=chosen.name_contains or None,
        metadata_contains=None if chosen.metadata_contains is None else json_text(chosen.metadata_contains),
        roots_only=chosen.roots_only or False,
        parent_id=None if chosen.parent_id is None else read_id(chosen.parent_id, "filter.parentId"),
        updated_since=chosen.updated_since,
        include_deleted=chosen.include_deleted or False,
    )
