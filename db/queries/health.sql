-- The probe reads no table, and so names no tenant.

-- name: probe :one pipelined
select 1;
