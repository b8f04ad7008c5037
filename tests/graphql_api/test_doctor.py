"""The doctor: each planted fault is found, its remedy named, and no secret printed."""

import inspect
import json
import lzma
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from psycopg.conninfo import conninfo_to_dict

from db import preflight
from graphql_api import doctor
from graphql_api.doctor import CHECKS, Check
from schema import token_count
from schema.token_count import TokenCounter
from tests.db.migrating import Refusing, Relay, empty_database, plain_user, superuser, url_for
from tests.db.planting import old_server, paste, pooler

SECRET = "hunter2"
AFTER_URL = CHECKS[2:13]  # what a connection is needed for


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is set, there is no .env, and the tokenizer is loaded once for all tests that do not spoil it."""
    for name in os.environ:
        if name.startswith(("FORKPOINT_", "PG", "DATABASE_URL")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "TokenCounter", loaded)


@cache
def loaded(encoding: str) -> TokenCounter:
    return TokenCounter(encoding)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch, database_url: str) -> Callable[..., list[Check]]:
    """Examine a healthy database with these variables."""

    def examine(**variables: str) -> list[Check]:
        for name, value in ({"DATABASE_URL": database_url} | variables).items():
            monkeypatch.setenv(name, value)
        return doctor.examine()

    return examine


Given = Callable[..., list[Check]]


def complaints(checks: list[Check]) -> dict[str, str]:
    """Give the remedies of all that failed or is warned of."""
    return {check.name: str(check.remedy) for check in checks if check.status in {"failed", "warning"}}


def one(checks: list[Check], name: str) -> Check:
    """Give the check of a name, which must be the only one that has a complaint."""
    assert list(complaints(checks)) == [name]
    return next(check for check in checks if check.name == name)


# Health


def test_a_healthy_installation_is_well(given: Given, capsys: pytest.CaptureFixture[str]) -> None:
    checks = given()
    assert [(check.name, check.status, check.remedy) for check in checks] == [(name, "ok", None) for name in CHECKS]
    assert doctor.run(as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:-2]] == [["ok", name] for name in CHECKS]
    assert lines[-1] == "All is well."


def test_json_says_the_same_as_the_report(given: Given, capsys: pytest.CaptureFixture[str]) -> None:
    given(FORKPOINT_POOL_SIZE_MIN="17")
    assert doctor.run(as_json=True) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["status"] == "warning"
    assert [list(check) for check in answer["checks"]] == [["name", "status", "found", "remedy"]] * len(CHECKS)
    assert doctor.run(as_json=False) == 0
    report = capsys.readouterr().out
    for check in answer["checks"]:
        if check["name"] not in {"reachability", "clock"}:  # what they measure differs
            assert re.search(
                rf"^{check['status']} +{check['name']} +{re.escape(check['found'])}$", report, re.MULTILINE
            )
        assert check["remedy"] is None or f"-> {check['remedy']}\n" in report
    assert report.endswith("\n0 failed, 1 to be warned of.\n")


def test_colours_are_for_terminals_that_want_them(
    given: Given, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given(TERM="xterm")
    doctor.run(as_json=False)
    assert "\x1b" not in capsys.readouterr().out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    doctor.run(as_json=False)
    assert "\x1b[32mok     \x1b[0m  settings " in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    doctor.run(as_json=False)
    assert "\x1b" not in capsys.readouterr().out


def test_the_embedded_server_needs_nothing_done(
    postgres: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (socket_folder,) = parse_qs(urlsplit(postgres).query)["host"]
    monkeypatch.setenv("FORKPOINT_HOME", str(Path(socket_folder).parent))
    assert doctor.run(as_json=False) == 0
    report = capsys.readouterr().out
    assert "DATABASE_URL is not set, so the embedded server is used." in report
    assert "`forkpoint serve` applies them." in report
    assert report.endswith("All is well.\n")

    low = doctor.examine(disk_bytes_low=1 << 60, disk_bytes_min=0)
    assert one(low, "disk").status == "warning"
    full = one(doctor.examine(disk_bytes_low=1 << 60, disk_bytes_min=1 << 60), "disk")
    assert full.status == "failed"
    assert re.fullmatch(r"Only [\d,]+ MiB are free for /.*\.", full.found)
    assert re.fullmatch(
        r"Free [\d,]+ MiB there, or name a folder on another disk in FORKPOINT_HOME\.", str(full.remedy)
    )


def test_an_embedded_server_that_cannot_start_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("FORKPOINT_HOME", str(tmp_path / "file" / "home"))
    checks = doctor.examine()
    assert complaints(checks) == {"reachability": "Mend that, name another folder, or set DATABASE_URL."}
    assert {check.name for check in checks if check.status == "skipped"} == set(AFTER_URL) - {"reachability"}


# Settings


def test_settings_that_cannot_be_read_are_named_without_their_values(
    given: Given, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = given(FORKPOINT_PORT=SECRET, FORKPOINT_POOL_SIZE_MAX="0")
    assert checks[0] == Check(
        "settings",
        "failed",
        "FORKPOINT_PORT: input should be a valid integer, unable to parse string as an integer; "
        "FORKPOINT_POOL_SIZE_MAX: input should be greater than or equal to 1.",
        "Correct FORKPOINT_PORT, FORKPOINT_POOL_SIZE_MAX in the environment or in .env.",
    )
    assert checks[1:] == [Check(name, "skipped", "because settings failed", None) for name in CHECKS[1:]]
    assert doctor.run(as_json=False) == 1
    assert "skipped  url             (because settings failed)\n" in capsys.readouterr().out


def test_a_file_of_settings_that_is_no_text_is_found(given: Given, tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"FORKPOINT_PORT=\xff")
    assert one(given(), "settings") == Check(
        "settings", "failed", "The file .env cannot be read: it is no text in UTF-8.", "Mend it, or take it away."
    )


def test_a_variable_that_is_no_setting_is_named_with_the_likely_one(given: Given, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FORKPOINT_POOL_MAX=3\n")
    assert one(given(FORKPOINT_DATABASE_URL=f"postgresql://u:{SECRET}@h/x"), "settings") == Check(
        "settings",
        "warning",
        "FORKPOINT_DATABASE_URL, FORKPOINT_POOL_MAX is no setting and is passed over.",
        "Write DATABASE_URL, FORKPOINT_POOL_SIZE_MAX, or take it away.",
    )


@pytest.mark.parametrize(
    ("variables", "status", "words", "remedy"),
    [
        (
            {"FORKPOINT_POOL_SIZE_MIN": "20"},
            "warning",
            "FORKPOINT_POOL_SIZE_MIN (20) is above FORKPOINT_POOL_SIZE_MAX (8).",
            "Set FORKPOINT_POOL_SIZE_MIN=8 or less.",
        ),
        (
            {"FORKPOINT_APPEND_BYTES_MAX": "10485760"},
            "warning",
            "FORKPOINT_BODY_BYTES_MAX (52428800) refuses what FORKPOINT_APPEND_BYTES_MAX (10485760) allows",
            "Set FORKPOINT_BODY_BYTES_MAX=65011712.",
        ),
        (
            {"FORKPOINT_HOST": "0.0.0.0"},  # noqa: S104
            "failed",
            "FORKPOINT_HOST (0.0.0.0) lets other machines in, and there is no authentication.",
            "Set FORKPOINT_AUTHENTICATION=keys or jwt, or FORKPOINT_HOST=127.0.0.1.",
        ),
        (
            {"FORKPOINT_SHUTDOWN_SECONDS": "5"},
            "warning",
            "FORKPOINT_MUTATION_SECONDS (30) is above FORKPOINT_SHUTDOWN_SECONDS (5)",
            "Set FORKPOINT_SHUTDOWN_SECONDS=30.",
        ),
        (
            {"FORKPOINT_HEALTH_SECONDS": "40"},
            "warning",
            "FORKPOINT_HEALTH_SECONDS (40) is above FORKPOINT_QUERY_SECONDS (10)",
            "Set FORKPOINT_HEALTH_SECONDS=10 or less.",
        ),
        (
            {"DATABASE_URL": "", "FORKPOINT_MIGRATE_URL": f"postgresql://u:{SECRET}@h/x", "FORKPOINT_PORT": "1"},
            "failed",
            "FORKPOINT_MIGRATE_URL is set without DATABASE_URL",
            "Set DATABASE_URL as well, or take FORKPOINT_MIGRATE_URL away.",
        ),
        (
            {"FORKPOINT_TRUSTED_DOCUMENTS_ONLY": "true"},
            "failed",
            "FORKPOINT_TRUSTED_DOCUMENTS_ONLY is set without FORKPOINT_TRUSTED_DOCUMENTS: the service does not start.",
            "Set FORKPOINT_TRUSTED_DOCUMENTS as well, or take FORKPOINT_TRUSTED_DOCUMENTS_ONLY away.",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_named(
    given: Given, postgres: str, variables: dict[str, str], status: str, words: str, remedy: str
) -> None:
    (socket_folder,) = parse_qs(urlsplit(postgres).query)["host"]
    found = one(given(FORKPOINT_HOME=str(Path(socket_folder).parent), **variables), "limits")
    assert found.status == status
    assert words in found.found
    assert found.remedy == remedy


def test_contradictions_are_told_together(given: Given) -> None:
    found = one(given(FORKPOINT_POOL_SIZE_MIN="20", FORKPOINT_HOST="::"), "limits")
    assert found.remedy == (
        "Set FORKPOINT_POOL_SIZE_MIN=8 or less. Set FORKPOINT_AUTHENTICATION=keys or jwt, or FORKPOINT_HOST=127.0.0.1."
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.1.2.3"])
def test_this_machine_alone_is_no_one_else(given: Given, host: str) -> None:
    assert complaints(given(FORKPOINT_HOST=host)) == {}


def test_processes_are_counted_against_what_the_server_allows(given: Given) -> None:
    given()
    checks = doctor.examine(workers=7)
    assert one(checks, "connections").found == (
        "7 processes take up to 154 connections of the 97 that the server allows."
    )


# The way to the database


def test_a_url_that_cannot_be_read_is_found(given: Given) -> None:
    checks = given(DATABASE_URL=f"postgresql://u:{SECRET}@[::1/x")
    assert complaints(checks) == {
        "url": "Write DATABASE_URL as postgresql://USER:PASSWORD@HOST:5432/DATABASE, "
        "with special characters percent-encoded and only parameters that libpq knows."
    }
    assert [check.name for check in checks if check.found == "because url failed"] == list(AFTER_URL)


def test_a_server_that_cannot_be_reached_is_found(given: Given) -> None:
    checks = given(DATABASE_URL=f"postgresql://u:{SECRET}@127.0.0.1:1/x")
    assert complaints(checks) == {"reachability": "Start it, or correct DATABASE_URL."}
    assert [check.name for check in checks if check.found == "because reachability failed"] == list(AFTER_URL[1:])


def test_a_wrong_password_is_found(given: Given) -> None:
    with Refusing('password authentication failed for user "u"') as server:
        checks = given(DATABASE_URL=f"postgresql://u:{SECRET}@127.0.0.1:{server.port}/x")
    assert complaints(checks) == {"reachability": "Correct the user or password in DATABASE_URL."}


def test_a_missing_role_and_a_missing_database_are_found(given: Given, postgres: str) -> None:
    checks = given(DATABASE_URL=url_for(postgres, "postgres", "no_such_user"))
    assert complaints(checks) == {"reachability": "Correct the user or password in DATABASE_URL."}
    checks = given(DATABASE_URL=url_for(postgres, "no_such_database"))
    assert complaints(checks) == {"reachability": "Create it, or correct DATABASE_URL."}


def test_a_server_too_old_is_found(given: Given, database_url: str) -> None:
    with old_server(database_url) as server:
        checks = given(DATABASE_URL=server.url())
    found = one(checks, "version")
    assert Check("pgvector", "skipped", "because version failed", None) in checks
    assert re.fullmatch(r"PostgreSQL 15\.\d+.* is too old: 16 or later is needed\.", found.found)
    assert found.remedy == "Upgrade the server, or name a newer one in DATABASE_URL."


def test_a_pooler_is_found(given: Given, database_url: str) -> None:
    with pooler(database_url) as way:
        found = one(given(DATABASE_URL=way.url()), "pooler")
    assert found.status == "warning"
    assert found.remedy == "Set FORKPOINT_MIGRATE_URL to a URL of the same database that goes around the pooler."
    with Relay(database_url) as relay:
        url = relay.url(host="db-pooler.invalid", hostaddr="127.0.0.1")
        assert one(given(DATABASE_URL=url), "pooler").remedy == found.remedy
        assert complaints(given(DATABASE_URL=url, FORKPOINT_MIGRATE_URL=database_url)) == {}


# The database


def test_a_server_without_pgvector_is_found(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "EXTENSION", "no_such_extension")
    found = one(given(), "pgvector")
    assert found.found == "pgvector is missing on the server: the extension vector is not available."
    assert re.fullmatch(
        r"Install the package postgresql-\d+-pgvector there, or use a managed service that has pgvector\.",
        str(found.remedy),
    )


def test_pending_migrations_and_an_extension_that_is_not_created_are_found(given: Given, postgres: str) -> None:
    with empty_database(postgres) as url:
        assert complaints(given(DATABASE_URL=url)) == {
            "pgvector": "Run `forkpoint migrate up`, which creates it.",
            "migrations": "Run `forkpoint migrate up`.",
        }


def test_a_version_that_this_program_does_not_know_is_found(given: Given, database_url: str) -> None:
    with superuser(database_url) as connection:
        connection.execute("insert into schema_migrations values ('29990101000000')")
    assert one(given(), "migrations") == Check(
        "migrations",
        "failed",
        "The database is newer than this program: no file here knows its migration 29990101000000.",
        "Install the newer release that brought it.",
    )


@pytest.fixture
def plain_url(database_url: str) -> Iterator[str]:
    with plain_user(database_url) as role:
        yield url_for(database_url, str(conninfo_to_dict(database_url)["dbname"]), role)


def test_a_role_without_rights_is_found_and_the_remedies_mend_it(
    given: Given, database_url: str, plain_url: str
) -> None:
    complained = complaints(given(DATABASE_URL=plain_url))
    assert set(complained) == {"migrate-rights", "write-rights"}
    assert complained["write-rights"].startswith("Run `grant select on schema_migrations to plain_")
    assert complained["migrate-rights"].startswith("Run `grant create on schema public to plain_")
    paste(database_url, complained["write-rights"])
    assert complaints(given(DATABASE_URL=plain_url, FORKPOINT_MIGRATE_URL=database_url)) == {}


def test_a_read_only_database_is_found_and_the_remedy_mends_it(given: Given, database_url: str) -> None:
    paste(
        database_url,
        f"`alter database {conninfo_to_dict(database_url)['dbname']} set default_transaction_read_only = on;`",
    )
    found = one(given(), "read-write")
    assert found.status == "failed"
    paste(f"{database_url}&options=-cdefault_transaction_read_only%3Doff", found.remedy)
    assert complaints(given()) == {}


def test_a_clock_that_is_off_is_found(given: Given) -> None:
    given()
    found = one(doctor.examine(clock_seconds_max=-1), "clock")
    assert found.status == "warning"
    assert found.remedy == "Synchronise the one that is wrong, on Linux by `timedatectl set-ntp true`."


# The tokenizer


@pytest.mark.parametrize("encoding", ["o200k_base", "cl100k_base"])
def test_the_known_text_has_the_known_count(encoding: str) -> None:
    assert loaded(encoding).count(doctor.KNOWN_TEXT) == doctor.KNOWN_COUNTS[encoding]


def missing(_file: Path, _table: bytes) -> None:
    pass


def truncated(file: Path, table: bytes) -> None:
    file.write_bytes(lzma.compress(table, preset=0)[:-100])


def shifted(file: Path, table: bytes) -> None:
    """Leave the multi-byte tokens out."""
    file.write_bytes(lzma.compress(b"\n".join(table.splitlines()[:256]), preset=0))


def without_bytes(file: Path, table: bytes) -> None:
    """Leave the single bytes out: tiktoken panics."""
    file.write_bytes(lzma.compress(b"\n".join(table.splitlines()[256:1000]), preset=0))


@pytest.mark.parametrize("spoil", [missing, truncated, shifted, without_bytes])
def test_a_vocabulary_that_is_spoilt_is_found(
    given: Given, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, spoil: Callable[[Path, bytes], None]
) -> None:
    spoil(tmp_path / "cl100k_base.tiktoken.xz", token_count.read_table("cl100k_base"))
    monkeypatch.setattr(token_count, "FOLDER", tmp_path)
    # What other tests have loaded in this process stays what it is.
    monkeypatch.setattr(token_count, "_encoding", inspect.unwrap(token_count._encoding))  # noqa: SLF001
    monkeypatch.setattr(doctor, "TokenCounter", TokenCounter)
    found = one(given(FORKPOINT_TOKEN_ENCODING="cl100k_base"), "tokenizer")
    assert found.found.startswith("The vocabulary cl100k_base c")
    assert found.remedy == "Install forkpoint again: `pip install --force-reinstall --no-deps forkpoint`."


# Secrets


def test_no_secret_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], database_url: str
) -> None:
    with ExitStack() as stack:
        refusing = stack.enter_context(Refusing('password authentication failed for user "u"'))
        relay = stack.enter_context(Relay(database_url))
        bad = [
            f"postgresql://u:{SECRET}@[::1/x",
            f"postgresql://u:hun@{SECRET}@localhost/x",
            f"postgresql://u:{SECRET}@127.0.0.1:1/x",
            f"postgresql://u:{SECRET}@127.0.0.1:{refusing.port}/x",
            f"postgresql://no_such_user:{SECRET}@127.0.0.1:{relay.port}/x",
            f"host=127.0.0.1 port=1 password={SECRET}",
            f"postgresql://127.0.0.1:1/x?password={SECRET}",
            f"postgresql://u:{SECRET}@127.0.0.1/x?{SECRET}=1",
        ]
        for url in bad:
            for variables in ({"DATABASE_URL": url}, {"DATABASE_URL": database_url, "FORKPOINT_MIGRATE_URL": url}):
                with monkeypatch.context() as patched:
                    for name, value in variables.items():
                        patched.setenv(name, value)
                    for as_json in (True, False):
                        assert doctor.run(as_json=as_json) == 1
    printed = capsys.readouterr()
    assert SECRET not in printed.out + printed.err
