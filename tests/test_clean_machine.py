"""`make serve` as on a machine that has Python and make only: a copy of the checkout, an empty environment."""

import contextlib
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.program import ROOT, Program, ask, started

INSTALL_SECONDS_MAX = 300
STOP_SECONDS_MAX = 20

CREATE = """
mutation {
  createContext(input: { name: "Trip to Lisbon", messages: [
    { role: SYSTEM, content: "one" }, { role: USER, content: "two" }
  ] }) { context { id } }
}
"""
APPEND = """
mutation ($id: ID!, $contents: [MessageInput!]!) {
  appendMessages(input: { contextId: $id, messages: $contents }) { messages { version } }
}
"""
FORK = """
mutation ($id: ID!) { forkContext(input: { contextId: $id, version: 3, name: "by train" }) { context { id } } }
"""
READ = """
query ($id: ID!) { context(id: $id) { name forkVersion messages { nodes { version content } } } }
"""


def clone(place: Path) -> None:
    """Copy what a clone would hold, and what is not committed yet; the machine may have no git."""
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    shutil.copytree(ROOT, place, ignore=shutil.ignore_patterns(".git", *(line.strip("/") for line in ignored)))


def bare_environment(home: Path) -> dict[str, str]:
    """Give what a fresh login has, and what pip needs to find packages."""
    pip = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(("PIP_", "SSL_CERT_")) or name.lower().endswith("_proxy")
    }
    # A virtual environment that runs the tests is not on a bare machine's PATH.
    places = [place for place in os.environ.get("PATH", os.defpath).split(os.pathsep) if sys.prefix not in place]
    return pip | {"PATH": os.pathsep.join(places), "HOME": str(home), "LANG": "C.UTF-8"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


class Machine:
    """A home with a clone in it, where `make serve` is typed."""

    def __init__(self, home: Path, user: int | None = None) -> None:
        self.home, self.user = home, user
        self.clone = home / "forkpoint"
        self.environment = bare_environment(home)
        self.arguments = ["serve", f"ARGS=--port {free_port()}"]
        clone(self.clone)
        for config in (".config/pip/pip.conf", ".pip/pip.conf"):
            if (Path.home() / config).exists():
                (home / config).parent.mkdir(parents=True)
                shutil.copy2(Path.home() / config, home / config)

    def serve(self) -> AbstractContextManager[Program]:
        """Type `make serve`."""
        command = ["make", "-C", str(self.clone), *self.arguments]
        return started(command, self.home, self.environment, self.user)


def read(address: str, context_id: str) -> dict[str, Any]:
    context: dict[str, Any] = ask(address, READ, id=context_id)["context"]
    context["messages"] = [f"{each['version']} {each['content']}" for each in context["messages"]["nodes"]]
    return context


@contextlib.contextmanager
def new_home() -> Iterator[Path]:
    """Give a folder that is closed to others, PostgreSQL's user among them, as root's own home is."""
    with tempfile.TemporaryDirectory(prefix="forkpoint-machine-", ignore_cleanup_errors=True) as folder:
        assert Path(folder).stat().st_mode & 0o777 == 0o700
        yield Path(folder)


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    with new_home() as home:
        machine = Machine(home)
        yield machine
        for data in data_folders(machine):
            shutil.rmtree(data, ignore_errors=True)


def data_folders(machine: Machine) -> list[Path]:
    """Find where the data went: in the clone, or for root elsewhere."""
    said = "\n".join(output.read_text() for output in machine.home.glob("output-*"))
    return [Path(place) for place in sorted(set(re.findall(r"^  Data +(\S+)$", said, re.MULTILINE)))]


def processes() -> dict[int, str]:
    """Give the command line of every process."""
    found = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):  # no process, or gone meanwhile
            found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
    return found


def wait_until_nothing_runs(machine: Machine) -> None:
    """Wait until no process works in the home or over its data."""
    places = [str(machine.home), *map(str, data_folders(machine))]
    deadline = time.monotonic() + STOP_SECONDS_MAX
    while found := [line for line in processes().values() if any(place in line for place in places)]:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def service(program: Program) -> int:
    """Find the process of the service, which make waits for."""
    make = program.process.pid
    (child,) = Path(f"/proc/{make}/task/{make}/children").read_text().split()
    assert "-m graphql_api serve" in processes()[int(child)]
    return int(child)


@pytest.fixture(scope="module")
def story(machine: Machine) -> tuple[str, str]:
    """Install, serve, create, append, fork at version 3, append to the fork; give both ids."""
    with machine.serve() as program:
        address = program.address(INSTALL_SECONDS_MAX)
        assert httpx2.get(f"{address}/health").json()["status"] == "healthy"
        parent = ask(address, CREATE)["createContext"]["context"]["id"]
        contents = [{"role": "ASSISTANT", "content": "three"}, {"role": "USER", "content": "four"}]
        appended = ask(address, APPEND, id=parent, contents=contents)["appendMessages"]["messages"]
        assert appended == [{"version": 3}, {"version": 4}]
        fork = ask(address, FORK, id=parent)["forkContext"]["context"]["id"]
        ask(address, APPEND, id=fork, contents=[{"role": "USER", "content": "another way"}])
        check_story(address, parent, fork)
        # To the service alone: make, which has no signal, gives its exit code.
        os.kill(service(program), signal.SIGINT)
        assert program.process.wait(STOP_SECONDS_MAX) == 0
    wait_until_nothing_runs(machine)
    said = program.said()
    assert "Installing " in said
    assert "new release of pip" not in said
    assert "***" not in said
    return parent, fork


def check_story(address: str, parent: str, fork: str) -> None:
    assert read(address, parent) == {
        "name": "Trip to Lisbon",
        "forkVersion": None,
        "messages": ["1 one", "2 two", "3 three", "4 four"],
    }
    assert read(address, fork) == {
        "name": "by train",
        "forkVersion": 3,
        "messages": ["1 one", "2 two", "3 three", "4 another way"],
    }


def test_a_second_start_is_warm_and_has_the_data_still(machine: Machine, story: tuple[str, str]) -> None:
    with machine.serve() as program:
        check_story(program.address(), *story)
        assert "Installing" not in program.said()
        os.killpg(program.process.pid, signal.SIGINT)  # as a terminal does
        # make waits for the service, and then dies of the signal unless it first saw the service's 0.
        assert program.process.wait(STOP_SECONDS_MAX) in {0, -signal.SIGINT}
    assert "***" not in program.said()
    wait_until_nothing_runs(machine)


def test_a_killed_service_loses_no_acknowledged_append(machine: Machine, story: tuple[str, str]) -> None:
    _, fork = story
    with machine.serve() as program:
        address = program.address()
        for number in range(5, 25):
            ask(address, APPEND, id=fork, contents=[{"role": "USER", "content": f"number {number}"}])
        os.kill(service(program), signal.SIGKILL)
        program.process.wait(STOP_SECONDS_MAX)
    with machine.serve() as program:
        found = read(program.address(), fork)["messages"]
        assert found[4:] == [f"{number} number {number}" for number in range(5, 25)]
        os.kill(service(program), signal.SIGTERM)
        assert program.process.wait(STOP_SECONDS_MAX) == 0
    wait_until_nothing_runs(machine)


def make(machine: Machine, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "-C", str(machine.clone), *arguments],  # noqa: S607 - from PATH, as on any machine
        env=machine.environment | variables,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def fake_python(folder: Path, script: str) -> str:
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("script", "line"),
    [
        ("exit 1", " is too old: 3.11 or later is needed."),
        ('case "$2" in *ensurepip*) exit 1;; esac', " cannot make virtual environments. "),
    ],
)
def test_a_python_that_will_not_do_is_told_in_one_line(
    machine: Machine, tmp_path: Path, script: str, line: str
) -> None:
    done = make(machine, "serve", FORKPOINT_PYTHON=fake_python(tmp_path, script))
    first, *rest = done.stderr.splitlines()
    assert line in first
    assert [words for words in rest if "***" not in words] == []
    assert done.returncode != 0


def test_a_missing_python_is_told_in_one_line(machine: Machine) -> None:
    done = make(machine, "serve", "PYTHON=no-such-python")
    assert done.stderr.startswith("no-such-python is missing. Install Python 3.11 or later ")


def test_help_lists_the_commands(machine: Machine) -> None:
    lines = [line for line in make(machine).stdout.splitlines() if line.startswith("  make ")]
    targets = ["help", "serve", "test", "test-long", "format", "docs", "graphiql", "lock", "audit", "wheel", "clean"]
    assert [line.split()[1] for line in lines] == targets
    assert all(len(line.split()) > 3 for line in lines)


def other_user(home: Path) -> int | None:
    """Hand a home to a user who is not root; None when the tests run as such a one already."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody").pw_uid
    for path in (home, *home.rglob("*")):
        os.chown(path, nobody, nobody)
    return nobody


def test_another_user_than_root_repairs_an_install_that_was_killed() -> None:
    with new_home() as home:
        machine = Machine(home)
        machine.user = other_user(home)
        if machine.user is not None:
            # The interpreter of root may lie where nobody else can go.
            machine.environment["PATH"] = "/usr/local/bin:/usr/bin:/bin"
            shown = subprocess.run(
                ["python3", "-c", "import sys, ensurepip; assert sys.version_info >= (3, 11)"],  # noqa: S607
                env=machine.environment,
                user=machine.user,
                check=False,
            )
            if shown.returncode != 0:
                pytest.skip("no python3 of 3.11 or later with venv for users other than root")
        with machine.serve() as program:
            program.wait_for("^Installing collected packages", INSTALL_SECONDS_MAX)
            time.sleep(0.5)
            os.killpg(program.process.pid, signal.SIGKILL)
        with machine.serve() as program:
            address = program.address(INSTALL_SECONDS_MAX)
            ask(address, CREATE)
            assert data_folders(machine) == [machine.clone / ".forkpoint"]
            program.process.terminate()  # make passes it on
            program.process.wait(STOP_SECONDS_MAX)
        wait_until_nothing_runs(machine)
