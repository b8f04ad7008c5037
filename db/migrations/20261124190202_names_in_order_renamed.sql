-- migrate:up

alter index contexts_name_order_idx rename to contexts_name_idx;

-- migrate:down

alter index contexts_name_idx rename to contexts_name_order_idx;
