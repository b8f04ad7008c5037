"""What the steps of a plan read: one moment of the database, asked by calls that many steps send together."""

from dataclasses import dataclass, field
from typing import Literal

from db.call import Call, Recorder
from schema.batches import Batches
from schema.health import Health
from schema.request import Request

Way = Literal["one flush", "a lease", "the pool"]


@dataclass(slots=True)
class Trace:
    """How a plan was run, for whoever wants to know: over what, and what was asked flush by flush."""

    way: Way | None = None
    flushes: list[list[Call]] = field(default_factory=list)


class Moment:
    """One moment, for one request."""

    def __init__(self, request: Request, health: Health | None = None, trace: Trace | None = None) -> None:
        self.request = request
        self.health = health
        self.trace = trace
        self.recorder = Recorder()
        self.batches: Batches = request.batches(self.recorder)
