"""The keys that JSON Web Tokens are signed with: one that never changes, or a set that is fetched, kept and renewed.

Sources: RFC 7517, "JSON Web Key"; RFC 8725, "JSON Web Token Best Current Practices".
"""

import asyncio
import ipaddress
from typing import Any
from urllib.parse import urlsplit

import httpx2
import orjson
import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, KeySet, OctKey, OKPKey, RSAKey

from graphql_api.terminal import CommandError
from schema.errors import Code, Refusal

log = structlog.get_logger(__name__)

FETCH_SECONDS_MAX = 5.0
FETCH_BYTES_MAX = 1024 * 1024
# A token of an unknown key has the set fetched early, but no oftener: anybody can write such a token.
FETCH_PAUSE_SECONDS = 5.0
SECRET_BYTES_MIN = 32


class KeysAway(Refusal):
    """There are no keys to check a token with just now."""

    code = Code.UNAVAILABLE


class FixedKeys:
    """Keys that the operator gave."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    def now(self) -> KeySet:
        """Give the keys."""
        return self._keys

    async def latest(self) -> KeySet:
        """Give the keys: there are no others."""
        return self._keys

    async def close(self) -> None:
        """Do nothing: nothing was opened."""


class FetchedKeys:
    """Keys from a URL. What was fetched is used until something newer is, however long that takes.

    `age_seconds_max` is the age at which they are fetched anew, while the old ones go on being used.
    """

    def __init__(self, url: str, age_seconds_max: float) -> None:
        _check_url(url)
        self._url = url
        self._age_seconds_max = age_seconds_max
        self._keys: KeySet | None = None
        self._fetched_at = self._tried_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    def now(self) -> KeySet | None:
        """Give the keys that are known, if any are, and have them renewed when they are old."""
        if self._since(self._fetched_at) > self._age_seconds_max:
            self._begin()
        return self._keys

    async def latest(self) -> KeySet:
        """Give keys that were fetched a moment ago.

        Raises: KeysAway when none were ever fetched.
        """
        self._begin()
        if self._fetching is not None:
            await asyncio.shield(self._fetching)  # whoever gives up must not leave the others without
        if self._keys is None:
            raise KeysAway("The keys that tokens are signed with cannot be fetched just now. Try again in a moment.")
        return self._keys

    async def close(self) -> None:
        """Stop fetching."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait([self._fetching])

    def _since(self, moment: float) -> float:
        return asyncio.get_running_loop().time() - moment

    def _begin(self) -> None:
        """Fetch, unless that is under way or was tried a moment ago."""
        if (self._fetching is None or self._fetching.done()) and self._since(self._tried_at) > FETCH_PAUSE_SECONDS:
            self._tried_at = asyncio.get_running_loop().time()
            self._fetching = asyncio.create_task(self._fetch())

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS_MAX):
                body = await self._read()
            keys = _key_set(orjson.loads(body))
        except (httpx2.HTTPError, TimeoutError, ValueError, JoseError) as error:
            # Neither the URL, which may hold a secret, nor what came back.
            log.warning("token keys: not fetched", error=type(error).__name__, known=self._keys is not None)
            return
        if self._keys is None or keys.as_dict() != self._keys.as_dict():
            log.info("token keys: fetched", count=len(keys.keys))
            self._keys = keys
        self._fetched_at = asyncio.get_running_loop().time()

    async def _read(self) -> bytes:
        body = b""
        async with (
            httpx2.AsyncClient(timeout=FETCH_SECONDS_MAX, follow_redirects=False, trust_env=True) as client,
            client.stream("GET", self._url, headers={"accept": "application/json"}) as response,
        ):
            response.raise_for_status()
            async for part in response.aiter_bytes():
                body += part
                if len(body) > FETCH_BYTES_MAX:
                    raise ValueError("the key set is too large")
        return body


def read_key(text: str) -> KeySet:
    """Read a public key in PEM, a JSON Web Key, a set of them, or else a secret.

    Raises: CommandError.
    """
    text = text.strip()
    try:
        if text.startswith("{"):
            found = orjson.loads(text)
            return _key_set(found if "keys" in found else {"keys": [found]})
        if text.startswith("-----BEGIN"):
            return KeySet([_read_pem(text)])
    except (ValueError, JoseError):
        raise CommandError(
            "FORKPOINT_JWT_KEY cannot be used: it must be a public key in PEM, a JSON Web Key or Key Set, or a secret."
        ) from None
    if len(text.encode()) < SECRET_BYTES_MIN:
        raise CommandError(
            f"FORKPOINT_JWT_KEY cannot be used: a secret must have {SECRET_BYTES_MIN} bytes or more,"
            " or who sees one token finds it."
        )
    return KeySet([OctKey.import_key(text)])


def _read_pem(text: str) -> Key:
    kinds: tuple[type[RSAKey | ECKey | OKPKey], ...] = (RSAKey, ECKey, OKPKey)
    for kind in kinds:
        try:
            return kind.import_key(text)
        except (ValueError, TypeError, JoseError):
            continue
    raise ValueError("no key")


def _key_set(value: Any) -> KeySet:
    """Read a set, leaving out keys of kinds that are not known, and those that only encrypt.

    Raises: ValueError; JoseError.
    """
    if not isinstance(value, dict) or not isinstance(value.get("keys"), list):
        raise ValueError("a key set is an object with a list of keys")  # noqa: TRY004 - of what was fetched
    keys = [each for each in value["keys"] if isinstance(each, dict) and each.get("use", "sig") == "sig"]
    return KeySet.import_key_set({"keys": keys})


def _check_url(url: str) -> None:
    """Refuse to fetch keys where others could change them on the way.

    Raises: CommandError.
    """
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and parts.hostname and _is_here(parts.hostname):
        return
    raise CommandError("FORKPOINT_JWT_KEYS_URL cannot be used: it must begin with https://, or lead to this machine.")


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
