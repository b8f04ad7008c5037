"""ariadne-codegen: a client whose methods are the operations of trip.graphql, typed with pydantic."""

import asyncio
import os

from forkpoint_client import Client, CreateContextInput, DeleteContextInput, MessageInput, Role

URL = os.environ.get("FORKPOINT_URL", "http://127.0.0.1:8000/graphql")


async def main() -> None:
    """Create, read a window, watch, delete."""
    messages = [
        MessageInput(role=Role.SYSTEM, content="You plan trips."),
        MessageInput(role=Role.USER, content="Five days in Lisbon, please."),
        MessageInput(role=Role.ASSISTANT, content="Shall I look for flights or trains?"),
    ]
    async with Client(url=URL, ws_url=URL.replace("http", "ws", 1)) as client:
        created = await client.create_trip(CreateContextInput(name="Trip to Lisbon", messages=messages))
        context_id = created.create_context.context.id

        context = (await client.trip(context_id, budget=18)).context
        if context is None:
            raise LookupError(context_id)  # it was deleted meanwhile
        print(context.name, context.created_at.tzinfo, context.metadata, context.window.token_count)
        for message in context.window.messages:
            print(message.role.value, message.content)

        async for event in client.tail(context_id, after_version=0):
            print(event.message_appended.version, event.message_appended.message.content)
            if event.message_appended.version == len(messages):
                # It ends the stream. Inputs may take snake_case too, but type checkers know the schema's names.
                await client.delete_trip(DeleteContextInput(contextId=context_id))


asyncio.run(main())
