"""Two tenants of one service: who asks is told by a token, and each has a world that is full of what can be named."""

import base64
import json
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import psycopg
from joserfc import jwt
from joserfc.jwk import OctKey
from psycopg import sql
from pydantic import SecretStr
from starlette.applications import Starlette
from websockets.asyncio.client import connect

from graphql_api.app import create_app
from graphql_api.settings import Authentication, Settings
from graphql_api.websocket import PROTOCOL
from tests.client import Api
from tests.conftest import as_service
from tests.db.tenancy import STORE
from tests.graphql_api.serving import Socket, listening
from tests.schema import calls
from tests.schema.calls import say

SECRET = "a secret of thirty-two bytes, or more"
ISSUER, AUDIENCE = "https://issuer.example", "forkpoint"
Json = dict[str, Any]


def token(tenant_id: str, *scopes: str) -> str:
    """Make the token of a tenant."""
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": f"user of {tenant_id}",
        "tenant": tenant_id,
        "scope": " ".join(scopes),
        "exp": int(time.time()) + 3600,
    }
    return jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(SECRET))


def with_tokens(settings: Settings, **chosen: Any) -> Settings:
    """Let only those in who have a token."""
    return settings.model_copy(
        update={
            "authentication": (Authentication.KEYS, Authentication.JWT),
            "jwt_key": SecretStr(SECRET),
            "jwt_algorithms": ("HS256",),
            "jwt_issuer": ISSUER,
            "jwt_audience": AUDIENCE,
            # Documents that ask for everything are not what is refused here.
            "cost_rows_max": 1_000_000_000,
            "cost_bytes_max": 1_000_000_000_000,
        }
        | chosen
    )


class Tenant(Api):
    """A caller with a credential of one tenant, over connections of its own."""

    def __init__(self, http: httpx2.AsyncClient, clients: AsyncExitStack, tenant_id: str) -> None:
        super().__init__(http)
        self.tenant_id = tenant_id
        self._clients = clients

    async def socket(self) -> Socket:
        """Open a WebSocket, and be let in."""
        headers = {"authorization": self.http.headers["authorization"]}
        return await (await opened(self._clients, str(self.http.base_url), headers)).init()


async def opened(clients: AsyncExitStack, url: str, headers: dict[str, str]) -> Socket:
    """Open a WebSocket that lasts as long as the clients."""
    options: dict[str, Any] = {"subprotocols": [PROTOCOL], "compression": None, "max_size": None}
    url = f"{url.replace('http', 'ws', 1).rstrip('/')}/graphql"
    return Socket(await clients.enter_async_context(connect(url, additional_headers=headers, **options)))


class Tenants:
    """The service in this process, and on a port for WebSockets, to be called as anybody."""

    def __init__(self, app: Starlette, port: int, clients: AsyncExitStack) -> None:
        self.app = app
        self.url = f"http://127.0.0.1:{port}"
        self._clients = clients

    async def socket(self) -> Socket:
        """Open a WebSocket as nobody."""
        return await opened(self._clients, self.url, {})

    async def tenant(self, tenant_id: str, *scopes: str) -> Tenant:
        """Speak as a tenant, with all that it may do unless `scopes` are given."""
        headers = {"authorization": f"Bearer {token(tenant_id, *(scopes or ('admin',)))}"}
        transport = httpx2.ASGITransport(app=self.app, raise_app_exceptions=False)
        client = httpx2.AsyncClient(transport=transport, base_url=self.url, headers=headers, timeout=60)
        http = await self._clients.enter_async_context(client)
        return Tenant(http, self._clients, tenant_id)


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[Tenants]:
    """Serve, to those who have a token, as a role that row security binds if it is on."""
    assert settings.database_url is not None
    url = SecretStr(as_service(settings.database_url.get_secret_value()))
    app = create_app(settings.model_copy(update={"database_url": url}))
    async with listening(app, settings) as port, AsyncExitStack() as clients:
        await app.state.database.lanes_ready(5)
        yield Tenants(app, port, clients)


@dataclass
class World:
    """What a tenant has, by what may be sent of it."""

    tenant: Tenant
    # Stands in every text that the tenant has stored.
    canary: str
    # By what they are: `root`, `long`, `fork`, `deleted` and others.
    contexts: dict[str, str] = field(default_factory=dict)
    messages: dict[str, str] = field(default_factory=dict)
    api_keys: dict[str, str] = field(default_factory=dict)
    cursors: dict[str, str] = field(default_factory=dict)
    # What nobody may ever be told.
    secrets: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    moment: str = ""

    @classmethod
    def nobodys(cls) -> "World":
        """Give one of which only the shape is wanted."""
        nobody = Tenant(httpx2.AsyncClient(), AsyncExitStack(), "nobody")
        return cls(nobody, "nobody", contexts={"root": "", "fork": ""})

    @property
    def ids(self) -> list[str]:
        """Every id."""
        return [*self.contexts.values(), *self.messages.values(), *self.api_keys.values()]

    def text(self, what: str) -> str:
        """Write a text of the tenant's own."""
        return f"{self.canary}-{what}"

    def message(self, role: str, what: str, **more: Any) -> Json:
        """Write a message whose every text is the tenant's own."""
        metadata = {self.text(f"{what}-label"): [self.text(f"{what}-value")]}
        return say(self.text(what), role=role, model=self.text(f"{what}-model"), metadata=metadata) | more

    def call(self, what: str) -> Json:
        """Write a message that calls a tool."""
        name, arguments = self.text(f"{what}-tool"), {self.text(f"{what}-parameter"): self.text(f"{what}-argument")}
        self.calls.append(self.text(f"{what}-call"))
        return self.message("ASSISTANT", what, toolCalls=[{"id": self.calls[-1], "name": name, "arguments": arguments}])

    def result(self, what: str) -> Json:
        """Write the result of such a call."""
        return self.message(
            "TOOL", f"{what}-result", toolCallId=self.text(f"{what}-call"), toolName=self.text(f"{what}-tool")
        )

    def key(self, what: str) -> str:
        """Choose an idempotency key."""
        self.keys.append(self.text(f"{what}-key"))
        return self.keys[-1]


async def settle(tenant: Tenant, canary: str, *, versions: int) -> World:
    """Fill a tenant: `versions` is how long its longest context is, so that versions tell tenants apart."""
    world = World(tenant, canary)
    made = world.contexts
    beginning = [world.message("SYSTEM", "rules"), world.message("USER", "asks"), world.call("first")]
    named = {"name": world.text("root"), "metadata": {world.text("label"): world.text("value")}}
    made["root"] = (await calls.create(tenant, *beginning, **named, idempotencyKey=world.key("create")))["id"]
    batch = [world.result("first"), world.call("second"), world.result("second"), world.message("USER", "thanks")]
    await calls.append(tenant, made["root"], *batch, idempotencyKey=world.key("append"))
    await calls.delete_message(tenant, made["root"], 2)
    for name, parent, version in (
        ("fork", "root", 5),
        ("deep", "fork", 4),
        ("sibling", "root", None),
        ("none", "root", 0),
    ):
        given = {"name": world.text(name), "metadata": {"of": world.text(f"{name}-fork")}}
        key = world.key(name)
        made[name] = (await calls.fork(tenant, made[parent], version, **given, idempotencyKey=key))["id"]
    for name in ("fork", "deep"):
        await calls.append(tenant, made[name], world.call(f"{name}-own"), world.result(f"{name}-own"))
    branched = await calls.append(
        tenant, made["root"], world.message("USER", "late"), expectedVersion=3, onConflict="FORK"
    )
    made["branch"] = branched["context"]["id"]
    copied = await calls.mutate(
        tenant, "copyContext", "context { id }", contextId=made["fork"], name=world.text("copy")
    )
    made["copy"] = copied["context"]["id"]
    # One that nothing hangs below, and one that a fork goes on reading.
    made["deleted"] = (await calls.create(tenant, world.message("USER", "gone"), name=world.text("deleted")))["id"]
    made["buried"] = (await calls.create(tenant, world.message("USER", "buried"), name=world.text("buried")))["id"]
    made["orphan"] = (await calls.fork(tenant, made["buried"], 1, name=world.text("orphan")))["id"]
    for name in ("deleted", "buried"):
        await calls.delete(tenant, made[name])
    await calls.update(tenant, made["sibling"], name=world.text("renamed"))
    for name in ("living", "revoked"):
        made_key = await calls.mutate(
            tenant, "createApiKey", "key apiKey { id }", name=world.text(f"{name}-key"), scopes=["READ"]
        )
        world.api_keys[name] = made_key["apiKey"]["id"]
        world.secrets.append(made_key["key"])
    await calls.mutate(tenant, "revokeApiKey", "apiKey { id }", id=world.api_keys["revoked"])
    made["long"] = (await calls.create(tenant, *(world.message("USER", f"line-{n}") for n in range(versions))))["id"]
    await learn(world)
    return world


def rows(database_url: str, tenant_id: str | None = None) -> list[Any]:
    """Give all that is stored, of one tenant or of all."""
    with psycopg.connect(database_url) as connection:
        return [
            row
            for table in sorted(STORE.tables)
            for row in connection.execute(
                sql.SQL(
                    "select to_jsonb(t) from {} t where %(tenant)s::text is null or tenant_id = %(tenant)s order by 1"
                ).format(sql.Identifier(table)),
                {"tenant": tenant_id},
            )
        ]


CURSORS = """query ($root: ID!, $other: ID!, $direction: OrderDirection!) {
  byUpdate: contexts(orderBy: {field: UPDATED_AT, direction: $direction}) { edges { cursor node { updatedAt } } }
  byAge: contexts(orderBy: {field: CREATED_AT, direction: $direction}) { edges { cursor } }
  apiKeys { edges { cursor } }
  byName: contexts(orderBy: {field: NAME, direction: $direction}) { edges { cursor } }
  context(id: $root) {
    forks { edges { cursor } } messages { edges { cursor node { id } } }
    at(version: 6) { messages { edges { cursor } } }
    diff(with: $other) { onlyHere { messages { edges { cursor } } } onlyThere { messages { edges { cursor } } } }
  }
}"""


async def learn(world: World) -> None:
    """Take cursors of every connection that there is, and ids of messages."""
    for direction in ("ASC", "DESC"):
        found = await world.tenant(
            CURSORS, root=world.contexts["root"], other=world.contexts["fork"], direction=direction
        )
        world.moment = found["byUpdate"]["edges"][0]["node"]["updatedAt"]
        for path, edges in connections(found, direction):
            world.cursors |= {f"{path} {number}": edge["cursor"] for number, edge in enumerate((edges[0], edges[-1]))}
    nodes = "context(id: $id) { messages(first: 1000) { nodes { id } } }"
    for name in ("root", "long", "fork"):
        found = await world.tenant(f"query ($id: ID!) {{ {nodes} }}", id=world.contexts[name])
        ids = [node["id"] for node in found["context"]["messages"]["nodes"]]
        world.messages |= {f"{name} {number}": each for number, each in enumerate(ids)}
    deleted = await calls.delete_message(world.tenant, world.contexts["long"], 3)
    world.messages["deleted"] = deleted["message"]["id"]


def connections(found: Any, path: str) -> Iterable[tuple[str, list[Any]]]:
    """Give the edges of every connection in an answer, with where they stand."""
    if isinstance(found, dict):
        for name, value in found.items():
            if name == "edges":
                yield path, value
            else:
                yield from connections(value, f"{path} {name}")


def another_cursor(cursor: str, ids: dict[str, str]) -> str:
    """Write a cursor like another one, with ids in it replaced."""
    text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    for old, new in ids.items():
        text = text.replace(old.replace("-", ""), new.replace("-", "")).replace(old, new)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def body_of(document: str, **variables: Any) -> bytes:
    """Write a request."""
    return json.dumps({"query": document, "variables": variables}).encode()
