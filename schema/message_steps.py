"""Steps that give messages, or count them: of contexts, snapshots and sides of a difference."""

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, cast
from uuid import UUID

import orjson

import db.context
from db.errors import Unforeseen
from db.records import ContextRecord, MessageRecord
from schema.connection import OF_PAGE, PAGE_MAX
from schema.context import one_message
from schema.context_snapshot import ContextSnapshot
from schema.diff import DiffSide
from schema.message import MessageConnection, Role, Span, SpanTotals, page_of, whole
from schema.moment import Early, Moment
from schema.step import Asked, Edge, Step, derived, one, page_rows


class MessagePage(NamedTuple):
    """A page of messages, with one more where there is more."""

    connection: MessageConnection
    found: list[MessageRecord]

    @property
    def shown(self) -> list[MessageRecord]:
        """Those of the page."""
        return self.connection.cut(self.found)


class _PageArguments(NamedTuple):
    first: int | None = None
    after: str | None = None
    last: int | None = None
    before: str | None = None
    roles: list[Role] | None = None


async def _pages(at: Moment, connections: list[MessageConnection], asked: Asked) -> list[MessagePage]:
    found: list[list[MessageRecord]] = [[] for _ in connections]
    if asked.fields & OF_PAGE:
        found = await at.ask("lineages", [connection.page for connection in connections], columns=asked.columns)
    return [MessagePage(connection, page) for connection, page in zip(connections, found, strict=True)]


async def _messages(at: Moment, contexts: Sequence[ContextRecord], asked: Asked, **arguments: Any) -> list[MessagePage]:
    page, most = _PageArguments(**arguments), at.request.service.limits.page_size_max
    return await _pages(at, [page_of(whole(context), most, *page) for context in contexts], asked)


def _messages_early(context_id: UUID, asked: Asked, **arguments: Any) -> Early | None:
    if not asked.fields & OF_PAGE:
        return None
    # What is asked too early for the setting is refused when it is shown.
    connection = page_of(whole(_known_by_id(context_id)), PAGE_MAX, *_PageArguments(**arguments))
    return Early("lineages", [connection.page], {"columns": asked.columns})


async def _span_messages(
    at: Moment, holders: Sequence[ContextSnapshot | DiffSide], asked: Asked, **arguments: Any
) -> list[MessagePage]:
    page, most = _PageArguments(**arguments), at.request.service.limits.page_size_max
    return await _pages(at, [page_of(holder.span, most, *page) for holder in holders], asked)


def _known_by_id(context_id: UUID) -> ContextRecord:
    """Stand for a context of which only the id matters."""
    moment = db.context.EARLIEST
    return ContextRecord(context_id, context_id, None, {}, moment, moment, None, 0, 0, 0, None, None, 0)


def _message_edges(_at: Moment, pages: Sequence[MessagePage], asked: Asked) -> list[list[Edge]]:
    told = "cursor" in asked.fields
    return [
        [Edge(page.connection.cursor(record.version) if told else None, record) for record in page.shown]
        for page in pages
    ]


async def _count_messages(at: Moment, pages: Sequence[MessagePage], _asked: Asked) -> list[int]:
    counts = [page.connection.role_count for page in pages]
    wanted = [count for count in counts if count is not None]
    if wanted:  # then of all, for the argument is one
        return await at.batches.role_counts(wanted)
    return [totals.message_count for totals in await totals_of(at, [page.connection.span for page in pages])]


async def totals_of(at: Moment, spans: list[Span]) -> list[SpanTotals]:
    """Count what each span holds."""
    keys = list(dict.fromkeys(key for span in spans for key in span.totals_keys()))
    loaded = dict(zip(keys, await at.batches.totals(keys), strict=True)) if keys else {}
    return [span.totals_of(loaded) for span in spans]


async def _span_count(at: Moment, holders: Sequence[ContextSnapshot | DiffSide], _asked: Asked) -> list[int]:
    return [totals.message_count for totals in await totals_of(at, [holder.span for holder in holders])]


async def _span_tokens(at: Moment, holders: Sequence[ContextSnapshot | DiffSide], _asked: Asked) -> list[int]:
    return [totals.total_tokens for totals in await totals_of(at, [holder.span for holder in holders])]


async def _message(
    at: Moment, contexts: Sequence[ContextRecord], asked: Asked, version: int
) -> list[MessageRecord | None]:
    pages = [page for context in contexts if (page := one_message(context.id, version))]
    if not pages:
        return [None] * len(contexts)
    return [page[0] if page else None for page in await at.ask("lineages", pages, columns=asked.columns)]


def _message_early(context_id: UUID, asked: Asked, version: int) -> Early | None:
    page = one_message(context_id, version)
    return Early("lineages", [page], {"columns": asked.columns}) if page else None


# orjson makes floats of integers over 64 bits.
_LONG_NUMBER = re.compile(rb"[0-9]{19}")


class _Call(NamedTuple):
    """A tool call, as a plain object."""

    id: str
    name: str
    arguments: Any


def _tool_calls(_at: Moment, messages: Sequence[MessageRecord], _asked: Asked) -> list[list[_Call]]:
    return [_calls(cast("bytes", message.tool_calls)) if message.tool_calls else [] for message in messages]


def _calls(stored: bytes) -> list[_Call]:
    """Read calls as they are stored. What the schema does not allow, and only an import stores, is for resolvers."""
    exact = _LONG_NUMBER.search(stored) is not None
    calls: list[_Call] = []
    for call in json.loads(stored) if exact else orjson.loads(stored):
        arguments = call["arguments"]
        if arguments is None:
            raise Unforeseen("a tool call has null for arguments")
        calls.append(_Call(call["id"], call["name"], _as_text(arguments) if exact else arguments))
    return calls


def _as_text(value: Any) -> orjson.Fragment:
    """Write what orjson would not."""
    return orjson.Fragment(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


STEPS: dict[tuple[str, str], Step] = {
    ("Context", "messages"): Step(_messages, page_rows, _messages_early),
    ("Context", "message"): Step(_message, one, _message_early),
    ("ContextSnapshot", "messageCount"): Step(_span_count, one),
    ("ContextSnapshot", "totalTokens"): Step(_span_tokens, one),
    ("ContextSnapshot", "messages"): Step(_span_messages, page_rows),
    ("DiffSide", "messageCount"): Step(_span_count, one),
    ("DiffSide", "totalTokens"): Step(_span_tokens, one),
    ("DiffSide", "messages"): Step(_span_messages, page_rows),
    ("Message", "toolCalls"): derived(_tool_calls),
    ("MessageConnection", "edges"): derived(_message_edges),
    ("MessageConnection", "totalCount"): Step(_count_messages, one, seldom=True),
}
