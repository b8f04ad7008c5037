-- What a new connection is asked and told. No table is read, and so no tenant is named.

-- name: backend :one
-- Behind a pooler this is not the process that the connection was greeted by.
select pg_backend_pid();

-- name: plan_once :one
-- For the session.
select set_config('plan_cache_mode', 'force_generic_plan', false);

-- name: plan_anew :one
-- For the rest of the transaction, or until plan_once_again.
select set_config('plan_cache_mode', 'force_custom_plan', true);

-- name: plan_once_again :one
select set_config('plan_cache_mode', 'force_generic_plan', true);

-- name: use_indexes :one
-- For the rest of the transaction.
select set_config('enable_seqscan', 'off', true);
