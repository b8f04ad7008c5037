"""Windows: the newest part of a lineage that fits a budget of tokens and can be sent to a model as it is."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from db import queries
from db.pool import Reader
from db.records import EVERY_COLUMN, Columns, MessageRecord, make_message

_QUERIES = queries.load("window")


@dataclass(frozen=True, slots=True)
class Frame:
    """Which window: of a lineage through a version, which holds so many visible tokens, for a budget of tokens.

    Both None is the whole lineage. `step` tokens is the grid that the suffix begins on, 0 for none.
    """

    context_id: UUID
    version: int | None
    total_tokens: int | None
    budget: int
    step: int
    keep_system: bool


@dataclass(frozen=True, slots=True)
class Fitted:
    """A window: its messages in version order, those from `start_version` on being its suffix (None when it is empty).

    `minimum_budget` tokens would hold the kept run and the newest suffix that is valid.
    """

    start_version: int | None
    minimum_budget: int
    messages: list[MessageRecord]


async def fit(
    reader: Reader, tenant_id: str, frames: Sequence[Frame], limit: int, columns: Columns = EVERY_COLUMN
) -> list[Fitted]:
    """Give each window, with its first `limit` messages; that of an unknown context is empty.

    Source: window.fit, and in it the function fit_window.
    """
    rows = await reader.fetch(
        _QUERIES["fit"],
        tenant_id,
        [frame.context_id for frame in frames],
        [frame.version for frame in frames],
        [frame.total_tokens for frame in frames],
        [frame.budget for frame in frames],
        [frame.step for frame in frames],
        [frame.keep_system for frame in frames],
        limit,
        *columns,
    )
    fitted: dict[int, Fitted] = {}
    last = 0
    for row in rows:
        if row[0] != last:
            last = row[0]
            messages: list[MessageRecord] = []
            fitted[last] = Fitted(row[1], row[2], messages)
        if row[3] is not None:
            messages.append(make_message(row[3:]))
    return [fitted.get(ordinal) or Fitted(None, 0, []) for ordinal in range(1, len(frames) + 1)]
