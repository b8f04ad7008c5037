"""What docs/http.md shows is what happens: its requests get its answers, its statuses are those that there are."""

import json
import re
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx2

from graphql_api import endpoint, host, media
from graphql_api.app import create_app
from graphql_api.origin import read_origins
from graphql_api.settings import Settings, variable
from tests.conftest import api_over

FOLDER = Path(__file__).parents[1] / "docs"
PAGE = (FOLDER / "http.md").read_text(encoding="utf-8")
WIDTH = 120


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def message(block: str) -> tuple[str, dict[str, str], str]:
    """Take a message of HTTP apart: its first line, its headers, its body."""
    head, _, body = block.partition("\n\n")
    first, *headers = head.splitlines()
    return first, dict(line.split(": ", 1) for line in headers), body


def shown(block: str, response: httpx2.Response) -> tuple[Any, ...]:
    """Give of a response what a block shows of one."""
    _, headers, body = message(block)
    status = HTTPStatus(response.status_code)
    told = {name: response.headers.get(name) for name in headers}
    return f"HTTP/1.1 {status.value} {status.phrase}", told, response.json() if body else None


async def test_each_request_gives_the_answer_below_it(settings: Settings) -> None:
    ((_, origins),) = [line.split("=") for line in "".join(blocks("sh")).splitlines()]
    app = create_app(settings.model_copy(update={"allowed_origins": read_origins(origins)}))
    messages = blocks("http")
    async with api_over(app) as api:
        for request, answer in zip(messages[::2], messages[1::2], strict=True):
            first, headers, body = message(request)
            method, target, _ = first.split()
            response = await api.http.request(method, target, headers=headers, content=body.strip() or None)
            first, headers, body = message(answer)
            assert shown(answer, response) == (first, headers, json.loads(body) if body else None)


def test_the_table_has_every_status() -> None:
    source = "".join(Path(str(module.__file__)).read_text(encoding="utf-8") for module in (endpoint, host, media))
    raised = {int(status) for status in re.findall(r"(?:HttpError|response)\((\d{3})", source)} - {
        414
    }  # uvicorn refuses earlier
    raised |= set(endpoint.STATUSES.values()) - {401}  # reserved
    rows = [row for row in re.findall(r"^\|(.*)\|$", PAGE, re.MULTILINE) if "---" not in row]
    assert {int(status) for row in rows for status in re.findall(r"\b[2-5]\d\d\b", row)} == raised | {200, 400}


def test_every_setting_is_one() -> None:
    assert set(re.findall(r"FORKPOINT_\w+", PAGE)) <= {variable(field) for field in Settings.model_fields}


def test_prose_is_no_wider_than_code_and_its_links_lead_somewhere() -> None:
    assert [line for line in PAGE.splitlines() if len(line) > WIDTH] == []
    for target in re.findall(r"\]\(([^)]+)\)", PAGE):
        path, _, anchor = target.partition("#")
        if not target.startswith("https://"):
            text = (FOLDER / path).read_text(encoding="utf-8")
            assert not anchor or f"\n## {anchor}\n" in text.lower(), target
