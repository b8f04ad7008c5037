"""Two tenants with the very same ids, and parameters for every named query that find what they have."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg
from psycopg.types.numeric import Int8

from db.context import EARLIEST, LAST_NAME, LATEST, MAX, NIL
from db.pool import Database, PoolLimits
from db.queries import Query

# A root, a fork of its third version, an empty root, a deleted root, and a tree without contexts. Messages have the ids
# of contexts, so that whatever a query looks for by an id is there: the second of the root, the first of the fork, and
# the third of the root, which is deleted.
ROOT, FORK, EMPTY, DELETED, BARE = (UUID(int=number) for number in range(1, 6))
LIMITS = PoolLimits(
    size_min=1, size_max=1, wait_seconds=5, connect_seconds=5, statement_seconds=5, lane_size=2, append_lane_size=1
)
# Nobody's.
NEW = UUID(int=100)
PLANTED_AT = datetime(2020, 1, 1, tzinfo=UTC)

_PLANT = """
insert into trees (tenant_id, id) select %(tenant)s, id from unnest(%(trees)s::uuid[]) id;
insert into contexts (
  tenant_id, id, root_id, name, created_at, updated_at, deleted_at,
  latest_version, message_count, total_tokens, running_tokens,
  parent_id, fork_version, depth, owner_id, owner_depth, jump_id, jump_fork_version
) values
  (%(tenant)s, %(root)s, %(root)s, %(tenant)s, %(at)s, %(at)s, null,
    4, 3, 21, 28, null, null, 0, null, 0, null, null),
  (%(tenant)s, %(fork)s, %(root)s, %(tenant)s, %(at)s, %(at)s, null,
    4, 3, 21, 28, %(root)s, 3, 1, %(root)s, 1, %(root)s, 0),
  (%(tenant)s, %(empty)s, %(empty)s, %(tenant)s, %(at)s, %(at)s, null,
    0, 0, 0, 0, null, null, 0, null, 0, null, null),
  (%(tenant)s, %(deleted)s, %(deleted)s, %(tenant)s, %(at)s, %(at)s, %(at)s,
    0, 0, 0, 0, null, null, 0, null, 0, null, null);
insert into calls (tenant_id, context_id, call_key, version)
values (%(tenant)s, %(root)s, sha256('call'), 2), (%(tenant)s, %(root)s, sha256(convert_to(%(tenant)s, 'UTF8')), 1);
insert into messages (
  tenant_id, id, context_id, version, created_at, role, token_count, running_tokens, deleted_at, content, tool_calls,
  tool_call_id, call_version
) values
  (%(tenant)s, gen_random_uuid(), %(root)s, 1, %(at)s, 'system', 7, 7, null, %(tenant)s, null, null, null),
  (%(tenant)s, %(root)s, %(root)s, 2, %(at)s, 'assistant', 7, 14, null, %(tenant)s, '[{"id": "call"}]', null, null),
  (%(tenant)s, %(empty)s, %(root)s, 3, %(at)s, 'user', 7, 21, %(at)s, %(tenant)s, null, null, null),
  (%(tenant)s, %(deleted)s, %(root)s, 4, %(at)s, 'user', 7, 28, null, %(tenant)s, null, null, null),
  (%(tenant)s, %(fork)s, %(fork)s, 4, %(at)s, 'tool', 7, 28, null, %(tenant)s, null, 'call', 2);
insert into idempotency_keys (tenant_id, scope_id, key, request_hash, result_id, message_count, created_at)
values (%(tenant)s, %(root)s, 'k', sha256(convert_to(%(tenant)s, 'UTF8')), %(root)s, 1, %(at)s);
insert into api_keys (tenant_id, id, key_hash, name, scopes, created_at)
select %(tenant)s, id, sha256(convert_to(%(tenant)s || id, 'UTF8')), %(tenant)s, '{read}', %(at)s
from unnest(array[%(root)s, %(fork)s]::uuid[]) id;
insert into rate_limits (tenant_id, charged_us, full_us, passed) values (%(tenant)s, 0, 0, true);
"""


def plant(connection: psycopg.Connection, tenant_id: str) -> None:
    """Store what each tenant has; names and contents are the tenant's."""
    for statement in _PLANT.split(";\n"):
        if statement.strip():
            connection.execute(
                statement,
                {
                    "tenant": tenant_id,
                    "at": PLANTED_AT,
                    "trees": [ROOT, EMPTY, DELETED, BARE],
                    "root": ROOT,
                    "fork": FORK,
                    "empty": EMPTY,
                    "deleted": DELETED,
                },
            )


# What a parameter of each type is, where nothing else is said.
_OF_TYPE: dict[str, Any] = {
    "uuid": ROOT,
    "integer": 1,
    "bigint": Int8(1_000_000),
    "boolean": True,
    "text": "k",
    "timestamptz": EARLIEST,
    "jsonb": "{}",
    "bytea": b"\0" * 32,
}
_UNFILTERED = {2: None, 3: None, 4: False, 5: None, 6: None, 7: True}
_STORED_CONTEXT = {2: [NEW], 3: [EMPTY], 8: [None], 13: [None], 14: [None], 15: [0], 16: [None], 17: [0]}
_OF_QUERY: dict[str, dict[int, Any]] = {
    "api_key.create": {2: NEW, 5: ["read"], 6: None},
    "api_key.page": {2: LATEST, 3: MAX, 4: 9},
    "api_key.note_uses": {3: [Int8(1), Int8(1)]},
    "rate_limit.charge": {2: "1000000", 3: "1000000000"},
    "context.create": {2: NEW},
    "context.fork": {2: NEW, 8: 1, 9: 7, 10: Int8(7)},
    "context.restore": {2: DELETED},
    "context.recount": {4: 0, 5: 0},
    "context.forks": {4: [NIL, NIL], 5: 10},
    "context_list.count": _UNFILTERED,
    "context_list.matching": _UNFILTERED | {7: [ROOT, FORK]},
    "copy.create": {2: NEW, 6: 0, 7: 0, 8: 0, 9: Int8(0)},
    "demo.delete": {2: [DELETED]},
    "demo.delete_tree": {2: BARE},
    "demo.newest": {2: [FORK, ROOT]},
    "demo.forks_by_others": {2: [ROOT], 3: 10},
    "history.messages": {3: [0, 0], 4: [9, 9]},
    "history.plant": {2: NEW},
    "history.call_versions": {3: [9, 9], 4: ["call", "call"]},
    "history.settle": {3: [9, 9], 4: [1, 1], 5: [1, 1], 6: [Int8(10**6)] * 2},
    "history.store_contexts": _STORED_CONTEXT
    | {4: ["new"], 5: ["{}"], 6: [PLANTED_AT], 7: [PLANTED_AT], 9: [0], 10: [0], 11: [0], 12: [Int8(0)]}
    | {18: [None], 19: [None]},
    "history.store_calls": {3: [b"1", b"2"]},
    "history.store_messages": {2: [NEW], 3: [EMPTY], 4: [1], 5: [PLANTED_AT], 6: ["user"], 7: [1], 8: [Int8(1)]}
    | {9: [None], 10: ["new"], 11: [None], 12: [None], 13: [None], 14: [None], 15: [None], 16: ["{}"]},
    "idempotency.claim": {3: "new"},
    "idempotency.appended": {3: 9},
    "idempotency.prune": {2: 24},
    "lineage.page": {3: [None, None], 4: [None, None], 5: 9, 7: None},
    "lineage.since": {3: [0, 0], 4: 9},
    "lineage.count_roles": {3: [0, 0], 4: [9, 9]},
    "lineage.stored": {3: 2},
    "lineage.totals": {3: [2, 3]},
    "lineage.versions_at": {3: [LATEST, LATEST]},
    "lineage.copy": {3: 0, 4: 3, 5: EMPTY, 6: [UUID(int=200 + number) for number in range(3)]},
    "message.append": {
        3: [NEW],
        4: ["user"],
        5: ["new"],
        6: [None],
        7: [None],
        8: [None],
        9: [1],
        10: [None],
        11: ["{}"],
    },
    "message.restore": {2: EMPTY},
    "tree.nodes": {3: [9, 9], 4: 9},
    "tree.common_ancestors": {3: [FORK, ROOT]},
    "watch.changed": {3: NIL, 4: 9},
    "window.fit": {3: [None, None], 4: [None, None], 5: [100, 21], 6: [0, 0], 8: 9},
}


def parameters(query: Query, tenant_id: str) -> list[Any]:
    """Give parameters that find rows of a tenant who was planted."""
    types = {int(number): name for number, name in re.findall(r"\$(\d+)::([a-z]+(?:\[\])?)", query.text)}
    own = _OF_QUERY.get(query.name, {})
    if (order := re.match(r"context_list\.(all_)?by_(\w+)_(asc|desc)", query.name)) is not None:
        own = {} if order[1] else dict(_UNFILTERED)
        place = 2 if order[1] else 8
        first, last = ("", LAST_NAME) if order[2] == "name" else (EARLIEST, LATEST)
        own |= {place: first, place + 1: NIL} if order[3] == "asc" else {place: last, place + 1: MAX}
        own |= {place + 2: 9}
    found: list[Any] = [tenant_id]
    for number in range(2, max(types, default=1) + 1):
        kind = types[number]
        if number in own:
            found.append(own[number])
        elif kind == "uuid[]":
            found.append([ROOT, FORK])
        elif kind.endswith("[]"):
            found.append([_OF_TYPE[kind.removesuffix("[]")]] * 2)
        else:
            found.append(_OF_TYPE[kind])
    return found


def as_planted(value: Any) -> Any:
    """Give a value so that it can be compared with another run's: what is of now, or new, is not its own."""
    if isinstance(value, datetime) and value > PLANTED_AT:
        return "now"
    if isinstance(value, UUID) and value.version in {4, 7}:
        return "new"
    return value


class Undo(Exception):
    """Ends a transaction that is to leave nothing behind."""


@asynccontextmanager
async def opened(url: str, *, row_security: bool = True, **chosen: Any) -> AsyncIterator[Database]:
    database = Database(url, replace(LIMITS, row_security=row_security, **chosen))
    await database.open()
    try:
        await database.lanes_ready(5)
        yield database
    finally:
        await database.close()
