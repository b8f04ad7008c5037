-- migrate:up transaction:false

drop index concurrently contexts_name_idx;

-- migrate:down transaction:false

create index concurrently contexts_name_idx on contexts (tenant_id, (coalesce(name, '')) collate "C", id);
