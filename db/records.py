"""Rows as the rest of the code sees them: fields in the order of the columns that the queries name."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True)
class ContextRecord:
    """A row of `contexts`, without the columns that only lineage queries need."""

    id: UUID
    root_id: UUID
    name: str | None
    metadata: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None
    latest_version: int
    message_count: int
    total_tokens: int
    parent_id: UUID | None
    fork_version: int | None
    depth: int


@dataclass(frozen=True, slots=True)
class MessageRecord:
    """A row of `messages`. `context_id` is the context that stores it, whoever reads it."""

    id: UUID
    context_id: UUID
    version: int
    created_at: datetime
    role: str
    token_count: int
    deleted_at: datetime | None
    content: str
    tool_calls: list[dict[str, Any]] | None
    tool_call_id: str | None
    tool_name: str | None
    model: str | None
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to append: checked, counted, its JSON as text. `role` is in lower case."""

    id: UUID
    role: str
    content: str
    tool_calls: str | None
    tool_call_id: str | None
    tool_name: str | None
    token_count: int
    model: str | None
    metadata: str
