import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphql_api.http_error import HttpError
from graphql_api.media import (
    EVENT_STREAM,
    GRAPHQL,
    HTML,
    JSON,
    MULTIPART,
    check_content,
    is_json,
    media_type,
    negotiate,
    stream_media_type,
    stream_type,
)
from schema.errors import Code

NEGOTIATIONS = {
    "": JSON,
    "*/*": JSON,
    "application/*": JSON,
    JSON: JSON,
    GRAPHQL: GRAPHQL,
    f"{GRAPHQL}, {JSON}": GRAPHQL,
    f"{JSON}, {GRAPHQL}": JSON,
    f"{GRAPHQL}; charset=utf-8, {JSON}; charset=utf-8": GRAPHQL,
    f"{JSON};q=0.9, {GRAPHQL}": GRAPHQL,
    f"{GRAPHQL};q=0.5, */*;q=0.8": JSON,
    f"{GRAPHQL}, */*": GRAPHQL,
    f"{JSON};q=0, */*": GRAPHQL,
    f"*/*;q=0.1, {GRAPHQL};q=0": JSON,
    "application/*;q=0, */*": None,
    "text/event-stream, application/json": JSON,
    "multipart/mixed;boundary=graphql;subscriptionSpec=1.0,application/graphql-response+json": GRAPHQL,
    "text/html": None,
    "text/html, */*;q=0": None,
    f"{JSON};charset=utf-16": JSON,
    f"{JSON};charset=utf-16, text/html": None,
    "json": JSON,
    ";;;,,,": JSON,
    f"{JSON};q=much": JSON,
    f"{GRAPHQL};q=1.5, {JSON};q=nan": GRAPHQL,
    f"{GRAPHQL.upper()} ; Q=1": GRAPHQL,
    f"{JSON};q=.5,{GRAPHQL};q=0.6": GRAPHQL,
    "*/*;q=0": None,
    f"*/*;q=0.000, {JSON}": JSON,
    f"{JSON};q=0.000": None,
    f'text/html;x="a,{JSON},b", {GRAPHQL}': GRAPHQL,
    f'{JSON};x=";q=0"': JSON,
    f'{JSON};x="\\",{GRAPHQL}",{GRAPHQL};q=0.9': JSON,
    f'{GRAPHQL};x=", {JSON}': GRAPHQL,
    '"': JSON,
    f"\xa0{GRAPHQL}": None,
    f"{JSON};charset=us-ascii, {GRAPHQL}": GRAPHQL,
}


@pytest.mark.parametrize("accept", NEGOTIATIONS)
def test_the_best_of_what_is_accepted_is_chosen(accept: str) -> None:
    expected = NEGOTIATIONS[accept]
    assert negotiate(accept, (JSON, GRAPHQL)) == expected
    if expected is not None:
        assert media_type(accept) == expected


def test_of_equals_the_one_offered_first_is_chosen() -> None:
    for offers in ((JSON, GRAPHQL), (GRAPHQL, JSON), (HTML, JSON)):
        for accept in ("", "*/*", "*/*;q=0.1", "unreadable"):
            assert negotiate(accept, offers) == offers[0]


def test_where_nothing_is_accepted_it_is_said_what_is_offered() -> None:
    with pytest.raises(HttpError) as refused:
        media_type("text/css", (JSON, HTML))
    assert (refused.value.status, refused.value.refusal.code) == (406, Code.BAD_USER_INPUT)
    assert str(refused.value) == (
        "None of the accepted media types is offered: application/json, text/html, text/event-stream, "
        "multipart/mixed;subscriptionSpec=1.0."
    )


URQL = (
    "application/graphql-response+json, application/graphql+json, application/json, text/event-stream, multipart/mixed"
)
STREAM_TYPES = {
    "": None,
    "*/*": None,
    "text/*": None,
    JSON: None,
    "multipart/mixed": None,
    "multipart/mixed;deferSpec=20220824": None,
    "multipart/mixed;subscriptionSpec=2.0": None,
    "text/event-stream;q=0": None,
    "text/event-stream": EVENT_STREAM,
    "TEXT/EVENT-STREAM ; charset=utf-8": EVENT_STREAM,
    "text/event-stream, */*": EVENT_STREAM,
    "application/json, text/event-stream": EVENT_STREAM,
    URQL: EVENT_STREAM,
    "multipart/mixed;boundary=graphql;subscriptionSpec=1.0,application/json": MULTIPART,
    'multipart/mixed; boundary="graphql"; subscriptionSpec="1.0", application/json': MULTIPART,
    "multipart/mixed;subscriptionSpec=1.0, text/event-stream": MULTIPART,
    "text/event-stream, multipart/mixed;subscriptionSpec=1.0": EVENT_STREAM,
    "text/event-stream;q=0.5, multipart/mixed;subscriptionSpec=1.0;q=0.6": MULTIPART,
}


@pytest.mark.parametrize("accept", STREAM_TYPES)
def test_the_best_of_the_streams_that_are_named_is_chosen(accept: str) -> None:
    expected = STREAM_TYPES[accept]
    assert stream_type(accept) == expected
    if expected is None:
        with pytest.raises(HttpError, match="accept text/event-stream or multipart/mixed"):
            stream_media_type(accept)


@given(st.text(st.characters(max_codepoint=255)) | st.text("application/json*+graphql-response;q=0.1, "))
def test_any_accept_header_is_read(accept: str) -> None:
    assert negotiate(accept, (JSON, GRAPHQL, HTML)) in {JSON, GRAPHQL, HTML, None}


def test_a_long_header_is_read_up_to_a_point_and_at_once() -> None:
    start = time.perf_counter()
    assert negotiate("text/css," * 1_000_000 + GRAPHQL, (JSON, GRAPHQL)) is None
    assert negotiate(";" * 1_000_000, (JSON, GRAPHQL)) == JSON
    assert negotiate(f"{GRAPHQL}," + "x" * 1_000_000, (JSON, GRAPHQL)) == GRAPHQL
    assert time.perf_counter() - start < 1


PLAIN = {
    JSON: True,
    "APPLICATION/JSON": True,
    " application/json ;charset=utf-8": True,
    'application/json; charset="UTF-8"; x=y': True,
    "application/json;": True,
    "application/json; charset=utf8": True,
    "application/json; charset=latin-1": False,
    "application/json; charset=utf-8; charset=utf-16": False,
    "application/json; charset": False,
    "application/json, application/json": False,
    "text/plain, application/json": False,
    "text/plain; application/json": False,
    'text/plain; x=", application/json': False,
    'application/json; x="; charset=utf-16"': True,
    'application/json; x="': True,
    '"application/json"': False,
    "\xa0application/json": False,
    "\x0bapplication/json": False,
    "application/json\x85": False,
    "application/x-www-form-urlencoded": False,
    "multipart/form-data; boundary=x": False,
    "application/*": False,
    "*/*": False,
    "application/jsonp": False,
    GRAPHQL: False,
    "text/plain": False,
    "": False,
}


@pytest.mark.parametrize("content_type", PLAIN)
def test_plain_json_is_told_from_what_a_browser_sends_without_asking(content_type: str) -> None:
    assert is_json(content_type) is PLAIN[content_type]
    if PLAIN[content_type]:
        check_content(content_type, "")
        check_content(content_type, " Identity ")
        with pytest.raises(HttpError) as refused:
            check_content(content_type, "gzip")
    else:
        with pytest.raises(HttpError) as refused:
            check_content(content_type, "")
    assert (refused.value.status, refused.value.refusal.code) == (415, Code.BAD_USER_INPUT)


@given(st.text(), st.text())
def test_any_content_type_is_read(content_type: str, content_encoding: str) -> None:
    with suppress(HttpError):
        check_content(content_type, content_encoding)
