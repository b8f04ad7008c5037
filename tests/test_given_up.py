"""Operations over a WebSocket that are given up at any moment, by completing them or by leaving."""

import asyncio
import random
from typing import Any

from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from graphql_api.app import create_app
from graphql_api.settings import Settings
from graphql_api.websocket import PROTOCOL
from tests.graphql_api.serving import Socket, listening

CREATE = 'mutation { createContext(input: {messages: [{role: USER, content: "first"}]}) { context { id } } }'
APPEND = """mutation ($id: ID!, $key: String) { appendMessages(input: {
  contextId: $id, idempotencyKey: $key, messages: [{role: USER, content: "one"}, {role: USER, content: "two"}]
}) { context { latestVersion } } }"""
SMALL = "query ($id: ID!) { context(id: $id) { messages(last: 10) { nodes { version content } } } }"
LARGE = "{ contexts(first: 50) { nodes { messages(last: 100) { totalCount nodes { version content } } } } }"
COUNT = """query ($id: ID!) { context(id: $id) {
  latestVersion messageCount messages(first: 1000) { nodes { version } } } health { status } }"""
ROUNDS = 150


async def answer(client: Socket, query: str, **variables: Any) -> Any:
    await client.subscribe(query, "asked", variables=variables)
    while (message := await client.receive())["id"] != "asked" or message["type"] == "complete":
        pass
    assert "errors" not in message["payload"], message
    return message["payload"]["data"]


async def test_what_is_given_up_happens_whole_or_not_at_all_and_costs_no_connection(settings: Settings) -> None:
    dice = random.Random(6)
    settings = settings.model_copy(update={"pool_size_max": 2, "append_connections": 2})
    async with listening(create_app(settings), settings) as port:

        async def come() -> Socket:
            url = f"ws://127.0.0.1:{port}/graphql"
            return await Socket(await connect(url, subprotocols=[Subprotocol(PROTOCOL)])).init()

        client = await come()
        context_id = (await answer(client, CREATE))["createContext"]["context"]["id"]
        for number in range(ROUNDS):
            for operation_id, query in (("a", APPEND), ("b", APPEND), ("c", SMALL), ("d", LARGE)):
                variables = {} if query is LARGE else {"id": context_id}
                if operation_id == "b":
                    variables["key"] = f"key {number}"
                await client.subscribe(query, operation_id, variables=variables)
            await asyncio.sleep(dice.random() * 0.01)
            if number % 3:
                for operation_id in "abcd":
                    await client.send({"id": operation_id, "type": "complete"})
                assert "errors" not in await answer(client, "{ __typename }")
            else:
                client.connection.transport.abort()
                client = await come()
        found = await answer(client, COUNT, id=context_id)
        await client.connection.close()
    context = found["context"]
    versions = [node["version"] for node in context["messages"]["nodes"]]
    assert versions == list(range(1, context["latestVersion"] + 1))
    assert context["messageCount"] == len(versions)
    assert len(versions) % 2 == 1
    assert found["health"] == {"status": "HEALTHY"}
