-- What a new connection is asked and told. No table is read, and so no tenant is named.

-- name: backend :one
-- Behind a pooler this is not the process that the connection was greeted by.
select pg_backend_pid();

-- name: plan_once :one
select set_config('plan_cache_mode', 'force_generic_plan', false);
