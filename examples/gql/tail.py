"""Tail a context with gql: each message once and in order, over as many connections as it takes.

python gql/tail.py CONTEXT_ID [AFTER_VERSION]
"""

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator
from typing import Any

from gql import Client, GraphQLRequest
from gql.transport.exceptions import TransportClosed, TransportConnectionFailed, TransportQueryError
from gql.transport.websockets import WebsocketsTransport

URL = os.environ.get("FORKPOINT_URL", "http://127.0.0.1:8000/graphql")

TAIL = """
subscription ($id: ID!, $afterVersion: Int) {
  messageAppended(contextId: $id, afterVersion: $afterVersion) { version message { role content } }
}
"""


async def tail(context_id: str, version: int) -> AsyncIterator[dict[str, Any]]:
    """Give what follows a version, until the context is deleted."""
    while True:
        try:
            async with Client(transport=WebsocketsTransport(url=URL.replace("http", "ws", 1))) as session:
                request = GraphQLRequest(TAIL, variable_values={"id": context_id, "afterVersion": version})
                async for data in session.subscribe(request):
                    yield data["messageAppended"]
                    # The one thing to remember: the next subscription goes on from here.
                    version = data["messageAppended"]["version"]
                return
        except (TransportClosed, TransportConnectionFailed):
            pass  # the connection was lost, or not to be had
        except TransportQueryError as refused:
            if not refused.errors or refused.errors[0]["extensions"]["code"] != "UNAVAILABLE":
                raise
        await asyncio.sleep(random.uniform(0.2, 1))  # not all clients at once


async def main() -> None:
    """Print them."""
    context_id, *after_version = sys.argv[1:]
    async for event in tail(context_id, int(after_version[0]) if after_version else 0):
        print(event["version"], event["message"]["role"], event["message"]["content"], flush=True)


asyncio.run(main())
