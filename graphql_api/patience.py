"""How long a client may take over HTTP: to send a head or a body, and to take an answer; and how many there may be.

uvicorn waits for all of it as long as it takes. Nothing is timed that comes at once: a timer is set only where
something is missing after what was just read, and where the kernel takes no more of an answer.
"""

import asyncio
from typing import Any

import uvicorn
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from graphql_api.admission import RETRY_SECONDS, Unavailable
from graphql_api.gate import TooSlow
from graphql_api.http_protocol import Protocol
from graphql_api.settings import Settings
from schema.errors import Refusal

# A body gets a second more for so many bytes: 50 MiB may take 27 minutes, and trickling costs who does it something.
BODY_BYTES_PER_SECOND = 32 * 1024
# Connections above the most, so that somebody may still ask for health, and others read why they are refused.
SPARE_CONNECTIONS = 64
HEALTH_PATH = "/health"


class Config(uvicorn.Config):
    """uvicorn's configuration, and ours."""

    def __init__(self, app: Any, settings: Settings, **options: Any) -> None:
        super().__init__(app, **options)
        self.settings = settings


class PatientProtocol(Protocol):
    """One connection, of a client that is waited for so long and no longer."""

    config: Config

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._settings = self.config.settings
        self._is_spare = False
        # What is being read, if anything is, its time, and how much of a body came.
        self._awaited: str | None = "head"
        self._reading_timer: asyncio.TimerHandle | None = None
        self._body_bytes = 0
        self._writing_timer: asyncio.TimerHandle | None = None
        self._unsent = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Begin to wait for a head, unless there are too many who do."""
        super().connection_made(transport)
        spare = len(self.connections) - self._settings.connections_max
        self._is_spare = spare > 0
        if spare > SPARE_CONNECTIONS:
            self.refuse(503, self._too_many(), (b"retry-after", b"%d" % RETRY_SECONDS))
        self._time_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for nothing any more."""
        self._awaited = None
        self._stop_reading_timer()
        self._stop_writing_timer()
        super().connection_lost(exc)

    # Reading

    def data_received(self, data: bytes | memoryview) -> None:
        """Read what came, and wait for what is missing."""
        super().data_received(data)
        if self._awaited is not None and self._reading_timer is None:
            self._time_reading()

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._awaited = "head"
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Begin a body."""
        self._awaited, self._body_bytes = "body", 0
        self._stop_reading_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Have all of a request."""
        self._awaited = None
        self._stop_reading_timer()
        super().on_message_complete()

    def _time_reading(self) -> None:
        seconds = self._settings.header_seconds if self._awaited == "head" else self._settings.body_seconds
        self._reading_timer = self.loop.call_later(seconds, self._read_too_long, self.loop.time())

    def _stop_reading_timer(self) -> None:
        if self._reading_timer is not None:
            self._reading_timer.cancel()
            self._reading_timer = None

    def _read_too_long(self, began: float) -> None:
        self._reading_timer = None
        if self._awaited is None or self.transport.is_closing():
            return
        cycle: RequestResponseCycle | None = self.cycle  # None before the first request
        if self.flow.read_paused or self._is_answering(cycle):  # it is we who are slow
            self._time_reading()
        elif self._awaited == "head":
            self._refuse_slow("head", "FORKPOINT_HEADER_SECONDS", self._settings.header_seconds)
        else:
            allowed = self._settings.body_seconds + self._body_bytes / BODY_BYTES_PER_SECOND
            left = began + allowed - self.loop.time()
            if left > 0:
                self._reading_timer = self.loop.call_later(left, self._read_too_long, began)
            else:
                self._refuse_slow("body", "FORKPOINT_BODY_SECONDS", allowed)

    def _is_answering(self, cycle: RequestResponseCycle | None) -> bool:
        """Tell whether an answer is under way; one that waits for its body has not begun."""
        if self.pipeline:
            return True
        if cycle is None or cycle.response_complete:
            return False
        return self._awaited == "head" or cycle.response_started

    def _refuse_slow(self, part: str, setting: str, seconds: float) -> None:
        self.refuse(408, TooSlow(f"The {part} of the request took longer than {seconds:,.4g} seconds ({setting})."))

    # Writing

    def refuse(self, status: int, refusal: Refusal, *headers: tuple[bytes, bytes]) -> None:
        """Close, and say why if nothing else is being said."""
        super().refuse(status, refusal, *headers)
        self._time_writing()

    def pause_writing(self) -> None:
        """Wait until what was written is taken."""
        super().pause_writing()
        self._time_writing()

    def resume_writing(self) -> None:
        """Write on."""
        self._stop_writing_timer()
        super().resume_writing()

    def on_response_complete(self) -> None:
        """End an answer; a connection that closes does so when all is taken."""
        super().on_response_complete()
        if self.transport.is_closing() and self._writing_timer is None:
            self._time_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection, also one of a client that has not read its last answer."""
        super().timeout_keep_alive_handler()
        self._time_writing()

    def _time_writing(self) -> None:
        self._stop_writing_timer()
        self._unsent = self.transport.get_write_buffer_size()
        self._writing_timer = self.loop.call_later(self._settings.write_seconds, self._write_too_long)

    def _stop_writing_timer(self) -> None:
        if self._writing_timer is not None:
            self._writing_timer.cancel()
            self._writing_timer = None

    def _write_too_long(self) -> None:
        """Give up who has taken nothing meanwhile."""
        unsent, self._writing_timer = self.transport.get_write_buffer_size(), None
        if unsent and unsent >= self._unsent:
            self.transport.abort()
        elif unsent:
            self._time_writing()

    # Too many

    def handle_websocket_upgrade(self) -> None:
        """Open a WebSocket, on no connection that is one too many."""
        if self._is_spare:
            self.refuse(503, self._too_many(), (b"retry-after", b"%d" % RETRY_SECONDS))
        else:
            super().handle_websocket_upgrade()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        if self._is_spare and cycle.scope["path"] != HEALTH_PATH:
            self.refuse(503, self._too_many(), (b"retry-after", b"%d" % RETRY_SECONDS))
        else:
            super()._start_asgi_task(cycle, app)

    def _too_many(self) -> Unavailable:
        most = self._settings.connections_max
        return Unavailable(
            f"There are {most:,} connections already, the most of a process (FORKPOINT_CONNECTIONS_MAX)."
        )
