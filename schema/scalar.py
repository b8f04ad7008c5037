"""Values at the edge of the schema: moments, ids, the members of enums."""

import re
from datetime import UTC, datetime
from typing import cast
from uuid import UUID

import strawberry
from strawberry.types.scalar import ScalarDefinition

from schema.errors import BadUserInput

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


def _write_moment(value: datetime) -> str:
    return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _read_moment(value: object) -> datetime:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        # In UTC, where it must also lie between the years 1 and 9999.
        moment = moment.astimezone(UTC) if moment is not None and moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        # The only kind of error that graphql-core turns into a coercion error with its message.
        raise ValueError("DateTime is written as in 2026-11-23T20:09:00Z: ISO 8601 with a time zone.")
    return moment


DateTime: ScalarDefinition = strawberry.scalar(
    name="DateTime",
    description="A moment in UTC, as in `2026-11-23T20:09:00.123456Z` (RFC 3339). Input may use any UTC offset, but "
    "must name one.",
    specified_by_url="https://datatracker.ietf.org/doc/html/rfc3339",
    serialize=_write_moment,
    parse_value=_read_moment,
)


def member(value: str, description: str) -> str:
    """Describe a member of an enum. Strawberry takes the description off again, so that `.value` is the value."""
    return cast("str", strawberry.enum_value(value, description=description))


def read_id(value: str, place: str) -> UUID:
    """Read an id. `place` names the argument in the message.

    Raises: BadUserInput when it is not written as a UUID.
    """
    if _UUID.fullmatch(value) is None:
        raise BadUserInput(f"{place} is not an id. Ids look like 0198c0de-7d0e-7000-8000-000000000000.")
    return UUID(value)
