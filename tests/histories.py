"""Random data for tests that read: any text and any JSON that can be stored, forks of forks, deletions.

All of it comes from a `random.Random`, and is made through the API. What callers cannot say, moments, is set by SQL.
"""

import random
from dataclasses import dataclass, field
from typing import Any

import psycopg

from schema.scalar import write_moment
from tests.client import Api
from tests.document_values import Pool
from tests.schema import calls

Json = dict[str, Any]

STEPS = 80
CHAIN = 9
FORKS = 7

TEXTS = (
    "", " ", "plain", 'say "hi"', "back\\slash \\n \\u0041", "tab\tnew\nline\r\n", "é Ünïcödé", "👩‍👩‍👧 🤷🏽 𝄞",
    "\u2028 and \u2029",
    "\x01\x07\x08\x0b\x1b\x1f\x7f\x80\x9f", "\ufeff\ufffe\uffff\U0010ffff", "\u202eright to left\u202c",
    "</script><!-- ' -->", "null", "%_%", "0", "a" * 300, "{ $id } ...More",
)  # fmt: skip
LONG = 'A long text, "quoted" and 🤷🏽. ' * 3_300

NUMBERS = (
    0, -1, 2**31, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 2**63, 2**64 - 1, 2**64, 10**29 + 7, -(10**60),
    0.1, -0.0, 1.0, 1e22, 1e-7, 1e308, 5e-324, 1.7976931348623157e308, 123456789.123456789, 1e16, 100.0,
)  # fmt: skip
DEEP: Any = "deep"
for depth in range(60):
    DEEP = [DEEP] if depth % 2 else {"d": DEEP}


@dataclass
class Grown:
    """What was made, in the order in which it was made."""

    contexts: list[str] = field(default_factory=list)
    latest: dict[str, int] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)

    def live(self) -> list[str]:
        """Give the contexts that are not deleted."""
        return [each for each in self.contexts if each not in self.deleted]


class Grower:
    """Makes the histories of one tenant."""

    def __init__(self, api: Api, source: random.Random) -> None:
        self.api = api
        self.random = source
        self.grown = Grown()

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def text(self) -> str:
        return "".join(self.random.choices(TEXTS, k=self.random.choice((1, 1, 2, 4))))

    def name(self) -> str | None:
        return None if self.chance(0.2) else self.text()[:255]

    def json(self, depth: int = 0) -> Any:
        match self.random.randrange(8 if depth < 3 else 5):
            case 0:
                return self.random.choice((None, True, False))
            case 1 | 2:
                return self.random.choice(NUMBERS)
            case 3 | 4:
                return self.text()
            case 5:
                return [self.json(depth + 1) for _ in range(self.random.randrange(4))]
            case 6:
                return self.object(depth + 1)
        return DEEP if depth == 0 and self.chance(0.2) else {}

    def object(self, depth: int = 0) -> Json:
        keys = ("zz", "a", "b", "aa", "", "a b", 'q"', "é", "data", "errors", "timestamp", "__proto__", "1", "👩")
        chosen = self.random.sample(keys, self.random.choice((0, 1, 2, 5)))
        return {key: self.json(depth + 1) for key in chosen}

    def message(self) -> Json:
        """Make a message. Results answer calls that were made, or that never were."""
        role = self.random.choices(("USER", "ASSISTANT", "SYSTEM", "TOOL"), (4, 4, 1, 4))[0]
        message: Json = {"role": role, "content": self.text()}
        if self.chance(0.8):
            message["tokenCount"] = self.random.choice((0, 1, 2, 3, 5, 8, 13, 40))
        if self.chance(0.5):
            message["metadata"] = self.object()
        if self.chance(0.3):
            message["model"] = self.random.choice(("", "gpt", 'm"\\é'))
        if role == "ASSISTANT" and self.chance(0.7):
            message["toolCalls"] = [
                {"id": self.call_id(), "name": self.text()[:60], "arguments": self.arguments()}
                for _ in range(self.random.choice((0, 1, 1, 2)))
            ]
        if role == "TOOL":
            message["toolCallId"] = self.call_id()
            message["toolName"] = self.random.choice((None, "", "search", "é\u2028"))
        return message

    def arguments(self) -> Any:
        value = self.json()
        return {} if value is None else value  # null is refused

    def call_id(self) -> str:
        return self.random.choice(("call_1", "call_2", "é", '"', "call_3", "call_4"))

    def messages(self, most: int) -> list[Json]:
        return [self.message() for _ in range(self.random.randint(1, most))]

    def learn(self, context: Json) -> str:
        context_id: str = context["id"]
        if context_id not in self.grown.latest:
            self.grown.contexts.append(context_id)
        self.grown.latest[context_id] = context["latestVersion"]
        return context_id

    async def create(self, *messages: Json) -> str:
        metadata = self.object() if self.chance(0.6) else None
        return self.learn(await calls.create(self.api, *messages, name=self.name(), metadata=metadata))

    async def fork(self, parent: str, version: int | None) -> str:
        metadata = self.object() if self.chance(0.3) else None
        return self.learn(await calls.fork(self.api, parent, version, name=self.name(), metadata=metadata))

    async def append(self, context: str, *messages: Json) -> None:
        self.learn((await calls.append(self.api, context, *messages))["context"])

    async def grow(self) -> Grown:
        """Make a few shapes that are wanted whatever is drawn, then go on at random."""
        system = {"role": "SYSTEM", "content": "You test.", "tokenCount": 5}
        tip = await self.create(system, system, *self.messages(12), *self.messages(12))
        for _ in range(CHAIN):
            tip = await self.fork(tip, self._near_end(tip))
            await self.append(tip, *self.messages(3))
        wide = await self.create({"role": "USER", "content": LONG, "tokenCount": 30}, *self.messages(5))
        for _ in range(FORKS):
            await self.fork(wide, self.random.randint(0, self.grown.latest[wide]))
        await self.create()
        for _ in range(STEPS):
            await self.step()
        return self.grown

    def _near_end(self, context: str) -> int:
        latest = self.grown.latest[context]
        return max(0, latest - self.random.choice((0, 0, 1, 2, 5)))

    async def step(self) -> None:
        """Do one thing to one context."""
        context = self.random.choice(self.grown.live())
        latest = self.grown.latest[context]
        version = self.random.randint(1, max(1, latest))
        match self.random.choices(
            ("append", "fork", "create", "delete message", "restore message", "delete", "restore", "update"),
            (8, 9, 2, 6, 2, 2, 1, 2),
        )[0]:
            case "append":
                await self.append(context, *self.messages(10))
            case "fork":
                await self.fork(context, self.random.choice((None, 0, self.random.randint(0, latest))))
            case "create":
                await self.create(*self.messages(4))
            case "delete message" if latest:
                await calls.delete_message(self.api, context, version)
            case "restore message" if latest:
                await calls.restore_message(self.api, context, version)
            case "delete":
                await calls.delete(self.api, context)
                self.grown.deleted.add(context)
            case "restore" if self.grown.deleted:
                restored = self.random.choice(sorted(self.grown.deleted, key=self.grown.contexts.index))
                await calls.restore(self.api, restored)
                self.grown.deleted.remove(restored)
            case "update":
                self.learn(await calls.update(self.api, context, name=self.name(), metadata=self.object()))


def move_clocks(database_url: str, grown: Grown) -> None:
    """Put moments where no caller can: whole seconds, and both ends of time. None falls along a lineage."""
    if not grown.contexts:
        return
    roots, leaf = grown.contexts, grown.contexts[-1]
    with psycopg.connect(database_url) as connection:
        for context, moment in ((roots[0], "0001-01-01 00:00:00+00"), (roots[CHAIN + 1], "2000-01-01 00:00:00+00")):
            connection.execute("update messages set created_at = %s where context_id = %s", (moment, context))
            connection.execute("update contexts set created_at = %s where id = %s", (moment, context))
        connection.execute("update contexts set updated_at = %s where id = %s", ("0001-01-01 00:00:00+00", roots[3]))
        connection.execute("update contexts set updated_at = %s where id = %s", ("9999-12-30 23:59:59+00", leaf))
        connection.execute(
            """
            update messages m
            set created_at = '9999-12-31 23:59:59.999999+00'
            from contexts c
            where m.context_id = c.id and m.version = c.latest_version
            and not exists (select from contexts f where f.parent_id = c.id)
            and c.id = any(%s::uuid[])
            """,
            (grown.contexts[::5],),
        )


def _rows(database_url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database_url) as connection:
        return connection.execute(statement.encode()).fetchall()


def _sample(source: random.Random, values: list[Any], most: int) -> list[Any]:
    return source.sample(values, min(most, len(values)))


CURSORS = """query ($id: ID!) { context(id: $id) {
  messages(first: 1000) { edges { cursor } } forks(first: 1000) { edges { cursor } }
} }"""
SNAPSHOT = (
    "query ($id: ID!, $version: Int) { context(id: $id) { at(version: $version) { messages { edges { cursor } } } } }"
)
DIFF = """query ($id: ID!, $with: ID!) { context(id: $id) { diff(with: $with) {
  onlyHere { messages { edges { cursor } } } onlyThere { messages { edges { cursor } } }
} } }"""
LIST = """query ($field: ContextOrderField!, $direction: OrderDirection!) {
  contexts(first: 1000, orderBy: {field: $field, direction: $direction}) { edges { cursor } }
}"""


async def look_around(api: Api, database_url: str, grown: Grown, source: random.Random) -> Pool:
    """Collect what documents may name; cursors are those of answers."""
    order = {context: place for place, context in enumerate(grown.contexts)}
    contexts = {
        str(row[0]): row
        for row in _rows(database_url, "select id, root_id, latest_version, created_at, updated_at from contexts")
    }
    messages = sorted(
        _rows(database_url, "select id, context_id, version, created_at, deleted_at from messages"),
        key=lambda row: (order[str(row[1])], row[2]),
    )
    live = grown.live()
    cursors, stands, pairs = await _cursors(api, grown, source)
    relatives = {
        each: tuple(other for other in grown.contexts if contexts[other][1] == contexts[each][1])
        for each in grown.contexts
    }
    moments = [row[3] for row in messages] + [moment for each in grown.contexts for moment in contexts[each][3:]]
    written = [write_moment(moment) for moment in _sample(source, moments, 30)]
    return Pool(
        contexts=tuple(live),
        messages=tuple(str(row[0]) for row in messages if row[4] is None),
        deleted=(
            *(each for each in grown.contexts if each in grown.deleted),
            *(str(row[0]) for row in messages if row[4]),
        ),
        relatives=relatives,
        latest={each: grown.latest[each] for each in live},
        cursors={name: tuple(places) for name, places in cursors.items() if places},
        stands=stands,
        pairs=pairs,
        moments=(*written, "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2030-01-01T12:00:00.5Z"),
        names=TEXTS,
        metadata=tuple([{}] + [row[0] for row in _rows(database_url, "select metadata from contexts order by id")]),
    )


async def _cursors(
    api: Api, grown: Grown, source: random.Random
) -> tuple[dict[str, list[str]], dict[str, tuple[int, ...]], dict[str, tuple[str, ...]]]:
    cursors: dict[str, list[str]] = {}
    stands: dict[str, tuple[int, ...]] = {}
    pairs: dict[str, tuple[str, ...]] = {}

    def take(name: str, page: Json) -> None:
        cursors[name] = [edge["cursor"] for edge in page["edges"]]

    live = grown.live()
    for each in live:
        found = (await api(CURSORS, id=each))["context"]
        for name in ("messages", "forks"):
            take(f"{each} {name}", found[name])
    for each in _sample(source, live, 20):
        version = source.randint(0, grown.latest[each])
        take(
            f"{each} at {version} messages",
            (await api(SNAPSHOT, id=each, version=version))["context"]["at"]["messages"],
        )
        stands[each] = (version,)
        other = source.choice(live)
        found = (await api(DIFF, id=each, **{"with": other}))["context"]["diff"]
        for side in ("onlyHere", "onlyThere"):
            take(f"{each} diff {other} {side} messages", found[side]["messages"])
        pairs[each] = (other,)
    for by in ("UPDATED_AT", "CREATED_AT", "NAME"):
        for direction in ("ASC", "DESC"):
            take(f"contexts {by} {direction}", (await api(LIST, field=by, direction=direction))["contexts"])
    return cursors, stands, pairs
