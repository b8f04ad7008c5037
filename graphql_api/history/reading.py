"""Reads any file of histories: finds its format and gives its trees."""

from collections.abc import Callable, Iterator
from enum import StrEnum
from itertools import chain
from typing import Any

from db.history_copy import FlawError
from graphql_api.history import anthropic, chatgpt, native, openai
from graphql_api.history.item import HEAD_BYTES, ContextItem, MessageItem, Source, Tree
from graphql_api.history.json_value import Value, read_values


class Format(StrEnum):
    """What a file may be."""

    AUTO = "auto"
    FORKPOINT = "forkpoint"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    CHATGPT = "chatgpt"


_READERS: dict[Format, Callable[[str, dict[str, Any]], Iterator[ContextItem | MessageItem]]] = {
    Format.OPENAI: openai.read,
    Format.ANTHROPIC: anthropic.read,
    Format.CHATGPT: chatgpt.read,
}


def trees(source: Source, chosen: Format) -> Iterator[Tree]:
    """Give the trees of a file one by one.

    Raises: FlawError when the file as a whole cannot be read on; what is wrong with a tree, its items raise.
    """
    if chosen is Format.FORKPOINT or (chosen is Format.AUTO and native.is_native(source.head()[:HEAD_BYTES])):
        return native.trees(source)
    return _conversations(source, chosen)


def _conversations(source: Source, chosen: Format) -> Iterator[Tree]:
    values = read_values(source)
    first = next(values, None)
    if first is None:
        raise FlawError(source.name, "it is empty, and holds no history.")
    values = chain([first], values)
    if first.number is not None and "role" in first.data:
        # The file is one conversation, the array of its messages.
        whole = {"messages": [value.data for value in values]}
        yield Tree(source.name, _read(source.name, whole, chosen))
        return
    for value in values:
        place = _place(source, value)
        yield Tree(place, _read(place, value.data, chosen))


def _place(source: Source, value: Value) -> str:
    return f"{source.name} line {value.line}" if value.number is None else f"{source.name} conversation {value.number}"


def _read(place: str, conversation: dict[str, Any], chosen: Format) -> Iterator[ContextItem | MessageItem]:
    found = _format(conversation)
    if found is None:
        raise FlawError(
            place,
            "it is no history of a known format. Known are Forkpoint's own, messages of OpenAI and of Anthropic, "
            "and conversations.json of ChatGPT.",
        )
    if chosen is not Format.AUTO and (chosen is Format.CHATGPT) != (found is Format.CHATGPT):
        raise FlawError(place, f"it is not of the format {chosen}. Leave --format out, or name the right one.")
    yield from _READERS[found if chosen is Format.AUTO else chosen](place, conversation)


def _format(conversation: dict[str, Any]) -> Format | None:
    match conversation:
        case {"mapping": dict()}:
            return Format.CHATGPT
        case {"messages": list()}:
            return Format.ANTHROPIC if anthropic.is_anthropic(conversation) else Format.OPENAI
        case _:
            return None
