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

QUERIES = {query.name: query for stem in queries.stems() for query in queries.load(stem).values()}
# These read no table.
OF_NOBODY = ("doorbell.", "health.", "pipeline.", "pool.")
TEXT_OID = 25
CONTEXT_COLUMNS = list(ContextRecord._fields)
MESSAGE_COLUMNS = list(MessageRecord._fields)

OF_TENANTS = [name for name in QUERIES if not name.startswith(OF_NOBODY)]

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

# Where a statement names a table: the word before it, its alias.
TABLE = r"(?:trees|contexts|messages|calls|idempotency_keys|api_keys|rate_limits)"
REFERENCE = re.compile(
    rf"\b(?P<verb>from|join|update|into)\s+(?P<table>{TABLE})\b"
    r"(?:\s+(?:as\s+)?(?!(?:on|where|set|values|select|cross|left|join|order|limit|group|for|union)\b)(?P<alias>[a-z_]+))?"
)


def tenant_flaws(text: str, tenant: str = "$1") -> list[str]:
    """Name each place where a statement reads, joins or changes a table without the tenant."""
    text = code(text)
    references = list(REFERENCE.finditer(text))
    flaws = [
        f"{match[0]!r} is no reference that can be checked"
        for match in re.finditer(rf"(?<![.\w]){TABLE}\b(?!\s*(?:\.|%))", text)
        if not any(found.start("table") == match.start() for found in references)
    ]
    for number, found in enumerate(references):
        alias = found["alias"] or found["table"]
        same = [later.start() for later in references[number + 1 :] if (later["alias"] or later["table"]) == alias]
        scope = text[found.end() : same[0] if same else len(text)]
        if found["verb"] == "into":
            flaws += _insert_flaws(text, found, tenant)
            continue
        if not re.search(rf"\b(?:where|on|and)\s+{alias}\.tenant_id = {re.escape(tenant)}(?!\w|\s+or\b)", scope):
            flaws.append(f"{found[0]!r} at {found.start()} has no {alias}.tenant_id = {tenant}")
        if found["verb"] == "join" and _in_recursive_member(text, found.start()):
            joined = rf"\b{alias}\.tenant_id = [a-z]\.tenant_id\b"
            if not re.search(joined, scope):
                flaws.append(f"{found[0]!r} at {found.start()} does not follow the tenant of the row before")
    return flaws


def _in_recursive_member(text: str, place: int) -> bool:
    """Tell whether a place lies between a `union all` and the end of its common table expression."""
    before = text[:place].rpartition("union all")
    return bool(before[1]) and before[2].count("(") >= before[2].count(")")


def _insert_flaws(text: str, found: re.Match[str], tenant: str) -> list[str]:
    rest = text[found.end() :]
    shape = re.match(r"\s*\(\s*tenant_id\b[^)]*\)\s*(?:values\s*\(|select)(?:\s+distinct)?\s*(?P<value>[$\w.]+)", rest)
    if shape is None:
        return [f"{found[0]!r} at {found.start()} does not begin with tenant_id"]
    # A select may copy the tenant of a row whose reference is checked by itself.
    if shape["value"] == tenant or re.fullmatch(r"[a-z]\.tenant_id", shape["value"]):
        return []
    return [f"{found[0]!r} at {found.start()} takes its tenant from {shape['value']}"]


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


@pytest.mark.parametrize("name", [name for name in QUERIES if name.startswith(OF_NOBODY)])
def test_what_names_no_tenant_reads_no_table(name: str) -> None:
    assert re.findall(rf"\b(?:from(?! unnest)|join|into|update|{TABLE})\b", code(QUERIES[name].text)) == []
    # A session of the fast lane is told a time limit, a doorbell what to say: tenants are in there.
    given = name.startswith("pipeline.") or name == "doorbell.ring"
    assert parameters(QUERIES[name].text) == ([1] if given else [])


@every_query_of_tenants
def test_it_names_the_tenant_at_every_table(name: str) -> None:
    text = QUERIES[name].text
    assert REFERENCE.search(code(text)) or re.search(r"\b(?:append_messages|nearest_call)\(\s*\$1,", text)
    assert tenant_flaws(text) == []


@every_query_of_tenants
def test_the_checker_catches_every_tenant_left_out(name: str) -> None:
    text = QUERIES[name].text
    conditions = list(re.finditer(r"[a-z]\.tenant_id = \$1\b", text))
    for found in conditions:
        planted = text[: found.start()] + "true" + text[found.end() :]
        assert tenant_flaws(planted), f"{found[0]} at {found.start()} was left out"
        other = text[: found.start()] + found[0].replace("$1", "$2") + text[found.end() :]
        assert tenant_flaws(other), f"{found[0]} at {found.start()} compares something else"


@pytest.mark.parametrize(
    "text",
    [
        "select c.id from contexts c where c.id = $2",
        "select c.id from contexts c where c.tenant_id = $1 or c.id = $2",
        "select c.id from contexts c where c.id = $2 or c.tenant_id = $1",
        "select c.id from contexts c, messages m where c.tenant_id = $1",
        "select c.id from contexts c where c.tenant_id = $1 and exists (select from messages c where c.id = $2)",
        "select c.id from contexts c where c.tenant_id = $10",
        "delete from messages m where m.id = $2",
        "insert into contexts (id, tenant_id) values ($2, $1)",
        "insert into contexts (tenant_id, id) values ($2, $1)",
        "update contexts c set name = 'c.tenant_id = $1' where c.id = $2 -- and c.tenant_id = $1",
    ],
)
def test_the_checker_catches_planted_omissions(text: str) -> None:
    assert tenant_flaws(text)


def test_functions_name_the_tenant_at_every_table(pgconn: PGconn) -> None:
    found = pgconn.exec_(
        b"select pg_get_functiondef(p.oid) from pg_proc p "
        b"where p.pronamespace = 'public'::regnamespace and not exists "
        b"(select from pg_depend d where d.objid = p.oid and d.deptype = 'e')"
    )
    texts = [(found.get_value(row, 0) or b"").decode() for row in range(found.ntuples)]
    assert texts
    for text in texts:
        body = re.split(r"\nbegin\n|AS \$function\$", text)[-1]  # after the declarations
        assert REFERENCE.search(code(body))
        assert tenant_flaws(body, "p_tenant_id") == []


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
