"""Refuses what PostgreSQL cannot store, before it is asked to: characters, numbers and nesting.

PostgreSQL holds neither U+0000 nor a lone surrogate in text or jsonb, JSON has no NaN and no Infinity, and a value
nested without end exhausts a stack somewhere on its way. A message says what is wrong and where, then what would be
right; it never repeats a character that could not be sent back.
"""

import json
import re
from math import isfinite
from typing import Any

from schema.errors import BadUserInput, LimitExceeded, Refusal

# Arrays and objects within each other. Nothing sensible comes near; orjson stops at 254, PostgreSQL at some thousands.
DEPTH_MAX = 100

# A whole number's digits. PostgreSQL would take 131,072, but Python refuses to print more than 4,300.
DIGITS_MAX = 1_000

# How much of a key a message shows.
_KEY_CHARS_SHOWN = 40

# Python writes no exponent of more than three digits.
_EXPONENT = re.compile(r"[0-9]e[+-]([0-9]{2,3})", re.ASCII)
_NUMBER_END = 10**DIGITS_MAX
_JSON = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)

# A container on the way: the one that holds it (None above the checked value), its key there, itself, its depth.
_Step = tuple["_Step | None", str | int, list[Any] | dict[Any, Any], int]


def check_text(text: str, place: str) -> None:
    """Refuse text that holds U+0000 or a lone surrogate; `place` names the text, as in `input.messages[3].content`.

    Units: characters, in the message counted from 1. Checking 8 MiB costs 0.5 ms if all is ASCII, otherwise 3 to 20 ms.

    Raises: BadUserInput.
    """
    flaw = _flaw(text)
    if flaw:
        raise BadUserInput(f"{place} {flaw}")


def check_json(value: Any, place: str) -> None:
    """Refuse what is no JSON value, or one that cannot be stored; `place` grows as in `input.metadata.tags[2]`.

    Raises: BadUserInput; LimitExceeded for more than DEPTH_MAX levels or a whole number of more than DIGITS_MAX digits.
    """
    # The value stands in an object under its place, so that it is somebody's child like all the others. No recursion:
    # callers choose the depth.
    waiting: list[_Step] = [(None, "", {place: value}, 0)]
    while waiting:
        step = waiting.pop()
        if step[3] > DEPTH_MAX:
            raise LimitExceeded(f"{place} is nested too deep. Nest at most {DEPTH_MAX} arrays and objects.")
        _check_children(step, waiting)


def check_object(value: Any, place: str) -> None:
    """Refuse all but a JSON object that can be stored.

    Raises: as `check_json`, and BadUserInput for any other value.
    """
    if not isinstance(value, dict):
        raise BadUserInput(f'{place} is {_kind(value)}. Send a JSON object, such as {{"key": "value"}}.')
    check_json(value, place)


def json_text(value: Any) -> str:
    """Write a checked value as compact JSON, the form that is stored and counted: no spaces, no needless escapes."""
    return _JSON.encode(value)


def utf8_length(text: str) -> int:
    """Give the bytes that checked text takes in UTF-8, as it is sent and stored."""
    return len(text) if text.isascii() else len(text.encode())


def jsonb_length(text: str) -> int:
    """Give the bytes that compact JSON takes when it comes back from jsonb, which writes `1e307` as 308 digits.

    An upper bound: what looks like such a number inside a string counts too.
    """
    return utf8_length(text) + sum(int(digits) for digits in _EXPONENT.findall(text))


def _flaw(text: str) -> str | None:
    if "\x00" in text:
        position = text.index("\x00") + 1
        return f"holds U+0000 at character {position}, which cannot be stored. Remove it."
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            half = f"U+{ord(text[error.start]):04X}"
            return (
                f"holds {half}, half a surrogate pair, at character {error.start + 1}, which cannot be stored. "
                "Send the whole character, or remove it."
            )
    return None


def _check_children(step: _Step, waiting: list[_Step]) -> None:
    _, _, holder, depth = step
    if isinstance(holder, dict):
        _check_keys(step)
    # What can be stored, which is nearly everything, must not cost a call each: 4 million numbers take 0.4 s like this.
    for key, child in holder.items() if isinstance(holder, dict) else enumerate(holder):
        if isinstance(child, str):
            if (child.isascii() and "\x00" not in child) or _flaw(child) is None:
                continue
        elif isinstance(child, int):
            if -_NUMBER_END < child < _NUMBER_END:
                continue
        elif isinstance(child, list | dict):
            waiting.append((step, key, child, depth + 1))
            continue
        elif child is None or (isinstance(child, float) and isfinite(child)):
            continue
        raise _refusal(child, _locate(step, key))


def _check_keys(step: _Step) -> None:
    above, name, holder, _ = step
    for key in holder:
        if not isinstance(key, str):
            raise BadUserInput(f"{_locate(above, name)} has a key that is {_kind(key)}. Use strings as keys.")
        if not key.isascii() or "\x00" in key:
            flaw = _flaw(key)
            if flaw:
                raise BadUserInput(f"The key '{_shown(key)}' of {_locate(above, name)} {flaw}")


def _refusal(value: Any, where: str) -> Refusal:
    match value:
        case str():
            return BadUserInput(f"{where} {_flaw(value)}")
        case int():
            return LimitExceeded(
                f"{where} is a number of more than {DIGITS_MAX:,} digits. Send a smaller one, or send it as a string."
            )
        case float():
            return BadUserInput(f"{where} is not a finite number. Send a finite number, a string or null.")
        case _:
            return BadUserInput(f"{where} is {_kind(value)}. Send a JSON value.")


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return f"a Python {type(value).__name__}"


def _locate(holder: _Step | None, key: str | int) -> str:
    names: list[str] = []
    while holder is not None and holder[0] is not None:
        names.append(_name(key))
        holder, key = holder[0], holder[1]
    # The outermost key is the place that the caller gave.
    return f"{key}{''.join(reversed(names))}"


def _name(key: str | int) -> str:
    if isinstance(key, int):
        return f"[{key}]"
    if key.isidentifier() and len(key) <= _KEY_CHARS_SHOWN:
        return f".{key}"
    return f"['{_shown(key)}']"


def _shown(key: str) -> str:
    shown = "".join(_escape(character) for character in key[:_KEY_CHARS_SHOWN])
    return shown if len(key) <= _KEY_CHARS_SHOWN else f"{shown}…"


def _escape(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if character.isprintable():
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004 - the last four-digit code point
