"""Tenants in what PostgreSQL is asked: every statement names one at every table, and every key begins with it."""

import psycopg
import pytest

from db import queries
from tests.db import tenancy
from tests.db.omissions import omissions
from tests.db.tenancy import SCHEMA, STORE, flaws, references

QUERIES = {query.name: query for stem in queries.stems() for query in queries.load(stem).values()}
FUNCTIONS = tenancy.functions(SCHEMA)
# Those that name a table or a function of ours. A COPY has no parameters: the tenant is in its rows.
NAMING = [
    name
    for name, query in QUERIES.items()
    if query.kind != "copy" and references(STORE, tenancy.statements(name, query.text))
]

UNFOLLOWED = """with recursive up (tenant_id, id) as (
  select c.tenant_id, c.id from contexts c where c.tenant_id = $1
  union all
  select p.tenant_id, p.id from up u join contexts p on p.tenant_id = $1 and p.id = u.id
) select * from up"""
PLANTED = "create function planted(p_tenant_id text, p_id uuid) returns uuid language plpgsql as $$ {} $$"


@pytest.mark.parametrize("name", QUERIES)
def test_it_names_the_tenant_at_every_table(name: str) -> None:
    assert flaws(STORE, tenancy.statements(name, QUERIES[name].text)) == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_names_the_tenant_at_every_table(name: str) -> None:
    statements = tenancy.body(name, FUNCTIONS[name])
    assert flaws(STORE, statements) == []
    assert name in STORE.functions or references(STORE, statements) == 0


@pytest.mark.parametrize("name", [*NAMING, *sorted(STORE.functions)])
def test_a_tenant_left_out_anywhere_is_noticed(name: str) -> None:
    """Plants each omission in what was parsed: no place that names the tenant may go without it."""
    found = tenancy.body(name, FUNCTIONS[name]) if name in FUNCTIONS else tenancy.statements(name, QUERIES[name].text)
    planted = 0
    for statement in found:
        for what, omit, restore in omissions(statement):
            omit()
            assert flaws(STORE, [statement]), what
            restore()
            planted += 1
    assert flaws(STORE, found) == []
    assert planted >= references(STORE, found)


@pytest.mark.parametrize(
    "text",
    [
        "select c.id from contexts c where c.id = $2",
        "select c.id from contexts c where c.tenant_id = $1 or c.id = $2",
        "select c.id from contexts c where c.id = $2 or c.tenant_id = $1",
        "select c.id from contexts c where not c.tenant_id = $1",
        "select c.id from contexts c where (c.tenant_id = $1) is not false",
        "select c.id from contexts c where c.tenant_id = any(array[$1])",
        "select c.id from contexts c where c.tenant_id = c.tenant_id",
        "select c.id from contexts c where tenant_id = $1",
        "select c.id from contexts c, messages m where c.tenant_id = $1",
        "select c.id from contexts c where c.tenant_id = $1 and exists (select from messages c where c.id = $2)",
        "select c.id from contexts c where c.tenant_id = $1 and exists (select from messages m where c.tenant_id = $1)",
        "select c.id from contexts c where c.tenant_id = $10",
        "select c.id from contexts c left join messages m on c.tenant_id = $1 and m.tenant_id = $1",
        "select c.id from contexts c right join messages m on c.tenant_id = $1 and m.tenant_id = $1",
        "select c.id from contexts c full join messages m on c.tenant_id = $1 and m.tenant_id = $1",
        "select c.id from contexts c join messages m using (tenant_id) where c.tenant_id = $1",
        "select c.id from contexts c natural join messages m where c.tenant_id = $1",
        "select (select max(m.id) from messages m where m.id = c.id) from contexts c where c.tenant_id = $1",
        "select c.id from contexts c where c.tenant_id = $1 order by (select m.id from messages m limit 1)",
        "select c.id from contexts c where c.tenant_id = $1 union all select m.id from messages m",
        "select x.id from (contexts c join messages m on m.id = c.id) x where x.tenant_id = $1",
        "select c.id from other.contexts c where c.tenant_id = $1",
        "select s.version from schema_migrations s",
        "with contexts as (select c.id from contexts c) select c.id from contexts c",
        "with known as (select c.tenant_id from contexts c) select k.* from known k where k.tenant_id = $1",
        UNFOLLOWED,
        "select s.low from segments($2, $2::uuid, 1, 2) s",
        "select nearest_call(c.name, c.id, '', 1, false) from contexts c where c.tenant_id = $1",
        "select c.id from contexts c tablesample system (1) where c.tenant_id = $1",
        "delete from messages m where m.id = $2",
        "delete from messages m using contexts c where c.tenant_id = $1 and c.id = m.context_id",
        "update contexts c set name = '' from messages m where c.tenant_id = $1",
        "update contexts c set name = '' from messages m where m.tenant_id = $1",
        "update contexts c set tenant_id = $1 where c.tenant_id = $1",
        "update contexts c set name = 'c.tenant_id = $1' where c.id = $2 -- and c.tenant_id = $1",
        "insert into contexts (id, tenant_id) values ($2, $1)",
        "insert into contexts (tenant_id, id) values ($2, $1)",
        "insert into contexts (tenant_id, id) values ($1, $2), ($2, $2)",
        "insert into contexts select $1, $2",
        "insert into contexts (tenant_id, id) select c.tenant_id, c.id from contexts c where c.id = $2",
        "insert into contexts (tenant_id, id) select k.tenant_id, k.id from (select $2 as tenant_id, $2 as id) k",
        "insert into contexts (tenant_id, id) values ($1, $2) on conflict do nothing",
        "insert into contexts (tenant_id, id) values ($1, $2) on conflict (id) do nothing",
        "insert into contexts (tenant_id, id) values ($1, $2) on conflict on constraint contexts_pkey do nothing",
        "insert into contexts (tenant_id, id) values ($1, $2) on conflict (tenant_id, id) do update set tenant_id = $2",
        "merge into contexts c using messages m on c.id = m.id when matched then delete",
        "copy contexts (id, tenant_id) from stdin",
        "copy contexts (tenant_id, id) to stdout",
        "truncate contexts",
        "lock table contexts",
        "table contexts",
    ],
)
def test_the_checker_catches_planted_omissions(text: str) -> None:
    assert flaws(STORE, tenancy.statements("planted", text))


@pytest.mark.parametrize(
    "text",
    [
        "select c.id from contexts c where $1::text = c.tenant_id and (c.id = $2 or c.id = $3)",
        "select contexts.id from contexts where contexts.tenant_id = $1",
        "select c.id from contexts c left join messages m on m.tenant_id = $1 where c.tenant_id = $1",
        "select c.id from contexts c left join messages m on true where c.tenant_id = $1 and m.tenant_id = $1",
        "with known as (select c.id from contexts c where c.tenant_id = $1) select k.id from known k",
        "insert into contexts (tenant_id, id) select c.tenant_id, $2 from contexts c where c.tenant_id = $1",
        "select c.id from contexts c where c.tenant_id = $1 for update of c",
    ],
)
def test_the_checker_lets_pass_what_names_its_tenant(text: str) -> None:
    assert flaws(STORE, tenancy.statements("fine", text)) == []


@pytest.mark.parametrize(
    "body",
    [
        "begin perform 1 from contexts c where c.id = p_id; end",
        "begin if exists (select from contexts c where c.id = p_id) then return null; end if; end",
        "declare v_id uuid := (select c.id from contexts c limit 1); begin end",
        "declare v record; begin for v in select c.id from contexts c loop end loop; end",
        "begin return (select max(c.id) from contexts c); end",
        "begin perform from segments(p_id::text, p_id, 1, 2); end",
    ],
)
def test_the_checker_looks_into_bodies(body: str) -> None:
    assert flaws(STORE, tenancy.body("planted", PLANTED.format(body)))


@pytest.mark.parametrize("body", ["begin execute 'select 1'; end", "begin p_tenant_id := 'other'; end"])
def test_the_checker_refuses_bodies_that_it_cannot_follow(body: str) -> None:
    with pytest.raises(ValueError, match=r"composed at run time|is changed"):
        tenancy.body("planted", PLANTED.format(body))


# What the catalog says of tables, indexes and keys, whichever migration made them.
RELATIONS = """select c.relname, c.relkind::text, coalesce(a.attnotnull, false)
from pg_class c
left join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id' and a.atttypid = 'text'::regtype
where c.relnamespace = 'public'::regnamespace
  and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')"""
INDEXES = """select i.indexrelid::regclass::text, i.indisunique, a.attname
from pg_index i
join pg_class c on c.oid = i.indrelid
left join pg_attribute a on a.attrelid = c.oid and a.attnum = i.indkey[0]
where c.relnamespace = 'public'::regnamespace and c.relname <> 'schema_migrations'"""
KEYS = """select k.conname, one.attname, other.attname
from pg_constraint k
left join pg_attribute one on one.attrelid = k.conrelid and one.attnum = k.conkey[1]
left join pg_attribute other on other.attrelid = k.confrelid and other.attnum = k.confkey[1]
where k.connamespace = 'public'::regnamespace and k.contype in ('f', 'x')"""


def test_every_table_belongs_to_tenants(postgres: str, template: str) -> None:
    with psycopg.connect(postgres, dbname=template) as connection:
        found = connection.execute(RELATIONS).fetchall()
    assert sorted(found) == sorted([("schema_migrations", "r", False), *((name, "r", True) for name in STORE.tables)])


def test_every_index_and_every_key_begins_with_the_tenant(postgres: str, template: str) -> None:
    """So rows of two tenants may have one id, and none refers to another tenant's."""
    with psycopg.connect(postgres, dbname=template) as connection:
        indexes = connection.execute(INDEXES).fetchall()
        keys = connection.execute(KEYS).fetchall()
    assert {index for index in indexes if index[2] != "tenant_id"} == set()
    assert {key for key in keys if key[1:] != ("tenant_id", "tenant_id")} == set()
    assert len([index for index in indexes if index[1]]) >= len(STORE.tables)
    assert keys
