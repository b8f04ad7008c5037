"""Every named query: PostgreSQL accepts it, its header tells the truth, and it names the tenant at every table."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
import pytest
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGconn

from db import queries
from db.queries import Query
from db.records import ContextRecord, MessageRecord
from tests.db.tenancy import STORE, references, statements

QUERIES = {query.name: query for stem in queries.stems() for query in queries.load(stem).values()}
TEXT_OID = 25
CONTEXT_COLUMNS = list(ContextRecord._fields)
MESSAGE_COLUMNS = list(MessageRecord._fields)

# What names no table and no function of ours has nothing to do with tenants.
OF_TENANTS = [name for name, query in QUERIES.items() if references(STORE, statements(name, query.text))]

every_query = pytest.mark.parametrize("name", QUERIES)
every_query_of_tenants = pytest.mark.parametrize("name", OF_TENANTS)


@dataclass(frozen=True)
class Prepared:
    """What PostgreSQL says of a statement."""

    parameter_types: list[int]
    columns: list[str]


@pytest.fixture(scope="module")
def pgconn(postgres: str, template: str) -> Iterator[PGconn]:
    """Give a bare connection to the migrated database, which nothing here changes."""
    with psycopg.connect(postgres, dbname=template) as connection:
        yield connection.pgconn


def prepare(pgconn: PGconn, query: Query) -> Prepared:
    made = pgconn.prepare(query.name.encode(), query.text.encode())
    assert made.status == ExecStatus.COMMAND_OK, made.error_message.decode()
    found = pgconn.describe_prepared(query.name.encode())
    pgconn.exec_(f'deallocate "{query.name}"'.encode())
    names = [found.fname(number) for number in range(found.nfields)]
    return Prepared(
        [found.param_type(number) for number in range(found.nparams)], [name.decode() for name in names if name]
    )


def parameters(text: str) -> list[int]:
    return sorted({int(number) for number in re.findall(r"\$(\d+)", code(text))})


def code(text: str) -> str:
    """Take comments and quoted text out."""
    return re.sub(r"--[^\n]*|'(?:[^']|'')*'", "''", text)


# How a statement may give more than one row.
SEVERAL = re.compile(r"= any\(\$(?:2|7::uuid)|\bfrom unnest\(|\blimit (?:\$|1)\d|\brecursive reader\b")


def header(query: Query) -> str:
    _, name = query.name.split(".")
    return (
        f"-- name: {name} :{query.kind}{' replanned' if query.replanned else ' pipelined' if query.pipelined else ''}"
    )


def test_every_header_is_read() -> None:
    for stem in queries.stems():
        text = (queries.FOLDER / f"{stem}.sql").read_text(encoding="utf-8")
        headers = [line for line in text.splitlines() if re.match(r"--\s*name\b", line)]
        found = queries.load(stem).values()
        assert headers == [header(query) for query in found]


@every_query
def test_postgresql_prepares_it(pgconn: PGconn, name: str) -> None:
    prepared = prepare(pgconn, QUERIES[name])
    assert parameters(QUERIES[name].text) == list(range(1, len(prepared.parameter_types) + 1))
    if name in OF_TENANTS:
        assert prepared.parameter_types[0] == TEXT_OID
    assert prepared.columns or name == "doorbell.listen" or name.startswith("history.store_"), "fetch() is for rows"
    assert len(set(prepared.columns)) == len(prepared.columns)


@every_query
def test_it_is_one_statement_whose_kind_is_right(name: str) -> None:
    query = QUERIES[name]
    assert code(query.text).count(";") == 1
    assert query.text.endswith(";")
    several = "many" if SEVERAL.search(query.text) else "one"
    assert query.kind == several


@every_query
def test_parameters_of_ambiguous_type_are_cast(name: str) -> None:
    """The type of each parameter but the tenant is said where it stands: the fast lane infers nothing."""
    bare = set(re.findall(r"\$\d+\b(?!::)", code(QUERIES[name].text)))
    assert bare <= {"$1"}


def test_what_names_no_table_is_told_no_tenant() -> None:
    # A session of the fast lane is told a time limit, a doorbell what to say: tenants are in there.
    told = {name for name in QUERIES if name not in OF_TENANTS and parameters(QUERIES[name].text)}
    assert told == {"doorbell.ring", "pipeline.read_at_one_moment", "pipeline.write"}


def test_rows_that_fill_records_have_their_fields_in_order(pgconn: PGconn) -> None:
    filled: dict[str, list[str]] = {"contexts": [], "messages": []}
    for name in OF_TENANTS:
        columns = prepare(pgconn, QUERIES[name]).columns
        for kind, mark, expected in (
            ("contexts", "root_id", CONTEXT_COLUMNS),
            ("messages", "content", MESSAGE_COLUMNS),
        ):
            if mark in columns:
                filled[kind].append(name)
                assert columns[-len(expected) :] == expected, name
    assert {"context.by_ids", "context.fork", "message.append", "context_list.by_name_asc"} <= set(filled["contexts"])
    assert {"message.by_ids", "lineage.page", "history.messages"} <= set(filled["messages"])


def test_the_lineage_is_walked_in_one_place(pgconn: PGconn) -> None:
    """Whoever makes a fork sets its jump, and moments are found by times; all others ask `segments`."""
    jumping = {name for name, query in QUERIES.items() if "jump_id" in code(query.text)}
    assert jumping == {"context.fork", "history.store_contexts", "lineage.versions_at"}
    found = pgconn.exec_(
        b"select proname from pg_proc where pronamespace = 'public'::regnamespace and prosrc ~ 'jump_id' order by 1"
    )
    # The nearest call is looked for context by context, and most often is in the first.
    assert [found.get_value(row, 0) for row in range(found.ntuples)] == [b"nearest_call", b"segments"]
