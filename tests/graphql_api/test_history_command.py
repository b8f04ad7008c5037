"""`forkpoint export` and `forkpoint import` as their users run them: files, pipes, signals, and what is said."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests import program
from tests.client import Api
from tests.graphql_api.histories import FORK, ROOT, context, empty, fork_at, message, text_of, tree
from tests.program import PROGRAM, environment
from tests.schema.calls import UNKNOWN, create, fork, read, say, stored

SMALL = text_of([tree(), context(name="Tides"), message(1, "é"), fork_at(1)])


def run(folder: Path, url: str, *arguments: str, given: str | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run the program to its end; `given` is its standard input."""
    return subprocess.run(
        [*PROGRAM, *arguments],
        cwd=folder,
        env=environment(DATABASE_URL=url),
        input=None if given is None else given.encode(),
        stdin=subprocess.DEVNULL if given is None else None,
        capture_output=True,
        check=False,
        timeout=120,
    )


def refused(folder: Path, url: str, *arguments: str) -> str:
    """Run what cannot work; gives what it says."""
    done = run(folder, url, *arguments)
    assert done.returncode == 1, done
    assert b"Traceback" not in done.stdout + done.stderr
    return done.stderr.decode()


def test_what_is_exported_to_a_file_is_imported_from_it(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "small.jsonl").write_text(SMALL)
    done = run(tmp_path, database_url, "import", "small.jsonl")
    assert done.returncode == 0, done
    assert done.stdout.decode().splitlines()[-2:] == [
        "Imported 1 tree from small.jsonl: 2 contexts, 1 message.",
        f"  {ROOT}  Tides",
    ]
    rows = stored(database_url)
    done = run(tmp_path, database_url, "export", FORK, ROOT, FORK, "--output", "whole.jsonl")
    assert done.returncode == 0, done
    assert done.stdout.decode().splitlines()[-1] == "Exported 1 tree: 2 contexts, 1 message."
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.jsonl", "whole.jsonl"]
    empty(database_url)
    assert run(tmp_path, database_url, "import", "whole.jsonl").returncode == 0
    assert stored(database_url) == rows


def test_standard_output_holds_the_lines_and_nothing_else(database_url: str, tmp_path: Path) -> None:
    assert run(tmp_path, database_url, "import", "-", given=SMALL).returncode == 0
    done = run(tmp_path, database_url, "export", ROOT)
    kinds = [json.loads(line)["kind"] for line in done.stdout.decode().removesuffix("\n").split("\n")]
    assert kinds == ["tree", "context", "message", "context"]
    assert "Exporting messages: 1 of 1" in done.stderr.decode()
    # Through a pipe, under new ids.
    done = run(tmp_path, database_url, "import", "-", "--remap", given=done.stdout.decode())
    assert "Imported 1 tree from standard input: 2 contexts, 1 message." in done.stdout.decode()


def test_histories_belong_to_a_tenant(database_url: str, tmp_path: Path) -> None:
    for tenant in ("acme", "other"):  # the same ids, and nobody minds
        assert run(tmp_path, database_url, "import", "-", "--tenant", tenant, given=SMALL).returncode == 0
    with psycopg.connect(database_url) as connection:
        found = connection.execute("select tenant_id, count(*) from contexts group by 1 order by 1").fetchall()
    assert found == [("acme", 2), ("other", 2)]
    done = run(tmp_path, database_url, "export", ROOT, "--tenant", "acme")
    assert [json.loads(line)["kind"] for line in done.stdout.splitlines()] == ["tree", "context", "message", "context"]
    said = refused(tmp_path, database_url, "export", ROOT)
    assert said.endswith(f"There is no context {ROOT}.\n")
    said = refused(tmp_path, database_url, "import", "none.jsonl", "--tenant", "*")
    assert said.startswith("--tenant names no tenant.")


def test_the_embedded_server_does_not_speak_between_the_lines(postgres: str) -> None:
    del postgres  # only so that nothing starts at the same time
    with program.folder_for_all() as folder:
        (folder / "small.jsonl").write_text(SMALL)
        assert program.run(folder, "import", "small.jsonl").returncode == 0
        done = program.run(folder, "export", ROOT)
        assert done.stdout.startswith('{"kind":"tree"')
        assert "Starting PostgreSQL…" in done.stderr


async def test_each_tree_is_written_once_whichever_of_its_contexts_are_named(
    api: Api, database_url: str, tmp_path: Path
) -> None:
    one, other = await create(api, say()), await create(api)
    its_fork = await fork(api, one["id"])
    done = run(tmp_path, database_url, "export", its_fork["id"], other["id"], one["id"])
    ids = [json.loads(line)["id"] for line in done.stdout.splitlines() if b'"kind":"tree"' in line]
    assert ids == [one["id"], other["id"]]


def test_an_export_that_cannot_be_leaves_the_file_as_it_was(database_url: str, tmp_path: Path) -> None:
    assert run(tmp_path, database_url, "import", "-", given=SMALL).returncode == 0
    (tmp_path / "old.jsonl").write_text("old")
    said = refused(tmp_path, database_url, "export", ROOT, UNKNOWN, "--output", "old.jsonl")
    assert said.endswith(f"There is no context {UNKNOWN}.\n")
    said = refused(tmp_path, database_url, "export", "1", "--output", "old.jsonl")
    assert said.endswith("'1' is not an id. Ids look like 0198c0de-7d0e-7000-8000-000000000000.\n")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
    said = refused(tmp_path, database_url, "export", ROOT, "--output", "none/new.jsonl")
    assert said.endswith("none/new.jsonl cannot be written: No such file or directory.\n")
    assert run(tmp_path, database_url, "export", ROOT, "--output", os.devnull).returncode == 0
    assert not Path(os.devnull).is_file()


def test_what_cannot_be_read_is_told_in_a_line(database_url: str, tmp_path: Path) -> None:
    assert refused(tmp_path, database_url, "import", "none.json").endswith(
        "none.json cannot be read: No such file or directory.\n"
    )
    assert refused(tmp_path, database_url, "import", ".").endswith(". cannot be read: Is a directory.\n")
    done = run(tmp_path, database_url, "import", "-", "--format", "word")
    assert done.returncode == 2
    assert b"it must be one of auto, forkpoint, openai, anthropic, chatgpt." in done.stderr


def test_a_refused_tree_is_told_in_a_line_and_the_others_are_stored(database_url: str, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text(text_of([tree(), context(), message(2)]))
    (tmp_path / "good.json").write_text(json.dumps([{"role": "user", "content": "hi"}]))
    done = run(tmp_path, database_url, "import", "bad.jsonl", "good.json")
    assert done.returncode == 1
    assert done.stderr.decode() == (
        "bad.jsonl line 3: version is 2, but 1 comes next. Versions have no gaps and stand in order. "
        "Nothing of its tree is stored.\n"
    )
    assert "Imported 0 trees from bad.jsonl" in done.stdout.decode()
    assert "Imported 1 tree from good.json: 1 context, 1 message." in done.stdout.decode()
    assert len(stored(database_url)) == 3


@contextmanager
def import_underway(folder: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run an import that has copied a good part of a tree and waits for the rest of its lines."""
    lines = text_of([tree(), context(), *[message(version, "x" * 400) for version in range(1, 10_001)]])
    with subprocess.Popen(
        [*PROGRAM, "import", "-"],
        cwd=folder,
        env=environment(DATABASE_URL=url),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(lines.encode())
            process.stdin.flush()
            with psycopg.connect(url, autocommit=True) as watcher:
                text = "select from pg_stat_activity where state = 'idle in transaction'"
                text += " and query like 'insert into messages%'"
                deadline = time.monotonic() + 60
                while not watcher.execute(text + " and datname = current_database()").rowcount:
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 130)])
def test_an_import_that_is_stopped_leaves_nothing(
    database_url: str, tmp_path: Path, number: signal.Signals, status: int
) -> None:
    with import_underway(tmp_path, database_url) as process:
        process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    assert process.returncode == status
    assert b"Traceback" not in output + errors
    with psycopg.connect(database_url, autocommit=True) as watcher:
        text = "select from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        while watcher.execute(text).rowcount:
            time.sleep(0.01)
    assert stored(database_url) == []


def test_an_import_that_loses_its_database_says_so(database_url: str, tmp_path: Path) -> None:
    with import_underway(tmp_path, database_url) as process:
        with psycopg.connect(database_url, autocommit=True) as other:
            other.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert b"Traceback" not in errors
    assert errors.decode().endswith(
        "The database cannot be reached just now. Nothing was lost that was acknowledged; try again.\n"
    )
    assert stored(database_url) == []


def test_a_reader_that_goes_away_ends_an_export(database_url: str, tmp_path: Path) -> None:
    lines = [message(version, "x" * 10_000) for version in range(1, 101)]
    assert run(tmp_path, database_url, "import", "-", given=text_of([tree(), context(), *lines])).returncode == 0
    with subprocess.Popen(
        [*PROGRAM, "export", ROOT],
        cwd=tmp_path,
        env=environment(DATABASE_URL=database_url),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr is not None
        errors = process.stderr.read()
    assert process.returncode == 1
    assert b"Traceback" not in errors


def test_on_a_terminal_a_bar_is_drawn_beside_the_data(database_url: str, tmp_path: Path) -> None:
    assert run(tmp_path, database_url, "import", "-", given=SMALL).returncode == 0
    ours, theirs = os.openpty()
    done = subprocess.run(
        [*PROGRAM, "export", ROOT],
        cwd=tmp_path,
        env=environment(DATABASE_URL=database_url, TERM="xterm"),
        stdout=subprocess.PIPE,
        stderr=theirs,
        check=True,
    )
    os.close(theirs)
    drawn = os.read(ours, 65_536).decode()
    os.close(ours)
    assert "Exporting messages" in drawn
    assert "\x1b[" in drawn
    assert [json.loads(line)["kind"] for line in done.stdout.splitlines()] == ["tree", "context", "message", "context"]


def large(contexts: int, own: int, late: int) -> Iterator[dict[str, Any]]:
    """Give a tree that is one line of descent, each context with calls and results, some answered much later."""
    ids = [f"0198c0de-7d0e-7000-8000-{number:012x}" for number in range(contexts)]
    yield tree(root=ids[0], contextCount=contexts, messageCount=contexts * own)
    version = 0
    for number, context_id in enumerate(ids):
        yield context(context_id) if not number else fork_at(version, context_id, ids[number - 1])
        for _ in range(own):
            version += 1
            called = {"id": f"call {version}", "name": "f", "arguments": {"n": version}}
            match version % 4:
                case 1:
                    yield message(version, "What now? " * 20)
                case 2:
                    yield message(version, "I look.", role="ASSISTANT", toolCalls=[called])
                case 3:
                    yield message(version, "so it is", role="TOOL", toolCallId=f"call {version - 1}")
                case _:
                    yield message(version, "late", role="TOOL", toolCallId=f"call {max(version - late, 0) + 2}")


@pytest.mark.long
@pytest.mark.parametrize(("contexts", "own", "late"), [(1, 100_000, 1_000), (9_900, 2, 40)])
async def test_a_large_tree_comes_back_as_it_was(
    api: Api, database_url: str, tmp_path: Path, contexts: int, own: int, late: int
) -> None:
    (tmp_path / "first.jsonl").write_text("".join(json.dumps(line) + "\n" for line in large(contexts, own, late)))
    root = "0198c0de-7d0e-7000-8000-000000000000"
    tip = f"0198c0de-7d0e-7000-8000-{contexts - 1:012x}"
    assert run(tmp_path, database_url, "import", "first.jsonl").returncode == 0
    assert run(tmp_path, database_url, "export", root, "--output", "second.jsonl").returncode == 0
    assert (await read(api, tip))["messageCount"] == contexts * own
    with psycopg.connect(database_url) as connection:
        wrong = """
            select count(*) from messages m where m.role = 'tool'
            and m.call_version is distinct from case when m.version %% 4 = 3 then m.version - 1
              else greatest(m.version - %s, 0) + 2 end
        """
        assert connection.execute(wrong, (late,)).fetchone() == (0,)
    rows = stored(database_url)
    empty(database_url)
    assert run(tmp_path, database_url, "import", "second.jsonl").returncode == 0
    assert stored(database_url) == rows
