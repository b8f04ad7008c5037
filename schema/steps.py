"""All steps by type and field, as the schema names them; a test holds them to the schema's resolvers."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from db.call import together
from db.records import NO_LARGE_COLUMN, ContextRecord, MessageRecord
from schema import api_key_steps, context_steps, message_steps, window_steps
from schema.batches import LineagePage
from schema.connection import PageInfo
from schema.context_event import ContextEvent
from schema.context_snapshot import ContextSnapshot
from schema.context_steps import ContextPage
from schema.diff import DiffSide
from schema.health import Health
from schema.message_event import MessageEvent
from schema.message_steps import MessagePage
from schema.moment import Moment
from schema.query import read_ids
from schema.scalar import read_id
from schema.step import Asked, Step, derived, one, shown

_CURSORS = frozenset({"startCursor", "endCursor"})


def _health(at: Moment, _objects: Sequence[None], _asked: Asked) -> list[Health | None]:
    return [at.health]


async def _node(
    at: Moment,
    _objects: Sequence[None],
    asked: Asked,
    id: str,  # noqa: A002 - the contract
) -> list[ContextRecord | MessageRecord | None]:
    (found,) = await _load_nodes(at, [read_id(id, "id")], asked)
    return [found]


async def _nodes(
    at: Moment, _objects: Sequence[None], asked: Asked, ids: list[str]
) -> list[list[ContextRecord | MessageRecord | None]]:
    return [await _load_nodes(at, read_ids(ids, at.request.service.limits.page_size_max), asked)]


async def _load_nodes(at: Moment, keys: list[UUID], asked: Asked) -> list[ContextRecord | MessageRecord | None]:
    contexts, messages = await together(
        at.batches.contexts(keys, metadata=asked.metadata), at.batches.messages(keys, asked.columns)
    )
    return [
        shown(context) or (None if message is None or message.deleted_at is not None else message)
        for context, message in zip(contexts, messages, strict=True)
    ]


def _page_nodes(
    _at: Moment, pages: Sequence[ContextPage | MessagePage], _asked: Asked
) -> list[list[ContextRecord] | list[MessageRecord]]:
    return [page.shown for page in pages]


def _page_info(_at: Moment, pages: Sequence[ContextPage | MessagePage], asked: Asked) -> list[PageInfo]:
    cursors = not asked.fields.isdisjoint(_CURSORS)
    return [page.connection.placed(page.found, cursors=cursors) for page in pages]  # type: ignore[arg-type] # each finds its own


async def _has_previous(at: Moment, infos: Sequence[PageInfo], _asked: Asked) -> list[bool]:
    return await _any(at, [info.previous for info in infos])


async def _has_next(at: Moment, infos: Sequence[PageInfo], _asked: Asked) -> list[bool]:
    return await _any(at, [info.next for info in infos])


async def _any(at: Moment, sides: list[bool | LineagePage]) -> list[bool]:
    """Look where it is not known whether there is more."""
    unknown = [side for side in sides if not isinstance(side, bool)]
    found = dict(zip(unknown, await at.batches.lineages(unknown, NO_LARGE_COLUMN), strict=True)) if unknown else {}
    return [side if isinstance(side, bool) else bool(found[side]) for side in sides]


def _record(_at: Moment, holders: Sequence[ContextSnapshot | DiffSide], _asked: Asked) -> list[ContextRecord]:
    return [holder.record for holder in holders]


def _event(_at: Moment, events: list[Any], _asked: Asked, **_arguments: Any) -> list[Any]:
    return events


def _event_message(_at: Moment, events: Sequence[MessageEvent], _asked: Asked) -> list[MessageRecord]:
    return [event.record for event in events]


def _event_context(_at: Moment, events: Sequence[ContextEvent], _asked: Asked) -> list[ContextRecord]:
    return [event.record for event in events]


def _event_fork(_at: Moment, events: Sequence[ContextEvent], _asked: Asked) -> list[ContextRecord | None]:
    return [event.fork_record for event in events]


def _count_rows(**arguments: Any) -> int:
    return len(arguments["ids"])


STEPS: dict[tuple[str, str], Step] = (
    {
        ("Query", "node"): Step(_node, one),
        ("Query", "nodes"): Step(_nodes, _count_rows),
        ("Query", "health"): derived(_health),
        # The event stands at the root.
        ("Subscription", "messageAppended"): derived(_event),
        ("Subscription", "contextChanged"): derived(_event),
        ("Subscription", "contextsChanged"): derived(_event),
        ("MessageEvent", "message"): derived(_event_message),
        ("ContextEvent", "context"): derived(_event_context),
        ("ContextEvent", "fork"): derived(_event_fork),
        ("ContextConnection", "nodes"): derived(_page_nodes),
        ("ContextConnection", "pageInfo"): derived(_page_info),
        ("ContextSnapshot", "context"): derived(_record),
        ("DiffSide", "context"): derived(_record),
        ("MessageConnection", "nodes"): derived(_page_nodes),
        ("MessageConnection", "pageInfo"): derived(_page_info),
        ("PageInfo", "hasPreviousPage"): Step(_has_previous, one, seldom=True),
        ("PageInfo", "hasNextPage"): Step(_has_next, one, seldom=True),
    }
    | api_key_steps.STEPS
    | context_steps.STEPS
    | message_steps.STEPS
    | window_steps.STEPS
)
