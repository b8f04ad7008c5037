"""uvicorn's HTTP, which answers also those who would rather speak another protocol, and reads no head without end.

Java's HttpClient offers to go on in HTTP/2 (`Upgrade: h2c`) with every request. A server may pass over that, and answer
in HTTP/1.1. uvicorn does, but loses the body, because its parser stops at the end of the head.
Source: RFC 9110, section 7.8; https://github.com/Kludex/uvicorn/issues/2722
"""

import sys
from collections.abc import Iterator
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from graphql_api.json_body import encode
from graphql_api.outcome import refuse
from graphql_api.security_headers import HEADERS
from schema.errors import LimitExceeded, Refusal

# What may come of a head, the end of a body or an extension of a chunk before it is complete. uvicorn and its parser
# would collect those as long as they come. The longest query string that they read, 64 KiB, has room.
HEAD_BYTES_MAX = 128 * 1024
OFFERS = {b"upgrade", b"http2-settings"}


class Protocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._reading: bytes | memoryview = b""
        self._waiting: bytes | memoryview = b""
        # Counted by readings: that in which a part became complete is left out.
        self._incomplete_bytes = 0

    def data_received(self, data: bytes | memoryview) -> None:
        """Read what came; after a head with an offer, with the parser that was not told of it."""
        self._waiting = data
        while data := self._waiting:
            self._waiting = b""
            self._reading = data
            self._incomplete_bytes += len(data)
            super().data_received(data)  # type: ignore[arg-type] # its parser takes any buffer
            if self._incomplete_bytes > HEAD_BYTES_MAX:
                message = f"The head of the request is larger than {HEAD_BYTES_MAX:,} bytes, the most allowed."
                self.refuse(431, LimitExceeded(message))
                return

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._incomplete_bytes = 0
        super().on_message_begin()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._incomplete_bytes = 0
        super().on_body(body)

    def on_headers_complete(self) -> None:
        """Begin to answer, unless the head is read once more."""
        self._incomplete_bytes = 0
        if not self._is_offer():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End the body, unless it is still to be read."""
        if not self._is_offer():
            super().on_message_complete()

    def refuse(self, status: int, refusal: Refusal, *headers: tuple[bytes, bytes]) -> None:
        """Close, and say why if nothing else is being said."""
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request
        answering = cycle is not None and cycle.response_started and not cycle.response_complete
        if not (answering or self.pipeline or self.transport.is_closing()):
            if cycle is not None:
                cycle.disconnected = True  # or it would answer as well
                cycle.message_event.set()
            body = encode(refuse(refusal).body)
            told = [
                *self.server_state.default_headers,
                *HEADERS,
                *headers,
                (b"content-type", b"application/json; charset=utf-8"),
                (b"content-length", b"%d" % len(body)),
                (b"connection", b"close"),
            ]
            lines = [b"%s: %s\r\n" % header for header in told]
            self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", body]))
        self.transport.close()

    def _is_offer(self) -> bool:
        offered: bool = self.parser.should_upgrade()
        return offered and not self._should_upgrade()

    def _unsupported_upgrade_warning(self) -> None:
        """Go on after the head, where the parser stopped: uvicorn calls this while it handles that."""
        stopped = sys.exception()
        assert isinstance(stopped, httptools.HttpParserUpgrade)  # noqa: S101 - for the type
        method = self.parser.get_method()
        if method == b"CONNECT":  # offers nothing, and nothing else can be meant
            self.send_400_response("Invalid HTTP request received.")
            return
        rest = memoryview(self._reading)[stopped.args[0] :]
        first = b"%s %s HTTP/%s" % (method, self.url, self.parser.get_http_version().encode())
        head = [first, *(b"%s: %s" % header for header in _without_offer(self.headers)), b"\r\n"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
        super().data_received(b"\r\n".join(head))
        self._waiting = rest


def _without_offer(headers: list[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    for name, value in headers:
        if name == b"connection":
            kept = [token for part in value.split(b",") if (token := part.strip()).lower() not in OFFERS]
            if kept:
                yield name, b", ".join(kept)
        elif name not in OFFERS:
            yield name, value
