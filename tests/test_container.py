"""What the image and compose.yaml promise, as far as a machine without a container engine can tell.

The commands of the build stage run in `tests/test_wheel.py`; here its files are looked at, and what the image runs and
probes is run and probed. Several instances that share one database are several such processes.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import httpx2
import psycopg
import pytest
from psycopg import sql

from db import embedded
from tests.conftest import with_database
from tests.program import folder_for_all, run

ROOT = Path(__file__).parents[1]
CHECKOUT = (sys.executable, "-m", "graphql_api")  # `forkpoint` as it lies here
START_SECONDS_MAX = 60.0
READY = re.compile(r"Health\s+(http://\S+)/health")


@dataclass(frozen=True)
class Step:
    """One instruction of a Dockerfile, its continued lines joined."""

    instruction: str
    text: str

    @property
    def sources(self) -> list[str]:
        """What a COPY copies from the build context."""
        return [] if self.text.startswith("--from=") else self.text.split()[:-1]

    def words(self) -> list[str]:
        """Read the JSON array of a command, whatever stands before it."""
        words: list[str] = json.loads(self.text[self.text.index("[") :])
        return words


def stages() -> list[list[Step]]:
    """Read the Dockerfile, a list for each stage; what stands before the first one is left out."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", "")
    found: list[list[Step]] = []
    for line in filter(None, text.splitlines()):
        step = Step(*line.split(maxsplit=1))
        if step.instruction == "FROM":
            found.append([])
        if found:
            found[-1].append(step)
    return found


BUILD, RUNTIME = stages()


def only(instruction: str) -> Step:
    """Give the one step of that kind in the stage that runs."""
    (step,) = [step for step in RUNTIME if step.instruction == instruction]
    return step


def image_environment() -> dict[str, str]:
    """Read what the image sets, but where it finds programs and certificates."""
    found = dict(re.findall(r"(\w+)=(\S+)", only("ENV").text))
    return {name: value for name, value in found.items() if name not in {"PATH", "SSL_CERT_FILE"}}


def ignored(path: str) -> bool:
    """Tell whether .dockerignore keeps a path out of the build context: the last pattern that fits it decides."""
    place, verdict = PurePosixPath(path), False
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = re.escape(line.lstrip("!")).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
        if not line.startswith("#") and any(re.fullmatch(pattern, str(part)) for part in (place, *place.parents)):
            verdict = not line.startswith("!")
    return verdict


def clean_environment(**more: str) -> dict[str, str]:
    """Give the caller's environment without what speaks to Forkpoint or to Python of another checkout."""
    ours = {"DATABASE_URL", "PYTHONPATH"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FORKPOINT_") and name not in ours}
    return kept | more


class Instance:
    """A `forkpoint serve` that has said that it is ready."""

    def __init__(self, address: str, process: subprocess.Popen[str]) -> None:
        self.address = address
        self.process = process

    def ask(self, document: str, **variables: Any) -> dict[str, Any]:
        """Give the data of an answer without errors."""
        call = {"query": document, "variables": variables}
        body = httpx2.post(f"{self.address}/graphql", json=call, timeout=60).json()
        assert "errors" not in body, body
        data: dict[str, Any] = body["data"]
        return data

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Ask it to stop, and give its exit code."""
        self.process.send_signal(number)
        assert self.process.stdout is not None
        self.process.stdout.read()
        return self.process.wait(START_SECONDS_MAX)


@contextmanager
def serving(
    folder: Path,
    environment: Mapping[str, str],
    program: Sequence[str] = CHECKOUT,
    arguments: Sequence[str] = ("serve",),
) -> Iterator[Instance]:
    """Run `forkpoint serve` on a free port, from a folder with no checkout in it, and stop it at the end."""
    variables = clean_environment(FORKPOINT_LOG_LEVEL="warning", **environment) | {"FORKPOINT_PORT": "0"}
    with subprocess.Popen(
        [*program, *arguments],
        cwd=folder,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        too_late = threading.Timer(START_SECONDS_MAX, process.kill)
        too_late.start()
        try:
            assert process.stdout is not None
            said = ""
            while not (ready := READY.search(said)):
                line = process.stdout.readline()
                assert line, said
                said += line
            too_late.cancel()
            instance = Instance(ready[1], process)
            yield instance
            if process.poll() is None:
                assert instance.stop() == 0
        finally:
            too_late.cancel()
            process.kill()


CREATE = """
    mutation ($name: String!) {
      createContext(input: {name: $name, messages: [{role: USER, content: "What forks?"}]}) { context { id } }
    }
"""
APPEND = """
    mutation ($id: ID!, $content: String!) {
      appendMessages(input: {contextId: $id, messages: [{role: ASSISTANT, content: $content}]}) {
        messages { version }
      }
    }
"""
FORK = "mutation ($id: ID!) { forkContext(input: {contextId: $id}) { context { id } } }"
READ = "query ($id: ID!) { context(id: $id) { latestVersion messages(last: 3) { nodes { version content } } } }"


def forbid_connections(postgres: str, url: str) -> None:
    """Take a database away from whoever is connected to it."""
    name = urlsplit(url).path.removeprefix("/")
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(sql.SQL("alter database {} with allow_connections false").format(sql.Identifier(name)))
        connection.execute("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (name,))


def test_the_context_holds_what_is_copied_and_nothing_else() -> None:
    copied = [source for step in BUILD if step.instruction == "COPY" for source in step.sources]
    assert [source for source in copied if not (ROOT / source).exists() or ignored(source)] == []
    assert not any(ignored(path) for path in ("db/queries/context.sql", "schema/ranks/LICENSE"))
    tops = {source.partition("/")[0] for source in copied}
    assert [path.name for path in ROOT.iterdir() if not ignored(path.name) and path.name not in tops] == []
    never = (".env", ".forkpoint/data/base", ".git/HEAD", ".venv/bin/python", "dist/a.whl", "db/__pycache__/pool.pyc")
    assert [path for path in never if not ignored(path)] == []


def test_the_image_has_no_root_no_build_tools_and_no_default_database() -> None:
    assert [step.instruction for step in RUNTIME if step.instruction in {"RUN", "ADD", "SHELL", "VOLUME"}] == []
    assert RUNTIME[0].text == "scratch"
    assert [step.text for step in RUNTIME if step.instruction == "COPY"] == ["--from=build /opt/forkpoint/root/ /"]
    assert {step.text for stage in (BUILD, RUNTIME) for step in stage if step.instruction == "WORKDIR"} == {
        "/opt/forkpoint"
    }
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", only("USER").text)
    assert image_environment() == {"FORKPOINT_HOST": "0.0.0.0", "FORKPOINT_PORT": "8000"}  # noqa: S104
    assert only("EXPOSE").text == "8000"


def test_the_image_serves_is_probed_and_stops(postgres: str, database_url: str, tmp_path: Path) -> None:
    entry, *arguments = only("ENTRYPOINT").words() + only("CMD").words()
    assert entry == "forkpoint"
    command = only("HEALTHCHECK").words()

    def probe(address: str) -> int:
        folders = f"{Path(sys.executable).parent}{os.pathsep}{os.defpath}"
        environment = clean_environment(
            PATH=folders, FORKPOINT_PORT=address.rpartition(":")[2], http_proxy="http://proxy.invalid:1"
        )
        return subprocess.run(command, env=environment, stderr=subprocess.DEVNULL, check=False, timeout=30).returncode

    variables = image_environment() | {"DATABASE_URL": database_url, "FORKPOINT_ALLOW_UNAUTHENTICATED": "true"}
    with serving(tmp_path, variables, arguments=arguments) as instance:
        assert probe(instance.address) == 0
        forbid_connections(postgres, database_url)
        assert httpx2.get(f"{instance.address}/health").status_code == 503
        assert probe(instance.address) == 1
        assert instance.stop(signal.SIGTERM) == 0  # as container engines stop
    assert probe(instance.address) == 1


def test_instances_that_share_a_database_read_each_others_writes_at_once(database_url: str, tmp_path: Path) -> None:
    variables = {"DATABASE_URL": database_url}
    with serving(tmp_path, variables) as one, serving(tmp_path, variables) as other:
        context = one.ask(CREATE, name="shared")["createContext"]["context"]["id"]
        for version, (writer, reader) in enumerate([(one, other), (other, one)] * 10, start=2):
            content = f"said at {version}"
            written = writer.ask(APPEND, id=context, content=content)["appendMessages"]["messages"]
            assert written == [{"version": version}]
            read = reader.ask(READ, id=context)["context"]
            assert (read["latestVersion"], read["messages"]["nodes"][-1]["content"]) == (version, content)
        fork = other.ask(FORK, id=context)["forkContext"]["context"]["id"]
        assert one.ask(READ, id=fork) == other.ask(READ, id=context)
        assert one.stop() == 0
        assert other.ask(READ, id=fork)["context"]["latestVersion"] == 21


def outline(text: str) -> dict[str, str]:
    """Read the keys and values of plain YAML by their indentation: `services.migrate.command`. Anchors stay text."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for indent, key, value in re.findall(r"^( *)([\w<-]+):[ \t]*(.*?)(?: #.*)?$", text, re.MULTILINE):
        path = [*((depth, name) for depth, name in path if depth < len(indent)), (len(indent), key)]
        found[".".join(name for _, name in path)] = value
    return found


def test_compose_starts_the_database_then_migrates_then_serves() -> None:
    compose = outline((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    assert compose["services.database.image"] == "pgvector/pgvector:pg18"
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    assert "- database:/var/lib/postgresql #" in text  # PostgreSQL 18's place
    assert "- ./container/roles.sql:/docker-entrypoint-initdb.d/roles.sql:ro" in text
    assert "pg_isready" in compose["services.database.healthcheck.test"]
    assert compose["services.migrate.<<"] == compose["services.service.<<"] == "*forkpoint"
    assert (compose["services.migrate.command"], compose["services.service.command"]) == ("[migrate, up]", "[serve]")
    assert {key: value for key, value in compose.items() if key.endswith(".condition")} == {
        "services.migrate.depends_on.database.condition": "service_healthy",
        "services.service.depends_on.database.condition": "service_healthy",
        "services.service.depends_on.migrate.condition": "service_completed_successfully",
    }
    # The service speaks no TLS, so the port is for this machine alone, and it is the one that the image listens on.
    assert compose["services.service.ports"] == '["127.0.0.1:8000:8000"]'
    rights = {key: compose[f"x-forkpoint.{key}"] for key in ("read_only", "cap_drop", "security_opt")}
    assert rights == {"read_only": "true", "cap_drop": "[ALL]", "security_opt": '["no-new-privileges:true"]'}
    assert compose["x-forkpoint.tmpfs"] == '["/tmp:noexec,nosuid,nodev,size=64m"]'
    assert all(compose[f"x-forkpoint.{limit}"] for limit in ("mem_limit", "cpus", "pids_limit"))
    chosen = {name: compose[f"x-forkpoint.environment.FORKPOINT_{name}"] for name in ("ENVIRONMENT", "AUTHENTICATION")}
    assert chosen == {"ENVIRONMENT": "production", "AUTHENTICATION": "keys"}
    # Each role's password is nobody's default, and is known where it is needed.
    known = {key: value for key, value in compose.items() if "_PASSWORD" in value}
    assert known == {
        "x-forkpoint.environment.DATABASE_URL": url_of("service"),
        "services.migrate.environment.DATABASE_URL": url_of("owner"),
        **{
            f"services.database.environment.{name}_PASSWORD": f"${{{name}_PASSWORD:?choose one}}"
            for name in ("POSTGRES", "OWNER", "SERVICE")
        },
    }


def url_of(role: str) -> str:
    return f"postgresql://forkpoint_{role}:${{{role.upper()}_PASSWORD:?choose one}}@database:5432/forkpoint"


def test_the_roles_of_compose_migrate_and_serve_in_production(tmp_path: Path) -> None:
    passwords = {"OWNER_PASSWORD": "it's one", "SERVICE_PASSWORD": "it's \\another"}
    with folder_for_all() as folder, embedded.running(folder / "home") as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("create database compose")
        url = with_database(server.url, "compose")
        script = (
            (ROOT / "container" / "roles.sql")
            .read_text(encoding="utf-8")
            .replace("database forkpoint", "database compose")
        )
        command = [str(embedded.binaries() / "psql"), "--set=ON_ERROR_STOP=1", "--no-psqlrc", "--quiet", url]
        done = subprocess.run(command, input=script, env=passwords, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        owner, service = (url.replace("//forkpoint@", f"//forkpoint_{role}@") for role in ("owner", "service"))
        variables = {"FORKPOINT_ENVIRONMENT": "production", "FORKPOINT_AUTHENTICATION": "keys"}
        assert run(tmp_path, "migrate", "up", DATABASE_URL=owner, **variables).returncode == 0
        arguments = ["keys", "create", "--tenant", "acme", "--name", "first", "--scopes", "read,write"]
        made = run(tmp_path, *arguments, DATABASE_URL=service, **variables)
        assert made.returncode == 0, made
        with serving(tmp_path, {"DATABASE_URL": service, "FORKPOINT_HOST": "0.0.0.0"} | variables) as instance:  # noqa: S104
            headers = {"authorization": f"Bearer {made.stdout.strip()}"}
            call = {"query": CREATE, "variables": {"name": "mine"}}
            answers = [
                httpx2.post(f"{instance.address}/graphql", json=call, headers=sent, timeout=60)
                for sent in (headers, {})
            ]
            assert [answer.status_code for answer in answers] == [200, 401]
            assert "errors" not in answers[0].json()


def test_compose_takes_compose_yaml() -> None:
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode != 0:
        pytest.skip("there is no `docker compose` here")
    variables = clean_environment(POSTGRES_PASSWORD="one", OWNER_PASSWORD="two", SERVICE_PASSWORD="three")
    command = [docker, "compose", "config", "--quiet"]
    done = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
