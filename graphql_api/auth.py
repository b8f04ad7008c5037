"""From a credential to who asks: API keys and JSON Web Tokens, sent as bearer tokens.

Sources: RFC 6750, "Bearer Token Usage"; RFC 9110, section 11.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from graphql_api.settings import Authentication, Settings
from schema.errors import Forbidden, Refusal, Unauthenticated
from schema.principal import ANYBODY, Principal, Scope, check_tenant_id

log = structlog.get_logger(__name__)

# The longest credential: a token may hold many claims, but neither is it a place to store things.
CREDENTIAL_CHARACTERS_MAX = 16_384
KEY_PREFIX = "fpk_"
CHALLENGE = b'Bearer realm="forkpoint"'


@dataclass(frozen=True, slots=True)
class Credential:
    """What a request says about who sends it: the values of `Authorization` and `Forkpoint-Tenant`, or nothing."""

    authorization: str = ""
    tenant: str = ""

    def __repr__(self) -> str:
        return "Credential(…)"  # it is a secret


class Verifier(Protocol):
    """What knows one kind of credential."""

    def open(self) -> None:
        """Begin what lives as long as the process."""

    async def close(self) -> None:
        """End it."""

    async def principal(self, token: str) -> Principal:
        """Say who sends a token.

        Raises: Unauthenticated; the family of db.errors, or Unavailable, when that cannot be told just now.
        """


class Authenticator:
    """Says who sends a request; without verifiers, that it may be anybody.

    `keys` and `tokens` verify what their prefix tells apart, where they are on.
    """

    def __init__(self, keys: Verifier | None = None, tokens: Verifier | None = None) -> None:
        self._keys = keys
        self._tokens = tokens
        self._verifiers = [verifier for verifier in (keys, tokens) if verifier is not None]

    def open(self) -> None:
        """Begin what lives as long as the process."""
        for verifier in self._verifiers:
            verifier.open()

    async def close(self) -> None:
        """End it."""
        for verifier in self._verifiers:
            await verifier.close()

    async def principal(self, credential: Credential) -> Principal:
        """Say who sends this.

        Raises: Unauthenticated; Forbidden and BadUserInput for a tenant that may not be named; the family of db.errors,
        or Unavailable, when it cannot be told just now.
        """
        try:
            found = ANYBODY if not self._verifiers else await self._verify(_bearer(credential.authorization))
            return _act_as(found, credential.tenant) if credential.tenant else found
        except Refusal as refusal:
            log.info("credential refused", reason=refusal.message)
            raise

    async def _verify(self, token: str) -> Principal:
        verifier = self._keys if token.startswith(KEY_PREFIX) else self._tokens
        if verifier is None:
            wanted = "an API key" if self._tokens is None else "a JSON Web Token"
            raise Unauthenticated(f"The credential is of a kind that is not accepted here: send {wanted}.")
        return await verifier.principal(token)


def _bearer(authorization: str) -> str:
    if not authorization:
        raise Unauthenticated("This needs a credential. Send the header `Authorization: Bearer`, and a key or token.")
    scheme, _, token = authorization.partition(" ")
    token = token.strip(" ")
    if scheme.lower() != "bearer" or not token or not token.isascii() or len(token) > CREDENTIAL_CHARACTERS_MAX:
        raise Unauthenticated("The Authorization is malformed: it must be `Bearer`, a space, and one key or token.")
    return token


def _act_as(principal: Principal, tenant: str) -> Principal:
    tenant_id = check_tenant_id(tenant)
    if tenant_id == principal.tenant_id:
        return principal
    if not principal.may(Scope.ACT_AS):
        raise Forbidden("Naming a tenant by Forkpoint-Tenant needs a credential with the scope act-as.")
    return replace(principal, tenant_id=tenant_id, scopes=principal.scopes - {Scope.ACT_AS})


MakeContext = Callable[[Principal], AbstractAsyncContextManager[object]]


class Recognised:
    """A context that is opened for whoever holds a credential *now*: it may have been revoked since the last time.

    For what outlasts a request: operations on one WebSocket, and the events of a stream.
    """

    def __init__(self, authenticator: Authenticator, credential: Credential, make_context: MakeContext) -> None:
        self._authenticator = authenticator
        self._credential = credential
        self._make_context = make_context
        self._context: AbstractAsyncContextManager[object] | None = None

    async def __aenter__(self) -> object:
        principal = await self._authenticator.principal(self._credential)
        self._context = self._make_context(principal)
        return await self._context.__aenter__()

    async def __aexit__(self, *failure: object) -> bool | None:
        assert self._context is not None  # noqa: S101 - whoever leaves has entered
        return await self._context.__aexit__(*failure)  # type: ignore[arg-type] # the three of the protocol


def is_open(settings: Settings) -> bool:
    """Tell whether nobody needs a credential."""
    return settings.authentication == (Authentication.NONE,)


def token_verifier(settings: Settings) -> Verifier | None:
    """Give what knows tokens, where they are accepted.

    Raises: CommandError for settings that would let in whom they should not, or that cannot be used.
    """
    if Authentication.JWT not in settings.authentication:
        return None
    from graphql_api.json_web_tokens import JsonWebTokens  # it brings cryptography, which few need

    return JsonWebTokens(settings)
