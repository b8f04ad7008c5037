"""Hypothesis strategies: what callers might do, in terms that mean something in any state.

Commands do not name contexts and versions, which exist only once the commands before them have run. They hold plain
numbers, which the test takes modulo what exists; so a command stays meaningful while Hypothesis removes others.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

from hypothesis import strategies as st

from tests.model import NewMessage

T = TypeVar("T")

ROLES = ("USER", "ASSISTANT", "SYSTEM", "TOOL")

UNKNOWN = -1
"""Stands for a context that does not exist."""

# No surrogates, which are not text, and no NUL, which PostgreSQL cannot store.
text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)

# Letters whose two cases are one to one, and every character that means something to LIKE.
name = st.text("abAB éÉ%_\\", min_size=1, max_size=6)

json_scalar = st.none() | st.booleans() | st.integers(-(2**31), 2**31) | text
json_value = st.recursive(json_scalar, lambda value: st.lists(value, max_size=2), max_leaves=3)
metadata = st.dictionaries(st.sampled_from("abc"), json_value, max_size=2)

message = st.builds(NewMessage, role=st.sampled_from(ROLES), content=text, token_count=st.integers(0, 1000))
messages = st.lists(message, min_size=1, max_size=6)

# Small numbers are likelier: they reach the earliest contexts, which have the most forks.
place = st.integers(0, 60)
context = st.integers(0, 3) | st.integers(0, 20)
context_or_unknown = st.one_of(*[context] * 12, st.just(UNKNOWN))


@dataclass(frozen=True)
class Create:
    name: str | None
    metadata: dict[str, Any] | None
    messages: list[NewMessage]


@dataclass(frozen=True)
class Fork:
    context: int
    version: int | None
    name: str | None = None
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True)
class Append:
    context: int
    messages: list[NewMessage]
    expected: int | None = None
    forks: bool = False
    keyed: bool = False


@dataclass(frozen=True)
class Update:
    context: int
    name: str | None
    metadata: dict[str, Any] | None


@dataclass(frozen=True)
class DeleteContext:
    context: int


@dataclass(frozen=True)
class RestoreContext:
    context: int


@dataclass(frozen=True)
class DeleteMessage:
    context: int
    version: int


@dataclass(frozen=True)
class RestoreMessage:
    context: int
    version: int


@dataclass(frozen=True)
class Repeat:
    """Send one of the appends that had a key once more."""

    append: int


@dataclass(frozen=True)
class Look:
    """Compare one context right now, and keep the cursors seen: they must go on working whatever happens next."""

    context: int


Act = Create | Fork | Append | Update | DeleteContext | RestoreContext | DeleteMessage | RestoreMessage
Command = Act | Repeat | Look


@dataclass(frozen=True)
class Probe:
    """One page to ask for: `after` and `before` are places in the lineage, None for no cursor."""

    backward: bool
    size: int | None
    after: int | None
    before: int | None
    roles: list[str] | None


@dataclass(frozen=True)
class Link:
    """One fork of a tree: made `back` versions before its parent's latest, then given messages.

    `deleted_version` is a message deleted through it, `deleted` says that it is deleted itself when the tree stands.
    """

    parent: int
    back: int
    messages: list[NewMessage]
    deleted_version: int | None
    deleted: bool


@dataclass(frozen=True)
class Listed:
    """One context for the list: `parent` makes it a fork, `touched` gives it a message or a name after the others."""

    name: str | None
    metadata: dict[str, Any]
    parent: int | None
    deleted: bool
    touched: str | None


@dataclass(frozen=True)
class Listing:
    """One way to ask for the list; `parent` and `since` are contexts, None for no such filter."""

    field: str
    direction: str
    size: int
    name_contains: str | None
    metadata_contains: dict[str, Any] | None
    parent: int | None
    since: int | None
    roots_only: bool
    include_deleted: bool


create = st.builds(
    Create,
    name=st.none() | name,
    metadata=st.none() | metadata,
    messages=st.lists(message, max_size=6),
)
fork = st.builds(
    Fork,
    context=context_or_unknown,
    version=st.none() | place,
    name=st.none() | name,
    metadata=st.none() | metadata,
)
append = st.builds(
    Append,
    context=context_or_unknown,
    messages=messages,
    expected=st.none() | st.none() | place,
    forks=st.booleans(),
    keyed=st.booleans(),
)
repeat = st.builds(Repeat, append=place)
update = st.builds(Update, context=context_or_unknown, name=st.none() | name, metadata=st.none() | metadata)
delete_message = st.builds(DeleteMessage, context=context_or_unknown, version=place)
restore_message = st.builds(RestoreMessage, context=context_or_unknown, version=place)
delete_context = st.builds(DeleteContext, context=context_or_unknown)
restore_context = st.builds(RestoreContext, context=context_or_unknown)
look = st.builds(Look, context=context)

# A strategy named several times is drawn that much more often: forks, appends and deletions make the histories.
command: st.SearchStrategy[Command] = st.one_of(
    append, fork, append, fork, delete_message, delete_message, restore_message,
    create, update, delete_context, restore_context, look, repeat,
)  # fmt: skip


def some(element: st.SearchStrategy[T], *, max_size: int) -> st.SearchStrategy[list[T]]:
    """Draw a short list or, as often, a long one: `lists` alone averages five however many are allowed."""
    return st.lists(element, max_size=max_size) | st.lists(element, min_size=max_size // 2, max_size=max_size)


# A context to begin with, and what is done after.
histories = st.tuples(create, some(command, max_size=30)).map(lambda parts: [parts[0], *parts[1]])


page_size = st.integers(1, 12)

probe = st.builds(
    Probe,
    backward=st.booleans(),
    size=st.none() | st.integers(0, 12),
    after=st.none() | place,
    before=st.none() | place,
    roles=st.none() | st.lists(st.sampled_from(ROLES), max_size=3, unique=True),
)


probes = st.lists(probe, max_size=12)


def links(parent: st.SearchStrategy[int], *, max_size: int) -> st.SearchStrategy[list[Link]]:
    """Describe the forks below a root. Most are near the end of their parents, or the lineages would stay short."""
    link = st.builds(
        Link,
        parent=parent,
        back=st.just(0) | st.integers(0, 3) | place,
        messages=st.lists(message, max_size=3),
        deleted_version=st.one_of(st.none(), st.none(), st.none(), place),
        deleted=st.sampled_from([False] * 7 + [True]),
    )
    return some(link, max_size=max_size)


chains = links(st.just(-1), max_size=40)
trees = links(st.just(0) | st.integers(-3, -1) | st.integers(0, 40), max_size=16)

listed = st.builds(
    Listed,
    name=st.none() | name,
    metadata=metadata,
    parent=st.none() | context,
    deleted=st.sampled_from([False] * 4 + [True]),
    touched=st.sampled_from([None, "name", "message"]),
)

listing = st.builds(
    Listing,
    field=st.sampled_from(["UPDATED_AT", "CREATED_AT", "NAME"]),
    direction=st.sampled_from(["ASC", "DESC"]),
    size=st.integers(1, 6),
    name_contains=st.none() | st.text("abAéÉ%_\\", min_size=1, max_size=2),
    metadata_contains=st.none() | metadata,
    parent=st.none() | context,
    since=st.none() | context,
    roots_only=st.booleans(),
    include_deleted=st.booleans(),
)
