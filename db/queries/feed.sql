-- How far contexts have come that somebody follows, for when no bell has told it.

-- name: heads :many pipelined
select c.id, c.latest_version, c.deleted_at is not null as deleted
from contexts c
where c.tenant_id = $1
  and c.id = any($2::uuid[]);
