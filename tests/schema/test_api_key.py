"""API keys over GraphQL, for admins: shown once, listed, revoked; those of other tenants are not there."""

import re
from datetime import datetime
from typing import Any

import psycopg
import pytest
from psycopg import sql

from schema.api_key_text import hash_of, read_name
from schema.principal import Scope
from tests.client import Api, ApiError
from tests.schema.calls import UNKNOWN, mutate

KEY = "id name scopes createdAt expiresAt revokedAt lastUsedAt"
LIST = f"query ($first: Int, $after: String) {{ apiKeys(first: $first, after: $after) {{ nodes {{ {KEY} }} \
edges {{ cursor node {{ id }} }} pageInfo {{ hasNextPage hasPreviousPage startCursor endCursor }} }} }}"


async def create(api: Api, **given: Any) -> dict[str, Any]:
    return await mutate(api, "createApiKey", f"key apiKey {{ {KEY} }}", **({"name": "n", "scopes": ["READ"]} | given))


async def revoke(api: Api, key_id: str) -> dict[str, Any]:
    key: dict[str, Any] = (await mutate(api, "revokeApiKey", f"apiKey {{ {KEY} }}", id=key_id))["apiKey"]
    return key


async def listed(api: Api, **page: Any) -> dict[str, Any]:
    found: dict[str, Any] = (await api(LIST, **page))["apiKeys"]
    return found


async def refusal(api: Api, **given: Any) -> tuple[str, str]:
    with pytest.raises(ApiError) as caught:
        await create(api, **given)
    return caught.value.code, caught.value.message


async def test_a_key_is_made_listed_and_revoked(api: Api) -> None:
    made = await create(api, name="chat", scopes=["WRITE", "READ", "READ"], expiresAt="2999-01-01T01:00:00+01:00")
    key = made["apiKey"]
    name = read_name(made["key"])
    assert name is not None
    assert (name.tenant_id, str(name.id)) == ("default", key["id"])
    assert datetime.fromisoformat(key["createdAt"])
    assert key == key | {
        "name": "chat",
        "scopes": ["READ", "WRITE"],
        "expiresAt": "2999-01-01T00:00:00.000000Z",
        "revokedAt": None,
        "lastUsedAt": None,
    }
    assert (await listed(api))["nodes"] == [key]
    revoked = await revoke(api, key["id"])
    assert revoked["revokedAt"] is not None
    assert revoked | {"revokedAt": None} == key
    assert await revoke(api, key["id"]) == revoked
    assert (await listed(api))["nodes"] == [revoked]


async def test_no_column_of_no_table_holds_the_key_or_its_secret(api: Api, database_url: str) -> None:
    key = (await create(api))["key"]
    secret = key.rpartition(".")[2]
    with psycopg.connect(database_url) as connection:
        tables = connection.execute("select relname from pg_class where relkind = 'r' and relname !~ '^(pg_|sql_)'")
        statements = [sql.SQL("select to_jsonb(t)::text from {} t").format(sql.Identifier(name)) for (name,) in tables]
        text = "\n".join(line for each in statements for (line,) in connection.execute(each).fetchall())
        stored = connection.execute("select key_hash from api_keys").fetchall()
    assert stored == [(hash_of(key),)]
    assert hash_of(key).hex() in text
    assert key not in text
    assert secret not in text


async def test_keys_are_paged_newest_first_without_gaps(api: Api) -> None:
    made = [(await create(api, name=f"key {number}"))["apiKey"]["id"] for number in range(5)]
    await revoke(api, made[2])
    seen: list[str] = []
    after: str | None = None
    while True:
        page = await listed(api, first=2, after=after)
        seen += [node["id"] for node in page["nodes"]]
        assert [edge["node"]["id"] for edge in page["edges"]] == [node["id"] for node in page["nodes"]]
        assert page["pageInfo"]["startCursor"] == page["edges"][0]["cursor"]
        assert page["pageInfo"]["hasPreviousPage"] is (after is not None)
        after = page["pageInfo"]["endCursor"]
        if not page["pageInfo"]["hasNextPage"]:
            break
    assert seen == made[::-1]
    assert (await listed(api, first=0))["nodes"] == []


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        ({"name": ""}, "BAD_USER_INPUT", "input.name is empty"),
        ({"name": " \t"}, "BAD_USER_INPUT", "input.name is empty"),
        ({"name": "a\0b"}, "BAD_USER_INPUT", "input.name holds U+0000 at character 2"),
        ({"name": "x" * 256}, "LIMIT_EXCEEDED", "input.name has 256 characters. It may have 255 at most."),
        ({"scopes": []}, "BAD_USER_INPUT", "input.scopes is empty"),
        ({"expiresAt": "2020-01-01T00:00:00Z"}, "BAD_USER_INPUT", "The key would expire in the past."),
        ({"scopes": ["READ", "ACT_AS"]}, "FORBIDDEN", "`forkpoint keys create --act-as`"),
    ],
)
async def test_what_makes_no_key_is_refused_and_leaves_none(
    api: Api, given: dict[str, Any], code: str, words: str
) -> None:
    found = await refusal(api, **given)
    assert found[0] == code
    assert words in found[1]
    assert (await listed(api))["nodes"] == []


@pytest.mark.parametrize(
    ("page", "code"),
    [({"first": 1_001}, "LIMIT_EXCEEDED"), ({"first": -1}, "BAD_USER_INPUT"), ({"after": "WyJ4Il0"}, "BAD_USER_INPUT")],
)
async def test_pages_that_are_none_are_refused(api: Api, page: dict[str, Any], code: str) -> None:
    with pytest.raises(ApiError) as caught:
        await listed(api, **page)
    assert caught.value.code == code


async def test_a_key_of_another_tenant_is_not_there(api: Api, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into api_keys (tenant_id, id, key_hash, name, scopes) "
            "values ('other', %s, sha256(''), 'theirs', '{read}')",
            [UNKNOWN],
        )
    assert (await listed(api))["nodes"] == []
    with pytest.raises(ApiError) as theirs:
        await revoke(api, UNKNOWN)
    with pytest.raises(ApiError) as nobodys:
        await revoke(api, UNKNOWN[:-1] + "1")
    assert theirs.value.code == nobodys.value.code == "NOT_FOUND"
    assert theirs.value.message == nobodys.value.message.replace(UNKNOWN[:-1] + "1", UNKNOWN)
    with psycopg.connect(database_url) as connection:
        assert connection.execute("select revoked_at from api_keys").fetchall() == [(None,)]


async def test_a_key_is_no_node(api: Api) -> None:
    key_id = (await create(api))["apiKey"]["id"]
    assert await api("query ($id: ID!) { node(id: $id) { id } }", id=key_id) == {"node": None}


async def test_act_as_made_elsewhere_is_shown(api: Api, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into api_keys (tenant_id, id, key_hash, name, scopes) "
            "values ('default', %s, sha256(''), 'agent', %s)",
            [UNKNOWN, [scope.value for scope in Scope]],
        )
    assert (await listed(api))["nodes"][0]["scopes"] == ["READ", "WRITE", "ADMIN", "ACT_AS"]


async def test_the_answer_with_a_key_is_kept_by_nobody(api: Api) -> None:
    document = 'mutation { createApiKey(input: {name: "n", scopes: [READ]}) { key } }'
    responses = [await api.http.post("/graphql", json={"query": document}) for _ in range(2)]
    assert [response.headers["cache-control"] for response in responses] == ["no-store"] * 2
    assert len({re.search(r"fpk_[\w.-]+", response.text)[0] for response in responses}) == 2  # type: ignore[index] # each has one
