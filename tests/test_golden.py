"""Documents with their plans and answers, over a history that never changes: a change of either shows as a diff.

Each case is a document, `NAME.graphql`, with the variables it may have, its plan and its answer. To write them anew:
`python -m tests.test_golden --write`.
"""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pydantic import SecretStr

from db import embedded, migrate
from graphql_api.app import create_app, service_of
from graphql_api.operation import Operations, Parameters, Prepared
from graphql_api.settings import Settings
from schema.execute import Plans
from schema.moment import Trace
from schema.plan_text import asked, describe
from schema.principal import ANYBODY
from schema.request import Request
from schema.root import schema
from tests.answers import difference, read
from tests.conftest import api_over, with_database
from tests.graphql_api.histories import imported
from tests.program import folder_for_all

FOLDER = Path(__file__).parent / "golden"
HISTORY = FOLDER / "history.jsonl"


@dataclass(frozen=True)
class Case:
    """A document, and what belongs to it."""

    name: str

    @property
    def document(self) -> str:
        return self._path("graphql").read_text(encoding="utf-8")

    @property
    def variables(self) -> dict[str, Any]:
        path = self._path("variables.json")
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}

    def _path(self, suffix: str) -> Path:
        return FOLDER / f"{self.name}.{suffix}"


CASES = [Case(path.stem) for path in sorted(FOLDER.glob("*.graphql"))]


async def answers(database_url: str, *, planned: bool) -> dict[str, str]:
    """Store the history in an empty database, and give what belongs to each document by the name of its file."""
    outcome = await imported(database_url, HISTORY.read_bytes())
    assert outcome.refused == []
    chosen = Settings(_env_file=None, database_url=SecretStr(database_url), log_level="error", planned_reads=planned)
    found: dict[str, str] = {}
    async with api_over(create_app(chosen)) as api:
        for case in CASES:
            body = {"query": case.document, "variables": case.variables}
            answer = (await api.http.post("/graphql", json=body)).json()
            found[f"{case.name}.result.json"] = json.dumps(answer, ensure_ascii=False, indent=2) + "\n"
    return found


async def plans(database_url: str) -> dict[str, str]:
    """Give the plan of each document, and what it asks, by the name of its file; the history must be stored."""
    settings = Settings(_env_file=None, database_url=SecretStr(database_url), log_level="error")
    service, made = service_of(settings), Plans(schema)
    operations = Operations(schema._schema, settings, made)  # noqa: SLF001 - graphql-core's own schema
    await service.database.open()
    await service.database.lanes_ready(settings.connect_seconds)
    found: dict[str, str] = {}
    for case in CASES:
        prepared = operations.prepare(Parameters(case.document, case.variables), ANYBODY)
        assert isinstance(prepared, Prepared)
        text = "no plan\n"
        if prepared.planned is not None:
            trace = Trace()
            async with Request(service, ANYBODY) as request:
                data = await made.run(prepared.planned, request, trace)
            text = describe(prepared.planned) + ("" if data is None else "\n" + asked(trace))
            text += "" if data is not None else "\nno answer: resolvers give it\n"
        found[f"{case.name}.plan.txt"] = text
    await service.database.close()
    return found


@pytest.mark.parametrize("planned", [True, False], ids=["planned", "resolved"])
async def test_documents_are_answered_as_they_were(database_url: str, planned: bool) -> None:
    found = await answers(database_url, planned=planned)
    differing = {}
    for name, text in found.items():
        document = Case(name.split(".")[0]).document
        now, then = (read(body, document).content for body in (text.encode(), (FOLDER / name).read_bytes()))
        if changed := difference(now, then):
            differing[name] = changed
    assert differing == {}


async def test_documents_are_planned_as_they_were(database_url: str) -> None:
    await imported(database_url, HISTORY.read_bytes())
    found = await plans(database_url)
    assert found == {name: (FOLDER / name).read_text(encoding="utf-8") for name in found}
    assert {name for name, text in found.items() if text == "no plan\n"} == {"introspection_falls_back.plan.txt"}


@contextmanager
def _throw_away() -> Iterator[str]:
    """Start a server for one migrated database, outside of pytest."""
    with folder_for_all() as folder, embedded.running(folder / "home") as server:
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("create database golden")
        url = with_database(server.url, "golden")
        migrate.up(url)
        yield url


def _write() -> None:
    with _throw_away() as url:
        found = asyncio.run(answers(url, planned=False)) | asyncio.run(plans(url))
    for name, text in found.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: python -m tests.test_golden --write")
    _write()
