-- Idempotency keys: what was done under a key, and for how long that is known. $1 is always the tenant.

-- name: claim :one
-- No row when the key is taken. Waits for a transaction that is just taking it, and takes it when that one is undone.
insert into idempotency_keys (tenant_id, scope_id, key, request_hash, result_id, message_count)
values ($1, $2::uuid, $3::text, $4::bytea, $5::uuid, $6::integer)
on conflict (tenant_id, scope_id, key) do nothing
returning key;

-- name: find :one
select k.request_hash, k.result_id, k.message_count
from idempotency_keys k
where k.tenant_id = $1
  and k.scope_id = $2::uuid
  and k.key = $3::text;

-- name: appended :many
-- The messages of a batch by its first one, deleted ones too: a batch lies in one context, without gaps.
select
  m.id, m.context_id, m.version, m.created_at, m.role, m.token_count, m.deleted_at,
  m.content, m.tool_calls, m.tool_call_id, m.tool_name, m.model, m.metadata
from (
  select o.tenant_id, o.context_id, o.version, o.version + $3::integer as end_version
  from messages o
  where o.tenant_id = $1
    and o.id = $2::uuid
  offset 0
) f
join messages m
  on m.tenant_id = f.tenant_id
  and m.tenant_id = $1
  and m.context_id = f.context_id
  and m.version >= f.version
  and m.version < f.end_version
order by m.version
limit $3::integer;

-- name: prune :many
-- Forgets ten keys that are older than $2 hours, the oldest first. Passes over what others are at, so it never waits. The
-- limit is no parameter, for which PostgreSQL would guess a tenth of all keys, and read them all.
with expired as (
  select k.tenant_id, k.scope_id, k.key
  from idempotency_keys k
  where k.tenant_id = $1
    and k.created_at < now() - make_interval(hours => $2::integer)
  order by k.created_at
  limit 10
  for update skip locked
)
delete from idempotency_keys k
using expired e
where k.tenant_id = $1
  and k.tenant_id = e.tenant_id
  and k.scope_id = e.scope_id
  and k.key = e.key
returning k.key;
