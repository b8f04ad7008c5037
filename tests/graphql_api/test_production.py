"""What FORKPOINT_ENVIRONMENT=production turns off, over HTTP and over WebSocket."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from typer.testing import CliRunner
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from graphql_api.app import create_app
from graphql_api.commands import app
from graphql_api.settings import Settings
from graphql_api.terminal import CommandError, Stop
from graphql_api.trusted import hash_of
from graphql_api.websocket import PROTOCOL
from schema.root import schema
from tests.client import Api
from tests.conftest import api_over
from tests.graphql_api.serving import Socket, listening
from tests.program import serving

BUILT = schema._schema  # noqa: SLF001 - graphql-core's own schema
DOUBT = "Did you mean"


def in_production(settings: Settings, **chosen: Any) -> Settings:
    """Read settings as an operator would set them."""
    return Settings(_env_file=None, database_url=settings.database_url, environment="production", **chosen)


@asynccontextmanager
async def production(settings: Settings, **chosen: Any) -> AsyncIterator[Api]:
    async with api_over(create_app(in_production(settings, **chosen))) as api:
        yield api


async def answer(api: Api, query: str, **variables: Any) -> dict[str, Any]:
    body: dict[str, Any] = (await api.http.post("/graphql", json={"query": query, "variables": variables})).json()
    return body


@pytest.mark.parametrize("name", ["graphiql", "introspection", "suggestions"])
def test_what_only_developers_need_follows_the_environment_unless_it_is_set(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FORKPOINT_ENVIRONMENT", raising=False)
    variable = f"FORKPOINT_{name.upper()}"
    monkeypatch.delenv(variable, raising=False)
    assert getattr(Settings(_env_file=None), name) is True
    monkeypatch.setenv("FORKPOINT_ENVIRONMENT", "production")
    assert getattr(Settings(_env_file=None), name) is False
    monkeypatch.setenv(variable, "")
    assert getattr(Settings(_env_file=None), name) is False
    monkeypatch.setenv(variable, "true")
    assert getattr(Settings(_env_file=None), name) is True
    monkeypatch.setenv("FORKPOINT_ENVIRONMENT", "development")
    monkeypatch.setenv(variable, "false")
    assert getattr(Settings(_env_file=None), name) is False


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        ("{ __schema { types { name } } }", ["__schema"]),
        ('{ __type(name: "Context") { name } }', ["__type"]),
        ("{ health { status } s: __schema { types { name } } }", ["__schema"]),
        ("query Q { ...F } fragment F on Query { ... { x: __schema { types { name } } } }", ["__schema"]),
        ('{ __typename __schema { types { name } } __type(name: "X") { name } }', ["__schema", "__type"]),
    ],
)
async def test_the_schema_is_not_told(settings: Settings, query: str, asked: list[str]) -> None:
    async with production(settings) as api:
        for _ in range(2):  # as it is read, and as it is remembered
            errors = (await answer(api, query))["errors"]
            assert [error["extensions"]["code"] for error in errors] == ["GRAPHQL_VALIDATION_FAILED"] * len(asked)
            for error, name in zip(errors, asked, strict=True):
                assert error["message"].startswith(f"The schema is not told here: leave out '{name}'")


async def test_typename_stays(settings: Settings) -> None:
    async with production(settings) as api:
        assert await answer(api, "{ __typename contexts { __typename } }") == {
            "data": {"__typename": "Query", "contexts": {"__typename": "ContextConnection"}}
        }


async def test_persisted_and_trusted_documents_do_not_tell_it_either(settings: Settings, tmp_path: Path) -> None:
    query = "{ __schema { types { name } } }"
    async with production(settings) as api:
        body = {"query": query, "extensions": {"persistedQuery": {"version": 1, "sha256Hash": hash_of(query)}}}
        told = (await api.http.post("/graphql", json=body)).json()
        assert told["errors"][0]["extensions"]["code"] == "GRAPHQL_VALIDATION_FAILED"
    (tmp_path / "schema.graphql").write_text(query)
    with pytest.raises(CommandError, match="The schema is not told here"):
        create_app(in_production(settings, trusted_documents=tmp_path))
    async with production(settings, introspection=True) as api:
        assert "data" in await answer(api, query)


def misspelt() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Give a document for each place where graphql-core suggests a name."""
    message = '{role: USER, content: ""}'
    yield "a field", "{ contxt { id } }", {}
    yield "a field of an object", "{ contexts { nodes { nme } } }", {}
    yield "a field of another type", '{ node(id: "x") { messages { totalCount } } }', {}
    yield "an argument", "{ contexts(frst: 1) { totalCount } }", {}
    yield "an argument of a directive", "{ contexts @include(iff: true) { totalCount } }", {}
    yield "a type of a fragment", "{ ...F } fragment F on Qury { __typename }", {}
    yield "a type of an inline fragment", "{ ... on Qury { __typename } }", {}
    yield "a type of a variable", "query ($a: Contxt) { __typename }", {}
    yield "an enum value", "{ contexts(orderBy: {field: UPDATED}) { totalCount } }", {}
    yield "an enum value as a string", '{ contexts(orderBy: {field: "NAME"}) { totalCount } }', {}
    yield "an input field", '{ contexts(filter: {nameContain: ""}) { totalCount } }', {}
    yield "an input field below", f"mutation {{ createContext(input: {{mesages: [{message}]}}) {{ replayed }} }}", {}
    yield "a directive", "{ contexts @skp(if: true) { totalCount } }", {}
    yield "a fragment", "{ ...Fragmen } fragment Fragment on Query { __typename }", {}
    yield "an operation's variable", "query ($first: Int) { contexts(first: $frst) { totalCount } }", {}
    order, create = "query ($o: ContextOrder) { contexts(orderBy: $o) { totalCount } }", "createContext(input: $i)"
    yield "an enum value in a variable", order, {"o": {"field": "UPDATED"}}
    yield "an input field in a variable", order, {"o": {"feld": "NAME"}}
    mutation = f"mutation ($i: CreateContextInput!) {{ {create} {{ replayed }} }}"
    yield "an enum value deep in a variable", mutation, {"i": {"messages": [{"role": "USR", "content": ""}]}}
    yield "an input field deep in a variable", mutation, {"i": {"messages": [{"role": "USER", "contnt": ""}]}}
    yield (
        "an enum value alone",
        "query ($r: [Role!]) { contexts { nodes { messages(roles: $r) { totalCount } } } }",
        {"r": ["ASISTANT"]},
    )
    yield (
        "the default of a variable",
        "query ($o: ContextOrder = {feld: NAME}) { contexts(orderBy: $o) { totalCount } }",
        {},
    )


MISSPELT = {name: (query, variables) for name, query, variables in misspelt()}
# Where graphql-core has nothing to suggest.
SILENT = {"a directive", "a fragment", "an operation's variable"}


@pytest.mark.parametrize("name", MISSPELT)
async def test_no_error_suggests_a_name(settings: Settings, name: str) -> None:
    query, variables = MISSPELT[name]
    async with production(settings) as api, api_over(create_app(settings)) as developing:
        told = await answer(api, query, **variables)
        assert told["errors"]
        assert DOUBT not in str(told)
        helped = await answer(developing, query, **variables)
        assert (DOUBT in str(helped)) is (name not in SILENT)
        for with_names, without in zip(helped["errors"], told["errors"], strict=True):
            beginning, _, _ = with_names["message"].partition(f" {DOUBT}")
            assert without["message"].startswith(beginning.rstrip("."))
            assert without["extensions"] == with_names["extensions"]


async def test_a_browser_gets_no_page(settings: Settings) -> None:
    async with production(settings) as api:
        page = await api.http.get("/graphql", headers={"accept": "text/html"})
        assert page.status_code == 406
        assert page.headers["content-type"].startswith("application/json")
        assert (await api.http.get("/graphiql/graphiql.js")).status_code == 404


def test_reloading_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORKPOINT_ENVIRONMENT", "production")
    done = CliRunner().invoke(app, ["serve", "--reload"], obj=Stop(130))
    assert done.exit_code == 2
    assert "FORKPOINT_ENVIRONMENT is production" in re.sub(r"[\s│]+", " ", done.output)


def test_the_banner_names_no_page_that_is_not_served(tmp_path: Path, database_url: str) -> None:
    with serving(tmp_path, DATABASE_URL=database_url, FORKPOINT_ENVIRONMENT="production") as program:
        address = program.address()
        assert "GraphiQL" not in program.said()
        assert httpx2.get(f"{address}/graphql", headers={"accept": "text/html"}).status_code == 406


async def test_over_a_websocket_neither_the_schema_nor_a_name_is_told(settings: Settings) -> None:
    chosen = in_production(settings)
    async with (
        listening(create_app(chosen), chosen) as port,
        connect(f"ws://127.0.0.1:{port}/graphql", subprotocols=[Subprotocol(PROTOCOL)]) as connection,
    ):
        client = await Socket(connection).init()
        for query, variables in [("{ __schema { types { name } } }", {}), *MISSPELT.values()]:
            await client.subscribe(query, variables=variables)
            message = await client.receive()
            assert message["type"] == "error"
            assert DOUBT not in str(message)
