"""Refuses requests for another host: a page that has its own name lead to us may neither write nor read."""

from collections.abc import Collection

from starlette.types import ASGIApp, Receive, Scope, Send

from graphql_api import refusal
from graphql_api.origin import EVERY, is_called
from schema.errors import BadUserInput

# Probes call by whatever address there is, and learn nothing but how the service is.
OPEN_PATH = "/health"


class HostCheck:
    """ASGI middleware: lets through what is meant for one of the hosts, HTTP and handshakes of WebSockets.

    Starlette's own answers neither as JSON nor with a code, and takes the first of several Host headers.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = hosts
        self._any = EVERY in hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        if (
            self._any
            or scope["type"] == "lifespan"
            or is_called(scope["headers"], self._hosts)
            or scope["path"].endswith(OPEN_PATH)
        ):
            await self._app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await receive()  # websocket.connect
        message = (
            f"The Host header must be one of {', '.join(sorted(self._hosts))}, with any port. "
            "Others are allowed by FORKPOINT_ALLOWED_HOSTS."
        )
        await refusal.response(421, BadUserInput(message))(scope, receive, send)
