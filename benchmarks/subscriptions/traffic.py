"""Writers at a fixed rate or as fast as they can, those who follow what they write, and when each message arrived."""

import asyncio
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.subscriptions.clients import ClientError, Http, Socket
from benchmarks.subscriptions.service import Running

APPEND = """mutation ($id: ID!, $content: String!, $tokenCount: Int!) {
  appendMessages(input: { contextId: $id, messages: [{ role: USER, content: $content, tokenCount: $tokenCount }] }) {
    messages { id version }
  }
}"""
FOLLOW = """subscription ($id: ID!, $after: Int) {
  messageAppended(contextId: $id, afterVersion: $after) {
    version latestVersion message { id role content tokenCount createdAt }
  }
}"""
POLL = """query ($id: ID!, $after: String) {
  context(id: $id) {
    messages(first: 100, after: $after) {
      nodes { id version role content tokenCount createdAt }
      pageInfo { endCursor }
    }
  }
}"""
# Of the length that messages have in the data set of benchmarks/peers.
CONTENT = "What is appended while others listen. " * 11
TOKENS = 90
POLLS_A_SECOND = 1
PAGE = 100
LATE_SECONDS_MAX = 30.0


@dataclass
class Thread:
    """One context: when each version was answered to its writer, and the ids of the messages."""

    id: str
    answered: dict[int, float] = field(default_factory=dict)
    messages: dict[int, str] = field(default_factory=dict)


class Reader:
    """Somebody who follows a thread from its beginning: what came, and when. Version follows version."""

    def __init__(self, thread: Thread) -> None:
        self.thread = thread
        self.arrived: list[float] = []
        self._ids: list[str] = []

    def take(self, version: int, message_id: str) -> None:
        """Take what is told.

        Raises: ClientError for a gap or a repetition.
        """
        self.arrived.append(time.perf_counter())
        self._ids.append(message_id)
        if version != len(self.arrived):
            raise ClientError(f"version {version} came after {len(self.arrived) - 1} of context {self.thread.id}")

    @property
    def lacks(self) -> int:
        """How many messages are still to come."""
        return len(self.thread.answered) - len(self.arrived)

    def latencies(self, since: float) -> Iterator[float]:
        """Give how long after its writer it knew of each message, in seconds; 0 for before.

        Raises: ClientError when it was told something else than what was written.
        """
        if self._ids != [self.thread.messages[version] for version in range(1, len(self._ids) + 1)] or self.lacks:
            raise ClientError(f"context {self.thread.id}: {len(self._ids)} messages came, {self.lacks} are missing")
        for number, arrived in enumerate(self.arrived):
            answered = self.thread.answered[number + 1]
            if answered >= since:
                yield max(0.0, arrived - answered)


@dataclass(frozen=True)
class Run:
    """What one run showed: messages written and told, seconds, and CPU seconds of everybody."""

    written: int
    told: int
    seconds: float
    behind: float  # from the last answer to a writer until the last reader knew
    service: float
    postgres: float
    clients: float
    append_latencies: Sequence[float]
    latencies: Sequence[float]

    @property
    def rate(self) -> float:
        """Messages written a second."""
        return self.written / self.seconds


def percentile(values: Sequence[float], share: float) -> float:
    """Give a percentile in milliseconds; `values` are sorted."""
    return values[min(len(values) - 1, math.ceil(share * len(values)) - 1)] * 1000 if values else math.nan


class Writers:
    """Connections over which messages are appended to threads in turn, one to each."""

    def __init__(self, threads: Sequence[Thread]) -> None:
        self._threads = threads
        self._connections: list[Http] = []
        self._next = 0
        self.latencies: list[float] = []

    async def open(self, port: int, count: int) -> None:
        """Connect."""
        self._connections = [await Http.connect(port) for _ in range(count)]

    async def write(self, seconds: float, rate: float | None) -> None:
        """Append so many messages a second, as many as can be for None; late ones are made good."""
        self._next, start = 0, time.perf_counter()
        end = math.inf if rate else start + seconds
        count = round(seconds * rate) if rate else math.inf
        await asyncio.gather(*(self._work(each, start, end, count, rate) for each in self._connections))

    async def _work(self, connection: Http, start: float, end: float, count: float, rate: float | None) -> None:
        while self._next < count and time.perf_counter() < end:
            number = self._next
            self._next += 1
            if rate and (early := start + number / rate - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            thread = self._threads[number % len(self._threads)]
            sent = time.perf_counter()
            data = await connection.ask(APPEND, id=thread.id, content=CONTENT, tokenCount=TOKENS)
            answered = time.perf_counter()
            self.latencies.append(answered - sent)
            (message,) = data["appendMessages"]["messages"]
            thread.answered[message["version"]] = answered
            thread.messages[message["version"]] = message["id"]

    def close(self) -> None:
        """Disconnect."""
        for connection in self._connections:
            connection.close()


class Subscribers:
    """Readers over WebSockets, so many on each."""

    def __init__(self, threads: Sequence[Thread], sharing: int = 1) -> None:
        self.readers = [Reader(thread) for thread in threads]
        self._sharing = sharing
        self._sockets: list[Socket] = []

    async def open(self, port: int) -> None:
        """Connect, and subscribe."""
        for start in range(0, len(self.readers), self._sharing):
            socket = await Socket.connect(port, self._take)
            self._sockets.append(socket)
            await socket.open()
            for number in range(start, min(start + self._sharing, len(self.readers))):
                await socket.subscribe(number, FOLLOW, id=self.readers[number].thread.id, after=0)

    def _take(self, number: int, data: Any) -> None:
        event = data["messageAppended"]
        self.readers[number].take(event["version"], event["message"]["id"])

    async def close(self) -> None:
        """Disconnect.

        Raises: ClientError when that, or anything else, had happened before.
        """
        for socket in self._sockets:
            if socket.failure:
                raise ClientError(socket.failure)
            socket.close()


class Pollers:
    """Readers who ask every second what is new, as one does without subscriptions; spread over the second."""

    def __init__(self, threads: Sequence[Thread]) -> None:
        self.readers = [Reader(thread) for thread in threads]
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self, port: int) -> None:
        """Connect, and begin to ask."""
        for number, reader in enumerate(self.readers):
            connection = await Http.connect(port)
            wait = number / len(self.readers) / POLLS_A_SECOND
            self._tasks.append(asyncio.create_task(self._poll(connection, reader, wait)))

    async def _poll(self, connection: Http, reader: Reader, wait: float) -> None:
        cursor, due = None, time.perf_counter() + wait
        try:
            while True:
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                data = await connection.ask(POLL, id=reader.thread.id, after=cursor)
                page = data["context"]["messages"]
                for message in page["nodes"]:
                    reader.take(message["version"], message["id"])
                cursor = page["pageInfo"]["endCursor"] or cursor
                if len(page["nodes"]) < PAGE:
                    due += 1 / POLLS_A_SECOND
        finally:
            connection.close()

    async def close(self) -> None:
        """Disconnect.

        Raises: ClientError when one had failed before.
        """
        for task in self._tasks:
            if task.done():
                task.result()
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


Followers = Subscribers | Pollers


async def create(port: int, count: int) -> list[Thread]:
    """Make contexts, and give a thread for each."""
    connection = await Http.connect(port)
    query = "mutation { createContext(input: {}) { context { id } } }"
    threads = [Thread((await connection.ask(query))["createContext"]["context"]["id"]) for _ in range(count)]
    connection.close()
    return threads


async def run(
    service: Running,
    threads: Sequence[Thread],
    followers: Followers | None,
    seconds: float,
    *,
    rate: float | None,
    writers: int,
    warm_seconds: float = 2.0,
) -> Run:
    """Write for a while, with those who follow, and see that each of them was told everything once and in order."""
    writing = Writers(threads)
    await writing.open(service.port, writers)
    if followers:
        await followers.open(service.port)
    await writing.write(warm_seconds, rate)
    warm, before, own = sum(len(thread.answered) for thread in threads), service.cpu(), time.process_time()
    writing.latencies.clear()
    start = time.perf_counter()
    await writing.write(seconds, rate)
    end = time.perf_counter()
    readers = followers.readers if followers else []
    late = end + LATE_SECONDS_MAX
    while any(reader.lacks for reader in readers) and time.perf_counter() < late:  # noqa: ASYNC110 - an event costs
        await asyncio.sleep(0.01)
    after, clients = service.cpu(), time.process_time() - own
    latencies = sorted(latency for reader in readers for latency in reader.latencies(start))
    last = max((reader.arrived[-1] for reader in readers if reader.arrived), default=end)
    writing.close()
    if followers:
        await followers.close()
    return Run(
        written=sum(len(thread.answered) for thread in threads) - warm,
        told=len(latencies),
        seconds=end - start,
        behind=max(0.0, last - end),
        service=after[0] - before[0],
        postgres=after[1] - before[1],
        clients=clients,
        append_latencies=sorted(writing.latencies),
        latencies=latencies,
    )
