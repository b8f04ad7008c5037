"""Reads conversations as Anthropic's messages API takes them: text or blocks, with `system` beside `messages`."""

from collections.abc import Iterator
from typing import Any

import uuid_utils.compat
from strawberry.scalars import JSON

from db.history_copy import FlawError
from graphql_api.history.item import ContextItem, MessageItem
from graphql_api.history.openai import read_content
from schema.message import Role
from schema.message_input import MessageInput, ToolCallInput

KEY = "anthropic"

_ROLES = {"user": Role.USER, "assistant": Role.ASSISTANT, "system": Role.SYSTEM}
# Blocks that the chat messages of OpenAI do not have.
_OWN_BLOCKS = {"tool_use", "tool_result", "thinking", "redacted_thinking", "server_tool_use"}


def is_anthropic(conversation: dict[str, Any]) -> bool:
    """Tell whether messages are of this kind; where nothing but text is said, both kinds are one."""
    contents = [given.get("content") for given in conversation["messages"] if isinstance(given, dict)]
    blocks = [block for content in contents if isinstance(content, list) for block in content]
    return "system" in conversation or any(
        isinstance(block, dict) and (block.get("type") in _OWN_BLOCKS or "source" in block) for block in blocks
    )


def read(place: str, conversation: dict[str, Any]) -> Iterator[ContextItem | MessageItem]:
    """Read one conversation. What has no field here is kept in metadata, under `anthropic`.

    Raises: FlawError.
    """
    rest = {key: value for key, value in conversation.items() if key not in {"messages", "system"}}
    yield ContextItem(place, uuid_utils.compat.uuid7(), metadata={KEY: rest} if rest else {})
    system = conversation.get("system")
    if system:
        where = f"{place}, system"
        yield MessageItem(where, _message(Role.SYSTEM, *read_content(where, system), {}))
    names: dict[str, str] = {}
    for number, given in enumerate(conversation["messages"], 1):
        where = f"{place}, message {number}"
        if not isinstance(given, dict):
            raise FlawError(where, "it is no JSON object.")
        for message in _turn(where, given, names):
            yield MessageItem(where, message)


def _turn(place: str, given: dict[str, Any], names: dict[str, str]) -> Iterator[MessageInput]:
    """Give the messages of a turn: its results, then what else is said. `names` has the tool of each call so far."""
    rest = {key: value for key, value in given.items() if key not in {"role", "content", "model"} and value is not None}
    role = _ROLES.get(str(given.get("role")))
    if role is None:
        raise FlawError(place, f"role is not one of {', '.join(_ROLES)}.")
    content = given.get("content")
    results: list[Any] = []
    if role is Role.USER and isinstance(content, list):
        results = [block for block in content if isinstance(block, dict) and block.get("type") == "tool_result"]
        content = [block for block in content if block not in results]
    for block in results:
        yield _result(place, block, names)
    if results and not content and not rest:
        return
    text, blocks = read_content(place, content)
    calls: list[ToolCallInput] = []
    if role is Role.ASSISTANT and blocks is not None:
        calls = [_call(place, block) for block in blocks if isinstance(block, dict) and block.get("type") == "tool_use"]
        names |= {call.id: call.name for call in calls}
        if _is_plain(blocks):
            blocks = None
    message = _message(role, text, blocks, rest)
    message.tool_calls = calls or None
    message.model = given["model"] if isinstance(given.get("model"), str) else None
    yield message


def _is_plain(blocks: list[Any]) -> bool:
    """Tell whether a text and the calls say all that the blocks do: a text at most, and then calls."""
    for number, block in enumerate(blocks):
        match block:
            case {"type": "text", "text": str(), **more} if not more and not number:
                pass
            case {"type": "tool_use", "id": _, "name": _, "input": _, **more} if not more:
                pass
            case _:
                return False
    return True


def _call(place: str, block: dict[str, Any]) -> ToolCallInput:
    match block:
        case {"id": str(call_id), "name": str(name)}:
            given = block.get("input")
            return ToolCallInput(id=call_id, name=name, arguments=JSON({} if given is None else given))
        case _:
            raise FlawError(place, "a block of the type tool_use must have id, name and input.")


def _result(place: str, block: dict[str, Any], names: dict[str, str]) -> MessageInput:
    call_id = block.get("tool_use_id")
    if not isinstance(call_id, str):
        raise FlawError(place, "tool_use_id is missing in a block of the type tool_result, which names its call.")
    rest = {
        key: value
        for key, value in block.items()
        if key not in {"type", "tool_use_id", "content"} and value is not None
    }
    message = _message(Role.TOOL, *read_content(place, block.get("content")), rest)
    message.tool_call_id = call_id
    message.tool_name = names.get(call_id)
    return message


def _message(role: Role, text: str, blocks: list[Any] | None, rest: dict[str, Any]) -> MessageInput:
    kept = rest if blocks is None else rest | {"content": blocks}
    return MessageInput(role=role, content=text, metadata=JSON({KEY: kept}) if kept else None)
