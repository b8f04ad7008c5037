import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from db.migrate import LOCK_KEY
from graphql_api import __version__
from graphql_api.settings import Settings
from schema import root
from tests.db.migrating import empty_database
from tests.program import PROGRAM, environment, folder_for_all, refusal, run

NOWHERE = "postgresql://127.0.0.1:1/nowhere"


@pytest.fixture
def empty_url(postgres: str) -> Iterator[str]:
    with empty_database(postgres) as url:
        yield url


def commands(help_text: str) -> list[str]:
    _, _, listed = help_text.partition("Commands:\n")
    return re.findall(r"^  ([a-z-]+)  +\S", listed.partition("\n\n")[0], re.MULTILINE)


def test_help_describes_every_command_and_every_option(tmp_path: Path) -> None:
    seen = []
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        path = waiting.pop()
        text = run(tmp_path, *path, "--help").stdout
        seen.append(" ".join(path))
        _, _, options = text.partition("Options:\n")
        shown = re.findall(r"^  (?:-\S, )?(--.+)$", options, re.MULTILINE)
        # A description stands in its column, on the same line or, after a long flag, on the next.
        assert all(re.search(r"\S {2,}\S", line) for line in shown), (path, shown)
        waiting += [(*path, name) for name in commands(text)]
    assert {"", "serve", "export-schema", "migrate", "migrate up", "migrate new"} <= set(seen)


def test_help_names_every_environment_variable_with_its_meaning(tmp_path: Path) -> None:
    text = " ".join(run(tmp_path, "--help").stdout.split())
    for name, field in Settings.model_fields.items():
        variable = "DATABASE_URL" if name == "database_url" else f"FORKPOINT_{name.upper()}"
        assert f"{variable} {field.description}" in text


def test_version_is_that_of_the_package(tmp_path: Path) -> None:
    assert run(tmp_path, "--version").stdout == f"forkpoint {__version__}\n"


def test_the_installed_command_is_the_same_program(tmp_path: Path) -> None:
    command = Path(sys.executable).with_name("forkpoint")
    done = subprocess.run([command, "--help"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == run(tmp_path, "--help").stdout


def test_help_needs_neither_the_schema_nor_the_server() -> None:
    heavy = "{'strawberry', 'uvicorn', 'psycopg', 'starlette', 'rich'}"
    code = f"import sys; from graphql_api import cli, commands; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["serve", "--port", "70000"],
        ["serve", "--port", "http"],
        ["serve", "--workers", "0"],
        ["serve", "--workers", "2", "--reload"],
        ["serve", "now"],
        ["migrate", "sideways"],
        ["migrate", "new"],
        ["unknown"],
    ],
)
def test_wrong_usage_exits_with_2_and_shows_the_usage(tmp_path: Path, arguments: list[str]) -> None:
    done = run(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: forkpoint ")
    assert "Traceback" not in done.stderr


def test_export_schema_writes_the_schema_to_standard_output(tmp_path: Path) -> None:
    assert run(tmp_path, "export-schema").stdout == root.sdl()


def test_export_schema_writes_a_file_and_checks_it(tmp_path: Path) -> None:
    file = tmp_path / "schema.graphql"
    stale = "schema.graphql is stale. Run `forkpoint export-schema --output schema.graphql`.\n"
    assert refusal(tmp_path, "export-schema", "--check") == stale
    assert run(tmp_path, "export-schema", "--output", "schema.graphql").returncode == 0
    assert file.read_text() == root.sdl()
    assert run(tmp_path, "export-schema", "--check").returncode == 0
    file.write_text(f"{file.read_text()}\n# more")
    assert refusal(tmp_path, "export-schema", "--check") == stale


def test_export_schema_tells_where_it_cannot_write(tmp_path: Path) -> None:
    said = refusal(tmp_path, "export-schema", "--output", "missing/schema.graphql")
    assert said == (
        "missing/schema.graphql cannot be used: No such file or directory. Name another file with --output.\n"
    )


def test_each_bad_setting_gets_a_line_without_its_value(tmp_path: Path) -> None:
    said = refusal(tmp_path, "migrate", "status", FORKPOINT_PORT="secret1", FORKPOINT_LOG_LEVEL="secret2")
    assert said == (
        "FORKPOINT_PORT cannot be used: input should be a valid integer, unable to parse string as an integer.\n"
        "FORKPOINT_LOG_LEVEL cannot be used: input should be 'debug', 'info', 'warning' or 'error'.\n"
    )


def test_a_setting_of_the_env_file_counts_and_the_environment_goes_before_it(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FORKPOINT_PORT=nothing\n")
    assert refusal(tmp_path, "serve") == (
        "FORKPOINT_PORT cannot be used: input should be a valid integer, unable to parse string as an integer.\n"
    )
    assert "cannot be reached" in refusal(tmp_path, "migrate", "status", FORKPOINT_PORT="8000", DATABASE_URL=NOWHERE)


def test_an_env_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"FORKPOINT_PORT=\xff\n")
    assert refusal(tmp_path, "serve") == (
        "The file .env cannot be read: it is no text in UTF-8. Mend it, or take it away.\n"
    )


def test_migrate_goes_up_and_down_and_tells_where_it_stands(tmp_path: Path, empty_url: str) -> None:
    def migrate(command: str) -> list[str]:
        done = run(tmp_path, "migrate", command, DATABASE_URL=empty_url)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    waiting = migrate("status")
    assert [line.split()[0] for line in waiting] == ["pending"] * len(waiting)
    assert len(waiting) > 1
    names = [line.removeprefix("pending  ").replace("  ", " ") for line in waiting]
    assert migrate("up") == [
        f"Applying {len(waiting)} migrations…",
        *(f"Applied {name}" for name in names),
        "The database is up to date.",
    ]
    assert migrate("up") == ["The database is up to date."]
    assert migrate("down") == [f"Rolled back {names[-1]}"]
    assert [line.split()[0] for line in migrate("status")] == [*["applied"] * (len(waiting) - 1), "pending"]
    for name in reversed(names[:-1]):
        assert migrate("down") == [f"Rolled back {name}"]
    assert migrate("down") == ["There is nothing to roll back."]


def test_the_migrate_url_goes_before_the_database_url(tmp_path: Path, empty_url: str) -> None:
    assert run(tmp_path, "migrate", "up", DATABASE_URL=NOWHERE, FORKPOINT_MIGRATE_URL=empty_url).returncode == 0
    said = refusal(tmp_path, "migrate", "status", DATABASE_URL=empty_url, FORKPOINT_MIGRATE_URL=NOWHERE)
    assert said.startswith("The database at 127.0.0.1:1 cannot be reached: ")
    assert said.endswith(". Start it, or correct FORKPOINT_MIGRATE_URL.\n")


def test_without_a_url_migrate_starts_the_embedded_database_and_stops_it() -> None:
    with folder_for_all() as folder:
        assert run(folder, "migrate", "up", FORKPOINT_HOME="home").returncode == 0
        lines = run(folder, "migrate", "status", FORKPOINT_HOME=str(folder / "home")).stdout.splitlines()
        assert {line.split()[0] for line in lines} == {"applied"}
        assert (folder / "home" / "data").exists()
        assert not (folder / "home" / "data" / "postmaster.pid").exists()


def test_dump_needs_a_database_and_new_does_not(tmp_path: Path) -> None:
    assert "cannot be reached" in refusal(tmp_path, "migrate", "dump", DATABASE_URL=NOWHERE)
    said = refusal(tmp_path, "migrate", "new", "!?", DATABASE_URL=NOWHERE)
    assert said.startswith("The name '!?' has no letters or digits.")


def test_an_interrupted_migration_exits_with_130_and_says_nothing(tmp_path: Path, empty_url: str) -> None:
    with psycopg.connect(empty_url, autocommit=True) as holder:
        holder.execute("select pg_advisory_lock(%s)", [LOCK_KEY])
        with subprocess.Popen(
            [*PROGRAM, "migrate", "up"],
            cwd=tmp_path,
            env=environment(DATABASE_URL=empty_url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("Applying")
            time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=10)
    assert (process.returncode, said) == (130, "")
