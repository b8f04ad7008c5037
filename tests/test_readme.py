"""What the README shows is what happens: queries give their answers, commands run, the table lists the settings."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
import psycopg
import pytest

from graphql_api.settings import Settings
from tests.client import Api

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def blocks(language: str) -> list[str]:
    """Give the fenced blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[list[str]]:
    """Give the shell lines that call a program, as words without their comments."""
    lines = "".join(blocks("sh")).splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [line for line in words if line and Path(line[0]).name == program]


async def test_each_query_gives_the_answer_below_it(api: Api) -> None:
    real_ids: dict[str, str] = {}

    def with_real_ids(text: str) -> str:
        return UUID.sub(lambda found: real_ids[found[0]], text)

    queries, answers = blocks("graphql"), blocks("json")
    assert len(queries) == len(answers) > 3
    for query, answer in zip(queries, answers, strict=True):
        response = await api.http.post("/graphql", json={"query": with_real_ids(query)})
        # The ids that the README shows stand for those that were made here, in the order in which they appear.
        shown = UUID.findall(answer)
        real_ids.update(zip(shown, UUID.findall(response.text), strict=True))
        assert response.json() == json.loads(with_real_ids(answer))


async def test_each_curl_command_is_answered(api: Api) -> None:
    lines = commands("curl")
    assert len(lines) == 2
    for _, *words in lines:
        options = (
            dict(zip(words[words.index("-H") :: 2], words[words.index("-H") + 1 :: 2], strict=True))
            if "-H" in words
            else {}
        )
        url = httpx2.URL(next(word for word in words if word.startswith("http://127.0.0.1:8000/")))
        headers = dict([options["-H"].split(": ", 1)]) if options else {}
        method = "POST" if "-d" in options else "GET"
        response = await api.http.request(method, url.path, headers=headers, content=options.get("-d"))
        assert response.status_code == 200
        assert "errors" not in response.json()


def test_the_commands_for_a_database_of_ones_own_run(postgres: str, tmp_path: Path) -> None:
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("create database readme")
    url = postgres.replace("/forkpoint?", "/readme?")
    with psycopg.connect(url, autocommit=True) as connection:
        for block in blocks("sql"):
            connection.execute(block.encode())
    environment = {key: value for key, value in os.environ.items() if not key.startswith("FORKPOINT_")}
    environment |= {"DATABASE_URL": url, "FORKPOINT_PORT": "0", "PYTHONPATH": str(ROOT)}
    migrate, serve = commands("forkpoint")
    program = [sys.executable, "-m", "graphql_api"]
    subprocess.run([*program, *migrate[1:]], env=environment, cwd=tmp_path, check=True, timeout=60)
    with subprocess.Popen(
        [*program, *serve[1:]],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        address = None
        for line in process.stdout:
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                address = found[0]
                break
        assert address is not None
        assert wait_for_health(address)["status"] == "healthy"
        process.send_signal(signal.SIGINT)
        process.stdout.read()
    assert process.returncode == 0


def wait_for_health(address: str) -> dict[str, Any]:
    """Give the first answer of a service that is starting."""
    deadline = time.monotonic() + 20
    while True:
        try:
            body: dict[str, Any] = httpx2.get(f"{address}/health").json()
        except httpx2.TransportError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return body


def test_the_make_targets_that_it_names_exist() -> None:
    targets = {target for _, target, *_ in commands("make")}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets == {"serve", "test"}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def settings_table() -> str:
    """Write the table of settings as the code has them."""
    rows = ["| Variable | Default | Meaning |", "| --- | --- | --- |"]
    for name, field in Settings.model_fields.items():
        variable = "DATABASE_URL" if name == "database_url" else f"FORKPOINT_{name.upper()}"
        default = "" if field.default is None else str(field.default)
        shown = f"`{default.lower() if isinstance(field.default, bool) else default}`" if default else ""
        rows.append(f"| `{variable}` | {shown} | {field.description} |")
    return "\n".join(rows)


def test_the_table_lists_every_setting_with_its_default() -> None:
    _, _, rest = README.partition("<!-- settings: this table is checked against the code -->")
    table, _, _ = rest.partition("<!-- end of settings -->")
    assert table.strip() == settings_table()


@pytest.mark.parametrize("name", list(Settings.model_fields))
def test_every_setting_is_described(name: str) -> None:
    assert Settings.model_fields[name].description
