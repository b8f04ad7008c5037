"""The mutations as functions, so that a test reads as what it does: an input's fields go in, its payload comes out."""

import json
from collections.abc import Awaitable
from typing import Any

import psycopg
import pytest

from tests.client import Api, ApiError

Json = dict[str, Any]

# A context that no test makes.
UNKNOWN = "0198c0de-7d0e-7000-8000-000000000000"

MESSAGE = """id version createdAt role content toolCalls { id name arguments } toolCallId toolName tokenCount model
metadata deletedAt context { id deletedAt }"""
CONTEXT = """id name metadata createdAt updatedAt deletedAt messageCount totalTokens latestVersion parent { id }
forkVersion depth ancestors { id }"""


def say(content: str = "", **more: Any) -> Json:
    """Give a message of one token from the user, unless `more` says otherwise."""
    return {"role": "USER", "content": content, "tokenCount": 1} | more


async def mutate(api: Api, field: str, selection: str, **given: Any) -> Json:
    """Run one field of the mutation; gives its payload."""
    kind = f"{field[0].upper()}{field[1:]}Input"
    document = f"mutation ($input: {kind}!) {{ {field}(input: $input) {{ {selection} }} }}"
    payload: Json = (await api(document, input=given))[field]
    return payload


async def create(api: Api, *messages: Json, **given: Any) -> Json:
    """Make a context with messages; gives the context."""
    return await _context(api, "createContext", messages=list(messages), **given)


async def fork(api: Api, context_id: str, version: int | None = None, **given: Any) -> Json:
    """Fork; gives the fork."""
    return await _context(api, "forkContext", contextId=context_id, version=version, **given)


async def update(api: Api, context_id: str, **given: Any) -> Json:
    """Update; gives the context."""
    return await _context(api, "updateContext", contextId=context_id, **given)


async def delete(api: Api, context_id: str) -> Json:
    """Delete; gives the context."""
    return await _context(api, "deleteContext", contextId=context_id)


async def restore(api: Api, context_id: str) -> Json:
    """Restore; gives the context."""
    return await _context(api, "restoreContext", contextId=context_id)


async def append(api: Api, context_id: str, *messages: Json, **given: Any) -> Json:
    """Append; gives the payload."""
    selection = f"context {{ {CONTEXT} }} messages {{ {MESSAGE} }} replayed forked"
    return await mutate(api, "appendMessages", selection, contextId=context_id, messages=list(messages), **given)


async def delete_message(api: Api, context_id: str, version: int) -> Json:
    """Delete a message; gives the payload."""
    selection = f"context {{ {CONTEXT} }} message {{ {MESSAGE} }}"
    return await mutate(api, "deleteMessage", selection, contextId=context_id, version=version)


async def restore_message(api: Api, context_id: str, version: int) -> Json:
    """Restore a message; gives the payload."""
    selection = f"context {{ {CONTEXT} }} message {{ {MESSAGE} }}"
    return await mutate(api, "restoreMessage", selection, contextId=context_id, version=version)


async def read(api: Api, context_id: str) -> Json:
    """Read a context without its messages."""
    context: Json = (await api(f"query ($id: ID!) {{ context(id: $id) {{ {CONTEXT} }} }}", id=context_id))["context"]
    return context


async def contents(api: Api, context_id: str) -> list[str]:
    """Read the contents of a context's first messages."""
    document = "query ($id: ID!) { context(id: $id) { messages(first: 1000) { nodes { content } } } }"
    context = (await api(document, id=context_id))["context"]
    return [message["content"] for message in context["messages"]["nodes"]]


async def refusal(call: Awaitable[Any]) -> tuple[str, str]:
    """Await what must be refused; gives code and message of its one error."""
    with pytest.raises(ApiError) as refused:
        await call
    (_,) = refused.value.errors
    return refused.value.code, refused.value.message


async def post(api: Api, document: str, variables: str) -> Json:
    """Send variables written as JSON text: escapes, lone surrogates and numbers go out as they stand."""
    body = f'{{"query": {json.dumps(document)}, "variables": {variables}}}'
    response = await api.http.post("/graphql", content=body.encode(), headers={"content-type": "application/json"})
    answer = response.json()
    if "errors" in answer:
        raise ApiError(answer)
    data: Json = answer["data"]
    return data


def stored(database_url: str) -> list[Any]:
    """Give every row that the store holds."""
    with psycopg.connect(database_url) as connection:
        return connection.execute(
            """
            select to_jsonb(t) from trees t
            union all select to_jsonb(c) from contexts c
            union all select to_jsonb(m) from messages m
            union all select to_jsonb(l) from calls l
            union all select to_jsonb(k) from idempotency_keys k
            order by 1
            """
        ).fetchall()


async def _context(api: Api, field: str, **given: Any) -> Json:
    context: Json = (await mutate(api, field, f"context {{ {CONTEXT} }}", **given))["context"]
    return context
