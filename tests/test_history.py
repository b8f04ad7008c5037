"""The service held to the reference model: any history of commands, any tree of forks, every way of paging them."""

import asyncio
import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests import strategies
from tests.client import Api, ApiError
from tests.model import Context, Message, Model, NewMessage, RefusedError
from tests.strategies import (
    UNKNOWN,
    Act,
    Append,
    Create,
    DeleteContext,
    DeleteMessage,
    Fork,
    Link,
    Listed,
    Listing,
    Look,
    Probe,
    Repeat,
    RestoreContext,
    RestoreMessage,
    Update,
)

PAGES = 6
VERSIONS = 16
UNKNOWN_ID = str(uuid.UUID(int=0x7_000_8000_0000_0000_0000))

STATE = """
fragment State on Context {
  id name metadata messageCount totalTokens latestVersion depth forkVersion deletedAt parent { id }
}
"""

STORED = """
fragment Stored on Message { id version role content tokenCount deletedAt context { id deletedAt } }
"""

PAGE = """
fragment Page on MessageConnection {
  edges { cursor node { ...Stored } } nodes { id } totalCount
  pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
}
"""

# Every check that one request carries, with variables for whatever differs: a text that never changes is parsed once.
CHECK = f"""query (
  $id: ID!
  {
    "".join(
        f"$first{i}: Int $after{i}: String $last{i}: Int $before{i}: String $roles{i}: [Role!] " for i in range(PAGES)
    )
}
  {"".join(f"$version{i}: Int! " for i in range(VERSIONS))}
) {{
  context(id: $id) {{
    ...State ancestors {{ id }} forks(first: 1000) {{ nodes {{ id }} totalCount }}
    {
    "".join(
        f"page{i}: messages(first: $first{i}, after: $after{i}, last: $last{i}, before: $before{i}, roles: $roles{i}) "
        "{ ...Page } "
        for i in range(PAGES)
    )
}
    {"".join(f"message{i}: message(version: $version{i}) {{ ...Stored }} " for i in range(VERSIONS))}
  }}
}}
{STATE} {STORED} {PAGE}"""

WALK = f"""query ($id: ID!, $first: Int, $after: String, $last: Int, $before: String) {{
  context(id: $id) {{ messages(first: $first, after: $after, last: $last, before: $before) {{ ...Page }} }}
}}
{STORED} {PAGE}"""

FORKS = """query ($id: ID!, $first: Int!, $after: String) {
  context(id: $id) { forks(first: $first, after: $after) {
    edges { cursor node { id } } nodes { id } totalCount pageInfo { hasNextPage endCursor }
  } }
}"""

LIST = """query ($first: Int!, $after: String, $filter: ContextFilter, $orderBy: ContextOrder) {
  contexts(first: $first, after: $after, filter: $filter, orderBy: $orderBy) {
    edges { cursor node { id } } nodes { id name updatedAt } totalCount pageInfo { hasNextPage endCursor }
  }
}"""

# What one link of a tree takes, in one request; root fields of a mutation run one after another.
GROW = f"""mutation (
  $fork: ForkContextInput!
  $append: AppendMessagesInput! $appends: Boolean!
  $delete: DeleteMessageInput! $deletes: Boolean!
) {{
  appendMessages(input: $append) @include(if: $appends) {{ forked }}
  deleteMessage(input: $delete) @include(if: $deletes) {{ message {{ id }} }}
  forkContext(input: $fork) {{ context {{ ...State }} }}
}}
{STATE}"""


def mutation(field: str, payload: str = "") -> str:
    """Write the document of one mutation, whose input type is named after it."""
    stored = STORED if "Stored" in payload else ""
    return f"""mutation ($input: {field[0].upper()}{field[1:]}Input!) {{
      {field}(input: $input) {{ context {{ ...State }} {payload} }}
    }} {STATE} {stored}"""


DOCUMENTS = {
    Create: ("createContext", mutation("createContext")),
    Fork: ("forkContext", mutation("forkContext")),
    Append: ("appendMessages", mutation("appendMessages", "replayed forked messages { ...Stored }")),
    Update: ("updateContext", mutation("updateContext")),
    DeleteContext: ("deleteContext", mutation("deleteContext")),
    RestoreContext: ("restoreContext", mutation("restoreContext")),
    DeleteMessage: ("deleteMessage", mutation("deleteMessage", "message { ...Stored }")),
    RestoreMessage: ("restoreMessage", mutation("restoreMessage", "message { ...Stored }")),
}


class World:
    """The service and the model side by side, and what has been learned of the names the service gives."""

    def __init__(self, api: Api, *, explicit_nulls: bool = False) -> None:
        self.api = api
        self.model = Model()
        self.explicit_nulls = explicit_nulls
        self.ids: list[str] = []
        self.message_ids: dict[tuple[int, int], str] = {}
        self.deletion_times: dict[tuple[int, int], str] = {}
        self.cursors: dict[int, dict[int, str]] = {}
        # Of each append that had a key: the input, the answer's context, and its messages.
        self.keyed: list[tuple[dict[str, Any], Context, list[Message]]] = []

    def key(self, number: int) -> int | None:
        return None if number == UNKNOWN else number % len(self.model.stored)

    def id(self, key: int | None) -> str:
        return UNKNOWN_ID if key is None else self.ids[key]

    def version(self, number: int, place: int) -> int:
        """Take a place to a version of 0 to latest, and as often to the ones beside: latest + 1 and -1.

        Where the context is missing the version is right, since nobody promises which of two mistakes is named.
        """
        key = self.key(number)
        context = None if key is None else self.model.context(key)
        if context is None:
            return 1
        version = place % (context.latest_version + 3)
        return -1 if version == context.latest_version + 2 else version

    def fork_version(self, command: Fork) -> int | None:
        return None if command.version is None else self.version(command.context, command.version)

    def expected(self, command: Append) -> int | None:
        return None if command.expected is None else self.version(command.context, command.expected)

    def input(self, **values: Any) -> dict[str, Any]:
        """Write nothing or null for what is absent: they mean the same."""
        return {name: value for name, value in values.items() if value is not None or self.explicit_nulls}

    def nothing(self, empty: list[Any]) -> list[Any] | None:
        return None if self.explicit_nulls else empty

    def learn(self, context: Context, answer: dict[str, Any]) -> None:
        """Take the id of a context that was just made."""
        assert answer["id"] not in self.ids
        assert context.key == len(self.ids)
        self.ids.append(answer["id"])

    def state(self, context: Context) -> dict[str, Any]:
        return {
            "id": self.ids[context.key],
            "name": context.name,
            "metadata": context.metadata,
            "messageCount": context.message_count,
            "totalTokens": context.total_tokens,
            "latestVersion": context.latest_version,
            "depth": context.depth,
            "forkVersion": context.fork_version,
            "deletedAt": context.deleted,
            "parent": None if context.shown_parent is None else {"id": self.ids[context.shown_parent.key]},
        }

    def stored(self, message: Message | None) -> dict[str, Any] | None:
        if message is None:
            return None
        return {
            "id": self.message_ids.get((message.holder, message.version)),
            "version": message.version,
            "role": message.role,
            "content": message.content,
            "tokenCount": message.token_count,
            "deletedAt": message.deleted,
            "context": {"id": self.ids[message.holder], "deletedAt": self.model.stored[message.holder].deleted},
        }

    def read_message(self, answer: dict[str, Any] | None) -> dict[str, Any] | None:
        """Make times comparable, and hold the service to one id and one time of deletion for each stored message."""
        if answer is None:
            return None
        label = (self.ids.index(answer["context"]["id"]), answer["version"])
        self.message_ids.setdefault(label, answer["id"])
        if answer["deletedAt"] is None:
            self.deletion_times.pop(label, None)
        else:
            assert answer["deletedAt"] == self.deletion_times.setdefault(label, answer["deletedAt"])
        return deleted_or_not(answer) | {"context": deleted_or_not(answer["context"])}

    def compare_page(self, context: Context, answer: dict[str, Any], **arguments: Any) -> None:
        """Hold one page to the model; `after` and `before` are versions. Keeps its cursors."""
        page = context.messages(**arguments)
        edges, information = answer["edges"], answer["pageInfo"]
        assert {
            "messages": [self.read_message(edge["node"]) for edge in edges],
            "hasPreviousPage": information["hasPreviousPage"],
            "hasNextPage": information["hasNextPage"],
            "totalCount": answer["totalCount"],
        } == {
            "messages": [self.stored(message) for message in page.messages],
            "hasPreviousPage": page.has_previous,
            "hasNextPage": page.has_next,
            "totalCount": page.total_count,
        }, arguments
        assert answer["nodes"] == [{"id": edge["node"]["id"]} for edge in edges]
        assert information["startCursor"] == (edges[0]["cursor"] if edges else None)
        assert information["endCursor"] == (edges[-1]["cursor"] if edges else None)
        known = self.cursors.setdefault(context.key, {})
        known.update((edge["node"]["version"], edge["cursor"]) for edge in edges)


def deleted_or_not(answer: dict[str, Any]) -> dict[str, Any]:
    return answer | {"deletedAt": answer["deletedAt"] is not None}


def message_input(message: NewMessage | Message) -> dict[str, Any]:
    """Say a message as input; one of a tool must name the call that it answers, known or not."""
    call = {"toolCallId": "call"} if message.role == "TOOL" else {}
    return {"role": message.role, "content": message.content, "tokenCount": message.token_count} | call


async def run(world: World, command: strategies.Command) -> None:
    """Give one command to both, and compare what they answer there and then."""
    if isinstance(command, Look):
        key = world.key(command.context)
        assert key is not None
        await look(world, key, [], page_size=3)
        return
    if isinstance(command, Repeat):
        await repeat(world, command)
        return
    field, document = DOCUMENTS[type(command)]
    given_input = input_of(world, command)
    outcome = act(world, command)
    if isinstance(outcome, RefusedError):
        with pytest.raises(ApiError) as raised:
            await world.api(document, input=given_input)
        assert raised.value.code == outcome.code
        return
    context, messages = outcome
    answer = (await world.api(document, input=given_input))[field]
    if context.key == len(world.ids):
        world.learn(context, answer["context"])
    assert deleted_or_not(answer["context"]) == world.state(context)
    if isinstance(command, Append):
        assert (answer["replayed"], answer["forked"]) == (False, world.id(context.key) != given_input["contextId"])
        if command.keyed:
            world.keyed.append((given_input, context, messages))
    answered = answer.get("messages", [answer["message"]] if "message" in answer else [])
    assert [world.read_message(message) for message in answered] == [world.stored(message) for message in messages]


async def repeat(world: World, command: Repeat) -> None:
    """Send an append once more: nothing is done, and what came of it is shown as it is now."""
    if not world.keyed:
        return
    given_input, context, messages = world.keyed[command.append % len(world.keyed)]
    field, document = DOCUMENTS[Append]
    answer = (await world.api(document, input=given_input))[field]
    assert (answer["replayed"], answer["forked"]) == (True, world.id(context.key) != given_input["contextId"])
    assert deleted_or_not(answer["context"]) == world.state(context)
    answered = [world.read_message(message) for message in answer["messages"]]
    assert answered == [world.stored(message) for message in messages]


def input_of(world: World, command: Act) -> dict[str, Any]:
    """Say a command as the input of its mutation."""
    target = {} if isinstance(command, Create) else {"contextId": world.id(world.key(command.context))}
    match command:
        case Create(name=name, metadata=metadata):
            messages = [message_input(message) for message in command.messages]
            rest = world.input(name=name, metadata=metadata, messages=messages or world.nothing([]))
        case Fork(name=name, metadata=metadata):
            rest = world.input(version=world.fork_version(command), name=name, metadata=metadata)
        case Append():
            rest = {"messages": [message_input(message) for message in command.messages]} | world.input(
                expectedVersion=world.expected(command),
                onConflict="FORK" if command.forks else None,
                idempotencyKey=str(len(world.keyed)) if command.keyed else None,
            )
        case Update(name=name, metadata=metadata):
            rest = world.input(name=name, metadata=metadata)
        case DeleteMessage() | RestoreMessage():
            rest = {"version": world.version(command.context, command.version)}
        case _:
            rest = {}
    return target | rest


def act(world: World, command: Act) -> tuple[Context, list[Message]] | RefusedError:
    """Do a command to the model: which context answers, with which messages, or why not."""
    model = world.model
    messages: list[Message] = []
    try:
        if isinstance(command, Create):
            return model.create(command.name, command.metadata, command.messages), messages
        key = world.key(command.context)
        match command:
            case Fork(name=name, metadata=metadata):
                return model.fork(key, world.fork_version(command), name, metadata), messages
            case Append():
                messages = model.append(key, command.messages, expected=world.expected(command), forks=command.forks)
                return model.stored[messages[0].holder], messages
            case Update(name=name, metadata=metadata):
                model.update(key, name, metadata)
            case DeleteContext():
                model.delete_context(key)
            case RestoreContext():
                model.restore_context(key)
            case DeleteMessage():
                messages = [model.delete_message(key, world.version(command.context, command.version))]
            case RestoreMessage():
                messages = [model.restore_message(key, world.version(command.context, command.version))]
    except RefusedError as refused:
        return refused
    assert key is not None
    return model.stored[key], messages


async def look(world: World, key: int, probes: Sequence[Probe], *, page_size: int) -> None:
    """Compare everything that can be read of one context."""
    context = world.model.context(key)
    if context is None:
        await check(world, world.model.stored[key], [], [])
        return
    await walk(world, context, page_size, backward=False)
    await walk(world, context, page_size, backward=True)
    versions = list(range(context.latest_version + 2))
    pages = [page_arguments(world, context, probe) for probe in probes]
    while versions or pages:
        await check(world, context, pages[:PAGES], versions[:VERSIONS])
        pages, versions = pages[PAGES:], versions[VERSIONS:]


async def walk(world: World, context: Context, page_size: int, *, backward: bool) -> None:
    """Page through all of a lineage, holding every page to the model, by the cursors that the pages give."""
    size, cursor_name, end = ("last", "before", 0) if backward else ("first", "after", -1)
    cursor: str | None = None
    version: int | None = None
    while True:
        variables = {"id": world.id(context.key), size: page_size, cursor_name: cursor}
        answer = (await world.api(WALK, **variables))["context"]["messages"]
        world.compare_page(context, answer, **{size: page_size, cursor_name: version})
        if not answer["pageInfo"]["hasPreviousPage" if backward else "hasNextPage"]:
            return
        edge = answer["edges"][end]
        cursor, version = edge["cursor"], edge["node"]["version"]


def page_arguments(world: World, context: Context, probe: Probe) -> dict[str, Any]:
    """Bring a probe to this context: `after` and `before` become versions whose cursors have been seen, or nothing."""
    known = sorted(world.cursors.get(context.key, {}))

    def seen(place: int | None) -> int | None:
        return None if place is None or not known else known[place % len(known)]

    return {
        "last" if probe.backward else "first": probe.size,
        "after": seen(probe.after),
        "before": seen(probe.before),
        "roles": probe.roles,
    }


async def check(world: World, context: Context, pages: list[dict[str, Any]], versions: list[int]) -> None:
    """Read counters, relatives, some pages and some versions of one context in one request."""
    cursors = world.cursors.get(context.key, {})
    variables: dict[str, Any] = {"id": world.id(context.key)}
    for i in range(VERSIONS):
        variables[f"version{i}"] = versions[i] if i < len(versions) else 0
    for i, page in enumerate(pages):
        for name, value in page.items():
            variables[f"{name}{i}"] = cursors[value] if name in {"after", "before"} and value else value
    for i in range(len(pages), PAGES):
        variables[f"first{i}"] = 0
    answer = (await world.api(CHECK, **variables))["context"]
    if context.deleted:
        assert answer is None
        return
    forks = [{"id": world.id(fork.key)} for fork in world.model.forks(context.key)]
    expected = world.state(context) | {
        "ancestors": [{"id": world.id(ancestor.key)} for ancestor in context.ancestors],
        "forks": {"nodes": forks, "totalCount": len(forks)},
    }
    assert {name: deleted_or_not(answer)[name] for name in expected} == expected
    for i, page in enumerate(pages):
        world.compare_page(context, answer[f"page{i}"], **page)
    answered = [world.read_message(answer[f"message{i}"]) for i in range(len(versions))]
    assert answered == [world.stored(context.message(version)) for version in versions]


async def look_at_each(world: World, keys: Iterable[int], probes: Sequence[Probe], page_size: int) -> None:
    """Look at several contexts at a time, which takes half as long; of what fails the first is told, in their order."""
    looks = [look(world, key, probes, page_size=page_size) for key in keys]
    for outcome in await asyncio.gather(*looks, return_exceptions=True):
        if outcome is not None:
            raise outcome


async def look_at_everything(world: World, probes: Sequence[Probe], page_size: int) -> None:
    await look_at_each(world, range(len(world.ids)), probes, page_size)
    assert len(set(world.message_ids.values())) == len(world.message_ids)


async def compare_history(
    api: Api, history: list[strategies.Command], probes: list[Probe], page_size: int, *, explicit_nulls: bool
) -> None:
    world = World(api, explicit_nulls=explicit_nulls)
    for command in history:
        await run(world, command)
    await look_at_everything(world, probes, page_size)


histories = given(
    history=strategies.histories,
    probes=strategies.probes,
    page_size=strategies.page_size,
    explicit_nulls=st.booleans(),
)


def examples(count: int) -> settings:
    """Run so many examples. The fixture is shared by them on purpose: each makes contexts of its own."""
    return settings(max_examples=count, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@histories
@examples(120)
async def test_every_history_reads_as_the_model_says(
    api: Api, history: list[strategies.Command], probes: list[Probe], page_size: int, explicit_nulls: bool
) -> None:
    await compare_history(api, history, probes, page_size, explicit_nulls=explicit_nulls)


@pytest.mark.long
@histories
@examples(5000)
async def test_very_many_histories_read_as_the_model_says(
    api: Api, history: list[strategies.Command], probes: list[Probe], page_size: int, explicit_nulls: bool
) -> None:
    await compare_history(api, history, probes, page_size, explicit_nulls=explicit_nulls)


async def grow(world: World, links: list[Link]) -> None:
    """Make a root and the forks below it, one request for each."""
    await run(world, Create(None, None, [NewMessage("USER", f"root {i}", i) for i in range(5)]))
    for index, link in enumerate(links):
        previous = links[index - 1] if index else None
        await graft(world, link, previous)
    if links:
        await run(world, Append(len(links), links[-1].messages or [NewMessage("USER", "tip", 1)]))
    for key, link in enumerate(links, start=1):
        if link.deleted:
            await run(world, DeleteContext(key))


async def graft(world: World, link: Link, previous: Link | None) -> None:
    """Give the newest context its messages, delete one of those it reads, and make the next fork."""
    model = world.model
    newest = model.stored[-1]
    added = model.append(newest.key, previous.messages if previous else [])
    gone: list[Message] = []
    if previous is not None and previous.deleted_version is not None and newest.latest_version > 0:
        gone.append(model.delete_message(newest.key, previous.deleted_version % newest.latest_version + 1))
    parent = model.stored[link.parent % len(model.stored)]
    version = parent.latest_version - link.back % (parent.latest_version + 1)
    fork = model.fork(parent.key, version, None, None)
    answer = await world.api(
        GROW,
        fork={"contextId": world.id(parent.key), "version": version},
        append={"contextId": world.id(newest.key), "messages": [message_input(message) for message in added]},
        appends=bool(added),
        delete={"contextId": world.id(newest.key), "version": gone[0].version if gone else 1},
        deletes=bool(gone),
    )
    world.learn(fork, answer["forkContext"]["context"])
    assert deleted_or_not(answer["forkContext"]["context"]) == world.state(fork)


@given(links=strategies.chains, probes=strategies.probes, page_size=st.integers(4, 20))
@examples(100)
async def test_every_chain_of_forks_reads_as_the_model_says(
    api: Api, links: list[Link], probes: list[Probe], page_size: int
) -> None:
    world = World(api)
    await grow(world, links)
    tip = len(links)
    await look_at_each(world, sorted({0, tip // 3, tip // 2, max(0, tip - 1), tip}), probes, page_size)


@given(links=strategies.trees, probes=strategies.probes, page_size=st.integers(2, 20))
@examples(100)
async def test_every_tree_of_forks_reads_as_the_model_says(
    api: Api, links: list[Link], probes: list[Probe], page_size: int
) -> None:
    world = World(api)
    await grow(world, links)
    await look_at_everything(world, probes, page_size)
    for key in range(len(world.ids)):
        await page_forks(world, key, size=2)


async def page_forks(world: World, key: int, *, size: int) -> None:
    if world.model.context(key) is None:
        return
    forks = await page_through(world.api, FORKS, size, ["context", "forks"], id=world.id(key))
    assert [fork["id"] for fork in forks] == [world.id(fork.key) for fork in world.model.forks(key)]


async def page_through(api: Api, document: str, size: int, path: list[str], **variables: Any) -> list[dict[str, Any]]:
    """Read all of a connection forward, and hold what its pages say of themselves to what comes."""
    nodes: list[dict[str, Any]] = []
    totals: set[int] = set()
    cursor: str | None = None
    more = True
    while more:
        answer: Any = await api(document, first=size, after=cursor, **variables)
        for name in path:
            answer = answer[name]
        nodes += answer["nodes"]
        totals.add(answer["totalCount"])
        more, cursor = answer["pageInfo"]["hasNextPage"], answer["pageInfo"]["endCursor"]
        assert [edge["node"]["id"] for edge in answer["edges"]] == [node["id"] for node in answer["nodes"]]
        assert cursor == (answer["edges"][-1]["cursor"] if answer["edges"] else None)
        assert len(answer["nodes"]) == size or not more
    assert totals == {len(nodes)}
    return nodes


@given(
    listed=st.lists(strategies.listed, min_size=1, max_size=10),
    listings=strategies.some(strategies.listing, max_size=10),
)
@examples(100)
async def test_the_list_of_contexts_is_filtered_and_ordered_as_the_model_says(
    api: Api, listed: list[Listed], listings: list[Listing]
) -> None:
    tag = {"example": uuid.uuid4().hex}
    world = World(api)
    await enter(world, listed, tag)
    touched = await touch(world, listed)
    for listing in listings:
        await compare_listing(world, listing, tag, touched)


async def enter(world: World, listed: list[Listed], tag: dict[str, Any]) -> None:
    """Make the contexts, every one of them with a tag that tells them from those of other examples."""
    for entry in listed:
        metadata = entry.metadata | tag
        if entry.parent is None or not world.ids:
            await run(world, Create(entry.name, metadata, []))
        else:
            await run(world, Fork(entry.parent, None, entry.name, metadata))
    for key, entry in enumerate(listed):
        if entry.deleted:
            await run(world, DeleteContext(key))


async def touch(world: World, listed: list[Listed]) -> list[str]:
    """Change what is to be changed, in order of age, and answer the ids that were, last first."""
    touched: list[str] = []
    for key, entry in enumerate(listed):
        if entry.touched is None or entry.deleted:
            continue
        if entry.touched == "message":
            await run(world, Append(key, [NewMessage("USER", "touched", 1)]))
        else:
            await run(world, Update(key, f"{entry.name}touched", None))
        touched.insert(0, world.id(key))
    return touched


async def compare_listing(world: World, listing: Listing, tag: dict[str, Any], touched: list[str]) -> None:
    wanted = (listing.metadata_contains or {}) | tag
    parent_key = None if listing.parent is None else world.key(listing.parent)
    chosen = {
        "nameContains": listing.name_contains,
        "metadataContains": wanted,
        "rootsOnly": listing.roots_only,
        "parentId": None if parent_key is None else world.id(parent_key),
        "includeDeleted": listing.include_deleted,
    }
    order = {"field": listing.field, "direction": listing.direction}
    expected = world.model.contexts(
        name_contains=listing.name_contains,
        metadata_contains=wanted,
        roots_only=listing.roots_only,
        parent_key=parent_key,
        include_deleted=listing.include_deleted,
    )
    nodes = await page_through(world.api, LIST, listing.size, ["contexts"], filter=chosen, orderBy=order)
    ids = [node["id"] for node in nodes]
    assert sorted(ids) == sorted(world.id(context.key) for context in expected)
    forward = nodes if listing.direction == "ASC" else nodes[::-1]
    match listing.field:
        case "CREATED_AT":
            assert [node["id"] for node in forward] == [world.id(context.key) for context in expected]
        case "NAME":
            assert_ordered([node["name"] for node in forward])
        case _:
            moments = [datetime.fromisoformat(node["updatedAt"]) for node in forward]
            assert moments == sorted(moments)
            latest_first = [node["id"] for node in forward[::-1] if node["id"] in touched]
            assert latest_first == [context_id for context_id in touched if context_id in ids]
    if listing.since is not None and nodes:
        since = nodes[listing.since % len(nodes)]["updatedAt"]
        later = {
            node["id"] for node in nodes if datetime.fromisoformat(node["updatedAt"]) >= datetime.fromisoformat(since)
        }
        chosen["updatedSince"] = since
        nodes = await page_through(world.api, LIST, listing.size, ["contexts"], filter=chosen, orderBy=order)
        assert {node["id"] for node in nodes} == later


def assert_ordered(names: list[str | None]) -> None:
    """Names go by code point; contexts without one stand together at one end."""
    named = [name for name in names if name is not None]
    nameless: list[str | None] = [None] * (len(names) - len(named))
    assert named == sorted(named)
    assert names in ([*named, *nameless], [*nameless, *named])


async def test_repeating_a_deletion_or_a_restoration_changes_nothing(api: Api) -> None:
    everything = "updatedAt deletedAt messageCount totalTokens latestVersion"
    create = f"""mutation ($input: CreateContextInput!) {{ createContext(input: $input) {{
      context {{ id {everything} }}
    }} }}"""
    made = await api(create, input={"messages": [{"role": "USER", "content": "a", "tokenCount": 3}]})
    context_id = made["createContext"]["context"]["id"]
    for field in ("restoreContext", "deleteMessage", "restoreMessage"):
        message = "message { id deletedAt }" if field.endswith("Message") else ""
        document = f"""mutation ($input: {field[0].upper()}{field[1:]}Input!) {{ {field}(input: $input) {{
          context {{ id {everything} }} {message}
        }} }}"""
        given_input = {"contextId": context_id} | ({"version": 1} if message else {})
        assert await api(document, input=given_input) == await api(document, input=given_input), field


@pytest.mark.parametrize(
    "arguments",
    [
        {"first": 1, "last": 1},
        {"first": -1},
        {"last": -1},
        {"after": "nonsense"},
        {"before": ""},
    ],
)
async def test_pages_that_make_no_sense_are_refused(api: Api, arguments: dict[str, Any]) -> None:
    world = World(api)
    await run(world, Create(None, None, [NewMessage("USER", "a", 1)]))
    with pytest.raises(ApiError) as raised:
        await api(WALK, id=world.id(0), **arguments)
    assert raised.value.code == "BAD_USER_INPUT"


@pytest.mark.parametrize("argument", ["after", "before"])
async def test_a_cursor_of_another_connection_is_refused(api: Api, argument: str) -> None:
    world = World(api)
    for command in (Create(None, None, [NewMessage("USER", "a", 1)]), Create(None, None, []), Fork(0, None)):
        await run(world, command)
    await look(world, 0, [], page_size=1)
    codes = []
    for key in (1, 2):
        with pytest.raises(ApiError) as raised:
            await api(WALK, id=world.id(key), **{argument: world.cursors[0][1]})
        codes.append(raised.value.code)
    assert codes == ["BAD_USER_INPUT"] * 2
