-- What has changed of contexts that somebody watches, for when no bell has told it.

-- name: states :many pipelined
-- How each context stands, and its forks of late: when the newest was made, and how many, as one may be committed after
-- others that are newer. Nothing is lost where some leave the count by their age: it only makes somebody look.
select
  c.id, c.latest_version, c.updated_at, c.deleted_at,
  (
    select max(f.created_at)
    from contexts f
    where f.tenant_id = $1
      and f.tenant_id = c.tenant_id
      and f.parent_id = c.id
  ) as forked_at,
  (
    select count(*)
    from contexts f
    where f.tenant_id = $1
      and f.tenant_id = c.tenant_id
      and f.parent_id = c.id
      and f.created_at > now() - interval '2 minutes'
  ) as forks
from contexts c
where c.tenant_id = $1
  and c.id = any($2::uuid[]);

-- name: changed :many pipelined
-- Contexts that have changed after a place ($2, $3), deleted ones too, in the order of their changes.
select c.id, c.updated_at
from contexts c
where c.tenant_id = $1
  and (c.updated_at, c.id) > ($2::timestamptz, $3::uuid)
order by c.updated_at, c.id
limit $4::integer;
