"""GraphiQL for browsers: its page, the policy that the page lives under, and the files that it loads.

`make graphiql` builds them from the sources in the folder `graphiql` of a checkout. Nothing comes from anywhere else.
"""

import secrets
from pathlib import Path

from starlette.responses import FileResponse, Response
from starlette.types import Receive, Scope, Send

from graphql_api import refusal
from schema.errors import BadUserInput, NotFound

FILES_PATH = "/graphiql/{name:path}"
FOLDER = Path(__file__).with_name("graphiql")
MEDIA_TYPES = {".js": "text/javascript", ".css": "text/css", ".ttf": "font/ttf"}

# Styles: Monaco and the dialogs make <style> elements as they go, which the page gives the nonce of its response. And
# Monaco writes each line of text as HTML, with its place in a style attribute, for which there is no nonce.
POLICY = (
    "default-src 'none'; script-src 'self'; worker-src 'self'; connect-src 'self'; font-src 'self'; "
    "img-src 'self' data:; style-src-elem 'self' 'nonce-{nonce}'; style-src-attr 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Beside those of every answer.
PAGE_HEADERS = (
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()"),
)

# A name changes with what is in the file. The policy is for those that are run as workers.
FILE_HEADERS = {
    "cache-control": "public, max-age=31536000, immutable",
    "content-security-policy": "default-src 'none'; script-src 'self'; frame-ancestors 'none'",
}

Headers = tuple[tuple[bytes, bytes], ...]


class GraphiQLPage:
    """The page, as read when it was made."""

    def __init__(self) -> None:
        self._text = (FOLDER / "index.html").read_text(encoding="utf-8")

    def render(self) -> tuple[bytes, Headers]:
        """Give the page with a nonce of its own, and its headers."""
        nonce = secrets.token_urlsafe(16)
        policy = (b"content-security-policy", POLICY.replace("{nonce}", nonce).encode())
        return self._text.replace("{nonce}", nonce).encode(), (policy, *PAGE_HEADERS)


class GraphiQLFiles:
    """The ASGI application that answers at FILES_PATH."""

    def __init__(self) -> None:
        self._files = {file.name: file for file in FOLDER.iterdir() if file.suffix in MEDIA_TYPES}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        await self._response(scope)(scope, receive, send)

    def _response(self, scope: Scope) -> Response:
        if scope["method"] not in {"GET", "HEAD"}:
            message = f"The method {scope['method'][:20]!r} is not supported: use GET."
            return refusal.response(405, BadUserInput(message), {"allow": "GET, HEAD"})
        file = self._files.get(scope["path_params"]["name"])
        if file is None:
            return refusal.response(404, NotFound("GraphiQL has no such file: load its page again."))
        return FileResponse(file, headers=FILE_HEADERS, media_type=MEDIA_TYPES[file.suffix])
