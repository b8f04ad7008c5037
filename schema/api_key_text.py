"""How an API key is written: `fpk_TENANT.ID.SECRET`, each part in base64url without padding.

It names its tenant, so that its lookup is one of that tenant as all others are, and its id, which stands in lists and
logs. Only the secret is one: 256 random bits, which nobody guesses, so that a plain SHA-256 of the key is all that is
stored.
"""

import hashlib
import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import NamedTuple
from uuid import UUID

from schema.principal import TENANT_ID

MARK = "fpk_"
_SECRET_BYTES = 32
# In base64url 128 bytes are 171 characters, 16 are 22, and 32 are 43.
_SHAPE = re.compile(r"fpk_([\w-]{2,171})\.([\w-]{22})\.([\w-]{43})", re.ASCII)


class KeyName(NamedTuple):
    """Which key it is; nothing of it is secret."""

    tenant_id: str
    id: UUID


def make(tenant_id: str, key_id: UUID) -> str:
    """Make up a key."""
    return MARK + ".".join(
        _write(part) for part in (tenant_id.encode(), key_id.bytes, secrets.token_bytes(_SECRET_BYTES))
    )


def has_shape(text: str) -> bool:
    """Tell whether text may be a key at all, which is cheap. What does has a hash."""
    return _SHAPE.fullmatch(text) is not None


def hash_of(key: str) -> bytes:
    """Give what is stored of a key: the SHA-256 of all of it."""
    return hashlib.sha256(key.encode()).digest()


def read_name(key: str) -> KeyName | None:
    """Read which key it is; None for what `make` does not write."""
    shape = _SHAPE.fullmatch(key)
    if shape is None:
        return None
    tenant, key_id, secret = (_read(part) for part in shape.groups())
    if tenant is None or key_id is None or secret is None:
        return None
    tenant_id = tenant.decode("ascii", "replace")
    return KeyName(tenant_id, UUID(bytes=key_id)) if TENANT_ID.fullmatch(tenant_id) else None


def _write(part: bytes) -> str:
    return urlsafe_b64encode(part).decode().rstrip("=")


def _read(part: str) -> bytes | None:
    """Read a part; None where its last character has bits that say nothing: a key is written in one way only."""
    try:
        found = urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except ValueError:
        return None
    return found if _write(found) == part else None
