-- migrate:up

-- Who may call, and as which tenant. A key itself is shown once and stored nowhere: the hash is SHA-256 of all of it, which
-- is enough, because 256 random bits cannot be guessed however fast one hashes.
create table api_keys (
  tenant_id text not null,
  id uuid not null,
  key_hash bytea not null,
  name text not null,
  scopes text[] not null,
  created_at timestamptz not null default now(),
  expires_at timestamptz,
  revoked_at timestamptz,
  -- Written seldom, and of many keys at once: it may lie half a minute or so behind.
  last_used_at timestamptz,
  primary key (tenant_id, id),
  constraint api_keys_key_hash_check check (octet_length(key_hash) = 32),
  constraint api_keys_name_check check (char_length(name) between 1 and 255),
  constraint api_keys_scopes_check check (
    cardinality(scopes) between 1 and 4
    and scopes <@ array['read', 'write', 'admin', 'act-as']::text[]
  )
);

-- Lists them, newest first.
create index api_keys_created_at_idx on api_keys (tenant_id, created_at, id);

alter table api_keys enable row level security;
alter table api_keys force row level security;
create policy tenant on api_keys
  using ((select current_setting('forkpoint.tenant', true)) in (tenant_id, '*'))
  with check ((select current_setting('forkpoint.tenant', true)) in (tenant_id, '*'));

-- migrate:down

drop table api_keys;
