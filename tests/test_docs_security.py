"""What docs/security.md says of attacks: each has a test, and each test of tests/attacks is named."""

import re
from pathlib import Path

from graphql_api.settings import Settings, variable
from tests.test_docs import WIDTH, anchors

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/security.md").read_text(encoding="utf-8")
TEST = re.compile(r"^(?:async )?def (test_\w+)\(", re.MULTILINE)


def written() -> list[str]:
    """Give the tests of tests/attacks."""
    files = sorted((ROOT / "tests/attacks").glob("test_*.py"))
    return [
        f"{file.relative_to(ROOT)}::{name}" for file in files for name in TEST.findall(file.read_text(encoding="utf-8"))
    ]


def test_the_tables_name_every_attack_once() -> None:
    assert sorted(re.findall(r"`(tests/attacks/\w+\.py::test_\w+)`", PAGE)) == sorted(written())


def test_each_row_tells_what_stops_an_attack() -> None:
    rows = [line.split(" | ") for line in PAGE.splitlines() if line.startswith("| ") and "::" in line]
    assert rows
    assert [row for row in rows if len(row) != 3 or not all(cell.strip("| ") for cell in row)] == []


def test_every_setting_is_one() -> None:
    assert set(re.findall(r"FORKPOINT_\w+", PAGE)) <= {variable(field) for field in Settings.model_fields}


def test_prose_is_no_wider_than_code_and_its_links_lead_somewhere() -> None:
    assert [line for line in PAGE.splitlines() if len(line) > WIDTH and not line.startswith("|")] == []
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        path, _, anchor = target.partition("#")
        text = (ROOT / "docs" / path).read_text(encoding="utf-8")
        assert not anchor or anchor in anchors(text), target
