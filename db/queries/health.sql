-- The only statements that read no table, and so name no tenant.

-- name: probe :one
select 1;

-- name: backend :one
-- Behind a pooler this is not the process that the connection was greeted by.
select pg_backend_pid();
