-- The doorbell of live readers. No table is read; payloads name the tenant.

-- name: listen :one
listen forkpoint;

-- name: ring :many
-- Nobody waits until it is on the disk: the bell means nothing after a crash.
select set_config('synchronous_commit', 'off', true), pg_notify('forkpoint', line.payload)
from unnest($1::text[]) as line (payload);

-- name: moment :one
select now();

-- name: answer :one
select 1;
