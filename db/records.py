"""Rows as the rest of the code sees them: fields in the order of the columns that the queries name.

Named tuples, because a page makes many: one costs 0.3 microseconds, where a frozen dataclass of so many fields took 2.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple
from uuid import UUID


class Columns(NamedTuple):
    """Which columns of messages that may be large to read. Those that are not read come as None."""

    content: bool = True
    tool_calls: bool = True
    metadata: bool = True


EVERY_COLUMN = Columns()
NO_LARGE_COLUMN = Columns(content=False, tool_calls=False, metadata=False)


class ContextRecord(NamedTuple):
    """A row of `contexts`, without the columns that only lineage queries need. `metadata` only where it was read."""

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


class MessageRecord(NamedTuple):
    """A row of `messages`. `context_id` is the context that stores it, whoever reads it.

    `content`, `tool_calls` and `metadata` only where the `Columns` said so. JSON comes as Python's values from the
    pool, and from the fast lane as the bytes that PostgreSQL sent.
    """

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


# Makes a record of the columns of a row. Without `_make`, which counts them again, it takes half as long.
make_message: Callable[[tuple[Any, ...]], MessageRecord] = partial(tuple.__new__, MessageRecord)


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
