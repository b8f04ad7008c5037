"""What the steps of a plan read: one moment of the database, asked by calls that many steps send together."""

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from db.call import Asking, Call, Recorder
from schema.batches import Batches
from schema.health import Health
from schema.request import Request

Way = Literal["one flush", "a lease", "the pool"]


@dataclass(slots=True)
class Trace:
    """How a plan was run, for whoever wants to know: over what, and what was asked flush by flush."""

    way: Way | None = None
    flushes: list[list[Call]] = field(default_factory=list)


class Early(NamedTuple):
    """What is asked of a batch: its name, the keys, and how it is to read them."""

    batch: str
    keys: list[Any]
    how: dict[str, Any]


# It holds nothing.
_RECORDER = Recorder()


class Moment:
    """One moment, for one request, or for one event of a subscription."""

    def __init__(
        self, request: Request, health: Health | None = None, trace: Trace | None = None, event: object = None
    ) -> None:
        self.event = event
        self.request = request
        self.health = health
        self.trace = trace
        self.batches: Batches = request.batches(_RECORDER)
        self._early: list[tuple[Early, list[Any]]] = []

    def asking(self, early: Early) -> Asking[list[Any]]:
        """Ask a batch before anybody needs it."""
        asking: Asking[list[Any]] = getattr(self.batches, early.batch)(early.keys, **early.how)
        return asking

    def remember(self, early: Early, found: list[Any]) -> list[Any]:
        """Keep what was found early for whoever asks the same; nothing else is to be done with it now."""
        self._early.append((early, found))
        return []

    async def ask(self, batch: str, keys: list[Any], **how: Any) -> list[Any]:
        """Ask a batch, unless that was done early."""
        wanted = Early(batch, keys, how)
        for early, found in self._early:
            if early == wanted:
                return found
        return await self.asking(wanted)
