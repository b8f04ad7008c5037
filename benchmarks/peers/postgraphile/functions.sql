-- What PostGraphile is given beside the tables, so that it answers the same: lineages, windows and appends by functions over
-- those of the store. A function of one statement is inlined by PostgreSQL, with the limit and the columns of the caller.

drop schema if exists peers cascade;
create schema peers;

-- Newest first, so that `first` and `hasNextPage` of a connection are what `last` and `hasPreviousPage` are elsewhere.
create function peers.contexts_newest_messages(context contexts, size integer) returns setof messages
language sql stable as $$
  select m.*
  from segments(
    context.tenant_id, context.id,
    greatest(context.latest_version - size - least(context.latest_version - context.message_count, size), 0),
    context.latest_version
  ) s
  cross join lateral (
    select o.*
    from messages o
    where o.tenant_id = s.tenant_id
      and o.context_id = s.context_id
      and o.version > s.low
      and o.version <= s.high
      and o.deleted_at is null
    offset 0
  ) m
  order by m.version desc
  limit size
$$;

create function peers.contexts_window_messages(context contexts, budget integer) returns setof messages
language sql stable as $$
  select m.*
  from fit_window(context.tenant_id, context.id, context.latest_version, context.total_tokens, budget, 0, true) w
  cross join lateral (values (0, w.system_version), (w.start_version - 1, context.latest_version)) as part (low, high)
  cross join lateral segments(context.tenant_id, context.id, part.low, part.high) s
  cross join lateral (
    select o.*
    from messages o
    where o.tenant_id = s.tenant_id
      and o.context_id = s.context_id
      and o.version > s.low
      and o.version <= s.high
      and o.deleted_at is null
    offset 0
  ) m
  where part.low < part.high
  order by m.version
$$;

create function peers.newest_contexts() returns setof contexts
language sql stable as $$
  select c.*
  from contexts c
  where c.tenant_id = 'default'
    and c.deleted_at is null
  order by c.updated_at desc, c.id desc
$$;

create function peers.health() returns text
language sql stable as $$
  select 'HEALTHY'
$$;

create type peers.appended as (context_id uuid, latest_version integer, id uuid, version integer);

create function peers.append_one(context_id uuid, content text, token_count integer) returns peers.appended
language sql volatile as $$
  select c.id, c.latest_version, made.id, c.latest_version
  from (select uuidv7() as id offset 0) made
  cross join lateral append_messages(
    'default', append_one.context_id, array[made.id], array['user'], array[append_one.content], array[null]::json[],
    array[null]::text[], array[null]::text[], array[append_one.token_count], array[null]::text[], array['{}']::jsonb[]
  ) c
$$;

comment on function peers.contexts_newest_messages(contexts, integer) is '@behavior +list +connection';
comment on function peers.contexts_window_messages(contexts, integer) is '@behavior +list -connection';
comment on function peers.newest_contexts() is '@behavior +list -connection';
