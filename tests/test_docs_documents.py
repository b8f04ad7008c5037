"""What docs/documents.md shows is what happens: its requests get its answers, its settings are settings."""

import json
import re
from pathlib import Path
from typing import Any

from graphql_api.app import create_app
from graphql_api.settings import Settings, variable
from tests.conftest import api_over

PAGE = (Path(__file__).parents[1] / "docs" / "documents.md").read_text(encoding="utf-8")
WIDTH = 120


async def test_each_request_gives_the_answer_below_it(settings: Settings, tmp_path: Path) -> None:
    hashing, trusting = PAGE.split("## Trust")
    file, *requests = blocks(trusting)
    path = tmp_path / "trusted.json"
    path.write_text(json.dumps(file))
    *trusted, refused, refusal = requests
    assert await answers(settings, blocks(hashing)[::2]) == blocks(hashing)[1::2]
    settings = settings.model_copy(update={"trusted_documents": path})
    assert await answers(settings, trusted[::2]) == trusted[1::2]
    settings = settings.model_copy(update={"trusted_documents_only": True})
    assert await answers(settings, [*trusted[::2], refused]) == [*trusted[1::2], refusal]


def blocks(text: str) -> list[Any]:
    return [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)]


async def answers(settings: Settings, requests: list[Any]) -> list[Any]:
    async with api_over(create_app(settings)) as api:
        return [(await api.http.post("/graphql", json=request)).json() for request in requests]


def test_every_setting_is_one() -> None:
    assert set(re.findall(r"FORKPOINT_\w+", PAGE)) <= {variable(field) for field in Settings.model_fields}


def test_prose_is_no_wider_than_code_and_its_links_lead_somewhere() -> None:
    assert [line for line in PAGE.splitlines() if len(line) > WIDTH] == []
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        assert target.startswith("https://") or (Path(__file__).parents[1] / "docs" / target).is_file(), target
