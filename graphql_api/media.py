"""Media types: which one an answer has, and whether a body is of one that is read.

Most clients send the same few headers over and over, so what was found for a header is kept for a while.
"""

import re
from functools import lru_cache

from graphql_api.http_error import HttpError
from schema.errors import BadUserInput

JSON = "application/json"
GRAPHQL = "application/graphql-response+json"
HTML = "text/html"
EVENT_STREAM = "text/event-stream"
# Without this parameter multipart means something else.
MULTIPART = "multipart/mixed;subscriptionSpec=1.0"
STREAMS = {EVENT_STREAM: EVENT_STREAM, MULTIPART.lower(): MULTIPART}

# A longer Accept header is read up to here.
ACCEPT_CHARACTERS_MAX = 4_096

# What stands between commas or semicolons; those inside quotes are not meant, also where a quote never ends.
_QUOTED = r'"(?:[^"\\]++|\\.?)*+"?'
_ELEMENTS = re.compile(rf'(?:[^,"]++|{_QUOTED})++', re.DOTALL)
_PARTS = re.compile(rf'(?:[^;"]++|{_QUOTED})++', re.DOTALL)
# White space as HTTP has it. A browser takes other characters for a part of the type, and what is meant is not clear.
_SPACE = " \t"


@lru_cache(maxsize=256)
def negotiate(accept: str, offers: tuple[str, ...]) -> str | None:
    """Choose the media type that an Accept header likes best, or None when it takes none of the offers.

    A more specific range overrides a wildcard; the higher weight wins, then a type named outright, then the one named
    first, then the offer named first. What cannot be read is passed over. Source: RFC 9110, section 12.5.1.
    """
    ranges = _media_ranges(accept)
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


@lru_cache(maxsize=256)
def stream_type(accept: str) -> str | None:
    """Choose the kind of stream that an Accept header likes best, None when it names none.

    A wildcard is not enough: whoever takes anything expects an answer with an end.
    """
    named = [
        (weight, -place, STREAMS[name])
        for place, (name, weight) in enumerate(_media_ranges(accept))
        if name in STREAMS and weight > 0
    ]
    return max(named)[2] if named else None


def _media_ranges(accept: str) -> list[tuple[str, float]]:
    elements = _ELEMENTS.findall(accept[:ACCEPT_CHARACTERS_MAX])
    return [found for element in elements if (found := _media_range(element))]


def _parts(text: str) -> list[str]:
    """Give a media type and its parameters, in lower case."""
    return [part.strip(_SPACE).lower() for part in _PARTS.findall(text)] or [""]


def _media_range(text: str) -> tuple[str, float] | None:
    name, *parameters = _parts(text)
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
        elif key == "subscriptionspec":
            name += f";{key}=" + value.strip('"')
    return name, weight


def _is_utf8(charset: str) -> bool:
    return charset.strip('"') in {"utf-8", "utf8"}


def media_type(accept: str, offers: tuple[str, ...] = (JSON, GRAPHQL)) -> str:
    """As `negotiate`; a kind of stream when nothing else is accepted.

    Raises: HttpError when nothing is accepted.
    """
    chosen = negotiate(accept, offers) or stream_type(accept)
    if chosen is None:
        offered = ", ".join([*offers, *STREAMS.values()])
        raise HttpError(406, BadUserInput(f"None of the accepted media types is offered: {offered}."))
    return chosen


def stream_media_type(accept: str) -> str:
    """As `stream_type`.

    Raises: HttpError when none is accepted.
    """
    chosen = stream_type(accept)
    if chosen is None:
        message = (
            f"A subscription is answered by a stream: accept {' or '.join(STREAMS.values())}, "
            "or open a WebSocket with the subprotocol graphql-transport-ws."
        )
        raise HttpError(406, BadUserInput(message))
    return chosen


@lru_cache(maxsize=256)
def is_json(content_type: str) -> bool:
    """Tell whether a Content-Type is plain JSON in UTF-8."""
    name, *parameters = _parts(content_type)
    charsets = [value for key, _, value in (part.partition("=") for part in parameters) if key == "charset"]
    return name == JSON and all(map(_is_utf8, charsets))


def check_content(content_type: str, content_encoding: str) -> None:
    """Refuse what is not plain JSON; a browser asks before it sends JSON across origins, so none is forged.

    Raises: HttpError.
    """
    if not is_json(content_type):
        raise HttpError(415, BadUserInput("The body must be JSON in UTF-8: send Content-Type: application/json."))
    if content_encoding.strip().lower() not in {"", "identity"}:
        raise HttpError(415, BadUserInput("Compressed bodies are not supported: leave Content-Encoding out."))
