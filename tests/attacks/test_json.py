"""JSON that is large, deep, twisted or no JSON at all: read in linear work, or refused."""

import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from schema.errors import Code
from tests.attacks.victim import WORK_SECONDS_MAX, Victim

pytestmark = pytest.mark.usefixtures("nothing_written")

# To be read in full, and then to be of no use.
READ = b'{"query": "{ __typename }", "variables": {"unused": %s}}'
MIB = 1024 * 1024


def work(victim: Victim, value: bytes) -> float:
    """Send a value that is read and then not used; gives the work that it was."""
    before = victim.work_seconds()
    assert victim.send(READ % value).data == {"__typename": "Query"}
    return victim.work_seconds() - before


def keys_of_one_hash(count: int) -> list[str]:
    """Give keys that collide in the hash by 31 that Java and many others have for strings."""
    found = [""]
    while len(found) < count:
        found = [key + part for key in found for part in ("Aa", "BB")]
    return found[:count]


COLLISIONS: dict[str, Callable[[int], list[str]]] = {
    "by 31": keys_of_one_hash,
    "numbers that wrap": lambda count: [str(number * (2**61 - 1)) for number in range(count)],
    "of equal beginnings": lambda count: [f"{'x' * 64}{number}" for number in range(count)],
}


@pytest.mark.parametrize("name", COLLISIONS)
def test_keys_that_collide_cost_no_more_than_others(victim: Victim, name: str) -> None:
    count = 100_000
    crafted = COLLISIONS[name](count)
    source = random.Random(7)
    plain = [f"{source.getrandbits(128):032x}" for _ in crafted]
    usual = work(victim, json.dumps(dict.fromkeys(plain, 1)).encode())
    hostile = work(victim, json.dumps(dict.fromkeys(crafted, 1)).encode())
    # What is quadratic takes a thousand times as long.
    assert hostile < 10 * usual + 0.5


def test_of_a_key_that_is_given_twice_the_last_counts(victim: Victim) -> None:
    body = (
        b'{"query": "mutation { deleteContext(input: {contextId: 1}) { context { id } } }", "query": "{ __typename }"}'
    )
    assert victim.send(body).data == {"__typename": "Query"}


def test_one_key_a_hundred_thousand_times_is_read(victim: Victim) -> None:
    assert work(victim, b"{" + b",".join([b'"a":1'] * 100_000) + b"}") < WORK_SECONDS_MAX


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'[{"a":['])
def test_deep_nesting_is_refused(victim: Victim, opening: bytes) -> None:
    for depth in (2_000, 300_000):
        assert victim.refuse(READ % (opening * depth)) in {Code.LIMIT_EXCEEDED, Code.BAD_USER_INPUT}
    closing = bytes(reversed(opening.translate(bytes.maketrans(b"[{", b"]}"), b'"a:')))
    assert victim.refuse(READ % (opening * 100_000 + b"1" + closing * 100_000)) == Code.LIMIT_EXCEEDED


def test_arrays_of_millions_are_refused_before_they_are_read(victim: Victim) -> None:
    for value in (b"[" + b"1," * 20_000_000 + b"1]", b"[" + b"[]," * 10_000_000 + b"1]", b'["",' * 1_000_000):
        answer = victim.send(READ % value)
        assert (answer.status, answer.code) == (413, Code.LIMIT_EXCEEDED)


def test_strings_that_never_end_take_linear_work(victim: Victim) -> None:
    for value in (b'"' * (2 * MIB), b'"' + b"\\" * (2 * MIB), b'"\\' * MIB, b'"' + b"\\u" * MIB):
        assert victim.refuse(READ % value) in {Code.BAD_USER_INPUT, Code.LIMIT_EXCEEDED}


def test_numbers_of_a_million_digits_are_refused(victim: Victim) -> None:
    for digits in (5_000, 1_000_000, 20_000_000):
        assert victim.refuse(READ % (b"9" * digits)) == Code.LIMIT_EXCEEDED
        assert victim.refuse(READ % (b"-" + b"9" * digits)) == Code.LIMIT_EXCEEDED


def test_fractions_of_a_million_digits_are_read_or_refused(victim: Victim) -> None:
    for number in (
        b"0." + b"3" * MIB,
        b"1" * 4_000 + b".5e-" + b"0" * 1_000 + b"1",
        b"1e-999999999",
        b"0e" + b"9" * MIB,
    ):
        assert victim.send(READ % number).data == {"__typename": "Query"}


def test_what_is_no_json_number_is_refused(victim: Victim) -> None:
    for number in (b"NaN", b"Infinity", b"-Infinity", b"nan", b"0x10", b"01", b"+1", b"1.", b".5", b"1_000", b"1e"):
        assert victim.refuse(READ % number) == Code.BAD_USER_INPUT


@pytest.mark.parametrize("text", [b"1e999", b"-1e999", b"1e308000000", b"223456789e300"])
def test_numbers_beyond_every_float_are_refused_where_they_are_used(victim: Victim, text: bytes) -> None:
    query = b"mutation ($m: JSON) { createContext(input: {metadata: $m}) { context { id } } }"
    body = b'{"query": "%s", "variables": {"m": {"a": %s}}}' % (query, text)
    assert victim.refuse(body) in {Code.BAD_USER_INPUT, Code.LIMIT_EXCEEDED}
    page = b'{"query": "query ($n: Int) { contexts(first: $n) { totalCount } }", "variables": {"n": %s}}' % text
    assert victim.refuse(page) in {Code.BAD_USER_INPUT, Code.LIMIT_EXCEEDED}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b" ",
        b"null",
        b"1",
        b'"{ __typename }"',
        b"[]",
        b"{}",
        b"{",
        b'{"query": "{ __typename }"} trailing',
        b'{"query": "{ __typename }"}{"query": "{ __typename }"}',
        b'{"query": "{ __typename }"}\0',
        b"{'query': '{ __typename }'}",
        b'{"query": "{ __typename }",}',
        b'{query: "{ __typename }"}',
        b'{"query": "{ __typename }" /* more */}',
        b'\x00{"query": "{ __typename }"}',
        b'{"query": "a\x00b"}',
        b'{"query": "\n"}',
        '{"query": "{ __typename }"}'.encode("utf-16"),
        '{"query": "{ __typename }"}'.encode("utf-32"),
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00",
        b"\x80\x04\x95\x1a",
        b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>',
        b"query: '{ __typename }'",
    ],
)
def test_what_is_no_request_is_refused(victim: Victim, body: bytes) -> None:
    answer = victim.send(body)
    assert (answer.status, answer.code) == (400, Code.BAD_USER_INPUT)


def test_a_byte_order_mark_is_no_trouble(victim: Victim) -> None:
    assert victim.send(b"\xef\xbb\xbf" + READ % b"1").data == {"__typename": "Query"}


def test_parameters_of_other_types_are_refused(victim: Victim) -> None:
    for name in ("query", "variables", "operationName", "extensions", "documentId"):
        values: list[Any] = [1, True, [], [{}], {"a": 1}, 1.5, "x"]
        for value in values:
            content = {"query": "{ __typename }", name: value}
            answer = victim.send(content)
            assert answer.status < 500
            assert "data" in answer.json or answer.code


def test_names_of_python_objects_are_only_names(victim: Victim) -> None:
    for name in ("__class__", "__init__", "__proto__", "constructor", "__reduce__", "self"):
        content = {"query": "{ __typename }", name: {"x": 1}, "variables": {name: {name: 1}}, "extensions": {name: 1}}
        assert victim.send(content).data == {"__typename": "Query"}
        assert victim.refuse(f"{{ {name} }}") == Code.GRAPHQL_VALIDATION_FAILED
