"""GraphQL over HTTP: a request becomes parameters, an outcome becomes a response with the right status.

Source: https://graphql.github.io/graphql-over-http/draft/. Raw ASGI, because a Starlette Request and Response cost
41 microseconds. No input reaches the one status 500, and every refusal is a JSON body with a code.
"""

import json
import re
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from itertools import islice
from typing import Any, NoReturn
from urllib.parse import parse_qsl

import orjson
from graphql import GraphQLError, OperationType
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send
from strawberry.http.ides import get_graphql_ide_html

from graphql_api.operation import Operations, Outcome, Parameters, refuse, refused
from graphql_api.settings import Settings
from schema.errors import BadUserInput, Code, LimitExceeded, Refusal, mask, present, show

JSON = "application/json"
GRAPHQL = "application/graphql-response+json"
HTML = "text/html"
METHODS = b"GET, HEAD, POST, OPTIONS"

# The longest query string; uvicorn itself reads without end.
QUERY_STRING_BYTES_MAX = 1024 * 1024

# 50 MiB of `[],` block for 6 seconds and take 1.3 GB; a million strings, commas and brackets at most half a second.
JSON_TOKENS_MAX = 1_000_000
# A JSON string, also one that never ends: without that and the possessive quantifiers this would be quadratic.
JSON_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.?)*+"?|[,\[{]', re.DOTALL)

# A longer Accept header is read up to here.
ACCEPT_CHARACTERS_MAX = 4_096

# Answers hold what callers may read, and depend on Accept.
COMMON_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"vary", b"accept"),
    (b"x-content-type-options", b"nosniff"),
)

# A request that never reached execution says so by status, whatever its media type.
STATUSES = {
    Code.UNAUTHENTICATED: 401,
    Code.FORBIDDEN: 403,
    Code.UNAVAILABLE: 503,
    Code.TIMEOUT: 503,
    Code.INTERNAL_SERVER_ERROR: 500,
}

# The parameters that can name a document: a request with none of them may be a browser's, which asks for GraphiQL.
DOCUMENTS = {"query", "documentId", "extensions"}

Headers = list[tuple[bytes, bytes]]
MakeContext = Callable[[Scope], AbstractAsyncContextManager[object]]


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    media_type: str
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...] = ()


class _HttpError(Exception):
    """A request that is not even GraphQL over HTTP; `status` says how."""

    def __init__(self, status: int, refusal: Refusal, *headers: tuple[bytes, bytes]) -> None:
        super().__init__(refusal.message)
        self.status = status
        self.refusal = refusal
        self.headers = headers


class GraphQLEndpoint:
    """The ASGI application that answers at one path.

    `make_context` is called with the ASGI scope of each operation about to be executed. It gives an asynchronous
    context manager, whose value is every resolver's context and which is closed after execution. A Refusal or a failure
    of the store that it raises on entering becomes the answer.
    """

    def __init__(self, operations: Operations, make_context: MakeContext, settings: Settings) -> None:
        self._operations = operations
        self._make_context = make_context
        self._settings = settings
        self._page = get_graphql_ide_html("graphiql").encode() if settings.graphiql else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request."""
        accept = _header(scope, b"accept")
        try:
            response = await self._answer(scope, receive, accept)
        except ClientDisconnect:
            return
        except _HttpError as error:
            media_type = negotiate(accept, (JSON, GRAPHQL)) or JSON
            body = encode(refuse(error.refusal).body)
            response = _Response(error.status, media_type, body, error.headers)
        except Exception as error:  # noqa: BLE001 - the last guard: nothing that failed may show
            response = _Response(500, JSON, encode(refused([mask(error)]).body))
        await _send(send, response, head=scope["method"] == "HEAD")

    async def _answer(self, scope: Scope, receive: Receive, accept: str) -> _Response:
        method = scope["method"]
        if method == "OPTIONS":
            return _Response(204, "", b"", ((b"allow", METHODS),))
        if method == "POST":
            media_type = _media_type(accept)
            parameters = read_parameters(decode(await self._read_body(scope, receive)))
        elif method in {"GET", "HEAD"}:
            values = _query_values(scope["query_string"])
            offers = (JSON, GRAPHQL, HTML) if self._page and DOCUMENTS.isdisjoint(values) else (JSON, GRAPHQL)
            media_type = _media_type(accept, offers)
            if media_type == HTML:
                return _Response(200, HTML, self._page)
            parameters = read_parameters(_decode_values(values))
        else:
            message = f"The method {method[:20]!r} is not supported: use POST, or GET for queries."
            raise _HttpError(405, BadUserInput(message), (b"allow", METHODS))
        outcome, status = await self._run(parameters, scope, method == "POST")
        if status is None:
            status = 400 if outcome.kind == "request_error" and media_type == GRAPHQL else 200
        return _Response(status, media_type, encode(outcome.body))

    async def _run(self, parameters: Parameters, scope: Scope, may_write: bool) -> tuple[Outcome, int | None]:  # noqa: FBT001
        """Prepare and execute. The status is None when the outcome decides it."""
        prepared = self._operations.prepare(parameters)
        if isinstance(prepared, Outcome):
            return prepared, STATUSES.get(prepared.body["errors"][0]["extensions"]["code"])
        if prepared.type is OperationType.MUTATION and not may_write:
            raise _HttpError(405, BadUserInput("A mutation must be sent by POST: GET only reads."), (b"allow", b"POST"))
        entered, outcome = False, None
        try:
            async with self._make_context(scope) as context:
                entered = True
                outcome = await self._operations.execute(prepared, context)
        except Exception as error:
            if not entered:  # presented like any other failure, with its code
                shown = present(GraphQLError(str(error), original_error=error))
                return refused([shown]), STATUSES.get(shown["extensions"]["code"], 400)
            if outcome is None:
                raise
            mask(error)  # closing failed; what was executed stays executed, and its result is shown
        return outcome, None

    async def _read_body(self, scope: Scope, receive: Receive) -> bytearray:
        """Read the body within its limit.

        Raises: _HttpError for a body that is not JSON or too large; ClientDisconnect.
        """
        _check_content(scope)
        allowed = self._settings.body_bytes_max
        refusal = _HttpError(
            413,
            LimitExceeded(f"The body is larger than {allowed:,} bytes, the most allowed (FORKPOINT_BODY_BYTES_MAX)."),
        )
        declared = _header(scope, b"content-length")
        if declared.isdecimal() and (len(declared) > 18 or int(declared) > allowed):  # noqa: PLR2004 - past 64 bits
            raise refusal
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            body += message.get("body", b"")
            if len(body) > allowed:
                raise refusal
            if not message.get("more_body", False):
                _check_tokens(body)
                return body


def _check_tokens(body: bytearray) -> None:
    """Refuse JSON of too many values, which cost far more time and memory than their bytes."""
    most = sum(body.count(mark) for mark in (b",", b"[", b"{", b'"'))
    if most <= JSON_TOKENS_MAX:
        return  # the usual case, without a closer look at what stands inside strings
    if next(islice(JSON_TOKENS.finditer(body), JSON_TOKENS_MAX, None), None):
        message = f"The body holds more than {JSON_TOKENS_MAX:,} JSON strings, commas and brackets, the most allowed."
        raise _HttpError(413, LimitExceeded(message))


def negotiate(accept: str, offers: tuple[str, ...]) -> str | None:
    """Choose the media type that an Accept header likes best, or None when it takes none of the offers.

    A more specific range overrides a wildcard; the higher weight wins, then a type named outright, then the one named
    first, then the offer named first. What cannot be read is passed over. Source: RFC 9110, section 12.5.1.
    """
    ranges = [found for part in accept[:ACCEPT_CHARACTERS_MAX].split(",") if (found := _media_range(part))]
    if not ranges:
        return offers[0]
    best: tuple[float, int, int, int] = (0.0, 0, 0, 0)
    chosen = None
    for rank, offer in enumerate(offers):
        wanted = {offer: 2, offer.partition("/")[0] + "/*": 1, "*/*": 0}
        matches = [(wanted[name], -place, weight) for place, (name, weight) in enumerate(ranges) if name in wanted]
        if not matches:
            continue
        precision, place, weight = max(matches)
        score = (weight, precision, place if precision == 2 else 0, -rank)  # noqa: PLR2004 - named outright
        if weight > 0 and (chosen is None or score > best):
            best, chosen = score, offer
    return chosen


def _media_range(text: str) -> tuple[str, float] | None:
    name, *parameters = (part.strip().lower() for part in text.split(";"))
    if not all(name.partition("/")):
        return None
    weight = 1.0
    for parameter in parameters:
        key, _, value = parameter.partition("=")
        if key == "q":
            if not re.fullmatch(r"[01]?\.?[0-9]{0,3}", value) or not value.strip("."):
                return None
            weight = min(float(value), 1.0)
        elif key == "charset" and not _is_utf8(value):
            return None
    return name, weight


def _is_utf8(charset: str) -> bool:
    return charset.strip('"') in {"utf-8", "utf8"}


def _media_type(accept: str, offers: tuple[str, ...] = (JSON, GRAPHQL)) -> str:
    media_type = negotiate(accept, offers)
    if media_type is None:
        raise _HttpError(406, BadUserInput(f"None of the accepted media types is offered: {', '.join(offers)}."))
    return media_type


def _check_content(scope: Scope) -> None:
    """Refuse what is not plain JSON; a browser asks before it sends JSON across origins, so none is forged."""
    name, *parameters = (part.strip().lower() for part in _header(scope, b"content-type").split(";"))
    charsets = [value for key, _, value in (part.partition("=") for part in parameters) if key == "charset"]
    if name != JSON or not all(map(_is_utf8, charsets)):
        raise _HttpError(415, BadUserInput("The body must be JSON in UTF-8: send Content-Type: application/json."))
    if _header(scope, b"content-encoding").strip().lower() not in {"", "identity"}:
        raise _HttpError(415, BadUserInput("Compressed bodies are not supported: leave Content-Encoding out."))


def _header(scope: Scope, name: bytes) -> str:
    """Give a header's value, several joined as HTTP joins them; empty when absent."""
    return ",".join([value.decode("latin-1") for key, value in scope["headers"] if key == name])


def decode(text: bytes | bytearray | str) -> Any:
    """Read JSON strictly: UTF-8, no NaN or Infinity; integers stay exact; of a repeated key the last one counts.

    The standard library's reader, because orjson turns integers beyond 64 bits into floats.

    Raises: _HttpError.
    """
    try:
        return DECODER.decode(text if isinstance(text, str) else text.decode("utf-8-sig"))
    except UnicodeDecodeError:
        message = "The body is not UTF-8."
    except RecursionError:
        raise _HttpError(400, LimitExceeded("The JSON is nested too deeply: nest it less.")) from None
    except json.JSONDecodeError as error:
        message = f"The request is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
    except ValueError:  # what is left: the interpreter refuses the time that huge integers take
        digits = sys.get_int_max_str_digits()
        refusal = LimitExceeded(f"The JSON holds an integer of more than {digits:,} digits, the most allowed.")
        raise _HttpError(400, refusal) from None
    raise _bad_request(message)


def _refuse_constant(name: str) -> NoReturn:
    raise _bad_request(f"The request is not JSON: {name} is not a JSON number.")


DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def _query_values(query_string: bytes) -> dict[str, str]:
    if len(query_string) > QUERY_STRING_BYTES_MAX:
        message = f"The query string is longer than {QUERY_STRING_BYTES_MAX:,} bytes, the most allowed: use POST."
        raise _HttpError(414, LimitExceeded(message))
    try:
        return dict(parse_qsl(query_string.decode(), keep_blank_values=True, errors="strict"))
    except ValueError:
        raise _bad_request("The query string is not UTF-8.") from None


def _decode_values(values: dict[str, str]) -> dict[str, Any]:
    decoded: dict[str, Any] = dict(values)
    for name in ("variables", "extensions"):
        if name in values:
            decoded[name] = decode(values[name]) if values[name] else None
    return decoded


def read_parameters(value: Any) -> Parameters:
    """Check the names and types of a request's parameters. Source: GraphQL over HTTP, "Request parameters".

    Raises: _HttpError.
    """
    if isinstance(value, list):
        raise _bad_request("Batches are not supported: send one JSON object for each operation.")
    if not isinstance(value, dict):
        raise _bad_request("The request must be a JSON object with the document in its `query`.")
    for name in ("variables", "extensions"):
        if not isinstance(value.get(name), dict | None):
            raise _bad_request(f"`{name}` must be a JSON object or null.")
    operation_name = value.get("operationName")
    if not isinstance(operation_name, str | None):
        raise _bad_request("`operationName` must be a string or null.")
    extensions = value.get("extensions") or {}
    query, document_id = value.get("query"), value.get("documentId")
    if not isinstance(document_id, str | None):
        raise _bad_request("`documentId` must be a string or null.")
    named = document_id or extensions.get("persistedQuery") is not None
    if not isinstance(query, str | None) or not (query or named):
        raise _bad_request(
            "`query` must be a string that holds a GraphQL document, unless `documentId` or `extensions.persistedQuery`"
            " names one."
        )
    return Parameters(
        query or None, value.get("variables") or {}, operation_name or None, extensions, document_id or None
    )


def _bad_request(message: str) -> _HttpError:
    return _HttpError(400, BadUserInput(message))


def encode(body: dict[str, Any]) -> bytes:
    """Write JSON in UTF-8, whatever is in it."""
    try:
        return orjson.dumps(body)
    except TypeError:
        pass  # integers beyond 64 bits, lone surrogates, nesting over 254
    try:
        return json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
    except RecursionError:
        error = show(LimitExceeded("The result is nested too deeply to be written."))
    except Exception as cause:  # noqa: BLE001 - a resolver gave what is not JSON
        error = mask(cause)
    return orjson.dumps({"errors": [error], "data": None})


async def _send(send: Send, response: _Response, *, head: bool) -> None:
    headers: Headers = [*response.headers, *COMMON_HEADERS]
    if response.media_type:
        headers.append((b"content-type", f"{response.media_type}; charset=utf-8".encode()))
        headers.append((b"content-length", b"%d" % len(response.body)))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else response.body})
