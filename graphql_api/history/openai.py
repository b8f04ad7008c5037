"""Reads conversations as OpenAI's chat API takes them: `messages` of a request, or of a line of a fine-tuning file."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

import uuid_utils.compat
from strawberry.scalars import JSON

from db.history_copy import FlawError
from graphql_api.history.item import ContextItem, MessageItem
from schema.errors import Refusal
from schema.message import Role
from schema.message_input import MessageInput, ToolCallInput
from schema.storable import check_json

KEY = "openai"

_ROLES = {
    "system": Role.SYSTEM,
    "developer": Role.SYSTEM,
    "user": Role.USER,
    "assistant": Role.ASSISTANT,
    "tool": Role.TOOL,
    "function": Role.TOOL,
}


def read(place: str, conversation: dict[str, Any]) -> Iterator[ContextItem | MessageItem]:
    """Read one conversation. What has no field here is kept in metadata, under `openai`.

    Raises: FlawError.
    """
    rest = {key: value for key, value in conversation.items() if key != "messages"}
    yield ContextItem(place, uuid_utils.compat.uuid7(), metadata={KEY: rest} if rest else {})
    names: dict[str, str] = {}
    for number, given in enumerate(conversation["messages"], 1):
        where = f"{place}, message {number}"
        if not isinstance(given, dict):
            raise FlawError(where, "it is no JSON object.")
        yield MessageItem(where, _message(where, given, number, names))


def _message(place: str, given: dict[str, Any], number: int, names: dict[str, str]) -> MessageInput:
    """`names` has the tool of each call so far, and each tool whose call is of the old kind, which has no id."""
    rest = {key: value for key, value in given.items() if value is not None}
    role = _ROLES.get(str(rest.get("role")))
    if role is None:
        raise FlawError(place, f"role is not one of {', '.join(_ROLES)}.")
    if rest["role"] not in {"developer", "function"}:
        del rest["role"]
    content, parts = read_content(place, rest.pop("content", None))
    if parts is not None:
        rest["content"] = parts
    if not content and isinstance(rest.get("refusal"), str):
        content = rest["refusal"]
    message = MessageInput(role=role, content=content)
    if role is Role.TOOL:
        _answer(place, message, rest, names)
    calls = _calls(place, rest, number)
    for call in calls:
        names[call.id] = call.name
    message.tool_calls = calls or None
    message.metadata = JSON({KEY: rest}) if rest else None
    return message


def read_content(place: str, content: Any) -> tuple[str, list[Any] | None]:
    """Give the text of a content, and its parts where they are more than that text.

    Raises: FlawError.
    """
    match content:
        case None:
            return "", None
        case str():
            return content, None
        case [{"type": "text", "text": str(text), **more}] if not more:
            return text, None
        case list():
            return join_text(content), content
        case _:
            raise FlawError(place, "content is neither a string nor an array of parts.")


def join_text(parts: Sequence[Any]) -> str:
    """Join the texts among the parts of a content by line breaks."""
    found = [part if isinstance(part, str) else part.get("text") for part in parts if isinstance(part, str | dict)]
    return "\n".join(text for text in found if isinstance(text, str))


def _answer(place: str, message: MessageInput, rest: dict[str, Any], names: dict[str, str]) -> None:
    name = rest.pop("name", None)
    # Of the old kind a result names the function; it answers the last call of that one.
    call_id = rest.pop("tool_call_id", None)
    if rest.get("role") == "function":
        call_id = next((known for known in reversed(names) if names[known] == name), f"function {name}")
    if not isinstance(call_id, str):
        raise FlawError(place, "tool_call_id is missing. A message of the role tool names the call that it answers.")
    message.tool_call_id = call_id
    message.tool_name = name if isinstance(name, str) else names.get(call_id)


def _calls(place: str, rest: dict[str, Any], number: int) -> list[ToolCallInput]:
    calls: list[ToolCallInput] = []
    for call in rest.pop("tool_calls", None) or ():
        match call:
            case {"id": str(call_id), "function": {"name": str(name), **function}}:
                calls.append(ToolCallInput(id=call_id, name=name, arguments=read_arguments(function.get("arguments"))))
            case {"id": str(call_id), "type": "custom", "custom": {"name": str(name), "input": given}}:
                calls.append(ToolCallInput(id=call_id, name=name, arguments=given))
                rest.setdefault("custom", []).append(call_id)
            case _:
                raise FlawError(place, "tool_calls must be objects of id and function, with name and arguments.")
    match rest.get("function_call"):
        case {"name": str(name), **function}:
            del rest["function_call"]
            calls.append(
                ToolCallInput(
                    id=f"function_call {number}", name=name, arguments=read_arguments(function.get("arguments"))
                )
            )
    return calls


def read_arguments(given: Any) -> JSON:
    """Read arguments that are JSON in a string; what is no JSON, or none that can be stored, stays a string.

    A call without arguments, or with null, has an empty object.
    """
    if not isinstance(given, str):
        return JSON({} if given is None else given)
    try:
        value = json.loads(given)
        check_json(value, "arguments")
    except (ValueError, RecursionError, Refusal):
        return JSON(given)
    return JSON({} if value is None else value)
