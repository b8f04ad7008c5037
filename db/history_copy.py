"""Stores a whole tree, many rows at a time: contexts, messages and calls, with all that the store derives from them.

What a caller of the API cannot say is computed here exactly as the API would have: running sums, counters, who owns
what a fork inherits, where its jump pointer leads (see `context.fork`). A tree comes row by row and goes on in batches;
what is kept of it are two numbers a message, because any version may be forked later.
"""

from array import array
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from psycopg.types.numeric import Int8

from db import queries
from db.line import encode
from db.pool import Session
from db.records import NewMessage

_QUERIES = queries.load("history")

BATCH_ROWS = 5_000
BATCH_BYTES = 8 * 1024 * 1024
TOTAL_MAX = 2**31 - 1
# As much the clocks of two machines may differ.
CLOCKS_APART = timedelta(hours=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class FlawError(Exception):
    """Something that a tree must not hold: where it stands, what is wrong, what would be right."""

    def __init__(self, place: str, message: str) -> None:
        super().__init__(f"{place}: {message}")


class TakenError(FlawError):
    """An id is there already."""


@dataclass(frozen=True, slots=True)
class NewContext:
    """A context to store, its metadata as JSON text. A moment that is None becomes the earliest that is possible."""

    place: str
    id: UUID
    parent_id: UUID | None
    fork_version: int | None
    name: str | None
    metadata: str
    created_at: datetime | None
    updated_at: datetime | None
    deleted_at: datetime | None


@dataclass(frozen=True, slots=True)
class Placed:
    """A message to store at the next version, which `version` must be unless it is None."""

    place: str
    message: NewMessage
    call_ids: tuple[str, ...]
    version: int | None
    created_at: datetime | None
    deleted_at: datetime | None


@dataclass(frozen=True, slots=True)
class _Sums:
    """What lies at and below a version: all messages and those that are visible, and when the last one was appended."""

    count: int = 0
    tokens: int = 0
    running: int = 0
    moment: datetime | None = None


@dataclass(slots=True)
class _Node:
    """A context with what later forks of it start from: for each own message the running sum and the moment."""

    id: UUID
    place: str
    depth: int
    base: int
    owner: "_Node | None"
    jump: "_Node | None"
    start: _Sums
    updated_at: datetime | None
    created_at: datetime
    owner_depth: int = 0
    running: "array[int]" = field(default_factory=lambda: array("q"))
    moments: "array[int]" = field(default_factory=lambda: array("q"))
    # Of each deleted own message its version, and the tokens of those through it.
    deleted: "array[int]" = field(default_factory=lambda: array("q"))
    deleted_tokens: "array[int]" = field(default_factory=lambda: array("q"))
    stored: bool = False

    @property
    def latest(self) -> int:
        return self.base + len(self.running)

    def sums(self, version: int) -> _Sums:
        """Add up through a version of its own, or its base."""
        own = version - self.base
        if not own:
            return self.start
        running = self.running[own - 1]
        hidden = bisect_right(self.deleted, version)
        hidden_tokens = self.deleted_tokens[hidden - 1] if hidden else 0
        return _Sums(
            self.start.count + own - hidden,
            self.start.tokens + running - self.start.running - hidden_tokens,
            running,
            _EPOCH + self.moments[own - 1] * _MICROSECOND,
        )

    def owner_of(self, version: int) -> "_Node":
        """Climb to the context that stores a version, as every read of a lineage does."""
        node = self
        while version <= node.base:
            climbed = node.jump if node.jump is not None and node.jump.base >= version else node.owner
            if climbed is None:
                raise LookupError(f"version {version} of context {self.id} is not stored")
            node = climbed
        return node

    @property
    def touched_at(self) -> datetime:
        """The moment of its last change, the earliest possible when nobody says."""
        moment = self.sums(self.latest).moment
        return self.updated_at or max(self.created_at, moment or self.created_at)


class TreeCopy:
    """One tree on its way into the store: a root, its messages, forks, theirs. `finish` must be called at the end."""

    def __init__(self, session: Session, tenant_id: str, fork_depth_max: int) -> None:
        self._session = session
        self._tenant_id = tenant_id
        self._fork_depth_max = fork_depth_max
        self._nodes: dict[UUID, _Node] = {}
        self._root_id = UUID(int=0)
        self._now = _EPOCH
        self._last: _Node | None = None
        self._contexts: list[tuple[NewContext, _Node]] = []
        self._messages: list[tuple[Placed, _Node, int, int, datetime]] = []
        self._unsettled: list[_Node] = []
        self._bytes = 0

    async def add_context(self, new: NewContext) -> None:
        """Go on with a context: the root first, then forks, each after its parent.

        Raises: FlawError, TakenError, the family of db.errors.
        """
        self._close()
        if new.id in self._nodes:
            raise FlawError(new.place, f"the id {new.id} stands twice. Give each context an id of its own.")
        node = await self._plant(new) if self._last is None else self._branch(new)
        self._refuse_future(new.place, "createdAt", node.created_at)
        self._refuse_future(new.place, "updatedAt", node.touched_at)
        self._nodes[new.id] = self._last = node
        self._contexts.append((new, node))
        await self._sent(len(new.metadata))

    async def add_message(self, new: Placed) -> None:
        """Add the next message of the context that came last.

        Raises: FlawError, TakenError, the family of db.errors.
        """
        node = self._last
        if node is None:
            raise FlawError(new.place, "a message stands before any context. Begin with the context that holds it.")
        version = node.latest + 1
        if new.version not in {None, version}:
            raise FlawError(
                new.place,
                f"version is {new.version}, but {version} comes next. Versions have no gaps and stand in order.",
            )
        if version > TOTAL_MAX:
            raise FlawError(new.place, f"its version would pass {TOTAL_MAX}, the largest Int of GraphQL.")
        before = node.sums(node.latest)
        moment = new.created_at or before.moment or node.created_at
        if before.moment is not None and moment < before.moment:
            raise FlawError(new.place, "createdAt lies before that of the message before it. Messages stand in order.")
        self._refuse_future(new.place, "createdAt", moment)
        tokens = new.message.token_count
        running = before.running + tokens
        node.running.append(running)
        node.moments.append((moment - _EPOCH) // _MICROSECOND)
        if new.deleted_at is not None:
            node.deleted_tokens.append(tokens + (node.deleted_tokens[-1] if node.deleted else 0))
            node.deleted.append(version)
        if node.sums(version).tokens > TOTAL_MAX:
            raise FlawError(new.place, f"the tokens of its context would pass {TOTAL_MAX}, the largest Int of GraphQL.")
        self._messages.append((new, node, version, running, moment))
        await self._sent(len(new.message.content) + len(new.message.tool_calls or "") + len(new.message.metadata))

    async def finish(self) -> None:
        """Store what is left.

        Raises: as `add_message`.
        """
        self._close()
        await self._flush()
        if not self._unsettled:
            return
        sums = [node.sums(node.latest) for node in self._unsettled]
        await self._session.fetch(
            _QUERIES["settle"],
            self._tenant_id,
            [node.id for node in self._unsettled],
            [node.latest for node in self._unsettled],
            [each.count for each in sums],
            [each.tokens for each in sums],
            [Int8(each.running) for each in sums],
            [node.touched_at for node in self._unsettled],
        )

    async def _plant(self, new: NewContext) -> _Node:
        if new.parent_id is not None:
            raise FlawError(new.place, "the first context of a tree has a parent. Begin with its root.")
        await self._session.use_indexes()
        planted = await self._session.fetch(_QUERIES["plant"], self._tenant_id, new.id)
        if not planted:
            raise TakenError(new.place, f"the tree {new.id} is there already.")
        self._root_id, self._now = planted[0]
        return _Node(new.id, new.place, 0, 0, None, None, _Sums(), new.updated_at, new.created_at or self._now)

    def _branch(self, new: NewContext) -> _Node:
        if new.parent_id is None or new.fork_version is None:
            raise FlawError(new.place, "a second root. A tree has one root; every other context has a parent.")
        parent = self._nodes.get(new.parent_id)
        if parent is None:
            raise FlawError(new.place, f"its parent {new.parent_id} is not known. A parent stands before its forks.")
        if not 0 <= new.fork_version <= parent.latest:
            raise FlawError(
                new.place,
                f"forkVersion is {new.fork_version}. It must be from 0 to {parent.latest}, the latest of its parent.",
            )
        if parent.depth >= self._fork_depth_max:
            raise FlawError(
                new.place,
                f"it would be {parent.depth + 1} forks deep. {self._fork_depth_max} is the most; "
                "FORKPOINT_FORK_DEPTH_MAX may allow more.",
            )
        owner = parent.owner_of(new.fork_version) if new.fork_version else None
        return _Node(
            new.id,
            new.place,
            parent.depth + 1,
            new.fork_version,
            owner,
            None if owner is None else _jump(owner),
            _Sums() if owner is None else owner.sums(new.fork_version),
            new.updated_at,
            new.created_at or self._now,
            0 if owner is None else owner.owner_depth + 1,
        )

    def _refuse_future(self, place: str, name: str, moment: datetime) -> None:
        """No later message could be older, so one from the future would stop the clock of its context until then."""
        if moment > self._now + CLOCKS_APART:
            raise FlawError(
                place, f"{name} lies in the future. It may be {self._now:%Y-%m-%dT%H:%M:%SZ} at most, which is now."
            )

    def _close(self) -> None:
        """Be done with the context that came last."""
        node = self._last
        if node is None:
            return
        newest = node.sums(node.latest).moment
        if newest is not None and node.touched_at < newest:
            raise FlawError(node.place, "updatedAt lies before the createdAt of its newest message.")
        if node.stored and node.running:
            self._unsettled.append(node)

    async def _sent(self, size: int) -> None:
        self._bytes += size
        if self._bytes > BATCH_BYTES or len(self._contexts) + len(self._messages) >= BATCH_ROWS:
            await self._flush()

    async def _flush(self) -> None:
        await self._refuse_taken()
        await self._store("store_contexts", [self._context_row(new, node) for new, node in self._contexts])
        # Before the results of the same batch look for them.
        await self._store("store_calls", list(self._call_rows()))
        await self._store("store_messages", await self._message_rows())
        for _, node in self._contexts:
            node.stored = True
        self._contexts, self._messages, self._bytes = [], [], 0

    async def _store(self, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        if rows:
            # As the fast lane writes them: psycopg takes 0.8 s for the lists of 60,000 messages, this 0.2 s.
            columns = [(encode(column) or b"").decode() for column in zip(*rows, strict=True)]
            await self._session.fetch(_QUERIES[name], self._tenant_id, *columns)

    async def _refuse_taken(self) -> None:
        contexts = {new.id: new.place for new, _ in self._contexts}
        for (context_id,) in await self._session.fetch(_QUERIES["taken_contexts"], self._tenant_id, list(contexts)):
            raise TakenError(contexts[context_id], f"the context {context_id} is there already.")
        places: dict[UUID, str] = {}
        for new, *_ in self._messages:
            if new.message.id in places:
                raise FlawError(new.place, f"the id {new.message.id} stands twice. Give each message an id of its own.")
            places[new.message.id] = new.place
        taken = await self._session.fetch(_QUERIES["taken_messages"], self._tenant_id, list(places))
        for message_id, context_id in taken:
            if context_id in self._nodes:
                raise FlawError(
                    places[message_id], f"the id {message_id} stands twice. Give each message an id of its own."
                )
            raise TakenError(places[message_id], f"the message {message_id} is there already.")

    def _context_row(self, new: NewContext, node: _Node) -> tuple[Any, ...]:
        sums = node.sums(node.latest)
        return (
            *(node.id, self._root_id, new.name, new.metadata, node.created_at, node.touched_at, new.deleted_at),
            *(node.latest, sums.count, sums.tokens, sums.running),
            *(new.parent_id, new.fork_version, node.depth),
            *(None if node.owner is None else node.owner.id, node.owner_depth),
            *((None, None) if node.jump is None else (node.jump.id, node.jump.base)),
        )

    def _call_rows(self) -> Iterator[tuple[Any, ...]]:
        for new, node, version, *_ in self._messages:
            for call_id in set(new.call_ids):
                yield node.id, f"\\x{sha256(call_id.encode()).hexdigest()}", version

    async def _message_rows(self) -> list[tuple[Any, ...]]:
        answers = await self._call_versions()
        return [
            (
                *(new.message.id, node.id, version, moment, new.message.role, new.message.token_count),
                running,
                *(new.deleted_at, new.message.content, new.message.tool_calls, new.message.tool_call_id),
                *(new.message.tool_name, answers.get((node.id, version)), new.message.model, new.message.metadata),
            )
            for new, node, version, running, moment in self._messages
        ]

    async def _call_versions(self) -> dict[tuple[UUID, int], int | None]:
        results = [
            (node.id, version, new.message.tool_call_id)
            for new, node, version, *_ in self._messages
            if new.message.tool_call_id is not None
        ]
        if not results:
            return {}
        rows = await self._session.fetch(
            _QUERIES["call_versions"], self._tenant_id, *map(list, zip(*results, strict=True))
        )
        return {
            (context_id, version): call_version
            for (context_id, version, _), (_, call_version) in zip(results, rows, strict=True)
        }


def _jump(owner: _Node) -> _Node:
    """Choose where a context of this owner jumps to. Source: context.fork, which says why."""
    near = owner.jump
    if near is None:
        return owner
    far = near.jump or near
    return far if owner.owner_depth - near.owner_depth == near.owner_depth - far.owner_depth else owner
