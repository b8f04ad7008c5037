-- migrate:up

-- One row for each tree of forks. Appends never touch it: forking takes a shared lock on it, deleting and restoring a
-- message an exclusive one, so that no fork is born between the change and the counters that follow it.
create table trees (
  tenant_id text not null,
  id uuid not null,
  primary key (tenant_id, id)
);

create table contexts (
  tenant_id text not null,
  id uuid not null,
  root_id uuid not null,
  name text,
  metadata jsonb not null default '{}',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  deleted_at timestamptz,
  -- What is readable through this context, the inherited part included. latest_version and running_tokens also count
  -- deleted messages, so they never fall.
  latest_version integer not null default 0,
  message_count integer not null default 0,
  total_tokens integer not null default 0,
  running_tokens bigint not null default 0,
  parent_id uuid,
  fork_version integer,
  depth integer not null default 0,
  -- The lineage: owner_id is the context that stores the message at fork_version, however many ancestors lie between
  -- (none where nothing is inherited). jump_id is a farther owner, chosen so that any version's owner is found in
  -- O(log owner_depth) steps: a skew-binary jump pointer (E. Myers, "An applicative random-access stack", 1983).
  owner_id uuid,
  owner_depth integer not null default 0,
  jump_id uuid,
  jump_fork_version integer,
  primary key (tenant_id, id),
  constraint contexts_root_fkey foreign key (tenant_id, root_id) references trees (tenant_id, id),
  constraint contexts_parent_fkey foreign key (tenant_id, parent_id) references contexts (tenant_id, id) on delete restrict,
  constraint contexts_owner_fkey foreign key (tenant_id, owner_id) references contexts (tenant_id, id) on delete restrict,
  constraint contexts_jump_fkey foreign key (tenant_id, jump_id) references contexts (tenant_id, id) on delete restrict,
  constraint contexts_name_check check (char_length(name) <= 255),
  constraint contexts_metadata_check check (jsonb_typeof(metadata) = 'object'),
  constraint contexts_counters_check check (
    message_count between 0 and latest_version
    and total_tokens between 0 and running_tokens
  ),
  constraint contexts_fork_check check (
    (parent_id is null) = (fork_version is null)
    and (parent_id is null) = (depth = 0)
    and fork_version between 0 and latest_version
  ),
  constraint contexts_owner_check check (
    (owner_id is null) = (coalesce(fork_version, 0) = 0)
    and (owner_id is null) = (owner_depth = 0)
    and (owner_id is null) = (jump_id is null)
    and (owner_id is null) = (jump_fork_version is null)
  )
);

create index contexts_parent_idx on contexts (tenant_id, parent_id, created_at, id) where parent_id is not null;
create index contexts_updated_at_idx on contexts (tenant_id, updated_at, id);
create index contexts_created_at_idx on contexts (tenant_id, created_at, id);
create index contexts_name_idx on contexts (tenant_id, (coalesce(name, '')) collate "C", id);

-- migrate:down

drop table contexts;
drop table trees;
