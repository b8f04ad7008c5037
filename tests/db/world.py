"""A database with long histories, and EXPLAIN of named queries over it."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import psycopg
import uuid_utils.compat
from psycopg import sql

import db.context
import db.lineage
import db.message
from db import embedded_role, queries
from db.pool import Database, PoolLimits
from db.records import EVERY_COLUMN, NewMessage

TENANT = "default"
LONG = 100_000
LISTED = 5_000
DEPTH = 1_000
STEP = 3  # messages that each fork of the chain adds
AUTO_EXPLAIN = {"log_min_duration": 0, "log_nested_statements": "on", "log_format": "json", "log_level": "notice"}
BUFFERS_OF_A_SEEK = 5  # an index of this size is three or four pages high, then comes the row

Node = dict[str, Any]
_SERVE = sql.SQL("set role {}").format(sql.Identifier(embedded_role.ROLE))


@dataclass(frozen=True)
class World:
    """A database with long histories, and the contexts in it."""

    url: str
    long: UUID
    long_tip: UUID
    long_middle: UUID
    late: UUID  # as long; its last message answers a call that its tenth makes
    chain: list[UUID]  # by depth
    parent: UUID

    def moment(self, reader: UUID, version: int) -> datetime:
        """Tell when a version was appended."""

        async def ask() -> datetime:
            async with opened(self.url) as database, database.snapshot(TENANT) as snapshot:
                place = db.lineage.Place(reader, version - 1, version + 1)
                ((found,),) = await db.lineage.page(snapshot, TENANT, [place], 1, newest_first=False, roles=None)
                return found.created_at

        return asyncio.run(ask())


class Plan:
    """A statement that was run, and what each node of its plan did."""

    def __init__(self, explained: list[dict[str, Any]]) -> None:
        (self.top,) = explained
        self.nodes = list(_walk(self.top["Plan"]))

    @property
    def buffers(self) -> int:
        root = self.top["Plan"]
        return int(root["Shared Hit Blocks"] + root["Shared Read Blocks"])

    def scans(self, table: str) -> list[Node]:
        return [node for node in self.nodes if node.get("Relation Name") == table]

    def rows_read(self, table: str) -> int:
        """Count the rows that came out of a table and those that a filter threw away."""
        # Rows are averages over the loops, rounded.
        return int(
            sum(
                (
                    node["Actual Rows"]
                    + node.get("Rows Removed by Filter", 0)
                    + node.get("Rows Removed by Index Recheck", 0)
                )
                * node["Actual Loops"]
                for node in self.scans(table)
            )
        )

    @property
    def walked(self) -> int:
        """Count the contexts that the recursive walk visited."""
        return int(
            sum(
                node["Actual Rows"] * node["Actual Loops"]
                for node in self.nodes
                if node["Node Type"] == "Recursive Union"
            )
        )

    def assert_only_indexes(self) -> None:
        used = {
            (node["Relation Name"], node["Node Type"]) for node in self.nodes if node.get("Relation Name") is not None
        }
        assert {kind for _, kind in used} <= {"Index Scan", "Index Only Scan", "ModifyTable"}, used
        assert "JIT" not in self.top, "compiling takes longer than the statement"


def _walk(node: Node) -> Iterator[Node]:
    yield node
    for child in node.get("Plans", ()):
        yield from _walk(child)


def message(number: int) -> NewMessage:
    return NewMessage(uuid_utils.compat.uuid7(), "user", f"message {number}", None, None, None, 7, None, "{}")


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    """Give a database over one connection."""
    database = Database(
        url, PoolLimits(size_min=1, size_max=1, wait_seconds=30, connect_seconds=5, statement_seconds=30)
    )
    await database.open()
    try:
        yield database
    finally:
        await database.close()


async def grow(url: str) -> list[UUID]:
    """Make a chain of forks, each of the tip of the one before, through the functions that the service uses."""
    chain: list[UUID] = []
    async with opened(url) as database, database.transaction(TENANT) as session:
        made = await db.context.create(session, TENANT, uuid_utils.compat.uuid7(), "chain", "{}")
        for _ in range(DEPTH + 1):
            tip = await db.message.append(session, TENANT, made.id, [message(n) for n in range(STEP)])
            assert tip is not None
            chain.append(tip.id)
            made = await db.context.fork(session, TENANT, uuid_utils.compat.uuid7(), tip, None, None, "{}")
    return chain


async def fork_long(url: str, long: UUID) -> tuple[UUID, UUID]:
    """Fork the long context at its tip and in its middle."""
    async with opened(url) as database, database.transaction(TENANT) as session:
        (record,) = await db.context.by_ids(session, TENANT, [long])
        tip, middle = [
            await db.context.fork(session, TENANT, uuid_utils.compat.uuid7(), record, version, None, "{}")
            for version in (None, LONG // 2)
        ]
    return tip.id, middle.id


def load(connection: psycopg.Connection[Any], long: UUID, late: UUID, parent: UUID) -> None:
    """Load in bulk what would take too long message by message."""
    connection.execute("insert into trees (tenant_id, id) values (%s, %s), (%s, %s)", [TENANT, long, TENANT, parent])
    connection.execute(
        "insert into contexts (tenant_id, id, root_id, latest_version, message_count, total_tokens, running_tokens) "
        "values (%s, %s, %s, %s, %s, %s, %s)",
        [TENANT, long, long, LONG, LONG - LONG // 1000, 7 * (LONG - LONG // 1000), 7 * LONG],
    )
    connection.execute(
        "insert into messages (tenant_id, id, context_id, version, created_at, role, token_count, running_tokens, "
        "content, deleted_at) "
        "select %s, gen_random_uuid(), %s, n, now(), 'user', 7, 7 * n, repeat('word ', 20), "
        "case when n %% 1000 = 500 then now() end from generate_series(1, %s) n",
        [TENANT, long, LONG],
    )
    connection.execute(
        "insert into contexts (tenant_id, id, root_id, name) values (%s, %s, %s, 'parent')", [TENANT, parent, parent]
    )
    connection.execute(
        "insert into contexts (tenant_id, id, root_id, name, parent_id, fork_version, depth, created_at, updated_at) "
        "select %s, gen_random_uuid(), %s, 'name ' || n, %s, 0, 1, moment, moment "
        "from generate_series(1, %s) n, lateral (select now() - n * interval '1 second') as t (moment)",
        [TENANT, parent, parent, LISTED],
    )
    # One key a minute, and as many of somebody else.
    connection.execute(
        "insert into idempotency_keys (tenant_id, scope_id, key, request_hash, result_id, message_count, created_at) "
        "select tenant, gen_random_uuid(), n, sha256(''), gen_random_uuid(), 1, now() - n * interval '1 minute' "
        "from unnest(array[%s, 'other']) tenant, generate_series(1, %s) n",
        [TENANT, LISTED],
    )
    connection.execute("insert into trees (tenant_id, id) values (%s, %s)", [TENANT, late])
    connection.execute(
        "insert into contexts (tenant_id, id, root_id, latest_version, message_count, total_tokens, running_tokens) "
        "values (%s, %s, %s, %s, %s, %s, %s)",
        [TENANT, late, late, LONG, LONG, 7 * LONG, 7 * LONG],
    )
    connection.execute(
        "insert into messages (tenant_id, id, context_id, version, created_at, role, token_count, running_tokens, "
        "content, tool_call_id, call_version) "
        "select %s, gen_random_uuid(), %s, n, now(), case when tool then 'tool' else 'assistant' end, 7, 7 * n, "
        "repeat('word ', 20), case when tool then 'call' end, case when n = %s then 10 when tool then n - 1 end "
        "from generate_series(1, %s) n, lateral (select n %% 4 = 0) as t (tool)",
        [TENANT, late, LONG, LONG],
    )
    # Others' rows stand in the same tables.
    connection.execute("insert into trees (tenant_id, id) values ('other', %s)", [parent])
    connection.execute(
        "insert into contexts (tenant_id, id, root_id, name) "
        "select 'other', gen_random_uuid(), %s, 'name ' || n from generate_series(1, %s) n",
        [parent, LISTED],
    )


class Explain:
    """Runs named queries with plans of one kind, and undoes what they write.

    As the role that serves, whom row security binds: its conditions come before all that could tell of rows.
    """

    def __init__(self, connection: psycopg.Connection[Any], mode: str) -> None:
        self._connection = connection
        connection.execute(sql.SQL("set plan_cache_mode = {}").format(mode))
        connection.execute(sql.SQL("set forkpoint.tenant = {}").format(TENANT))
        connection.execute(_SERVE)

    def __call__(self, stem: str, name: str, *parameters: Any) -> Plan:
        query = queries.load(stem)[name]
        explaining = sql.SQL("explain (analyze, buffers, format json) execute explained ({})").format(
            sql.SQL(", ").join(map(sql.Literal, parameters))
        )
        with self._connection.transaction(force_rollback=True):
            self._connection.execute(sql.SQL("prepare explained as {}").format(sql.SQL(query.text)))
            with self._connection.transaction(force_rollback=True):
                self._connection.execute(explaining)  # reads the catalogue, which the next run need not
            row = self._connection.execute(explaining).fetchone()
            self._connection.execute("deallocate explained")
        assert row is not None
        return Plan(row[0])

    @contextmanager
    def collected(self) -> Iterator[list[Plan]]:
        """Collect the plans of all that runs meanwhile, also inside of functions."""
        told: list[Plan] = []

        def take(notice: psycopg.errors.Diagnostic) -> None:
            _, found, text = (notice.message_primary or "").partition("plan:\n")
            if found:
                told.append(Plan([json.loads(text)]))

        self._connection.execute("reset role")
        self._connection.execute("load 'auto_explain'")
        for name, value in AUTO_EXPLAIN.items():
            self._connection.execute(sql.SQL("set auto_explain.{} = {}").format(sql.Identifier(name), value))
        self._connection.execute(_SERVE)
        self._connection.add_notice_handler(take)
        yield told
        self._connection.remove_notice_handler(take)
        self._connection.execute("reset role")
        self._connection.execute("set auto_explain.log_min_duration = -1")
        self._connection.execute(_SERVE)

    def window(self, context_id: UUID, version: int, budget: int, step: int = 0) -> Plan:
        return self(
            "window",
            "fit",
            TENANT,
            [context_id],
            [version],
            [7 * version],
            [budget],
            [step],
            [True],
            10_001,
            *EVERY_COLUMN,
        )

    def page(self, context_id: UUID, after: int | None, before: int | None, limit: int, *, newest_first: bool) -> Plan:
        return self(
            "lineage", "page", TENANT, [context_id], [after], [before], limit, newest_first, None, 1, *EVERY_COLUMN
        )
