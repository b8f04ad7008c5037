"""`forkpoint keys`: makes, lists and revokes the API keys of a tenant. A key is in no argument, log line or error."""

import asyncio
import re
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, TypeVar
from uuid import UUID

import orjson

import db.api_key
from db.api_key import ApiKeyRecord
from db.context import LATEST, MAX
from db.errors import StoreError
from db.pool import Database, PoolLimits
from graphql_api.command_settings import check_tenant
from graphql_api.terminal import CommandError, say, say_aside
from schema import api_key
from schema.errors import Refusal
from schema.principal import Scope
from schema.scalar import read_id, read_moment

Result = TypeVar("Result")

# A command is of one tenant, so that PostgreSQL is told of it whatever serves is told.
POOL = PoolLimits(
    size_min=1, size_max=1, wait_seconds=10.0, connect_seconds=5.0, statement_seconds=60.0, row_security=True
)
PAGE = 1_000
# What may be given by name; the last one has a flag of its own, which nobody sets by mistake.
_SCOPES = (Scope.READ, Scope.WRITE, Scope.ADMIN)
_DAYS = re.compile(r"([0-9]{1,5})d", re.ASCII)
_HEADER = ("ID", "SCOPES", "CREATED", "EXPIRES", "REVOKED", "LAST USED", "NAME")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A key to make."""

    tenant_id: str
    name: str
    scopes: tuple[Scope, ...]
    expires_at: datetime | None


def read_wanted(tenant: str, name: str, scopes: str, expires: str | None, *, act_as: bool) -> Wanted:
    """Read what `create` was given.

    Raises: CommandError.
    """
    check_tenant(tenant)
    try:
        api_key.read_name(name, "--name")
    except Refusal as error:
        raise CommandError(error.message) from None
    chosen = tuple(_read_scope(scope.strip()) for scope in scopes.split(","))
    return Wanted(tenant, name, (*chosen, Scope.ACT_AS) if act_as else chosen, _read_expiry(expires))


def read_key_id(key_id: str) -> UUID:
    """Read the id of a key, and show nothing of what is none: it may be a key.

    Raises: CommandError.
    """
    try:
        return read_id(key_id, "ID")
    except Refusal as error:
        raise CommandError(f"{error.message} `forkpoint keys list` shows them.") from None


def run_create(url: str, wanted: Wanted) -> None:
    """Make a key and print it.

    Raises: CommandError.
    """
    record, key = _run(_create(url, wanted))
    until = f"until {_minute(record.expires_at)} UTC" if record.expires_at else "until it is revoked"
    say_aside(
        f"Made the key {record.id} of the tenant {wanted.tenant_id}, for {', '.join(record.scopes)}, {until}.\n"
        "It is shown this once and stored nowhere. Keep it where secrets are kept."
    )
    say(key)


def run_list(url: str, tenant_id: str, *, as_json: bool) -> None:
    """Print the keys of a tenant, newest first.

    Raises: CommandError.
    """
    records = _run(_all(url, tenant_id))
    if as_json:
        for record in records:
            say(orjson.dumps(record._asdict(), option=orjson.OPT_UTC_Z).decode())
    elif records:
        _say_table([_HEADER, *map(_row, records)])
    else:
        say_aside(f"The tenant {tenant_id} has no API keys. `forkpoint keys create` makes one.")


def run_revoke(url: str, tenant_id: str, key_id: UUID) -> None:
    """Revoke a key.

    Raises: CommandError, also where there is none.
    """
    record = _run(_revoke(url, tenant_id, key_id))
    if record is None:
        raise CommandError(
            f"The tenant {tenant_id} has no API key {key_id}. "
            f"`forkpoint keys list --tenant {tenant_id}` shows those that it has."
        )
    say(
        f"Revoked the key {record.id}, {_shown(record.name)}. "
        "5 seconds from now at the latest it opens nothing any more."
    )


def _read_scope(text: str) -> Scope:
    if text == Scope.ACT_AS:
        raise CommandError("--scopes holds act-as, which reaches over tenants. Give it by the flag --act-as.")
    if text not in _SCOPES:
        raise CommandError(f"--scopes holds what is no scope. Give some of {', '.join(_SCOPES)}, with commas between.")
    return Scope(text)


def _read_expiry(text: str | None) -> datetime | None:
    if text is None:
        return None
    if days := _DAYS.fullmatch(text):
        return datetime.now(UTC) + timedelta(days=int(days[1]))
    try:
        return datetime.combine(date.fromisoformat(text), time(), UTC) if len(text) <= 10 else read_moment(text)  # noqa: PLR2004 - a date's length
    except (ValueError, Refusal):
        raise CommandError(
            "--expires is no time. Give days, such as 90d, a date in UTC, such as 2027-12-31, or a moment with a time "
            "zone, such as 2027-12-31T12:00:00Z."
        ) from None


def _run(asking: Coroutine[Any, Any, Result]) -> Result:
    """Run, and let what is refused and what fails be told as a line."""
    try:
        return asyncio.run(asking)
    except Refusal as error:
        raise CommandError(error.message) from error
    except StoreError as error:
        raise CommandError(str(error)) from error


async def _create(url: str, wanted: Wanted) -> tuple[ApiKeyRecord, str]:
    async with Database(url, POOL) as database, database.transaction(wanted.tenant_id) as session:
        return await api_key.make(session, wanted.tenant_id, wanted.name, wanted.scopes, wanted.expires_at)


async def _all(url: str, tenant_id: str) -> list[ApiKeyRecord]:
    records: list[ApiKeyRecord] = []
    after = (LATEST, MAX)
    async with Database(url, POOL) as database, database.snapshot(tenant_id) as snapshot:
        while page := await db.api_key.page(snapshot, tenant_id, after, PAGE):
            records += page
            after = (page[-1].created_at, page[-1].id)
    return records


async def _revoke(url: str, tenant_id: str, key_id: UUID) -> ApiKeyRecord | None:
    async with Database(url, POOL) as database, database.transaction(tenant_id) as session:
        return await db.api_key.revoke(session, tenant_id, key_id)


def _row(record: ApiKeyRecord) -> tuple[str, ...]:
    moments = (record.created_at, record.expires_at, record.revoked_at, record.last_used_at)
    return (str(record.id), ",".join(record.scopes), *map(_minute, moments), _shown(record.name))


def _minute(moment: datetime | None) -> str:
    return "-" if moment is None else moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def _shown(name: str) -> str:
    """Show a name that may hold anything, such as what a terminal would obey."""
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in name)


def _say_table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
