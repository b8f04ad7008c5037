-- migrate:up transaction:false

-- A tree from its root downwards. Deleted contexts are few and have an index of their own.
create index concurrently contexts_tree_idx on contexts (tenant_id, root_id, depth, created_at, id) where deleted_at is null;

-- migrate:down transaction:false

drop index concurrently contexts_tree_idx;
