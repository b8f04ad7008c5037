"""How uvicorn serves the application: protocols, limits of its own, and how what never ends by itself ends with it.

Of uvicorn's implementations of WebSocket `websockets-sansio` is the one whose `send` waits while a client does not
read, and that reads on only when the last message was taken. With it 2,000 connections with an idle subscription each
take 70 MB, and 2,000 event streams 57; the extension that compresses messages would make that 154.
"""

import math
from typing import Any

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.datastructures import Headers
from websockets.frames import CloseCode
from websockets.http11 import Response
from websockets.server import ServerProtocol
from websockets.typing import StatusLike

from graphql_api.admission import Admission, Held, Unavailable
from graphql_api.patience import Config, PatientProtocol
from graphql_api.security_headers import HEADERS
from graphql_api.settings import Settings

# Longer than the minute after which load balancers let an idle connection go: whoever closes first loses a request that
# is on its way, and that must not be us.
KEEP_ALIVE_SECONDS = 75
# What a client has not read of a WebSocket or a stream by then, it will not read.
FLUSH_SECONDS = 1.0
# Each takes some 40 bytes of its own, however little is in it.
FRAGMENTS_MAX = 4_096
# Whose the messages are that are not complete: a client need not have said who it is.
NOBODY = ""


class HttpProtocol(PatientProtocol):
    """Tells the application that the server stops, which streams would not notice.

    Every process that serves makes its connections by this class: the only one, a worker, one that is reloaded.
    """

    def shutdown(self) -> None:
        """Finish what is being answered, and close."""
        if stopping := self.app_state.get("stopping"):
            stopping.set()
        super().shutdown()
        self.loop.call_later(FLUSH_SECONDS, self._leave_stream)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, and go, with the headers that every answer has."""
        headers = [
            *self.server_state.default_headers,
            *HEADERS,
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", b"%d" % len(msg)),
            (b"connection", b"close"),
        ]
        lines = [b"%s: %s\r\n" % header for header in headers]
        self.transport.write(b"".join([STATUS_LINE[400], *lines, b"\r\n", msg.encode("ascii")]))
        self.transport.close()

    def _leave_stream(self) -> None:
        """Give up a client that does not read even the end of its stream."""
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request
        if cycle is not None and not cycle.response_complete and "streams" in cycle.scope["state"]:
            self.transport.abort()


class _Handshakes(ServerProtocol):
    """Refuses handshakes with the headers that every answer has."""

    def reject(self, status: StatusLike, text: str) -> Response:
        """Make the refusal."""
        refused = super().reject(status, text)
        refused.headers.update(Headers((name.decode(), value.decode()) for name, value in HEADERS))
        return refused


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """Does not wait for clients that do not read: closing would, for ever, until all that was written is sent.

    What it has of a message that is not complete yet counts among the bodies that the process holds.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.conn = _Handshakes(max_size=self.config.ws_max_size, logger=self.logger)
        admission: Admission | None = self.app_state.get("admission")
        self._held = admission.held() if admission else None

    def data_received(self, data: bytes) -> None:
        """Read what came, if there is room for it."""
        super().data_received(data)
        if self._held is not None:
            self._hold(self._held)

    def connection_lost(self, exc: Exception | None) -> None:
        """Hold nothing any more."""
        if self._held is not None:
            self._held.release()
        super().connection_lost(exc)

    def _hold(self, held: Held) -> None:
        if len(self.frames) > FRAGMENTS_MAX:
            self._give_up(CloseCode.MESSAGE_TOO_BIG, f"A message may have {FRAGMENTS_MAX:,} fragments")
            return
        held.release()
        try:
            held.grow(NOBODY, len(self.conn.reader.buffer) + sum(map(len, self.frames)))
        except Unavailable:
            self._give_up(CloseCode.TRY_AGAIN_LATER, "Too many large messages are being received")

    def _give_up(self, code: int, reason: str) -> None:
        self.conn.fail(code, reason)
        self.handle_parser_exception()

    async def send(self, message: ASGISendEvent) -> None:
        """Send; know that a handshake is complete also when it was refused with a body, or an error would be logged."""
        await super().send(message)
        self.handshake_complete = self.handshake_complete or self.close_sent

    def shutdown(self) -> None:
        """Close, with the code that lets clients connect anew."""
        super().shutdown()
        self.loop.call_later(FLUSH_SECONDS, self.transport.abort)

    def keepalive_timeout(self) -> None:
        """Give up a client that leaves a ping unanswered."""
        super().keepalive_timeout()
        self.transport.abort()


def configure(app: Any, settings: Settings, *, log_level: str | None = None, **options: Any) -> Config:
    """Say how to serve an application, or the one that a name imports."""
    return Config(
        app,
        settings,
        loop="uvloop",
        http=HttpProtocol,
        ws=WebSocketProtocol,
        ws_max_size=settings.body_bytes_max,
        ws_per_message_deflate=False,
        ws_ping_interval=settings.keep_alive_seconds,
        ws_ping_timeout=settings.keep_alive_seconds,
        log_config=None,
        # At the level debug it would log what is in the frames of WebSockets: messages.
        log_level="info" if log_level == "debug" else log_level,
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing of ours asks who called
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(settings.shutdown_seconds),
        **options,
    )
