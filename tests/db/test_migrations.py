import re
from collections.abc import Iterator
from pathlib import Path

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
