"""Idempotency keys: who repeats a call is given what came of it the first time, and nothing is done twice."""

import hashlib
import json
from dataclasses import fields
from enum import Enum
from typing import Any
from uuid import UUID

import db.context
import db.idempotency
from db.idempotency import Claim
from db.pool import Session
from schema.errors import BadUserInput, Conflict, LimitExceeded
from schema.request import Request
from schema.storable import check_text

KEY_CHARS_MAX = 255

_RULE = (
    f"A name of the caller's choice for this call, of 1 to {KEY_CHARS_MAX} characters. With it the call can be sent "
    "again when no answer came: nothing is done twice, and the first result is returned. The same key with other input "
    "is a CONFLICT. Keys are kept for 24 hours at least. "
)
OF_ONE_CONTEXT = f"{_RULE}Each context has keys of its own, and of the input only the messages are compared."
OF_ALL_CONTEXTS = f"{_RULE}createContext and forkContext share their keys."


def read_key(key: str | None) -> str | None:
    """Check a key, if one is given.

    Raises: BadUserInput, LimitExceeded.
    """
    if key is None:
        return None
    check_text(key, "input.idempotencyKey")
    if not key:
        raise BadUserInput(f"input.idempotencyKey is empty. Give 1 to {KEY_CHARS_MAX} characters, or none at all.")
    if len(key) > KEY_CHARS_MAX:
        raise LimitExceeded(f"input.idempotencyKey has {len(key)} characters. It may have {KEY_CHARS_MAX} at most.")
    return key


def hash_of(operation: str, *given: Any) -> bytes:
    """Give the SHA-256 of what was asked for, by which the same call is known again. The input must be checked.

    It is of the input as given, where null equals absent: what the service adds, such as token counts, may come out
    differently another time.
    """
    text = json.dumps([operation, *given], ensure_ascii=False, separators=(",", ":"), sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).digest()


def _plain(part: Any) -> Any:
    if isinstance(part, Enum):
        return part.name
    return {field.name: value for field in fields(part) if (value := getattr(part, field.name)) is not None}


async def claim(
    request: Request, session: Session, scope_id: UUID, key: str, wanted: Claim, *, named_id: UUID | None
) -> Claim | None:
    """Claim a key before anything else is done in a transaction; gives the earlier claim when the call is a repetition.

    Where it is none, a few keys whose time is over are forgotten. `named_id` is the context that the call names.

    Raises: Conflict when the key stands for other input.
    """
    earlier = await db.idempotency.claim(session, request.tenant_id, scope_id, key, wanted)
    if earlier is None:
        # More than one for each that comes, so that what has gathered goes; few enough to go unnoticed.
        await db.idempotency.prune(session, request.tenant_id, request.service.limits.idempotency_hours)
        return None
    if earlier.request_hash == wanted.request_hash:
        return earlier
    named = await db.context.by_ids(session, request.tenant_id, [named_id]) if named_id is not None else []
    latest = {"latestVersion": named[0].latest_version} if named else {}
    raise Conflict(
        "input.idempotencyKey was used before, with other input. Send that input again, or choose another key.",
        **latest,
    )
