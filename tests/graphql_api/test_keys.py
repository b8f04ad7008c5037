"""`forkpoint keys` as operators run it: it prints a key once, and shows none anywhere else."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from db.pool import Database, PoolLimits
from graphql_api import keys
from graphql_api.api_keys import ApiKeys
from graphql_api.terminal import CommandError
from schema.api_key_text import KeyName, read_name
from schema.errors import Unauthenticated
from schema.principal import Principal, Scope
from tests.conftest import with_database
from tests.program import refusal, run

LIMITS = PoolLimits(size_min=1, size_max=1, wait_seconds=20, connect_seconds=5, statement_seconds=30)
KEY = re.compile(r"fpk_[\w.-]+\n")


def create(folder: Path, url: str, *arguments: str) -> tuple[str, KeyName]:
    """Make a key; gives it and which one it is."""
    done = run(folder, "keys", "create", *arguments, DATABASE_URL=url)
    assert done.returncode == 0, done
    assert KEY.fullmatch(done.stdout), done
    name = read_name(done.stdout.strip())
    assert name is not None
    assert f"Made the key {name.id} of the tenant {name.tenant_id}" in done.stderr
    assert "shown this once" in done.stderr
    assert done.stdout.strip()[-43:] not in done.stderr
    return done.stdout.strip(), name


def listed(folder: Path, url: str, *arguments: str) -> list[dict[str, object]]:
    done = run(folder, "keys", "list", "--json", *arguments, DATABASE_URL=url)
    assert done.returncode == 0, done
    return [json.loads(line) for line in done.stdout.splitlines()]


async def principal(url: str, key: str) -> Principal:
    database = Database(url, LIMITS)
    await database.open()
    try:
        return await ApiKeys(database).principal(key)
    finally:
        await database.close()


async def test_a_key_is_made_listed_used_and_revoked(tmp_path: Path, database_url: str) -> None:
    key, name = create(tmp_path, database_url, "--tenant", "acme", "--name", "chat", "--scopes", "write, read")
    assert name.tenant_id == "acme"
    wanted = Principal("acme", frozenset({Scope.READ, Scope.WRITE}), f"key {name.id}")
    assert await principal(database_url, key) == wanted
    (record,) = listed(tmp_path, database_url, "--tenant", "acme")
    assert datetime.fromisoformat(str(record.pop("created_at"))).tzinfo is not None
    assert record == {
        "id": str(name.id),
        "name": "chat",
        "scopes": ["read", "write"],
        "expires_at": None,
        "revoked_at": None,
        "last_used_at": None,
    }
    for _ in range(2):
        done = run(tmp_path, "keys", "revoke", str(name.id), "--tenant", "acme", DATABASE_URL=database_url)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"Revoked the key {name.id}, chat.")
    with pytest.raises(Unauthenticated):
        await principal(database_url, key)
    assert listed(tmp_path, database_url, "--tenant", "acme")[0]["revoked_at"] is not None


async def test_act_as_is_given_by_its_flag_only(tmp_path: Path, database_url: str) -> None:
    key, _ = create(tmp_path, database_url, "--name", "agents", "--scopes", "admin", "--act-as")
    assert (await principal(database_url, key)).scopes == {Scope.ADMIN, Scope.ACT_AS}
    said = refusal(tmp_path, "keys", "create", "--name", "n", "--scopes", "read,act-as", DATABASE_URL=database_url)
    assert said == "--scopes holds act-as, which reaches over tenants. Give it by the flag --act-as.\n"


def test_a_key_expires_in_days_or_at_a_date_or_at_a_moment(tmp_path: Path, database_url: str) -> None:
    for expires in ("90d", "2999-12-31", "2999-12-31T12:00:00+02:00"):
        create(tmp_path, database_url, "--name", expires, "--scopes", "read", "--expires", expires)
    found = {key["name"]: datetime.fromisoformat(str(key["expires_at"])) for key in listed(tmp_path, database_url)}
    in_days = found.pop("90d") - datetime.now(UTC)
    assert timedelta(days=89, hours=23) < in_days <= timedelta(days=90)
    assert found == {
        "2999-12-31": datetime(2999, 12, 31, tzinfo=UTC),
        "2999-12-31T12:00:00+02:00": datetime(2999, 12, 31, 10, tzinfo=UTC),
    }


def test_a_list_is_of_one_tenant_newest_first_and_obeyed_by_no_terminal(tmp_path: Path, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into api_keys (tenant_id, id, key_hash, name, scopes, created_at) "
            "select tenant, gen_random_uuid(), sha256(''), E'\\x1b[2J ' || tenant || n, '{read,write}', "
            "'2026-01-01T00:00Z'::timestamptz + n * interval '1 hour' "
            "from unnest(array['default', 'other']) tenant, generate_series(1, 2) n"
        )
    done = run(tmp_path, "keys", "list", DATABASE_URL=database_url)
    header, *rows = [re.split(r" {2,}", line) for line in done.stdout.splitlines()]
    assert header == ["ID", "SCOPES", "CREATED", "EXPIRES", "REVOKED", "LAST USED", "NAME"]
    assert [row[1:] for row in rows] == [
        ["read,write", f"2026-01-01 0{n}:00", "-", "-", "-", rf"\u001b[2J default{n}"] for n in (2, 1)
    ]
    assert [key["name"] for key in listed(tmp_path, database_url)] == [f"\x1b[2J default{n}" for n in (2, 1)]


def test_a_tenant_without_keys_is_told_so_aside(tmp_path: Path, database_url: str) -> None:
    done = run(tmp_path, "keys", "list", DATABASE_URL=database_url)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "The tenant default has no API keys. `forkpoint keys create` makes one.\n"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"name": " "}, "--name is empty."),
        ({"name": "x" * 256}, "--name has 256 characters."),
        ({"scopes": "read,root"}, "--scopes holds what is no scope. Give some of read, write, admin,"),
        ({"scopes": ""}, "--scopes holds what is no scope."),
        ({"tenant": "*"}, "--tenant names no tenant. A tenant id has 1 to 128"),
        ({"tenant": ""}, "--tenant names no tenant."),
        ({"expires": "soon"}, "--expires is no time. Give days, such as 90d,"),
        ({"expires": "2999-02-30"}, "--expires is no time."),
        ({"expires": "2999-01-01T00:00"}, "--expires is no time."),
        ({"expires": "999999d"}, "--expires is no time."),
    ],
)
def test_flags_that_mean_nothing_are_refused_in_a_line(changed: dict[str, str], said: str) -> None:
    flags = {"tenant": "default", "name": "n", "scopes": "read", "expires": "90d"} | changed
    with pytest.raises(CommandError) as caught:
        keys.read_wanted(flags["tenant"], flags["name"], flags["scopes"], flags["expires"], act_as=False)
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


def test_a_key_that_would_be_over_at_once_is_not_made(tmp_path: Path, database_url: str) -> None:
    flags = ("--name", "n", "--scopes", "read", "--expires", "2020-01-01")
    said = refusal(tmp_path, "keys", "create", *flags, DATABASE_URL=database_url)
    assert said == "The key would expire in the past. Choose a later moment, or none.\n"
    with psycopg.connect(database_url) as connection:
        assert connection.execute("select from api_keys").fetchall() == []


def test_revoking_what_is_no_key_of_the_tenant_says_so_and_shows_nothing_of_it(
    tmp_path: Path, database_url: str
) -> None:
    key, name = create(tmp_path, database_url, "--name", "n", "--scopes", "read")
    said = refusal(tmp_path, "keys", "revoke", str(name.id), "--tenant", "other", DATABASE_URL=database_url)
    assert said == (
        f"The tenant other has no API key {name.id}. `forkpoint keys list --tenant other` shows those that it has.\n"
    )
    said = refusal(tmp_path, "keys", "revoke", key, DATABASE_URL=database_url)
    assert said.startswith("ID is not an id.")
    assert key[-43:] not in said
    assert listed(tmp_path, database_url)[0]["revoked_at"] is None


@pytest.mark.parametrize("command", [["create", "--name", "n", "--scopes", "read"], ["list"]])
def test_a_database_that_does_not_answer_or_is_not_migrated_is_told_in_a_line(
    tmp_path: Path, postgres: str, command: list[str]
) -> None:
    said = refusal(tmp_path, "keys", *command, DATABASE_URL="postgresql://127.0.0.1:1/nowhere")
    assert "DATABASE_URL" in said
    said = refusal(tmp_path, "keys", *command, DATABASE_URL=with_database(postgres, "template1"))
    assert "pending" in said
