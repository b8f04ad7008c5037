"""What PostgreSQL cannot store is refused, with its place."""

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schema.errors import BadUserInput, LimitExceeded, Refusal
from schema.storable import DEPTH_MAX, DIGITS_MAX, check_json, check_object, check_text, json_text, utf8_length

GOOD_TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
BAD_TEXT = st.builds(
    "{}{}{}".format, GOOD_TEXT, st.characters(categories=["Cs"]) | st.just("\x00"), st.text("a\x00\ud800\udfffé")
)
GOOD_NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
ANY_NUMBERS = st.integers() | st.floats() | st.sampled_from([10**DIGITS_MAX, -(10**DIGITS_MAX)])


def values(text: st.SearchStrategy[str], numbers: st.SearchStrategy[float]) -> st.SearchStrategy[Any]:
    leaves = st.one_of(st.none(), st.booleans(), text, numbers)
    return st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=20)


GOOD = values(GOOD_TEXT, GOOD_NUMBERS)
ANY = values(GOOD_TEXT | BAD_TEXT, ANY_NUMBERS)


def nest(depth: int) -> Any:
    value: Any = 0
    for level in range(depth):
        value = [value] if level % 2 else {"a": value}
    return value


def refusal(check: Callable[[Any, str], None], value: Any, place: str = "P") -> Refusal | None:
    try:
        check(value, place)
    except Refusal as refused:
        return refused
    return None


def message(value: Any) -> str:
    refused = refusal(check_json, value)
    assert refused is not None
    refused.message.encode()
    assert refused.message.isprintable()
    return refused.message


@given(text=GOOD_TEXT)
def test_text_that_utf8_and_postgresql_can_hold_passes(text: str) -> None:
    check_text(text, "P")
    assert utf8_length(text) == len(text.encode())


@given(text=BAD_TEXT)
def test_text_that_they_cannot_hold_is_refused_without_repeating_it(text: str) -> None:
    refused = refusal(check_text, text, "input.messages[3].content")
    assert isinstance(refused, BadUserInput)
    assert refused.message.isprintable()
    assert refused.message.startswith("input.messages[3].content holds U+")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\x00", "P holds U+0000 at character 1, which cannot be stored. Remove it."),
        ("Grüße, 世界 \x00\x00", "P holds U+0000 at character 11, which cannot be stored. Remove it."),
        (
            "ab\udc00",
            (
                "P holds U+DC00, half a surrogate pair, at character 3, which cannot be stored. "
                "Send the whole character, or remove it."
            ),
        ),
    ],
)
def test_a_bad_character_is_named_with_its_position(text: str, expected: str) -> None:
    refused = refusal(check_text, text)
    assert isinstance(refused, BadUserInput)
    assert refused.message == expected


@given(value=GOOD)
@example(value=nest(DEPTH_MAX))
@example(value=[10**DIGITS_MAX - 1, 1 - 10**DIGITS_MAX, 1.7976931348623157e308, 5e-324, -0.0])
@example(value="\\u0000 spelt out, \x01 and \x7f are characters like others")
def test_every_storable_value_passes(value: Any) -> None:
    check_json(value, "input.metadata")


@given(value=ANY)
def test_what_passes_survives_the_way_through_json_text(value: Any) -> None:
    if refusal(check_json, value) is None:
        text = json_text(value)
        assert json.loads(text.encode(), parse_constant=pytest.fail) == value
        # PostgreSQL refuses this escape in jsonb; behind a doubled backslash it is none.
        assert "\\u0000" not in text.replace("\\\\", "")
    else:
        assert message(value).startswith(("P", "The key '"))


@given(
    bad=BAD_TEXT | st.sampled_from([math.nan, math.inf, -math.inf, 10**DIGITS_MAX, -(10**DIGITS_MAX), {1}, b"a"]),
    steps=st.lists(st.integers(0, 3) | st.from_regex("[a-z_][a-z0-9_]{0,9}", fullmatch=True), max_size=6),
    good=GOOD,
)
def test_something_bad_is_found_wherever_it_stands_and_its_place_told(
    bad: Any, steps: list[int | str], good: Any
) -> None:
    value, place = bad, ""
    for step in steps:
        if isinstance(step, int):
            value, place = [*[good] * step, value, good], f"[{step}]{place}"
        else:
            value, place = {"Another": good, step: value}, f".{step}{place}"
    assert message(value).startswith(f"P{place} ")


@given(key=BAD_TEXT, outer=st.lists(GOOD_TEXT, max_size=6))
def test_a_bad_key_is_refused_and_escaped_in_the_message(key: str, outer: list[str]) -> None:
    value: Any = {key: 1}
    for name in outer:
        value = {name: value}
    assert message(value).startswith("The key '")
    assert "' of P" in message(value)


LONG_KEY = "k" * 1_000_000


@pytest.mark.parametrize(
    ("value", "code", "expected"),
    [
        (
            {"tags": ["a", "b", "c\x00"]},
            "BAD_USER_INPUT",
            "P.tags[2] holds U+0000 at character 2, which cannot be stored. Remove it.",
        ),
        (
            {"tags": [{"a\x00": 1}]},
            "BAD_USER_INPUT",
            r"The key 'a\u0000' of P.tags[0] holds U+0000 at character 2, which cannot be stored. Remove it.",
        ),
        (
            {"\ud83d'": 1},
            "BAD_USER_INPUT",
            (
                r"The key '\ud83d\'' of P holds U+D83D, half a surrogate pair, at character 1, which cannot be stored. "
                "Send the whole character, or remove it."
            ),
        ),
        (
            {"two words": {LONG_KEY: [math.nan]}},
            "BAD_USER_INPUT",
            f"P['two words']['{'k' * 40}…'][0] is not a finite number. Send a finite number, a string or null.",
        ),
        (json.loads("1e400"), "BAD_USER_INPUT", "P is not a finite number. Send a finite number, a string or null."),
        ({"": {None: 1}}, "BAD_USER_INPUT", "P[''] has a key that is null. Use strings as keys."),
        ([(1, 2)], "BAD_USER_INPUT", "P[0] is a Python tuple. Send a JSON value."),
        (
            [10**DIGITS_MAX],
            "LIMIT_EXCEEDED",
            "P[0] is a number of more than 1,000 digits. Send a smaller one, or send it as a string.",
        ),
        (nest(DEPTH_MAX + 1), "LIMIT_EXCEEDED", "P is nested too deep. Nest at most 100 arrays and objects."),
    ],
)
def test_the_message_says_what_and_where_then_what_would_be_right(value: Any, code: str, expected: str) -> None:
    refused = refusal(check_json, value)
    assert refused is not None
    assert (refused.code, refused.message) == (code, expected)


@pytest.mark.parametrize("depth", [DEPTH_MAX + 1, 5_000, 200_000])
def test_nesting_without_end_is_refused_without_recursion(depth: int) -> None:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    with pytest.raises(LimitExceeded, match="nested too deep"):
        check_object({"a": value}, "input.metadata")
    # Freed level by level, or the interpreter's own recursion would do it.
    while value:
        value = value.pop()


def test_an_integer_that_python_would_not_print_is_refused() -> None:
    with pytest.raises(LimitExceeded):
        check_json({"a": 1 << 100_000}, "input.metadata")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "null"),
        (True, "a boolean"),
        (1, "a number"),
        (math.nan, "a number"),
        ("a", "a string"),
        ([], "an array"),
        (b"", "a Python bytes"),
    ],
)
def test_only_objects_are_objects(value: Any, kind: str) -> None:
    refused = refusal(check_object, value)
    assert isinstance(refused, BadUserInput)
    assert refused.message == f'P is {kind}. Send a JSON object, such as {{"key": "value"}}.'


def test_objects_are_checked_through_and_through() -> None:
    check_object({}, "input.metadata")
    check_object({"a": [{"b": "c"}]}, "input.metadata")
    with pytest.raises(BadUserInput, match=r"^input\.metadata\.a\[0\] holds U\+0000"):
        check_object({"a": ["\x00"]}, "input.metadata")


def test_json_text_is_compact_and_keeps_characters_and_order() -> None:
    assert json_text({"b": [1, 2.5, None, True], "a": "Grüße 😀\n"}) == '{"b":[1,2.5,null,true],"a":"Grüße 😀\\n"}'
