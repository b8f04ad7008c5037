"""No secret and no content in what is logged, printed, answered to strangers, or told to whoever lists processes.

Everything that takes a secret gets one that is known again; then all that can go wrong does, and all that was said is
searched.
"""

import json
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import httpx2
import psycopg
import pytest
from pydantic import SecretStr, ValidationError
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from graphql_api.settings import Settings, variable
from graphql_api.websocket import PROTOCOL
from tests.db.migrating import Refusing, empty_database
from tests.program import PROGRAM, Program, environment, folder_for_all, run, serving, started

# What a secret begins with, wherever it is put; what follows says where it was. Nothing else here contains this.
CANARY = "hunter2"
PASSWORD = f"{CANARY}-password"
CONTENT = f"{CANARY}-content"
TOKEN = f"{CANARY}-token"
SECONDS_MAX = 60.0

CREATE = "mutation ($name: String!) { createContext(input: { name: $name }) { context { id } } }"
APPEND = """
mutation ($id: ID!, $content: String!) {
  appendMessages(input: { contextId: $id, messages: [{ role: USER, content: $content }] }) { messages { id } }
}
"""
WATCH = "subscription ($id: ID!) { messageAppended(contextId: $id) { message { content } } }"


def with_password(url: str, password: str = PASSWORD) -> str:
    """Give a URL of a server that lets everybody in with a password in its query string, where they may stand, too."""
    return f"{url}{'&' if '?' in url else '?'}password={password}"


def check(text: str) -> None:
    """Look for a secret, and name the one that was found by the line it is in."""
    assert [line for line in text.splitlines() if CANARY in line.lower()] == []


class Lister:
    """Lists the arguments of all processes of a session, over and over, as any user of the machine can."""

    def __init__(self) -> None:
        self._sessions: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)
        self.seen: set[str] = set()

    def watch(self, program: Program) -> None:
        self._sessions.add(str(program.process.pid))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        check("\n".join(self.seen))

    def _look(self) -> None:
        while not self._ended.wait(0.01):
            for folder in Path("/proc").iterdir():
                if folder.name.isdecimal():
                    self._note(folder)

    def _note(self, folder: Path) -> None:
        try:
            session = (folder / "stat").read_text().rpartition(")")[2].split()[3]
            if session in self._sessions:
                self.seen.add((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except (OSError, UnicodeError):
            return  # it has ended


def faults(refusing: Refusing) -> dict[str, dict[str, str]]:
    """Give settings with which nothing works."""
    nowhere = f"postgresql://u:{PASSWORD}@127.0.0.1:1/x"
    return {
        "unreachable": {"DATABASE_URL": nowhere, "FORKPOINT_MIGRATE_URL": with_password(nowhere, f"{CANARY}-migrate")},
        "let nobody in": {"DATABASE_URL": f"postgresql://u:{PASSWORD}@127.0.0.1:{refusing.port}/x"},
        "no url": {"DATABASE_URL": PASSWORD, "FORKPOINT_MIGRATE_URL": f"{CANARY}-migrate"},
        "half a url": {"DATABASE_URL": f"postgresql://u:{PASSWORD}@["},
        "two at signs": {"DATABASE_URL": f"postgresql://u:a@{PASSWORD}@127.0.0.1:1/x"},
        "no parameter": {"DATABASE_URL": f"postgresql://127.0.0.1:1/x?{PASSWORD}=1"},
        "wrong settings": {"DATABASE_URL": nowhere}
        | {variable(name): f"{CANARY}-{name}" for name in Settings.model_fields if not name.endswith("_url")},
    }


def commands(folder: Path) -> dict[str, list[str]]:
    """Give every command that asks a database."""
    document = folder / "document.graphql"
    document.write_text("{ contexts { totalCount } }")  # what it says is what is shown
    lines = folder / "lines.jsonl"
    lines.write_text(json.dumps({"messages": [{"role": "user", "content": CONTENT}]}) + "\n" + CONTENT)
    return {
        "serve": ["serve"],
        "serve --migrate": ["serve", "--migrate"],
        "serve --workers": ["serve", "--workers", "2"],
        "migrate": ["migrate", "up"],
        "status": ["migrate", "status"],
        "doctor": ["doctor"],
        "doctor --json": ["doctor", "--json"],
        "demo": ["demo"],
        "export": ["export", "0199a3c5-0000-7000-8000-000000000000"],
        "import": ["import", str(lines)],
        "keys": ["keys", "create", "--tenant", "acme", "--name", CONTENT, "--scopes", "read"],
        "keys list": ["keys", "list"],
        "explain": ["explain", str(document)],
    }


def test_no_command_that_cannot_work_tells_a_secret(tmp_path: Path) -> None:
    with Refusing('password authentication failed for user "u"') as refusing, ThreadPoolExecutor(3) as pool:
        runs = {
            (name, fault): pool.submit(run, tmp_path, *arguments, **{"FORKPOINT_LOG_LEVEL": "debug"} | variables)
            for name, arguments in commands(tmp_path).items()
            for fault, variables in faults(refusing).items()
            if fault == "unreachable" or name in {"serve", "doctor --json"}
        }
        for asked, running in runs.items():
            done = running.result()
            assert done.returncode == 1, (asked, done)
            assert "Traceback" not in done.stderr, (asked, done)
            check(done.stdout + done.stderr)


def test_no_import_that_is_refused_tells_what_is_in_it(tmp_path: Path, database_url: str) -> None:
    lines = commands(tmp_path)["import"][1]
    for chosen in ("auto", "forkpoint"):
        done = run(tmp_path, "import", "--format", chosen, lines, DATABASE_URL=with_password(database_url))
        assert done.returncode == 1
        check(done.stdout + done.stderr)


def test_settings_show_no_secret_however_they_are_shown() -> None:
    secrets = {name: SecretStr(f"{CANARY}-{name}") for name in Settings.model_fields if is_secret(name)}
    settings = Settings(_env_file=None, **secrets)  # type: ignore[arg-type] # by name
    for shown in (repr(settings), str(settings), settings.model_dump_json(), f"{settings.model_dump()}"):
        check(shown)
    with pytest.raises(ValidationError) as refused:
        Settings(_env_file=None, port=f"{CANARY}", **secrets)  # type: ignore[arg-type] # what is refused
    assert all(secret.get_secret_value() not in str(refused.value) for secret in secrets.values())


def is_secret(name: str) -> bool:
    return "SecretStr" in str(Settings.model_fields[name].annotation)


def test_whatever_holds_a_secret_is_a_secret() -> None:
    telling = ("url", "key", "password", "secret", "token")
    named = {name for name in Settings.model_fields if name.rpartition("_")[2] in telling}
    assert {name for name in named if not is_secret(name)} <= {"jwt_keys_url"}


@dataclass
class Served:
    """A service, its database, and a key that opens it."""

    program: Program
    url: str
    address: str
    key: str

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}", "cookie": f"session={TOKEN}"}

    def ask(self, document: str, headers: Mapping[str, str] = {}, **variables: Any) -> dict[str, Any]:
        """Send one operation, with secrets beside it."""
        call = {"query": document, "variables": variables}
        headers = self.headers | dict(headers)
        answer: dict[str, Any] = httpx2.post(
            f"{self.address}/graphql", json=call, headers=headers, timeout=SECONDS_MAX
        ).json()
        return answer


@contextmanager
def served(postgres: str, *arguments: str) -> Iterator[Served]:
    """Serve at the lowest level of the log, with every secret that there is."""
    with ExitStack() as stack:
        url = stack.enter_context(empty_database(postgres))
        folder = stack.enter_context(folder_for_all())
        lister = stack.enter_context(Lister())
        variables = {
            "DATABASE_URL": with_password(url),
            "FORKPOINT_MIGRATE_URL": with_password(url, f"{CANARY}-migrate"),
            "FORKPOINT_LOG_LEVEL": "debug",
            "FORKPOINT_LOG_FORMAT": "json",
            "FORKPOINT_AUTHENTICATION": "keys,jwt",
            "FORKPOINT_ROW_SECURITY": "off",  # the role may do everything, so as to break what it likes
            "FORKPOINT_JWT_KEY": f"{CANARY}-jwt-key-of-more-than-32-bytes",
            "FORKPOINT_JWT_ALGORITHMS": "HS256",
            "FORKPOINT_JWT_ISSUER": "https://login.example.org",
            "FORKPOINT_JWT_AUDIENCE": "forkpoint",
        }
        program = stack.enter_context(serving(folder, "--migrate", *arguments, **variables))
        lister.watch(program)
        address = program.address()
        made = run(folder, "keys", "create", "--tenant", "acme", "--name", "one", "--scopes", "write", **variables)
        key = made.stdout.strip()
        assert made.returncode == 0, made
        listed = run(folder, "keys", "list", "--tenant", "acme", **variables)
        refused = run(folder, "keys", "revoke", key, "--tenant", "acme", **variables)  # its id is asked for
        yield Served(program, url, address, key)
        program.stop(15)
        secret = key.rpartition(".")[2]
        said = f"{made.stderr}{listed.stdout}{listed.stderr}{refused.stdout}{refused.stderr}{program.said()}"
        check(said.replace(secret, CANARY))


BAD_HEADERS = [
    {"authorization": f"Basic {TOKEN}"},
    {"authorization": TOKEN},
    {"authorization": f"Bearer {TOKEN} {TOKEN}"},
    {"authorization": f"Bearer fpk_ZGVmYXVsdA.AAAAAAAAAAAAAAAAAAAAAA.{TOKEN}"},
    {"authorization": f"Bearer eyJhbGciOiJub25lIn0.{TOKEN}.{TOKEN}"},
    {"host": f"{CANARY}.example"},
    {"origin": f"http://{CANARY}.example"},
    {"accept": f"text/{CANARY}"},
    {"content-type": f"text/{CANARY}"},
    {"content-encoding": CANARY},
    {"x-request-id": f"{CANARY} with a space"},
    {"referer": f"http://localhost/?{CANARY}"},
]


def misuse(service: Served) -> None:
    """Send what is wrong in every way that has a word of its own, with a secret in it."""
    address, url = service.address, f"{service.address}/graphql"
    for bad in BAD_HEADERS:
        service.ask("{ __typename }", bad)
    for body in (CONTENT, f'{{"query": "{CONTENT}"', f'["{CONTENT}"]', f'{{"query": "{{ {CANARY} }}"}}'):
        httpx2.post(url, content=body, headers=service.headers | {"content-type": "application/json"})
    document = "query ($n: Int!) { contexts(first: $n) { totalCount } }"
    for parameters in (
        {"query": f'{{ __type(name: "{CONTENT}") {{ name }} }}'},
        {"query": "{ __typename }", "token": TOKEN, "variables": f'{{"x": "{CONTENT}"}}'},
        {"query": document, "variables": f'{{"n": "{CONTENT}"}}'},
        {"query": CONTENT, "variables": CONTENT, "extensions": CONTENT},
        {"documentId": CONTENT},
    ):
        httpx2.get(url, params=parameters, headers=service.headers)
    httpx2.get(f"{address}/?{CONTENT}")
    httpx2.get(f"{address}/nothing?{CONTENT}")
    service.ask("query ($id: ID!) { context(id: $id) { id } }", id=CONTENT)


def misuse_sockets(service: Served) -> None:
    """Do the same on WebSockets."""
    url = f"ws{service.address.removeprefix('http')}/graphql?token={TOKEN}"
    bearers = (service.key, TOKEN, f"{service.key[:-1]}!", f"fpk_{TOKEN}", f"a.{TOKEN}.b")
    good, *bad = (hello({"authorization": f"Bearer {bearer}", "x": TOKEN}) for bearer in bearers)
    tenant = hello({"authorization": f"Bearer {service.key}", "forkpoint-tenant": TOKEN})
    asked = json.dumps({"type": "subscribe", "id": "1", "payload": {"query": f"{{ {CANARY} }}"}})
    wrong = f'{{"type": "{CONTENT}"}}'
    for frames in (
        [good, asked],
        [CONTENT],
        [good, CONTENT],
        [good, good],
        [asked],
        [wrong],
        [tenant],
        *([b] for b in bad),
    ):
        with (
            suppress(WebSocketException),
            connect(url, subprotocols=[Subprotocol(PROTOCOL)], compression=None) as socket,
        ):
            for frame in frames:
                socket.send(frame)
            socket.send(json.dumps({"type": CONTENT}))  # ends it in any case
            for _ in socket:
                pass
    with suppress(WebSocketException), connect(url, additional_headers={"authorization": f"Bearer {TOKEN}"}):
        pass


def hello(payload: dict[str, str]) -> str:
    return json.dumps({"type": "connection_init", "payload": payload})


def test_a_service_tells_no_secret_and_no_content_whatever_is_done_to_it(postgres: str) -> None:
    with served(postgres) as service:
        made = service.ask(CREATE, name=CONTENT)["data"]["createContext"]["context"]["id"]
        service.ask(APPEND, id=made, content=CONTENT)
        misuse(service)
        misuse_sockets(service)
        with psycopg.connect(service.url, autocommit=True) as connection:
            # What PostgreSQL says of these quotes the row, or the value.
            connection.execute("alter table messages add constraint no check (content not like 'hunter2%') not valid")
            connection.execute("create unique index twice on contexts (name)")
        answers = [service.ask(APPEND, id=made, content=CONTENT), service.ask(CREATE, name=CONTENT)]
        codes = [answer["errors"][0]["extensions"]["code"] for answer in answers]
        assert codes == ["INTERNAL_SERVER_ERROR", "INTERNAL_SERVER_ERROR"]
        with psycopg.connect(service.url, autocommit=True) as connection:
            connection.execute("alter table messages rename to gone")
        answers.append(service.ask(APPEND, id=made, content=CONTENT))
        with psycopg.connect(postgres, autocommit=True) as connection:
            name = psycopg.conninfo.conninfo_to_dict(service.url)["dbname"]
            connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", [name])
        answers.append(service.ask(APPEND, id=made, content=CONTENT))
        check(json.dumps(answers))
        service.program.wait_for("unforeseen error")
        service.program.wait_for("credential refused")


def test_workers_tell_no_secret_either(postgres: str) -> None:
    with served(postgres, "--workers", "2") as service:
        misuse(service)


def test_dbmate_is_told_the_password_where_nobody_else_looks(postgres: str) -> None:
    with (
        empty_database(postgres) as url,
        psycopg.connect(url) as blocking,
        folder_for_all() as folder,
        Lister() as lister,
    ):
        blocking.execute("create table contexts ()")  # dbmate waits until this is undone
        variables = environment(DATABASE_URL=with_password(url))
        with started([*PROGRAM, "migrate", "up"], folder, variables) as program:
            lister.watch(program)
            waiting = threading.Event()
            while not any("dbmate" in arguments.partition(" ")[0] for arguments in lister.seen):
                assert program.process.poll() is None, program.said()
                waiting.wait(0.01)
            blocking.rollback()
            assert program.process.wait(SECONDS_MAX) == 0
            check(program.said())
