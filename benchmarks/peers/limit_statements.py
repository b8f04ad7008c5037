"""The statements of the limit: PostgreSQL builds the JSON around the text of the named queries.

What a request of Forkpoint takes in several statements is one here, and what is the same in all requests is a constant.
"""
# ruff: noqa: S608 - put together from text of ours alone

import re
from dataclasses import dataclass

from benchmarks.peers import workloads
from benchmarks.peers.dataset import TENANT_ID
from db import queries

MESSAGE = 'm.id, m.version, upper(m.role) as role, m.content, m.token_count as "tokenCount"'
MESSAGE_AT = f'{MESSAGE}, m.created_at as "createdAt"'


def named(name: str, **values: str) -> str:
    """Take the text of a named query and put expressions in the places of its parameters: p2="…" for `$2`."""
    stem, _, query = name.partition(".")
    values["p1"] = f"'{TENANT_ID}'::text"
    text = queries.load(stem)[query].text.rstrip(";")
    return re.sub(r"\$(\d+)", lambda found: values[f"p{found[1]}"], text)


def page(ids: str, limit: int) -> str:
    """Take the query of a page for the newest messages."""
    nulls = {f"p{number}": "null" for number in (3, 4, 7)}
    return named("lineage.page", p2=ids, p5=str(limit), p6="true", p8="1", **nulls, **columns(9))


def columns(first: int) -> dict[str, str]:
    """Read the content, and neither the tool calls nor the metadata."""
    return {f"p{first}": "true", f"p{first + 1}": "false", f"p{first + 2}": "false"}


CONTEXT = f"context as ({named('context.by_ids', p2='array[$1::uuid]', p3='true')})"
LATEST = {"p2": "'9999-12-31'", "p3": "'ffffffff-ffff-ffff-ffff-ffffffffffff'"}
LISTED = named("context_list.all_by_updated_at_desc", p4="20", p5="false", **LATEST)
FIT = named(
    "window.fit",
    p2="array[$1::uuid]",
    p3="array[null]",
    p4="array[null]",
    p5="array[8000]",
    p6="array[0]",
    p7="array[true]",
    p8="10001",
    **columns(9),
)
APPENDED = named(
    "message.append",
    p2="$1",
    p3="array[$2::uuid]",
    p4="array['user']",
    p5="array[$3::text]",
    p6="array[null]",
    p7="array[null]",
    p8="array[null]",
    p9="array[$4::integer]",
    p10="array[null]",
    p11="array['{}']",
)


@dataclass(frozen=True, slots=True)
class Statement:
    """What answers a document: the JSON before and after what the statement gives, whose rows are parted by commas."""

    head: bytes
    text: str
    tail: bytes


STATEMENTS = {
    workloads.POINT["forkpoint"]: Statement(
        b'{"data":{"context":',
        f"""
with {CONTEXT}
select row_to_json(r)
from (
  select
    c.id, c.name, c.metadata, c.updated_at as "updatedAt", c.message_count as "messageCount",
    c.latest_version as "latestVersion"
  from context c
  where c.deleted_at is null
) r""",
        b"}}",
    ),
    workloads.NEWEST["forkpoint"]: Statement(
        b'{"data":{"context":{"messages":',
        f"""
with {CONTEXT}
select json_build_object(
  'nodes', (select json_agg(r) from (select {MESSAGE_AT} from ({page("array[$1::uuid]", 50)}) m) r),
  'pageInfo', json_build_object('hasPreviousPage', c.message_count > 50)
)
from context c
where c.deleted_at is null""",
        b"}}}",
    ),
    workloads.LIST["forkpoint"]: Statement(
        b'{"data":{"contexts":{"nodes":[',
        f"""
with listed as materialized ({LISTED}),
parent as materialized ({named("context.by_ids", p2="(select array_agg(l.parent_id) from listed l)", p3="false")})
select json_build_object(
  'id', c.id, 'name', c.name, 'updatedAt', c.updated_at, 'messageCount', c.message_count,
  'latestVersion', c.latest_version, 'messages', json_build_object('nodes', n.nodes),
  'parent', case when p.id is not null then json_build_object(
    'id', p.id, 'name', p.name, 'latestVersion', p.latest_version
  ) end
)
from (select l.*, row_number() over () as ordinal from listed l) c
left join (
  select m.ordinal, json_agg(r) as nodes
  from ({page("(select array_agg(l.id) from listed l)", 10)}) m
  cross join lateral (select {MESSAGE_AT}) r
  group by m.ordinal
) n
  on n.ordinal = c.ordinal
left join parent p
  on p.id = c.parent_id
  and p.deleted_at is null
order by c.ordinal""",
        b"]}}}",
    ),
    workloads.WINDOW["forkpoint"]: Statement(
        b'{"data":{"context":{"window":{"messages":',
        f"""
with {CONTEXT}, fitted as ({FIT})
select json_agg(r)
from (select {MESSAGE} from fitted m where m.id is not null) r""",
        b"}}}}",
    ),
    workloads.APPEND["forkpoint"]: Statement(
        b'{"data":{"appendMessages":',
        f"""
with appended as ({APPENDED})
select json_build_object(
  'context', json_build_object('id', c.id, 'latestVersion', c.latest_version),
  'messages', json_build_array(json_build_object('id', $2::uuid, 'version', c.latest_version))
)
from appended c""",
        b"}}",
    ),
    workloads.HEALTH["forkpoint"]: Statement(
        b'{"data":{"health":', """select json_build_object('status', 'HEALTHY')""", b"}}"
    ),
}
