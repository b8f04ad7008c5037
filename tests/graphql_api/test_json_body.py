"""JSON is read fast where that changes nothing, and exactly where it would."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphql_api import json_body
from graphql_api.http_error import HttpError
from graphql_api.json_body import decode, encode
from schema.errors import Code

Read = tuple[str, str]


def outcome(text: bytes | str) -> Read:
    """Give what is read, types and all, or the refusal."""
    try:
        return "read", repr(decode(text))
    except HttpError as error:
        return f"{error.status} {error.refusal.code}", str(error)


def exactly(text: bytes | str) -> Read:
    """Read without the fast way."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(json_body, "_is_exact", lambda _value: False)
        return outcome(text)


DIGITS = st.integers(-(10**40), 10**40).map(str)
NUMBERS = (
    st.floats(allow_nan=True).map(repr)
    | DIGITS
    | st.builds("{}.{}e{}".format, DIGITS, st.integers(0, 10**20), st.integers(-400, 400))
    | st.sampled_from(["-0", "-0.0", "0e0", "1E5", "1e400", "-1e400", "1e-400", "01", "1.", ".5", "+1", "0x1", "NaN",
                       "Infinity", "-Infinity", "123456789012345678", "9007199254740993", "18446744073709551616"])
)  # fmt: skip
ESCAPES = st.sampled_from(["\\ud800", "\\udc00", "\\ud83d\\ude00", "\\u0000", "\\n", "\\/", "\\x", "\\u12", '"',
                           "\u2028", "\x00", "\x1f", "é"])  # fmt: skip
STRINGS = st.lists(ESCAPES | st.text(max_size=3)).map(lambda parts: f'"{"".join(parts)}"')
SPACE = st.sampled_from(["", " ", "\n", "\t\r", "\x0b", "\xa0", "\ufeff", "//x"])


def lists(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pairs = st.builds("{}:{}{}".format, st.sampled_from(['"a"', '"b"', "a", '"\\u0061"']), SPACE, inner)
    return st.lists(inner, max_size=3).map(lambda parts: f"[{','.join(parts)}]") | st.lists(pairs, max_size=4).map(
        lambda parts: f"{{{','.join(parts)}}}"
    )


TEXTS = st.recursive(
    NUMBERS | STRINGS | st.sampled_from(["true", "false", "null", "True", ""]), lists, max_leaves=6
).flatmap(lambda text: st.builds("{}{}{}".format, SPACE, st.just(text), SPACE))


@given(TEXTS)
def test_both_ways_of_reading_agree_on_texts_like_json(text: str) -> None:
    assert outcome(text) == exactly(text)
    body = text.encode("utf-8", "surrogatepass")
    assert outcome(body) == exactly(body) == outcome(bytearray(body))  # type: ignore[arg-type] # as `decode` takes it


@given(
    st.binary(max_size=20)
    | st.binary(max_size=4).map(lambda part: b'{"a": "' + part + b'"}')
    | st.text().map(str.encode)
)
def test_both_ways_of_reading_agree_on_any_bytes(body: bytes) -> None:
    assert outcome(body) == exactly(body)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(VALUES)
def test_what_is_written_is_read_again(value: Any) -> None:
    assert repr(decode(json.dumps(value).encode())) == repr(value)
    assert repr(decode(encode({"data": value}))) == repr({"data": value})


KNOWN = {
    b'{"a": 1, "a": 2}': {"a": 2},
    b"\xef\xbb\xbf[1]": [1],
    b"18446744073709551616": 2**64,
    b"-9223372036854775809": -(2**63) - 1,
    b"[1e2, 1.0, -0]": [100.0, 1.0, 0],
    b'"\\ud800"': "\ud800",
    b'"\\ud83d\\ude00"': "😀",
}


@pytest.mark.parametrize("body", KNOWN, ids=lambda body: ascii(body[:20]))
def test_what_orjson_does_not_read_is_read(body: bytes) -> None:
    found = decode(body)
    assert (found, repr(found)) == (KNOWN[body], repr(KNOWN[body]))
    assert repr(found) == exactly(body)[1]


def test_a_number_too_large_for_a_float_is_infinite_either_way() -> None:
    assert decode(b"[1e400]") == decode(b"[1e400, 123456789012345678]")[:1] == [math.inf]


REFUSED = {
    b"": (400, Code.BAD_USER_INPUT, "The request is not JSON: Expecting value at line 1, column 1."),
    b'{\n "a" 1}': (400, Code.BAD_USER_INPUT, "The request is not JSON: Expecting ':' delimiter at line 2, column 6."),
    b"[NaN]": (400, Code.BAD_USER_INPUT, "The request is not JSON: NaN is not a JSON number."),
    b"[-Infinity, 123456789012345678]": (
        400,
        Code.BAD_USER_INPUT,
        "The request is not JSON: -Infinity is not a JSON number.",
    ),
    b'"\xed\xa0\x80"': (400, Code.BAD_USER_INPUT, "The body is not UTF-8."),
    b"[1]\x00": (400, Code.BAD_USER_INPUT, "The request is not JSON: Extra data at line 1, column 4."),
    b"[" * 100_000: (400, Code.LIMIT_EXCEEDED, "The JSON is nested too deeply: nest it less."),
    b'{"a":' * 100_000: (400, Code.LIMIT_EXCEEDED, "The JSON is nested too deeply: nest it less."),
    b"1" * 4_301: (
        400,
        Code.LIMIT_EXCEEDED,
        "The JSON holds an integer of more than 4,300 digits, the most allowed.",
    ),
}


@pytest.mark.parametrize("body", REFUSED, ids=lambda body: ascii(body[:20]))
def test_what_is_no_json_is_refused_with_its_place(body: bytes) -> None:
    with pytest.raises(HttpError) as refused:
        decode(body)
    assert (refused.value.status, refused.value.refusal.code, str(refused.value)) == REFUSED[body]


def test_json_that_is_deeper_than_orjson_writes_is_written() -> None:
    value: Any = "deep"
    for _ in range(500):
        value = [value]
    assert decode(encode({"data": value})) == {"data": value}
