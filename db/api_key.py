"""API keys: making, finding, listing and revoking them, and noting when they were used."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from db import queries
from db.pool import Reader, Session

_QUERIES = queries.load("api_key")


class ApiKeyRecord(NamedTuple):
    """A row of `api_keys` without its hash."""

    id: UUID
    name: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class Found(NamedTuple):
    """What a key that was shown is compared with.

    `seconds_left` is negative when its time is over, and None when it has no end.
    """

    key_hash: bytes
    scopes: list[str]
    revoked: bool
    seconds_left: int | None


class New(NamedTuple):
    """A key to be stored."""

    id: UUID
    key_hash: bytes
    name: str
    scopes: Sequence[str]
    expires_at: datetime | None


async def find(reader: Reader, tenant_id: str, key_id: UUID) -> Found | None:
    """Give what is stored of a key; None when it is unknown. Source: api_key.find."""
    rows = await reader.fetch(_QUERIES["find"], tenant_id, key_id)
    return Found(*rows[0]) if rows else None


async def create(session: Session, tenant_id: str, new: New) -> ApiKeyRecord:
    """Store a key. Source: api_key.create."""
    (row,) = await session.fetch(
        _QUERIES["create"], tenant_id, new.id, new.key_hash, new.name, list(new.scopes), new.expires_at
    )
    return ApiKeyRecord(*row)


async def page(reader: Reader, tenant_id: str, after: tuple[datetime, UUID], limit: int) -> list[ApiKeyRecord]:
    """Give a page of keys, newest first, that begins after a place. Source: api_key.page."""
    return [ApiKeyRecord(*row) for row in await reader.fetch(_QUERIES["page"], tenant_id, *after, limit)]


async def revoke(session: Session, tenant_id: str, key_id: UUID) -> ApiKeyRecord | None:
    """Let a key open nothing any more; None when it is unknown. Source: api_key.revoke."""
    rows = await session.fetch(_QUERIES["revoke"], tenant_id, key_id)
    return ApiKeyRecord(*rows[0]) if rows else None


async def note_uses(session: Session, tenant_id: str, milliseconds_ago: Mapping[UUID, int]) -> None:
    """Note how long ago keys were used last. Source: api_key.note_uses."""
    used = sorted(milliseconds_ago.items())
    await session.fetch(
        _QUERIES["note_uses"], tenant_id, [key_id for key_id, _ in used], [milliseconds for _, milliseconds in used]
    )
