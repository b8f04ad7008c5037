"""Reads the `conversations.json` of a ChatGPT export, whose messages form a tree: it becomes a context with its forks.

The way to the message that was open last is the root context. Wherever the tree parts, each other branch is a fork at
that version, which goes on with the newest message each time. What nobody said (the root of the tree, hidden
instructions, thoughts) is passed over, and kept in the metadata of the next message.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import uuid_utils.compat
from strawberry.scalars import JSON

from db.history_copy import FlawError
from graphql_api.history.item import ContextItem, MessageItem
from graphql_api.history.openai import join_text, read_arguments
from schema.context_change import NAME_CHARS_MAX
from schema.message import Role
from schema.message_input import MessageInput, ToolCallInput

KEY = "chatgpt"

_ROLES = {"system": Role.SYSTEM, "user": Role.USER, "assistant": Role.ASSISTANT, "tool": Role.ASSISTANT}
# Where contents other than text and parts have their text.
_TEXT_KEYS = ("text", "result", "user_profile", "user_instructions")
_PASSED_OVER = {"thoughts", "reasoning_recap"}


@dataclass(eq=False, slots=True)
class _Node:
    """A message that is kept, below the nearest one that is; and what was passed over in between."""

    id: str
    given: dict[str, Any]
    passed: tuple[Any, ...]
    parent: "_Node | None"
    children: "list[_Node]" = field(default_factory=list)
    # The tool that a message calls, when a child of it is the result.
    tool: str | None = None

    @property
    def role(self) -> str:
        return _role(self.given)


@dataclass(slots=True)
class _Way:
    """A context to be: the messages of a branch, and those beside its first."""

    nodes: list[_Node]
    beside: list[_Node]
    parent_id: UUID | None
    version: int
    moment: datetime | None


def read(place: str, conversation: dict[str, Any]) -> Iterator[ContextItem | MessageItem]:
    """Read one conversation. What has no field here is kept in metadata, under `chatgpt`.

    Raises: FlawError.
    """
    top, current, times = _tree(place, conversation)
    title = conversation.get("title")
    begun = _moment(place, conversation.get("create_time")) or min(times, default=None)
    rest = {key: value for key, value in conversation.items() if key != "mapping" and value is not None}
    waiting = [_Way(_way_to(current) or _newest(top[-1:]), top, None, 0, begun)]
    while waiting:
        way = waiting.pop()
        root = way.parent_id is None
        context_id = uuid_utils.compat.uuid7()
        yield ContextItem(
            place,
            context_id,
            way.parent_id,
            None if root else way.version,
            name=title[:NAME_CHARS_MAX] if isinstance(title, str) else None,
            metadata={KEY: rest} if root else {},
            created_at=way.moment,
        )
        forks: list[_Way] = []
        beside, version, moment = way.beside, way.version, way.moment
        for node in [*way.nodes, None]:
            forks += [_Way(_newest([other]), [], context_id, version, moment) for other in beside if other is not node]
            if node is not None:
                beside, version = node.children, version + 1
                moment = _later(moment, _moment(place, node.given.get("create_time")))
                yield MessageItem(f"{place}, node {node.id!a}", _message(node), created_at=moment)
        waiting += reversed(forks)


def _tree(place: str, conversation: dict[str, Any]) -> tuple[list[_Node], _Node | None, list[datetime]]:
    """Give the messages at the top, the one that was open last or the nearest above it, and all moments."""
    mapping = conversation["mapping"]
    if not all(isinstance(node, dict) and isinstance(node.get("children") or [], list) for node in mapping.values()):
        raise FlawError(place, "mapping must hold nodes with message, parent and children.")
    nearest: dict[str, _Node | None] = {}
    times: list[datetime] = []
    top: list[_Node] = []
    waiting: list[tuple[str, _Node | None, tuple[Any, ...]]] = [
        (node_id, None, ()) for node_id in reversed(mapping) if mapping[node_id].get("parent") not in mapping
    ]
    while waiting:
        node_id, parent, passed = waiting.pop()
        if node_id in nearest:
            raise FlawError(place, f"node {node_id!a} is reached twice, so mapping is no tree.")
        given = mapping[node_id].get("message")
        if isinstance(given, dict) and _is_kept(place, node_id, given):
            node = _Node(node_id, given, passed, parent)
            (top if parent is None else parent.children).append(node)
            if parent is not None and node.role == "tool" and (tool := _called(parent)):
                parent.tool = tool
            times += [moment] if (moment := _moment(place, given.get("create_time"))) else []
            parent, passed = node, ()
        elif given:
            passed = (*passed, given)
        nearest[node_id] = parent
        children = mapping[node_id].get("children") or []
        waiting += [(child, parent, passed) for child in reversed(children) if child in mapping]
    if len(nearest) < len(mapping):
        raise FlawError(place, "some nodes hang on none, so mapping is no tree.")
    return top, nearest.get(str(conversation.get("current_node"))), times


def _is_kept(place: str, node_id: str, given: dict[str, Any]) -> bool:
    """Tell whether a message says something."""
    content = given.get("content")
    if _role(given) not in _ROLES or not isinstance(content, dict):
        raise FlawError(f"{place}, node {node_id!a}", f"a message has content, and a role of {', '.join(_ROLES)}.")
    if content.get("content_type") in _PASSED_OVER:
        return False
    hidden = (given.get("metadata") or {}).get("is_visually_hidden_from_conversation") is True
    if hidden and _role(given) == "system":
        return False
    return bool(_text(content)) or any(not isinstance(part, str) for part in content.get("parts") or ())


def _role(given: dict[str, Any]) -> str:
    author = given.get("author")
    return str(author.get("role")) if isinstance(author, dict) else ""


def _called(node: _Node) -> str | None:
    """Give the tool that a message is sent to."""
    recipient = node.given.get("recipient")
    return recipient if node.role == "assistant" and isinstance(recipient, str) and recipient != "all" else None


def _text(content: dict[str, Any]) -> str:
    if isinstance(content.get("parts"), list):
        return join_text(content["parts"])
    found = [content.get(key) for key in _TEXT_KEYS]
    return "\n".join(text for text in found if isinstance(text, str) and text)


def _message(node: _Node) -> MessageInput:
    given = node.given
    content = given["content"]
    text = _text(content)
    kept = {key: value for key, value in given.items() if value is not None}
    if content == {"content_type": "text", "parts": [text]}:
        del kept["content"]
    if node.passed:
        kept["before"] = list(node.passed)
    model = (given.get("metadata") or {}).get("model_slug")
    message = MessageInput(
        role=Role.SYSTEM if content.get("content_type") == "user_editable_context" else _ROLES[node.role],
        content=text,
        model=model if isinstance(model, str) else None,
        metadata=JSON({KEY: kept}),
    )
    if node.tool is not None:
        message.content = ""
        message.tool_calls = [ToolCallInput(id=node.id, name=node.tool, arguments=read_arguments(text))]
    elif node.role == "tool" and node.parent is not None and node.parent.tool is not None:
        message.role, message.tool_call_id, message.tool_name = Role.TOOL, node.parent.id, node.parent.tool
    return message


def _way_to(node: _Node | None) -> list[_Node]:
    """Give the messages from the top to one."""
    way: list[_Node] = []
    while node is not None:
        way.append(node)
        node = node.parent
    return way[::-1]


def _newest(nodes: list[_Node]) -> list[_Node]:
    """Go down from the last of some messages, always to the last child."""
    way: list[_Node] = []
    while nodes:
        way.append(nodes[-1])
        nodes = nodes[-1].children
    return way


def _moment(place: str, seconds: Any) -> datetime | None:
    if not isinstance(seconds, int | float) or isinstance(seconds, bool) or not seconds:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise FlawError(place, f"create_time is {seconds}, which is no moment in seconds since 1970.") from None


def _later(one: datetime | None, other: datetime | None) -> datetime | None:
    return max((moment for moment in (one, other) if moment is not None), default=None)
