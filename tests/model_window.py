"""The reference model of windows: what a window is, in plain Python that looks at the whole history each time.

A *unit* is what must stay together: an assistant message with tool calls, through the last message that answers one of
them; a TOOL message whose call is unknown belongs to the unit of the message before it; any other message is a unit of
its own. Units overlap where calls do, and then they are one. So a window may start at a message exactly when that is no
TOOL message, and none at or after it answers a call made before it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Protocol


class Said(Protocol):
    """What the model needs to know of a message; `calls` are the ids of its tool calls."""

    @property
    def version(self) -> int: ...
    @property
    def role(self) -> str: ...
    @property
    def token_count(self) -> int: ...
    @property
    def calls(self) -> Sequence[str]: ...
    @property
    def answers(self) -> str | None: ...


@dataclass(frozen=True)
class Window:
    """What the service answers; `versions` stand for the messages."""

    versions: list[int]
    token_count: int
    truncated: bool
    from_version: int | None
    to_version: int | None
    minimum_budget: int


def window(visible: Sequence[Said], budget: int, step: int, *, keep_system: bool) -> Window:
    """Fit a window of what is visible, ascending by version."""
    run = system_run(visible) if keep_system else 0
    tip = tokens(visible)
    available = budget - tokens(visible[:run])
    valid = [place for place in range(run, len(visible)) if is_start(visible, place)]
    fitting = [place for place in valid if tokens(visible[place:]) <= available]
    if step > 0 and tip > budget and fitting:
        line = ceil((tip - available) / step) * step
        on_grid = [place for place in fitting if tokens(visible[:place]) >= line]
        fitting = on_grid or fitting[-1:]
    newest = tokens(visible[valid[-1] :]) if valid else 0
    suffix = visible[fitting[0] :] if fitting else []
    # `fitting` is empty where the run does not fit: nothing has fewer tokens than none.
    messages = [*visible[:run], *suffix] if available >= 0 else []
    return Window(
        versions=[message.version for message in messages],
        token_count=tokens(messages),
        truncated=len(messages) < len(visible),
        from_version=suffix[0].version if suffix else None,
        to_version=suffix[-1].version if suffix else None,
        minimum_budget=tokens(visible[:run]) + newest,
    )


def tokens(messages: Sequence[Said]) -> int:
    return sum(message.token_count for message in messages)


def system_run(visible: Sequence[Said]) -> int:
    """Count the SYSTEM messages at the very start."""
    return next((place for place, message in enumerate(visible) if message.role != "system"), len(visible))


def is_start(visible: Sequence[Said], place: int) -> bool:
    """Say whether a window may start at a place."""
    if visible[place].role == "tool":
        return False
    calls = [call_of(visible, later) for later in range(place, len(visible))]
    return all(call is None or call >= place for call in calls)


def call_of(visible: Sequence[Said], place: int) -> int | None:
    """Find the nearest message before a place that makes the call which the message there answers."""
    wanted = visible[place].answers
    if wanted is None:
        return None
    return next((earlier for earlier in range(place - 1, -1, -1) if wanted in visible[earlier].calls), None)


def units(visible: Sequence[Said]) -> list[list[int]]:
    """Cut a history into units, by their definition; TOOL messages that nothing stands before begin the first."""
    last_answer = list(range(len(visible)))
    for place in range(len(visible)):
        call = call_of(visible, place)
        if call is not None:
            last_answer[call] = place
    found: list[list[int]] = []
    end = -1
    for place, message in enumerate(visible):
        if found and (place <= end or (message.role == "tool" and call_of(visible, place) is None)):
            found[-1].append(place)
        else:
            found.append([place])
        end = max(end, last_answer[place])
    return found
