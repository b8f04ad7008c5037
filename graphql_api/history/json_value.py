"""Reads JSON of any size value by value: those of a file one after the other, or the elements of the array it holds."""

import codecs
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

from db.history_copy import FlawError
from graphql_api.history.item import Source

# Characters of one value. A conversation of ChatGPT with all its branches takes a few millions.
VALUE_CHARS_MAX = 256 * 1024 * 1024
_SPACE = " \t\r\n"


@dataclass(frozen=True, slots=True)
class Value:
    """An object of a file: its number in the array that holds it, if any, and the line that it begins in."""

    number: int | None
    line: int
    data: dict[str, Any]


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a number of JSON")


_DECODER = json.JSONDecoder(parse_constant=_no_number)


def read_line(line: bytes, place: str) -> dict[str, Any]:
    """Read a line that is one JSON object.

    Raises: FlawError.
    """
    try:
        value = _DECODER.decode(line.decode())
    except UnicodeDecodeError as error:
        raise FlawError(place, f"it is no text in UTF-8, at byte {error.start + 1}.") from None
    except RecursionError:
        raise FlawError(place, "it is nested too deep.") from None
    except json.JSONDecodeError as error:
        raise FlawError(place, f"it is no JSON: {_why(error)} at column {error.colno}.") from None
    except ValueError as error:
        raise FlawError(place, f"it is no JSON: {_why(error)}.") from None
    if not isinstance(value, dict):
        raise FlawError(place, "it is no JSON object.")
    return value


def read_values(source: Source) -> Iterator[Value]:
    """Give the objects of a file, in their order.

    Raises: FlawError.
    """
    text = _Text(source)
    number = 0 if text.next_character() == "[" else None
    if number is not None:
        text.skip()
    while character := text.next_character():
        if number is not None:
            if character == "]":
                text.skip()
                break
            if number and character != ",":
                raise text.flaw("a comma or the end of the array must come here")
            if number:
                text.skip()
            number += 1
        if text.next_character() != "{":
            raise text.flaw("a JSON object must come here")
        line = text.line
        yield Value(number, line, text.value())
    else:
        if number is not None:
            raise text.flaw("the file ends inside its array")
    if text.next_character():
        raise text.flaw("the array has ended, but the file goes on")


class _Text:
    """The text of a file as far as it is needed: from a place on to somewhere behind the value that is read."""

    def __init__(self, source: Source) -> None:
        self.line = 1
        self._source = source
        self._chunks = source.chunks()
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._place = 0
        self._ended = False

    def next_character(self) -> str:
        """Pass over white space, and give what comes then: nothing at the end."""
        while True:
            while self._place < len(self._text):
                character = self._text[self._place]
                if character not in _SPACE:
                    return character
                self.skip()
            if not self._more():
                return ""

    def skip(self) -> None:
        """Pass over one character."""
        self.line += self._text[self._place] == "\n"
        self._place += 1

    def value(self) -> dict[str, Any]:
        """Read the object that begins here."""
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._place)
            except json.JSONDecodeError as error:
                lines = self._text.count("\n", self._place, error.pos)
                # What looks wrong may be no more than the end of what has been read so far.
                if not self._more():
                    self.line += lines
                    raise self.flaw(f"it is no JSON: {_why(error)}") from None
            except RecursionError:
                raise self.flaw("it is nested too deep") from None
            except ValueError as error:
                raise self.flaw(f"it is no JSON: {_why(error)}") from None
            else:
                self.line += self._text.count("\n", self._place, end)
                self._place = end
                return dict(value)

    def flaw(self, what: str) -> FlawError:
        """Say what is wrong here."""
        return FlawError(f"{self._source.name} line {self.line}", f"{what}.")

    def _more(self) -> bool:
        """Read as much as there is, so that reading a long value again and again costs no more than twice."""
        self._text = self._text[self._place :]
        self._place = 0
        wanted = 2 * len(self._text)
        if len(self._text) > VALUE_CHARS_MAX:
            raise self.flaw(f"a value is longer than {VALUE_CHARS_MAX} characters")
        parts = [self._text]
        length = len(self._text)
        while not self._ended and length <= wanted:
            chunk = next(self._chunks, b"")
            self._ended = not chunk
            try:
                parts.append(self._decoder.decode(chunk, final=self._ended))
            except UnicodeDecodeError:
                raise FlawError(self._source.name, "it is no text in UTF-8.") from None
            length += len(parts[-1])
        grown = length > len(self._text)
        self._text = "".join(parts)
        return grown


def _why(error: ValueError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg[:1].lower()}{error.msg[1:]}"
    text = str(error)
    return "a number has too many digits" if text.startswith("Exceeds the limit") else text
