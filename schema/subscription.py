"""Subscription: what is told as it happens. Each field checks first, and then gives a feed that loses nothing."""

from collections.abc import AsyncGenerator
from typing import Annotated

import strawberry

from schema import context_event, context_list, message_event
from schema.context_event import ContextEvent
from schema.context_list import ContextFilter
from schema.message_event import MessageEvent
from schema.request import Info
from schema.scalar import read_id


@strawberry.type(description="What is told as it happens, over a WebSocket or as an event stream.")
class Subscription:
    """The fields of a subscription."""

    @strawberry.subscription(
        description="The messages of a context: those after `afterVersion`, inherited ones too, and then each new one, "
        "in the order of their versions. Nothing is missed and nothing comes twice: who was cut off goes on by passing "
        "the last version seen. Deleted messages are left out; when the context is deleted, it completes."
    )
    async def message_appended(
        self,
        info: Info,
        context_id: Annotated[strawberry.ID, strawberry.argument(description="The context.")],
        after_version: Annotated[
            int | None,
            strawberry.argument(description="The last version already known, 0 for none: the latest if not given."),
        ] = None,
    ) -> AsyncGenerator[MessageEvent, None]:
        """Follow."""
        return await message_event.appended(info.context, read_id(context_id, "contextId"), after_version)

    @strawberry.subscription(
        description="What happens to a context from now on: it is updated, deleted, restored or forked. Changes that "
        "follow each other closely may be told as one. For new messages there is `messageAppended`."
    )
    async def context_changed(
        self,
        info: Info,
        context_id: Annotated[strawberry.ID, strawberry.argument(description="The context.")],
    ) -> AsyncGenerator[ContextEvent, None]:
        """Watch."""
        return await context_event.changed(info.context, read_id(context_id, "contextId"))

    @strawberry.subscription(
        description="Which contexts are made, updated (also by new messages, and when they are restored) or deleted "
        "from now on: each as it is now, some time after it changed. Changes that follow each other closely are told "
        "as one. A context that no longer meets the filter after its change is not told."
    )
    async def contexts_changed(
        self,
        info: Info,
        filter: Annotated[  # noqa: A002 - as of `contexts`
            ContextFilter | None,
            strawberry.argument(description="Which ones; deleted ones are told whatever `includeDeleted` says."),
        ] = None,
    ) -> AsyncGenerator[ContextEvent, None]:
        """Watch all."""
        return context_event.listed(info.context, context_list.read_filter(filter or ContextFilter()))
