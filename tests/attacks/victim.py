"""What is attacked: `forkpoint serve` as a process of its own, and what holds of everything that it answers."""

import contextlib
import json
import os
import re
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2
import psycopg
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from graphql_api.websocket import PROTOCOL
from schema.errors import Code
from tests.program import Program

# What takes longer has failed.
SECONDS_MAX = 60.0
# Of a processor, for one request: what is counted is the work, not the time that other processes take meanwhile.
WORK_SECONDS_MAX = 4.0
# What no caller may read, whatever went wrong.
LEAKS = re.compile(
    r"Traceback|site-packages|\.py\b|psycopg|SQLSTATE|pg_catalog|relation \\?\"|syntax error at or near"
    r"|invalid input syntax|tenant_id|asyncpg|statement_timeout|Errno|/graphql_api/|graphql-core",
    re.IGNORECASE,
)
JSON = "application/json"


@dataclass
class Answer:
    """An answer over HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def data(self) -> Any:
        """Give the data of an answer without errors."""
        content = self.json
        assert "errors" not in content, content
        return content["data"]

    @property
    def code(self) -> str:
        """Check what holds of every refusal; give the code of the first error."""
        assert self.status < 500 or self.status == 503, (self.status, self.body[:1_000])
        return codes(self.json)[0]


def codes(content: Any) -> list[str]:
    """Check the errors of an answer; give their codes."""
    assert set(content) <= {"errors", "data"}, content
    assert content["errors"], content
    found = []
    for error in content["errors"]:
        assert set(error) <= {"message", "extensions", "locations", "path"}, error
        assert error["message"]
        found.append(Code(error["extensions"]["code"]).value)
        assert found[-1] != Code.INTERNAL_SERVER_ERROR, error
    return found


def check_leaks(text: str, sent: str = "") -> None:
    """Check that an answer says nothing of our insides that was not sent to us."""
    assert [found for found in LEAKS.findall(text) if found not in sent] == [], text[:2_000]


@dataclass
class Victim:
    """The process, how to reach it, and what it costs."""

    program: Program
    address: str
    database_url: str
    headers: dict[str, str] = field(repr=False)
    """The credentials of who attacks, which are good ones: all that needs none is refused before."""
    honest: dict[str, str] = field(repr=False)
    """Those of another tenant, who is honest."""

    def __post_init__(self) -> None:
        self.pid: int = self.program.process.pid
        self.port: int = urlsplit(self.address).port or 80
        self.client = httpx2.Client(base_url=self.address, headers=self.headers, timeout=SECONDS_MAX)

    def send(self, body: Any, method: str = "POST", path: str = "/graphql", **headers: str) -> Answer:
        """Send bytes, or something as JSON, and check that the answer took bounded work and leaks nothing."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {"content-type": JSON} | {name.replace("_", "-"): value for name, value in headers.items()}
        with self.working():
            response = self.client.request(method, path, content=content, headers=named)
        check_leaks(response.text, content.decode(errors="replace"))
        return Answer(response.status_code, dict(response.headers), response.content)

    def ask(self, query: str, **variables: Any) -> Answer:
        """Send an operation."""
        return self.send({"query": query, "variables": variables} if variables else {"query": query})

    def refuse(self, body: Any, **headers: str) -> str:
        """Send what must be refused, and give the code."""
        return (self.ask(body) if isinstance(body, str) else self.send(body, **headers)).code

    @contextlib.contextmanager
    def working(self, seconds: float = WORK_SECONDS_MAX) -> Iterator[None]:
        """Check how much work the process does meanwhile."""
        before = self.work_seconds()
        yield
        worked = self.work_seconds() - before
        assert worked < seconds, f"{worked} seconds of work"

    def work_seconds(self) -> float:
        """Give the processor time that the process took so far."""
        parts = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self, name: str = "VmRSS") -> int:
        """Give the memory of the process in bytes; by the name of VmHWM the most since `forget_peak`."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="utf-8")
        found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
        assert found
        return int(found[1]) * 1024

    def forget_peak(self) -> None:
        """Begin to measure the most memory anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5", encoding="utf-8")

    def descriptors(self) -> int:
        """Count its open files and sockets."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def raw(self) -> "Raw":
        """Connect without any protocol."""
        return Raw(socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS_MAX))

    @contextlib.contextmanager
    def websocket(self, *, init: bool = True, **options: Any) -> Iterator["Socket"]:
        """Connect a WebSocket, with good credentials."""
        options = {
            "subprotocols": [PROTOCOL],
            "compression": None,
            "max_size": None,
            "additional_headers": self.headers,
            "open_timeout": SECONDS_MAX,
            "close_timeout": 1,
            "proxy": None,
        } | options
        with connect(f"ws://127.0.0.1:{self.port}/graphql", **options) as connection:
            opened = Socket(connection)
            if init:
                opened.send({"type": "connection_init"})
                assert opened.receive() == {"type": "connection_ack"}
            yield opened

    def sql(self, statement: Any, *values: Any) -> list[tuple[Any, ...]]:
        """Look into the database, past the service."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            return connection.execute(statement, values).fetchall()

    def rows(self, besides: str) -> list[tuple[Any, ...]]:
        """Count everything that is stored besides one context."""
        return self.sql(
            """
            select
              (select count(*) from contexts where id <> %s),
              (select count(*) from messages where context_id <> %s),
              (select count(*) from idempotency_keys)
            """,
            besides,
            besides,
        )

    def half_written(self) -> list[tuple[Any, ...]]:
        """Find contexts whose counters do not tell what is stored."""
        return self.sql(
            """
            select c.id, c.latest_version, c.fork_version, m.count, m.last
            from contexts c
            left join lateral (
              select count(*), max(version) as last, min(version) as first
              from messages m
              where m.tenant_id = c.tenant_id
                and m.context_id = c.id
            ) m on true
            where c.latest_version <> coalesce(c.fork_version, 0) + m.count
              or m.last <> c.latest_version
              or m.first <> coalesce(c.fork_version, 0) + 1
            """
        )


class Raw:
    """A connection of bytes."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.socket.close()

    def send(self, *pieces: bytes) -> None:
        """Send; what the other side no longer takes is lost."""
        for piece in pieces:
            with contextlib.suppress(OSError):
                self.socket.sendall(piece)

    def end(self) -> None:
        """Say that nothing more is sent."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def everything(self) -> bytes:
        """Read until the other side closes."""
        received = bytearray()
        with contextlib.suppress(ConnectionError):
            while part := self.socket.recv(65_536):
                received += part
        check_leaks(received.decode(errors="replace"))
        return bytes(received)

    def answer(self) -> Answer:
        """Read one answer."""
        received = bytearray()
        while b"\r\n\r\n" not in received:
            part = self.socket.recv(65_536)
            assert part, bytes(received)
            received += part
        head, _, body = bytes(received).partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            body += self.socket.recv(65_536)
        check_leaks(body.decode(errors="replace"))
        return Answer(int(first.split()[1]), headers, body)

    def is_open(self) -> bool:
        """Tell whether the other side has not closed; for connections that nothing is sent to."""
        self.socket.setblocking(False)
        try:
            return self.socket.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            self.socket.settimeout(SECONDS_MAX)


class Socket:
    """A client that speaks GraphQL over WebSocket frame by frame."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    def send(self, frame: Any) -> None:
        self.connection.send(frame if isinstance(frame, str | bytes) else json.dumps(frame))

    def receive(self) -> Any:
        text = self.connection.recv(SECONDS_MAX)
        assert isinstance(text, str)
        check_leaks(text)
        return json.loads(text)

    def subscribe(self, query: str, operation_id: str = "1", **payload: Any) -> None:
        self.send({"id": operation_id, "type": "subscribe", "payload": {"query": query, **payload}})

    def code(self) -> str:
        """Receive an error, and give its code."""
        message = self.receive()
        assert message["type"] == "error", message
        return codes({"errors": message["payload"]})[0]

    def closed(self) -> tuple[int | None, str | None]:
        """Wait until the server has closed; gives its code and reason."""
        with contextlib.suppress(ConnectionClosed):
            while True:
                self.connection.recv(SECONDS_MAX)
        return self.connection.close_code, self.connection.close_reason


class Honest:
    """A caller who goes on asking while others attack: reads, writes, and wants right answers."""

    def __init__(self, victim: Victim) -> None:
        self.victim = victim
        self.version = 0
        self.answers = 0
        self.failures: list[Any] = []
        self._done = threading.Event()
        self._client = httpx2.Client(base_url=victim.address, headers=victim.honest, timeout=SECONDS_MAX)
        self.id = ""
        made = self._ask('mutation { createContext(input: {name: "honest"}) { context { id } } }')
        self.id = made["createContext"]["context"]["id"]

    def close(self) -> None:
        """Leave."""
        self._client.close()

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """Ask meanwhile, and once more afterwards."""
        self._done.clear()
        self.answers, self.failures = 0, []
        thread = threading.Thread(target=self._go_on)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()
        self.look()
        assert self.failures == []
        assert self.answers > 1

    def look(self) -> None:
        """Ask, and check what comes."""
        self._append()
        self._read()
        health = self._client.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "healthy"), health.text

    def _go_on(self) -> None:
        asks = self._append, self._read, partial(self._done.wait, 0.05)
        try:
            while not self._done.is_set():
                for ask in asks:
                    ask()
        except Exception as error:  # noqa: BLE001 - told by the test's thread
            self.failures.append(repr(error))

    def _append(self) -> None:
        self.version += 1
        query = """mutation ($id: ID!, $content: String!) {
          appendMessages(input: {contextId: $id, messages: [{role: USER, content: $content}]}) {
            messages { version content }
          }
        }"""
        data = self._ask(query, content=f"message {self.version}")
        expected = [{"version": self.version, "content": f"message {self.version}"}]
        assert data == {"appendMessages": {"messages": expected}}, data

    def _read(self) -> None:
        query = "query ($id: ID!) { context(id: $id) { name messages(last: 1) { nodes { version content } } } }"
        nodes = [{"version": self.version, "content": f"message {self.version}"}] if self.version else []
        assert self._ask(query) == {"context": {"name": "honest", "messages": {"nodes": nodes}}}

    def _ask(self, query: str, **variables: Any) -> Any:
        body = {"query": query, "variables": {"id": self.id, **variables}}
        content = self._client.post("/graphql", json=body).json()
        assert "errors" not in content, content
        self.answers += 1
        return content["data"]
