-- migrate:up

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

-- migrate:down

drop function append_messages;
