"""The application in one piece: GraphQL in front of the routes, what a response says of itself, and what is logged."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from structlog.testing import capture_logs
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from graphql_api.app import create_app
from graphql_api.media import GRAPHQL
from graphql_api.settings import Settings
from graphql_api.websocket import PROTOCOL
from tests.client import Api
from tests.conftest import api_over
from tests.graphql_api.asking import BROWSER
from tests.graphql_api.serving import Socket, listening
from tests.schema.calls import create, say

# Source: https://www.w3.org/TR/server-timing/#the-server-timing-header-field
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
METRIC = rf"({TOKEN})[ \t]*;[ \t]*dur[ \t]*=[ \t]*([0-9]+(?:\.[0-9]+)?)"


def stages(response: httpx2.Response) -> list[str]:
    """Name the stages that a response tells of; each with a duration, in the grammar of the header."""
    told = response.headers.get_list("server-timing")
    if not told:
        return []
    (header,) = told
    assert re.fullmatch(rf"{METRIC}(?:[ \t]*,[ \t]*{METRIC})*", header)
    found = re.findall(METRIC, header)
    assert all(0 <= float(milliseconds) < 10_000 for _, milliseconds in found)
    return [name for name, _ in found]


NONCE = re.compile(rb'nonce="[^"]*"')

EVERY_STAGE = ["read", "prepare", "execute", "write"]


async def test_a_response_tells_how_long_each_stage_took(api: Api) -> None:
    made = await create(api, say("one"))
    documents = {
        "query ($id: ID!) { context(id: $id) { id } }": {"id": made["id"]},
        "query ($id: ID!) { context(id: $id) { messages(first: -1) { totalCount } } }": {"id": made["id"]},
        "{ __schema { queryType { name } } }": {},
        "mutation ($id: ID!) { deleteContext(input: {contextId: $id}) { context { id } } }": {"id": made["id"]},
        "mutation { m: deleteContext(input: {contextId: 1}) { context { id } } }": {},
    }
    for text, variables in documents.items():
        response = await api.http.post("/graphql", json={"query": text, "variables": variables})
        assert response.status_code == 200
        assert stages(response) == EVERY_STAGE
    response = await api.http.get("/graphql", params={"query": "{ health { status } }"})
    assert stages(response) == EVERY_STAGE
    assert stages(await api.http.head("/graphql", params={"query": "{ health { status } }"})) == EVERY_STAGE


async def test_a_refusal_tells_of_the_stages_that_ended(api: Api) -> None:
    for text in ("{", "{ nothing }"):
        response = await api.http.post("/graphql", json={"query": text}, headers={"accept": GRAPHQL})
        assert (response.status_code, stages(response)) == (400, ["read", "prepare", "write"])
    text = "query ($id: ID!) { context(id: $id) { id } }"
    response = await api.http.post("/graphql", json={"query": text}, headers={"accept": GRAPHQL})
    assert (response.status_code, stages(response)) == (400, EVERY_STAGE)
    mutation = 'mutation { deleteContext(input: {contextId: "x"}) { context { id } } }'
    assert stages(await api.http.get("/graphql", params={"query": mutation})) == ["read", "prepare"]
    for response in (
        await api.http.post("/graphql", content=b"{"),
        await api.http.post("/graphql", content=b"{", headers={"content-type": "application/json"}),
        await api.http.delete("/graphql"),
        await api.http.options("/graphql"),
        await api.http.get("/graphql", headers={"accept": BROWSER}),
    ):
        assert stages(response) == []


async def test_with_a_setting_an_answer_says_how_it_came_about(settings: Settings) -> None:
    documents = {
        "{ health { status } }": "planned",
        "{ contexts { totalCount } }": "planned",
        "{ contexts(first: -1) { totalCount } }": "resolved",
        '{ __type(name: "Query") { name } }': "resolved",
        'mutation { deleteContext(input: {contextId: "x"}) { context { id } } }': "resolved",
        "{": None,
        "query ($n: Int!) { contexts(first: $n) { totalCount } }": None,
    }  # fmt: skip
    for chosen in (True, False):
        app = create_app(settings.model_copy(update={"debug_extensions": chosen}))
        async with api_over(app) as api:
            for text, execution in documents.items():
                answer = (await api.http.post("/graphql", json={"query": text})).json()
                expected = {"execution": execution} if chosen and execution else None
                assert answer.get("extensions") == expected, text
                assert ("data" in answer) is (execution is not None)


@asynccontextmanager
async def mounted(app: Starlette, **transport: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """Speak to the application below a path of another one."""
    outer = Starlette(routes=[Mount("/api", app)])
    over = httpx2.ASGITransport(app=outer, raise_app_exceptions=False, **transport)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=over, base_url="http://localhost/api", timeout=60) as http,
    ):
        yield http


REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("POST", {"json": {"query": "{ contexts { totalCount } }"}}),
    ("POST", {"json": {"query": "{ __typename"}}),
    ("POST", {"json": {"query": "{ __typename }"}, "headers": {"accept": "text/css"}}),
    ("GET", {"params": {"query": "{ __typename }"}}),
    ("GET", {"headers": {"accept": BROWSER}}),
    ("GET", {}),
    ("HEAD", {"params": {"query": "{ __typename }"}}),
    ("OPTIONS", {}),
    ("PUT", {"json": {"query": "{ __typename }"}}),
    ("DELETE", {}),
]


async def test_below_another_path_the_answers_are_the_same(settings: Settings) -> None:
    def seen(response: httpx2.Response) -> tuple[Any, ...]:
        headers = [(name, value) for name, value in response.headers.multi_items() if name not in volatile]
        assert len(response.headers.get_list("x-request-id")) == 1
        return response.status_code, headers, NONCE.sub(b"nonce", response.content)

    volatile = {"x-request-id", "server-timing", "content-security-policy"}
    async with api_over(create_app(settings)) as api, mounted(create_app(settings)) as below:
        for method, options in REQUESTS:
            front = seen(await api.http.request(method, "/graphql", **options))
            assert front == seen(await below.request(method, "/graphql", **options)), method
            assert front[0] != 404
            if method == "HEAD":
                assert front[2] == b""
            if front[0] == 405 or method == "OPTIONS":
                assert ("allow", "GET, HEAD, POST, OPTIONS") in front[1]


async def test_behind_a_proxy_that_takes_a_prefix_off_the_answers_are_the_same(settings: Settings) -> None:
    for root_path, path in (("/api", "/api/graphql"), ("/api", "/graphql"), ("", "/graphql")):
        app = create_app(settings)
        transport = httpx2.ASGITransport(app=app, root_path=root_path)
        async with (
            app.router.lifespan_context(app),
            httpx2.AsyncClient(transport=transport, base_url="http://localhost") as http,
        ):
            assert (await http.post(path, json={"query": "{ __typename }"})).json() == {"data": {"__typename": "Query"}}


@pytest.mark.parametrize("prefix", ["", "/api"])
async def test_a_websocket_is_served_at_the_same_path_and_answers_queries_by_plans(
    settings: Settings, prefix: str
) -> None:
    settings = settings.model_copy(update={"debug_extensions": True})
    app = create_app(settings)
    outer = Starlette(routes=[Mount(prefix, app)], lifespan=app.router.lifespan_context) if prefix else app
    async with listening(outer, settings) as port:
        url = f"ws://127.0.0.1:{port}{prefix}/graphql"
        async with connect(url, subprotocols=[Subprotocol(PROTOCOL)]) as connection:
            client = await Socket(connection).init()
            await client.subscribe("{ contexts { totalCount } }")
            expected = {"data": {"contexts": {"totalCount": 0}}, "extensions": {"execution": "planned"}}
            assert await client.next() == expected
            assert await client.completed()
            await client.subscribe('mutation { deleteContext(input: {contextId: "x"}) { context { id } } }')
            assert (await client.next())["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
            assert await client.completed()
        for path in ("/", "/health", "/nothing", "/graphql/"):
            with pytest.raises(InvalidStatus):
                await connect(f"ws://127.0.0.1:{port}{prefix}{path}", subprotocols=[Subprotocol(PROTOCOL)])


async def test_other_paths_go_by_the_routes(api: Api) -> None:
    statuses = {"/": 307, "/health": 200, "/graphql/": 307, "/graphqlx": 404, "/graphql/x": 404, "/GraphQL": 404}
    for path, status in statuses.items():
        response = await api.http.get(path, headers={"x-request-id": "r-1"})
        assert (response.status_code, response.headers.get_list("x-request-id")) == (status, ["r-1"])
        assert "server-timing" not in response.headers


@pytest.mark.parametrize("level", ["info", "warning"])
async def test_each_request_has_one_line_or_none(settings: Settings, level: str) -> None:
    settings = settings.model_copy(update={"log_level": level})
    requests = [("POST", "/graphql", 200), ("PUT", "/graphql", 405), ("GET", "/health", 200), ("GET", "/x", 404)]

    async def lines(http: httpx2.AsyncClient) -> list[tuple[Any, ...]]:
        with capture_logs() as captured:
            for method, path, status in requests:
                content = {"query": "{ __typename }"} if method == "POST" else None
                response = await http.request(method, path, headers={"x-request-id": "r-1"}, json=content)
                assert (response.status_code, response.headers.get_list("x-request-id")) == (status, ["r-1"])
        return [(line["method"], line["path"], line["status"]) for line in captured if line["event"] == "request"]

    expected = requests if level == "info" else []
    async with api_over(create_app(settings)) as api:
        assert await lines(api.http) == expected
    async with mounted(create_app(settings)) as below:
        assert await lines(below) == [(method, f"/api{path}", status) for method, path, status in expected]


async def test_whatever_fails_in_front_of_the_routes_has_its_id_and_its_line(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(settings.model_copy(update={"log_level": "info"}))
    monkeypatch.setattr("graphql_api.endpoint.GraphQLEndpoint._answer", None)
    async with api_over(app) as api:
        with capture_logs() as captured:
            response = await api.http.post("/graphql", json={"query": "{ __typename }"})
    assert (response.status_code, response.json()["errors"][0]["extensions"]["code"]) == (500, "INTERNAL_SERVER_ERROR")
    assert [line["event"] for line in captured] == ["unforeseen error", "request"]
    assert response.headers["x-request-id"]
