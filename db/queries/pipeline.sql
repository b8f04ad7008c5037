-- What the sessions of the fast lane are told, once, for as long as they last. No table is read, and so no tenant is named.
-- $1 is the longest time that a statement may take, and that a transaction may lie idle.

-- name: read_at_one_moment :one
-- All statements of one flush are one transaction, and so one snapshot.
select
  set_config('default_transaction_isolation', 'repeatable read', false) as isolation,
  set_config('default_transaction_read_only', 'on', false) as read_only,
  set_config('TimeZone', 'UTC', false) as time_zone,
  set_config('plan_cache_mode', 'force_generic_plan', false) as plan_cache_mode,
  set_config('statement_timeout', $1::text, false) as statement_timeout,
  set_config('idle_in_transaction_session_timeout', $1::text, false) as idle_timeout;

-- name: write :one
select
  set_config('TimeZone', 'UTC', false) as time_zone,
  set_config('plan_cache_mode', 'force_generic_plan', false) as plan_cache_mode,
  set_config('statement_timeout', $1::text, false) as statement_timeout;
