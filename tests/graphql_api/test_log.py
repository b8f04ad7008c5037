import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import Message, Receive, Scope, Send
from structlog.testing import capture_logs

from graphql_api.log import RequestLog, configure
from graphql_api.settings import Settings

FULL = Path("/dev/full")


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def set_up(**settings: Any) -> io.StringIO:
    stream = io.StringIO()
    configure(Settings(_env_file=None, **settings), stream)
    return stream


def test_both_worlds_are_logged_once_and_alike() -> None:
    stream = set_up()
    logging.getLogger("uvicorn").addHandler(logging.StreamHandler(stream))
    configure(Settings(_env_file=None), stream)
    with structlog.contextvars.bound_contextvars(request_id="r1"):
        structlog.get_logger("ours").info("one", number=2**70, text="\ud800", name="é")
        logging.getLogger("uvicorn.error").warning("two %s", "words", extra={"color_message": "x"})
        logging.getLogger("psycopg.pool").error("three")
        logging.getLogger("uvicorn.access").info("never")
    found = lines(stream)
    assert [line["event"] for line in found] == ["one", "two words", "three"]
    assert [line["request_id"] for line in found] == ["r1"] * 3
    assert [line.get("logger") for line in found] == [None, "uvicorn.error", "psycopg.pool"]
    assert found[1] | {"timestamp": ""} == {
        "event": "two words",
        "level": "warning",
        "logger": "uvicorn.error",
        "request_id": "r1",
        "timestamp": "",
    }


@pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("state", ["full", "closed"])
def test_a_log_that_cannot_be_written_fails_nobody(monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    """A line of the fast lane that broke used to tell nobody then, and all that waited for it waited for ever."""
    monkeypatch.setattr(logging, "raiseExceptions", False)
    with FULL.open("wb", buffering=0) as full, io.TextIOWrapper(full, write_through=True) as stream:
        configure(Settings(_env_file=None), stream)
        if state == "closed":
            stream.close()
        structlog.get_logger("ours").error("one")
        logging.getLogger("theirs").error("two")


def test_the_level_holds_for_both_worlds() -> None:
    stream = set_up(log_level="warning")
    structlog.get_logger("ours").info("no")
    logging.getLogger("theirs").info("no")
    structlog.get_logger("ours").warning("yes")
    logging.getLogger("theirs").warning("yes")
    assert [line["event"] for line in lines(stream)] == ["yes", "yes"]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_shows_no_local_variables(log_format: str) -> None:
    stream = set_up(log_format=log_format)

    def fail(content: str) -> None:
        raise ValueError("broken" + content[:0])

    try:
        fail("what a message says".title())
    except ValueError as error:
        structlog.get_logger("ours").error("one", exc_info=error)
        logging.getLogger("theirs").exception("two")
    text = stream.getvalue()
    assert text.count("ValueError: broken") == 2
    assert "What A Message Says" not in text


def test_a_logger_made_before_follows_a_later_configuration() -> None:
    log = structlog.get_logger("ours")
    set_up()
    log.info("first")
    stream = set_up()
    log.info("second")
    assert [line["event"] for line in lines(stream)] == ["second"]


def scope(path: str = "/graphql", headers: list[tuple[bytes, bytes]] | None = None, **more: Any) -> Scope:
    values = {"type": "http", "method": "GET", "path": path, "raw_path": path.encode(), "headers": headers or []}
    return {**values, "query_string": b"query=secret", **more}


async def ask(request: Scope, *, status: int | None = 200, error: Exception | None = None) -> list[Message]:
    """Send a request through the middleware to an application that answers as told."""
    sent: list[Message] = []

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        structlog.get_logger("app").info("inside")
        if status:
            await send({"type": "http.response.start", "status": status, "headers": [(b"a", b"b")]})
            await send({"type": "http.response.body", "body": b""})
        if error:
            raise error

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    await RequestLog(app)(request, receive, send)
    return sent


async def test_one_line_per_request_with_its_id() -> None:
    stream = set_up()
    sent = await ask(scope(headers=[(b"x-request-id", b"abc-1._Z")]), status=404)
    inside, line = lines(stream)
    assert inside["request_id"] == "abc-1._Z"
    assert line.pop("duration_ms") >= 0
    assert line.pop("timestamp")
    assert line == {
        "event": "request",
        "level": "info",
        "method": "GET",
        "path": "/graphql",
        "status": 404,
        "request_id": "abc-1._Z",
    }
    assert sent[0]["headers"] == [(b"a", b"b"), (b"x-request-id", b"abc-1._Z")]


@pytest.mark.parametrize("given", [b"", b"a b", b"a\r\nb", b"x" * 129, "é".encode(), b"a\n", b"a;b"])
async def test_an_id_that_could_forge_something_is_replaced(given: bytes) -> None:
    with capture_logs():
        sent = await ask(scope(headers=[(b"x-request-id", given)]))
    ((_, (name, value)),) = [message["headers"] for message in sent if "headers" in message]
    assert (name, len(value), value.isalnum()) == (b"x-request-id", 32, True)


async def test_a_client_that_left_has_no_status() -> None:
    with capture_logs() as captured:
        await ask(scope(), status=None)
    assert captured[-1]["status"] is None


async def test_a_failing_application_is_logged_and_fails_on() -> None:
    with capture_logs() as captured, pytest.raises(ValueError, match="broken"):
        await ask(scope(), status=None, error=ValueError("broken"))
    assert captured[-1]["status"] == 500


async def test_what_is_not_http_passes_untouched() -> None:
    with capture_logs() as captured:
        await ask({"type": "lifespan"}, status=None)
    assert [line["event"] for line in captured] == ["inside"]


@given(st.binary(), st.text())
async def test_no_path_can_forge_a_line(raw: bytes, text: str) -> None:
    for request in (scope(raw_path=raw), scope(raw_path=None, path=text)):
        with capture_logs() as captured:
            await ask(request)
        path = captured[-1]["path"]
        assert len(path) <= 2_000
        assert path.isprintable()
        assert path.isascii()
