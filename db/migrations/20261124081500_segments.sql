-- migrate:up

-- Who stores the versions (p_low, p_high] of a context's lineage: each context that does, with its own range, from the newest
-- to the oldest. This is the only walk by versions. It goes from a context to the owner of what is still wanted, or by the
-- jump where nothing above that gives any of it, so it visits those that give rows, and O(log depth) more to find the first.
-- PostgreSQL puts the body in the place of a call, and plans it with what it is joined to.
create function segments(
  p_tenant_id text,
  p_context_id uuid,
  p_low integer,
  p_high integer
) returns table (tenant_id text, context_id uuid, low integer, high integer)
language sql stable
as $$
  with recursive segment (tenant_id, id, owner_id, jump_id, jump_fork_version, base, high, steps) as (
    select c.tenant_id, c.id, c.owner_id, c.jump_id, c.jump_fork_version, coalesce(c.fork_version, 0), p_high, 0
    from contexts c
    where c.tenant_id = p_tenant_id
      and c.id = p_context_id
    union all
    select
      p.tenant_id, p.id, p.owner_id, p.jump_id, p.jump_fork_version, coalesce(p.fork_version, 0),
      least(s.high, s.base), s.steps + 1
    from segment s
    join contexts p
      on p.tenant_id = s.tenant_id
      and p.tenant_id = p_tenant_id
      and p.id = case when s.jump_fork_version >= least(s.high, s.base) then s.jump_id else s.owner_id end
    where s.base > p_low
      and s.steps < 100000
  )
  select s.tenant_id, s.id, greatest(s.base, p_low), s.high
  from segment s
  where s.base < s.high
$$;

-- migrate:down

drop function segments;
