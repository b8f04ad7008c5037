"""Stands between two programs and cuts their connections: at any byte, in either direction."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

POSTGRES_SOCKET = ".s.PGSQL.5432"
CHUNK_BYTES = 16_384

# Says of each chunk how much of it passes before the connection is cut; None lets all pass and cuts nothing.
Judge = Callable[[bytes], int | None]


def cut_anywhere(chance: float) -> Judge:
    """Cut before, within or after a chunk, as dice have it."""
    dice = random.Random(1)

    def judge(chunk: bytes) -> int | None:
        return dice.choice([0, len(chunk) // 2, len(chunk)]) if dice.random() < chance else None

    return judge


def swallow(mark: bytes, chance: float = 1.0) -> Judge:
    """Swallow a chunk that holds `mark`, and cut."""
    dice = random.Random(1)
    return lambda chunk: 0 if mark in chunk and dice.random() < chance else None


def pass_all(_chunk: bytes) -> None:
    """Cut nothing."""


class Hold:
    """Holds the first chunk that has `mark` in it, and what comes after it on that connection."""

    def __init__(self, mark: bytes) -> None:
        self.mark: bytes | None = mark
        self.held = asyncio.Event()
        self.released = asyncio.Event()

    async def pass_by(self, chunk: bytes) -> None:
        """Wait, if this is what is to be held."""
        if self.mark is not None and self.mark in chunk:
            self.mark = None
            self.held.set()
            await self.released.wait()


class Proxy:
    """Leads every connection to the Unix socket `target`; `judge` says which ones are cut, and `cuts` counts them.

    While `flowing` is not set, nothing gets any further.
    """

    def __init__(self, target: Path) -> None:
        self.judge: Judge = pass_all
        self.cuts = 0
        self.hold: Hold | None = None
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._target = target
        self._serving: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)
        streams = [writer]
        try:
            far_reader, far_writer = await asyncio.open_unix_connection(self._target)
            streams.append(far_writer)
            await asyncio.gather(self._forward(reader, far_writer, streams), self._forward(far_reader, writer, streams))
        except OSError:
            pass
        finally:
            for stream in streams:
                stream.transport.abort()
            for stream in streams:
                with contextlib.suppress(OSError):
                    await stream.wait_closed()

    async def close(self) -> None:
        """Wait until every connection is closed on both sides."""
        self.flowing.set()
        if self.hold is not None:
            self.hold.released.set()
        if self._serving:
            await asyncio.wait(self._serving)

    async def _forward(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, both: list[asyncio.StreamWriter]
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(CHUNK_BYTES):
                await self.flowing.wait()
                if self.hold is not None:
                    await self.hold.pass_by(chunk)
                passing = self.judge(chunk)
                sink.write(chunk[:passing])
                await sink.drain()
                if passing is not None:
                    self.cuts += 1
                    break
        for stream in both:
            stream.close()


@asynccontextmanager
async def before_postgresql(database_url: str, folder: Path) -> AsyncIterator[tuple[Proxy, str]]:
    """Give a proxy to the server of a URL, and the URL through it, over a Unix socket."""
    parts = urlsplit(database_url)
    proxy = Proxy(postgres_socket(database_url))
    server = await asyncio.start_unix_server(proxy.serve, folder / POSTGRES_SOCKET)
    try:
        yield proxy, urlunsplit(parts._replace(query=f"host={quote(str(folder), safe='')}"))
    finally:
        server.close()
        await proxy.close()


@asynccontextmanager
async def over_tcp(target: Path) -> AsyncIterator[tuple[Proxy, int]]:
    """Give a proxy to a Unix socket, and the port of 127.0.0.1 where it listens."""
    proxy = Proxy(target)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    try:
        yield proxy, server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await proxy.close()


def postgres_socket(database_url: str) -> Path:
    """Find the socket that a URL of the embedded server leads to."""
    return Path(parse_qs(urlsplit(database_url).query)["host"][0]) / POSTGRES_SOCKET
