-- Messages: rows of the table, whichever lineage reads them. $1 is always the tenant.

-- name: by_ids :many pipelined
-- Deleted ones too: the reader decides. $3 to $5: whether to read content, tool_calls and metadata, which may be large.
select
  m.id, m.context_id, m.version, m.created_at, m.role, m.token_count, m.deleted_at,
  case when $3::boolean then m.content end as content,
  case when $4::boolean then m.tool_calls end as tool_calls,
  m.tool_call_id, m.tool_name, m.model,
  case when $5::boolean then m.metadata end as metadata
from messages m
where m.tenant_id = $1
  and m.id = any($2::uuid[])
order by m.context_id, m.version;

-- name: append :one pipelined
-- No row when the context is unknown or deleted.
select
  c.id, c.root_id, c.name, c.metadata, c.created_at, c.updated_at, c.deleted_at,
  c.latest_version, c.message_count, c.total_tokens, c.parent_id, c.fork_version, c.depth
from append_messages(
  $1, $2::uuid, $3::uuid[], $4::text[], $5::text[], $6::json[], $7::text[], $8::text[], $9::integer[], $10::text[],
  $11::jsonb[]
) c;

-- name: delete :one
-- No row when it is deleted already.
update messages m
set deleted_at = now()
where m.tenant_id = $1
  and m.id = $2::uuid
  and m.deleted_at is null
returning m.id;

-- name: restore :one
-- No row when it is not deleted.
update messages m
set deleted_at = null
where m.tenant_id = $1
  and m.id = $2::uuid
  and m.deleted_at is not null
returning m.id;
