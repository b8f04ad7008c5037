"""A client that speaks ASGI with a GraphQL endpoint, and what holds of every answer."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from starlette.types import Message

from graphql_api.auth import Authenticator
from graphql_api.endpoint import GraphQLEndpoint
from graphql_api.media import GRAPHQL, JSON
from graphql_api.operation import Operations
from graphql_api.settings import Settings
from schema.errors import Code
from schema.principal import Principal
from tests.graphql_api.small_schema import SCHEMA, SECRET

BODY_BYTES_MAX = 1_000_000
SETTINGS = Settings(_env_file=None, body_bytes_max=BODY_BYTES_MAX)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@dataclass
class Contexts:
    """Gives each operation a context, and remembers what became of it; while there is a `gate`, when that is open."""

    enter: Exception | None = None
    leave: Exception | None = None
    gate: asyncio.Event | None = None
    seen: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, principal: Principal) -> AbstractAsyncContextManager[dict[str, Any]]:
        return self._open(principal)

    @asynccontextmanager
    async def _open(self, principal: Principal) -> AsyncIterator[dict[str, Any]]:
        if self.enter:
            raise self.enter
        context = {"tenant": principal.tenant_id, "written": False, "closed": False, "number": len(self.seen)}
        self.seen.append(context)
        try:
            if self.gate:
                await self.gate.wait()
            yield context
        finally:
            context["closed"] = True
        if self.leave:
            raise self.leave


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    # Server-Timing, which is never the same twice.
    stages: str | None = field(default=None, compare=False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Check what holds of every answer with errors; give the code of the first."""
        return code_of(self.status, self.headers, self.body)


def code_of(status: int, headers: Any, body: bytes) -> str:
    assert status != 500
    assert SECRET.encode() not in body
    assert b"Traceback" not in body
    assert headers["content-type"] in {f"{JSON}; charset=utf-8", f"{GRAPHQL}; charset=utf-8"}
    content = json.loads(body)
    assert set(content) <= {"errors", "data"}
    for error in content["errors"]:
        assert error["message"]
        Code(error["extensions"]["code"])
    return str(content["errors"][0]["extensions"]["code"])


class Client:
    """Speaks ASGI with an endpoint of its own."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.contexts = Contexts()
        self.operations = Operations(SCHEMA, settings)
        self.endpoint = GraphQLEndpoint(self.operations, Authenticator(), self.contexts, settings)

    async def send(self, method: str, body: bytes = b"", query_string: bytes = b"", **headers: str) -> Answer:
        pieces = [body[start : start + 65_536] for start in range(0, len(body), 65_536)] or [b""]
        messages: list[Message] = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
        messages[-1]["more_body"] = False
        return await self.deliver(method, messages, query_string, **headers)

    async def deliver(self, method: str, messages: list[Message], query_string: bytes = b"", **headers: str) -> Answer:
        sent: list[Message] = []

        async def receive() -> Message:
            return messages.pop(0)

        async def send(message: Message) -> None:
            sent.append(message)

        lines = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
        scope = {"type": "http", "method": method, "path": "/graphql", "query_string": query_string, "headers": lines}
        await self.endpoint(scope, receive, send)
        if not sent:
            return Answer(0, {}, b"")
        start, end = sent
        answered = {name.decode(): value.decode() for name, value in start["headers"]}
        stages = answered.pop("server-timing", None)
        return Answer(start["status"], answered, end["body"], stages)

    async def post(self, content: Any, **headers: str) -> Answer:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return await self.send("POST", body, b"", **{"content_type": JSON, **headers})

    async def get(self, method: str = "GET", accept: str = "", **values: str) -> Answer:
        headers = {"accept": accept} if accept else {}
        return await self.send(method, b"", urlencode(values).encode(), **headers)
