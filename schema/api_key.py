"""API keys of the tenant, for its admins: what they are, and making, listing and revoking them."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from enum import Enum
from typing import Self

import strawberry
import uuid_utils.compat

import db.api_key
from db.api_key import ApiKeyRecord, New
from db.context import LATEST, MAX
from db.pool import Session
from schema import api_key_text, connection
from schema.connection import PageInfo
from schema.context import read_place, write_place
from schema.errors import BadUserInput, Forbidden, LimitExceeded, NotFound
from schema.principal import Scope
from schema.request import Request
from schema.scalar import member, read_id
from schema.storable import check_text

NAME_CHARS_MAX = 255
# What cursors are marked with.
_CURSORS = "api keys"


@strawberry.enum(description="What a credential may do. Each of the first three implies those before it.")
class ApiKeyScope(Enum):
    """The value is that of `Scope`, and what is stored."""

    READ = member("read", "Read, and subscribe.")
    WRITE = member("write", "Change what is stored; what a mutation answers is read, too.")
    ADMIN = member("admin", "Make, list and revoke the API keys of the tenant.")
    ACT_AS = member(
        "act-as",
        "Name the tenant of each request by a header. It implies nothing and nothing implies it. Such keys are made "
        "by `forkpoint keys create --act-as` only.",
    )


@strawberry.type(description="An API key, without its secret, which is stored nowhere.")
class ApiKey:
    """A key."""

    id: strawberry.ID = strawberry.field(description="A UUID, by which the log calls it, and by which it is revoked.")
    name: str = strawberry.field(description="What it was called when it was made.")
    created_at: datetime = strawberry.field(description="When it was made.")
    expires_at: datetime | None = strawberry.field(description="When it expires; null for never.")
    revoked_at: datetime | None = strawberry.field(description="When it was revoked; null if it was not.")
    last_used_at: datetime | None = strawberry.field(
        description="When it was used last, some half a minute late; null for never."
    )
    held: strawberry.Private[list[ApiKeyScope]]

    @strawberry.field(description="What may be done with it.")
    def scopes(self) -> list[ApiKeyScope]:
        """Give what is stored."""
        return self.held

    @classmethod
    def of(cls, record: ApiKeyRecord) -> Self:
        """Make it of a row."""
        return cls(
            id=strawberry.ID(str(record.id)),
            name=record.name,
            created_at=record.created_at,
            expires_at=record.expires_at,
            revoked_at=record.revoked_at,
            last_used_at=record.last_used_at,
            held=[ApiKeyScope(scope) for scope in record.scopes],
        )


@strawberry.type(description="An API key at its place in a connection.")
class ApiKeyEdge:
    """An edge."""

    cursor: str = strawberry.field(description="Marks this place for `after`.")
    node: ApiKey = strawberry.field(description="The key.")


@strawberry.type(description="A page of API keys.")
class ApiKeyConnection:
    """Read at once: it is asked for by people, and seldom."""

    edges: list[ApiKeyEdge] = strawberry.field(description="The page, each key with its cursor.")
    nodes: list[ApiKey] = strawberry.field(description="The keys of the page without their cursors.")
    page_info: PageInfo = strawberry.field(
        description="Where the page stands. It has a previous page when it was asked for with `after`."
    )


class Page:
    """Which page is asked for."""

    def __init__(self, first: int | None, after: str | None, most: int) -> None:
        self.limit = connection.size(first, most=most).limit
        self._continued = after is not None
        place = connection.read_cursor(after, _CURSORS, "after", int, str)
        self.after = (LATEST, MAX) if place is None else read_place(*place)

    def of(self, found: Sequence[ApiKeyRecord]) -> ApiKeyConnection:
        """Make a page of its rows and one more, which tells whether there is more."""
        edges = [
            ApiKeyEdge(
                cursor=connection.write_cursor(_CURSORS, *write_place(record.created_at, record.id)),
                node=ApiKey.of(record),
            )
            for record in found[: self.limit]
        ]
        return ApiKeyConnection(
            edges=edges,
            nodes=[edge.node for edge in edges],
            page_info=PageInfo(
                start_cursor=edges[0].cursor if edges else None,
                end_cursor=edges[-1].cursor if edges else None,
                previous=self._continued,
                next=len(found) > len(edges),
            ),
        )


@strawberry.input(description="An API key to make.")
class CreateApiKeyInput:
    """A key."""

    name: str = strawberry.field(description=f"What to call it, in 1 to {NAME_CHARS_MAX} characters: who uses it.")
    scopes: list[ApiKeyScope] = strawberry.field(description="What may be done with it, at least one; never `ACT_AS`.")
    expires_at: datetime | None = strawberry.field(
        default=None, description="When it expires, in the future; never if not given."
    )


@strawberry.type(description="The API key that was made.")
class CreateApiKeyPayload:
    """A payload."""

    api_key: ApiKey = strawberry.field(description="What is known of it from now on.")
    key: str = strawberry.field(
        description="The key itself, as it is sent in `Authorization: Bearer`. It is shown here, once, and never again."
    )


@strawberry.input(description="An API key to revoke.")
class RevokeApiKeyInput:
    """A key."""

    id: strawberry.ID = strawberry.field(description="Its id.")


@strawberry.type(description="The API key that was revoked.")
class RevokeApiKeyPayload:
    """A payload."""

    api_key: ApiKey = strawberry.field(description="The key as it is now.")


async def page(request: Request, first: int | None, after: str | None) -> ApiKeyConnection:
    """List keys.

    Raises: Forbidden, BadUserInput, LimitExceeded.
    """
    request.principal.require(Scope.ADMIN)
    wanted = Page(first, after, request.service.limits.page_size_max)
    return wanted.of(await request.batches(request.snapshot).api_key_page(wanted.after, wanted.limit + 1))


async def create(request: Request, given: CreateApiKeyInput) -> CreateApiKeyPayload:
    """Make a key.

    Raises: Forbidden, BadUserInput, LimitExceeded.
    """
    request.principal.require(Scope.ADMIN)
    if ApiKeyScope.ACT_AS in given.scopes:
        raise Forbidden(
            "input.scopes holds ACT_AS, which reaches over tenants. Such a key is made by whoever runs the service: "
            "`forkpoint keys create --act-as`."
        )
    if not given.scopes:
        raise BadUserInput("input.scopes is empty. Give at least one of READ, WRITE and ADMIN.")
    name = read_name(given.name, "input.name")
    async with request.transaction() as session:
        record, key = await make(
            session, request.tenant_id, name, (Scope(scope.value) for scope in given.scopes), given.expires_at
        )
    return CreateApiKeyPayload(api_key=ApiKey.of(record), key=key)


async def revoke(request: Request, given: RevokeApiKeyInput) -> RevokeApiKeyPayload:
    """Revoke a key.

    Raises: Forbidden, BadUserInput, NotFound.
    """
    request.principal.require(Scope.ADMIN)
    key_id = read_id(given.id, "input.id")
    async with request.transaction() as session:
        record = await db.api_key.revoke(session, request.tenant_id, key_id)
    if record is None:
        raise NotFound(f"There is no API key {key_id}. `apiKeys` lists those that there are.")
    return RevokeApiKeyPayload(api_key=ApiKey.of(record))


def read_name(name: str, place: str) -> str:
    """Check the name of a key; `place` names the argument.

    Raises: BadUserInput, LimitExceeded.
    """
    check_text(name, place)
    if not name.strip():
        raise BadUserInput(f"{place} is empty. Give 1 to {NAME_CHARS_MAX} characters that say who uses the key.")
    if len(name) > NAME_CHARS_MAX:
        raise LimitExceeded(f"{place} has {len(name)} characters. It may have {NAME_CHARS_MAX} at most.")
    return name


async def make(
    session: Session, tenant_id: str, name: str, scopes: Iterable[Scope], expires_at: datetime | None
) -> tuple[ApiKeyRecord, str]:
    """Store a key, and give it: what is stored of it, and what is not.

    Raises: BadUserInput when it would be over at once, by the clock of the database; then the transaction must be
    undone.
    """
    key_id = uuid_utils.compat.uuid7()
    key = api_key_text.make(tenant_id, key_id)
    held = set(scopes)
    ordered = [scope.value for scope in Scope if scope in held]
    record = await db.api_key.create(
        session, tenant_id, New(key_id, api_key_text.hash_of(key), name, ordered, expires_at)
    )
    if expires_at is not None and expires_at <= record.created_at:
        raise BadUserInput("The key would expire in the past. Choose a later moment, or none.")
    return record, key
