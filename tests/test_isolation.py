"""Another tenant's things are as missing as what never was: whatever is asked, at every place that takes an argument.

Each place is filled with what another tenant has, and with a twin that nobody has. The answers must be the same: data,
errors, status and headers. And no byte of any answer, and no line of the log, may hold a text or an id of the other.
"""

import asyncio
import json
import logging
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest
import uuid_utils.compat

import db.context
from graphql_api.media import EVENT_STREAM, MULTIPART
from graphql_api.settings import Settings
from schema.root import schema
from tests import walk
from tests.graphql_api.serving import Socket
from tests.schema import calls
from tests.schema.calls import say
from tests.tenants import Json, Tenants, World, another_cursor, rows, serving, settle, with_tokens
from tests.walk import Kind, Slot, Walk

GRAPHQL = schema._schema  # noqa: SLF001 - graphql-core's own schema
SLOTS = walk.slots(GRAPHQL)
VERSIONS = 150
# The other tenant has the one, and nobody has the other.
THEIR_VERSION, NO_VERSION = 140, 940
# By which way the service reads: mostly without row-level security, for nothing shall hang on the second lock.
WAYS: dict[str, Json] = {
    "lane": {"row_security": "off"},
    "pool": {"row_security": "off", "fast_lane_connections": 0},
    "resolvers": {"row_security": "off", "planned_reads": False},
    "locked": {"row_security": "on"},
}
TRANSPORTS = ["post", "get", "event stream", "multipart", "websocket"]
STREAMS = {"event stream", "multipart", "websocket"}
# What differs between any two answers.
PASSING = {"date", "x-request-id", "server-timing"}

Answer = tuple[int, dict[str, str], Any]


@dataclass
class Pair:
    """Two tenants of one service: one who asks, and another one, whose things are asked for."""

    mine: World
    theirs: World
    database_url: str
    service: Tenants

    def forget_my_keys(self) -> None:
        """Let every idempotency key be new to the one who asks."""
        with psycopg.connect(self.database_url) as connection:
            connection.execute("delete from idempotency_keys where tenant_id = %s", [self.mine.tenant.tenant_id])


@asynccontextmanager
async def two(settings: Settings) -> AsyncIterator[Pair]:
    """Serve two tenants, whose worlds are of one shape."""
    assert settings.database_url is not None
    async with serving(settings) as service:
        mine, theirs = await service.tenant("mine"), await service.tenant("theirs")
        pair = Pair(
            await settle(mine, "myown", versions=11),
            await settle(theirs, "sekret", versions=VERSIONS),
            settings.database_url.get_secret_value(),
            service,
        )
        before = rows(pair.database_url, "theirs")
        assert len(before) > VERSIONS
        yield pair
        assert rows(pair.database_url, "theirs") == before


@pytest.fixture
def chosen(settings: Settings) -> Settings:
    """Say more in answers and in the log than usual."""
    for client in ("httpx2", "websockets.client"):  # those of the tests write to the same log
        logging.getLogger(client).setLevel(logging.WARNING)
    return with_tokens(settings, debug_extensions=True, log_level="debug", log_format="json")


# -- What is sent


def usual(mine: World) -> Json:
    """Give arguments that lead to what the caller has."""
    return {
        "id": mine.contexts["root"],
        "ids": mine.contexts["root"],
        "with": mine.contexts["fork"],
        "contextId": mine.contexts["root"],
        "Context.at(version)": 6,
        "version": 1,
        "budget": 100_000,
        "content": "",
        "role": "USER",
        "arguments": {},
        "name": "",
        "metadata": {},
        "onConflict": "FORK",
        "scopes": "READ",
        "CreateApiKeyInput.name": "mine",
        "expectedVersion": 1,
    }


def fills(kind: Kind, theirs: World) -> Iterator[tuple[Any, Any]]:  # noqa: C901 - a case for each kind
    """Give what may be sent for each thing of another tenant: itself, and a twin that nobody has."""
    match kind:
        case Kind.ID:
            named = [theirs.messages[each] for each in ("root 0", "fork 5", "deleted")]
            for each in [*theirs.contexts.values(), *theirs.api_keys.values(), *named]:
                yield each, str(uuid_utils.compat.uuid7())
            for each in (theirs.contexts["root"], theirs.messages["root 0"]):
                yield each, str(uuid.uuid4())
                yield each.upper(), str(uuid.uuid4()).upper()
                yield each.replace("-", ""), uuid.uuid4().hex
        case Kind.CURSOR:
            for cursor in theirs.cursors.values():
                yield cursor, another_cursor(cursor, {each: str(uuid_utils.compat.uuid7()) for each in theirs.ids})
        case Kind.VERSION:
            yield THEIR_VERSION, NO_VERSION
        case Kind.KEY:
            for key in theirs.keys:
                yield key, uuid.uuid4().hex[: len(key)].ljust(len(key), "-")
        case Kind.CALL:
            for call in theirs.calls:
                yield call, uuid.uuid4().hex[: len(call)].ljust(len(call), "-")
        case Kind.NAME:
            yield theirs.text("root"), "nobody-root"
        case Kind.METADATA:
            yield {theirs.text("label"): theirs.text("value")}, {"nobody-label": "nobody-value"}
            yield {theirs.text("label"): theirs.text("value")}, {"of": "nobody-fork"}


def texts(value: Any) -> Iterator[str]:
    """Give the strings in a value."""
    match value:
        case str():
            yield value
        case dict():
            for name, each in value.items():
                yield name
                yield from texts(each)
        case list():
            for each in value:
                yield from texts(each)


# -- What comes back


class Caller:
    """One tenant, who asks by one transport, and looks at every byte that comes."""

    def __init__(self, pair: Pair, transport: str, socket: Socket | None) -> None:
        self.pair = pair
        self.transport = transport
        self._socket = socket

    async def ask(self, document: str, variables: Json, sent: Any) -> Answer:
        """Ask, and give status, headers and bodies, in which what was sent looks like anything else that is sent."""
        transport = "post" if document.startswith("mutation") and self.transport == "get" else self.transport
        if self._socket is not None:
            status, headers, content = await self._over_websocket(document, variables)
        else:
            status, headers, content = await self._over_http(document, variables, transport)
        assert '"LIMIT_EXCEEDED"' not in content, content  # then nothing would have been tried
        self._expect_nothing_of_theirs(f"{headers} {content}", sent)
        return status, headers, [told_alike(body, sent) for body in bodies(content)]

    async def _over_http(self, document: str, variables: Json, transport: str) -> tuple[int, dict[str, str], str]:
        http = self.pair.mine.tenant.http
        accept = {"event stream": EVENT_STREAM, "multipart": MULTIPART}.get(transport, "application/json")
        if transport == "get":
            parameters = {"query": document, "variables": json.dumps(variables)}
            response = await http.get("/graphql", params=parameters, headers={"accept": accept})
        else:
            body = {"query": document, "variables": variables}
            response = await http.post("/graphql", json=body, headers={"accept": accept})
        headers = {name: value for name, value in response.headers.items() if name not in PASSING}
        return response.status_code, headers, response.text

    async def _over_websocket(self, document: str, variables: Json) -> tuple[int, dict[str, str], str]:
        assert self._socket is not None
        await self._socket.subscribe(document, variables=variables)
        frames = [await self._socket.receive()]
        while frames[-1]["type"] not in {"complete", "error"}:
            frames.append(await self._socket.receive())
        return 101, {}, "\n".join(json.dumps(frame, ensure_ascii=False) for frame in frames)

    def _expect_nothing_of_theirs(self, text: str, sent: Any) -> None:
        for each in texts(sent):
            text = text.replace(each, "").replace(each.lower(), "")
        theirs = self.pair.theirs
        assert theirs.canary not in text
        for each in [*theirs.ids, *theirs.secrets]:
            assert each not in text
            assert each.replace("-", "") not in text


def bodies(content: str) -> list[Any]:
    """Read the JSON in a response: one body, or one in each event, part or frame."""
    if content.startswith(("{", "[")) and "\n" not in content.strip():
        return [json.loads(content)]
    lines = [line.removeprefix("data: ") for line in content.splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]


def told_alike(body: Any, sent: Any) -> Any:
    """Give a body with what was sent in its errors made the same for all that is sent."""
    match body:
        case {"message": str(message), **rest}:
            for each in sorted({*texts(sent), str(sent)}, key=len, reverse=True):
                message = message.replace(each, "<it>").replace(canonical(each), "<it>")
            return {"message": message, **{name: told_alike(value, sent) for name, value in rest.items()}}
        case dict():
            return {name: told_alike(value, sent) for name, value in body.items()}
        case list():
            return [told_alike(each, sent) for each in body]
    return body


def canonical(text: str) -> str:
    """Write an id as the service does."""
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return text


def shape(value: Any) -> Any:
    """Give what is left of an answer without what is new each time: which fields, how many, what is true."""
    match value:
        case dict():
            return {name: shape(each) for name, each in value.items()}
        case list():
            return [shape(each) for each in value]
        case bool() | None:
            return value
    return type(value).__name__


def failed(answer: Answer) -> bool:
    """Whether an answer has errors."""
    return any("errors" in body or body.get("type") == "error" for body in answer[2])


# -- The walk


async def walk_slot(caller: Caller, walker: Walk, slot: Slot) -> None:
    """Fill one place by turns with what the other tenant has and with what nobody has."""
    role = {True: "USER", "toolCalls" in slot.path: "ASSISTANT", "toolCallId" in slot.path: "TOOL"}[True]
    walker.values["role"] = role
    # What is just made may have no message.
    walker.values["Context.at(version)"] = 0 if slot.parent == "Mutation" else 6
    for whole in (False, True):
        if whole and slot.parent != "Mutation":
            continue
        caller.pair.forget_my_keys()
        for theirs, nobodys in fills(slot.kind, caller.pair.theirs):
            answers = []
            for value in (theirs, nobodys):
                document, variables = walker.document(slot.parent, slot.field, walker.filled(slot, value, whole=whole))
                answers.append(await caller.ask(document, variables, value))
            first, second = answers
            if slot.parent == "Mutation" and not failed(first):
                # Each has made something: new ids, at another time.
                assert (first[0], shape(first[2])) == (second[0], shape(second[2])), (str(slot), theirs)
                assert '"replayed": true' not in json.dumps(first[2]), (str(slot), theirs)
            else:
                assert first == second, (str(slot), theirs, nobodys)


def changing(slot: Slot) -> bool:
    """Whether a place is of a subscription that has no end."""
    return slot.parent == "Subscription" and slot.field == "contextsChanged"


# What asks for little goes through the fast lane, what asks for much through the pool.
@pytest.mark.parametrize(
    ("way", "transport", "depth"),
    [("lane", each, 0) for each in TRANSPORTS]
    + [("lane", "post", 2), ("pool", "post", 1), ("resolvers", "post", 1), ("locked", "post", 0)],
)
async def test_what_another_tenant_has_is_as_missing_as_what_nobody_has(
    capsys: pytest.CaptureFixture[str], chosen: Settings, way: str, transport: str, depth: int
) -> None:
    async with two(chosen.model_copy(update=WAYS[way])) as pair:
        socket = await pair.mine.tenant.socket() if transport == "websocket" else None
        caller, walker = Caller(pair, transport, socket), Walk(GRAPHQL, usual(pair.mine))
        walker.depth = depth
        for slot in SLOTS:
            if (slot.parent != "Subscription" or transport in STREAMS) and not changing(slot):
                await walk_slot(caller, walker, slot)
        for parent, name in walk.without_slots(GRAPHQL):
            await caller.ask(*walker.document(parent, name, {}), None)
    said = capsys.readouterr().err
    credentials = [world.tenant.http.headers["authorization"].split()[-1] for world in (pair.mine, pair.theirs)]
    assert '"tenant":"theirs"' in said
    for each in (pair.theirs.canary, pair.mine.canary, *pair.theirs.ids, *pair.theirs.secrets, *credentials):
        assert each not in said


def test_the_walk_goes_everywhere() -> None:
    """Each field of each type stands in a document of the walk, and of each argument it is known where it leads."""
    walker = Walk(GRAPHQL, usual(World.nobodys()))
    for slot in SLOTS:
        walker.document(slot.parent, slot.field, walker.filled(slot, None))
    for parent, name in walk.without_slots(GRAPHQL):
        walker.document(parent, name, {})
    assert walker.visited == {f"{kind.name}.{name}" for kind in walk.objects(GRAPHQL) for name in kind.fields}
    # Those have no end: they are tried below.
    assert [str(slot) for slot in SLOTS if changing(slot)] == [
        f"Subscription.contextsChanged(filter.{name})" for name in ("nameContains", "metadataContains", "parentId")
    ]


def test_what_leads_nowhere_is_still_there() -> None:
    """What was said of places is of places that there are."""
    assert walk.unknown(GRAPHQL) == set()


# -- What the walk does not try: several things at once, and what has no end

MIXED = """query ($ids: [ID!]!, $mine: ID!, $theirs: ID!, $nobodys: ID!, $yes: Boolean!, $no: Boolean!) {
  nodes(ids: $ids) { id ... on Context { name messages { totalCount } } ... on Message { content context { name } } }
  mine: context(id: $mine) { ...Mixed }
  theirs: context(id: $theirs) { ...Mixed }
  nobodys: context(id: $nobodys) { ...Mixed }
  included: context(id: $theirs) @include(if: $yes) { ...Mixed }
  skipped: context(id: $theirs) @skip(if: $no) { ...Mixed }
  absent: context(id: $theirs) @include(if: $no) { ...Mixed }
}
fragment Mixed on Context {
  id
  asTheirs: diff(with: $theirs) { ...Sides }
  asNobodys: diff(with: $nobodys) { ...Sides }
  ancestorOfTheirs: commonAncestor(with: $theirs) { version context { name } }
  forks @include(if: $yes) { totalCount }
  window(budget: 1000) { tokenCount }
}
fragment Sides on ContextDiff { onlyThere { context { name } messageCount messages { nodes { content } } } }"""


@pytest.mark.parametrize("way", WAYS)
async def test_things_of_others_among_ones_own_are_missing(chosen: Settings, way: str) -> None:
    async with two(chosen.model_copy(update=WAYS[way])) as pair:
        mine, theirs, nobodys = pair.mine.contexts["root"], pair.theirs.contexts["root"], str(uuid.uuid4())
        ids = [theirs, mine, nobodys, pair.theirs.messages["root 0"], pair.mine.messages["root 0"], mine]
        given = {"ids": ids, "mine": mine, "theirs": theirs, "nobodys": nobodys, "yes": True, "no": False}
        found = await pair.mine.tenant(MIXED, **given)
        assert [node and node["id"] for node in found["nodes"]] == [None, mine, None, None, ids[4], mine]
        assert [found[name] for name in ("theirs", "nobodys", "included", "skipped")] == [None] * 4
        assert "absent" not in found
        own = found["mine"]
        assert (own["asTheirs"], own["asNobodys"], own["ancestorOfTheirs"]) == (None, None, None)
        assert pair.theirs.canary not in json.dumps(found)


async def test_a_call_of_another_tenant_is_one_that_nobody_made(chosen: Settings) -> None:
    """The result of a call that is not known is no part of a unit, whoever else has made a call of that id."""
    async with two(chosen.model_copy(update={"row_security": "off"})) as pair:
        windows = []
        for call in (pair.theirs.calls[0], "a call that nobody made"):
            result = say("result", role="TOOL", toolCallId=call)
            made = await calls.create(pair.mine.tenant, say("asks"), result, say("thanks"))
            window = "window(budget: 2) { fromVersion minimumBudget messages { version } }"
            found = await pair.mine.tenant(f"query ($id: ID!) {{ context(id: $id) {{ {window} }} }}", id=made["id"])
            windows.append(found["context"]["window"])
        assert windows[0] == windows[1]


LISTED = "subscription ($filter: ContextFilter) { contextsChanged(filter: $filter) { kind context { id name } } }"


@pytest.mark.parametrize("way", ["lane", "locked"])
async def test_nothing_is_heard_of_what_another_tenant_does(chosen: Settings, way: str) -> None:
    async with serving(chosen.model_copy(update=WAYS[way])) as service:
        mine, theirs = await service.tenant("mine"), await service.tenant("theirs")
        parent = await calls.create(theirs, say("sekret"), name="sekret")
        own = await calls.create(mine, say("own"), name="own")
        socket = await mine.socket()
        filters = {"all": None, "name": {"nameContains": "sekret"}, "parent": {"parentId": parent["id"]}}
        filters["metadata"] = {"metadataContains": {"of": "sekret"}}
        for name, chosen_ones in filters.items():
            await socket.subscribe(LISTED, name, variables={"filter": chosen_ones})
        heard: list[tuple[str, str]] = []

        async def until_heard(name: str) -> None:
            """Take what comes until a context is told of by that name."""
            while not heard or heard[-1] != ("all", name):
                frame = await socket.receive()
                assert frame["type"] == "next", frame
                event = frame["payload"]["data"]["contextsChanged"]["context"]
                heard.append((frame["id"], event["name"]))

        # Nobody says when a subscription has begun: changes are made until one is heard.
        begun = asyncio.create_task(until_heard("begun"))
        while not begun.done():
            await calls.update(mine, own["id"], name="begun")
            await asyncio.wait([begun], timeout=0.05)
        await begun
        made = await calls.create(theirs, say("more"), name="sekret 2", metadata={"of": "sekret"})
        await calls.fork(theirs, parent["id"], name="sekret fork")
        await calls.append(theirs, made["id"], say("sekret"))
        await calls.update(theirs, made["id"], name="sekret 3")
        await calls.delete(theirs, made["id"])
        await calls.restore(theirs, made["id"])
        await calls.update(mine, own["id"], name="sekret, but mine", metadata={"of": "sekret"})
        await until_heard("sekret, but mine")
        # All that came meanwhile was of one's own, and nothing has a parent of the other one's.
        assert {name for _, name in heard} <= {"own", "begun", "sekret, but mine"}
        assert {subscription for subscription, name in heard if name == "begun"} == {"all"}
        assert "parent" not in {subscription for subscription, _ in heard}


# -- That the walk would notice


@pytest.mark.parametrize("row_security", ["off", "on"])
async def test_a_statement_without_its_tenant_is_noticed_by_the_walk_or_stopped_by_the_second_lock(
    chosen: Settings, monkeypatch: pytest.MonkeyPatch, row_security: str
) -> None:
    statement = db.context._QUERIES["by_ids"]  # noqa: SLF001 - what is to be broken
    open_text = statement.text.replace("c.tenant_id = $1", "$1::text is not null")
    assert open_text != statement.text
    monkeypatch.setitem(db.context._QUERIES, "by_ids", replace(statement, text=open_text))  # noqa: SLF001
    async with two(chosen.model_copy(update={"row_security": row_security})) as pair:
        caller, walker = Caller(pair, "post", None), Walk(GRAPHQL, usual(pair.mine))
        (slot,) = (slot for slot in SLOTS if str(slot) == "Query.context(id)")
        if row_security == "on":
            await walk_slot(caller, walker, slot)
        else:
            with pytest.raises(AssertionError, match=r"sekret"):
                await walk_slot(caller, walker, slot)
