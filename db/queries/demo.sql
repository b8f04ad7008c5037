-- What removing the demo needs beyond the store, which deletes nothing for real. $1 is always the tenant, $2 are contexts
-- of the demo.

-- name: lock :many
-- Nothing is appended to these contexts before the transaction ends.
select c.id
from contexts c
where c.tenant_id = $1
  and c.id = any($2::uuid[])
order by c.id
for update;

-- name: newest :many
-- The newest message of each context's lineage where the context stores it itself, deleted ones too.
select m.context_id, m.id
from contexts c
join messages m
  on m.tenant_id = c.tenant_id
  and m.tenant_id = $1
  and m.context_id = c.id
  and m.version = c.latest_version
where c.tenant_id = $1
  and c.id = any($2::uuid[])
order by m.context_id;

-- name: forks_by_others :many
-- Forks of these contexts that are none of them, deleted ones too; $3 bounds how many.
select c.id, c.parent_id, c.name
from contexts c
where c.tenant_id = $1
  and c.parent_id = any($2::uuid[])
  and not c.id = any($2::uuid[])
order by c.id
limit $3::integer;

-- name: delete :many
-- Their messages go with them.
delete from contexts c
where c.tenant_id = $1
  and c.id = any($2::uuid[])
returning c.id;

-- name: delete_tree :one
delete from trees t
where t.tenant_id = $1
  and t.id = $2::uuid
returning t.id;
