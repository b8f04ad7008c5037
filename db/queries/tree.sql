-- Trees of forks: contexts by their place in the tree, never their messages. $1 is always the tenant.

-- name: nodes :many
-- The contexts of each tree ($2) from its root downwards, as many as wanted ($3) at most. A deleted one is there only while
-- one that is not deleted hangs below it: such a `carrier` has a child that is not deleted, or a child that carries.
-- Carriers are found among the deleted, which are few, by going up from those with a living child; each is visited once,
-- by a seek (`limit 1` and `offset 0` keep the planner from comparing all with all). $4 bounds how many are looked at.
select
  k.ordinal::integer,
  n.id, n.name, n.parent_id, n.fork_version, n.depth, n.latest_version, n.message_count, n.total_tokens, n.updated_at, n.deleted_at
from unnest($2::uuid[], $3::integer[]) with ordinality as k (tree_id, wanted, ordinal)
cross join lateral (
  with recursive carrier (tenant_id, id, parent_id) as (
    select d.tenant_id, d.id, d.parent_id
    from (
      select c.tenant_id, c.id, c.parent_id
      from contexts c
      where c.tenant_id = $1
        and c.root_id = k.tree_id
        and c.deleted_at is not null
      order by c.id
      limit $4::integer
    ) d
    cross join lateral (
      select f.id
      from contexts f
      where f.tenant_id = $1
        and f.parent_id = d.id
        and f.deleted_at is null
      order by f.created_at, f.id
      limit 1
    ) living
    union
    select above.tenant_id, above.id, above.parent_id
    from carrier r
    cross join lateral (
      select p.tenant_id, p.id, p.parent_id
      from contexts p
      where p.tenant_id = r.tenant_id
        and p.tenant_id = $1
        and p.root_id = k.tree_id
        and p.id = r.parent_id
        and p.deleted_at is not null
      offset 0
    ) above
  )
  select living_or_carrier.*
  from (
    (
      select
        l.id, l.name, l.parent_id, l.fork_version, l.depth, l.latest_version, l.message_count, l.total_tokens,
        l.updated_at, l.deleted_at, l.created_at
      from contexts l
      where l.tenant_id = $1
        and l.root_id = k.tree_id
        and l.deleted_at is null
      order by l.depth, l.created_at, l.id
      limit k.wanted
    )
    union all
    select shown.*
    from (
      select r.id
      from carrier r
      limit $4::integer
    ) r
    cross join lateral (
      select
        c.id, c.name, c.parent_id, c.fork_version, c.depth, c.latest_version, c.message_count, c.total_tokens,
        c.updated_at, c.deleted_at, c.created_at
      from contexts c
      where c.tenant_id = $1
        and c.id = r.id
      offset 0
    ) shown
  ) living_or_carrier
  order by living_or_carrier.depth, living_or_carrier.created_at, living_or_carrier.id
  limit k.wanted
) n
order by k.ordinal, n.depth, n.created_at, n.id;

-- name: common_ancestors :many
-- For each two contexts ($2, $3) of one tree where their ways up first meet, and the last version that both inherit from
-- there: the lowest fork version on either way. Above it each reads messages that lie below that context on its own way,
-- or, on the same way, goes on alone. The ways are as long as the contexts are deep below the place where they meet.
with recursive pair (
  tenant_id, ordinal, here_id, here_parent_id, here_fork_version, here_depth,
  there_id, there_parent_id, there_fork_version, there_depth, version, steps
) as (
  select
    h.tenant_id, k.ordinal, h.id, h.parent_id, h.fork_version, h.depth,
    t.id, t.parent_id, t.fork_version, t.depth, least(h.latest_version, t.latest_version), 0
  from unnest($2::uuid[], $3::uuid[]) with ordinality as k (here_id, there_id, ordinal)
  join contexts h
    on h.tenant_id = $1
    and h.id = k.here_id
  join contexts t
    on t.tenant_id = $1
    and t.id = k.there_id
    and t.root_id = h.root_id
  union all
  select
    s.tenant_id, s.ordinal, h.id, h.parent_id, h.fork_version, h.depth,
    t.id, t.parent_id, t.fork_version, t.depth,
    least(
      s.version,
      case when s.here_depth >= s.there_depth then s.here_fork_version end,
      case when s.there_depth >= s.here_depth then s.there_fork_version end
    ),
    s.steps + 1
  from pair s
  join contexts h
    on h.tenant_id = s.tenant_id
    and h.tenant_id = $1
    and h.id = case when s.here_depth >= s.there_depth then s.here_parent_id else s.here_id end
  join contexts t
    on t.tenant_id = s.tenant_id
    and t.tenant_id = $1
    and t.id = case when s.there_depth >= s.here_depth then s.there_parent_id else s.there_id end
  where s.here_id <> s.there_id
    and s.steps < 100000
)
select
  s.ordinal::integer, s.version,
  c.id, c.root_id, c.name, c.metadata, c.created_at, c.updated_at, c.deleted_at,
  c.latest_version, c.message_count, c.total_tokens, c.parent_id, c.fork_version, c.depth
from pair s
join contexts c
  on c.tenant_id = s.tenant_id
  and c.tenant_id = $1
  and c.id = s.here_id
where s.here_id = s.there_id
order by s.ordinal;
