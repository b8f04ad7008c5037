"""Watches: which contexts may have changed, for those subscribers of one process who wait for that.

A watch is told ids and nothing else: by the doorbell, or by `check`, which finds what no bell has told. It may be told
of what has not changed, and of one change twice: who watches reads, and compares with what was seen.
"""

from asyncio import Event
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, cast
from uuid import UUID

from db import queries
from db.call import Row
from db.context import NIL
from db.feed import Key, read
from db.pool import Database, Reader

_QUERIES = queries.load("watch")
_MOMENT = queries.load("doorbell")["moment"]

# `check` asks for so many contexts in one statement.
_CHECKED = 1_000
# Changed contexts that may wait for one watch.
WATCHED_MAX = 10_000
# A change is seen when it is committed, and is of the time when its transaction began. Nearly all last milliseconds.
OVERLAP = timedelta(minutes=2)


async def moment(reader: Reader) -> datetime:
    """Give the time of the database. Source: doorbell.moment."""
    ((found,),) = await reader.fetch(_MOMENT)
    return cast("datetime", found)


async def of_late(database: Database, tenant_id: str, since: datetime) -> dict[UUID, datetime]:
    """Tell which contexts have changed since a moment, or a little before, and when. Source: watch.changed.

    Raises: the family of db.errors.
    """
    found: dict[UUID, datetime] = {}
    place = (since - OVERLAP, NIL)
    while True:
        parameters = (tenant_id, *place, _CHECKED)
        rows = await read(database, tenant_id, lambda reader: _fetch(reader, "changed", *parameters))  # noqa: B023 - awaited here
        found.update((context_id, changed_at) for context_id, changed_at in rows)
        if len(rows) < _CHECKED:
            return found
        place = (rows[-1][1], rows[-1][0])


class Watch:
    """Which contexts may have changed since somebody last looked: one that is named, or any of the tenant's.

    When it is `full`, it takes no more.
    """

    def __init__(self) -> None:
        # From when on all changes are to be told; None until that is known.
        self.began: datetime | None = None
        self._changed: dict[UUID, None] = {}
        self._told = Event()

    @property
    def full(self) -> bool:
        """Whether more has changed than is kept, and so was lost."""
        return len(self._changed) > WATCHED_MAX

    def tell(self, ids: Iterable[UUID]) -> None:
        """Take what has changed."""
        if self.full:
            return
        self._changed.update(dict.fromkeys(ids))
        if self._changed:
            self._told.set()

    async def changed(self, most: int) -> list[UUID]:
        """Give some of what has changed, as soon as there is something."""
        await self._told.wait()
        found = list(islice(self._changed, most))
        for context_id in found:
            del self._changed[context_id]
        if not self._changed:
            self._told.clear()
        return found


class _Named:
    """One context that is watched, as `check` last saw it."""

    def __init__(self) -> None:
        self.watches: set[Watch] = set()
        self.state: Row | None = None


class _List:
    """All contexts of a tenant: how far `check` has looked through their changes, and which ones it saw of late."""

    def __init__(self) -> None:
        self.watches: set[Watch] = set()
        self.mark: datetime | None = None
        self.seen: dict[UUID, datetime] = {}


class Watches:
    """All that is watched in one process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._named: dict[Key, _Named] = {}
        self._lists: dict[str, _List] = {}

    def hear(self, tenant_id: str, ids: Sequence[UUID]) -> None:
        """Take what a bell says has changed."""
        for context_id in ids:
            if (named := self._named.get((tenant_id, context_id))) is not None:
                for watch in named.watches:
                    watch.tell([context_id])
        if (listed := self._lists.get(tenant_id)) is not None:
            for watch in listed.watches:
                watch.tell(ids)

    @contextmanager
    def watch(self, tenant_id: str, context_id: UUID) -> Iterator[Watch]:
        """Be told when a context may have changed, or may have been forked."""
        key = (tenant_id, context_id)
        named = self._named.setdefault(key, _Named())
        watch = Watch()
        named.watches.add(watch)
        try:
            yield watch
        finally:
            named.watches.discard(watch)
            if not named.watches:
                del self._named[key]

    @contextmanager
    def watch_all(self, tenant_id: str) -> Iterator[Watch]:
        """Be told which contexts of the tenant may have changed, from when the watch `began` on."""
        listed = self._lists.setdefault(tenant_id, _List())
        watch = Watch()
        listed.watches.add(watch)
        try:
            yield watch
        finally:
            listed.watches.discard(watch)
            if not listed.watches:
                del self._lists[tenant_id]

    async def check(self) -> None:
        """Look for what no bell has told, by some statements for all that is watched.

        Raises: the family of db.errors.
        """
        watched: dict[str, list[UUID]] = {}
        for tenant_id, context_id in self._named:
            watched.setdefault(tenant_id, []).append(context_id)
        for tenant_id, ids in watched.items():
            for start in range(0, len(ids), _CHECKED):
                await self._check_named(tenant_id, ids[start : start + _CHECKED])
        for tenant_id, listed in list(self._lists.items()):
            await self._check_list(tenant_id, listed)

    async def _check_named(self, tenant_id: str, ids: list[UUID]) -> None:
        rows = await read(self._database, tenant_id, lambda reader: _fetch(reader, "states", tenant_id, ids))
        states = {row[0]: row for row in rows}
        for context_id in ids:
            named = self._named.get((tenant_id, context_id))
            state = states.get(context_id)
            if named is not None and (named.state is None or named.state != state):
                named.state = state
                for watch in named.watches:
                    watch.tell([context_id])

    async def _check_list(self, tenant_id: str, listed: _List) -> None:
        """Tell what has changed since the last time, or a little before, and was not seen then."""
        mark = listed.mark or min((watch.began for watch in listed.watches if watch.began), default=None)
        if mark is None:
            return
        found = await of_late(self._database, tenant_id, mark)
        new = [context_id for context_id, changed_at in found.items() if listed.seen.get(context_id) != changed_at]
        listed.mark, listed.seen = max(found.values(), default=mark), found
        for watch in listed.watches:
            watch.tell(new)


async def _fetch(reader: Reader, name: str, *parameters: Any) -> Sequence[Row]:
    return await reader.fetch(_QUERIES[name], *parameters)
