"""gql: mutations and a query over HTTP, a subscription over a WebSocket."""

import asyncio
import os

from gql import Client, GraphQLRequest
from gql.transport.httpx import HTTPXAsyncTransport
from gql.transport.websockets import WebsocketsTransport

URL = os.environ.get("FORKPOINT_URL", "http://127.0.0.1:8000/graphql")

CREATE = """
mutation ($input: CreateContextInput!) {
  createContext(input: $input) { context { id } }
}
"""
APPEND = """
mutation ($input: AppendMessagesInput!) {
  appendMessages(input: $input) { messages { version content } }
}
"""
WINDOW = """
query ($id: ID!, $budget: Int!) {
  context(id: $id) { window(budget: $budget) { tokenCount messages { role content } } }
}
"""
TAIL = """
subscription ($id: ID!, $afterVersion: Int) {
  messageAppended(contextId: $id, afterVersion: $afterVersion) { version message { role content } }
}
"""


async def main() -> None:
    """Create, append, read a window, watch."""
    messages = [
        {"role": "SYSTEM", "content": "You plan trips."},
        {"role": "USER", "content": "Five days in Lisbon, please."},
        {"role": "ASSISTANT", "content": "Shall I look for flights or trains?"},
    ]
    more = [{"role": "USER", "content": "By train."}]

    async with Client(transport=HTTPXAsyncTransport(url=URL)) as http:
        trip = {"name": "Trip to Lisbon", "messages": messages}
        created = await http.execute(GraphQLRequest(CREATE, variable_values={"input": trip}))
        context_id = created["createContext"]["context"]["id"]
        addition = {"contextId": context_id, "messages": more}
        appended = await http.execute(GraphQLRequest(APPEND, variable_values={"input": addition}))
        print(appended["appendMessages"]["messages"])
        read = await http.execute(GraphQLRequest(WINDOW, variable_values={"id": context_id, "budget": 18}))
        print(read["context"]["window"])

    async with Client(transport=WebsocketsTransport(url=URL.replace("http", "ws", 1))) as socket:
        tail = GraphQLRequest(TAIL, variable_values={"id": context_id, "afterVersion": 3})
        async for event in socket.subscribe(tail):
            print(event["messageAppended"])
            break  # it would go on with what is appended next


asyncio.run(main())
