"""Planned reads held to the resolvers: random documents over random data get the same answer from both, to the letter.

Two applications read one database that nobody writes to: one plans, with its fast lane; one has only the resolvers. A
document that differs is made smaller and printed. Its seed makes it again, but for ids and moments.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from graphql_api.app import create_app
from graphql_api.settings import Settings
from schema.root import schema
from tests.answers import Answer, difference, read
from tests.client import Api
from tests.conftest import api_over
from tests.coordinates import reachable, used
from tests.document_values import Pool
from tests.documents import Document, draw
from tests.histories import Grower, Grown, look_around, move_clocks
from tests.reducing import reduce
from tests.rows import Counter
from tests.schema.calls import create, say

# Where a field fails at once, graphql-core forgets those beside it that it has begun to ask.
pytestmark = [
    pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:.*coroutine object:pytest.PytestUnraisableExceptionWarning"),
]

BUILT = schema._schema  # noqa: SLF001 - graphql-core's own schema
# Or as many more as it takes to use everything once.
SHORT = 400
SHORT_MAX = 1_000
AT_ONCE = 5
LONG = range(20)
LONG_EACH = 1_000

# So low that they refuse some of the documents.
LIMITS: dict[str, Any] = {"fork_depth_max": 60, "window_messages_max": 12}
PLANNED: dict[str, Any] = {"debug_extensions": True}
RESOLVED: dict[str, Any] = {"planned_reads": False, "fast_lane_connections": 0}
PLANS = {"planned_reads", "debug_extensions"} <= Settings.model_fields.keys()


def _raced(planned: Answer, resolved: Answer) -> bool:
    """Tell whether resolvers answered both times, and differ only in which errors they came to tell.

    Where several fields fail below one that may not be null, the first ends the others. Source: GraphQL specification,
    section 6.4.4: only one error should be told for each.
    """
    if planned.execution == "planned" or not planned.messages or not resolved.messages:
        return False
    first, second = dict(planned.content[1]), dict(resolved.content[1])
    shared = [error for error in first["errors"] if error in second["errors"]]
    return bool(shared) and first["data"] == second["data"]


@dataclass
class Pair:
    """Both applications, and what was found of them so far."""

    planned: Api
    resolved: Api
    pool: Pool
    coordinates: set[str] = field(default_factory=set)
    answered: int = 0
    without_errors: int = 0

    async def answers(self, document: Document) -> tuple[Answer, Answer]:
        """Ask both."""
        # Escapes carry lone surrogates, too. Both must estimate the same.
        body = json.dumps({**document.body(), "extensions": {"cost": True}}).encode()
        first, second = [
            await api.http.post("/graphql", content=body, headers={"content-type": "application/json"})
            for api in (self.planned, self.resolved)
        ]
        for response in (first, second):
            self.check_estimate(response.content, document.text)
        return read(first.content, document.text), read(second.content, document.text)

    def check_estimate(self, body: bytes, text: str) -> None:
        """Fail where an answer shows more rows than were estimated."""
        answer = json.loads(body)
        if answer.get("data"):
            assert Counter(BUILT, text).rows(answer["data"]) <= answer["extensions"]["cost"]["rows"], text

    async def flaw(self, document: Document) -> str | None:
        """Say how the answers differ, or that nothing was planned where all is well."""
        planned, resolved = await self.answers(document)
        # Which fields go beyond what all of a request may read depends on which of them happens to ask first.
        beyond = [message for message in planned.messages & resolved.messages if " in all" in message]
        found = difference(planned.content, resolved.content)
        if found and not beyond and not _raced(planned, resolved):
            return f"planned and resolved differ {found}"
        self.answered += 1
        if not planned.messages:
            self.without_errors += 1
            self.coordinates |= used(BUILT, document.text, document.variables)
        if PLANS and not planned.messages and planned.execution != "planned" and "__schema" not in document.text:
            return f"not planned but {planned.execution}"
        return None

    async def compare(self, seeds: Iterable[int]) -> None:
        """Ask both for the documents of some seeds at once, and fail if the answers to one differ."""
        documents = {seed: draw(BUILT, self.pool, seed) for seed in seeds}
        flaws = await asyncio.gather(*map(self.flaw, documents.values()))
        for (seed, document), flaw in zip(documents.items(), flaws, strict=True):
            if flaw is not None:
                smallest = await self.reduced(document, flaw)
                pytest.fail(f"seed {seed}: {await self.flaw(smallest) or flaw}\n{smallest}\n\n{smallest.text}")

    async def reduced(self, document: Document, flaw: str) -> Document:
        """Make a document smaller while it has a flaw of the same kind."""

        async def fails(smaller: Document) -> bool:
            return (await self.flaw(smaller) or "")[:11] == flaw[:11]

        return await reduce(document, fails)


@asynccontextmanager
async def pair_over(database_url: str, seed: int | None) -> AsyncIterator[Pair]:
    """Start both applications, over the data of a seed or over none."""

    def app(chosen: dict[str, Any]) -> Any:
        url = SecretStr(database_url)
        return create_app(Settings(_env_file=None, database_url=url, log_level="error", **LIMITS, **chosen))

    source = random.Random(seed)
    async with api_over(app(RESOLVED)) as resolved, api_over(app(PLANNED)) as planned:
        grown = Grown() if seed is None else await Grower(resolved, source).grow()
        move_clocks(database_url, grown)
        pool = await look_around(resolved, database_url, grown, source)
        yield Pair(planned, resolved, pool)


async def test_planned_reads_answer_as_the_resolvers_do(database_url: str) -> None:
    async with pair_over(database_url, 0) as pair:
        for start in range(0, SHORT_MAX, AT_ONCE):
            if start >= SHORT and not reachable(BUILT) - pair.coordinates:
                break
            await pair.compare(range(start, start + AT_ONCE))
    assert pair.without_errors > 0.6 * pair.answered
    assert reachable(BUILT) - pair.coordinates == set()


@pytest.mark.long
@pytest.mark.parametrize("part", LONG)
async def test_planned_reads_answer_as_the_resolvers_do_over_and_over(database_url: str, part: int) -> None:
    async with pair_over(database_url, part) as pair:
        for start in range(part * LONG_EACH, (part + 1) * LONG_EACH, AT_ONCE):
            await pair.compare(range(start, start + AT_ONCE))


UNUSUAL = """{ contexts(orderBy: {field: NAME}) { totalCount nodes { id updatedAt
  messages { nodes { version createdAt toolCalls { id arguments } } }
} } }"""


@pytest.mark.parametrize(
    "statement",
    [
        'update messages set tool_calls = \'[{"id": "c", "name": "n", "arguments": null}]\'',
        'update messages set tool_calls = \'[{"id": "c", "name": "n"}]\'',
        "update messages set tool_calls = '[null]'",
        'update messages set tool_calls = \'[{"id":"c","name":"n","arguments":{"a":1,"a":2,"b": 1E2}}]\'',
        "update messages set tool_calls = '[]'",
        "update messages set created_at = 'infinity'",
        "update messages set created_at = '0044-03-15 00:00:00+00 BC'",
        "update contexts set updated_at = '-infinity'",
        "update contexts set updated_at = '10000-01-01 00:00:00+00'",
        'update contexts set metadata = \'{"a": 1e400, "b": -0.0, "c": 1.00}\'',
    ],
)
async def test_rows_that_no_caller_could_have_made_are_answered_by_the_resolvers(
    database_url: str, statement: str
) -> None:
    async with pair_over(database_url, None) as pair:
        await create(pair.resolved, say("one", role="ASSISTANT"))
        with psycopg.connect(database_url) as connection:
            connection.execute(statement.encode())
        for text in (UNUSUAL, "{ contexts { totalCount } }"):
            planned, resolved = await pair.answers(Document(text, {}, None))
            assert difference(planned.content, resolved.content) is None
