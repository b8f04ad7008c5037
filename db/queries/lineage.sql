-- The lineage: what is readable through a context. Its own messages lie above its fork version; those below belong to the
-- owners further up. The function segments(context, low, high) tells who stores the versions (low, high], and each query
-- here joins it with the messages of these ranges (`offset 0` keeps each range a seek of its own, whatever the planner
-- guesses). What a reader sees of them is decided here, and for windows in fit_window and window.sql.

-- name: page :many pipelined
-- For each reader ($2) up to $5 visible messages between $3 and $4, both exclusive, from the newest or from the oldest ($6),
-- of some roles ($7, null for all). Versions are gapless, so a range as wide as the page, and wider by the deleted messages
-- that may lie in it, holds the page; where roles or many deletions thin it out, `complete` is false and the caller asks
-- again with a wider $8. $9 to $11: whether to read the columns that may be large, content, tool_calls and metadata.
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
  select own.*
  from segments($1, c.id, r.low, r.high) s
  cross join lateral (
    select
      o.id, o.context_id, o.version, o.created_at, o.role, o.token_count, o.deleted_at,
      case when $9::boolean then o.content end as content,
      case when $10::boolean then o.tool_calls end as tool_calls,
      o.tool_call_id, o.tool_name, o.model,
      case when $11::boolean then o.metadata end as metadata
    from messages o
    where o.tenant_id = $1
      and o.tenant_id = s.tenant_id
      and o.context_id = s.context_id
      and o.version > s.low
      and o.version <= s.high
      and o.deleted_at is null
      and ($7::text[] is null or o.role = any($7::text[]))
    offset 0
  ) own
  order by case when $6::boolean then -own.version else own.version end
  limit $5::integer
) m on true
order by k.ordinal, m.version;

-- name: since :many pipelined
-- What each reader ($2) has that whoever knows it through version $3 (null for its latest) does not: the visible messages of
-- the next $4 versions, in order. Gives the latest version and whether the reader is deleted also where there is none.
select
  k.ordinal::integer, c.latest_version, c.deleted_at is not null as deleted,
  m.id, m.context_id, m.version, m.created_at, m.role, m.token_count, m.deleted_at,
  m.content, m.tool_calls, m.tool_call_id, m.tool_name, m.model, m.metadata
from unnest($2::uuid[], $3::integer[]) with ordinality as k (context_id, version, ordinal)
join contexts c
  on c.tenant_id = $1
  and c.id = k.context_id
left join lateral (
  select own.*
  from segments(
    $1, c.id, coalesce(k.version, c.latest_version), least(k.version::bigint + $4::integer, c.latest_version)::integer
  ) s
  cross join lateral (
    select
      o.id, o.context_id, o.version, o.created_at, o.role, o.token_count, o.deleted_at,
      o.content, o.tool_calls, o.tool_call_id, o.tool_name, o.model, o.metadata
    from messages o
    where o.tenant_id = $1
      and o.tenant_id = s.tenant_id
      and o.context_id = s.context_id
      and o.version > s.low
      and o.version <= s.high
      and o.deleted_at is null
    offset 0
  ) own
) m on true
order by k.ordinal, m.version;

-- name: count_roles :many
-- How many visible messages of some roles ($5) each reader has above version $3 and through version $4. It reads them all.
select k.ordinal::integer, m.count
from unnest($2::uuid[], $3::integer[], $4::integer[]) with ordinality as k (context_id, low, high, ordinal)
join contexts c
  on c.tenant_id = $1
  and c.id = k.context_id
cross join lateral (
  select coalesce(sum(own.count), 0)::integer as count
  from segments($1, c.id, k.low, least(k.high, c.latest_version)) s
  cross join lateral (
    select count(*) as count
    from messages o
    where o.tenant_id = $1
      and o.tenant_id = s.tenant_id
      and o.context_id = s.context_id
      and o.version > s.low
      and o.version <= s.high
      and o.deleted_at is null
      and o.role = any($5::text[])
  ) own
) m
order by k.ordinal;

-- name: stored :one
-- The message of version $3, whichever ancestor stores it and deleted or not.
select own.id, own.context_id, own.token_count
from segments($1, $2::uuid, $3::integer - 1, $3::integer) s
cross join lateral (
  select o.id, o.context_id, o.token_count
  from messages o
  where o.tenant_id = $1
    and o.tenant_id = s.tenant_id
    and o.context_id = s.context_id
    and o.version > s.low
    and o.version <= s.high
  offset 0
) own;

-- name: totals :many pipelined
-- What each reader ($2) holds through a version ($3): who stores the message there (none at version 0), the tokens
-- through it, and how many messages and tokens of these are visible. Its owner holds the same through that version, and
-- whatever it holds above, it stores itself: so these are the owner's counters less what it stores above, and of that only
-- the deleted messages must be looked for.
select
  k.ordinal::integer, m.owner_id, coalesce(m.running_tokens, 0)::bigint as running_tokens,
  coalesce(m.message_count, 0)::integer as message_count, coalesce(m.total_tokens, 0)::integer as total_tokens
from unnest($2::uuid[], $3::integer[]) with ordinality as k (context_id, version, ordinal)
join contexts c
  on c.tenant_id = $1
  and c.id = k.context_id
left join lateral (
  select
    owner.id as owner_id, own.running_tokens,
    k.version - (owner.latest_version - owner.message_count) + gone.count as message_count,
    own.running_tokens - (owner.running_tokens - owner.total_tokens) + gone.tokens as total_tokens
  from segments($1, c.id, k.version - 1, k.version) s
  cross join lateral (
    select p.id, p.latest_version, p.message_count, p.running_tokens, p.total_tokens
    from contexts p
    where p.tenant_id = $1
      and p.tenant_id = s.tenant_id
      and p.id = s.context_id
    offset 0
  ) owner
  cross join lateral (
    select o.running_tokens
    from messages o
    where o.tenant_id = $1
      and o.tenant_id = s.tenant_id
      and o.context_id = s.context_id
      and o.version = k.version
    offset 0
  ) own
  cross join lateral (
    select count(*) as count, coalesce(sum(o.token_count), 0) as tokens
    from messages o
    where o.tenant_id = $1
      and o.tenant_id = s.tenant_id
      and o.context_id = s.context_id
      and o.version > k.version
      and o.deleted_at is not null
  ) gone
) m on true
order by k.ordinal;

-- name: versions_at :many pipelined
-- The last version of each reader ($2) whose message was appended at or before a moment ($3), deleted or not; 0 for none.
-- Versions are computed apart (`offset 0`), or row security, which trusts no arithmetic, would keep them from the index.
-- Times never fall along a lineage. So this walk goes on past every context whose own first message is later, by jumps
-- where that holds for all of what is jumped over too, and halves the range of the first context where it does not.
select k.ordinal::integer, coalesce(m.version, 0)::integer as version
from unnest($2::uuid[], $3::timestamptz[]) with ordinality as k (context_id, moment, ordinal)
join contexts c
  on c.tenant_id = $1
  and c.id = k.context_id
left join lateral (
  with recursive past (tenant_id, id, owner_id, jump_id, jump_fork_version, base, high, steps) as (
    select c.tenant_id, c.id, c.owner_id, c.jump_id, c.jump_fork_version, coalesce(c.fork_version, 0), c.latest_version, 0
    union all
    select
      p.tenant_id, p.id, p.owner_id, p.jump_id, p.jump_fork_version, coalesce(p.fork_version, 0),
      least(s.high, s.base), s.steps + 1
    from past s
    left join lateral (
      select o.created_at <= k.moment as reached
      from (select s.base + 1 as version offset 0) first
      join messages o
        on o.tenant_id = $1
        and o.context_id = s.id
        and o.version = first.version
        and o.version <= s.high
    ) own on true
    left join lateral (
      select o.created_at <= k.moment as reached
      from (select s.jump_fork_version + 1 as version offset 0) first
      join messages o
        on o.tenant_id = $1
        and o.context_id = s.jump_id
        and o.version = first.version
    ) far on true
    join contexts p
      on p.tenant_id = s.tenant_id
      and p.tenant_id = $1
      and p.id = case when far.reached then s.owner_id else s.jump_id end
    where own.reached is not true
      and s.steps < 100000
  ), half (id, low, high) as (
    select s.id, s.base, s.high
    from (select * from past order by steps desc limit 1) s
    union all
    select
      h.id,
      case when middle.reached then middle.version else h.low end,
      case when middle.reached then h.high else middle.version - 1 end
    from half h
    cross join lateral (
      select o.version, o.created_at <= k.moment as reached
      from (select (h.low + h.high + 1) / 2 as version offset 0) half_way
      join messages o
        on o.tenant_id = $1
        and o.context_id = h.id
        and o.version = half_way.version
    ) middle
    where h.low < h.high
  )
  select h.low as version
  from half h
  where h.low = h.high
) m on true
order by k.ordinal;

-- name: copy :one
-- Copies the messages of a reader ($2) above version $3 and through version $4 into another context ($5), with new ids
-- ($6, one for each version in order): deleted ones too, and the calls that they make. Gives how many.
with copied as (
  insert into messages as made (
    tenant_id, id, context_id, version, created_at, role, token_count, running_tokens, deleted_at,
    content, tool_calls, tool_call_id, tool_name, call_version, model, metadata, embedding_model, embedding
  )
  select
    $1, ($6::uuid[])[own.version - $3::integer], $5::uuid, own.version, own.created_at, own.role, own.token_count,
    own.running_tokens, own.deleted_at, own.content, own.tool_calls, own.tool_call_id, own.tool_name, own.call_version,
    own.model, own.metadata, own.embedding_model, own.embedding
  from segments($1, $2::uuid, $3::integer, $4::integer) s
  cross join lateral (
    select
      o.version, o.created_at, o.role, o.token_count, o.running_tokens, o.deleted_at, o.content, o.tool_calls,
      o.tool_call_id, o.tool_name, o.call_version, o.model, o.metadata, o.embedding_model, o.embedding
    from messages o
    where o.tenant_id = $1
      and o.tenant_id = s.tenant_id
      and o.context_id = s.context_id
      and o.version > s.low
      and o.version <= s.high
    offset 0
  ) own
  order by own.version
  returning made.version, made.tool_calls
), made_calls as (
  insert into calls (tenant_id, context_id, call_key, version)
  select distinct $1, $5::uuid, sha256(convert_to(t.call ->> 'id', 'UTF8')), m.version
  from copied m
  cross join lateral json_array_elements(m.tool_calls) as t (call)
)
select count(*)::integer
from copied m;
