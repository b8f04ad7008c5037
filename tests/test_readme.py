"""What the README shows is what happens: its queries give its answers, its commands run."""

import json
import re
import shlex
import signal
from pathlib import Path

import httpx2
import psycopg

from graphql_api.settings import Settings, variable
from tests import program
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
    demo, doctor, migrate, serve = (arguments for _, *arguments in commands("forkpoint"))
    for arguments in (migrate, doctor, demo):
        done = program.run(tmp_path, *arguments, DATABASE_URL=url)
        assert done.returncode == 0, done
    with program.serving(tmp_path, *serve[1:], DATABASE_URL=url) as service:
        assert program.ask(service.address(), "{ contexts { totalCount } }")["contexts"]["totalCount"] > 100
        assert service.stop(signal.SIGINT) == 0


def test_the_make_targets_that_it_names_exist() -> None:
    targets = {target for _, target, *_ in commands("make")}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets == {"serve", "test"}
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_the_settings_that_it_names_are_settings() -> None:
    names = set(re.findall(r"`(FORKPOINT_[A-Z_]+|DATABASE_URL)`", README))
    assert names >= {"DATABASE_URL", "FORKPOINT_HOME", "FORKPOINT_HOST", "FORKPOINT_PORT"}
    assert names <= {variable(field) for field in Settings.model_fields}
