"""Tokens: who is let in by one, and who is not."""

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from structlog.testing import capture_logs

from graphql_api import json_web_keys
from graphql_api.json_web_keys import KeysAway
from graphql_api.json_web_tokens import JsonWebTokens
from graphql_api.settings import Settings
from graphql_api.terminal import CommandError
from schema.errors import Forbidden, Refusal, Unauthenticated
from schema.principal import Principal, Scope
from tests.tokens import ISSUER, SECRET, SHARED, AnyKey, Issuer, claims, issuing, sign

RSA, OTHER_RSA = RSAKey.generate_key(2048, {"kid": "one"}), RSAKey.generate_key(2048, {"kid": "two"})
EC = ECKey.generate_key("P-256", {"kid": "curve"})
ED = OKPKey.generate_key("Ed25519", {"kid": "edwards"})


def settings(**variables: str) -> Settings:
    """Read settings as from an environment."""
    found = {name.removeprefix("FORKPOINT_").lower(): value for name, value in variables.items()}
    return Settings(_env_file=None, **found)  # type: ignore[arg-type] # pydantic reads them


def shared(**variables: str) -> JsonWebTokens:
    return JsonWebTokens(settings(**SHARED | variables))


@asynccontextmanager
async def fetching(issuer: Issuer, **variables: str) -> AsyncIterator[JsonWebTokens]:
    tokens = JsonWebTokens(settings(**issuer.settings | variables))
    tokens.open()
    try:
        yield tokens
    finally:
        await tokens.close()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with issuing() as issuer:
        yield issuer


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let keys be fetched as often as they are asked for."""
    monkeypatch.setattr(json_web_keys, "FETCH_PAUSE_SECONDS", 0)


async def refused(tokens: JsonWebTokens, token: str) -> Refusal:
    """Give how a token is refused, which is never told with the token."""
    with capture_logs() as lines, pytest.raises(Refusal) as caught:
        await tokens.principal(token)
    assert len(token) < 10 or token not in str(lines) + caught.value.message
    return caught.value


async def test_a_good_token_says_who_asks() -> None:
    tokens = shared()
    expected = Principal("acme", frozenset({Scope.READ, Scope.WRITE}), "jwt somebody")
    token = sign(claims("acme", "read write other"))
    assert await tokens.principal(token) == expected
    assert await tokens.principal(token) == expected  # the second time it is known


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
async def test_secrets_sign(algorithm: str) -> None:
    secret = OctKey.import_key(SECRET * 2)
    tokens = shared(FORKPOINT_JWT_KEY=SECRET * 2, FORKPOINT_JWT_ALGORITHMS=algorithm)
    assert (await tokens.principal(sign(claims(), secret, algorithm))).tenant_id == "acme"


@pytest.mark.parametrize(
    ("key", "algorithm"), [(RSA, "RS256"), (RSA, "PS512"), (EC, "ES256"), (ED, "Ed25519"), (ED, "EdDSA")]
)
@pytest.mark.parametrize("form", ["pem", "jwk", "jwks"])
@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")
async def test_public_keys_are_read_in_each_form(key: RSAKey | ECKey | OKPKey, algorithm: str, form: str) -> None:
    jwk = key.as_dict(private=False)
    texts = {"pem": key.as_pem(private=False).decode(), "jwk": json.dumps(jwk), "jwks": json.dumps({"keys": [jwk]})}
    tokens = shared(FORKPOINT_JWT_KEY=texts[form], FORKPOINT_JWT_ALGORITHMS=algorithm)
    token = sign(claims(), key, algorithm, **({} if form == "pem" else {"kid": jwk["kid"]}))
    assert (await tokens.principal(token)).tenant_id == "acme"


@pytest.mark.parametrize(
    "wrong",
    [
        {"iss": "https://another.example"},
        {"iss": None},
        {"aud": "another"},
        {"aud": ["another", "third"]},
        {"aud": None},
        {"exp": None},
        {"exp": "tomorrow"},
        {"exp": float("nan")},
        {"exp": True},
        {"nbf": 2**33},
        {"iat": 2**33},
        {"sub": 5},
    ],
    ids=str,
)
async def test_claims_that_are_for_others_or_wrong_let_nobody_in(wrong: dict[str, Any]) -> None:
    refusal = await refused(shared(), sign(claims(**wrong)))
    assert isinstance(refusal, Unauthenticated)
    assert refusal.message == "The credential is not valid: it is unknown, expired or revoked."


async def test_a_token_may_last_longer_than_any_clock() -> None:
    assert (await shared().principal(sign(claims(exp=10**400)))).tenant_id == "acme"


async def test_an_audience_among_others_is_one() -> None:
    assert (await shared().principal(sign(claims(aud=["another", "forkpoint"])))).tenant_id == "acme"


async def test_an_expired_token_is_refused_and_says_so_also_when_it_was_known() -> None:
    tokens = shared(FORKPOINT_JWT_LEEWAY_SECONDS="0")
    assert "has expired" in (await refused(tokens, sign(claims(exp=int(time.time()) - 1)))).message
    lasting = sign(claims(exp=int(time.time()) + 2))
    assert (await tokens.principal(lasting)).tenant_id == "acme"
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            await tokens.principal(lasting)
        except Unauthenticated as refusal:
            assert "has expired" in refusal.message  # noqa: PT017 - it is waited for
            return
        await asyncio.sleep(0.05)
    pytest.fail("it never expired")


async def test_clocks_may_differ_by_the_leeway() -> None:
    late = sign(claims(exp=int(time.time()) - 20))
    assert (await shared(FORKPOINT_JWT_LEEWAY_SECONDS="60").principal(late)).tenant_id == "acme"
    assert isinstance(await refused(shared(FORKPOINT_JWT_LEEWAY_SECONDS="5"), late), Unauthenticated)


def encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def segment(value: Any) -> str:
    return encode(json.dumps(value).encode())


def with_secret(header: dict[str, Any], secret: bytes) -> str:
    signed = f"{segment(header)}.{segment(claims())}"
    return f"{signed}.{encode(hmac.digest(secret, signed.encode(), 'sha256'))}"


def forgeries() -> dict[str, str]:
    """Write tokens that somebody made who has only the public key, or another one."""
    body = segment(claims())
    public = RSA.as_pem(private=False)
    good = sign(claims(), RSA, "RS256", kid="one")
    head, payload, signature = good.split(".")
    richer = segment(claims("others"))
    # Signed by the right key, as nobody else could; but it says that who does not know x must not accept it.
    demanding = f"{segment({'alg': 'RS256', 'kid': 'one', 'crit': ['x'], 'x': 1})}.{payload}"
    assert RSA.private_key
    extended = f"{demanding}.{encode(RSA.private_key.sign(demanding.encode(), PKCS1v15(), SHA256()))}"
    return {
        "none": f"{segment({'alg': 'none', 'kid': 'one'})}.{body}.",
        "None": f"{segment({'alg': 'NONE', 'kid': 'one'})}.{body}.",
        "public key as a secret": with_secret({"alg": "HS256", "kid": "one"}, public),
        "another key of the same name": sign(claims(), OTHER_RSA, "RS256", kid="one"),
        "a key of its own": sign(claims(), OTHER_RSA, "RS256", kid="one", jwk=OTHER_RSA.as_dict(private=False)),
        "a key elsewhere": sign(claims(), OTHER_RSA, "RS256", kid="one", jku="https://attacker.example/keys"),
        "an algorithm that is not allowed": sign(claims(), RSA, "RS512", kid="one"),
        "other claims": f"{head}.{richer}.{signature}",
        "no signature": f"{head}.{payload}.",
        "another header": f"{segment({'alg': 'RS256', 'kid': 'one', 'x': 1})}.{payload}.{signature}",
        "an extension that must be understood": extended,
        "five parts": f"{good}.{payload}.{signature}",
        "empty": "..",
        "claims that are a list": f"{head}.{segment([1])}.{signature}",
        "deep claims": f"{head}.{base64.urlsafe_b64encode(b'[' * 60_000).decode()}.{signature}",
        "key name as a path": sign(claims(), OTHER_RSA, "RS256", kid="../../dev/null"),
        "key name as SQL": sign(claims(), OTHER_RSA, "RS256", kid="' or 1=1 --"),
        "key name that is no text": f"{segment({'alg': 'RS256', 'kid': {'a': 1}})}.{payload}.{signature}",
        "algorithm that is no text": f"{segment({'alg': ['RS256'], 'kid': 'one'})}.{payload}.{signature}",
        "binary": "\x00.\x00.\x00",
    }


@pytest.mark.parametrize("name", forgeries())
async def test_forged_tokens_let_nobody_in(issuer: Issuer, name: str) -> None:
    issuer.keys = [RSA]
    async with fetching(issuer) as tokens:
        assert (await tokens.principal(sign(claims(), RSA, "RS256", kid="one"))).tenant_id == "acme"
        refusal = await refused(tokens, forgeries()[name])
        assert isinstance(refusal, Unauthenticated)
        assert refusal.message == "The credential is not valid: it is unknown, expired or revoked."


@given(st.text(max_size=60), st.integers(0, 400), st.booleans())
def test_no_mangled_token_lets_anybody_in(extra: str, place: int, cut: bool) -> None:
    token = sign(claims())
    mangled = token[:place] + extra + token[place + (1 if cut else 0) :]
    tokens = shared()

    async def ask() -> Principal | None:
        try:
            return await tokens.principal(mangled)
        except Refusal:
            return None

    found = asyncio.run(ask())
    # What is decoded to the very same bytes is the same token: the last character of base64 has bits without meaning.
    assert found is None or found.tenant_id == "acme"
    assert found is None or mangled.rpartition(".")[0] == token.rpartition(".")[0]


@pytest.mark.parametrize("tenant", [None, "", "*", "a b", "a'b", "x" * 129, 5, ["acme"], {"id": "acme"}])
async def test_a_token_without_a_tenant_is_forbidden(tenant: Any) -> None:
    refusal = await refused(shared(), sign(claims() | {"tenant": tenant}))
    assert isinstance(refusal, Forbidden)
    assert "names no tenant" in refusal.message


@pytest.mark.parametrize(
    ("scope", "prefix", "expected"),
    [
        ("read", "", {Scope.READ}),
        (["read", "write", 5, None], "", {Scope.READ, Scope.WRITE}),
        ("fp:read fp:act-as write", "fp:", {Scope.READ, Scope.ACT_AS}),
        ("READ Admin", "", set()),
        ({"read": True}, "", set()),
        (None, "", set()),
    ],
)
async def test_scopes_are_read_from_lists_and_words(scope: Any, prefix: str, expected: set[Scope]) -> None:
    tokens = shared(FORKPOINT_JWT_SCOPE_PREFIX=prefix) if prefix else shared()
    assert (await tokens.principal(sign(claims(scope=scope)))).scopes == expected


async def test_claims_are_named_or_pointed_at() -> None:
    named = shared(FORKPOINT_JWT_TENANT_CLAIM="https://example.org/tenant", FORKPOINT_JWT_SCOPE_CLAIM="/access/a~1b/2")
    told = {"https://example.org/tenant": "t", "access": {"a/b": {"2": ["read"]}}}
    principal = await named.principal(sign(claims() | told))
    assert (principal.tenant_id, principal.scopes) == ("t", frozenset({Scope.READ}))
    assert isinstance(await refused(named, sign(claims() | {"access": "x"})), Forbidden)


@pytest.mark.usefixtures("impatient")
async def test_new_keys_are_fetched_for_a_token_of_an_unknown_key(issuer: Issuer) -> None:
    issuer.keys = [RSA]
    async with fetching(issuer) as tokens:
        old = sign(claims("old"), RSA, "RS256", kid="one")
        assert (await tokens.principal(old)).tenant_id == "old"
        issuer.keys = [EC]
        assert (await tokens.principal(sign(claims("new"), EC, "ES256", kid="curve"))).tenant_id == "new"
        # The old key is gone, and with it what was known by it.
        assert isinstance(await refused(tokens, old), Unauthenticated)


async def test_unknown_keys_have_the_keys_fetched_once_and_not_at_each_token(issuer: Issuer) -> None:
    issuer.keys = [RSA]
    async with fetching(issuer) as tokens:
        await tokens.principal(sign(claims(), RSA, "RS256", kid="one"))
        for number in range(20):
            await refused(tokens, sign(claims(), OTHER_RSA, "RS256", kid=f"unknown{number}"))
        assert issuer.asked == 1


@pytest.mark.usefixtures("impatient")
async def test_keys_grow_old_and_are_fetched_anew_meanwhile_the_old_ones_serve(issuer: Issuer) -> None:
    issuer.keys = [RSA, EC]
    async with fetching(issuer, FORKPOINT_JWT_KEYS_SECONDS="0.01") as tokens:
        token = sign(claims(), RSA, "RS256", kid="one")
        await tokens.principal(token)
        issuer.answer = (500, b"broken")
        asked = issuer.asked
        deadline = time.monotonic() + 20
        while issuer.asked < asked + 3 and time.monotonic() < deadline:
            assert (await tokens.principal(token)).tenant_id == "acme"
            await asyncio.sleep(0.01)
        issuer.keys, issuer.answer = [EC], None
        while time.monotonic() < deadline:
            try:
                await tokens.principal(token)
            except Unauthenticated:
                return
            await asyncio.sleep(0.01)
    pytest.fail("a key that the issuer took back lets in for ever")


@pytest.mark.parametrize(
    "answer",
    [
        (500, b""), (404, b"{}"), (302, b""), (200, b"no JSON"), (200, b"[]"), (200, b'{"keys": 5}'),
        (200, b'{"keys": []}'), (200, b'{"keys": [{"kty": "RSA"}]}'), (200, b'{"keys": [' + b" " * 1_100_000 + b"]}"),
        (200, b"[" * 100_000),
    ],
    ids=lambda answer: f"{answer[0]} {answer[1][:12]!r}",
)  # fmt: skip
@pytest.mark.usefixtures("impatient")
async def test_an_issuer_that_is_broken_lets_nobody_in_and_says_try_again(
    issuer: Issuer, answer: tuple[int, bytes]
) -> None:
    issuer.keys, issuer.answer = [RSA], answer
    async with fetching(issuer) as tokens:
        token = sign(claims(), RSA, "RS256", kid="one")
        assert isinstance(await refused(tokens, token), KeysAway)
        issuer.answer = None
        assert (await tokens.principal(token)).tenant_id == "acme"


async def test_keys_that_only_encrypt_or_are_of_no_known_kind_are_left_out(issuer: Issuer) -> None:
    encrypting = RSAKey.import_key(OTHER_RSA.as_dict(private=False) | {"use": "enc"})
    issuer.keys = [encrypting, RSA]
    issuer.answer = (
        200,
        json.dumps(
            {
                "keys": [
                    {"kty": "future", "kid": "x"},
                    encrypting.as_dict(private=False),
                    RSA.as_dict(private=False),
                ]
            }
        ).encode(),
    )
    async with fetching(issuer) as tokens:
        assert (await tokens.principal(sign(claims(), RSA, "RS256", kid="one"))).tenant_id == "acme"
        assert isinstance(await refused(tokens, sign(claims(), OTHER_RSA, "RS256", kid="two")), Unauthenticated)


async def test_many_who_come_first_together_fetch_the_keys_once(issuer: Issuer) -> None:
    issuer.keys = [RSA]
    async with fetching(issuer) as tokens:
        found = await asyncio.gather(
            *(tokens.principal(sign(claims(f"t{number}"), RSA, "RS256", kid="one")) for number in range(50))
        )
    assert [principal.tenant_id for principal in found] == [f"t{number}" for number in range(50)]
    assert issuer.asked == 1


def test_keys_that_came_from_a_secret_are_no_public_ones() -> None:
    key: AnyKey = OctKey.import_key(SECRET)
    for text in (json.dumps(key.as_dict(private=True)), SECRET):
        with pytest.raises(CommandError, match="do not fit"):
            shared(FORKPOINT_JWT_KEY=text, FORKPOINT_JWT_ALGORITHMS="RS256")


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"FORKPOINT_JWT_ISSUER": ""}, "FORKPOINT_JWT_ISSUER and FORKPOINT_JWT_AUDIENCE"),
        ({"FORKPOINT_JWT_AUDIENCE": ""}, "FORKPOINT_JWT_ISSUER and FORKPOINT_JWT_AUDIENCE"),
        ({"FORKPOINT_JWT_ALGORITHMS": "none"}, "must be some of"),
        ({"FORKPOINT_JWT_ALGORITHMS": ""}, "must be some of"),
        ({"FORKPOINT_JWT_ALGORITHMS": "HS256,RS256"}, "no others beside them"),
        ({"FORKPOINT_JWT_KEY": "short"}, "32 bytes or more"),
        ({"FORKPOINT_JWT_KEY": "{}"}, "must be a public key"),
        ({"FORKPOINT_JWT_KEY": "-----BEGIN PUBLIC KEY-----\nx\n-----END PUBLIC KEY-----"}, "must be a public key"),
        ({"FORKPOINT_JWT_KEYS_URL": "https://issuer.example/keys"}, "either"),
        ({"FORKPOINT_JWT_KEY": RSA.as_pem(private=False).decode()}, "do not fit"),
    ],
)
def test_settings_that_would_let_in_whom_they_should_not_are_refused(variables: dict[str, str], words: str) -> None:
    with pytest.raises(CommandError, match=words):
        shared(**variables)


@pytest.mark.parametrize(
    "url", ["http://issuer.example/keys", "file:///etc/keys", "ftp://127.0.0.1/", "keys", "https://"]
)
def test_keys_are_fetched_only_where_nobody_changes_them_on_the_way(url: str) -> None:
    given_settings = settings(
        FORKPOINT_AUTHENTICATION="jwt",
        FORKPOINT_JWT_KEYS_URL=url,
        FORKPOINT_JWT_ISSUER=ISSUER,
        FORKPOINT_JWT_AUDIENCE="forkpoint",
    )
    with pytest.raises(CommandError, match="must begin with https"):
        JsonWebTokens(given_settings)
