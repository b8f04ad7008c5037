"""What every operation goes through on its way to be executed: it is paid for, its turn comes, and its time runs."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

from db.errors import StoreError
from graphql_api.admission import Admission
from graphql_api.deadlines import Deadline, Deadlines
from graphql_api.outcome import Outcome, refuse, unopened
from graphql_api.rates import Rates
from graphql_api.response_stream import OpenContext
from graphql_api.settings import Settings
from schema.errors import Code, Refusal, show

T = TypeVar("T")


class TooSlow(Refusal):
    """It took longer than is allowed."""

    code = Code.TIMEOUT


class Gate:
    """The gate of one process."""

    def __init__(self, settings: Settings, rates: Rates) -> None:
        self.admission = Admission(settings)
        self._rates = rates
        self._requests = Deadlines(settings.request_seconds)
        self._events = Deadlines(settings.subscription_seconds)

    async def run(
        self, execute: Callable[[], Awaitable[T]], tenant_id: str, points: int, *, changing: bool = False
    ) -> T | Outcome:
        """Execute an operation of a tenant that costs so much, or say why not.

        `changing` says whether it may leave something behind when it is stopped.
        """
        try:
            self._rates.check(tenant_id, points)
            async with self.admission.turn(tenant_id):
                await self._rates.charge(tenant_id, points)
                with Deadline(self._requests) as time:
                    return await execute()
        except TimeoutError:
            if not time.expired:
                raise
            return self._stopped(changing=changing)
        except Refusal as refusal:
            return refuse(refusal)
        except StoreError as error:
            return unopened(error)

    @asynccontextmanager
    async def event(self, open_context: OpenContext, tenant_id: str, points: int) -> AsyncIterator[object]:
        """Open the context of an event when the tenant can pay for it and its turn has come: none is lost.

        Raises: TooSlow; what `open_context` raises.
        """
        await self._rates.delay(tenant_id, points)
        async with self.admission.turn(tenant_id, event=True):
            try:
                with Deadline(self._events) as time:
                    async with open_context() as context:
                        yield context
            except TimeoutError:
                if not time.expired:
                    raise
                message = (
                    f"An event took longer than {self._events.seconds:g} seconds, the most allowed"
                    " (FORKPOINT_SUBSCRIPTION_SECONDS), and was stopped. Ask for less, or subscribe again after the"
                    " last version."
                )
                raise TooSlow(message) from None

    def _stopped(self, *, changing: bool) -> Outcome:
        """Answer what was executed for too long: by now it is undone, all but what was just being committed."""
        advice = (
            "Some of its changes may be stored: try again with the same idempotency keys; without them, read first."
            if changing
            else "Ask for less, or try again."
        )
        seconds = f"{self._requests.seconds:g} seconds, the most allowed (FORKPOINT_REQUEST_SECONDS), and was stopped."
        error = show(TooSlow(f"It took longer than {seconds} {advice}"))
        return Outcome({"errors": [error], "data": None}, "executed", "resolved")
