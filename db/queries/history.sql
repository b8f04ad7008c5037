-- Whole trees: read to be exported, stored to be imported. $1 is always the tenant.

-- name: members :many
-- All contexts of the tree with the root $2, deleted ones too, each after its parent; and how many messages each stores.
with recursive reader (tenant_id, id, distance) as (
  select c.tenant_id, c.id, 0
  from contexts c
  where c.tenant_id = $1
    and c.id = $2::uuid
  union all
  select f.tenant_id, f.id, r.distance + 1
  from reader r
  join contexts f
    on f.tenant_id = r.tenant_id
    and f.tenant_id = $1
    and f.parent_id = r.id
  where r.distance < 100000
)
select c.id, c.latest_version - coalesce(c.fork_version, 0) as own_count
from reader r
join contexts c
  on c.tenant_id = r.tenant_id
  and c.tenant_id = $1
  and c.id = r.id
order by c.depth, c.created_at, c.id;

-- name: messages :many
-- What the contexts $2 store after the versions $3 and through $4, deleted ones too, in the order of the contexts: as many
-- as begin in the first $5 bytes, and at least one. The sizes are summed without reading what is stored apart.
select
  m.id, m.context_id, m.version, m.created_at, m.role, m.token_count, m.deleted_at,
  m.content, m.tool_calls, m.tool_call_id, m.tool_name, m.model, m.metadata
from (
  select
    k.ordinal, n.id, n.version,
    sum(octet_length(n.content) + coalesce(pg_column_size(n.tool_calls), 0) + pg_column_size(n.metadata))
      over (order by k.ordinal, n.version rows between unbounded preceding and 1 preceding) as bytes_before
  from unnest($2::uuid[], $3::integer[], $4::integer[]) with ordinality as k (context_id, after_version, through_version, ordinal)
  join messages n
    on n.tenant_id = $1
    and n.context_id = k.context_id
    and n.version > k.after_version
    and n.version <= k.through_version
) s
join messages m
  on m.tenant_id = $1
  and m.id = s.id
where coalesce(s.bytes_before, 0) < $5::bigint
order by s.ordinal, s.version;

-- name: plant :one
-- A new tree. No row when it is there already.
insert into trees (tenant_id, id)
values ($1, $2::uuid)
on conflict (tenant_id, id) do nothing
returning id, now() as moment;

-- name: taken_contexts :many
select c.id
from contexts c
where c.tenant_id = $1
  and c.id = any($2::uuid[]);

-- name: taken_messages :many
select m.id, m.context_id
from messages m
where m.tenant_id = $1
  and m.id = any($2::uuid[]);

-- name: store_contexts :many
-- Not by COPY, which PostgreSQL refuses where row security binds.
insert into contexts (
  tenant_id, id, root_id, name, metadata, created_at, updated_at, deleted_at,
  latest_version, message_count, total_tokens, running_tokens,
  parent_id, fork_version, depth, owner_id, owner_depth, jump_id, jump_fork_version
)
select $1, n.*
from unnest(
  $2::uuid[], $3::uuid[], $4::text[], $5::jsonb[], $6::timestamptz[], $7::timestamptz[], $8::timestamptz[],
  $9::integer[], $10::integer[], $11::integer[], $12::bigint[],
  $13::uuid[], $14::integer[], $15::integer[], $16::uuid[], $17::integer[], $18::uuid[], $19::integer[]
) n;

-- name: store_calls :many
insert into calls (tenant_id, context_id, call_key, version)
select $1, n.*
from unnest($2::uuid[], $3::bytea[], $4::integer[]) n;

-- name: store_messages :many
insert into messages (
  tenant_id, id, context_id, version, created_at, role, token_count, running_tokens, deleted_at,
  content, tool_calls, tool_call_id, tool_name, call_version, model, metadata
)
select $1, n.*
from unnest(
  $2::uuid[], $3::uuid[], $4::integer[], $5::timestamptz[], $6::text[], $7::integer[], $8::bigint[], $9::timestamptz[],
  $10::text[], $11::json[], $12::text[], $13::text[], $14::integer[], $15::text[], $16::jsonb[]
) n;

-- name: call_versions :many
-- For each TOOL message (its context $2, version $3 and call $4) the version of the call that it answers, null if unknown.
select k.ordinal::integer, nearest_call($1, k.context_id, k.call_id, k.version, false) as call_version
from unnest($2::uuid[], $3::integer[], $4::text[]) with ordinality as k (context_id, version, call_id, ordinal)
order by k.ordinal;

-- name: settle :many
-- The counters of contexts that were stored before all of their messages were.
update contexts c
set latest_version = k.latest_version,
    message_count = k.message_count,
    total_tokens = k.total_tokens,
    running_tokens = k.running_tokens,
    updated_at = k.updated_at
from unnest(
  $2::uuid[], $3::integer[], $4::integer[], $5::integer[], $6::bigint[], $7::timestamptz[]
) as k (id, latest_version, message_count, total_tokens, running_tokens, updated_at)
where c.tenant_id = $1
  and c.id = k.id
returning c.id;
