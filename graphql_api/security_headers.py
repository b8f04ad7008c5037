"""Headers by which browsers keep what is ours apart from what is not, on every answer.

Answers are data: no browser shall take one for a page, show one inside a page, or let another site load one. What is
a page, or a part of one, brings headers of its own, which stand. Strict-Transport-Security is for whoever speaks TLS,
which is the proxy (RFC 6797, section 7.2). Cross-Origin-Resource-Policy leaves alone what CORS allows: browsers look
at it only where a page asks without CORS. Sources: https://fetch.spec.whatwg.org, https://www.w3.org/TR/CSP3/
"""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)
STARTS = {"http.response.start", "websocket.http.response.start"}


class SecurityHeaders:
    """ASGI middleware: adds what an answer does not say itself."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def send_secured(message: Message) -> None:
            if message["type"] in STARTS:
                headers = [*message.get("headers", ())]
                given = {name for name, _ in headers}
                message = {**message, "headers": headers + [each for each in HEADERS if each[0] not in given]}
            await send(message)

        await self._app(scope, receive, send if scope["type"] == "lifespan" else send_secured)
