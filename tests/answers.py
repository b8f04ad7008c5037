"""Answers to be compared: everything counts, field order too, but what must differ from one request to the next."""

import json
import re
from dataclasses import dataclass
from typing import Any

from graphql import FieldNode, GraphQLSyntaxError, Visitor, parse, visit

VOLATILE = {"timestamp", "latencyMs", "status"}
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")
ERROR_ID = re.compile(r"\b[0-9a-f]{32}\b")


@dataclass(frozen=True)
class Answer:
    """A body, with numbers told apart by their kind, and how it came about where the service says that."""

    content: Any
    execution: str | None
    messages: frozenset[str]
    """What its errors say."""


def read(body: bytes, document: str) -> Answer:
    """Read the answer to a document."""
    hidden = _volatile(document)

    def take(pairs: list[tuple[str, Any]]) -> Any:
        return "object", tuple((key, _mask(key, value, hidden)) for key, value in pairs)

    # An integer is not a float of the same value, nor 1 true, nor 0.0 -0.0: a client may tell them apart.
    kind, pairs = json.loads(
        body,
        object_pairs_hook=take,
        parse_int=lambda text: ("int", int(text)),
        parse_float=lambda text: ("float", repr(float(text))),
    )
    parts = dict(pairs)
    extensions = dict(parts.pop("extensions", ("object", ()))[1])
    execution = extensions.pop("execution", None)
    kept = [(name, value) for name, value in pairs if name != "extensions"]
    messages = frozenset(dict(error[1])["message"] for error in parts.get("errors", ()))
    return Answer((kind, kept, extensions), execution, messages)


def difference(left: Any, right: Any, path: str = "") -> str | None:
    """Say where two contents differ first; None when they do not."""
    if left == right:
        return None
    if isinstance(left, list | tuple) and isinstance(right, list | tuple) and len(left) == len(right):
        for index, (one, other) in enumerate(zip(left, right, strict=True)):
            name = one[0] if isinstance(one, tuple) and one and isinstance(one[0], str) else index
            if found := difference(one, other, f"{path}.{name}"):
                return found
    return f"at {path}:\n  {_short(left)}\n  {_short(right)}"


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) < 600 else f"{text[:300]} … {text[-300:]}"


def _mask(key: str, value: Any, hidden: set[str]) -> Any:
    if key == "errorId":
        return "masked"
    if key == "message" and isinstance(value, str):
        return ERROR_ID.sub("masked", value)
    if key in hidden:
        if isinstance(value, str) and MOMENT.fullmatch(value):
            return "a moment"
        if isinstance(value, str) and value in {
            "HEALTHY",
            "DEGRADED",
        }:  # by whether another request holds the pool's last connection just now
            return "a verdict"
        if isinstance(value, tuple) and value[0] == "float":
            return "a number"
    return value


class _Names(Visitor):
    def __init__(self) -> None:
        super().__init__()
        self.found: set[str] = set()

    def enter_field(self, node: FieldNode, *_: Any) -> None:
        if node.name.value in VOLATILE:
            self.found.add((node.alias or node.name).value)


def _volatile(document: str) -> set[str]:
    """Give the response names of the fields whose values differ by time."""
    if not any(name in document for name in VOLATILE):
        return set()
    names = _Names()
    try:
        visit(parse(document), names)
    except GraphQLSyntaxError:
        return set()
    return names.found
