"""The service in this process without HTTP, with its subscriptions, so that tests see what waits where."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import copy
from typing import Any

from graphql_api.app import service_of
from graphql_api.json_body import encode
from graphql_api.operation import Operations, Parameters
from graphql_api.outcome import Outcome
from graphql_api.response_stream import ResponseStream
from graphql_api.settings import Settings
from schema.execute import Plans
from schema.principal import ANYBODY, Principal, Scope
from schema.request import Request
from schema.root import schema
from tests.client import Api, ApiError

# What takes longer has failed.
SECONDS_MAX = 20.0
MESSAGES = """subscription ($id: ID!, $after: Int) {
  messageAppended(contextId: $id, afterVersion: $after) { version latestVersion message { version content } }
}"""


class Stream:
    """One subscription."""

    def __init__(self, stream: ResponseStream) -> None:
        self.stream = stream

    async def next(self) -> Any:
        """Give the data of the next event; StopAsyncIteration at the end."""
        async with asyncio.timeout(SECONDS_MAX):
            body = json.loads(encode((await anext(self.stream)).body))
        if "errors" in body:
            raise ApiError(body)
        (value,) = body["data"].values()
        return value

    async def some(self, count: int) -> list[Any]:
        return [await self.next() for _ in range(count)]

    async def versions(self, count: int) -> list[int]:
        return [event["version"] for event in await self.some(count)]

    async def completed(self) -> bool:
        try:
            async with asyncio.timeout(SECONDS_MAX):
                return not [outcome.body async for outcome in self.stream]
        finally:
            await self.stream.aclose()


class Local(Api):
    """Executes operations over one service."""

    def __init__(self, settings: Settings) -> None:
        self.service = service_of(settings)
        self.live = self.service.live
        self.operations = Operations(
            schema._schema,  # noqa: SLF001 - graphql-core's own schema
            settings,
            Plans(schema) if settings.planned_reads else None,
        )
        self.principal = ANYBODY

    def seated(self, tenant_id: str) -> "Local":
        """Ask the same service as another tenant."""
        other = copy(self)
        other.principal = Principal(tenant_id, frozenset({Scope.WRITE}), "none")
        return other

    async def __call__(self, document: str, **variables: Any) -> dict[str, Any]:
        prepared = self.operations.prepare(Parameters(document, variables), self.principal)
        outcome = prepared if isinstance(prepared, Outcome) else await self.operations.answer(prepared, self._request)
        return _data(outcome)

    @asynccontextmanager
    async def subscribe(self, document: str, **variables: Any) -> AsyncIterator[Stream]:
        """Begin a subscription, and end it.

        Raises: ApiError.
        """
        prepared = self.operations.prepare(Parameters(document, variables), self.principal)
        found = prepared if isinstance(prepared, Outcome) else await self.operations.subscribe(prepared, self._request)
        if isinstance(found, Outcome):
            raise ApiError(json.loads(encode(found.body)))
        try:
            yield Stream(found)
        finally:
            await found.aclose()

    def _request(self) -> Request:
        return Request(self.service, self.principal)


def _data(outcome: Outcome) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(encode(outcome.body))
    if "errors" in body:
        raise ApiError(body)
    data: dict[str, Any] = body["data"]
    return data


@asynccontextmanager
async def local(settings: Settings, *, listening: bool = True) -> AsyncIterator[Local]:
    """Open a service; afterwards nobody may follow or watch."""
    api = Local(settings)
    await api.service.database.open()
    await api.service.database.lanes_ready(5)
    api.live.open()
    try:
        async with asyncio.timeout(SECONDS_MAX):
            while not (api.live.listening if listening else api.live.polling):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.005)
        yield api
        assert api.operations.subscriptions == 0
        assert api.live.feeds._feeds == {}  # noqa: SLF001 - nobody else can tell
        assert api.live.watches._named == {}  # noqa: SLF001
        assert api.live.watches._lists == {}  # noqa: SLF001
    finally:
        await api.live.close()
        await api.service.database.close()
