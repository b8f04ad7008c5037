"""The small schema over real sockets, served as the service is, from the event loop of the test."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import uvicorn
from starlette.applications import Starlette
from websockets.asyncio.client import ClientConnection, connect

from graphql_api.app import _App
from graphql_api.auth import Authenticator
from graphql_api.endpoint import GraphQLEndpoint
from graphql_api.log import RequestLog
from graphql_api.operation import Operations
from graphql_api.server import configure
from graphql_api.settings import Settings
from graphql_api.websocket import PROTOCOL, WebSocketEndpoint
from tests.graphql_api.asking import SETTINGS, Contexts
from tests.graphql_api.small_schema import SCHEMA

# Longer than anything here takes; what waits for so long has failed.
SECONDS_MAX = 20.0


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what comes about by itself."""
    async with asyncio.timeout(SECONDS_MAX):
        while not holds():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


class Socket:
    """A client that speaks the protocol frame by frame."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, frame: Any) -> None:
        await self.connection.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))

    async def receive(self) -> Any:
        return json.loads(await asyncio.wait_for(self.connection.recv(), SECONDS_MAX))

    async def init(self) -> "Socket":
        await self.send({"type": "connection_init"})
        assert await self.receive() == {"type": "connection_ack"}
        return self

    async def subscribe(self, query: str, operation_id: str = "1", **payload: Any) -> None:
        await self.send({"id": operation_id, "type": "subscribe", "payload": {"query": query, **payload}})

    async def next(self, operation_id: str = "1") -> Any:
        """Receive what an operation gave."""
        message = await self.receive()
        assert message == {"id": operation_id, "type": "next", "payload": message["payload"]}
        return message["payload"]

    async def error(self, operation_id: str = "1") -> str:
        """Receive the code of the error that ends an operation."""
        message = await self.receive()
        assert message == {"id": operation_id, "type": "error", "payload": message["payload"]}
        return str(message["payload"][0]["extensions"]["code"])

    async def completed(self, operation_id: str = "1") -> bool:
        return bool(await self.receive() == {"id": operation_id, "type": "complete"})

    async def closed(self) -> tuple[int | None, str | None]:
        """Wait until the server has closed; gives its code and reason."""
        await asyncio.wait_for(self.connection.wait_closed(), SECONDS_MAX)
        return self.connection.close_code, self.connection.close_reason


class Served:
    """The service, and what of it is open."""

    def __init__(self, settings: Settings, port: int = 0) -> None:
        self.settings = settings
        self.stopping = asyncio.Event()
        self.operations = Operations(SCHEMA, settings)
        self.contexts = Contexts()
        self.listener = socket.create_server(("127.0.0.1", port))
        self.port: int = self.listener.getsockname()[1]
        self.clients = AsyncExitStack()
        endpoint = GraphQLEndpoint(self.operations, Authenticator(), self.contexts, settings, self.stopping)
        websocket = WebSocketEndpoint(self.operations, Authenticator(), self.contexts, settings)
        self.server = uvicorn.Server(configure(self._app(endpoint, websocket), settings))
        self._running = asyncio.create_task(self._serve())

    def _app(self, endpoint: GraphQLEndpoint, websocket: WebSocketEndpoint) -> Starlette:
        @asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncIterator[dict[str, Any]]:
            yield {"stopping": self.stopping, "admission": self.operations.admission}

        return _App(RequestLog(endpoint), RequestLog(websocket), lifespan=lifespan)

    async def _serve(self) -> None:
        await self.server._serve([self.listener])  # noqa: SLF001 - without its handlers of signals

    async def ready(self) -> None:
        await until(lambda: self.server.started)

    async def stop(self) -> None:
        """Stop as at a signal."""
        self.server.should_exit = True
        await asyncio.wait_for(self._running, SECONDS_MAX)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/graphql"

    async def connect(self, **options: Any) -> Socket:
        options = {"subprotocols": [PROTOCOL], "compression": None, "max_size": None} | options
        url = options.pop("url", f"ws://127.0.0.1:{self.port}/graphql")
        return Socket(await self.clients.enter_async_context(connect(url, **options)))

    async def http(self) -> httpx2.AsyncClient:
        """Speak HTTP, over connections of one's own."""
        return await self.clients.enter_async_context(httpx2.AsyncClient(base_url=self.url, timeout=SECONDS_MAX))

    async def socket(self, **options: Any) -> Socket:
        """Connect, and be let in."""
        return await (await self.connect(**options)).init()

    async def quiet(self) -> None:
        """Wait until nothing is left: no subscription, no source, no context, no task or turn of a request."""
        state = self.server.server_state
        await until(lambda: not (state.tasks or self.operations.subscriptions or self.open))
        await until(lambda: self.operations.admission.idle)

    @property
    def open(self) -> int:
        """How many contexts are open."""
        return sum(not seen["closed"] or seen.get("source") == "open" for seen in self.contexts.seen)


@asynccontextmanager
async def listening(app: Starlette, settings: Settings) -> AsyncIterator[int]:
    """Serve an application, and give the port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        # As uvloop does: two small writes in a row do not wait for each other.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = uvicorn.Server(configure(app, settings))
        running = asyncio.create_task(server._serve([listener]))  # noqa: SLF001 - without its handlers of signals
        await until(lambda: server.started or running.done())
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await asyncio.wait_for(running, SECONDS_MAX)


@asynccontextmanager
async def serving(*, port: int = 0, alone: bool = True, **settings: Any) -> AsyncIterator[Served]:
    """Serve the small schema; afterwards nothing may be left: no task either, unless the test is not `alone`."""
    before = asyncio.all_tasks()
    served = Served(SETTINGS.model_copy(update=settings), port)
    await served.ready()
    try:
        yield served
    finally:
        await served.stop()
        await served.clients.aclose()
    await served.quiet()
    await until(lambda: not alone or not asyncio.all_tasks() - before - {asyncio.current_task()})
