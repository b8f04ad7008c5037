"""Loaders: what the resolvers of one level ask for becomes one batch. They live as long as one snapshot."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from datetime import datetime
from functools import cached_property
from typing import TypeVar
from uuid import UUID

from strawberry.dataloader import DataLoader

import db.context
import db.tree
from db.lineage import Totals
from db.records import ContextRecord, MessageRecord
from db.window import Fitted, Frame
from schema.batches import Batches, ContextsPage, ForksPage, LineagePage, RoleCount, TreePart

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


class Loaders:
    """The loaders of one snapshot, each made when it is first asked."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches

    @cached_property
    def context(self) -> DataLoader[UUID, ContextRecord | None]:
        """Contexts by id, deleted ones too."""
        return _loader(self._batches.contexts)

    @cached_property
    def message(self) -> DataLoader[UUID, MessageRecord | None]:
        """Messages by id, deleted ones too."""
        return _loader(self._batches.messages)

    @cached_property
    def contexts(self) -> DataLoader[ContextsPage, list[ContextRecord]]:
        """Pages of the tenant's contexts."""
        return _loader(self._batches.context_pages)

    @cached_property
    def context_count(self) -> DataLoader[db.context.Filter, int]:
        """How many contexts a filter chooses."""
        return _loader(self._batches.context_counts)

    @cached_property
    def ancestors(self) -> DataLoader[UUID, list[ContextRecord]]:
        """Ancestors, nearest first."""
        return _loader(self._batches.ancestors)

    @cached_property
    def forks(self) -> DataLoader[ForksPage, list[ContextRecord]]:
        """Pages of forks."""
        return _loader(self._batches.forks)

    @cached_property
    def fork_count(self) -> DataLoader[UUID, int]:
        """How many forks a context has."""
        return _loader(self._batches.fork_counts)

    @cached_property
    def tree(self) -> DataLoader[TreePart, list[db.tree.Node]]:
        """The first nodes of a tree."""
        return _loader(self._batches.trees)

    @cached_property
    def common_ancestor(self) -> DataLoader[tuple[UUID, UUID], db.tree.Meeting | None]:
        """Where two contexts meet."""
        return _loader(self._batches.common_ancestors)

    @cached_property
    def lineage(self) -> DataLoader[LineagePage, list[MessageRecord]]:
        """Pages of a lineage."""
        return _loader(self._batches.lineages)

    @cached_property
    def role_count(self) -> DataLoader[RoleCount, int]:
        """How many messages of some roles a lineage has."""
        return _loader(self._batches.role_counts)

    @cached_property
    def totals(self) -> DataLoader[tuple[UUID, int], Totals]:
        """The counters of a lineage through a version."""
        return _loader(self._batches.totals)

    @cached_property
    def version_at(self) -> DataLoader[tuple[UUID, datetime], int]:
        """The last version at a moment."""
        return _loader(self._batches.versions_at)

    @cached_property
    def window(self) -> DataLoader[Frame, Fitted]:
        """Windows."""
        return _loader(self._batches.windows)


def _loader(batch: Callable[[list[Key]], Awaitable[list[Result]]]) -> DataLoader[Key, Result]:
    return _Loader(load_fn=batch)


class _Loader(DataLoader[Key, Result]):
    """Loads for all who ask for a key, also when one of them is cancelled.

    graphql-core cancels the fields beside one that fails. Strawberry lets many fields wait for one future, which would
    be cancelled with the first of them; all others, and with them the request, would end without any answer.
    """

    def load(self, key: Key) -> Awaitable[Result]:
        loading = asyncio.ensure_future(super().load(key))
        waiting = asyncio.shield(loading)
        for each in (loading, waiting):
            each.add_done_callback(_look)
        return waiting


def _look(done: asyncio.Future[Result]) -> None:
    """Look at a failure, for asyncio complains of one that nobody looked at; those who were cancelled never do."""
    if not done.cancelled():
        done.exception()
