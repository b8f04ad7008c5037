"""The files of GraphiQL that are shipped: what their sources build, and nothing that would break elsewhere."""

from pathlib import Path

import graphql
from graphql import OperationDefinitionNode

from graphql_api.graphiql_page import FOLDER
from tests.node import ROOT, run_node

SOURCES = ROOT / "graphiql"
VITE = SOURCES / "node_modules" / "vite" / "bin" / "vite.js"
EXAMPLES = sorted((SOURCES / "src" / "examples").glob("*.graphql"))
TITLES = ["Create", "Append", "Fork", "AppendToFork", "Window", "Diff", "Subscribe", "Health"]

BYTES_MAX = 7_000_000


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


async def test_what_is_shipped_is_what_the_sources_build(tmp_path: Path) -> None:
    await run_node(VITE, "build", "--outDir", tmp_path, cwd=SOURCES)
    built, shipped = contents(tmp_path), contents(FOLDER)
    assert sorted(built) == sorted(shipped), "make graphiql builds them"
    assert [name for name in built if built[name] != shipped[name]] == []


def test_what_is_shipped_names_no_place_of_the_machine_that_built_it_and_no_source_map() -> None:
    for name, content in contents(FOLDER).items():
        for word in (str(ROOT), "sourceMappingURL"):
            assert word.encode() not in content, name


def test_what_is_shipped_stays_small() -> None:
    assert sum(map(len, contents(FOLDER).values())) < BYTES_MAX


def test_the_examples_are_valid() -> None:
    schema = graphql.build_schema((ROOT / "schema.graphql").read_text(encoding="utf-8"))
    names = []
    for file in EXAMPLES:
        document = graphql.parse(file.read_text(encoding="utf-8"))
        assert graphql.validate(schema, document) == [], file.name
        operations = [node for node in document.definitions if isinstance(node, OperationDefinitionNode)]
        names += [operation.name.value for operation in operations if operation.name]
    assert names == TITLES
