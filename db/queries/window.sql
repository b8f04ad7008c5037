-- Windows: the part of a lineage that fits a budget. Where it begins is decided by the function fit_window. $1 is the tenant.

-- name: fit :many pipelined
-- For each reader ($2), as it is through a version ($3) that holds so many tokens ($4), both null for all of it, the window
-- of a budget ($5), of a step ($6), with the run of SYSTEM messages at its very start or without ($7): where its suffix
-- begins, the least budget that would hold its newest unit, and its messages, of which $8 bounds the number. $9 to $11:
-- whether to read their columns that may be large, content, tool_calls and metadata.
select
  k.ordinal::integer, w.start_version, w.minimum_budget,
  m.id, m.context_id, m.version, m.created_at, m.role, m.token_count, m.deleted_at,
  m.content, m.tool_calls, m.tool_call_id, m.tool_name, m.model, m.metadata
from unnest($2::uuid[], $3::integer[], $4::integer[], $5::integer[], $6::integer[], $7::boolean[])
  with ordinality as k (context_id, version, total_tokens, budget, step, keep_system, ordinal)
join contexts c
  on c.tenant_id = $1
  and c.id = k.context_id
cross join lateral (
  select coalesce(k.version, c.latest_version) as version, coalesce(k.total_tokens, c.total_tokens) as total_tokens
) h
cross join lateral fit_window($1, c.id, h.version, h.total_tokens, k.budget, k.step, k.keep_system) w
left join lateral (
  select own.*
  from (values (0, w.system_version), (w.start_version - 1, h.version)) as part (low, high)
  cross join lateral segments($1, c.id, part.low, part.high) s
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
    offset 0
  ) own
  where part.low < part.high
  order by own.version
  limit $8::integer
) m on true
order by k.ordinal, m.version;
