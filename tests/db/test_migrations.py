import json
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import pytest

from db import migrate
from db.migrate import MIGRATIONS, SCHEMA_FILE
from tests.db.migrating import empty_database, rows

# Everything that is neither PostgreSQL's, nor pgvector's, nor dbmate's table of versions.
LEFT_OVER = """
select kind, name
from (
  select 'relation' as kind, oid, 'pg_class'::regclass as class, relname::text as name, relnamespace as namespace
  from pg_class
  union all
  select 'function', oid, 'pg_proc'::regclass, proname::text, pronamespace
  from pg_proc
  union all
  select 'type', oid, 'pg_type'::regclass, typname::text, typnamespace
  from pg_type
  union all
  select 'operator', oid, 'pg_operator'::regclass, oprname::text, oprnamespace
  from pg_operator
  union all
  select 'schema', oid, 'pg_namespace'::regclass, nspname::text, oid
  from pg_namespace
  where nspname <> 'public'
) as thing
where namespace::regnamespace::text not in ('pg_catalog', 'information_schema')
  and namespace::regnamespace::text not like 'pg_t%'
  and name not in ('schema_migrations', '_schema_migrations', 'schema_migrations_pkey')
  and not exists (
    select 1
    from pg_depend
    where classid = thing.class and objid = thing.oid and deptype = 'e'
  )
order by kind, name
"""

FILES = sorted(MIGRATIONS.iterdir())


@pytest.fixture
def url(postgres: str) -> Iterator[str]:
    with empty_database(postgres) as url:
        yield url


def left_over(url: str) -> list[tuple[object, ...]]:
    return rows(url, LEFT_OVER)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_each_migration_is_named_after_its_time_and_knows_the_way_back(file: Path) -> None:
    assert re.fullmatch(r"20\d{12}_[a-z0-9_]+\.sql", file.name)
    parts = re.split(r"^-- migrate:(up|down)(?: transaction:false)?$", file.read_text(), flags=re.MULTILINE)
    before, up, up_statements, down, down_statements = parts
    assert (before.strip(), up, down) == ("", "up", "down")
    assert ";" in re.sub(r"--.*", "", up_statements)
    assert ";" in re.sub(r"--.*", "", down_statements)


def test_the_migrations_lead_from_nothing_to_the_schema_and_back_and_there_again(url: str, tmp_path: Path) -> None:
    schema_file = tmp_path / "schema.sql"
    names = [file.stem for file in FILES]
    assert [f"{made.version}_{made.name}" for made in migrate.up(url)] == names
    schema = migrate.dump(url, schema_file=schema_file).read_text()
    assert left_over(url) != []

    undone = []
    while gone := migrate.down(url):
        undone.append(f"{gone.version}_{gone.name}")
    assert undone == names[::-1]
    assert left_over(url) == []

    assert [f"{made.version}_{made.name}" for made in migrate.up(url)] == names
    assert migrate.dump(url, schema_file=schema_file).read_text() == schema


def test_the_schema_file_is_fresh(url: str, tmp_path: Path) -> None:
    migrate.up(url)
    fresh = migrate.dump(url, schema_file=tmp_path / "schema.sql").read_text()
    assert SCHEMA_FILE.read_text() == fresh, "run `forkpoint migrate up` and `forkpoint migrate dump`"


def test_calls_of_messages_that_were_there_before_are_found(url: str, tmp_path: Path) -> None:
    """A database from before calls were stored: its messages get what later ones get when they are appended."""
    for file in FILES:
        if file.name < "20261124":
            (tmp_path / file.name).write_text(file.read_text())
    migrate.up(url, migrations=tmp_path)
    root, fork = "00000000-0000-0000-0000-00000000000a", "00000000-0000-0000-0000-00000000000b"
    with psycopg.connect(url) as connection:
        connection.execute("insert into trees (tenant_id, id) values ('default', %s)", [root])
        connection.execute("insert into contexts (tenant_id, id, root_id) values ('default', %s, %s)", [root, root])
        append(connection, root, ("assistant", ["a", "b", "a"], None), ("tool", [], "a"), ("tool", [], "nobody's"))
        connection.execute(
            "insert into contexts (tenant_id, id, root_id, latest_version, message_count, parent_id, fork_version, "
            "depth, owner_id, owner_depth, jump_id, jump_fork_version) "
            "values ('default', %s, %s, 1, 1, %s, 1, 1, %s, 1, %s, 0)",
            [fork, root, root, root, root],
        )
        append(connection, fork, ("tool", [], "b"), ("assistant", ["b"], None), ("tool", [], "b"))
    migrate.up(url)
    assert rows(
        url, "select context_id::text, version, call_version from messages where role = 'tool' order by 1, 2"
    ) == [
        (root, 2, 1),
        (root, 3, None),
        (fork, 2, 1),
        (fork, 4, 3),
    ]
    assert rows(url, "select context_id::text, version, encode(call_key, 'hex') from calls order by 1, 2, 3") == sorted(
        (context, version, sha256(call.encode()).hexdigest())
        for context, version, call in ((root, 1, "a"), (root, 1, "b"), (fork, 3, "b"))
    )


def append(connection: psycopg.Connection[Any], context_id: str, *messages: tuple[str, list[str], str | None]) -> None:
    """Append messages: their role, the ids of their calls, the call that they answer."""
    for role, calls, answered in messages:
        made = json.dumps([{"id": call, "name": "tool", "arguments": {}} for call in calls]) if calls else None
        connection.execute(
            "select append_messages('default', %s, array[gen_random_uuid()], array[%s], array[''], array[%s::json], "
            "array[%s], array[null], array[0], array[null], array['{}'::jsonb])",
            [context_id, role, made, answered],
        )
