"""The data that all systems read: contexts of about 250 messages, forks of forks, and a few long contexts."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import orjson
import psycopg
import uuid_utils.compat
from psycopg import sql

from db.history_copy import NewContext, Placed, TreeCopy
from db.pool import Database, PoolLimits
from db.records import NewMessage
from schema import api_key
from schema.principal import Scope

TENANT_ID = "default"
LIMITS = PoolLimits(size_min=1, size_max=1, wait_seconds=10, connect_seconds=10, statement_seconds=600)
MESSAGES = 250
DEPTH_MAX = 8
CONTEXTS_MIN = 2 * (DEPTH_MAX + 1)
WINDOW_DEPTH = 4
CHAIN_ROOT_MESSAGES = 160  # with what each fork adds, the contexts of a chain hold about 250 as well
LETTERS_MIN, LETTERS_MAX = 50, 1_500
PHRASES = [
    "the store keeps what agents say and forks where they change their mind",
    "because nobody knows before the answer which of two ways is better",
    '"quoted" and then line\nbreaks and paths/like/this.py and numbers 1024 0.25',
    "naïve café überall данные 数据 🙂",
    "function return None if not found else await client.request(method, url)",
]
WORDS = " ".join(PHRASES).split(" ")


@dataclass(frozen=True, slots=True)
class Size:
    """How much is loaded: so many contexts of about 250 messages, and one context of each length."""

    contexts: int
    lengths: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Targets:
    """The ids that requests choose from, in the same order in every run."""

    contexts: list[str]
    forks: list[str]

    @classmethod
    def read(cls, url: str) -> "Targets":
        """List what is loaded; the forks are those that are 4 deep."""
        with psycopg.connect(url) as connection:
            rows = connection.execute("select id::text, depth from contexts order by id").fetchall()
        ids, forks = [row[0] for row in rows], [row[0] for row in rows if row[1] == WINDOW_DEPTH]
        random.Random(1).shuffle(ids)
        random.Random(2).shuffle(forks)
        return cls(ids, forks)


class Writer:
    """Makes up texts and messages, the same ones for the same seed."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        # To choose words anew for each message took most of the time of loading.
        self._text = " ".join(self._dice.choices(WORDS, k=200_000))

    def text(self) -> str:
        """Write 50 to 1,500 characters; short ones are as frequent as in conversations, the mean is about 430."""
        length = int(LETTERS_MIN * (LETTERS_MAX / LETTERS_MIN) ** self._dice.random())
        start = self._dice.randrange(len(self._text) - length)
        return self._text[start : start + length]

    def between(self, low: int, high: int) -> int:
        """Choose a whole number."""
        return self._dice.randint(low, high)

    def messages(self, first_version: int, count: int) -> Iterator[tuple[NewMessage, tuple[str, ...]]]:
        """Write so many messages with the calls each makes: turns of a user and an assistant, some with a tool."""
        if first_version == 1:
            yield self._message("system"), ()
            first_version, count = 2, count - 1
        while count > 0:
            yield self._message("user"), ()
            if count >= 4 and self._dice.random() < 0.25:  # noqa: PLR2004 - a question, a call, its result, the answer
                yield from self._calling()
                count -= 2
            if count > 1:
                yield self._message("assistant"), ()
            count -= 2

    def _calling(self) -> Iterator[tuple[NewMessage, tuple[str, ...]]]:
        call_id = f"call_{self._dice.getrandbits(96):024x}"
        arguments = orjson.dumps({"query": self.text()[:80], "limit": self._dice.randint(1, 50)}).decode()
        call = {"id": call_id, "type": "function", "function": {"name": "search", "arguments": arguments}}
        yield self._message("assistant", tool_calls=orjson.dumps([call]).decode()), (call_id,)
        yield self._message("tool", tool_call_id=call_id, tool_name="search"), ()

    def _message(self, role: str, **more: str) -> NewMessage:
        text = self.text()
        metadata = {"source": "web", "rating": self._dice.randint(1, 5)} if self._dice.random() < 0.1 else {}  # noqa: PLR2004 - some
        return NewMessage(
            id=uuid_utils.compat.uuid7(),
            role=role,
            content=text,
            tool_calls=more.get("tool_calls"),
            tool_call_id=more.get("tool_call_id"),
            tool_name=more.get("tool_name"),
            token_count=len(text) // 4 + 4,
            model="example-large" if role == "assistant" else None,
            metadata=orjson.dumps(metadata).decode(),
        )


async def load(url: str, size: Size) -> None:
    """Store the data set as an import does: half of the contexts alone, half in chains of forks, then the long ones."""
    database = Database(url, LIMITS)
    await database.open()
    try:
        loader = _Loader(database)
        chains = size.contexts // 2 // (DEPTH_MAX + 1)
        alone = size.contexts - chains * (DEPTH_MAX + 1)
        for length in size.lengths:
            await loader.tree([length])
        for number in range(alone):
            await loader.tree([loader.writer.between(MESSAGES - 30, MESSAGES + 30)])
            # Spread evenly, so that a page of the newest contexts has both kinds.
            for _ in range((number + 1) * chains // alone - number * chains // alone):
                await loader.tree([CHAIN_ROOT_MESSAGES] + [loader.writer.between(20, 40) for _ in range(DEPTH_MAX)])
    finally:
        await database.close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("vacuum (analyze, freeze)")
        connection.execute("checkpoint")


class _Loader:
    """Stores trees, each in a transaction; moments go on by the second, so that the order of all contexts is total."""

    def __init__(self, database: Database) -> None:
        self.writer = Writer(7)
        self._database = database
        self._moment = datetime.now(UTC) - timedelta(days=30)
        self._count = 0

    async def tree(self, own: list[int]) -> None:
        """Store a root and a chain of forks, which hold so many messages of their own."""
        async with self._database.transaction(TENANT_ID) as session:
            copy = TreeCopy(session, TENANT_ID, DEPTH_MAX)
            parent: UUID | None = None
            latest = 0
            for count in own:
                fork_version = None if parent is None else latest - self.writer.between(0, 10)
                parent = await self._context(copy, parent, fork_version)
                latest = (fork_version or 0) + count
                for message, call_ids in self.writer.messages((fork_version or 0) + 1, count):
                    self._moment += timedelta(milliseconds=1)
                    await copy.add_message(Placed("data set", message, call_ids, None, self._moment, None))
            await copy.finish()

    async def _context(self, copy: TreeCopy, parent_id: UUID | None, fork_version: int | None) -> UUID:
        self._count += 1
        self._moment += timedelta(seconds=1)
        context_id = uuid_utils.compat.uuid7()
        metadata = {"user": f"user-{self._count % 100}", "tags": ["benchmark"]} if self._count % 3 == 0 else {}
        await copy.add_context(
            NewContext(
                place="data set",
                id=context_id,
                parent_id=parent_id,
                fork_version=fork_version,
                name=f"Conversation {self._count}: {self.writer.text()[:30].strip()}",
                metadata=orjson.dumps(metadata).decode(),
                created_at=self._moment,
                updated_at=None,
                deleted_at=None,
            )
        )
        return context_id


async def make_key(url: str) -> str:
    """Make an API key that may write."""
    database = Database(url, LIMITS)
    await database.open()
    try:
        async with database.transaction(TENANT_ID) as session:
            return (await api_key.make(session, TENANT_ID, "benchmark", [Scope.WRITE], None))[1]
    finally:
        await database.close()


def renew(url: str, template: str, name: str) -> str:
    """Make a database anew as a copy of another one, so that runs which write leave the data set as it was."""
    with psycopg.connect(url, autocommit=True, dbname="postgres") as connection:
        connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
        connection.execute(
            sql.SQL("create database {} template {} strategy file_copy").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
    return url.replace("@/forkpoint?", f"@/{name}?")
