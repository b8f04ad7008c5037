"""Values at the edge of the schema: moments, ids, the members of enums."""

import re
from datetime import UTC, datetime
from enum import Enum
from typing import Any, cast
from uuid import UUID

import strawberry
from graphql import Undefined, ValueNode, value_from_ast_untyped
from strawberry.types.scalar import ScalarDefinition

from schema.errors import BadUserInput

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)


def write_moment(value: datetime) -> str:
    """Write a moment as every answer does: in UTC, to the microsecond."""
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def read_moment(value: object) -> datetime:
    """Read a moment, in UTC.

    Raises: BadUserInput when it is not written in ISO 8601 with a UTC offset.
    """
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        # In UTC, where it must also lie between the years 1 and 9999.
        moment = moment.astimezone(UTC) if moment is not None and moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        moment = None
    if moment is None:
        raise BadUserInput("DateTime is written as in 2026-11-23T20:09:00Z: ISO 8601 with a time zone.")
    return moment


DateTime: ScalarDefinition = strawberry.scalar(
    name="DateTime",
    description="A moment in UTC, as in `2026-11-23T20:09:00.123456Z` (RFC 3339). Input may use any UTC offset, but "
    "must name one.",
    specified_by_url="https://datatracker.ietf.org/doc/html/rfc3339",
    serialize=write_moment,
    parse_value=read_moment,
)


def _read_literal(node: ValueNode, variables: dict[str, Any] | None = None) -> Any:
    return _plain(value_from_ast_untyped(node, variables))


Json: ScalarDefinition = strawberry.scalar(
    name="JSON",
    description="Any JSON value. Written in a document it is a literal such as `{a: [1, true, null]}`.",
    specified_by_url="https://ecma-international.org/publications-and-standards/standards/ecma-404/",
    serialize=lambda value: value,
    parse_value=lambda value: value,
    parse_literal=_read_literal,
)


def _plain(value: Any) -> Any:
    """Finish a literal: a variable that is not given is left out of an object and null in a list; an enum is its name.

    Source: GraphQL specification, section 3.10 and 3.11, input coercion, which JSON has no types to do by itself.
    """
    match value:
        case dict():
            return {key: _plain(part) for key, part in value.items() if part is not Undefined}
        case list():
            return [None if part is Undefined else _plain(part) for part in value]
        case Enum():
            return value.name
        case _:
            return value


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
