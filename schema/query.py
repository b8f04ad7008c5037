"""Query: everything that is read."""

import asyncio
from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

import strawberry

from db.records import MessageRecord
from schema import api_key, health
from schema.api_key import ApiKeyConnection
from schema.connection import PAGE_DEFAULT, PAGE_MAX, After, First
from schema.context import Context, ContextConnection, visible
from schema.context_list import ContextFilter, ContextOrder, Contexts
from schema.errors import LimitExceeded
from schema.health import Health
from schema.message import Message
from schema.node import Node
from schema.request import Info
from schema.scalar import read_id


@strawberry.type(description="Everything that is read. One query sees one moment.")
class Query:
    """The fields of a query."""

    @strawberry.field(description="A context by its id; null when there is none, or it is deleted.")
    async def context(
        self,
        info: Info,
        id: Annotated[strawberry.ID, strawberry.argument(description="Its id.")],  # noqa: A002 - the contract
    ) -> Context | None:
        """Load one context."""
        return visible(await info.context.loaders.context.load(read_id(id, "id")))

    @strawberry.field(description="The contexts, newest change first unless `orderBy` says otherwise.")
    def contexts(
        self,
        info: Info,
        first: First = PAGE_DEFAULT,
        after: After = None,
        filter: Annotated[  # noqa: A002 - the contract
            ContextFilter | None, strawberry.argument(description="Which ones; all but the deleted ones if not given.")
        ] = None,
        order_by: Annotated[ContextOrder | None, strawberry.argument(description="In which order.")] = None,
    ) -> ContextConnection:
        """Give a page of contexts."""
        return ContextConnection(
            source=Contexts(first, after, filter, order_by, info.context.service.limits.page_size_max)
        )

    @strawberry.field(description="A context or a message by its id; null when there is none, or it is deleted.")
    async def node(
        self,
        info: Info,
        id: Annotated[strawberry.ID, strawberry.argument(description="Its id.")],  # noqa: A002 - the contract
    ) -> Node | None:
        """Load one object."""
        (found,) = await _nodes(info, [read_id(id, "id")])
        return found

    @strawberry.field(
        description="Contexts and messages by their ids, in the order of the ids; null where there is none."
    )
    async def nodes(
        self,
        info: Info,
        ids: Annotated[list[strawberry.ID], strawberry.argument(description=f"Their ids, {PAGE_MAX} at most.")],
    ) -> list[Node | None]:
        """Load many objects."""
        return await _nodes(info, read_ids(ids, info.context.service.limits.page_size_max))

    @strawberry.field(
        description="The API keys of the tenant, newest first, revoked and expired ones too. "
        "It needs a credential with the scope `admin`."
    )
    async def api_keys(self, info: Info, first: First = PAGE_DEFAULT, after: After = None) -> ApiKeyConnection:
        """Give a page of keys."""
        return await api_key.page(info.context, first, after)

    @strawberry.field(description="Whether the service can do its work. It answers also when the database is away.")
    async def health(self, info: Info) -> Health:
        """Probe."""
        return await health.check(info.context.service)


def read_ids(ids: Sequence[str], most: int) -> list[UUID]:
    """Read the ids of `nodes`.

    Raises: BadUserInput, LimitExceeded.
    """
    if len(ids) > most:
        raise LimitExceeded(
            f"ids holds {len(ids)} ids. It may hold {most} at most (FORKPOINT_PAGE_SIZE_MAX); ask several times."
        )
    return [read_id(value, f"ids[{index}]") for index, value in enumerate(ids)]


async def _nodes(info: Info, keys: list[UUID]) -> list[Node | None]:
    loaders = info.context.loaders
    contexts, messages = await asyncio.gather(loaders.context.load_many(keys), loaders.message.load_many(keys))
    return [visible(context) or _visible(message) for context, message in zip(contexts, messages, strict=True)]


def _visible(record: MessageRecord | None) -> Message | None:
    return None if record is None or record.deleted_at is not None else Message.of(record)
