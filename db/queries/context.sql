-- Contexts: rows of the table, never their messages. $1 is always the tenant.

-- name: by_ids :many pipelined
-- Deleted ones too: the reader decides. $3: whether to read the metadata, which may be large.
select
  c.id, c.root_id, c.name, case when $3::boolean then c.metadata end as metadata, c.created_at, c.updated_at, c.deleted_at,
  c.latest_version, c.message_count, c.total_tokens, c.parent_id, c.fork_version, c.depth
from contexts c
where c.tenant_id = $1
  and c.id = any($2::uuid[]);

-- name: ancestors :many
-- The parents of each context, nearest first, without the deleted ones. $3: whether to read their metadata.
with recursive ancestor (tenant_id, reader_id, id, parent_id, distance) as (
  select c.tenant_id, c.id, c.parent_id, p.parent_id, 1
  from contexts c
  join contexts p
    on p.tenant_id = c.tenant_id
    and p.tenant_id = $1
    and p.id = c.parent_id
  where c.tenant_id = $1
    and c.id = any($2::uuid[])
  union all
  select a.tenant_id, a.reader_id, p.id, p.parent_id, a.distance + 1
  from ancestor a
  join contexts p
    on p.tenant_id = a.tenant_id
    and p.tenant_id = $1
    and p.id = a.parent_id
  where a.distance < 100000
)
select
  a.reader_id,
  c.id, c.root_id, c.name, case when $3::boolean then c.metadata end as metadata, c.created_at, c.updated_at, c.deleted_at,
  c.latest_version, c.message_count, c.total_tokens, c.parent_id, c.fork_version, c.depth
from ancestor a
join contexts c
  on c.tenant_id = a.tenant_id
  and c.tenant_id = $1
  and c.id = a.id
where c.deleted_at is null
order by a.reader_id, a.distance;

-- name: forks :many pipelined
-- A page of the forks of each parent, oldest first. $3 and $4 are the place after which each page starts.
-- $6: whether to read their metadata.
select
  k.ordinal::integer,
  f.id, f.root_id, f.name, case when $6::boolean then f.metadata end as metadata, f.created_at, f.updated_at, f.deleted_at,
  f.latest_version, f.message_count, f.total_tokens, f.parent_id, f.fork_version, f.depth
from unnest($2::uuid[], $3::timestamptz[], $4::uuid[]) with ordinality as k (parent_id, after_created_at, after_id, ordinal)
cross join lateral (
  select c.*
  from contexts c
  where c.tenant_id = $1
    and c.parent_id = k.parent_id
    and c.deleted_at is null
    and (c.created_at, c.id) > (k.after_created_at, k.after_id)
  order by c.created_at, c.id
  limit $5::integer
) f
order by k.ordinal, f.created_at, f.id;

-- name: count_forks :many
select c.parent_id, count(*)::integer
from contexts c
where c.tenant_id = $1
  and c.parent_id = any($2::uuid[])
  and c.deleted_at is null
group by c.parent_id;

-- name: create :one
with tree as (
  insert into trees (tenant_id, id)
  values ($1, $2::uuid)
)
insert into contexts (tenant_id, id, root_id, name, metadata)
values ($1, $2::uuid, $2::uuid, $3::text, $4::jsonb)
returning
  id, root_id, name, metadata, created_at, updated_at, deleted_at,
  latest_version, message_count, total_tokens, parent_id, fork_version, depth;

-- name: lock_tree_shared :one
-- Whoever forks or copies: others may do so at the same time, but no message of the tree is deleted or restored meanwhile.
select t.id
from trees t
where t.tenant_id = $1
  and t.id = $2::uuid
for share;

-- name: lock_tree :one
-- Whoever deletes or restores a message: alone in the tree, beside the appends.
select t.id
from trees t
where t.tenant_id = $1
  and t.id = $2::uuid
for update;

-- name: fork :one
-- One row. $7 owns the message at the fork version; the jump goes where the owner's two last jumps would meet when they
-- are of one length, and to the owner itself otherwise.
insert into contexts as created (
  tenant_id, id, root_id, name, metadata, created_at, updated_at,
  latest_version, message_count, total_tokens, running_tokens,
  parent_id, fork_version, depth, owner_id, owner_depth, jump_id, jump_fork_version
)
select
  p.tenant_id, $2::uuid, p.root_id, $5::text, $6::jsonb, now(), greatest(now(), p.updated_at),
  $4::integer, $8::integer, $9::integer, $10::bigint,
  p.id, $4::integer, p.depth + 1, o.id, coalesce(o.owner_depth + 1, 0),
  case when far.reaches then far.id else o.id end,
  case when far.reaches then far.fork_version else coalesce(o.fork_version, case when o.id is not null then 0 end) end
from contexts p
left join contexts o
  on o.tenant_id = p.tenant_id
  and o.tenant_id = $1
  and o.id = $7::uuid
left join lateral (
  select
    jj.id,
    coalesce(jj.fork_version, 0) as fork_version,
    o.owner_depth - j.owner_depth = j.owner_depth - jj.owner_depth as reaches
  from contexts j
  join contexts jj
    on jj.tenant_id = j.tenant_id
    and jj.tenant_id = $1
    and jj.id = case when j.jump_id is null then j.id else j.jump_id end
  where j.tenant_id = o.tenant_id
    and j.tenant_id = $1
    and j.id = o.jump_id
) far on true
where p.tenant_id = $1
  and p.id = $3::uuid
returning
  id, root_id, name, metadata, created_at, updated_at, deleted_at,
  latest_version, message_count, total_tokens, parent_id, fork_version, depth;

-- name: lock :one
-- Nothing is appended before the transaction ends. No row when it is unknown or deleted.
select
  c.id, c.root_id, c.name, c.metadata, c.created_at, c.updated_at, c.deleted_at,
  c.latest_version, c.message_count, c.total_tokens, c.parent_id, c.fork_version, c.depth
from contexts c
where c.tenant_id = $1
  and c.id = $2::uuid
  and c.deleted_at is null
for no key update;

-- name: update :one
-- A null leaves the column as it is.
update contexts c
set name = coalesce($3::text, c.name),
    metadata = coalesce($4::jsonb, c.metadata),
    updated_at = greatest(now(), c.updated_at + interval '1 microsecond')
where c.tenant_id = $1
  and c.id = $2::uuid
  and c.deleted_at is null
returning
  c.id, c.root_id, c.name, c.metadata, c.created_at, c.updated_at, c.deleted_at,
  c.latest_version, c.message_count, c.total_tokens, c.parent_id, c.fork_version, c.depth;

-- name: delete :one
update contexts c
set deleted_at = now(),
    updated_at = greatest(now(), c.updated_at + interval '1 microsecond')
where c.tenant_id = $1
  and c.id = $2::uuid
  and c.deleted_at is null
returning
  c.id, c.root_id, c.name, c.metadata, c.created_at, c.updated_at, c.deleted_at,
  c.latest_version, c.message_count, c.total_tokens, c.parent_id, c.fork_version, c.depth;

-- name: restore :one
update contexts c
set deleted_at = null,
    updated_at = greatest(now(), c.updated_at + interval '1 microsecond')
where c.tenant_id = $1
  and c.id = $2::uuid
  and c.deleted_at is not null
returning
  c.id, c.root_id, c.name, c.metadata, c.created_at, c.updated_at, c.deleted_at,
  c.latest_version, c.message_count, c.total_tokens, c.parent_id, c.fork_version, c.depth;

-- name: recount :many
-- After a message of version $3 was deleted from or restored to its owner $2: the owner and every fork that inherits the
-- message change their counters by $4 messages and $5 tokens.
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
    and f.fork_version >= $3::integer
  where r.distance < 100000
)
update contexts c
set message_count = c.message_count + $4::integer,
    total_tokens = c.total_tokens + $5::integer,
    updated_at = greatest(now(), c.updated_at + interval '1 microsecond')
from reader r
where c.tenant_id = $1
  and c.tenant_id = r.tenant_id
  and c.id = r.id
returning c.id;
