-- migrate:up transaction:false

-- As contexts_name_idx, but by `case`: for row security `coalesce` might tell of rows, which keeps a cursor from that index.
create index concurrently contexts_name_order_idx on contexts (
  tenant_id, (case when name is null then '' else name end) collate "C", id
);

-- migrate:down transaction:false

drop index concurrently contexts_name_order_idx;
