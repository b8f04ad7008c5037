"""The reference model: what Forkpoint means, in plain Python that copies history where the service shares it.

A context here holds the whole list of messages it reads, so forking copies a list. The messages in the lists are shared
objects, and deletion is a flag on the message, so it reaches every context that reads it. Nothing here is quick, and
nothing here is clever.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

PAGE_DEFAULT = 50


class RefusedError(Exception):
    """The service would answer with an error; `code` is its `extensions.code`."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True)
class NewMessage:
    """A message as a caller sends it."""

    role: str
    content: str
    token_count: int


@dataclass(eq=False)
class Message:
    """A stored message: one object, however many contexts read it. `holder` is the key of the context it came to."""

    holder: int
    version: int
    role: str
    content: str
    token_count: int
    deleted: bool = False


@dataclass(eq=False)
class Context:
    """A context with everything it reads: `lineage[version - 1]` is the message at that version, deleted or not."""

    key: int
    name: str | None
    metadata: dict[str, Any]
    parent: "Context | None" = None
    fork_version: int | None = None
    lineage: list[Message] = field(default_factory=list)
    deleted: bool = False

    @property
    def latest_version(self) -> int:
        return len(self.lineage)

    @property
    def message_count(self) -> int:
        return len(self.visible())

    @property
    def total_tokens(self) -> int:
        return sum(message.token_count for message in self.visible())

    @property
    def depth(self) -> int:
        return len(self.way_up())

    @property
    def root(self) -> "Context":
        return [self, *self.way_up()][-1]

    @property
    def shown_parent(self) -> "Context | None":
        return None if self.parent is None or self.parent.deleted else self.parent

    @property
    def ancestors(self) -> list["Context"]:
        """Nearest first, deleted ones left out."""
        return [context for context in self.way_up() if not context.deleted]

    def message(self, version: int) -> Message | None:
        if not 1 <= version <= self.latest_version:
            return None
        message = self.lineage[version - 1]
        return None if message.deleted else message

    def visible(self, roles: Collection[str] | None = None) -> list[Message]:
        """Every message that a reader sees, ascending by version."""
        return [message for message in self.lineage if not message.deleted and (roles is None or message.role in roles)]

    def messages(
        self,
        *,
        first: int | None = None,
        after: int | None = None,
        last: int | None = None,
        before: int | None = None,
        roles: Collection[str] | None = None,
    ) -> "Page":
        """One page of the connection; cursors are versions here, and may be those of messages deleted since."""
        if first is not None and last is not None:
            raise RefusedError("BAD_USER_INPUT")
        if (first or 0) < 0 or (last or 0) < 0:
            raise RefusedError("BAD_USER_INPUT")
        connection = self.visible(roles)
        between = [
            message
            for message in connection
            if (after is None or message.version > after) and (before is None or message.version < before)
        ]
        if last is not None:
            shown = between[max(0, len(between) - last) :]
            gap = self.latest_version + 1 if before is None else before
        else:
            shown = between[: PAGE_DEFAULT if first is None else first]
            gap = 1 if after is None else after + 1
        # An empty page lies where it would have begun: right after `after`, or (backwards) right before `before`.
        start = shown[0].version if shown else gap
        end = shown[-1].version + 1 if shown else gap
        return Page(
            messages=shown,
            has_previous=any(message.version < start for message in connection),
            has_next=any(message.version >= end for message in connection),
            total_count=len(connection),
        )

    def way_up(self) -> list["Context"]:
        """Parent, grandparent and so on to the root, deleted ones too."""
        line: list[Context] = []
        context = self.parent
        while context is not None:
            line.append(context)
            context = context.parent
        return line


@dataclass(frozen=True)
class Page:
    """Messages, ascending by version, and what lies around them."""

    messages: list[Message]
    has_previous: bool
    has_next: bool
    total_count: int


class Model:
    """All contexts of one tenant. Keys are the order of creation: the first context is 0."""

    def __init__(self) -> None:
        self.stored: list[Context] = []

    def create(self, name: str | None, metadata: dict[str, Any] | None, messages: Sequence[NewMessage]) -> Context:
        context = Context(key=len(self.stored), name=name, metadata=metadata or {})
        self.stored.append(context)
        self._extend(context, messages)
        return context

    def fork(self, key: int | None, version: int | None, name: str | None, metadata: dict[str, Any] | None) -> Context:
        parent = self._live(key)
        fork_version = parent.latest_version if version is None else version
        if not 0 <= fork_version <= parent.latest_version:
            raise RefusedError("BAD_USER_INPUT")
        fork = Context(
            key=len(self.stored),
            name=name,
            metadata=metadata or {},
            parent=parent,
            fork_version=fork_version,
            lineage=parent.lineage[:fork_version],
        )
        self.stored.append(fork)
        return fork

    def append(
        self, key: int | None, messages: Sequence[NewMessage], *, expected: int | None = None, forks: bool = False
    ) -> list[Message]:
        """Append to a context, or where it is not at the expected version, to a fork made there if that is wished."""
        context = self._live(key)
        version = context.latest_version if expected is None else expected
        if not 0 <= version <= context.latest_version:
            raise RefusedError("BAD_USER_INPUT")
        if version < context.latest_version:
            if not forks:
                raise RefusedError("CONFLICT")
            context = self.fork(key, version, None, None)
        return self._extend(context, messages)

    def update(self, key: int | None, name: str | None, metadata: dict[str, Any] | None) -> Context:
        """Replace what is given; null, like absence, leaves things as they are."""
        context = self._live(key)
        if name is not None:
            context.name = name
        if metadata is not None:
            context.metadata = metadata
        return context

    def delete_context(self, key: int | None) -> Context:
        context = self._live(key)
        context.deleted = True
        return context

    def restore_context(self, key: int | None) -> Context:
        context = self._known(key)
        context.deleted = False
        return context

    def delete_message(self, key: int | None, version: int) -> Message:
        message = self._message(key, version)
        message.deleted = True
        return message

    def restore_message(self, key: int | None, version: int) -> Message:
        message = self._message(key, version)
        message.deleted = False
        return message

    def context(self, key: int) -> Context | None:
        context = self.stored[key]
        return None if context.deleted else context

    def forks(self, key: int) -> list[Context]:
        """Forks made from this very context, oldest first, deleted ones left out."""
        return [
            context
            for context in self.stored
            if context.parent is not None and context.parent.key == key and not context.deleted
        ]

    def tree(self, key: int) -> list[Context]:
        """Every context of a tree by depth, then by age, without deleted ones that have only deleted ones below."""
        tree = [context for context in self.stored if context.root is self.stored[key].root]
        needed = {above.key for context in tree if not context.deleted for above in [context, *context.way_up()]}
        return sorted((context for context in tree if context.key in needed), key=lambda c: (c.depth, c.key))

    def common_ancestor(self, key: int, other_key: int) -> tuple[Context, int] | None:
        """Where two contexts of one tree part, and how many messages their histories begin with in common."""
        here, there = self.stored[key], self.stored[other_key]
        if there.deleted or here.root is not there.root:
            return None
        shared = next(above for above in [here, *here.way_up()] if above in [there, *there.way_up()])
        pairs = zip(here.lineage, there.lineage, strict=False)
        return shared, len(list(takewhile(lambda pair: pair[0] is pair[1], pairs)))

    def only_in(self, key: int, other_key: int) -> list[Message]:
        """The messages that a reader of one context sees and the history of another does not begin with."""
        known = self.common_ancestor(key, other_key)
        return [message for message in self.stored[key].lineage[known[1] if known else 0 :] if not message.deleted]

    def contexts(
        self,
        *,
        name_contains: str | None = None,
        metadata_contains: dict[str, Any] | None = None,
        roots_only: bool = False,
        parent_key: int | None = None,
        include_deleted: bool = False,
    ) -> list[Context]:
        """Every context that meets all of the filters, oldest first."""
        return [
            context
            for context in self.stored
            if (include_deleted or not context.deleted)
            and (name_contains is None or name_contains.lower() in (context.name or "").lower())
            and (metadata_contains is None or contains(context.metadata, metadata_contains))
            and (not roots_only or context.parent is None)
            and (parent_key is None or (context.parent is not None and context.parent.key == parent_key))
        ]

    def _known(self, key: int | None) -> Context:
        if key is None:
            raise RefusedError("NOT_FOUND")
        return self.stored[key]

    def _live(self, key: int | None) -> Context:
        context = self._known(key)
        if context.deleted:
            raise RefusedError("NOT_FOUND")
        return context

    def _message(self, key: int | None, version: int) -> Message:
        context = self._live(key)
        if not 1 <= version <= context.latest_version:
            raise RefusedError("BAD_USER_INPUT")
        return context.lineage[version - 1]

    def _extend(self, context: Context, messages: Sequence[NewMessage]) -> list[Message]:
        added = [
            Message(context.key, version, new.role, new.content, new.token_count)
            for version, new in enumerate(messages, start=context.latest_version + 1)
        ]
        context.lineage.extend(added)
        return added


def contains(outer: Any, inner: Any) -> bool:
    """Say whether `outer` holds `inner` as jsonb `@>` does: objects by key, arrays by element, scalars by equality."""
    match outer, inner:
        case dict(), dict():
            return all(key in outer and contains(outer[key], value) for key, value in inner.items())
        case list(), list():
            return all(any(contains(element, value) for element in outer) for value in inner)
        case (bool(), _) | (_, bool()):
            return outer is inner
        case _:
            return bool(outer == inner)
