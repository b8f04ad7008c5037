"""Who is let in, over each transport, and for how long: the service as it is served, asked with good and bad tokens."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs
from websockets.asyncio.client import connect

from graphql_api.app import create_app
from graphql_api.settings import Authentication, Settings
from graphql_api.websocket import PROTOCOL
from tests.graphql_api.serving import Socket, listening
from tests.tokens import AUDIENCE, ISSUER, SECRET, bearer, claims, sign

COUNT = "{ contexts { totalCount } }"
CREATE = 'mutation { createContext(input: {name: "n"}) { context { id latestVersion } } }'
APPEND = """mutation ($id: ID!) {
  appendMessages(input: {contextId: $id, messages: [{role: USER, content: "c"}]}) { context { latestVersion } }
}"""
TAIL = "subscription ($id: ID!) { messageAppended(contextId: $id, afterVersion: 0) { version } }"


class Service:
    """The service, and ways to ask it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.http = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30)

    async def ask(self, query: str, headers: dict[str, str], **variables: Any) -> httpx2.Response:
        return await self.http.post("/graphql", json={"query": query, "variables": variables}, headers=headers)

    async def data(self, query: str, headers: dict[str, str], **variables: Any) -> Any:
        answer = await self.ask(query, headers, **variables)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    async def refusal(self, query: str, headers: dict[str, str], **variables: Any) -> tuple[int, str, str]:
        """Give status, code and message of a request that is refused as a whole."""
        answer = await self.ask(query, headers, **variables)
        body = answer.json()
        assert "data" not in body
        (error,) = body["errors"]
        assert ("www-authenticate" in answer.headers) is (answer.status_code == 401)
        return answer.status_code, error["extensions"]["code"], error["message"]

    def connecting(self, headers: dict[str, str] | None = None) -> connect:
        url = f"ws://127.0.0.1:{self.port}/graphql"
        return connect(url, subprotocols=[PROTOCOL], additional_headers=headers)  # type: ignore[list-item] # a str


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[Service]:
    settings = settings.model_copy(
        update={
            "authentication": (Authentication.KEYS, Authentication.JWT),
            "jwt_key": SecretStr(SECRET),
            "jwt_algorithms": ("HS256",),
            "jwt_issuer": ISSUER,
            "jwt_audience": AUDIENCE,
            "jwt_leeway_seconds": 0.0,
            "host": "127.0.0.1",
            "log_level": "info",
        }
    )
    async with listening(create_app(settings), settings) as port:
        service = Service(port)
        async with service.http:
            yield service


@pytest.mark.parametrize(
    ("authorization", "words"),
    [
        (None, "This needs a credential"),
        ("", "This needs a credential"),
        ("Basic dXNlcjpwYXNz", "malformed"),
        ("Bearer", "malformed"),
        ("Bearer a b", "not valid"),
        ("Bearer é", "malformed"),
        ("Bearer " + "x" * 20_000, "malformed"),
        ("Bearer fpk_nothing", "opens nothing"),
        ("Bearer nothing", "not valid"),
    ],
)
async def test_without_a_good_credential_nothing_is_answered(
    service: Service, authorization: str | None, words: str
) -> None:
    headers = {} if authorization is None else {"authorization": authorization.encode()}
    for query in (COUNT, CREATE, "{ __typename }", "{ health { status } }", "no GraphQL", TAIL):
        status, code, message = await service.refusal(query, headers)  # type: ignore[arg-type] # bytes
        assert (status, code) == (401, "UNAUTHENTICATED")
        assert words in message
    answer = await service.http.get("/graphql", params={"query": COUNT}, headers=headers)  # type: ignore[arg-type] # bytes
    assert (answer.status_code, answer.json()["errors"][0]["extensions"]["code"]) == (401, "UNAUTHENTICATED")
    streaming = {"accept": "text/event-stream", **headers}
    assert (await service.refusal(TAIL, streaming, id="x"))[:2] == (401, "UNAUTHENTICATED")  # type: ignore[arg-type] # bytes


async def test_a_body_is_not_read_of_who_is_unknown(service: Service) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    writer.write(b"POST /graphql HTTP/1.1\r\nhost: 127.0.0.1\r\n")
    writer.write(b"content-type: application/json\r\ncontent-length: 40000000\r\n\r\n")
    async with asyncio.timeout(20):
        assert await reader.readuntil(b"\r\n") == b"HTTP/1.1 401 Unauthorized\r\n"
    writer.close()


async def test_health_and_the_page_need_no_credential(service: Service) -> None:
    assert (await service.http.get("/health")).status_code == 200
    page = await service.http.get("/graphql", headers={"accept": "text/html"})
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")


async def test_tenants_see_nothing_of_each_other(service: Service) -> None:
    made = (await service.data(CREATE, bearer("acme")))["createContext"]["context"]["id"]
    assert await service.data(COUNT, bearer("acme")) == {"contexts": {"totalCount": 1}}
    assert await service.data(COUNT, bearer("other")) == {"contexts": {"totalCount": 0}}
    (error,) = (await service.ask(APPEND, bearer("other"), id=made)).json()["errors"]
    assert error["extensions"]["code"] == "NOT_FOUND"


async def test_scopes_say_what_may_be_done(service: Service) -> None:
    reader = bearer(scope="read")
    assert await service.data(COUNT, reader) == {"contexts": {"totalCount": 0}}
    status, code, message = await service.refusal(CREATE, reader)
    assert (status, code) == (403, "FORBIDDEN")
    assert message == "This needs a credential with the scope write; this one has read."
    assert await service.data(COUNT, reader) == {"contexts": {"totalCount": 0}}
    for nothing in ("", "act-as"):
        assert (await service.refusal(COUNT, bearer(scope=nothing)))[:2] == (403, "FORBIDDEN")
    assert (await service.data(CREATE, bearer(scope="write")))["createContext"]


async def test_who_may_act_for_tenants_names_one_with_each_request(service: Service) -> None:
    agent = bearer("platform", "write act-as")
    await service.data(CREATE, agent | {"forkpoint-tenant": "user-17"})
    assert await service.data(COUNT, bearer("user-17")) == {"contexts": {"totalCount": 1}}
    assert await service.data(COUNT, agent) == {"contexts": {"totalCount": 0}}
    assert await service.data(COUNT, agent | {"forkpoint-tenant": "platform"}) == {"contexts": {"totalCount": 0}}
    for tenant in ("*", "a b", "x" * 129, "user-17, user-18"):
        assert (await service.refusal(COUNT, agent | {"forkpoint-tenant": tenant}))[:2] == (400, "BAD_USER_INPUT")
    stranger = bearer("acme", "read write admin") | {"forkpoint-tenant": "user-17"}
    status, code, message = await service.refusal(COUNT, stranger)
    assert (status, code) == (403, "FORBIDDEN")
    assert "act-as" in message


async def test_who_is_not_asked_for_credentials_may_name_no_tenant(settings: Settings) -> None:
    async with listening(create_app(settings), settings) as port:
        service = Service(port)
        async with service.http:
            assert (await service.refusal(COUNT, {"forkpoint-tenant": "user-17"}))[:2] == (403, "FORBIDDEN")
            assert await service.data(COUNT, {"authorization": "Bearer of another service"})


@pytest.mark.parametrize("place", ["payload", "lower case payload", "handshake"])
async def test_a_websocket_brings_its_credential_once(service: Service, place: str) -> None:
    made = (await service.data(CREATE, bearer("acme")))["createContext"]["context"]["id"]
    header = bearer("acme")
    payloads = {"payload": {"Authorization": header["authorization"]}, "lower case payload": header}
    async with service.connecting(header if place == "handshake" else None) as connection:
        client = Socket(connection)
        await client.send({"type": "connection_init", "payload": payloads.get(place)})
        assert await client.receive() == {"type": "connection_ack"}
        await client.subscribe(TAIL, variables={"id": made})
        await service.data(APPEND, bearer("acme"), id=made)
        assert await client.next() == {"data": {"messageAppended": {"version": 1}}}
        await client.subscribe(COUNT, "2")
        assert await client.next("2") == {"data": {"contexts": {"totalCount": 1}}}
        assert await client.completed("2")


async def test_a_websocket_may_act_for_a_tenant(service: Service) -> None:
    async with service.connecting() as connection:
        client = Socket(connection)
        agent = bearer("platform", "write act-as")
        await client.send({"type": "connection_init", "payload": agent | {"Forkpoint-Tenant": "user-17"}})
        assert await client.receive() == {"type": "connection_ack"}
        await client.subscribe(CREATE)
        assert (await client.next())["data"]["createContext"]
        assert await client.completed()
    assert await service.data(COUNT, bearer("user-17")) == {"contexts": {"totalCount": 1}}


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (None, 4403),
        ({}, 4403),
        ({"authorization": "Bearer nothing"}, 4403),
        ({"authorization": 5}, 4400),
        ({"authorization": None}, 4400),
        ({"forkpoint-tenant": "user-17"}, 4403),
        (bearer(scope="read") | {"forkpoint-tenant": "user-17"}, 4403),
        (bearer(exp=1), 4403),
    ],
    ids=range(8),
)
async def test_a_websocket_without_a_good_credential_is_closed(service: Service, payload: Any, code: int) -> None:
    with capture_logs() as lines:
        async with service.connecting() as connection:
            client = Socket(connection)
            await client.send({"type": "connection_init", "payload": payload})
            found, reason = await client.closed()
    assert (found, bool(reason)) == (code, True)
    secret = (payload or {}).get("authorization")
    assert not isinstance(secret, str) or secret not in str(lines)


async def test_a_payload_takes_the_place_of_a_handshakes_header(service: Service) -> None:
    async with service.connecting(bearer("acme")) as connection:
        client = Socket(connection)
        await client.send({"type": "connection_init", "payload": {"authorization": "Bearer nothing"}})
        assert (await client.closed())[0] == 4403


async def test_a_read_only_websocket_changes_nothing(service: Service) -> None:
    async with service.connecting(bearer("acme", "read")) as connection:
        client = await Socket(connection).init()
        await client.subscribe(CREATE)
        assert await client.error() == "FORBIDDEN"
        await client.subscribe(COUNT)
        assert await client.next() == {"data": {"contexts": {"totalCount": 0}}}


async def test_what_outlasts_a_token_ends_instead_of_telling_more(service: Service) -> None:
    made = (await service.data(CREATE, bearer("acme")))["createContext"]["context"]["id"]
    expires = int(time.time()) + 3
    short = {"authorization": f"Bearer {sign(claims('acme', exp=expires))}"}
    body = {"query": TAIL, "variables": {"id": made}}
    streaming = {"accept": "text/event-stream", **short}
    async with (
        service.connecting(short) as connection,
        service.http.stream("POST", "/graphql", json=body, headers=streaming) as stream,
    ):
        client = await Socket(connection).init()
        await client.subscribe(TAIL, variables={"id": made})
        lines = (line async for line in stream.aiter_lines() if line.startswith("data: "))
        await service.data(APPEND, bearer("acme"), id=made)
        assert await client.next() == {"data": {"messageAppended": {"version": 1}}}
        assert json.loads((await anext(lines))[6:]) == {"data": {"messageAppended": {"version": 1}}}
        while time.time() < expires + 1:  # noqa: ASYNC110 - the clock is what is waited for
            await asyncio.sleep(0.05)
        await service.data(APPEND, bearer("acme"), id=made)
        assert await client.error() == "UNAUTHENTICATED"
        ended = json.loads((await anext(lines))[6:])
        assert ended["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
        await client.subscribe(COUNT, "2")
        assert await client.error("2") == "UNAUTHENTICATED"


async def test_the_log_says_who_asked_and_never_with_what(service: Service) -> None:
    token = bearer("acme")
    with capture_logs() as lines:
        await service.data(COUNT, token)
        await service.refusal(COUNT, {"authorization": token["authorization"] + "x"})
    assert "secret" not in str(lines)
    assert token["authorization"][8:40] not in str(lines)
    assert [line["reason"] for line in lines if line["event"] == "credential refused"] == [
        "The credential is not valid: it is unknown, expired or revoked."
    ]
