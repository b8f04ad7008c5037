"""JSON as it is received and sent: strictly read, within bounds, and written whatever is in it."""

import json
import re
import sys
from contextlib import suppress
from itertools import islice
from typing import Any, NoReturn

import orjson

from graphql_api.http_error import HttpError, bad_request
from schema.errors import LimitExceeded, mask, show

# 50 MiB of `[],` block for 6 seconds and take 1.3 GB; a million strings, commas and brackets at most half a second.
JSON_TOKENS_MAX = 1_000_000
# A JSON string, also one that never ends: without that and the possessive quantifiers this would be quadratic.
JSON_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.?)*+"?|[,\[{]', re.DOTALL)

# Floats from here on may be integers that orjson could not hold.
EXACT_END = 2.0**63


def check_tokens(body: bytes | bytearray) -> None:
    """Refuse JSON of too many values, which cost far more time and memory than their bytes.

    Raises: HttpError.
    """
    if len(body) <= JSON_TOKENS_MAX:
        return
    most = sum(body.count(mark) for mark in (b",", b"[", b"{", b'"'))
    if most <= JSON_TOKENS_MAX:
        return  # the usual case, without a closer look at what stands inside strings
    if next(islice(JSON_TOKENS.finditer(body), JSON_TOKENS_MAX, None), None):
        message = f"The body holds more than {JSON_TOKENS_MAX:,} JSON strings, commas and brackets, the most allowed."
        raise HttpError(413, LimitExceeded(message))


def decode(text: bytes | bytearray | str) -> Any:
    """Read JSON strictly: UTF-8, no NaN or Infinity; integers stay exact; of a repeated key the last one counts.

    orjson reads nearly all. What it refuses, and integers that it would turn into floats, are left to the standard
    library's reader, which says what is wrong.

    Raises: HttpError.
    """
    with suppress(orjson.JSONDecodeError):
        value = orjson.loads(text)
        if _is_exact(value):
            return value
    try:
        return DECODER.decode(text if isinstance(text, str) else text.decode("utf-8-sig"))
    except UnicodeDecodeError:
        message = "The body is not UTF-8."
    except RecursionError:
        raise HttpError(400, LimitExceeded("The JSON is nested too deeply: nest it less.")) from None
    except json.JSONDecodeError as error:
        message = f"The request is not JSON: {error.msg} at line {error.lineno}, column {error.colno}."
    except ValueError:  # what is left: the interpreter refuses the time that huge integers take
        digits = sys.get_int_max_str_digits()
        refusal = LimitExceeded(f"The JSON holds an integer of more than {digits:,} digits, the most allowed.")
        raise HttpError(400, refusal) from None
    raise bad_request(message)


def _is_exact(value: Any) -> bool:
    """Tell whether no float among the values is so large that it may have been an integer."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        kind = type(item)
        if kind is dict:
            waiting.extend(item.values())
        elif kind is list:
            waiting.extend(item)
        elif kind is float and not -EXACT_END < item < EXACT_END:
            return False
    return True


def _refuse_constant(name: str) -> NoReturn:
    raise bad_request(f"The request is not JSON: {name} is not a JSON number.")


DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def encode(body: Any) -> bytes:
    """Write JSON in UTF-8, whatever is in it."""
    try:
        return orjson.dumps(body)
    except TypeError:
        pass  # integers beyond 64 bits, lone surrogates, nesting over 254
    try:
        return json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
    except RecursionError:
        error = show(LimitExceeded("The result is nested too deeply to be written."))
    except Exception as cause:  # noqa: BLE001 - a resolver gave what is not JSON
        error = mask(cause)
    return orjson.dumps({"errors": [error], "data": None})
