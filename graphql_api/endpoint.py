"""GraphQL over HTTP: a request becomes parameters, an outcome becomes a response with the right status.

Source: https://graphql.github.io/graphql-over-http/draft/. Raw ASGI, because a Starlette Request and Response cost
41 microseconds. No input reaches the one status 500, and every refusal is a JSON body with a code.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any
from urllib.parse import parse_qsl

from graphql import OperationType
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from graphql_api import log
from graphql_api.admission import Held, Unavailable
from graphql_api.auth import CHALLENGE, Authenticator, Credential, MakeContext, Recognised
from graphql_api.event_stream import FRAMINGS, Framing, HttpStream
from graphql_api.graphiql_page import GraphiQLPage
from graphql_api.http_error import HttpError, bad_request
from graphql_api.json_body import check_tokens, decode, encode
from graphql_api.media import GRAPHQL, HTML, JSON, check_content, media_type, negotiate, stream_media_type
from graphql_api.operation import Operations, Parameters, Prepared
from graphql_api.outcome import Outcome, refuse, refused, unopened
from graphql_api.response_stream import ResponseStream
from graphql_api.settings import Settings
from schema.errors import BadUserInput, Code, LimitExceeded, mask
from schema.principal import Principal

METHODS = b"GET, HEAD, POST, OPTIONS"

# The longest query string; uvicorn itself reads without end.
QUERY_STRING_BYTES_MAX = 1024 * 1024

# Answers depend on Accept; what else every answer of the service has, `security_headers` adds.
COMMON_HEADERS = ((b"vary", b"accept"),)

# A request that never reached execution says so by status, whatever its media type.
STATUSES = {
    Code.FORBIDDEN: 403,
    Code.UNAVAILABLE: 503,
    Code.TIMEOUT: 503,
    Code.INTERNAL_SERVER_ERROR: 500,
}

# The parameters that can name a document: a request with none of them may be a browser's, which asks for GraphiQL.
DOCUMENTS = {"query", "documentId", "extensions"}

HEADERS = frozenset(
    {b"accept", b"authorization", b"content-encoding", b"content-length", b"content-type", b"forkpoint-tenant"}
)

Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    media_type: str
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


class _Unidentified(Exception):
    """It cannot be told who asks."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


class Head:
    """The headers of a request that are read here; one that is sent several times is joined, as HTTP joins it."""

    __slots__ = ("accept", "content_encoding", "content_length", "content_type", "credential")

    def __init__(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        found: dict[bytes, bytes] = {}
        for key, value in headers:
            if key in HEADERS:
                found[key] = found[key] + b"," + value if key in found else value
        self.accept = found.get(b"accept", b"").decode("latin-1")
        self.content_type = found.get(b"content-type", b"").decode("latin-1")
        self.content_encoding = found.get(b"content-encoding", b"").decode("latin-1")
        self.content_length = found.get(b"content-length", b"").decode("latin-1")
        self.credential = Credential(
            found.get(b"authorization", b"").decode("latin-1"), found.get(b"forkpoint-tenant", b"").decode("latin-1")
        )


class Stages:
    """How long each stage of a request took, in milliseconds.

    Source: https://www.w3.org/TR/server-timing/
    """

    __slots__ = ("_began", "_told")

    def __init__(self) -> None:
        self._began = perf_counter()
        self._told: list[tuple[str, float]] = []

    def end(self, name: str) -> None:
        """End a stage; the next one begins."""
        now = perf_counter()
        self._told.append((name, now - self._began))
        self._began = now

    @property
    def header(self) -> bytes:
        """Tell all that ended."""
        return ", ".join([f"{name};dur={seconds * 1000:.3f}" for name, seconds in self._told]).encode()


class GraphQLEndpoint:
    """The ASGI application that answers at one path.

    `make_context` is called for whoever asks for each operation about to be executed, and for each event of a stream.
    It gives an asynchronous context manager, whose value is every resolver's context and which is closed after
    execution. A Refusal or a failure of the store that it raises on entering becomes the answer. Streams end when
    `stopping` is set.
    """

    def __init__(
        self,
        operations: Operations,
        authenticator: Authenticator,
        make_context: MakeContext,
        settings: Settings,
        stopping: asyncio.Event | None = None,
    ) -> None:
        self._operations = operations
        self._admission = operations.admission
        self._authenticator = authenticator
        self._make_context = make_context
        self._settings = settings
        self._stopping = stopping or asyncio.Event()
        self._page = GraphiQLPage() if settings.graphiql else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        head = Head(scope["headers"])
        stages = Stages()
        held = self._admission.held()
        try:
            response = await self._answer(scope, receive, send, head, stages, held)
        except ClientDisconnect:
            return
        except HttpError as error:
            chosen = negotiate(head.accept, (JSON, GRAPHQL)) or JSON
            response = _Response(error.status, chosen, encode(refuse(error.refusal).body), error.headers)
        except _Unidentified as error:
            response = self._response(error.outcome, negotiate(head.accept, (JSON, GRAPHQL)) or JSON)
        except Unavailable as refusal:
            response = self._response(refuse(refusal), negotiate(head.accept, (JSON, GRAPHQL)) or JSON)
        except Exception as error:  # noqa: BLE001 - the last guard: nothing that failed may show
            response = _Response(500, JSON, encode(refused([mask(error)]).body))
        finally:
            held.release()
        if response is not None:
            await _send(send, response, stages, with_body=scope["method"] != "HEAD")

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, head: Head, stages: Stages, held: Held
    ) -> _Response | None:
        """Answer by one response, or send a stream and give None."""
        method = scope["method"]
        if method == "POST":
            chosen = media_type(head.accept)
            principal = await self._identify(head)
            body = await self._read_body(receive, head, partial(held.grow, principal.tenant_id))
            parameters = read_parameters(decode(body), len(body))
        elif method in {"GET", "HEAD"}:
            values = _query_values(scope["query_string"])
            offers = (JSON, GRAPHQL, HTML) if self._page and DOCUMENTS.isdisjoint(values) else (JSON, GRAPHQL)
            chosen = media_type(head.accept, offers)
            if self._page and chosen == HTML:
                return _Response(200, HTML, *self._page.render())
            principal = await self._identify(head)
            parameters = read_parameters(_decode_values(values), len(scope["query_string"]))
        elif method == "OPTIONS":
            return _Response(204, "", b"", ((b"allow", METHODS),))
        else:
            message = f"The method {method[:20]!r} is not supported: use POST, or GET for queries."
            raise HttpError(405, BadUserInput(message), (b"allow", METHODS))
        stages.end("read")
        prepared = self._operations.prepare(parameters, principal)
        stages.end("prepare")
        kind = None if isinstance(prepared, Outcome) else prepared.type
        if kind is not OperationType.QUERY:
            _check_method(kind, method)
            if kind is OperationType.SUBSCRIPTION:
                chosen = stream_media_type(head.accept)
        if chosen in FRAMINGS:
            await self._stream(prepared, FRAMINGS[chosen], head, scope, receive, send, stages)
            return None
        if isinstance(prepared, Outcome):
            outcome = prepared
        else:
            outcome = await self._operations.answer(prepared, partial(self._make_context, principal))
            stages.end("execute")
        response = self._response(outcome, chosen)
        stages.end("write")
        return response

    def _response(self, outcome: Outcome, chosen: str) -> _Response:
        status, headers = (200, ()) if outcome.kind == "executed" else _status(outcome, chosen)
        return _Response(status, chosen, encode(outcome.told(execution=self._settings.debug_extensions)), headers)

    async def _identify(self, head: Head) -> Principal:
        """Say who asks, and whether there is room for more, before anything of what is asked is read.

        Raises: _Unidentified, Unavailable.
        """
        try:
            principal = await self._authenticator.principal(head.credential)
        except Exception as error:
            raise _Unidentified(unopened(error)) from error
        log.identify(principal)
        self._admission.check(principal.tenant_id)
        return principal

    async def _stream(
        self,
        prepared: Prepared | Outcome,
        framing: Framing,
        head: Head,
        scope: Scope,
        receive: Receive,
        send: Send,
        stages: Stages,
    ) -> None:
        """Answer by a stream, of one outcome where there is no more. It tells errors too: its status is always 200."""

        async def begin() -> Outcome | ResponseStream:
            if isinstance(prepared, Outcome):
                return prepared
            open_context = partial(Recognised, self._authenticator, head.credential, self._make_context)
            if prepared.type is OperationType.SUBSCRIPTION:
                return await self._operations.subscribe(prepared, open_context)
            return await self._operations.answer(prepared, open_context)

        scope.setdefault("state", {})["streams"] = True  # the server need not wait for this when it stops
        stream = HttpStream(
            framing,
            receive,
            send,
            keep_alive_seconds=self._settings.keep_alive_seconds,
            stopping=self._stopping,
            tells_execution=self._settings.debug_extensions,
        )
        await stream.run(begin, [*COMMON_HEADERS, (b"server-timing", stages.header)])

    async def _read_body(self, receive: Receive, head: Head, hold: Callable[[int], None]) -> bytes | bytearray:
        """Read the body within its limit, and hold its bytes.

        Raises: HttpError for a body that is not JSON or too large; Unavailable; ClientDisconnect.
        """
        check_content(head.content_type, head.content_encoding)
        allowed, declared = self._settings.body_bytes_max, head.content_length
        if declared.isdecimal():
            if len(declared) > 18:  # noqa: PLR2004 - past 64 bits
                raise _too_large(allowed)
            if int(declared) > allowed:
                raise _too_large(allowed, int(declared))
        body: bytes | bytearray = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            part: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            if body or more:
                body = bytearray(body) if isinstance(body, bytes) else body
                body += part
            else:
                body = part  # nearly always all of it
            if len(body) > allowed:
                raise _too_large(allowed)
            hold(len(body))
            if not more:
                check_tokens(body)
                return body


def _status(outcome: Outcome, chosen: str) -> tuple[int, tuple[tuple[bytes, bytes], ...]]:
    """Say by the status that nothing was executed, and by a header what would be right."""
    extensions = outcome.body["errors"][0]["extensions"]
    code, seconds = extensions["code"], extensions.get("retryAfterSeconds")
    if code == Code.UNAUTHENTICATED:
        return 401, ((b"www-authenticate", CHALLENGE),)
    if seconds is not None:
        return 429 if code == Code.LIMIT_EXCEEDED else 503, ((b"retry-after", b"%d" % seconds),)
    return STATUSES.get(code, 400 if chosen == GRAPHQL or outcome.kind == "context_error" else 200), ()


def _check_method(kind: OperationType | None, method: str) -> None:
    if kind is OperationType.MUTATION and method != "POST":
        raise HttpError(405, BadUserInput("A mutation must be sent by POST: GET only reads."), (b"allow", b"POST"))
    if kind is OperationType.SUBSCRIPTION and method == "HEAD":
        raise HttpError(405, BadUserInput("A subscription must be sent by POST or GET."), (b"allow", b"GET, POST"))


def _batch(count: int) -> HttpError:
    if count <= 1:
        return bad_request("Batches are not supported: send one JSON object for each operation.")
    message = (
        f"The request is a batch of {count:,} operations; one operation is allowed: send one JSON object for each, side"
        " by side."
    )
    return HttpError(400, LimitExceeded(message))


def _too_large(allowed: int, declared: int | None = None) -> HttpError:
    """Say so; how large it is, is known only where it was declared."""
    asked = "more than the most allowed" if declared is None else f"{declared:,} bytes"
    message = f"The body has {asked}: at most {allowed:,} bytes are allowed (FORKPOINT_BODY_BYTES_MAX)."
    return HttpError(413, LimitExceeded(message))


def _query_values(query_string: bytes) -> dict[str, str]:
    if len(query_string) > QUERY_STRING_BYTES_MAX:
        asked, allowed = len(query_string), QUERY_STRING_BYTES_MAX
        message = f"The query string has {asked:,} bytes; at most {allowed:,} are allowed: use POST."
        raise HttpError(414, LimitExceeded(message))
    try:
        return dict(parse_qsl(query_string.decode(), keep_blank_values=True, errors="strict"))
    except ValueError:
        raise bad_request("The query string is not UTF-8.") from None


def _decode_values(values: dict[str, str]) -> dict[str, Any]:
    decoded: dict[str, Any] = dict(values)
    for name in ("variables", "extensions"):
        if name in values:
            decoded[name] = decode(values[name]) if values[name] else None
    return decoded


def read_parameters(value: Any, size_bytes: int) -> Parameters:
    """Check the names and types of a request's parameters. Source: GraphQL over HTTP, "Request parameters".

    `size_bytes` is that of the whole request.

    Raises: HttpError.
    """
    if isinstance(value, list):
        raise _batch(len(value))
    if not isinstance(value, dict):
        raise bad_request("The request must be a JSON object with the document in its `query`.")
    for name in ("variables", "extensions"):
        if not isinstance(value.get(name), dict | None):
            raise bad_request(f"`{name}` must be a JSON object or null.")
    operation_name = value.get("operationName")
    if not isinstance(operation_name, str | None):
        raise bad_request("`operationName` must be a string or null.")
    extensions = value.get("extensions") or {}
    query, document_id = value.get("query"), value.get("documentId")
    if not isinstance(document_id, str | None):
        raise bad_request("`documentId` must be a string or null.")
    named = document_id or extensions.get("persistedQuery") is not None
    if not isinstance(query, str | None) or not (query or named):
        raise bad_request(
            "`query` must be a string that holds a GraphQL document, unless `documentId` or `extensions.persistedQuery`"
            " names one."
        )
    return Parameters(
        query or None, value.get("variables") or {}, operation_name or None, extensions, document_id or None, size_bytes
    )


async def _send(send: Send, response: _Response, stages: Stages, *, with_body: bool) -> None:
    headers: Headers = [*response.headers, *COMMON_HEADERS]
    if told := stages.header:
        headers.append((b"server-timing", told))
    if response.media_type:
        headers.append((b"content-type", b"%s; charset=utf-8" % response.media_type.encode()))
        headers.append((b"content-length", b"%d" % len(response.body)))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body if with_body else b""})
