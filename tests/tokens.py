"""An issuer of JSON Web Tokens: its keys, the tokens that it signs, and an HTTP server that tells its public keys."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from joserfc import jws, jwt
from joserfc.jwk import ECKey, KeySet, OctKey, OKPKey, RSAKey

from graphql_api.json_web_tokens import ALGORITHMS

ISSUER, AUDIENCE = "https://issuer.example", "forkpoint"
SECRET = "a secret of more than thirty-two bytes"
# What a service is told of the issuer, where both know the secret.
SHARED = {
    "FORKPOINT_AUTHENTICATION": "jwt",
    "FORKPOINT_JWT_KEY": SECRET,
    "FORKPOINT_JWT_ALGORITHMS": "HS256",
    "FORKPOINT_JWT_ISSUER": ISSUER,
    "FORKPOINT_JWT_AUDIENCE": AUDIENCE,
}
SharedKey = OctKey.import_key(SECRET)
AnyKey = RSAKey | ECKey | OKPKey | OctKey


def claims(tenant: str = "acme", scope: Any = "read write admin", **others: Any) -> dict[str, Any]:
    """Give the claims of a good token; one that is None is left out."""
    now = int(time.time())
    good = {"iss": ISSUER, "aud": AUDIENCE, "sub": "somebody", "iat": now, "exp": now + 600}
    found = good | {"tenant": tenant, "scope": scope} | others
    return {name: value for name, value in found.items() if value is not None}


def sign(content: dict[str, Any], key: AnyKey = SharedKey, algorithm: str = "HS256", **header: Any) -> str:
    """Sign claims."""
    registry = jws.JWSRegistry(algorithms=sorted(ALGORITHMS), strict_check_header=False)
    return jwt.encode({"alg": algorithm, **header}, content, key, [algorithm], registry)


def bearer(tenant: str = "acme", scope: Any = "read write admin", **others: Any) -> dict[str, str]:
    """Give the header of a good token."""
    return {"authorization": f"Bearer {sign(claims(tenant, scope, **others))}"}


class Issuer:
    """Tells its keys over HTTP, and may be broken."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.keys: list[AnyKey] = []
        self.asked = 0
        # What it answers instead of its keys.
        self.answer: tuple[int, bytes] | None = None

    def body(self) -> tuple[int, bytes]:
        self.asked += 1
        return self.answer or (200, json.dumps(KeySet(list(self.keys)).as_dict()).encode())

    @property
    def settings(self) -> dict[str, str]:
        """What a service is told of it."""
        return {
            "FORKPOINT_AUTHENTICATION": "jwt",
            "FORKPOINT_JWT_KEYS_URL": self.url,
            "FORKPOINT_JWT_ISSUER": ISSUER,
            "FORKPOINT_JWT_AUDIENCE": AUDIENCE,
        }


@contextmanager
def issuing() -> Iterator[Issuer]:
    """Run an issuer."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = issuer.body()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            if status in {301, 302}:
                self.send_header("location", f"{issuer.url}/elsewhere")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        issuer = Issuer(f"http://127.0.0.1:{server.server_port}/keys")
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        try:
            yield issuer
        finally:
            server.shutdown()
            serving.join()
