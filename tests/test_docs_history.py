"""What docs/history.md shows is what happens: its lines come back as they are, its keys are those that are read."""

import json
import re
import shlex
from pathlib import Path

from graphql_api.history import native
from graphql_api.history.reading import Format
from graphql_api.settings import Settings, variable
from tests import program
from tests.client import Api
from tests.graphql_api.histories import exported, imported
from tests.schema.calls import read

FOLDER = Path(__file__).parents[1] / "docs"
PAGE = (FOLDER / "history.md").read_text(encoding="utf-8")
WIDTH = 120


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


async def test_the_lines_are_imported_and_exported_as_they_are(api: Api, database_url: str) -> None:
    lines = block("jsonl")
    outcome = await imported(database_url, lines)
    assert outcome.refused == []
    (tree,) = outcome.imported
    assert await exported(database_url, str(tree.root_id)) == lines
    forks = (await api("{ contexts(orderBy: { field: NAME, direction: DESC }) { nodes { id } } }"))["contexts"]["nodes"]
    assert [(await read(api, each["id"]))["messageCount"] for each in forks] == [2, 2]


def test_the_commands_run(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "page.jsonl").write_text(block("jsonl"), encoding="utf-8")
    commands = [shlex.split(line)[1:] for line in block("sh").splitlines()]
    for arguments in (["import", "page.jsonl"], *commands):
        done = program.run(tmp_path, *arguments, DATABASE_URL=database_url)
        assert done.returncode == 0, done
    assert (tmp_path / "lisbon.jsonl").read_text(encoding="utf-8") == block("jsonl")


def test_the_table_has_every_key() -> None:
    for kind, known in native.KEYS.items():
        (row,) = re.findall(rf"^\| `{kind}` \|(.*)\|$", PAGE, re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", row)) == known
    shown = [json.loads(line) for line in block("jsonl").splitlines()]
    for kind, known in native.KEYS.items():
        assert {key for line in shown if line["kind"] == kind for key in line} <= known | {"kind"}


def test_every_format_and_setting_is_one() -> None:
    assert set(re.findall(r"\(`(\w+)`\)", PAGE)) == set(Format) - {"auto", "forkpoint"}
    assert set(re.findall(r"FORKPOINT_\w+", PAGE)) <= {variable(field) for field in Settings.model_fields}


def test_prose_is_no_wider_than_code_and_its_links_lead_somewhere() -> None:
    prose = re.sub(r"^```.*?^```$", "", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert [line for line in prose.splitlines() if len(line) > WIDTH and not line.startswith("|")] == []
    assert all((FOLDER / target).is_file() for target in re.findall(r"\]\(([^)]+)\)", prose))
