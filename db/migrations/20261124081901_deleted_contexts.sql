-- migrate:up transaction:false

create index concurrently contexts_deleted_at_idx on contexts (tenant_id, root_id, id) include (parent_id)
  where deleted_at is not null;

-- migrate:down transaction:false

drop index concurrently contexts_deleted_at_idx;
