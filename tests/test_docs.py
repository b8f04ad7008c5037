"""What the papers say holds: queries give their answers, walks lead where they say, names exist, lists are complete."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from graphql import FieldNode, GraphQLObjectType, OperationDefinitionNode, parse

from graphql_api.settings import Settings
from schema.errors import Code
from tests import generate_docs, generate_limits
from tests.client import Api
from tests.db.migrating import empty_database, rows

ROOT = Path(__file__).parents[1]
PAPERS = {
    name: (ROOT / name).read_text(encoding="utf-8")
    for name in (
        *("ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"),
        *("docs/limits.md", "docs/performance.md", "docs/schema.md", "docs/settings.md", "docs/subscriptions.md"),
    )
}
PACKAGES = ("graphql_api", "schema", "db")
WIDTH = 120
# What an answer may hold that is another one each time: an id, a cursor (JSON that begins with `["`, in base64), a key.
FRESH = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\bWyJ[\w-]+|\bfpk_[\w.-]+")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

every_paper = pytest.mark.parametrize("name", PAPERS)


def blocks(text: str) -> list[tuple[str, str]]:
    """Give the fenced blocks, each with its language."""
    return BLOCK.findall(text)


def prose(text: str) -> str:
    """Leave the fenced blocks out."""
    return BLOCK.sub("", text)


def section(text: str, title: str) -> str:
    """Give what stands under a heading of the second level."""
    _, found, rest = text.partition(f"\n## {title}\n")
    assert found, title
    return rest.partition("\n## ")[0]


def commands(text: str) -> list[list[str]]:
    """Give the shell lines as words, without comments."""
    lines = [line for language, block in blocks(text) if language == "sh" for line in block.splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def environment(**variables: str) -> dict[str, str]:
    """Give an environment with no setting of whoever runs the tests."""
    foreign = ("FORKPOINT_", "PG", "PYTEST", "DATABASE_URL", "PYTHONPATH")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | variables


async def test_each_query_gives_the_answer_below_it(api: Api) -> None:
    real: dict[str, str] = {}

    def with_real(text: str) -> str:
        return FRESH.sub(lambda found: real.get(found[0], found[0]), text)

    found = [block for block in blocks(PAPERS["docs/schema.md"]) if block[0] in {"graphql", "json"}]
    assert [language for language, _ in found] == ["graphql", "json"] * (len(found) // 2)
    for (_, query), (_, answer) in zip(found[::2], found[1::2], strict=True):
        response = await api.http.post("/graphql", json={"query": with_real(query)})
        # What the page shows stands for what was made here, in the order in which it appears.
        real |= zip(FRESH.findall(answer), FRESH.findall(response.text), strict=True)
        assert response.json() == json.loads(with_real(answer))


def test_the_examples_ask_for_every_field_of_query_and_mutation() -> None:
    asked = set()
    for language, block in blocks(PAPERS["docs/schema.md"]):
        if language == "graphql":
            for operation in parse(block).definitions:
                assert isinstance(operation, OperationDefinitionNode)
                asked |= {node.name.value for node in operation.selection_set.selections if isinstance(node, FieldNode)}
    roots = [generate_docs.TYPES["Query"], generate_docs.TYPES["Mutation"]]
    assert asked == {name for root in roots if isinstance(root, GraphQLObjectType) for name in root.fields}


@pytest.mark.parametrize(
    ("name", "fresh"),
    [
        ("docs/schema.md", generate_docs.schema_reference()),
        ("docs/settings.md", generate_docs.settings_table()),
        ("docs/limits.md", generate_limits.limits_tables()),
    ],
)
def test_what_is_generated_is_fresh(name: str, fresh: str) -> None:
    _, written, _ = generate_docs.split(PAPERS[name])
    assert written == fresh, "run `python -m tests.generate_docs`"


def test_every_type_is_described_once() -> None:
    grouped = [name for names in generate_docs.GROUPS.values() for name in names]
    assert sorted(grouped) == sorted(generate_docs.documented_types())


def test_every_error_code_is_explained_or_called_reserved() -> None:
    named = re.findall(r"`([A-Z_]+)`", section(PAPERS["docs/schema.md"], "Errors"))
    assert set(Code) == set(named) - {
        "FORKPOINT_QUERY_SECONDS",
        "FORKPOINT_MUTATION_SECONDS",
        "FORKPOINT_REQUEST_SECONDS",
    }


def test_every_setting_is_listed_with_its_bounds() -> None:
    lines = generate_docs.settings_table().splitlines()[2:]
    assert [line.split("`")[1] for line in lines] == [generate_docs.variable(name) for name in Settings.model_fields]
    listed = "\n".join(lines)
    assert "| `FORKPOINT_PORT` | whole number, at least 0, at most 65,535 | `8000` |" in listed
    assert "| `FORKPOINT_POOL_WAIT_SECONDS` | seconds, more than 0, at most 86,400 | `5.0` |" in listed
    assert "| `FORKPOINT_LOG_FORMAT` | `auto`, `json` or `console` | `auto` |" in listed


def test_every_setting_that_is_a_limit_stands_among_the_limits() -> None:
    listed = [name for group in generate_limits.SETTINGS.values() for name in group]
    assert sorted(listed) == sorted(name for name in Settings.model_fields if name.endswith("_max"))


def test_settings_are_read_as_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(generate_docs.variable(name), raising=False)
    ((_, example),) = [block for block in blocks(PAPERS["docs/settings.md"]) if block[0] == "sh"]
    (tmp_path / ".env").write_text(f"{example}FORKPOINT_NO_SUCH=1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("forkpoint_pool_size_max", "9")
    monkeypatch.setenv("FORKPOINT_HOST", "")
    monkeypatch.setenv("FORKPOINT_PORT", "9000")
    read = Settings(port=9001)
    assert read.model_dump(include={"pool_size_max", "log_format", "host", "port"}) == {
        "pool_size_max": 9,  # the environment before .env, whatever its case
        "log_format": "json",  # .env before the default
        "host": "127.0.0.1",  # empty counts as none
        "port": 9001,  # what a flag gives before the environment
    }
    assert read.database_url is not None
    assert read.database_url.get_secret_value().startswith("postgresql://forkpoint:secret@")


@every_paper
def test_lines_are_no_wider_than_code(name: str) -> None:
    assert [line for line in PAPERS[name].splitlines() if len(line) > WIDTH and not line.startswith("|")] == []


def anchors(text: str) -> set[str]:
    """Give the anchors that a Markdown renderer makes of the headings."""
    titles = re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@every_paper
def test_links_lead_somewhere(name: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose(PAPERS[name])):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = ((ROOT / name).parent / path).resolve() if path else ROOT / name
        assert file.is_file(), target
        assert not anchor or anchor in anchors(file.read_text(encoding="utf-8")), target


@cache
def sources() -> str:
    """Give everything that a name in a paper may come from, its white space folded."""
    files = [ROOT / name for name in ("Makefile", "pyproject.toml", "compose.yaml", ".gitignore")]
    for package in PACKAGES:
        files += [path for path in (ROOT / package).rglob("*") if path.suffix in {".py", ".sql"}]
    return " ".join("\n".join(file.read_text(encoding="utf-8") for file in files).split()).lower()


def spans(text: str) -> list[str]:
    return re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", prose(text))


# What the code has no word for.
FROM_OUTSIDE = {
    "BaseHTTPMiddleware",
    "NOTIFY",
    "alias.tenant_id = $1",
    "git ls-files '*lineage*'",
    "sslmode=verify-full",
    "FORKPOINT_ENVIRONMENT=production",
}


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_what_stands_in_code_spans_exists(name: str) -> None:
    text = PAPERS[name]
    shown = " ".join("".join(block for _, block in blocks(text)).split()).lower()
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for span in spans(text):
        if target := re.match(r"make ([a-z-]+)", span):
            assert re.search(rf"^{target[1]}:", makefile, re.MULTILINE), span
            continue
        folded = " ".join(span.split()).lower()
        exists = folded in sources() or folded in shown or any(ROOT.glob(span.rstrip("/")))
        assert exists or span in FROM_OUTSIDE, span


def test_what_is_excepted_from_that_is_still_written() -> None:
    written = {span for name in PAPERS for span in spans(PAPERS[name])}
    assert written >= FROM_OUTSIDE


def test_the_map_names_every_module() -> None:
    found = [path for span in spans(PAPERS["ARCHITECTURE.md"]) for path in ROOT.glob(span.rstrip("/"))]
    named = {path for path in found if path.is_file()}
    # A package inside a package is named as a whole.
    named |= {path for folder in found if folder.parent.name in PACKAGES for path in folder.glob("*.py")}
    modules = {path for package in PACKAGES for path in (ROOT / package).rglob("*.py") if "_bundle" not in path.parts}
    assert sorted(str(path.relative_to(ROOT)) for path in modules - named if path.name != "__init__.py") == []


def test_make_has_the_targets_that_are_named() -> None:
    targets = [words[1] for words in commands(PAPERS["CONTRIBUTING.md"]) if words[0] == "make" and len(words) > 1]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert targets == ["serve", "test", "format", "lock", "audit"]
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_the_selection_of_tests_selects_some() -> None:
    ((_, *arguments),) = [
        words for words in commands(section(PAPERS["CONTRIBUTING.md"], "Set up")) if Path(words[0]).name == "pytest"
    ]
    collected = subprocess.run(
        [sys.executable, "-m", "pytest", "--collect-only", "--quiet", *arguments],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert collected.returncode == 0, collected.stdout
    assert "::" in collected.stdout


class Checkout:
    """A copy of this checkout, with a database of its own, that follows the walks of CONTRIBUTING.md."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.written: set[Path] = set()
        for name in (*PACKAGES, "tests", "docs", "requirements"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for file in ROOT.iterdir():
            if file.is_file() and not file.name.startswith("."):  # least of all .env, which may name a real database
                shutil.copy2(file, folder)

    def follow(self, walk: str) -> list[str]:
        """Do what a walk says, in its order; gives the tests that it would run, which are left for later."""
        tests: list[str] = []
        for language, block in blocks(walk):
            if language == "sh":
                for program, *arguments in commands(f"```sh\n{block}```"):
                    if Path(program).name == "pytest":
                        tests += arguments
                    else:
                        self.run(program, *arguments)
            elif block.startswith("--- "):
                self.patch(block)
            else:
                self.write(block)
        return tests

    def run(self, program: str, *arguments: str) -> str:
        """Run a program of the environment, on the modules of this copy."""
        assert program.startswith(".venv/bin/")
        name = Path(program).name
        command = ["-m", "graphql_api"] if name == "forkpoint" else ["-m", "pytest"] if name == "pytest" else []
        done = subprocess.run(
            [sys.executable, *command, *arguments],
            cwd=self.folder,
            env=environment(DATABASE_URL=self.url, PYTHONPATH=str(self.folder)),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def write(self, block: str) -> None:
        """Write a file that the first line of a block names; a pattern names one that exists, and is empty still."""
        first, _, text = block.partition("\n")
        name = first.lstrip("#- ")
        if "*" in name:
            (file,) = self.folder.glob(name)
            assert file.read_text() == "-- migrate:up\n\n\n-- migrate:down\n\n"
        else:
            file = self.folder / name
            assert not file.exists()
        file.write_text(text)
        self.written.add(file)

    def patch(self, block: str) -> None:
        """Apply a diff without line numbers: the lines that it keeps must stand in the file once."""
        first, *lines = block.splitlines()
        file = self.folder / first.removeprefix("--- ")
        text = file.read_text()
        for hunk in "\n".join(lines).split("\n@@\n"):
            changes = [(line[:1] or " ", line[1:]) for line in hunk.split("\n")]
            assert {mark for mark, _ in changes} <= {" ", "+", "-"}, hunk
            before = "".join(f"{line}\n" for mark, line in changes if mark != "+")
            after = "".join(f"{line}\n" for mark, line in changes if mark != "-")
            assert f"\n{text}".count(f"\n{before}") == 1, f"{file.name}:\n{before}"
            text = f"\n{text}".replace(f"\n{before}", f"\n{after}").removeprefix("\n")
        file.write_text(text)
        self.written.add(file)


@pytest.fixture
def checkout(postgres: str, tmp_path: Path) -> Iterator[Checkout]:
    with empty_database(postgres) as url:
        yield Checkout(tmp_path / "copy", url)


def test_the_walks_lead_where_they_say(checkout: Checkout) -> None:
    walks = [section(PAPERS["CONTRIBUTING.md"], f"Add a {what}") for what in ("field", "query", "migration")]
    tests = [test for walk in walks for test in checkout.follow(walk)]
    assert rows(checkout.url, "select indexname from pg_indexes where indexname = 'contexts_root_idx'")
    checkout.run(".venv/bin/pytest", "-q", *dict.fromkeys(tests))
    # What the walks show is written as the rest of the code is.
    ruff = Path(sys.executable).with_name("ruff")
    python = [file for file in checkout.written if file.suffix == ".py"]
    for check in (["check"], ["format", "--check"]):
        subprocess.run([ruff, *check, *python], cwd=checkout.folder, check=True)
