"""Mutation: everything that is written. Each field is one transaction; several run one after the other."""

from typing import Annotated

import strawberry

from schema import api_key, context_change, context_copy, message_append, message_change
from schema.api_key import CreateApiKeyInput, CreateApiKeyPayload, RevokeApiKeyInput, RevokeApiKeyPayload
from schema.context_change import (
    CreateContextInput,
    CreateContextPayload,
    DeleteContextInput,
    DeleteContextPayload,
    ForkContextInput,
    ForkContextPayload,
    RestoreContextInput,
    RestoreContextPayload,
    UpdateContextInput,
    UpdateContextPayload,
)
from schema.context_copy import CopyContextInput, CopyContextPayload
from schema.message_append import AppendMessagesInput, AppendMessagesPayload
from schema.message_change import (
    DeleteMessageInput,
    DeleteMessagePayload,
    RestoreMessageInput,
    RestoreMessagePayload,
)
from schema.request import Info


@strawberry.type(description="Everything that is written. Each field is one transaction: all of it or nothing.")
class Mutation:
    """The fields of a mutation."""

    @strawberry.mutation(description="Make a context, empty or with its first messages.")
    async def create_context(
        self,
        info: Info,
        input: Annotated[CreateContextInput, strawberry.argument(description="The context to make.")],  # noqa: A002 - the contract
    ) -> CreateContextPayload:
        """Create."""
        return await context_change.create(info.context, input)

    @strawberry.mutation(
        description="Fork a context at a version: one new row, whatever the history's length. "
        "Later messages of either stay its own."
    )
    async def fork_context(
        self,
        info: Info,
        input: Annotated[ForkContextInput, strawberry.argument(description="What to fork, and where.")],  # noqa: A002 - the contract
    ) -> ForkContextPayload:
        """Fork."""
        return await context_change.fork(info.context, input)

    @strawberry.mutation(
        description="Copy a context with its whole history into a new root that shares nothing with it, for instance "
        "before the one that it was forked from is erased. Versions, times, token counts and deletions stay as they "
        "are; messages get new ids. It takes time and space by the length of the history: to go on from a context, "
        "fork it. Deleting and restoring messages of its tree waits meanwhile."
    )
    async def copy_context(
        self,
        info: Info,
        input: Annotated[CopyContextInput, strawberry.argument(description="What to copy, and how far.")],  # noqa: A002 - the contract
    ) -> CopyContextPayload:
        """Copy."""
        return await context_copy.copy(info.context, input)

    @strawberry.mutation(
        description="Append messages to a context, all of them or none. They get the next versions, without gaps. "
        "With an `idempotencyKey` it may be sent again, with an `expectedVersion` nothing comes in between."
    )
    async def append_messages(
        self,
        info: Info,
        input: Annotated[AppendMessagesInput, strawberry.argument(description="The messages, and where they go.")],  # noqa: A002 - the contract
    ) -> AppendMessagesPayload:
        """Append."""
        return await message_append.append(info.context, input)

    @strawberry.mutation(description="Change a context's name or metadata.")
    async def update_context(
        self,
        info: Info,
        input: Annotated[UpdateContextInput, strawberry.argument(description="What to change.")],  # noqa: A002 - the contract
    ) -> UpdateContextPayload:
        """Update."""
        return await context_change.update(info.context, input)

    @strawberry.mutation(
        description="Hide a context. Nothing is lost: its forks keep what they inherited, and it can be restored."
    )
    async def delete_context(
        self,
        info: Info,
        input: Annotated[DeleteContextInput, strawberry.argument(description="Which one.")],  # noqa: A002 - the contract
    ) -> DeleteContextPayload:
        """Delete."""
        return await context_change.delete(info.context, input)

    @strawberry.mutation(description="Show a deleted context again. One that is not deleted stays as it is.")
    async def restore_context(
        self,
        info: Info,
        input: Annotated[RestoreContextInput, strawberry.argument(description="Which one.")],  # noqa: A002 - the contract
    ) -> RestoreContextPayload:
        """Restore."""
        return await context_change.restore(info.context, input)

    @strawberry.mutation(
        description="Hide one message from every context that reads it, forks included. Versions stay as they are; "
        "doing it again changes nothing."
    )
    async def delete_message(
        self,
        info: Info,
        input: Annotated[DeleteMessageInput, strawberry.argument(description="Which one.")],  # noqa: A002 - the contract
    ) -> DeleteMessagePayload:
        """Delete."""
        return await message_change.delete(info.context, input)

    @strawberry.mutation(
        description="Show a deleted message again, to every context that inherits it. Doing it again changes nothing."
    )
    async def restore_message(
        self,
        info: Info,
        input: Annotated[RestoreMessageInput, strawberry.argument(description="Which one.")],  # noqa: A002 - the contract
    ) -> RestoreMessagePayload:
        """Restore."""
        return await message_change.restore(info.context, input)

    @strawberry.mutation(
        description="Make an API key for the tenant. The answer is the only place where it is ever shown. "
        "It needs a credential with the scope `admin`."
    )
    async def create_api_key(
        self,
        info: Info,
        input: Annotated[CreateApiKeyInput, strawberry.argument(description="The key to make.")],  # noqa: A002 - the contract
    ) -> CreateApiKeyPayload:
        """Create."""
        return await api_key.create(info.context, input)

    @strawberry.mutation(
        description="Let an API key open nothing any more, 5 seconds later at the latest. Doing it again changes "
        "nothing. It needs a credential with the scope `admin`."
    )
    async def revoke_api_key(
        self,
        info: Info,
        input: Annotated[RevokeApiKeyInput, strawberry.argument(description="Which one.")],  # noqa: A002 - the contract
    ) -> RevokeApiKeyPayload:
        """Revoke."""
        return await api_key.revoke(info.context, input)
