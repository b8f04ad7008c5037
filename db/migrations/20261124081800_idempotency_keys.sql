-- migrate:up

-- What was done under a key, so that a retry is told of it and nothing is done twice. The scope is the context that an
-- append names, and the nil UUID for what makes contexts; so it is no foreign key, and neither is the result, since a key
-- is claimed before the work is done. The hash is that of the input.
create table idempotency_keys (
  tenant_id text not null,
  scope_id uuid not null,
  key text not null,
  request_hash bytea not null,
  -- The first message that was appended, or the context that was made.
  result_id uuid not null,
  message_count integer not null,
  created_at timestamptz not null default now(),
  primary key (tenant_id, scope_id, key),
  constraint idempotency_keys_key_check check (char_length(key) between 1 and 255),
  constraint idempotency_keys_request_hash_check check (octet_length(request_hash) = 32),
  constraint idempotency_keys_message_count_check check (message_count >= 0)
);

-- Finds the oldest ones, to be pruned.
create index idempotency_keys_created_at_idx on idempotency_keys (tenant_id, created_at);

-- migrate:down

drop table idempotency_keys;
