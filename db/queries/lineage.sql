-- The lineage: what is readable through a context. Its own messages lie above its fork version; those below belong to the
-- owners further up. Every read of a lineage is in this file, and nowhere else is decided what a reader sees of it.
--
-- Each query walks the same way: `segment` is a context on the way up and the versions (low, high] still wanted. It gives
-- those above its base (its fork version); the next one is the owner of the base, or of `high` where even the base is too
-- high, reached by jumps. So the walk visits the contexts that give rows, and O(log depth) more to find the first.

-- name: page :many
-- For each reader ($2) up to $5 visible messages between $3 and $4, both exclusive, from the newest or from the oldest ($6),
-- of some roles ($7, null for all). Versions are gapless, so a range as wide as the page, and wider by the deleted messages
-- that may lie in it, holds the page; where roles or many deletions thin it out, `complete` is false and the caller asks
-- again with a wider $8.
select
  k.ordinal::integer, r.complete,
  m.id, m.context_id, m.version, m.created_at, m.role, m.token_count, m.deleted_at,
  m.content, m.tool_calls, m.tool_call_id, m.tool_name, m.model, m.metadata
from unnest($2::uuid[], $3::integer[], $4::integer[]) with ordinality as k (context_id, after_version, before_version, ordinal)
join contexts c
  on c.tenant_id = $1
  and c.id = k.context_id
cross join lateral (
  select
    greatest(coalesce(k.after_version, 0), 0) as low,
    least(coalesce(k.before_version - 1, c.latest_version), c.latest_version) as high,
    ($5::integer + least(c.latest_version - c.message_count, $5::integer))::bigint * $8::integer as width
) w
cross join lateral (
  select
    case when $6::boolean then greatest(w.low, w.high - w.width) else w.low end::integer as low,
    case when $6::boolean then w.high else least(w.high, w.low + w.width) end::integer as high,
    w.high - w.low <= w.width as complete
) r
left join lateral (
  with recursive segment (tenant_id, id, owner_id, jump_id, jump_fork_version, base, low, high, steps) as (
    select c.tenant_id, c.id, c.owner_id, c.jump_id, c.jump_fork_version, coalesce(c.fork_version, 0), r.low, r.high, 0
    union all
    select
      p.tenant_id, p.id, p.owner_id, p.jump_id, p.jump_fork_version, coalesce(p.fork_version, 0),
      s.low, least(s.high, s.base), s.steps + 1
    from segment s
    join contexts p
      on p.tenant_id = s.tenant_id
      and p.tenant_id = $1
      and p.id = case when s.jump_fork_version >= least(s.high, s.base) then s.jump_id else s.owner_id end
    where s.base > s.low
      and s.steps < 100000
  )
  select own.*
  from segment s
  cross join lateral (
    select
      o.id, o.context_id, o.version, o.created_at, o.role, o.token_count, o.deleted_at,
      o.content, o.tool_calls, o.tool_call_id, o.tool_name, o.model, o.metadata
    from messages o
    where o.tenant_id = $1
      and o.tenant_id = s.tenant_id
      and o.context_id = s.id
      and o.version > greatest(s.low, s.base)
      and o.version <= s.high
      and o.deleted_at is null
      and ($7::text[] is null or o.role = any($7::text[]))
    offset 0
  ) own
  where s.base < s.high
  order by case when $6::boolean then -own.version else own.version end
  limit $5::integer
) m on true
order by k.ordinal, m.version;

-- name: count_roles :many
-- How many visible messages of some roles each reader has. It reads the whole lineage.
select k.context_id, m.count
from unnest($2::uuid[]) as k (context_id)
join contexts c
  on c.tenant_id = $1
  and c.id = k.context_id
cross join lateral (
  with recursive segment (tenant_id, id, owner_id, jump_id, jump_fork_version, base, low, high, steps) as (
    select c.tenant_id, c.id, c.owner_id, c.jump_id, c.jump_fork_version, coalesce(c.fork_version, 0), 0, c.latest_version, 0
    union all
    select
      p.tenant_id, p.id, p.owner_id, p.jump_id, p.jump_fork_version, coalesce(p.fork_version, 0),
      s.low, least(s.high, s.base), s.steps + 1
    from segment s
    join contexts p
      on p.tenant_id = s.tenant_id
      and p.tenant_id = $1
      and p.id = case when s.jump_fork_version >= least(s.high, s.base) then s.jump_id else s.owner_id end
    where s.base > s.low
      and s.steps < 100000
  )
  select coalesce(sum(own.count), 0)::integer as count
  from segment s
  cross join lateral (
    select count(*) as count
    from messages o
    where o.tenant_id = $1
      and o.tenant_id = s.tenant_id
      and o.context_id = s.id
      and o.version > s.base
      and o.version <= s.high
      and o.deleted_at is null
      and o.role = any($3::text[])
  ) own
  where s.base < s.high
) m;

-- name: stored :one
-- The message of version $3, whichever ancestor stores it and deleted or not, and the tokens through it.
with recursive segment (tenant_id, id, owner_id, jump_id, jump_fork_version, base, low, high, steps) as (
  select c.tenant_id, c.id, c.owner_id, c.jump_id, c.jump_fork_version, coalesce(c.fork_version, 0), $3::integer - 1, least($3::integer, c.latest_version), 0
  from contexts c
  where c.tenant_id = $1
    and c.id = $2::uuid
  union all
  select
    p.tenant_id, p.id, p.owner_id, p.jump_id, p.jump_fork_version, coalesce(p.fork_version, 0),
    s.low, least(s.high, s.base), s.steps + 1
  from segment s
  join contexts p
    on p.tenant_id = s.tenant_id
    and p.tenant_id = $1
    and p.id = case when s.jump_fork_version >= least(s.high, s.base) then s.jump_id else s.owner_id end
  where s.base > s.low
    and s.steps < 100000
)
select own.id, own.context_id, own.token_count, own.running_tokens, own.deleted_at
from segment s
cross join lateral (
  select o.id, o.context_id, o.token_count, o.running_tokens, o.deleted_at
  from messages o
  where o.tenant_id = $1
    and o.tenant_id = s.tenant_id
    and o.context_id = s.id
    and o.version = $3::integer
    and o.version > s.base
  offset 0
) own
where s.base < s.high;

-- name: deleted_after :one
-- How many messages of the lineage above version $3 are deleted, and their tokens.
with recursive segment (tenant_id, id, owner_id, jump_id, jump_fork_version, base, low, high, steps) as (
  select c.tenant_id, c.id, c.owner_id, c.jump_id, c.jump_fork_version, coalesce(c.fork_version, 0), $3::integer, c.latest_version, 0
  from contexts c
  where c.tenant_id = $1
    and c.id = $2::uuid
  union all
  select
    p.tenant_id, p.id, p.owner_id, p.jump_id, p.jump_fork_version, coalesce(p.fork_version, 0),
    s.low, least(s.high, s.base), s.steps + 1
  from segment s
  join contexts p
    on p.tenant_id = s.tenant_id
    and p.tenant_id = $1
    and p.id = case when s.jump_fork_version >= least(s.high, s.base) then s.jump_id else s.owner_id end
  where s.base > s.low
    and s.steps < 100000
)
select count(*)::integer, coalesce(sum(own.token_count), 0)::bigint
from segment s
cross join lateral (
  select o.token_count
  from messages o
  where o.tenant_id = $1
    and o.tenant_id = s.tenant_id
    and o.context_id = s.id
    and o.version > greatest(s.low, s.base)
    and o.version <= s.high
    and o.deleted_at is not null
  offset 0
) own
where s.base < s.high;
