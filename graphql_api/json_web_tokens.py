"""JSON Web Tokens: who sends one, by its signature and its claims.

Sources: RFC 7519; RFC 8725, "JSON Web Token Best Current Practices"; RFC 9068.
"""

import hashlib
import time
import warnings
from collections import OrderedDict
from typing import Any, NamedTuple

import structlog
from joserfc import jws, jwt
from joserfc.errors import ExpiredTokenError, InvalidKeyIdError, JoseError, SecurityWarning
from joserfc.jwk import KeySet
from joserfc.jwt import JWTClaimsRegistry

from graphql_api.json_web_keys import FetchedKeys, FixedKeys, read_key
from graphql_api.settings import Settings
from graphql_api.terminal import CommandError
from schema.errors import Forbidden, Unauthenticated
from schema.principal import TENANT_ID, Principal, Scope

log = structlog.get_logger(__name__)

SECRET_ALGORITHMS = {"HS256", "HS384", "HS512"}
ALGORITHMS = SECRET_ALGORITHMS | {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512"}
ALGORITHMS |= {"Ed25519", "EdDSA"}
# RFC 9864 has it called Ed25519. Issuers go on calling it EdDSA, and it is accepted only where the operator says so.
warnings.filterwarnings("ignore", "EdDSA is deprecated", SecurityWarning)
# Checking a signature costs 40 to 250 microseconds. What was checked is known again for as long as its keys are, but no
# longer than this.
KNOWN_SECONDS = 60.0
KNOWN_MAX = 10_000
SUBJECT_CHARACTERS_MAX = 100


class _Known(NamedTuple):
    principal: Principal
    until: float
    keys: KeySet


class JsonWebTokens:
    """Knows tokens of one issuer.

    Raises: CommandError for settings that would not tell whom a token is for, or that cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        issuer, audience = settings.jwt_issuer, settings.jwt_audience
        if not issuer or not audience:
            raise CommandError(
                "Set FORKPOINT_JWT_ISSUER and FORKPOINT_JWT_AUDIENCE: without them tokens for other services would do."
            )
        self._algorithms = settings.jwt_algorithms
        self._keys = _keys_of(settings)
        self._registry = jws.JWSRegistry(algorithms=list(self._algorithms), strict_check_header=False)
        self._claims = JWTClaimsRegistry(
            leeway=round(settings.jwt_leeway_seconds),
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
        )
        self._tenant_claim = _path(settings.jwt_tenant_claim)
        self._scope_claim = _path(settings.jwt_scope_claim)
        self._scope_prefix = settings.jwt_scope_prefix
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    def open(self) -> None:
        """Begin to fetch the keys, without waiting for them."""
        self._keys.now()

    async def close(self) -> None:
        """Stop fetching keys."""
        await self._keys.close()

    async def principal(self, token: str) -> Principal:
        """Say who sends a token.

        Raises: Unauthenticated; Forbidden for a token that names no tenant; KeysAway when there are no keys yet.
        """
        name = hashlib.sha256(token.encode()).digest()
        known, keys = self._known.get(name), self._keys.now()
        if known is not None and known.keys is keys and time.time() < known.until:
            self._known.move_to_end(name)
            return known.principal
        claims, keys = await self._verify(token, keys)
        principal = self._principal(claims)
        until = min(time.time() + KNOWN_SECONDS, claims["exp"] + self._claims.leeway)
        self._known[name] = _Known(principal, until, keys)
        self._known.move_to_end(name)
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        return principal

    async def _verify(self, token: str, keys: KeySet | None) -> tuple[dict[str, Any], KeySet]:
        """Check signature and claims; where the key is unknown, with newer keys."""
        keys = keys or await self._keys.latest()
        try:
            try:
                found = jwt.decode(token, keys, list(self._algorithms), self._registry)
            except InvalidKeyIdError:
                keys = await self._keys.latest()
                found = jwt.decode(token, keys, list(self._algorithms), self._registry)
            self._claims.validate(found.claims)
        except ExpiredTokenError:  # only who has held a good one learns this
            raise Unauthenticated("The token has expired: send a newer one.") from None
        except (JoseError, ValueError, TypeError, RecursionError, OverflowError) as error:
            log.info("token refused", reason=f"{type(error).__name__}: {error}"[:200])
            raise Unauthenticated("The credential is not valid: it is unknown, expired or revoked.") from None
        return found.claims, keys

    def _principal(self, claims: dict[str, Any]) -> Principal:
        tenant_id = _claim(claims, self._tenant_claim)
        if not isinstance(tenant_id, str) or TENANT_ID.fullmatch(tenant_id) is None:
            raise Forbidden("The token names no tenant in the claim that is configured (FORKPOINT_JWT_TENANT_CLAIM).")
        told = _claim(claims, self._scope_claim)
        words = told.split() if isinstance(told, str) else told if isinstance(told, list) else []
        prefix = self._scope_prefix
        named = {word.removeprefix(prefix) for word in words if isinstance(word, str) and word.startswith(prefix)}
        scopes = frozenset(scope for scope in Scope if scope in named)
        subject = str(claims.get("sub", "without subject"))[:SUBJECT_CHARACTERS_MAX]
        return Principal(tenant_id, scopes, f"jwt {subject}")


def _keys_of(settings: Settings) -> FixedKeys | FetchedKeys:
    algorithms = set(settings.jwt_algorithms)
    if not algorithms or not algorithms <= ALGORITHMS:
        raise CommandError(f"FORKPOINT_JWT_ALGORITHMS must be some of {', '.join(sorted(ALGORITHMS))}.")
    secrets = algorithms & SECRET_ALGORITHMS
    if secrets and (secrets != algorithms or settings.jwt_key is None):
        raise CommandError(
            "FORKPOINT_JWT_ALGORITHMS: those with a secret (HS256, HS384, HS512) need a FORKPOINT_JWT_KEY,"
            " and no others beside them: who knows a public key could sign with it as a secret."
        )
    if (settings.jwt_key is None) == (settings.jwt_keys_url is None):
        raise CommandError("Set either FORKPOINT_JWT_KEYS_URL or FORKPOINT_JWT_KEY, to check the signatures of tokens.")
    if settings.jwt_key is None:
        return FetchedKeys(settings.jwt_keys_url or "", settings.jwt_keys_seconds)
    keys = read_key(settings.jwt_key.get_secret_value())
    if any((key.key_type == "oct") != bool(secrets) for key in keys):
        raise CommandError(
            "FORKPOINT_JWT_KEY and FORKPOINT_JWT_ALGORITHMS do not fit: HS256, HS384 and HS512 use a secret,"
            " all others a public key."
        )
    return FixedKeys(keys)


def _path(name: str) -> list[str]:
    """Read the name of a claim, or its JSON Pointer. Source: RFC 6901."""
    if not name.startswith("/"):
        return [name]
    return [part.replace("~1", "/").replace("~0", "~") for part in name[1:].split("/")]


def _claim(claims: Any, path: list[str]) -> Any:
    for name in path:
        claims = claims.get(name) if isinstance(claims, dict) else None
    return claims
