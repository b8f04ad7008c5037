"""Steps that fit windows."""

from collections.abc import Sequence
from typing import Any, cast
from uuid import UUID

from db.records import ContextRecord
from db.window import Frame
from schema import window as windows
from schema.context_snapshot import ContextSnapshot
from schema.message_steps import totals_of
from schema.moment import Early, Moment
from schema.step import Asked, Step
from schema.window import Window

# Windows that may run in the fast lane; of messages of some 20 tokens and more.
_LANE_BUDGET_MAX = 32_000
_WINDOW_MESSAGE_TOKENS = 20


async def _window(
    at: Moment,
    contexts: Sequence[ContextRecord],
    asked: Asked,
    budget: int,
    *,
    step: int | None = 0,
    keep_system: bool | None = True,
) -> list[Window]:
    frames = [windows.frame(context.id, None, None, budget, step, keep_system) for context in contexts]
    return await _fit(at, frames, [context.message_count for context in contexts], asked)


def _window_early(
    context_id: UUID,
    asked: Asked,
    budget: int,
    *,
    step: int | None = 0,
    keep_system: bool | None = True,
) -> Early:
    return Early(
        "windows", [windows.frame(context_id, None, None, budget, step, keep_system)], {"columns": asked.columns}
    )


async def _snapshot_window(
    at: Moment,
    snapshots: Sequence[ContextSnapshot],
    asked: Asked,
    budget: int,
    *,
    step: int | None = 0,
    keep_system: bool | None = True,
) -> list[Window]:
    totals = await totals_of(at, [snapshot.span for snapshot in snapshots])
    frames = [
        windows.frame(snapshot.record.id, snapshot.version, of.total_tokens, budget, step, keep_system)
        for snapshot, of in zip(snapshots, totals, strict=True)
    ]
    return await _fit(at, frames, [of.message_count for of in totals], asked)


async def _fit(at: Moment, frames: list[Frame], counts: list[int], asked: Asked) -> list[Window]:
    distinct = list(dict.fromkeys(frames))
    fitted = dict(zip(distinct, await at.ask("windows", distinct, columns=asked.columns), strict=True))
    messages_max = at.request.service.limits.window_messages_max
    return [
        windows.show(fitted[frame], frame.budget, count, messages_max, cast("list[Any]", fitted[frame].messages))
        for frame, count in zip(frames, counts, strict=True)
    ]


def _window_rows(*, budget: int, **_arguments: Any) -> int | None:
    return None if budget > _LANE_BUDGET_MAX else abs(budget) // _WINDOW_MESSAGE_TOKENS + 1


STEPS: dict[tuple[str, str], Step] = {
    ("Context", "window"): Step(_window, _window_rows, _window_early),
    ("ContextSnapshot", "window"): Step(_snapshot_window, _window_rows),
}
