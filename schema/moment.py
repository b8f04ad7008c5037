"""What the steps of a plan read: one moment of the database, asked by calls that many steps send together."""

from db.call import Recorder
from schema.batches import Batches
from schema.health import Health
from schema.request import Request


class Moment:
    """One moment, for one request."""

    def __init__(self, request: Request, health: Health | None = None) -> None:
        self.request = request
        self.health = health
        self.recorder = Recorder()
        self.batches: Batches = request.batches(self.recorder)
