"""The examples do what they say: each is compiled and run as a reader would, and what it prints is compared."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from ast import literal_eval
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest

from tests import program
from tests.db.migrating import empty_database
from tests.node import BIN, EXAMPLES

README = (EXAMPLES / "README.md").read_text(encoding="utf-8")
NODE = str(BIN / "node")
TOOLS = EXAMPLES / "node_modules" / ".bin"
REQUIREMENTS = program.ROOT / "requirements" / "ariadne.txt"
RUN_SECONDS_MAX = 60
WAIT_SECONDS_MAX = 30.0
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class Service:
    """A service that can be ended, and started again on the same port."""

    def __init__(self, folder: Path, database_url: str) -> None:
        self.folder, self.database_url, self.port = folder, database_url, "0"

    @contextmanager
    def running(self, **settings: str) -> Iterator[program.Program]:
        """Serve until the end of the block, which may have ended it before."""
        variables = {"DATABASE_URL": self.database_url, "FORKPOINT_PORT": self.port, **settings}
        with program.serving(self.folder, "--migrate", **variables) as served:
            self.address = served.address()
            self.port = self.address.rpartition(":")[2]
            yield served

    @property
    def environment(self) -> dict[str, str]:
        """What an example is told: where node is, and where the service."""
        path = f"{BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        return {**os.environ, "PATH": path, "FORKPOINT_URL": f"{self.address}/graphql"}

    def run(self, folder: str, *command: str | Path) -> str:
        """Run a command in a folder of the examples; it must succeed, and complain of nothing. Gives its output."""
        done = subprocess.run(
            [str(word) for word in command],
            cwd=EXAMPLES / folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=RUN_SECONDS_MAX,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def database(postgres: str) -> Iterator[str]:
    with empty_database(postgres) as url:
        yield url


@pytest.fixture(scope="module")
def service(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    service = Service(tmp_path_factory.mktemp("examples"), database)
    with service.running() as served:
        yield service
        assert '"level":"error"' not in served.said()


def test_apollo_pages_appends_and_watches_through_one_cache(service: Service) -> None:
    assert service.run("apollo", NODE, "index.js").splitlines() == [
        "name, from the cache: Trip to Lisbon",
        "the first page: 1 2 of 3",
        "and the second: 1 2 3 of 3",
        "and what was appended: 1 2 3 4 of 4",
        "and what came in: 1 2 3 4 5 of 5",
    ]


def test_urql_pages_appends_and_watches_both_ways(service: Service) -> None:
    assert service.run("urql", NODE, "index.js").splitlines() == [
        "name, from the cache: Trip to Lisbon",
        "the first page: 1 2",
        "and the second: 1 2 3",
        "appended: 4",
        "over a WebSocket: 4 By train.",
        "over events: 4 By train.",
    ]


def test_relay_compiles_and_keeps_one_connection(service: Service) -> None:
    compiled = service.run("relay", TOOLS / "relay-compiler", "relay.config.json")
    assert "compiled documents: 6 reader, 5 normalization, 7 operation text" in compiled
    assert service.run("relay", NODE, "index.mjs").splitlines() == [
        "request: TripCreateMutation",
        "request: TripQuery",
        "Trip to Lisbon",
        "1 2 of 3",
        "request: TripMessagesQuery",
        "1 2 3 of 3",
        "request: TripAppendMutation",
        "1 2 3 4 of 4",
        "asked again: Trip to Lisbon",
    ]


# A comment expects the line below it to be an error, and is one itself where that is none.
MISUSE = """
import type { WindowQuery, WindowQueryVariables } from "GENERATED/graphql.ts";
declare const answer: WindowQuery;
// @ts-expect-error: a context may be missing
answer.context.name;
// @ts-expect-error: it was not asked for
answer.context?.metadata;
// @ts-expect-error: a number is wanted
export const variables: WindowQueryVariables = { id: "", budget: "18" };
// @ts-expect-error: nobody speaks so
export const role: NonNullable<WindowQuery["context"]>["window"]["messages"][number]["role"] = "system";
"""


def test_codegen_makes_types_that_typescript_checks_and_node_runs(service: Service, tmp_path: Path) -> None:
    service.run("codegen", TOOLS / "graphql-codegen")
    example = EXAMPLES / "codegen"
    (tmp_path / "misuse.mts").write_text(MISUSE.replace("GENERATED", str(example / "__generated__")))
    config = {
        "extends": str(example / "tsconfig.json"),
        "compilerOptions": {"typeRoots": [str(EXAMPLES / "node_modules" / "@types")]},
        "include": [str(example / "*.ts"), "misuse.mts"],
    }
    (tmp_path / "tsconfig.json").write_text(json.dumps(config))
    assert service.run("codegen", TOOLS / "tsc", "--project", tmp_path) == ""
    assert service.run("codegen", NODE, "index.ts").splitlines() == [
        "Trip to Lisbon 13",
        "SYSTEM: You plan trips.",
        "ASSISTANT: Shall I look for flights or trains?",
    ]


def test_gql_appends_reads_and_watches(service: Service) -> None:
    appended, window, event = service.run("gql", sys.executable, "-W", "error", "main.py").splitlines()
    assert literal_eval(appended) == [{"version": 4, "content": "By train."}]
    assert literal_eval(window) == {
        "tokenCount": 16,
        "messages": [
            {"role": "SYSTEM", "content": "You plan trips."},
            {"role": "ASSISTANT", "content": "Shall I look for flights or trains?"},
            {"role": "USER", "content": "By train."},
        ],
    }
    assert literal_eval(event) == {"version": 4, "message": {"role": "USER", "content": "By train."}}


def test_ariadne_generates_a_client_that_runs(service: Service) -> None:
    # Its graphql-core is another one than ours. What is installed already costs a tenth of a second.
    uv = BIN / "uv"
    service.run("ariadne", uv, "venv", "--quiet", "--allow-existing", "--python", sys.executable)
    service.run("ariadne", uv, "pip", "sync", "--quiet", "--require-hashes", "--python", ".venv", REQUIREMENTS)
    service.run("ariadne", ".venv/bin/ariadne-codegen", "--config", "codegen.toml")
    assert service.run("ariadne", ".venv/bin/python", "main.py").splitlines() == [
        "Trip to Lisbon UTC {} 13",
        "SYSTEM You plan trips.",
        "ASSISTANT Shall I look for flights or trains?",
        "1 You plan trips.",
        "2 Five days in Lisbon, please.",
        "3 Shall I look for flights or trains?",
    ]


CREATE = "mutation { createContext(input: {}) { context { id } } }"
APPEND = """mutation ($id: ID!) {
  appendMessages(input: {
    contextId: $id, messages: [{ role: USER, content: "ping" }, { role: ASSISTANT, content: "pong" }]
  }) { replayed }
}"""
DELETE = "mutation ($id: ID!) { deleteContext(input: { contextId: $id }) { context { id } } }"
TAILS = ([NODE, "graphql-ws/tail.js"], [NODE, "graphql-sse/tail.js"], [sys.executable, "-W", "error", "gql/tail.py"])


def test_tails_lose_nothing_and_repeat_nothing_over_restarts(database: str, tmp_path: Path) -> None:
    service = Service(tmp_path, database)
    with ExitStack() as stack:
        with service.running() as served:
            context_id = program.ask(service.address, CREATE)["createContext"]["context"]["id"]
            tails = [
                stack.enter_context(
                    program.started([*interpreter, str(EXAMPLES / path), context_id], tmp_path, service.environment)
                )
                for *interpreter, path in TAILS
            ]
            append(service, context_id, 2, tails)
            served.process.kill()
        with service.running() as served:
            append(service, context_id, 4, tails)
            assert served.stop(signal.SIGTERM) == 0
        with service.running(FORKPOINT_SUBSCRIPTIONS_MAX="3") as served:
            with ExitStack() as others:
                for _ in range(3):
                    watch(service.address, others)
                # No room is left, and tails are told UNAVAILABLE: each refusal is a line.
                served.wait_for(r'(?s)("/graphql".*){3}', WAIT_SECONDS_MAX)
            append(service, context_id, 6, tails)
            program.ask(service.address, DELETE, id=context_id)
            assert [tail.process.wait(WAIT_SECONDS_MAX) for tail in tails] == [0, 0, 0]
    everything = [f"{version} {'USER ping' if version % 2 else 'ASSISTANT pong'}" for version in range(1, 7)]
    assert [tail.said().splitlines() for tail in tails] == [everything] * len(TAILS)


def watch(address: str, held: ExitStack) -> None:
    """Subscribe, until the stack is closed."""
    body = {"query": "subscription { contextsChanged { kind } }"}
    accept = {"accept": "text/event-stream"}
    stream = held.enter_context(httpx2.stream("POST", f"{address}/graphql", json=body, headers=accept))
    next(stream.iter_raw())


def append(service: Service, context_id: str, version: int, tails: list[program.Program]) -> None:
    """Append two messages, the second of this version, and wait until every tail has printed it."""
    program.ask(service.address, APPEND, id=context_id)
    for tail in tails:
        tail.wait_for(f"^{version} ", WAIT_SECONDS_MAX)


def test_each_curl_command_is_answered(service: Service) -> None:
    commands = [shlex.split(line) for line in README.splitlines() if line.startswith("curl ")]
    create, read, tail = ([UUID.sub("CONTEXT_ID", word) for word in words] for words in commands)
    context_id = json.loads(curl(service, create))["data"]["createContext"]["context"]["id"]
    message = {"version": 1, "role": "USER", "content": "Five days in Lisbon, please."}
    answer = curl(service, [word.replace("CONTEXT_ID", context_id) for word in read])
    assert json.loads(answer) == {"data": {"context": {"messages": {"nodes": [message]}}}}
    events = curl(service, [word.replace("CONTEXT_ID", context_id) for word in tail])
    said = {"data": {"messageAppended": {"version": message.pop("version"), "message": message}}}
    assert events == f"event: next\ndata: {json.dumps(said, separators=(',', ':'))}"


def curl(service: Service, words: list[str]) -> str:
    """Send what a command says, since a machine may have no curl; gives the answer, or the first event of a stream."""
    url = next(word for word in words if word.startswith("http://127.0.0.1:8000/"))
    headers = [words[place + 1].split(": ", 1) for place, word in enumerate(words) if word == "-H"]
    content = words[words.index("-d") + 1]
    path = httpx2.URL(url).path
    with httpx2.stream("POST", f"{service.address}{path}", headers=dict(headers), content=content) as response:
        assert response.status_code == 200
        if "-N" not in words:
            return response.read().decode()
        received = ""
        for text in response.iter_text():
            received += text
            blocks = [block for block in received.split("\n\n")[:-1] if not block.startswith(":")]
            if blocks:
                return blocks[0]
    raise AssertionError(received)


def test_the_readme_lists_every_example() -> None:
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()} - {"node_modules"}
    linked = re.findall(r"\]\(([\w-]+/[\w.]+)\)", README)
    assert {name.partition("/")[0] for name in linked} == folders
    assert all((EXAMPLES / name).is_file() for name in linked)
