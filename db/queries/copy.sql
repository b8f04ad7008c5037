-- Copies of a whole history: the context that receives it. Its messages are copied by lineage.copy. $1 is always the tenant.

-- name: create :one
-- A root with its tree, and the counters ($6 to $9) of what it is about to receive from the context $3. Name ($4) and metadata
-- ($5) are those of that one where they are null.
with tree as (
  insert into trees (tenant_id, id)
  values ($1, $2::uuid)
)
insert into contexts as created (
  tenant_id, id, root_id, name, metadata, updated_at, latest_version, message_count, total_tokens, running_tokens
)
select
  c.tenant_id, $2::uuid, $2::uuid, coalesce($4::text, c.name), coalesce($5::jsonb, c.metadata), greatest(now(), c.updated_at),
  $6::integer, $7::integer, $8::integer, $9::bigint
from contexts c
where c.tenant_id = $1
  and c.id = $3::uuid
returning
  id, root_id, name, metadata, created_at, updated_at, deleted_at,
  latest_version, message_count, total_tokens, parent_id, fork_version, depth;
