"""What the tests of migrating share: empty databases, folders of migrations, and servers that stand in between."""

import asyncio
import ssl
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from db.migrate import MigrateError, Migration

TABLE = ("20260101000000_notes.sql", "create table notes (id int primary key);", "drop table notes;")
INDEX = (
    "20260101000001_notes_idx.sql",
    "create index concurrently notes_idx on notes (id);",
    "drop index concurrently notes_idx;",
)
NOTES = Migration("20260101000000", "notes", applied=True)
NOTES_INDEX = Migration("20260101000001", "notes_idx", applied=True)
SSL_REQUEST = b"\x04\xd2\x16\x2f"


@contextmanager
def superuser(url: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


def rows(url: str, statement: str) -> list[tuple[object, ...]]:
    with superuser(url) as connection:
        return connection.execute(statement.encode()).fetchall()


def url_for(postgres: str, database: str, user: str | None = None) -> str:
    """Give the URL of another database of the same server, perhaps for another user."""
    with psycopg.connect(postgres) as connection:
        info = connection.info
        name = quote(database, safe="")
        return f"postgresql://{user or info.user}@/{name}?host={quote(info.host, safe='')}&port={info.port}"


@contextmanager
def empty_database(postgres: str, name: str = "") -> Iterator[str]:
    """Make a database, give its URL, and drop it."""
    name = name or f"migrate_{uuid.uuid4().hex}"
    with superuser(postgres) as connection:
        connection.execute(
            sql.SQL("create database {} template template0 strategy file_copy").format(sql.Identifier(name))
        )
        yield url_for(postgres, name)
        connection.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@contextmanager
def plain_user(url: str) -> Iterator[str]:
    """Make a user who may do nothing but what everybody may, and give the name."""
    role = f"plain_{uuid.uuid4().hex}"
    with superuser(url) as connection:
        connection.execute(sql.SQL("create role {} login").format(sql.Identifier(role)))
        yield role
        connection.execute(sql.SQL("drop owned by {}").format(sql.Identifier(role)))
        connection.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))


def fill(folder: Path, *files: tuple[str, str, str]) -> Path:
    """Write migrations, each given as name, up and down, into a folder."""
    for name, up, down in files:
        option = " transaction:false" if "concurrently" in up else ""
        (folder / name).write_text(f"-- migrate:up{option}\n{up}\n\n-- migrate:down{option}\n{down}\n")
    return folder


def message(action: Callable[[], object]) -> str:
    """Give what a refusal says: always one line that ends as a sentence does."""
    with pytest.raises(MigrateError) as raised:
        action()
    text = str(raised.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


class Server:
    """A TCP port on this machine, served by a thread of its own."""

    def __init__(self) -> None:
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        self._server.close()
        await self._server.wait_closed()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait_for(asyncio.gather(*others, return_exceptions=True), 5)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(5)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Relay(Server):
    """A way to the database over TCP; with TLS it takes nobody who does not ask for TLS."""

    def __init__(self, url: str, tls: ssl.SSLContext | None = None) -> None:
        super().__init__()
        self._database, self._tls = url, tls
        with psycopg.connect(url) as connection:
            self._socket = f"{connection.info.host}/.s.PGSQL.{connection.info.port}"

    def url(self, **parameters: str) -> str:
        parts = conninfo_to_dict(self._database)
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())
        return f"postgresql://{parts['user']}@127.0.0.1:{self.port}/{parts['dbname']}?{query}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._tls is not None:
                if (await reader.readexactly(8))[4:] != SSL_REQUEST:
                    return
                writer.write(b"S")
                await writer.start_tls(self._tls)
            far_reader, far_writer = await asyncio.open_unix_connection(self._socket)
            try:
                await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
            finally:
                # Whatever a client did that goes away in the middle of TLS: nothing may outlive the loop.
                far_writer.close()
                with suppress(OSError):
                    await far_writer.wait_closed()
        finally:
            writer.close()

    @staticmethod
    async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, ssl.SSLError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()


class Refusing(Server):
    """A server that answers every start-up packet with one FATAL error."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        fields = f"SFATAL\0C28P01\0M{reason}\0\0".encode()
        self._answer = b"E" + (len(fields) + 4).to_bytes(4, "big") + fields

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A request for encryption has 8 bytes, a start-up packet more.
        while int.from_bytes(await reader.readexactly(4), "big") == len(SSL_REQUEST) + 4:
            await reader.readexactly(4)
            writer.write(b"N")
        writer.write(self._answer)
        await writer.drain()
        writer.close()
