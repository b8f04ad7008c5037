"""`forkpoint explain` as its users run it."""

import json
import re
from pathlib import Path

import pytest

from graphql_api.app import create_app
from graphql_api.settings import Settings
from tests.conftest import api_over
from tests.program import refusal, run
from tests.schema.calls import create, say

NOWHERE = "postgresql://127.0.0.1:1/nowhere"
DOCUMENT = """query Other { contexts { totalCount } }
query Newest($id: ID!, $last: Int = 2) { context(id: $id) { name
  newest: messages(last: $last) { totalCount nodes { content context { metadata } } }
} }"""


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "documents" / "newest é.graphql"
    path.parent.mkdir()
    path.write_text(DOCUMENT, encoding="utf-8")
    return path


async def test_a_query_is_explained_from_its_plan_down_to_what_postgresql_does(
    settings: Settings, database_url: str, tmp_path: Path, document: Path
) -> None:
    async with api_over(create_app(settings)) as api:
        made = await create(api, *(say(str(number)) for number in range(5)), name="a")
    arguments = ("--variables", json.dumps({"id": made["id"]}), "--operation", "Newest")
    done = run(tmp_path, "explain", str(document), *arguments, DATABASE_URL=database_url)
    assert (done.returncode, done.stderr) == (0, "")
    plan, cost, queries, *explained = done.stdout.split("\n\n")
    assert plan.splitlines() == [
        "Plan",
        f"context(id: '{made['id']}') - reads",
        "  newest: messages(last: 2) - reads content",
        "    totalCount - reads",
        "    nodes",
        "      context - reads metadata of contexts",
    ]
    assert cost == "Cost\n6 rows at most, some 2,738 bytes"
    assert queries.splitlines() == [
        "Queries",
        "over the fast lane, a transaction of several flushes",
        *("flush 1", "  lineage.page", "  context.by_ids"),
        *("flush 2", "  context.by_ids"),
    ]
    assert [text.splitlines()[0] for text in explained if text.strip()] == [
        *("lineage.page", "context.by_ids", "context.by_ids"),
    ]
    for text in explained[:3]:
        assert re.search(r"^  .*\(cost=.* rows=.*\) \(actual time=", text, re.MULTILINE)
        assert "  Execution Time: " in text
    assert not re.search(r"Filter: .*NULL::", done.stdout)


def test_the_only_operation_needs_no_name_and_a_query_without_rows_asks_nothing(
    database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "health.graphql").write_text("{ health { status } }")
    told = "Plan\nhealth\n\nCost\n1 rows at most, some 38 bytes\n\nQueries\nnothing is asked\n\n"
    done = run(tmp_path, "explain", "health.graphql", DATABASE_URL=database_url)
    assert (done.returncode, done.stdout, done.stderr) == (0, told, "")


def test_a_list_is_explained_as_it_is_planned_for_its_filter(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "list.graphql").write_text(
        "query ($filter: ContextFilter) { contexts(filter: $filter) { nodes { metadata } } }"
    )
    variables = json.dumps({"filter": {"nameContains": 'it\'s "50%"\n', "metadataContains": {"é": [None]}}})
    done = run(tmp_path, "explain", "list.graphql", "--variables", variables, DATABASE_URL=database_url)
    assert (done.returncode, done.stderr) == (0, "")
    assert "over the pool, a transaction\nflush 1\n  context_list.by_updated_at_desc\n" in done.stdout
    assert "Execution Time: " in done.stdout


NO_PLAN = "There is no plan: resolvers answer this {}, or say what is wrong. Send the document.\n"
NO_ANSWER = "The plan gives no answer: resolvers give it, or say what is wrong. Send the document.\n"
MUTATION = "mutation { deleteContext(input: {contextId: 1}) { context { id } } }"
REFUSED: dict[str, tuple[str, tuple[str, ...], str | None]] = {
    "mutation": (MUTATION, (), NO_PLAN.format("mutation")),
    "a variable is missing": ("query ($n: Int!) { contexts(first: $n) { totalCount } }", (), NO_PLAN.format("query")),
    "an argument is refused": ("{ contexts(first: -1) { totalCount } }", (), NO_ANSWER),
    "syntax": ("{ contexts", (), "Syntax Error: Expected Name, found <EOF>.\n"),
    "validation": ("{ nothing }", (), "Cannot query field 'nothing' on type 'Query'.\n"),
    "unknown operation": (
        DOCUMENT,
        ("--operation", "Third"),
        "The document has no operation called 'Third': operationName must name one of it.\n",
    ),
    "JSON that is a list": ("{ health { status } }", ("--variables", "[]"), None),
    "JSON that is deep": ("{ health { status } }", ("--variables", "[" * 100_000), None),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_explained_gets_one_line(name: str, database_url: str, tmp_path: Path) -> None:
    text, arguments, message = REFUSED[name]
    (tmp_path / "x.graphql").write_text(text)
    said = refusal(tmp_path, "explain", "x.graphql", *arguments, DATABASE_URL=database_url)
    assert said == (message or '--variables is no JSON object. Write it as in \'{"id": "…"}\'.\n')


def test_a_file_that_cannot_be_read_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes("é".encode("latin-1"))
    reasons = {"missing": "No such file or directory", ".": "Is a directory", "latin": "it is no text in UTF-8"}
    for path, reason in reasons.items():
        said = refusal(tmp_path, "explain", path, DATABASE_URL=NOWHERE)
        assert said == f"{path} cannot be read: {reason}. Name a file that holds a GraphQL document.\n"


def test_without_its_database_a_plan_is_shown_and_the_rest_refused(tmp_path: Path) -> None:
    (tmp_path / "x.graphql").write_text("{ contexts(first: 3) { nodes { id } } }")
    done = run(tmp_path, "explain", "x.graphql", DATABASE_URL=NOWHERE)
    assert (done.returncode, done.stdout) == (
        1,
        "Plan\ncontexts(first: 3) - reads\n  nodes\n\nCost\n3 rows at most, some 157 bytes\n\n",
    )
    assert done.stderr.startswith("The database at 127.0.0.1:1 cannot be reached: ")
    assert "Traceback" not in done.stderr
