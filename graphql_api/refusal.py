"""Refusals as whole responses, for what never reaches the endpoint of GraphQL; to handshakes of WebSockets, too."""

from starlette.responses import Response

from graphql_api.json_body import encode
from graphql_api.media import JSON
from graphql_api.outcome import refuse, refused
from schema.errors import Refusal, mask


def response(status: int, refusal: Refusal, headers: dict[str, str] | None = None) -> Response:
    """Say what was wrong, as JSON with a code."""
    return Response(encode(refuse(refusal).body), status, headers, JSON)


def failure(error: Exception) -> Response:
    """Say that something failed that nobody foresaw; only the log says what."""
    return Response(encode(refused([mask(error)]).body), 500, media_type=JSON)
