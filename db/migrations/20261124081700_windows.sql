-- migrate:up

-- Where the window of a budget begins, in the lineage of a context through a version that holds p_total_tokens: the kept
-- run of SYSTEM messages ends at system_version (0 when none is kept), the suffix begins at start_version (null when it is
-- empty), and minimum_budget would do for the run and the newest suffix that is valid.
--
-- A suffix may begin at a message that is no result of a call, when none of its results answers an earlier call. So the
-- lineage is read newest first, in chunks, with a running sum of the tokens and a running minimum of the calls
-- that are answered, until there are more tokens than room. Where no start was found until then, there is none above the
-- earliest of these calls, and only results between can name an earlier one: they are read from an index of their own.
create function fit_window(
  p_tenant_id text,
  p_context_id uuid,
  p_version integer,
  p_total_tokens integer,
  p_budget integer,
  p_step integer,
  p_keep_system boolean,
  out system_version integer,
  out start_version integer,
  out minimum_budget integer
)
language plpgsql stable
as $$
declare
  v_deleted boolean;
  v_low integer := 0;
  v_high integer := p_version;
  v_width integer := 8;
  v_system_tokens bigint := 0;
  v_available bigint;
  v_room bigint;
  v_tokens bigint := 0;
  v_call integer;
  v_newest integer;
  v_newest_tokens bigint;
  v_read integer;
  v_found record;
begin
  select c.message_count < c.latest_version
  into v_deleted
  from contexts c
  where c.tenant_id = p_tenant_id
    and c.id = p_context_id;

  system_version := 0;
  while p_keep_system and v_low < p_version loop
    select
      max(r.version) filter (where r.of_run) as version,
      sum(r.token_count) filter (where r.of_run) as tokens,
      bool_and(r.of_run) as goes_on
    into v_found
    from (
      select own.version, own.token_count, bool_and(own.role = 'system') over (order by own.version) as of_run
      from segments(p_tenant_id, p_context_id, v_low, least(v_low + v_width, p_version)) s
      cross join lateral (
        select o.version, o.token_count, o.role
        from messages o
        where o.tenant_id = p_tenant_id
          and o.tenant_id = s.tenant_id
          and o.context_id = s.context_id
          and o.version > s.low
          and o.version <= s.high
          and o.deleted_at is null
        offset 0
      ) own
    ) r;
    system_version := coalesce(v_found.version, system_version);
    v_system_tokens := v_system_tokens + coalesce(v_found.tokens, 0);
    exit when not v_found.goes_on;
    v_low := v_low + v_width;
    v_width := least(v_width * 4, 1024);
  end loop;

  -- Room for the suffix: what the budget leaves, or less, so that it begins on or after a line of the grid.
  v_available := p_budget - v_system_tokens;
  v_room := v_available;
  if p_step > 0 and p_total_tokens > p_budget then
    v_room := p_total_tokens - (p_total_tokens - v_available + p_step - 1) / p_step * p_step;
  end if;

  -- As many versions as the room takes of average messages, and some more; then ever more.
  v_width := 16 + least(1024, greatest(v_room, 0) * p_version / greatest(p_total_tokens, 1) * 5 / 4);
  while v_high > system_version and (v_newest is null or v_tokens <= v_room) loop
    exit when v_newest is null and v_call is not null and v_tokens > v_available;
    v_low := greatest(system_version, v_high - v_width);
    select
      max(j.tokens) as tokens,
      min(j.call_version) as call_version,
      max(j.version) filter (where j.starts) as newest,
      min(j.tokens) filter (where j.starts) as newest_tokens,
      min(j.version) filter (where j.starts and j.tokens <= v_room) as fitting
    into v_found
    from (
      select
        r.version, r.tokens, r.call_version,
        r.role <> 'tool' and (r.call_version is null or r.call_version >= r.version) as starts
      from (
        select
          own.version, own.role,
          v_tokens + sum(own.token_count) over newer as tokens,
          least(v_call, min(own.call_version) over newer) as call_version
        from segments(p_tenant_id, p_context_id, v_low, v_high) s
        cross join lateral (
          select
            o.version, o.role, o.token_count,
            -- A deleted call is unknown, and then an earlier one of the same id may be the nearest. Nearly always the call
            -- is there, in the same context: to look for that first makes a window of 100 messages 0.7 ms, not 4.
            case when v_deleted and o.call_version is not null then coalesce(
              (
                select a.version
                from messages a
                where a.tenant_id = p_tenant_id
                  and a.context_id = o.context_id
                  and a.version = o.call_version
                  and a.deleted_at is null
              ),
              nearest_call(p_tenant_id, o.context_id, o.tool_call_id, o.version, true)
            ) else o.call_version end as call_version
          from messages o
          where o.tenant_id = p_tenant_id
            and o.tenant_id = s.tenant_id
            and o.context_id = s.context_id
            and o.version > s.low
            and o.version <= s.high
            and o.deleted_at is null
          offset 0
        ) own
        window newer as (order by own.version desc)
      ) r
    ) j;
    v_tokens := coalesce(v_found.tokens, v_tokens);
    v_call := least(v_call, v_found.call_version);
    v_newest_tokens := coalesce(v_newest_tokens, v_found.newest_tokens);
    v_newest := coalesce(v_newest, v_found.newest);
    start_version := coalesce(v_found.fitting, start_version);
    v_high := v_low;
    v_width := least(v_width * 2, 2048);
  end loop;

  if v_newest is null and v_call is not null then
    v_read := v_high;
    while v_high > v_call loop
      v_low := v_call;
      select min(own.call_version) as call_version
      into v_found
      from segments(p_tenant_id, p_context_id, v_low, v_high) s
      cross join lateral (
        select
          case when v_deleted then coalesce(
            (
              select a.version
              from messages a
              where a.tenant_id = p_tenant_id
                and a.context_id = o.context_id
                and a.version = o.call_version
                and a.deleted_at is null
            ),
            (
              select nearest_call(p_tenant_id, a.context_id, a.tool_call_id, a.version, true)
              from messages a
              where a.tenant_id = p_tenant_id
                and a.context_id = o.context_id
                and a.version = o.version
            )
          ) else o.call_version end as call_version
        from messages o
        where o.tenant_id = p_tenant_id
          and o.tenant_id = s.tenant_id
          and o.context_id = s.context_id
          and o.version > s.low
          and o.version <= s.high
          and o.call_version is not null
          and o.deleted_at is null
        offset 0
      ) own;
      v_call := least(v_call, v_found.call_version);
      v_high := v_low;
    end loop;

    -- The tokens from there: those read, and the difference of two running sums, less what is deleted in between.
    v_newest := v_call;
    select v_tokens + top.running_tokens - bottom.running_tokens + bottom.token_count - coalesce(gone.tokens, 0)
    into v_newest_tokens
    from segments(p_tenant_id, p_context_id, v_read - 1, v_read) t
    cross join lateral (
      select o.running_tokens
      from messages o
      where o.tenant_id = p_tenant_id
        and o.tenant_id = t.tenant_id
        and o.context_id = t.context_id
        and o.version = v_read
      offset 0
    ) top
    cross join segments(p_tenant_id, p_context_id, v_call - 1, v_call) b
    cross join lateral (
      select o.running_tokens, o.token_count
      from messages o
      where o.tenant_id = p_tenant_id
        and o.tenant_id = b.tenant_id
        and o.context_id = b.context_id
        and o.version = v_call
      offset 0
    ) bottom
    cross join lateral (
      select sum(own.token_count) as tokens
      from segments(p_tenant_id, p_context_id, case when v_deleted then v_call - 1 else v_read end, v_read) s
      cross join lateral (
        select o.token_count
        from messages o
        where o.tenant_id = p_tenant_id
          and o.tenant_id = s.tenant_id
          and o.context_id = s.context_id
          and o.version > s.low
          and o.version <= s.high
          and o.deleted_at is not null
        offset 0
      ) own
    ) gone;
  end if;

  -- Where no start lies on or after the line, the newest one is taken if it fits.
  if start_version is null and v_newest_tokens <= v_available then
    start_version := v_newest;
  end if;
  if v_system_tokens > p_budget then
    system_version := 0;
  end if;
  minimum_budget := v_system_tokens + coalesce(v_newest_tokens, 0);
end;
$$;

-- migrate:down

drop function fit_window;
