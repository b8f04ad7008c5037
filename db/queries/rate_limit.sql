-- What tenants have spent of their rate limits. $1 is always the tenant.

-- name: charge :one pipelined
-- Charges one request, or says why not, in any number of processes at once. Times are the database's, in microseconds;
-- $2 is how long what is charged takes to come back, $3 how long everything does, both as text, since whole numbers are
-- sent in 32 bits. A bucket that seems to be empty for
-- longer is one that was charged before the clock was set back: a minute of that is believed, since whoever waited for
-- the row has an older time than it. Functions stand where the row is made, because Citus takes none below.
insert into rate_limits as r (tenant_id, charged_us, full_us, passed)
values (
  $1,
  (extract(epoch from now()) * 1000000)::bigint,
  (extract(epoch from now()) * 1000000)::bigint + $2::text::bigint,
  true
)
on conflict (tenant_id) do update
set
  charged_us = excluded.charged_us,
  full_us = case
    when greatest(r.full_us, excluded.charged_us) + $2::text::bigint <= excluded.charged_us + $3::text::bigint
      then greatest(r.full_us, excluded.charged_us) + $2::text::bigint
    else least(r.full_us, excluded.charged_us + $3::text::bigint + 60000000)
  end,
  passed = greatest(r.full_us, excluded.charged_us) + $2::text::bigint <= excluded.charged_us + $3::text::bigint
returning r.passed, r.full_us - r.charged_us as full_in_us;
