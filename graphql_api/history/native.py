"""Forkpoint's own format, JSON Lines: a line for a tree, each of its contexts, and each message (docs/history.md)."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from strawberry.scalars import JSON

from db.history_copy import FlawError
from db.records import ContextRecord, MessageRecord
from graphql_api.history.item import HEAD_BYTES, ContextItem, MessageItem, Source, Tree
from graphql_api.history.json_value import read_line
from schema.errors import Refusal
from schema.message import Role
from schema.message_input import MessageInput, ToolCallInput
from schema.scalar import read_id, read_moment, write_moment
from schema.storable import json_text

T = TypeVar("T")

FORMAT = 1
# 8 MiB of text may take 48 MiB as JSON escapes.
LINE_BYTES_MAX = 64 * 1024 * 1024

# What a line of each kind may have beside its kind.
KEYS = {
    "tree": {"format", "id", "contextCount", "messageCount"},
    "context": {
        *("id", "parentId", "forkVersion", "name", "metadata", "createdAt", "updatedAt", "deletedAt"),
    },
    "message": {
        *("id", "version", "role", "content", "toolCalls", "toolCallId", "toolName", "tokenCount", "model", "metadata"),
        *("createdAt", "deletedAt"),
    },
}

_KINDS = {str: "a string", int: "a whole number", dict: "an object", list: "an array"}


def write_tree(root_id: UUID, context_count: int, message_count: int) -> str:
    """Write the line that begins a tree."""
    return _write(kind="tree", format=FORMAT, id=str(root_id), contextCount=context_count, messageCount=message_count)


def write_context(record: ContextRecord) -> str:
    """Write a context; its counters follow from its messages."""
    return _write(
        kind="context",
        id=str(record.id),
        parentId=None if record.parent_id is None else str(record.parent_id),
        forkVersion=record.fork_version,
        name=record.name,
        metadata=record.metadata,
        createdAt=write_moment(record.created_at),
        updatedAt=write_moment(record.updated_at),
        deletedAt=None if record.deleted_at is None else write_moment(record.deleted_at),
    )


def write_message(record: MessageRecord) -> str:
    """Write a message of the context whose line came last."""
    return _write(
        kind="message",
        id=str(record.id),
        version=record.version,
        role=record.role.upper(),
        content=record.content,
        toolCalls=record.tool_calls,
        toolCallId=record.tool_call_id,
        toolName=record.tool_name,
        tokenCount=record.token_count,
        model=record.model,
        metadata=record.metadata,
        createdAt=write_moment(record.created_at),
        deletedAt=None if record.deleted_at is None else write_moment(record.deleted_at),
    )


def _write(**fields: Any) -> str:
    return json_text({name: value for name, value in fields.items() if value is not None}) + "\n"


def is_native(head: bytes) -> bool:
    """Tell whether a file begins as this format does."""
    return head.lstrip().replace(b" ", b"").startswith(b'{"kind":"tree"')


def trees(source: Source) -> Iterator[Tree]:
    """Read the trees of a file.

    Raises: FlawError when it does not begin with a tree.
    """
    lines = _Lines(source)
    if lines.next is None:
        raise FlawError(source.name, "it is empty. A history begins with the line of a tree.")
    if not lines.begins_tree():
        raise FlawError(lines.next[0], "it is no line of the kind tree, which a history begins with.")
    while lines.begins_tree():
        place, line = lines.take()
        yield Tree(place, _items(place, line, lines))
        # Of a tree that was refused the rest is passed over.
        while lines.goes_on():
            lines.take()


class _Lines:
    """Lines with the next one in view."""

    def __init__(self, source: Source) -> None:
        self._lines = source.lines(LINE_BYTES_MAX)
        self.next = next(self._lines, None)

    def take(self) -> tuple[str, bytes]:
        """Go on by a line."""
        if self.next is None:
            raise LookupError("there is no further line")
        taken, self.next = self.next, next(self._lines, None)
        return taken

    def begins_tree(self) -> bool:
        """Tell whether the next line does."""
        return self.next is not None and is_native(self.next[1][:HEAD_BYTES])

    def goes_on(self) -> bool:
        """Tell whether the next line belongs to the same tree."""
        return self.next is not None and not self.begins_tree()


def _items(place: str, line: bytes, lines: _Lines) -> Iterator[ContextItem | MessageItem]:
    tree = _Line(place, line)
    if tree.read("format", int) != FORMAT:
        raise FlawError(tree.place, f"format is not {FORMAT}, the only one that this Forkpoint reads.")
    root_id = tree.id("id")
    contexts = messages = 0
    while lines.goes_on():
        each = _Line(*lines.take())
        if each.kind == "message":
            messages += 1
            yield _message(each)
            continue
        item = _context(each)
        if not contexts and item.id != root_id:
            raise FlawError(item.place, f"the root is not {root_id}, the id of the tree.")
        contexts += 1
        yield item
    for key, counted in (("contextCount", contexts), ("messageCount", messages)):
        told = tree.read(key, int)
        if told not in {None, counted}:
            raise FlawError(tree.place, f"{key} is {told}, but {counted} follow. Lines were lost.")
    if not contexts:
        raise FlawError(tree.place, "no context follows. A tree has at least its root.")


def _context(line: "_Line") -> ContextItem:
    if line.kind != "context":
        raise FlawError(line.place, "kind must be tree, context or message.")
    parent_id = line.id_or_none("parentId")
    fork_version = line.read("forkVersion", int)
    if (parent_id is None) != (fork_version is None):
        raise FlawError(line.place, "parentId and forkVersion go together: a fork has both, a root has neither.")
    return ContextItem(
        place=line.place,
        id=line.id("id"),
        parent_id=parent_id,
        fork_version=fork_version,
        name=line.read("name", str),
        metadata=line.read("metadata", dict) or {},
        created_at=line.moment("createdAt"),
        updated_at=line.moment("updatedAt"),
        deleted_at=line.moment("deletedAt"),
    )


def _message(line: "_Line") -> MessageItem:
    role, content = line.read("role", str), line.read("content", str)
    if role is None or role not in Role.__members__:
        raise FlawError(line.place, f"role is not one of {', '.join(Role.__members__)}.")
    if content is None:
        raise FlawError(line.place, "content is missing. It may be empty.")
    message = MessageInput(
        role=Role[role],
        content=content,
        tool_calls=[_call(line, call) for call in line.read("toolCalls", list) or ()] or None,
        tool_call_id=line.read("toolCallId", str),
        tool_name=line.read("toolName", str),
        token_count=line.read("tokenCount", int),
        model=line.read("model", str),
        metadata=JSON(line.read("metadata", dict) or {}),
    )
    version = line.read("version", int)
    if version is None:
        raise FlawError(line.place, "version is missing.")
    return MessageItem(line.place, message, line.id("id"), version, line.moment("createdAt"), line.moment("deletedAt"))


def _call(line: "_Line", call: Any) -> ToolCallInput:
    match call:
        case {"id": str(call_id), "name": str(name), "arguments": arguments, **rest} if not rest:
            return ToolCallInput(id=call_id, name=name, arguments=arguments)
        case _:
            raise FlawError(line.place, "toolCalls must be objects of id, name and arguments.")


class _Line:
    """The fields of a line, each of its type or absent; null is absent."""

    def __init__(self, place: str, line: bytes) -> None:
        self.place = place
        self._fields = read_line(line, place)
        self.kind = self._fields.pop("kind", None)
        unknown = self._fields.keys() - KEYS[self.kind] if isinstance(self.kind, str) and self.kind in KEYS else ()
        if unknown:
            raise FlawError(place, f"a {self.kind} has no {min(unknown)!a}. Keys are those of format {FORMAT}.")

    def read(self, key: str, kind: type[T]) -> T | None:
        """Give a field of a type."""
        value = self._fields.get(key)
        # To Python, true is a number.
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise FlawError(self.place, f"{key} is not {_KINDS[kind]}.")
        return value

    def id(self, key: str) -> UUID:
        """Give an id that must be there."""
        found = self.id_or_none(key)
        if found is None:
            raise FlawError(self.place, f"{key} is missing.")
        return found

    def id_or_none(self, key: str) -> UUID | None:
        """Give an id."""
        text = self.read(key, str)
        return None if text is None else self._read(read_id, text, key)

    def moment(self, key: str) -> datetime | None:
        """Give a moment."""
        text = self.read(key, str)
        return None if text is None else self._read(lambda value, _: read_moment(value), text, key)

    def _read(self, read: Callable[[str, str], T], text: str, key: str) -> T:
        try:
            return read(text, key)
        except Refusal as error:
            raise FlawError(
                self.place, f"{key}: {error.message}" if key not in error.message else error.message
            ) from None
