"""API keys where they are used: over HTTP, by several processes, between tenants, and in the log of none."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest

from db.pool import Database, PoolLimits
from graphql_api.app import create_app
from graphql_api.settings import Authentication, Settings
from schema import api_key, api_key_text
from schema.principal import Scope
from tests.client import Api, ApiError
from tests.conftest import api_over
from tests.program import folder_for_all, run
from tests.schema.calls import create, say
from tests.service import serving

LIMITS = PoolLimits(size_min=1, size_max=1, wait_seconds=20, connect_seconds=5, statement_seconds=30)
LIST = "{ apiKeys { nodes { id name scopes lastUsedAt revokedAt } } }"
CREATE = 'mutation { createApiKey(input: {name: "made", scopes: [READ]}) { key apiKey { id } } }'
REVOKE = "mutation ($id: ID!) { revokeApiKey(input: {id: $id}) { apiKey { id revokedAt } } }"


async def make(url: str, tenant_id: str, *scopes: Scope) -> str:
    database = Database(url, LIMITS)
    await database.open()
    try:
        async with database.transaction(tenant_id) as session:
            return (await api_key.make(session, tenant_id, "a key", scopes, None))[1]
    finally:
        await database.close()


@pytest.fixture
async def guarded(settings: Settings) -> AsyncIterator[Api]:
    """Speak to a service that wants keys."""
    chosen = settings.model_copy(update={"authentication": (Authentication.KEYS,)})
    async with api_over(create_app(chosen)) as api:
        yield api


def holding(api: Api, key: str, **headers: str) -> Api:
    """Give a client of the same service that sends a key."""
    http = httpx2.AsyncClient(
        transport=api.http._transport,  # noqa: SLF001 - the same service
        base_url=api.http.base_url,
        headers={"authorization": f"Bearer {key}"} | headers,
    )
    return Api(http)


async def refused(api: Api, document: str, **variables: Any) -> tuple[str, str]:
    with pytest.raises(ApiError) as caught:
        await api(document, **variables)
    return caught.value.code, caught.value.message


async def test_without_a_key_or_with_none_that_opens_the_answer_is_401(guarded: Api, database_url: str) -> None:
    key = await make(database_url, "acme", Scope.READ)
    sent = ["", "Bearer", f"Basic {key}", f"Bearer {key}x", f"Bearer {key[:-2]}", f"Bearer {key} {key}", key]
    sent += [
        f"Bearer {api_key_text.make('acme', uuid.uuid4())}",
        "Bearer fpk_",
        "Bearer fpk_\xff",
        f"Bearer {key.lower()}",
    ]
    for authorization in sent:
        headers = {b"authorization": authorization.encode("latin-1")} if authorization else {}
        answer = await guarded.http.post("/graphql", json={"query": "{ contexts { totalCount } }"}, headers=headers)
        assert answer.status_code == 401, authorization
        assert answer.headers["www-authenticate"].startswith("Bearer")
        (error,) = answer.json()["errors"]
        assert error["extensions"] == {"code": "UNAUTHENTICATED"}
        assert key[-43:] not in answer.text
    assert await holding(guarded, key)("{ contexts { totalCount } }") == {"contexts": {"totalCount": 0}}


async def test_a_key_reads_and_writes_its_tenant_and_what_its_scopes_allow(guarded: Api, database_url: str) -> None:
    mine = holding(guarded, await make(database_url, "acme", Scope.WRITE))
    reader = holding(guarded, await make(database_url, "acme", Scope.READ))
    theirs = holding(guarded, await make(database_url, "other", Scope.ADMIN))
    context = await create(mine, say("hello"))
    query = "query ($id: ID!) { context(id: $id) { latestVersion } }"
    assert await reader(query, id=context["id"]) == {"context": {"latestVersion": 1}}
    assert await theirs(query, id=context["id"]) == {"context": None}
    with pytest.raises(ApiError) as caught:
        await create(reader)
    assert caught.value.code == "FORBIDDEN"


@pytest.mark.parametrize("document", [LIST, CREATE, f'{REVOKE} # "{uuid.UUID(int=7)}"'])
async def test_keys_are_for_admins(guarded: Api, database_url: str, document: str) -> None:
    writer = holding(guarded, await make(database_url, "acme", Scope.WRITE, Scope.ACT_AS))
    code, message = await refused(writer, document, **({"id": str(uuid.UUID(int=7))} if "$id" in document else {}))
    assert code == "FORBIDDEN"
    assert message == "This needs a credential with the scope admin; this one has act-as, write."


async def test_an_admin_makes_keys_of_its_own_tenant_and_sees_and_revokes_no_others(
    guarded: Api, database_url: str
) -> None:
    admin = holding(guarded, await make(database_url, "acme", Scope.ADMIN))
    other = holding(guarded, await make(database_url, "other", Scope.ADMIN))
    made = (await admin(CREATE))["createApiKey"]
    assert await holding(guarded, made["key"])("{ contexts { totalCount } }") == {"contexts": {"totalCount": 0}}
    name = api_key_text.read_name(made["key"])
    assert name is not None
    assert name.tenant_id == "acme"
    assert [key["name"] for key in (await other(LIST))["apiKeys"]["nodes"]] == ["a key"]
    assert (await refused(other, REVOKE, id=made["apiKey"]["id"]))[0] == "NOT_FOUND"
    assert (await admin(REVOKE, id=made["apiKey"]["id"]))["revokeApiKey"]["apiKey"]["revokedAt"] is not None


async def test_who_acts_as_another_tenant_makes_keys_there(guarded: Api, database_url: str) -> None:
    key = await make(database_url, "platform", Scope.ADMIN, Scope.ACT_AS)
    agent = holding(guarded, key, **{"forkpoint-tenant": "user-17"})
    made = (await agent(CREATE))["createApiKey"]
    name = api_key_text.read_name(made["key"])
    assert name is not None
    assert name.tenant_id == "user-17"
    assert [found["name"] for found in (await holding(guarded, key)(LIST))["apiKeys"]["nodes"]] == ["a key"]


async def test_the_last_use_is_there_when_the_service_has_ended(settings: Settings, database_url: str) -> None:
    key = await make(database_url, "acme", Scope.READ)
    chosen = settings.model_copy(update={"authentication": (Authentication.KEYS,)})
    async with api_over(create_app(chosen)) as api:
        await holding(api, key)("{ contexts { totalCount } }")
    with psycopg.connect(database_url) as connection:
        found = connection.execute("select last_used_at is not null from api_keys").fetchall()
    assert found == [(True,)]


@asynccontextmanager
async def clients(database_url: str, folder: Path, count: int) -> AsyncIterator[tuple[list[Api], list[Path]]]:
    """Run processes that want keys, and speak to each."""
    chosen = {"FORKPOINT_AUTHENTICATION": "keys", "FORKPOINT_LOG_LEVEL": "debug"}
    async with serving(database_url, folder, count, **chosen) as services, AsyncExitStack() as open_clients:
        apis = [await open_clients.enter_async_context(service.client()) for service in services]
        yield apis, [service.log for service in services]


async def refused_from(api: Api, revoked_at: float) -> None:
    """Ask until a key is refused; whoever began to ask 5 seconds after it was revoked must be."""
    while True:
        asked_at = time.monotonic()
        answer = await api.http.post("/graphql", json={"query": "{ contexts { totalCount } }"})
        if answer.status_code == 401:
            return
        assert answer.status_code == 200
        assert asked_at - revoked_at < 5
        await asyncio.sleep(0.05)


async def test_what_one_process_revokes_is_refused_by_another_within_5_seconds_and_keys_are_in_no_log(
    database_url: str,
) -> None:
    with folder_for_all() as folder:
        made = run(folder, "keys", "create", "--name", "root", "--scopes", "admin", DATABASE_URL=database_url)
        admin = made.stdout.strip()
        async with clients(database_url, folder, 2) as (apis, logs):
            for api in apis:
                api.http.headers["authorization"] = f"Bearer {admin}"
            keys = [(await apis[0](CREATE))["createApiKey"] for _ in range(2)]
            for number, key in enumerate(keys):
                for api in apis:
                    api.http.headers["authorization"] = f"Bearer {key['key']}"
                    await api("{ contexts { totalCount } }")
                if number == 0:
                    apis[0].http.headers["authorization"] = f"Bearer {admin}"
                    await apis[0](REVOKE, id=key["apiKey"]["id"])
                else:
                    done = run(folder, "keys", "revoke", key["apiKey"]["id"], DATABASE_URL=database_url)
                    assert done.returncode == 0, done
                revoked_at = time.monotonic()
                for api in apis:
                    api.http.headers["authorization"] = f"Bearer {key['key']}"
                    await refused_from(api, revoked_at)
            text = "".join(log.read_text() for log in logs)
    assert keys[0]["apiKey"]["id"] in text
    assert [key for key in (admin, *(key["key"] for key in keys)) if key[-43:] in text] == []
