-- migrate:up

-- How far each tenant has spent what it may in a while, in microseconds of the database's clock: when it was last charged,
-- whether that passed, and when its bucket will be full again. Unlogged, since it is written at every request: after a
-- crash all buckets are full.
create unlogged table rate_limits (
  tenant_id text not null,
  charged_us bigint not null,
  full_us bigint not null,
  passed boolean not null,
  primary key (tenant_id)
) with (fillfactor = 50);

alter table rate_limits enable row level security;
alter table rate_limits force row level security;
create policy tenant on rate_limits
  using ((select current_setting('forkpoint.tenant', true)) in (tenant_id, '*'))
  with check ((select current_setting('forkpoint.tenant', true)) in (tenant_id, '*'));

-- migrate:down

drop table rate_limits;
