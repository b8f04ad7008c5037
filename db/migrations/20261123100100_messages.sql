-- migrate:up

create table messages (
  tenant_id text not null,
  id uuid not null,
  context_id uuid not null,
  version integer not null,
  created_at timestamptz not null,
  role text not null,
  token_count integer not null,
  -- The tokens of the whole lineage through this message, deleted ones included: it never changes, so the tokens up to
  -- any version are one seek away.
  running_tokens bigint not null,
  deleted_at timestamptz,
  content text not null,
  -- json, not jsonb: jsonb would reorder the keys that a provider produced.
  tool_calls json,
  tool_call_id text,
  tool_name text,
  model text,
  metadata jsonb not null default '{}',
  embedding_model text,
  embedding vector(1536),
  primary key (tenant_id, id),
  constraint messages_context_version_unique unique (tenant_id, context_id, version),
  constraint messages_context_fkey foreign key (tenant_id, context_id) references contexts (tenant_id, id) on delete cascade,
  constraint messages_version_check check (version >= 1),
  constraint messages_role_check check (role in ('user', 'assistant', 'system', 'tool')),
  constraint messages_token_count_check check (token_count between 0 and 10000000),
  constraint messages_running_tokens_check check (running_tokens >= token_count),
  constraint messages_tool_calls_check check (tool_calls is null or role = 'assistant' and json_typeof(tool_calls) = 'array'),
  constraint messages_tool_call_id_check check ((tool_call_id is not null) = (role = 'tool')),
  constraint messages_tool_name_check check (tool_name is null or role = 'tool'),
  constraint messages_metadata_check check (jsonb_typeof(metadata) = 'object'),
  constraint messages_embedding_check check ((embedding is null) = (embedding_model is null))
);

-- Deleted messages are few. This finds those of a range of versions without reading the others.
create index messages_deleted_at_idx on messages (tenant_id, context_id, version) include (token_count)
  where deleted_at is not null;

-- migrate:down

drop table messages;
