-- migrate:up

-- Which message of a context makes which tool call, so that a result finds its call however far back it lies. The key is
-- the SHA-256 of the call's id: ids may be longer than an index takes.
create table calls (
  tenant_id text not null,
  context_id uuid not null,
  call_key bytea not null,
  version integer not null,
  primary key (tenant_id, context_id, call_key, version),
  constraint calls_context_fkey foreign key (tenant_id, context_id) references contexts (tenant_id, id) on delete cascade
);

-- Finds who makes a call, whichever context that is.
create index calls_call_key_idx on calls (tenant_id, call_key);

-- The version of the nearest message before p_before that makes the call, anywhere in the lineage of p_context_id; null
-- when none does. Deleted messages count unless p_visible.
--
-- Nearly always it is made in the same context, or a few forks up, which are looked at one by one. Beyond these, an id that
-- fewer than 16 messages use is looked up by itself, so that a result whose call nobody made, or one made a thousand forks
-- away, costs no more. An id that many use, such as call_0 in each turn, is mostly near; where it is not, the whole lineage
-- is walked: 0.16 s at ten thousand forks.
create function nearest_call(
  p_tenant_id text,
  p_context_id uuid,
  p_call_id text,
  p_before integer,
  p_visible boolean
) returns integer
language plpgsql stable
as $$
declare
  v_key constant bytea := sha256(convert_to(p_call_id, 'UTF8'));
  v_id uuid := p_context_id;
  v_high integer := p_before - 1;
  v_base integer;
  v_owner_id uuid;
  v_jump_id uuid;
  v_jump_fork_version integer;
  v_version integer;
  v_steps integer := 0;
begin
  while v_id is not null loop
    v_steps := v_steps + 1;
    if v_steps = 16 and 16 > (
      select count(*)
      from (
        select
        from calls l
        where l.tenant_id = p_tenant_id
          and l.call_key = v_key
        limit 16
      ) known
    ) then
      return (
        select max(l.version)
        from calls l
        cross join lateral segments(p_tenant_id, v_id, l.version - 1, l.version) s
        where l.tenant_id = p_tenant_id
          and l.call_key = v_key
          and l.version <= v_high
          and l.context_id = s.context_id
          and (not p_visible or exists (
            select
            from messages m
            where m.tenant_id = p_tenant_id
              and m.context_id = l.context_id
              and m.version = l.version
              and m.deleted_at is null
          ))
      );
    end if;

    select coalesce(c.fork_version, 0), c.owner_id, c.jump_id, c.jump_fork_version
    into v_base, v_owner_id, v_jump_id, v_jump_fork_version
    from contexts c
    where c.tenant_id = p_tenant_id
      and c.id = v_id;

    select l.version
    into v_version
    from calls l
    where l.tenant_id = p_tenant_id
      and l.context_id = v_id
      and l.call_key = v_key
      and l.version <= v_high
      and (not p_visible or exists (
        select
        from messages m
        where m.tenant_id = p_tenant_id
          and m.context_id = v_id
          and m.version = l.version
          and m.deleted_at is null
      ))
    order by l.version desc
    limit 1;
    if found then
      return v_version;
    end if;

    v_high := least(v_high, v_base);
    v_id := case when v_jump_fork_version >= v_high then v_jump_id else v_owner_id end;
  end loop;
  return null;
end;
$$;

-- Of a TOOL message, the version of the call that it answers: the nearest one before it, deleted or not, so that it
-- never changes. Null when the call is unknown.
alter table messages
  add column call_version integer,
  add constraint messages_call_version_check check (call_version is null or role = 'tool' and call_version between 1 and version - 1);

insert into calls (tenant_id, context_id, call_key, version)
select distinct m.tenant_id, m.context_id, sha256(convert_to(t.call ->> 'id', 'UTF8')), m.version
from messages m
cross join lateral json_array_elements(m.tool_calls) as t (call);

update messages m
set call_version = nearest_call(m.tenant_id, m.context_id, m.tool_call_id, m.version, false)
where m.role = 'tool';

-- Finds the visible results of a range of versions, and what they answer, without reading messages.
create index messages_call_version_idx on messages (tenant_id, context_id, version) include (call_version)
  where call_version is not null and deleted_at is null;

drop function append_messages;

-- Appends a batch under the context's row lock, which makes versions gapless and created_at ordered. Returns the context
-- as it is afterwards, or no row when it is unknown or deleted. A function, because one round trip holds the lock for
-- less time than three.
create function append_messages(
  p_tenant_id text,
  p_context_id uuid,
  p_ids uuid[],
  p_roles text[],
  p_contents text[],
  p_tool_calls json[],
  p_tool_call_ids text[],
  p_tool_names text[],
  p_token_counts integer[],
  p_models text[],
  p_metadata jsonb[]
) returns setof contexts
language plpgsql
as $$
declare
  v_context contexts;
  v_moment timestamptz;
  v_call_versions integer[];
begin
  select c.*
  into v_context
  from contexts c
  where c.tenant_id = p_tenant_id
    and c.id = p_context_id
    and c.deleted_at is null
  for no key update;
  if not found then
    return;
  end if;

  -- The clock may step back; a message is never older than what came before it.
  v_moment := greatest(clock_timestamp(), v_context.updated_at);

  -- Before the results of the same batch look for them.
  insert into calls (tenant_id, context_id, call_key, version)
  select distinct p_tenant_id, p_context_id, sha256(convert_to(t.call ->> 'id', 'UTF8')), v_context.latest_version + m.place::integer
  from unnest(p_tool_calls) with ordinality as m (tool_calls, place)
  cross join lateral json_array_elements(m.tool_calls) as t (call);

  if 'tool' = any(p_roles) then
    select array_agg(
      case when m.role = 'tool' then
        nearest_call(p_tenant_id, p_context_id, m.tool_call_id, v_context.latest_version + m.place::integer, false)
      end
      order by m.place
    )
    into v_call_versions
    from unnest(p_roles, p_tool_call_ids) with ordinality as m (role, tool_call_id, place);
  end if;

  insert into messages (
    tenant_id, id, context_id, version, created_at, role, token_count, running_tokens,
    content, tool_calls, tool_call_id, tool_name, call_version, model, metadata
  )
  select
    p_tenant_id, m.id, p_context_id, v_context.latest_version + m.place::integer, v_moment, m.role, m.token_count,
    v_context.running_tokens + sum(m.token_count) over (order by m.place),
    m.content, m.tool_calls, m.tool_call_id, m.tool_name, m.call_version, m.model, m.metadata
  from unnest(
    p_ids, p_roles, p_contents, p_tool_calls, p_tool_call_ids, p_tool_names, v_call_versions, p_token_counts, p_models,
    p_metadata
  ) with ordinality as m (
    id, role, content, tool_calls, tool_call_id, tool_name, call_version, token_count, model, metadata, place
  );

  return query
  update contexts c
  set latest_version = c.latest_version + cardinality(p_ids),
      message_count = c.message_count + cardinality(p_ids),
      total_tokens = (c.total_tokens + t.added)::integer,
      running_tokens = c.running_tokens + t.added,
      updated_at = v_moment
  from (select sum(n) as added from unnest(p_token_counts) n) t
  where c.tenant_id = p_tenant_id
    and c.id = p_context_id
  returning c.*;
end;
$$;

-- migrate:down

drop function append_messages;

create function append_messages(
  p_tenant_id text,
  p_context_id uuid,
  p_ids uuid[],
  p_roles text[],
  p_contents text[],
  p_tool_calls json[],
  p_tool_call_ids text[],
  p_tool_names text[],
  p_token_counts integer[],
  p_models text[],
  p_metadata jsonb[]
) returns setof contexts
language plpgsql
as $$
declare
  v_context contexts;
  v_moment timestamptz;
begin
  select c.*
  into v_context
  from contexts c
  where c.tenant_id = p_tenant_id
    and c.id = p_context_id
    and c.deleted_at is null
  for no key update;
  if not found then
    return;
  end if;

  -- The clock may step back; a message is never older than what came before it.
  v_moment := greatest(clock_timestamp(), v_context.updated_at);

  insert into messages (
    tenant_id, id, context_id, version, created_at, role, token_count, running_tokens,
    content, tool_calls, tool_call_id, tool_name, model, metadata
  )
  select
    p_tenant_id, m.id, p_context_id, v_context.latest_version + m.place::integer, v_moment, m.role, m.token_count,
    v_context.running_tokens + sum(m.token_count) over (order by m.place),
    m.content, m.tool_calls, m.tool_call_id, m.tool_name, m.model, m.metadata
  from unnest(
    p_ids, p_roles, p_contents, p_tool_calls, p_tool_call_ids, p_tool_names, p_token_counts, p_models, p_metadata
  ) with ordinality as m (
    id, role, content, tool_calls, tool_call_id, tool_name, token_count, model, metadata, place
  );

  return query
  update contexts c
  set latest_version = c.latest_version + cardinality(p_ids),
      message_count = c.message_count + cardinality(p_ids),
      total_tokens = (c.total_tokens + t.added)::integer,
      running_tokens = c.running_tokens + t.added,
      updated_at = v_moment
  from (select sum(n) as added from unnest(p_token_counts) n) t
  where c.tenant_id = p_tenant_id
    and c.id = p_context_id
  returning c.*;
end;
$$;

drop index messages_call_version_idx;
alter table messages drop column call_version;
drop function nearest_call;
drop table calls;
