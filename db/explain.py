"""What PostgreSQL does for a call: EXPLAIN ANALYZE of the very statement, planned as the service plans it."""

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

from db import preflight
from db.call import Call
from db.row_security import set_local


def explain(url: str, tenant_id: str, calls: Sequence[Call]) -> list[list[str]]:
    """Run each call of a tenant, which only reads, once more and give the lines of its plan.

    Raises: MigrateError when the database cannot be reached.
    """
    with preflight.connect(url) as connection, connection.transaction():
        connection.execute("set transaction read only")
        connection.execute(set_local(tenant_id))
        return [_explain(connection, call) for call in calls]


def _explain(connection: psycopg.Connection[Any], call: Call) -> list[str]:
    mode = "force_custom_plan" if call.query.replanned else "force_generic_plan"
    connection.execute(sql.SQL("set local plan_cache_mode = {}").format(mode))
    connection.execute(sql.SQL("prepare explained as {}").format(sql.SQL(call.query.text)))
    values = sql.SQL(", ").join(map(sql.Literal, call.parameters))
    explaining = sql.SQL("explain (analyze, buffers) execute explained ({})").format(values)
    lines = [line for (line,) in connection.execute(explaining)]
    connection.execute("deallocate explained")
    return lines
