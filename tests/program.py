"""The program `forkpoint` as its users run it: a process with an environment of its own, and what it says."""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

ROOT = Path(__file__).parents[1]
PROGRAM = (sys.executable, "-m", "graphql_api")
RUN_SECONDS_MAX = 60
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 30


def environment(**variables: str) -> dict[str, str]:
    """Give an environment with no setting of whoever runs the tests."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name != "DATABASE_URL" and not name.startswith(("FORKPOINT_", "PG"))
    }
    return kept | {"PYTHONPATH": str(ROOT)} | variables


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the program to its end."""
    return subprocess.run(
        [*PROGRAM, *arguments],
        cwd=folder,
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=RUN_SECONDS_MAX,
    )


def refusal(folder: Path, *arguments: str, **variables: str) -> str:
    """Run what cannot work, and give what it says about that: never a stack trace."""
    done = run(folder, *arguments, **variables)
    assert done.returncode == 1, done
    assert "Traceback" not in done.stdout + done.stderr
    return done.stderr


@contextmanager
def folder_for_all() -> Iterator[Path]:
    """Give a folder that PostgreSQL's user can enter, unlike those of pytest when root runs it."""
    with tempfile.TemporaryDirectory(prefix="forkpoint-test-", ignore_cleanup_errors=True) as folder:
        path = Path(folder).resolve()
        path.chmod(0o755)
        yield path


class Program:
    """A service that was started from a command, in a session of its own as under a terminal.

    `folder` is where it runs, and where what it says is kept.
    """

    def __init__(self, command: list[str], folder: Path, variables: dict[str, str], user: int | None = None) -> None:
        self.output = folder / f"output-{time.monotonic_ns()}"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
                group=user,
                extra_groups=None if user is None else [],
            )

    def said(self) -> str:
        """Give all it has printed so far."""
        return self.output.read_text(encoding="utf-8")

    def wait_for(self, pattern: str, seconds: float = START_SECONDS_MAX) -> re.Match[str]:
        """Wait until it has printed something."""
        deadline = time.monotonic() + seconds
        while not (found := re.search(pattern, self.said(), re.MULTILINE)):
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise TimeoutError(self.said())
            time.sleep(0.02)
        return found

    def address(self, seconds: float = START_SECONDS_MAX) -> str:
        """Wait for the end of the banner, and give the address that it names."""
        self.wait_for("Ctrl-C stops", seconds)
        return self.wait_for(r"Graphi?QL +(http://\S+)/graphql$")[1]

    def stop(self, number: int) -> int:
        """Send a signal to it alone; gives its exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_SECONDS_MAX)


@contextmanager
def started(command: list[str], folder: Path, variables: dict[str, str], user: int | None = None) -> Iterator[Program]:
    """Run a command, and end it if it has not ended by itself."""
    program = Program(command, folder, variables, user)
    try:
        yield program
    finally:
        program.process.kill()
        program.process.wait()


@contextmanager
def serving(folder: Path, *arguments: str, **variables: str) -> Iterator[Program]:
    """Run `forkpoint serve` on a free port."""
    command = [*PROGRAM, "serve", *arguments]
    with started(command, folder, environment(**{"FORKPOINT_PORT": "0"} | variables)) as program:
        yield program


def ask(address: str, document: str, **variables: Any) -> Any:
    """Send one operation, and give its data."""
    body = {"query": document, "variables": variables}
    response = httpx2.post(f"{address}/graphql", json=body, timeout=60)
    answer = json.loads(response.text)
    assert "errors" not in answer, answer
    return answer["data"]
