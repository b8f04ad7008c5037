"""What is wrong below GraphQL: sizes, lengths, encodings, heads, and clients that take their time."""

import gzip
import json
import zlib

import pytest

from schema.errors import Code
from tests.attacks.victim import SECONDS_MAX, Raw, Victim

pytestmark = pytest.mark.usefixtures("nothing_written")

MIB = 1024 * 1024
READ = b'{"query": "{ __typename }"}'
WRITE = json.dumps({"query": "mutation { createContext(input: {}) { context { id } } }"}).encode()


def head(*lines: str, method: str = "POST", target: str = "/graphql") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", *lines, "", ""]).encode("latin-1")


def credentials(victim: Victim) -> list[str]:
    return [f"{name}: {value}" for name, value in victim.headers.items()]


JSON = "Content-Type: application/json"
CLOSE = "Connection: close"


def test_a_body_that_says_it_is_too_large_is_refused_unread(victim: Victim) -> None:
    for length in (50 * MIB + 1, 2**63, 10**30):
        with victim.raw() as raw:
            raw.send(head(JSON, *credentials(victim), f"Content-Length: {length}"))
            received = raw.answer() if length < 2**63 else None
            assert received is None or (received.status, received.code) == (413, Code.LIMIT_EXCEEDED)


def refused(received: bytes, status: int) -> bool:
    """Tell whether a request was refused; who goes on sending may be reset before the answer is read."""
    return received == b"" or received.startswith(b"HTTP/1.1 %d " % status)


def test_a_body_that_turns_out_too_large_is_refused(victim: Victim) -> None:
    piece = b"%x\r\n" % MIB + b" " * MIB + b"\r\n"
    with victim.raw() as raw:
        raw.send(head(JSON, *credentials(victim), "Transfer-Encoding: chunked"), *[piece] * 60)
        raw.end()
        assert refused(raw.everything(), 413)


def test_a_body_of_one_byte_chunks_takes_linear_work(victim: Victim) -> None:
    body = READ + b" " * 200_000
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    with victim.working(), victim.raw() as raw:
        raw.send(head(JSON, *credentials(victim), "Transfer-Encoding: chunked"), chunks)
        assert raw.answer().data == {"__typename": "Query"}


def test_extensions_of_chunks_are_passed_over(victim: Victim) -> None:
    with victim.working(), victim.raw() as raw:
        raw.send(head(JSON, *credentials(victim), "Transfer-Encoding: chunked"), b"1b;" + b"x" * 10_000 + b"\r\n")
        raw.send(READ, b"\r\n0\r\n\r\n")
        assert raw.answer().data == {"__typename": "Query"}


@pytest.mark.parametrize(
    "coding", ["gzip", "deflate", "br", "zstd", "x-gzip", "compress", "gzip, gzip", "GZIP", "nothing"]
)
def test_compressed_bodies_are_refused_unread(victim: Victim, coding: str) -> None:
    zeros = b" " * (100 * MIB)
    match coding.lower():
        case "gzip":
            bomb = gzip.compress(zeros, 1)
        case "deflate":
            bomb = zlib.compress(zeros, 1)
        case _:
            bomb = READ
    answer = victim.send(bomb, content_encoding=coding)
    assert (answer.status, answer.code) == (415, Code.BAD_USER_INPUT)


def test_a_compressed_transfer_is_refused(victim: Victim) -> None:
    bomb = gzip.compress(b" " * MIB)
    with victim.raw() as raw:
        raw.send(head(JSON, *credentials(victim), CLOSE, "Transfer-Encoding: gzip, chunked"))
        raw.send(b"%x\r\n" % len(bomb), bomb, b"\r\n0\r\n\r\n")
        assert raw.answer().code == Code.BAD_USER_INPUT


def test_a_compressed_body_that_says_it_is_json_is_refused(victim: Victim) -> None:
    answer = victim.send(gzip.compress(READ))
    assert (answer.status, answer.code) == (400, Code.BAD_USER_INPUT)


def test_a_body_that_never_comes_leaves_others_alone(victim: Victim) -> None:
    with victim.raw() as raw:
        raw.send(head(JSON, *credentials(victim), f"Content-Length: {len(WRITE)}"), WRITE[:-1])
        assert victim.send(READ).data == {"__typename": "Query"}
        raw.end()
        assert b" 200 " not in raw.everything()


def test_a_body_that_is_cut_off_is_not_executed(victim: Victim) -> None:
    for _ in range(50):
        with victim.raw() as raw:
            raw.send(head(JSON, *credentials(victim), f"Content-Length: {len(WRITE) + 1}"), WRITE)
        with victim.raw() as raw:
            raw.send(head(JSON, *credentials(victim), "Transfer-Encoding: chunked"), b"%x\r\n" % len(WRITE), WRITE)


def test_what_is_not_sent_in_time_is_given_up(slow_clients: list[Raw]) -> None:
    # They began with the first attack of all: by now most of the time is over that they have.
    for raw in slow_clients:
        received = raw.everything()
        assert received == b"" or received.startswith(b"HTTP/1.1 408 ")


def test_several_hundred_slow_clients_leave_others_alone(victim: Victim) -> None:
    beginnings = [
        b"",
        b"POST /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\nX-",
        head(JSON, *credentials(victim), "Content-Length: 1000") + b"{",
        head(JSON, *credentials(victim), "Transfer-Encoding: chunked") + b"5\r\n{",
    ]
    waiting = [victim.raw() for _ in range(400)]
    try:
        for number, raw in enumerate(waiting):
            raw.send(beginnings[number % len(beginnings)])
        for _ in range(20):
            assert victim.send(READ).data == {"__typename": "Query"}
            for raw in waiting[::7]:
                raw.send(b"x")
    finally:
        for raw in waiting:
            raw.socket.close()


@pytest.mark.parametrize("length", ["-1", "+27", "0x1b", "27abc", "2 7", "", "27, 27", "1e2", "\xb2", "9" * 400])
def test_a_length_that_is_no_number_is_refused(victim: Victim, length: str) -> None:
    with victim.raw() as raw:
        raw.send(head(JSON, *credentials(victim), CLOSE, f"Content-Length: {length}"), WRITE)
        received = raw.everything()
    assert received.split(b" ")[1:2] in ([b"400"], [b"413"], [b"411"]), received


def test_a_body_without_any_length_is_empty(victim: Victim) -> None:
    with victim.raw() as raw:
        raw.send(head(JSON, *credentials(victim), CLOSE), WRITE)
        assert raw.answer().code == Code.BAD_USER_INPUT


@pytest.mark.parametrize(
    "headers",
    [
        ["Content-Length: 5", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 5"],
        ["Content-Length: 5", "Content-Length: 6"],
        ["Content-Length: 5", "Content-Length: 5"],
        ["Transfer-Encoding: chunked, identity"],
        ["Transfer-Encoding: xchunked", "Content-Length: 5"],
        ["Transfer-Encoding : chunked", "Content-Length: 5"],
        ["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
        ["Content-Length : 5"],
        ["Content-Length:\n 5"],
        ["X-A: b\r\n Content-Length: 5"],
        ["X-A: b\r\n\tTransfer-Encoding: chunked", "Content-Length: 5"],
        ["X-A: b\rTransfer-Encoding: chunked", "Content-Length: 5"],
        ["X-A: b\nTransfer-Encoding: chunked", "Content-Length: 5"],
        ["X-A: b\0Transfer-Encoding: chunked", "Content-Length: 5"],
    ],
    ids=repr,
)
def test_no_request_is_smuggled_inside_another(victim: Victim, headers: list[str]) -> None:
    smuggled = head(JSON, *credentials(victim), CLOSE, f"Content-Length: {len(WRITE)}") + WRITE
    with victim.raw() as raw:
        raw.send(head(JSON, *credentials(victim), *headers), b"0\r\n\r\n", smuggled)
        raw.end()
        received = raw.everything()
    assert b"createContext" not in received.replace(b"Cannot", b"")
    assert b'"data"' not in received


@pytest.mark.parametrize(
    "chunks",
    [
        b"1b\n" + READ + b"\n0\n\n",
        b"+1b\r\n" + READ + b"\r\n0\r\n\r\n",
        b"0x1b\r\n" + READ + b"\r\n0\r\n\r\n",
        b"-1\r\n" + READ + b"\r\n0\r\n\r\n",
        b"ffffffffffffffff1b\r\n" + READ + b"\r\n0\r\n\r\n",
        b"1a\r\n" + READ + b"\r\n0\r\n\r\n",
        b"1c\r\n" + READ + b"\r\n0\r\n\r\n",
        b"\r\n1b\r\n" + READ + b"\r\n0\r\n\r\n",
    ],
)
def test_chunks_of_wrong_lengths_are_refused(victim: Victim, chunks: bytes) -> None:
    with victim.raw() as raw:
        raw.send(head(JSON, *credentials(victim), "Transfer-Encoding: chunked"), chunks)
        raw.end()
        received = raw.everything()
    assert b'"data"' not in received


@pytest.mark.parametrize(
    "request_",
    [
        b"\0" * 100,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 500,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /graphql\r\n\r\n",
        b"GET /graphql HTTP/9.9\r\n\r\n",
        b"BREW /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /graphql HTTP/1.1\r\n: x\r\n\r\n",
        b"GET /graphql HTTP/1.1\r\nHo st: x\r\n\r\n",
        b"GET /graphql HTTP/1.1\r\nHost: \0\r\n\r\n",
        b"*1\r\n$4\r\nPING\r\n" * 20,
        b"\r\n" * 10_000 + b"x\r\n\r\n",
        b"x" * MIB,
    ],
    ids=lambda sent: repr(sent[:30]),
)
def test_what_is_no_http_is_refused(victim: Victim, request_: bytes) -> None:
    with victim.raw() as raw:
        raw.send(request_)
        raw.end()
        received = raw.everything()
    assert received == b"" or received.split(b" ")[1][:1] == b"4", received[:500]


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "SEARCH"])
def test_other_methods_are_refused_and_echo_nothing(victim: Victim, method: str) -> None:
    answer = victim.send(WRITE, method, x_secret="nothing to echo")
    assert (answer.status, answer.code) == (405, Code.BAD_USER_INPUT)
    assert b"nothing to echo" not in answer.body


def test_paths_lead_to_no_files(victim: Victim) -> None:
    for path in (
        "/../../etc/passwd",
        "/graphiql/../../../etc/passwd",
        "/graphiql/%2e%2e/%2e%2e/pyproject.toml",
        "/.env",
        "/graphql/..%2f..%2fetc/passwd",
        "/%00",
        "/graphiql/%00",
        "//etc/passwd",
        "/metrics",
        "/docs",
        "/openapi.json",
    ):
        with victim.raw() as raw:
            raw.send(head(CLOSE, method="GET", target=path))
            received = raw.everything()
        assert received.split(b" ")[1] in {b"404", b"400", b"401", b"307", b"405"}, received
        assert b"root:" not in received


def test_headers_by_the_thousand_cost_linear_work(victim: Victim) -> None:
    lines = [f"X-{number}: {number}" for number in range(2_000)]
    with victim.working(), victim.raw() as raw:
        raw.send(head(JSON, *credentials(victim), CLOSE, f"Content-Length: {len(READ)}", *lines), READ)
        assert raw.everything().split(b" ")[1] in {b"200", b"431"}


def test_a_head_without_end_is_refused(victim: Victim) -> None:
    for line in (b"X-A: b\r\n", b"X-A: " + b"b" * 8_000 + b"\r\n", b"Accept: application/json\r\n"):
        with victim.raw() as raw:
            raw.send(b"GET /graphql HTTP/1.1\r\nHost: 127.0.0.1\r\n", *[line * (65_536 // len(line))] * 6)
            assert refused(raw.everything(), 431)


@pytest.mark.parametrize(
    "beginning",
    [
        b"GET /graphql HTTP/1.1\r\nX-A: ",
        b"GET /graphql?",
        b"GET /graphql HTTP/1.1\r\nX-",
        "1\r\n{\r\n0\r\nX-A: ",
        "1\r\n{\r\n0\r\nX-",
        "1;x=",
    ],
)
def test_what_never_ends_of_a_request_is_given_up(victim: Victim, beginning: bytes | str) -> None:
    if isinstance(beginning, str):  # of a body
        beginning = head(JSON, *credentials(victim), "Transfer-Encoding: chunked") + beginning.encode()
    before = victim.memory()
    with victim.raw() as raw:
        raw.send(beginning, *[b"x" * 65_536] * 1_000)
        assert b" 200 " not in raw.everything()
        assert victim.memory() - before < 16 * MIB


def test_a_query_string_over_the_largest_is_refused(victim: Victim) -> None:
    with victim.raw() as raw:
        raw.send(head(*credentials(victim), CLOSE, method="GET", target="/graphql?query=" + "x" * MIB))
        assert refused(raw.everything(), 431)


def test_query_strings_of_many_parts_take_linear_work(victim: Victim) -> None:
    for part in ("&", "a=1&", "%00&", "query=%7B__typename%7D&", ";", "%"):
        target = f"/graphql?{part * (65_000 // len(part))}"
        with victim.working(), victim.raw() as raw:
            raw.send(head(*credentials(victim), CLOSE, method="GET", target=target))
            assert raw.answer().status in {200, 400}


def test_odd_media_types_take_linear_work(victim: Victim) -> None:
    for value in (
        "," * 50_000,
        "a/b;" * 10_000,
        "*/*;q=0." + "0" * 50_000,
        "application/json" + ";" * 50_000,
        '"' * 50_000,
    ):
        assert victim.send(READ, accept=value).status in {200, 406, 400, 431}
        assert victim.send(READ, content_type=value).status in {200, 415, 400, 431}


def test_an_id_of_a_request_that_is_none_of_ours_is_not_repeated(victim: Victim) -> None:
    for value in ("a" * 129, "<script>", "a b", "x;y", "'\"", "é".encode().decode("latin-1")):
        with victim.raw() as raw:
            raw.send(
                head(JSON, *credentials(victim), CLOSE, f"X-Request-ID: {value}", f"Content-Length: {len(READ)}"), READ
            )
            received = raw.everything()
        assert received.split(b" ")[1] == b"200"
        assert value.encode("latin-1") not in received


def test_pipelined_requests_are_answered_in_their_order(victim: Victim) -> None:
    count = 200
    requests = []
    for number in range(count):
        body = json.dumps({"query": f"{{ a{number}: __typename }}"}).encode()
        closing = [CLOSE] if number == count - 1 else []
        requests.append(head(JSON, *credentials(victim), *closing, f"Content-Length: {len(body)}") + body)
    with victim.working(), victim.raw() as raw:
        raw.send(b"".join(requests))
        received = raw.everything()
    assert [int(part[: part.index(b'"')]) for part in received.split(b'{"data":{"a')[1:]] == list(range(count))


def test_a_pipeline_whose_answers_nobody_reads_is_held_up(victim: Victim) -> None:
    body = READ
    request = head(JSON, *credentials(victim), f"Content-Length: {len(body)}") + body
    with victim.raw() as raw:
        raw.socket.settimeout(SECONDS_MAX)
        raw.socket.setblocking(False)
        sent = 0
        try:
            while sent < 64 * MIB:
                sent += raw.socket.send(request * 1_000)
        except BlockingIOError:
            pass
        assert victim.send(READ).data == {"__typename": "Query"}
