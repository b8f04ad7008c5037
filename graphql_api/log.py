"""Logging: one line of JSON or console text for everything that happens, with the id of its request."""

import contextlib
import json
import logging
import os
import re
import sys
from contextvars import ContextVar
from itertools import count
from time import perf_counter
from typing import Any, TextIO

import orjson
import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.typing import EventDict, Processor

from graphql_api.settings import Settings
from schema.principal import ANYBODY, Principal

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
PATH_CHARACTERS_MAX = 200

# A variable of our own: structlog's context costs 16 microseconds a request.
_REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
# Who sends the request, as soon as that is known.
_PRINCIPAL: ContextVar[Principal | None] = ContextVar("principal", default=None)


def identify(principal: Principal) -> None:
    """Let all lines of this request say who sent it."""
    _PRINCIPAL.set(principal)


def configure(settings: Settings, stream: TextIO | None = None) -> None:
    """Send structlog and the standard library's loggers the same way, to standard error unless `stream` is given.

    uvicorn must be started with `log_config=None`, or it adds handlers of its own after this. Its access log is
    silenced: `RequestLog` says the same with the request's id.
    """
    stream = stream or sys.stderr
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_request,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    final = _renderers(settings, stream)
    structlog.configure(
        processors=[*shared, *final],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: _Lines(stream),
        cache_logger_on_first_use=False,  # loggers made at import must follow a later configuration
    )
    handler = logging.StreamHandler(stream)
    handler.setLevel(level)  # libraries set levels of their own
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
            foreign_pre_chain=[*shared, _add_logger],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    logging.getLogger("uvicorn.error").addFilter(_is_of_the_server)
    # At debug level it shows the headers and frames of WebSockets, which hold credentials and messages.
    logging.getLogger("uvicorn.error").setLevel(max(level, logging.INFO))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = name != "uvicorn.access"


def _is_of_the_server(record: logging.LogRecord) -> bool:
    """Leave out what uvicorn tells of single WebSockets: their query strings, and the stack where text is not UTF-8."""
    if record.exc_info and isinstance(record.exc_info[1], UnicodeDecodeError):
        return False
    return not (isinstance(record.msg, str) and record.msg.startswith('%s - "WebSocket'))


class _Lines(structlog.WriteLogger):
    """Loses what cannot be written, as the standard library's handlers do: a disk that is full fails no request."""

    def msg(self, message: str) -> None:
        """Write a line."""
        with contextlib.suppress(OSError, ValueError):  # ValueError where it is closed
            super().msg(message)

    log = debug = info = warn = warning = fatal = failure = err = error = critical = exception = msg


def _renderers(settings: Settings, stream: TextIO) -> list[Processor]:
    if settings.log_format == "console" or (settings.log_format == "auto" and stream.isatty()):
        return [
            structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    # No local variables in tracebacks: they hold messages.
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(serializer=_to_json)]


def _add_request(_logger: Any, _method: str, event: EventDict) -> EventDict:
    if (request_id := _REQUEST_ID.get()) is not None:
        event["request_id"] = request_id
    if (principal := _PRINCIPAL.get()) is not None and principal is not ANYBODY:
        event["tenant"], event["credential"] = principal.tenant_id, principal.credential
    return event


def _add_logger(logger: logging.Logger, _method: str, event: EventDict) -> EventDict:
    record = event.get("_record")
    event["logger"] = record.name if record else logger.name
    return event


def _to_json(event: EventDict, **_options: Any) -> str:
    try:
        return orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # a lone surrogate, or an integer beyond 64 bits
        return json.dumps(event, default=repr)


class RequestLog:
    """ASGI middleware: gives each request an id, and logs one line when it has been answered.

    A WebSocket is a request that ends with its connection, and has a close code in place of a status.

    The id is the caller's X-Request-ID when that is 1 to 128 letters, digits, dots, underscores or hyphens; it is bound
    to every line logged meanwhile, and returned. Query strings and bodies are never logged: they hold messages.
    `told` says whether the level is low enough for that line.
    """

    def __init__(self, app: ASGIApp, *, told: bool = True) -> None:
        self._app = app
        self._told = told
        self._log = structlog.get_logger(__name__)
        self._process = os.urandom(8).hex()
        self._numbers = count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if scope["type"] != "http":
            await (self._serve_socket if scope["type"] == "websocket" else self._app)(scope, receive, send)
            return
        request_id = _given_id(scope) or f"{self._process}{next(self._numbers):016x}"
        header = (b"x-request-id", request_id.encode())
        status: int | None = None  # stays None when the client left before an answer

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), header]}
            await send(message)

        start = perf_counter()
        token, nobody = _REQUEST_ID.set(request_id), _PRINCIPAL.set(None)
        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            status = status or 500
            raise
        finally:
            if self._told:
                duration_ms = round((perf_counter() - start) * 1000, 2)
                self._log.info(
                    "request", method=scope["method"][:20], path=_path(scope), status=status, duration_ms=duration_ms
                )
            _PRINCIPAL.reset(nobody)
            _REQUEST_ID.reset(token)

    async def _serve_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = _given_id(scope) or f"{self._process}{next(self._numbers):016x}"
        header = (b"x-request-id", request_id.encode())
        code: int | None = None  # stays None when nobody closed it

        async def receive_code() -> Message:
            nonlocal code
            message = await receive()
            if message["type"] == "websocket.disconnect":
                code = code or message.get("code")
            return message

        async def send_with_id(message: Message) -> None:
            nonlocal code
            if message["type"] in {"websocket.accept", "websocket.http.response.start"}:
                message = {**message, "headers": [*message.get("headers", ()), header]}
            elif message["type"] == "websocket.close":
                code = message.get("code", 1000)
            await send(message)

        start = perf_counter()
        token, nobody = _REQUEST_ID.set(request_id), _PRINCIPAL.set(None)
        try:
            await self._app(scope, receive_code, send_with_id)
        finally:
            if self._told:
                duration_ms = round((perf_counter() - start) * 1000, 2)
                self._log.info("websocket", path=_path(scope), code=code, duration_ms=duration_ms)
            _PRINCIPAL.reset(nobody)
            _REQUEST_ID.reset(token)


def _given_id(scope: Scope) -> str | None:
    for key, value in scope["headers"]:
        if key == b"x-request-id" and REQUEST_ID.fullmatch(value):
            return str(value, "ascii")
    return None


def _path(scope: Scope) -> str:
    """Give the path as it was sent, percent-encoded, so that it cannot forge lines of the log."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode("ascii", "backslashreplace")
    text = raw.partition(b"?")[0].decode("ascii", "backslashreplace")
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text[:PATH_CHARACTERS_MAX])
