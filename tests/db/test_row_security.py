"""The second lock: whatever a statement says, it touches the rows of the tenant of its transaction and no others."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from db import queries
from db.call import Call
from db.errors import StoreError, Unforeseen
from db.pool import Database
from db.queries import Query
from db.row_security import set_local
from tests.conftest import as_service, copied
from tests.db.lane import query
from tests.db.two_tenants import ROOT, Undo, as_planted, opened, parameters, plant

QUERIES = [query for stem in queries.stems() for query in queries.load(stem).values()]
OF_TENANTS = [each for each in QUERIES if not each.name.startswith(("doorbell.", "health.", "pipeline.", "pool."))]
TABLES = ("trees", "contexts", "messages", "calls", "idempotency_keys", "api_keys", "rate_limits")
NAMED = query("named", "select current_setting('forkpoint.tenant', true)")
PREDICATE = re.compile(r"\b\w+\.tenant_id = (?:\$1|p_tenant_id)(?=\s|$)")


# The policies


def test_every_table_with_tenants_has_the_policy_and_is_forced_to(both_url: str) -> None:
    with psycopg.connect(both_url) as connection:
        found = connection.execute(
            """
            select
              t.relname, t.relrowsecurity, t.relforcerowsecurity, p.permissive, p.roles::text, p.cmd,
              p.qual, p.with_check
            from pg_class t
            join pg_attribute c on c.attrelid = t.oid and c.attname = 'tenant_id'
            left join pg_policies p on p.tablename = t.relname and p.schemaname = 'public'
            where t.relkind = 'r'
              and t.relnamespace = 'public'::regnamespace
            """
        ).fetchall()
    assert {row[0] for row in found} >= set(TABLES)
    (rule,) = {row[1:] for row in found}
    assert rule[:5] == (True, True, "PERMISSIVE", "{public}", "ALL")
    assert rule[5] == rule[6] is not None


@pytest.mark.parametrize("told", [None, "", "nobody", "a' or true --"])
def test_nothing_is_there_for_whom_nobody_named(both_url: str, told: str | None) -> None:
    with psycopg.connect(both_url) as connection:
        if told is not None:
            connection.execute(set_local(told))
        for table in TABLES:
            name = sql.Identifier(table)
            for statement in ("select from {}", "update {} set tenant_id = 'c'"):
                assert connection.execute(sql.SQL(statement).format(name)).rowcount == 0, (table, statement)
        connection.commit()
        assert connection.execute("delete from idempotency_keys").rowcount == 0


@pytest.mark.parametrize("table", TABLES)
def test_no_row_is_written_for_another_tenant(both_url: str, table: str) -> None:
    """Neither a new one, nor one that is moved there."""
    name = sql.Identifier(table)
    with psycopg.connect(both_url) as connection:
        for statement in (
            'insert into {} select (jsonb_populate_record(t, \'{{"tenant_id": "c"}}\')).* from {} t',
            "update {} set tenant_id = 'b'",
        ):
            connection.execute(set_local("a"))
            with pytest.raises(errors.InsufficientPrivilege):
                connection.execute(sql.SQL(statement).format(name, name))
            connection.rollback()


@pytest.mark.parametrize("tenant_id", ["it's", "a\\b", 'a"b', "$1", "é🎈", "%s", "*/;"])
async def test_a_tenant_of_any_name_is_quoted(both: Database, tenant_id: str) -> None:
    async with both.snapshot(tenant_id) as snapshot:
        assert await snapshot.fetch(NAMED) == [(tenant_id,)]
    assert both.lane is not None
    query = Call(queries.load("context")["by_ids"], (tenant_id, [ROOT], True))
    assert await both.lane.flush([query], tenant_id) == [[]]


# Every predicate of every statement, taken away


@dataclass(frozen=True)
class Outcome:
    """What came of a statement, and what another tenant has afterwards, in the same transaction."""

    rows: Any
    others: Any


async def run(database: Database, asked: Query, given: list[Any]) -> Outcome:
    """Run a statement as tenant a, and undo it."""
    found: Any = None
    others: Any = None
    try:
        async with database.transaction("a") as session:
            try:
                rows = await session.fetch(replace(asked, name="test.mutant", replanned=False), *given)
            except (StoreError, Unforeseen) as error:
                found = type(error)
                raise Undo from None
            found = [tuple(map(as_planted, row)) for row in rows]
            await session.fetch(query("to_b", "set local forkpoint.tenant = 'b'"))
            others = [
                await session.fetch(
                    Query("test.all", "many", f"select t::text from {table} t order by 1")  # noqa: S608 - ours
                )
                for table in TABLES
            ]
            raise Undo  # noqa: TRY301 - only an exception undoes
    except Undo:
        return Outcome(found, others)


def mutants(asked: Query) -> Iterator[Query]:
    """Take each of its predicates of the tenant away."""
    for place in PREDICATE.finditer(asked.text):
        text = f"{asked.text[: place.start()]}$1::text is not null{asked.text[place.end() :]}"
        yield replace(asked, text=text)


@pytest.fixture
async def untouched(both: Database) -> Any:
    return (await run(both, NAMED, [])).others


@pytest.mark.parametrize("asked", OF_TENANTS, ids=lambda asked: asked.name)
async def test_without_any_one_of_its_predicates_a_query_finds_only_its_tenants_rows(
    both: Database, alone_url: str, untouched: Any, asked: Query
) -> None:
    given = parameters(asked, "a")
    async with opened(alone_url) as alone:
        expected = await run(alone, asked, given)
        assert expected.rows or asked.name.startswith("history.store_"), "finds nothing"
        for each in (asked, *mutants(asked)):
            found = await run(both, each, given)
            assert found.rows == (await run(alone, each, given)).rows, each.text
            assert found.others is None or found.others == untouched, each.text


async def test_with_row_security_off_such_queries_do_find_others_rows(both_url: str, alone_url: str) -> None:
    """So the test above would fail without the second lock."""
    leaks, total = set(), 0
    async with opened(both_url, row_security=False) as both, opened(alone_url, row_security=False) as alone:
        for asked in OF_TENANTS:
            given = parameters(asked, "a")
            assert (await run(both, asked, given)).rows == (await run(alone, asked, given)).rows, asked.name
            for number, each in enumerate(mutants(asked)):
                total += 1
                if (await run(both, each, given)).rows != (await run(alone, each, given)).rows:
                    leaks.add((asked.name, number))
    assert total > 90
    assert len({name for name, _ in leaks}) > 30, leaks


@pytest.mark.parametrize("asked", OF_TENANTS, ids=lambda asked: asked.name)
async def test_the_tenant_of_the_transaction_counts_and_not_that_of_a_parameter(
    both: Database, untouched: Any, asked: Query
) -> None:
    found = await run(both, asked, parameters(asked, "b"))
    nothing = found.rows in ([], [(0,)], Unforeseen) or asked.name == "history.call_versions"
    assert nothing, found.rows
    assert found.others is None or found.others == untouched


FUNCTIONS = {
    "segments": ["lineage.page", "lineage.stored", "lineage.totals", "lineage.copy"],
    "fit_window": ["window.fit"],
    "nearest_call": ["history.call_versions", "message.append"],
    "append_messages": ["message.append"],
}


@pytest.mark.parametrize("function", FUNCTIONS)
async def test_without_any_one_of_their_predicates_functions_find_only_their_tenants_rows(
    postgres: str, template: str, function: str
) -> None:
    with copied(postgres, template) as both_url, copied(postgres, template) as alone_url:
        definition = ""
        for url, tenants in ((both_url, "ab"), (alone_url, "a")):
            with psycopg.connect(url) as connection:
                for tenant_id in tenants:
                    plant(connection, tenant_id)
                text = "select pg_get_functiondef(oid) from pg_proc where proname = %s"
                ((definition,),) = connection.execute(text, (function,)).fetchall()
        places = list(PREDICATE.finditer(definition))
        assert places
        asked = [each for each in QUERIES if each.name in FUNCTIONS[function]]
        async with opened(as_service(both_url)) as both, opened(as_service(alone_url)) as alone:
            for place in places:
                mutant = f"{definition[: place.start()]}p_tenant_id is not null{definition[place.end() :]}"
                for url in (both_url, alone_url):
                    with psycopg.connect(url) as connection:
                        connection.execute(mutant.encode())
                for each in asked:
                    given = parameters(each, "a")
                    found, expected = await run(both, each, given), await run(alone, each, given)
                    assert found.rows == expected.rows, (each.name, place)
