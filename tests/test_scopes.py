"""What may be done with which credential: every field of the roots, however it is asked, with every scope and none."""

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed

from graphql_api.media import EVENT_STREAM, MULTIPART
from graphql_api.settings import Settings
from schema.root import schema
from tests.schema import calls
from tests.schema.calls import say
from tests.tenants import Tenant, Tenants, World, rows, serving, settle, with_tokens
from tests.test_isolation import bodies, usual
from tests.walk import Walk

GRAPHQL = schema._schema  # noqa: SLF001 - graphql-core's own schema
FIELDS = [
    (kind.name, name)
    for kind in (GRAPHQL.query_type, GRAPHQL.mutation_type, GRAPHQL.subscription_type)
    if kind is not None
    for name in kind.fields
]
FOR_ADMINS = {("Query", "apiKeys"), ("Mutation", "createApiKey"), ("Mutation", "revokeApiKey")}
MUTATIONS = {field for field in FIELDS if field[0] == "Mutation"}
ACCEPTS = ["application/json", EVENT_STREAM, MULTIPART]


@pytest.fixture
async def service(settings: Settings) -> AsyncIterator[Tenants]:
    async with serving(with_tokens(settings)) as service:
        yield service


@pytest.fixture
async def world(service: Tenants) -> World:
    """Give a tenant that has things, and a credential for all of them."""
    return await settle(await service.tenant("mine", "admin"), "myown", versions=7)


def documents(world: World) -> list[tuple[tuple[str, str], str, dict[str, Any]]]:
    """Write a document for every field of the roots that has an end, which leads to what the tenant has."""
    walker = Walk(GRAPHQL, usual(world))
    walker.values |= {"id": world.api_keys["living"], "Query.context(id)": world.contexts["root"]}
    walker.values |= {"Query.node(id)": world.contexts["root"]}
    return [(field, *walker.document(*field, {})) for field in FIELDS]


async def codes(tenant: Tenant, world: World, accept: str) -> dict[tuple[str, str], str]:
    """Give the code of the first error of each field of the roots, asked for as somebody; empty for none."""
    found = {}
    for field, document, variables in documents(world):
        if field[0] == "Subscription":
            continue
        body = {"query": document, "variables": variables}
        response = await tenant.http.post("/graphql", json=body, headers={"accept": accept})
        found[field] = code_of(bodies(response.text))
    return found


async def codes_over_websocket(tenant: Tenant, world: World) -> dict[tuple[str, str], str]:
    """Do the same over WebSockets, with subscriptions."""
    found = {}
    for field, document, variables in documents(world):
        socket = await tenant.socket()
        await socket.subscribe(document, variables=variables)
        # A subscription that is let in tells nothing; this one, which began later, ends.
        await socket.subscribe("{ __typename }", "later")
        frames = [await socket.receive()]
        while frames[-1]["type"] not in {"complete", "error"} or (
            frames[-1]["id"] == "later" and field[0] != "Subscription"
        ):
            frames.append(await socket.receive())
        frames = [frame for frame in frames if frame["id"] == "1"]
        found[field] = code_of([frame.get("payload") for frame in frames])
        await socket.connection.close()
    return found


def code_of(answers: list[Any]) -> str:
    """Give the code of the first error in any answer."""
    for answer in answers:
        payload = answer.get("payload", answer) if isinstance(answer, dict) else answer
        errors = payload if isinstance(payload, list) else (payload or {}).get("errors", [])
        for error in errors:
            return str(error["extensions"]["code"])
    return ""


def forbidden(found: dict[tuple[str, str], str]) -> set[tuple[str, str]]:
    return {field for field, code in found.items() if code == "FORBIDDEN"}


@pytest.mark.parametrize("accept", ACCEPTS)
async def test_who_may_only_read_changes_nothing(
    service: Tenants, world: World, database_url: str, accept: str
) -> None:
    reader = await service.tenant("mine", "read")
    before = rows(database_url)
    assert forbidden(await codes(reader, world, accept)) == MUTATIONS | FOR_ADMINS
    assert rows(database_url) == before


async def test_who_may_only_read_changes_nothing_over_a_websocket(
    service: Tenants, world: World, database_url: str
) -> None:
    reader = await service.tenant("mine", "read")
    before = rows(database_url)
    assert forbidden(await codes_over_websocket(reader, world)) == MUTATIONS | FOR_ADMINS
    assert rows(database_url) == before


async def test_who_may_write_manages_no_keys(service: Tenants, world: World) -> None:
    writer = await service.tenant("mine", "write")
    for found in (await codes(writer, world, ACCEPTS[0]), await codes_over_websocket(writer, world)):
        assert forbidden(found) == FOR_ADMINS


async def test_an_admin_may_do_everything(service: Tenants, world: World) -> None:
    assert forbidden(await codes(await service.tenant("mine", "admin"), world, ACCEPTS[0])) == set()


@pytest.mark.parametrize("scope", ["act-as", "unknown"])
async def test_who_has_no_scope_of_ours_may_do_nothing(
    service: Tenants, world: World, database_url: str, scope: str
) -> None:
    nobody = await service.tenant("mine", scope)
    before = rows(database_url)
    over_http = await codes(nobody, world, ACCEPTS[0])
    assert forbidden(over_http) == {field for field in FIELDS if field[0] != "Subscription"}
    assert forbidden(await codes_over_websocket(nobody, world)) == set(FIELDS)
    answer = (await nobody.http.post("/graphql", json={"query": "{ __schema { types { name } } }"})).json()
    assert code_of([answer]) == "FORBIDDEN"
    assert rows(database_url) == before


# One operation is chosen, and it alone decides; fragments and aliases hide nothing.
HIDDEN: list[dict[str, Any]] = [
    {
        "query": "query A { health { status } } mutation B { createContext(input: {}) { replayed } }",
        "operationName": "B",
    },
    {"query": "mutation { ...F } fragment F on Mutation { a: createContext(input: {}) { replayed } }"},
    {"query": "mutation { ... on Mutation { ... { createContext(input: {}) { replayed } } } }"},
    {"query": "mutation ($no: Boolean = false) { createContext(input: {}) @skip(if: $no) { replayed } }"},
    {"query": "mutation { __typename createContext(input: {}) { replayed } }"},
    {"query": "mutation { __typename }"},
]


@pytest.mark.parametrize("body", HIDDEN)
async def test_a_mutation_is_one_however_it_is_written(
    service: Tenants, world: World, database_url: str, body: dict[str, Any]
) -> None:
    assert world.contexts
    reader, writer = await service.tenant("mine", "read"), await service.tenant("mine", "write")
    for _ in range(3):  # a document that is known takes a shorter way
        before = rows(database_url)
        assert code_of([(await reader.http.post("/graphql", json=body)).json()]) == "FORBIDDEN"
        assert rows(database_url) == before
        assert code_of([(await writer.http.post("/graphql", json=body)).json()]) == ""


async def test_a_query_beside_a_mutation_may_be_read(service: Tenants) -> None:
    reader = await service.tenant("mine", "read")
    body = HIDDEN[0] | {"operationName": "A"}
    assert code_of([(await reader.http.post("/graphql", json=body)).json()]) == ""


ADMINS_THREE = [
    "{ ...F } fragment F on Query { keys: apiKeys { totalCount: nodes { id } } }",
    "query ($yes: Boolean = true) { apiKeys @include(if: $yes) { nodes { name } } }",
    "{ health { status } apiKeys(first: 0) { nodes { id } } }",
]


@pytest.mark.parametrize("document", ADMINS_THREE)
async def test_what_is_for_admins_is_so_however_it_is_written(service: Tenants, world: World, document: str) -> None:
    writer, admin = await service.tenant("mine", "write"), world.tenant
    for _ in range(3):
        answer = (await writer.http.post("/graphql", json={"query": document})).json()
        assert code_of([answer]) == "FORBIDDEN"
        assert world.api_keys["living"] not in json.dumps(answer)
        assert code_of([(await admin.http.post("/graphql", json={"query": document})).json()]) == ""


# -- Without a credential


async def test_who_has_no_credential_is_told_nothing(service: Tenants, world: World, database_url: str) -> None:
    before = rows(database_url)
    transport = httpx2.ASGITransport(app=service.app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url=service.url) as http:
        requests: list[tuple[str, dict[str, Any]]] = []
        for _, document, variables in documents(world):
            body = {"query": document, "variables": variables}
            requests += [("POST", {"json": body, "headers": {"accept": accept}}) for accept in ACCEPTS]
            requests.append(("GET", {"params": {"query": document, "variables": json.dumps(variables)}}))
        for text in ("{ __schema { types { name } } }", "{ __typename }", "{", "{ nothing }"):
            requests += [("POST", {"json": {"query": text}}), ("GET", {"params": {"query": text}})]
        requests += [
            ("POST", {"content": b"no JSON"}),
            ("POST", {"json": {"documentId": "any"}}),
            ("POST", {"json": {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": "0" * 64}}}}),
        ]
        answers = set()
        for method, options in requests:
            response = await http.request(method, "/graphql", **options)
            answers.add((response.status_code, response.headers["www-authenticate"], code_of(bodies(response.text))))
        assert answers == {(401, 'Bearer realm="forkpoint"', "UNAUTHENTICATED")}
    assert rows(database_url) == before


@pytest.mark.parametrize(
    "authorization", ["", "Bearer", "Bearer nonsense", "Basic eDp5", "Bearer fpk_bWluZQ.AAAAAAAAAAAAAAAAAAAAAA.secret"]
)
async def test_a_websocket_without_a_credential_is_closed(service: Tenants, authorization: str) -> None:
    socket = await service.socket()
    await socket.send({"type": "connection_init", "payload": {"Authorization": authorization}})
    assert (await socket.closed())[0] == 4403
    socket = await service.socket()
    await socket.subscribe("{ health { status } }")
    with pytest.raises(ConnectionClosed):
        await socket.receive()
    assert (await socket.closed())[0] == 4401


async def test_a_document_that_another_tenant_has_sent_tells_nothing_of_it(service: Tenants) -> None:
    """A text is known by its hash to all tenants: whoever knows the hash of a text knows the text."""
    mine, theirs = await service.tenant("mine"), await service.tenant("theirs")
    made = await calls.create(theirs, say("sekret"), name="sekret")
    text = f'{{ context(id: "{made["id"]}") {{ name messages {{ nodes {{ content }} }} }} contexts {{ totalCount }} }}'
    named = {"extensions": {"persistedQuery": {"version": 1, "sha256Hash": hashlib.sha256(text.encode()).hexdigest()}}}
    for _ in range(3):
        answer = (await theirs.http.post("/graphql", json={"query": text} | named)).json()
        assert answer["data"]["context"]["messages"]["nodes"] == [{"content": "sekret"}]
        answer = (await mine.http.post("/graphql", json=named)).json()
        assert answer["data"] == {"context": None, "contexts": {"totalCount": 0}}


@pytest.mark.parametrize("planned", [True, False])
async def test_literals_of_another_tenant_are_not_answered_for(settings: Settings, planned: bool) -> None:
    """Texts that differ in their literals only share a document, and each is answered with its own."""
    async with serving(with_tokens(settings, planned_reads=planned, row_security="off")) as service:
        tenants = [await service.tenant("mine"), await service.tenant("theirs")]
        made = [await calls.create(tenant, say(tenant.tenant_id), name=tenant.tenant_id) for tenant in tenants]
        for _ in range(4):
            for tenant, own, other in zip(tenants, made, made[::-1], strict=True):
                answers = [
                    (
                        await tenant(
                            f'{{ context(id: "{each["id"]}") {{ name }} contexts(filter: {{nameContains: "{name}"}}) '
                            f"{{ nodes {{ name }} }} }}"
                        )
                    )
                    for each, name in ((own, own["name"]), (other, other["name"]))
                ]
                assert answers == [
                    {"context": {"name": own["name"]}, "contexts": {"nodes": [{"name": own["name"]}]}},
                    {"context": None, "contexts": {"nodes": []}},
                ]
                refused = await tenant.http.post(
                    "/graphql", json={"query": f'{{ node(id: "{other["name"]}") {{ id }} }}'}
                )
                assert own["name"] not in refused.text
