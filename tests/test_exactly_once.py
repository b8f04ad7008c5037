"""Answers are lost and calls sent again: each batch is stored once, whole and in order, and forks where it must.

Connections are cut between commit and answer, in both places where an answer can be lost: PostgreSQL's to the service
after COMMIT, and the service's to the client. Clients do what clients should: they send the call again, with its key.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import psycopg

from tests.client import Api, ApiError
from tests.proxy import Proxy, over_tcp, pass_all, postgres_socket, swallow
from tests.service import serving

CLIENTS = 32
CONTEXTS = 4
BATCHES = 8  # of each client
FORKED_BATCHES = 4  # and of its own way
PROCESSES = 2
CHANCE = 0.12
ATTEMPTS_MAX = 60

CREATE = """mutation ($key: String!, $messages: [MessageInput!]) {
  createContext(input: {messages: $messages, idempotencyKey: $key}) { context { id latestVersion } replayed }
}"""
APPEND = """mutation ($input: AppendMessagesInput!) {
  appendMessages(input: $input) { context { id latestVersion } messages { id version content } replayed forked }
}"""
READ = """query ($id: ID!) {
  context(id: $id) { latestVersion messages(first: 1000) { nodes { content } pageInfo { hasNextPage } } }
}"""

Json = dict[str, Any]


@dataclass
class Sent:
    """One batch: where it was sent, when, and what it was told in the end."""

    label: str
    contents: list[str]
    context_id: str
    first_sent_at: float
    payload: Json = field(default_factory=dict)
    acknowledged_at: float = 0.0


class Client:
    """Sends each call until it is answered."""

    def __init__(self, name: str, api: Api) -> None:
        self.name = name
        self.api = api
        self.dice = random.Random(name)
        self.sent: list[Sent] = []
        # How often an answer was lost, and whether the call turned out to have been done.
        self.lost: Counter[str] = Counter()

    async def call(self, document: str, **variables: Any) -> Json:
        """Call until there is an answer; gives the payload."""
        trouble: set[str] = set()
        for attempt in range(ATTEMPTS_MAX):
            try:
                ((payload),) = (await self.api(document, **variables)).values()
            except httpx2.TransportError:
                trouble.add("answer")
            except ApiError as error:
                if error.code != "UNAVAILABLE":  # the only trouble here is lost connections
                    raise
                trouble.add("commit" if "before it confirmed" in error.message else "connection")
            else:
                for kind in trouble:
                    self.lost[f"{kind}, {'done' if payload['replayed'] else 'not done'}"] += 1
                result: Json = payload
                return result
            await asyncio.sleep(self.dice.uniform(0, 0.02) * min(attempt, 5))
        raise TimeoutError(f"{self.name} was not answered")

    async def append(self, context_id: str, number: str, **given: Any) -> Json:
        """Append a batch; gives the payload."""
        label = f"{self.name}/{number}"
        sent = Sent(label, [f"{label}/{n}" for n in range(self.dice.randint(1, 4))], context_id, time.monotonic())
        messages = [{"role": "USER", "content": content, "tokenCount": 1} for content in sent.contents]
        given |= {"contextId": context_id, "messages": messages, "idempotencyKey": label}
        sent.payload = await self.call(APPEND, input=given)
        sent.acknowledged_at = time.monotonic()
        self.sent.append(sent)
        assert [message["content"] for message in sent.payload["messages"]] == sent.contents
        return sent.payload

    async def share(self, ids: list[str]) -> None:
        """Append to contexts that all clients append to."""
        for number in range(BATCHES):
            await self.append(self.dice.choice(ids), str(number))

    async def part(self, context_id: str, version: int) -> tuple[str, list[str]]:
        """Go on from a version that others go on from too; gives where this led, and what was said there."""
        said: list[str] = []
        for number in range(FORKED_BATCHES):
            payload = await self.append(context_id, f"own{number}", expectedVersion=version, onConflict="FORK")
            context_id, version = payload["context"]["id"], payload["context"]["latestVersion"]
            assert version == payload["messages"][-1]["version"], "somebody else was here"
            said += [message["content"] for message in payload["messages"]]
        return context_id, said


@asynccontextmanager
async def over_bad_connections(database_url: str, folder: Path) -> AsyncIterator[tuple[list[Client], list[Proxy]]]:
    """Give clients of several processes, and the proxies: the one before PostgreSQL, then those before the service."""
    async with AsyncExitStack() as stack:
        near, port = await stack.enter_async_context(over_tcp(postgres_socket(database_url)))
        parts = urlsplit(database_url)
        user, database = parts.username, parts.path
        url = f"postgresql://{user}@127.0.0.1:{port}{database}"
        services = await stack.enter_async_context(serving(url, folder, PROCESSES))
        far = [await stack.enter_async_context(over_tcp(service.socket)) for service in services]
        clients: list[Client] = []
        for number in range(CLIENTS):
            _, port = far[number % PROCESSES]
            http = httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60)
            clients.append(Client(str(number), Api(await stack.enter_async_context(http))))
        yield clients, [near, *(proxy for proxy, _ in far)]


async def test_every_batch_is_stored_once_though_answers_are_lost(database_url: str, tmp_path: Path) -> None:
    async with over_bad_connections(database_url, tmp_path) as (clients, (near, *far)):
        # Of each answer to COMMIT, and of each answer over HTTP, one in eight never arrives.
        near.judge = swallow(b"COMMIT\0", CHANCE)
        for proxy in far:
            proxy.judge = swallow(b"HTTP/1.1 200", CHANCE)
        made = await asyncio.gather(*(clients[n].call(CREATE, key=f"context {n}") for n in range(CONTEXTS)))
        ids = [payload["context"]["id"] for payload in made]
        start = {"role": "USER", "content": "start", "tokenCount": 1}
        (begun,) = (await clients[0].call(CREATE, key="begun", messages=[start]),)
        await asyncio.gather(*(client.share(ids) for client in clients))
        ways = await asyncio.gather(*(client.part(begun["context"]["id"], 1) for client in clients))
        for proxy in (near, *far):
            proxy.judge = pass_all
        seen = [(await clients[0].api(READ, id=way))["context"] for way, _ in ways]

    lost = sum((client.lost for client in clients), Counter[str]())
    assert min(near.cuts, *(proxy.cuts for proxy in far)) > 10
    # What was cut lay between commit and answer: the call was done, and only a repetition could tell.
    assert lost["commit, done"] > 10
    assert lost["answer, done"] > 10
    assert lost["commit, not done"] == 0

    sent = [each for client in clients for each in client.sent]
    check_stored(database_url, sent, contexts=CONTEXTS + CLIENTS)
    check_order([each for each in sent if each.context_id in ids])
    # Of all who went on from one version one stayed, and each has a history of its own.
    assert sum(each.payload["forked"] for each in sent) == CLIENTS - 1
    assert len({way for way, _ in ways}) == CLIENTS
    for context, (_, said) in zip(seen, ways, strict=True):
        assert [message["content"] for message in context["messages"]["nodes"]] == ["start", *said]
        assert context["latestVersion"] == 1 + len(said)


def check_stored(database_url: str, sent: list[Sent], *, contexts: int) -> None:
    """Check that the store holds each batch once, whole, where its sender was told, and nothing else."""
    with psycopg.connect(database_url) as connection:
        rows = connection.execute(
            "select m.context_id::text, m.version, m.content, m.id::text, m.created_at from messages m "
            "order by m.context_id, m.version"
        ).fetchall()
        found = connection.execute(
            "select c.id::text, coalesce(c.fork_version, 0), c.latest_version from contexts c"
        ).fetchall()
    assert len(found) == contexts
    # No gaps, and time goes on with the versions.
    for context_id, base, latest in found:
        own = [row for row in rows if row[0] == context_id]
        assert [version for _, version, *_ in own] == list(range(base + 1, latest + 1))
        assert all(earlier[4] <= later[4] for earlier, later in pairwise(own))
    # Nothing lost, nothing doubled, nothing torn: what is stored is what was acknowledged, by id.
    stored = {message_id: (context_id, version, content) for context_id, version, content, message_id, _ in rows}
    acknowledged = {
        message["id"]: (each.payload["context"]["id"], message["version"], message["content"])
        for each in sent
        for message in each.payload["messages"]
    }
    start = {message_id: row for message_id, row in stored.items() if row[2] == "start"}
    assert len(start) == 1
    assert stored == acknowledged | start
    assert len({content for _, _, content in stored.values()}) == len(stored)
    for each in sent:
        versions = [message["version"] for message in each.payload["messages"]]
        assert versions == list(range(versions[0], versions[0] + len(each.contents)))


def check_order(sent: list[Sent]) -> None:
    """Check that versions follow commits: a batch that was acknowledged comes before all that were sent after that."""
    for context_id in {each.context_id for each in sent}:
        batches = sorted(
            (each for each in sent if each.context_id == context_id), key=lambda b: b.payload["messages"][0]["version"]
        )
        latest_sent = 0.0
        for batch in batches:
            assert batch.acknowledged_at > latest_sent, batch.label
            latest_sent = max(latest_sent, batch.first_sent_at)
