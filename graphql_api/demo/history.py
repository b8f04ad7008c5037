"""A history of the demo: contexts that fork each other, as they are made and before they are stored; and their ids.

Ids are derived: of a context from the seed, the history and its number there, of a message from its context and its
version. So a later run knows what is there, and what somebody else has added to it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from uuid import UUID

from strawberry.scalars import JSON

from schema.message import Role
from schema.message_input import MessageInput, ToolCallInput

MARK = "demo"


@dataclass
class Branch:
    """A context of a history. `inherited` is what it reads of its parent, `messages` are its own."""

    number: int
    name: str
    labels: dict[str, Any]
    parent: "Branch | None" = None
    inherited: list[MessageInput] = field(default_factory=list)
    messages: list[MessageInput] = field(default_factory=list)
    deleted_versions: list[int] = field(default_factory=list)
    deleted: bool = False

    @property
    def lineage(self) -> list[MessageInput]:
        """All that is read through it: `lineage[version - 1]` is the message at that version."""
        return self.inherited + self.messages


class History:
    """A root and its forks, in an order in which they can be made."""

    def __init__(self, seed: int, key: str, name: str, **labels: Any) -> None:
        self.seed = seed
        self.key = key
        self.labels = labels
        self.root = Branch(0, name, labels)
        self.branches = [self.root]

    def fork(self, parent: Branch, version: int, name: str, **labels: Any) -> Branch:
        """Add a fork of `parent`, which must have all its messages by now."""
        made = Branch(len(self.branches), name, self.labels | labels, parent, parent.lineage[:version])
        self.branches.append(made)
        return made

    def metadata(self, branch: Branch) -> dict[str, Any]:
        """Give what the context is stored with: its labels and the mark of the demo."""
        return branch.labels | {MARK: {"seed": self.seed, "history": self.key}}

    def context_id(self, branch: Branch) -> UUID:
        """Give the id of one of its contexts."""
        return context_id(self.seed, self.key, branch.number)

    @property
    def message_count(self) -> int:
        """Count what is to be stored."""
        return sum(len(branch.messages) for branch in self.branches)


def context_id(seed: int, key: str, number: int) -> UUID:
    """Derive the id of the n-th context of a history; the root is number 0."""
    return _numbered(f"forkpoint demo {seed} {key}".encode(), number)


def message_id(context: UUID, version: int) -> UUID:
    """Derive the id of the demo's message at a version that this context stores."""
    return _numbered(context.bytes, version)


def is_own(seed: int, metadata: dict[str, Any], found: UUID) -> bool:
    """Tell whether a context is the demo's: its mark and its id agree. Metadata alone may have been copied."""
    match metadata.get(MARK):
        case {"seed": int(marked), "history": str(key)} if marked == seed:
            return context_id(seed, key, int.from_bytes(found.bytes[12:])) == found
        case _:
            return False


def _numbered(origin: bytes, number: int) -> UUID:
    """Make a UUID whose first 12 bytes are a hash and whose last 4 count, so that neighbours are stored side by side.

    Source: RFC 9562, section 5.8 (version 8, free to be filled).
    """
    raw = bytearray(sha256(origin).digest()[:12] + number.to_bytes(4))
    raw[6] = raw[6] & 0x0F | 0x80
    raw[8] = raw[8] & 0x3F | 0x80
    return UUID(bytes=bytes(raw))


def system(content: str) -> MessageInput:
    """Say it as the system."""
    return MessageInput(role=Role.SYSTEM, content=content)


def user(content: str) -> MessageInput:
    """Say it as the user."""
    return MessageInput(role=Role.USER, content=content)


def assistant(content: str, model: str, calls: Sequence[ToolCallInput] = ()) -> MessageInput:
    """Say it as the assistant, which may call tools."""
    return MessageInput(
        role=Role.ASSISTANT,
        content=content,
        model=model,
        tool_calls=list(calls) or None,
        metadata=JSON({"finishReason": "tool_calls" if calls else "stop"}),
    )


def result(call: ToolCallInput, content: str) -> MessageInput:
    """Answer a tool call."""
    return MessageInput(role=Role.TOOL, content=content, tool_call_id=call.id, tool_name=call.name)


def fork_places(lineage: Sequence[MessageInput]) -> list[int]:
    """Give the versions after which the user speaks next, to fork before an edited message; else the latest version."""
    found = [version for version, message in enumerate(lineage) if message.role is Role.USER and version]
    return found or [len(lineage)]
