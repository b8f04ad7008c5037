-- API keys: who may call. Their secrets are nowhere, and their hashes leave the table by `find` only. $1 is always the tenant.

-- name: find :one pipelined
-- What a key that is shown must be compared with. Whether its time is over is said by the clock that gave it the time;
-- the seconds left are rounded down, and null for a key without an end.
select
  k.key_hash, k.scopes, k.revoked_at is not null as revoked,
  floor(extract(epoch from k.expires_at - now()))::bigint as seconds_left
from api_keys k
where k.tenant_id = $1
  and k.id = $2::uuid;

-- name: create :one
insert into api_keys (tenant_id, id, key_hash, name, scopes, expires_at)
values ($1, $2::uuid, $3::bytea, $4::text, $5::text[], $6::timestamptz)
returning id, name, scopes, created_at, expires_at, revoked_at, last_used_at;

-- name: page :many pipelined
-- A page, newest first, revoked and expired ones too. $2 and $3 are the place after which it starts.
select k.id, k.name, k.scopes, k.created_at, k.expires_at, k.revoked_at, k.last_used_at
from api_keys k
where k.tenant_id = $1
  and (k.created_at, k.id) < ($2::timestamptz, $3::uuid)
order by k.created_at desc, k.id desc
limit $4::integer;

-- name: revoke :one
-- What was revoked stays so since then.
update api_keys k
set revoked_at = coalesce(k.revoked_at, now())
where k.tenant_id = $1
  and k.id = $2::uuid
returning k.id, k.name, k.scopes, k.created_at, k.expires_at, k.revoked_at, k.last_used_at;

-- name: note_uses :many
-- Keys, and how many milliseconds ago each was used last. It only grows. Several processes say it of the same keys at the
-- same time, so they are locked in one order.
with used as (
  select k.tenant_id, k.id, now() - make_interval(secs => u.milliseconds / 1000.0) as used_at
  from unnest($2::uuid[], $3::bigint[]) as u (id, milliseconds)
  join api_keys k
    on k.tenant_id = $1
    and k.id = u.id
  order by k.id
  for no key update of k
)
update api_keys k
set last_used_at = greatest(k.last_used_at, u.used_at)
from used u
where k.tenant_id = $1
  and k.tenant_id = u.tenant_id
  and k.id = u.id
returning k.id;
