-- Pages of a tenant's contexts: one query for each order, so that each walks its own index from the cursor and stops at the
-- limit. $1 tenant, $2 part of the name, $3 metadata contained, $4 roots only, $5 parent, $6 updated since, $7 deleted ones
-- too; a null filters nothing. $8 and $9 are the place after which the page starts, $11 says whether to read the metadata.
-- One plan for all filters would take none of them for absent, expect a single row, and read and sort the whole tenant; so
-- each call has its own. Those without a filter, `all_by_*`, need that not.

-- name: by_updated_at_asc :many replanned
select
  c.id, c.root_id, c.name, case when $11::boolean then c.metadata end as metadata, c.created_at, c.updated_at, c.deleted_at,
  c.latest_version, c.message_count, c.total_tokens, c.parent_id, c.fork_version, c.depth
from contexts c
where c.tenant_id = $1
  and (c.updated_at, c.id) > ($8::timestamptz, $9::uuid)
  and ($2::text is null or position(lower($2::text) in lower(c.name)) > 0)
  and ($3::jsonb is null or c.metadata @> $3::jsonb)
  and (not $4::boolean or c.parent_id is null)
  and ($5::uuid is null or c.parent_id = $5::uuid)
  and ($6::timestamptz is null or c.updated_at >= $6::timestamptz)
  and ($7::boolean or c.deleted_at is null)
order by c.updated_at, c.id
limit $10::integer;

-- name: by_updated_at_desc :many replanned
select
  c.id, c.root_id, c.name, case when $11::boolean then c.metadata end as metadata, c.created_at, c.updated_at, c.deleted_at,
  c.latest_version, c.message_count, c.total_tokens, c.parent_id, c.fork_version, c.depth
from contexts c
where c.tenant_id = $1
  and (c.updated_at, c.id) < ($8::timestamptz, $9::uuid)
  and ($2::text is null or position(lower($2::text) in lower(c.name)) > 0)
  and ($3::jsonb is null or c.metadata @> $3::jsonb)
  and (not $4::boolean or c.parent_id is null)
  and ($5::uuid is null or c.parent_id = $5::uuid)
  and ($6::timestamptz is null or c.updated_at >= $6::timestamptz)
  and ($7::boolean or c.deleted_at is null)
order by c.updated_at desc, c.id desc
limit $10::integer;

-- name: by_created_at_asc :many replanned
select
  c.id, c.root_id, c.name, case when $11::boolean then c.metadata end as metadata, c.created_at, c.updated_at, c.deleted_at,
  c.latest_version, c.message_count, c.total_tokens, c.parent_id, c.fork_version, c.depth
from contexts c
where c.tenant_id = $1
  and (c.created_at, c.id) > ($8::timestamptz, $9::uuid)
  and ($2::text is null or position(lower($2::text) in lower(c.name)) > 0)
  and ($3::jsonb is null or c.metadata @> $3::jsonb)
  and (not $4::boolean or c.parent_id is null)
  and ($5::uuid is null or c.parent_id = $5::uuid)
  and ($6::timestamptz is null or c.updated_at >= $6::timestamptz)
  and ($7::boolean or c.deleted_at is null)
order by c.created_at, c.id
limit $10::integer;

-- name: by_created_at_desc :many replanned
select
  c.id, c.root_id, c.name, case when $11::boolean then c.metadata end as metadata, c.created_at, c.updated_at, c.deleted_at,
  c.latest_version, c.message_count, c.total_tokens, c.parent_id, c.fork_version, c.depth
from contexts c
where c.tenant_id = $1
  and (c.created_at, c.id) < ($8::timestamptz, $9::uuid)
  and ($2::text is null or position(lower($2::text) in lower(c.name)) > 0)
  and ($3::jsonb is null or c.metadata @> $3::jsonb)
  and (not $4::boolean or c.parent_id is null)
  and ($5::uuid is null or c.parent_id = $5::uuid)
  and ($6::timestamptz is null or c.updated_at >= $6::timestamptz)
  and ($7::boolean or c.deleted_at is null)
order by c.created_at desc, c.id desc
limit $10::integer;

-- name: by_name_asc :many replanned
select
  c.id, c.root_id, c.name, case when $11::boolean then c.metadata end as metadata, c.created_at, c.updated_at, c.deleted_at,
  c.latest_version, c.message_count, c.total_tokens, c.parent_id, c.fork_version, c.depth
from contexts c
where c.tenant_id = $1
  and ((case when c.name is null then '' else c.name end) collate "C", c.id) > ($8::text, $9::uuid)
  and ($2::text is null or position(lower($2::text) in lower(c.name)) > 0)
  and ($3::jsonb is null or c.metadata @> $3::jsonb)
  and (not $4::boolean or c.parent_id is null)
  and ($5::uuid is null or c.parent_id = $5::uuid)
  and ($6::timestamptz is null or c.updated_at >= $6::timestamptz)
  and ($7::boolean or c.deleted_at is null)
order by (case when c.name is null then '' else c.name end) collate "C", c.id
limit $10::integer;

-- name: by_name_desc :many replanned
select
  c.id, c.root_id, c.name, case when $11::boolean then c.metadata end as metadata, c.created_at, c.updated_at, c.deleted_at,
  c.latest_version, c.message_count, c.total_tokens, c.parent_id, c.fork_version, c.depth
from contexts c
where c.tenant_id = $1
  and ((case when c.name is null then '' else c.name end) collate "C", c.id) < ($8::text, $9::uuid)
  and ($2::text is null or position(lower($2::text) in lower(c.name)) > 0)
  and ($3::jsonb is null or c.metadata @> $3::jsonb)
  and (not $4::boolean or c.parent_id is null)
  and ($5::uuid is null or c.parent_id = $5::uuid)
  and ($6::timestamptz is null or c.updated_at >= $6::timestamptz)
  and ($7::boolean or c.deleted_at is null)
order by (case when c.name is null then '' else c.name end) collate "C" desc, c.id desc
limit $10::integer;

-- name: all_by_updated_at_asc :many pipelined
select
  c.id, c.root_id, c.name, case when $5::boolean then c.metadata end as metadata, c.created_at, c.updated_at, c.deleted_at,
  c.latest_version, c.message_count, c.total_tokens, c.parent_id, c.fork_version, c.depth
from contexts c
where c.tenant_id = $1
  and (c.updated_at, c.id) > ($2::timestamptz, $3::uuid)
  and c.deleted_at is null
order by c.updated_at, c.id
limit $4::integer;

-- name: all_by_updated_at_desc :many pipelined
select
  c.id, c.root_id, c.name, case when $5::boolean then c.metadata end as metadata, c.created_at, c.updated_at, c.deleted_at,
  c.latest_version, c.message_count, c.total_tokens, c.parent_id, c.fork_version, c.depth
from contexts c
where c.tenant_id = $1
  and (c.updated_at, c.id) < ($2::timestamptz, $3::uuid)
  and c.deleted_at is null
order by c.updated_at desc, c.id desc
limit $4::integer;

-- name: all_by_created_at_asc :many pipelined
select
  c.id, c.root_id, c.name, case when $5::boolean then c.metadata end as metadata, c.created_at, c.updated_at, c.deleted_at,
  c.latest_version, c.message_count, c.total_tokens, c.parent_id, c.fork_version, c.depth
from contexts c
where c.tenant_id = $1
  and (c.created_at, c.id) > ($2::timestamptz, $3::uuid)
  and c.deleted_at is null
order by c.created_at, c.id
limit $4::integer;

-- name: all_by_created_at_desc :many pipelined
select
  c.id, c.root_id, c.name, case when $5::boolean then c.metadata end as metadata, c.created_at, c.updated_at, c.deleted_at,
  c.latest_version, c.message_count, c.total_tokens, c.parent_id, c.fork_version, c.depth
from contexts c
where c.tenant_id = $1
  and (c.created_at, c.id) < ($2::timestamptz, $3::uuid)
  and c.deleted_at is null
order by c.created_at desc, c.id desc
limit $4::integer;

-- name: all_by_name_asc :many pipelined
select
  c.id, c.root_id, c.name, case when $5::boolean then c.metadata end as metadata, c.created_at, c.updated_at, c.deleted_at,
  c.latest_version, c.message_count, c.total_tokens, c.parent_id, c.fork_version, c.depth
from contexts c
where c.tenant_id = $1
  and ((case when c.name is null then '' else c.name end) collate "C", c.id) > ($2::text, $3::uuid)
  and c.deleted_at is null
order by (case when c.name is null then '' else c.name end) collate "C", c.id
limit $4::integer;

-- name: all_by_name_desc :many pipelined
select
  c.id, c.root_id, c.name, case when $5::boolean then c.metadata end as metadata, c.created_at, c.updated_at, c.deleted_at,
  c.latest_version, c.message_count, c.total_tokens, c.parent_id, c.fork_version, c.depth
from contexts c
where c.tenant_id = $1
  and ((case when c.name is null then '' else c.name end) collate "C", c.id) < ($2::text, $3::uuid)
  and c.deleted_at is null
order by (case when c.name is null then '' else c.name end) collate "C" desc, c.id desc
limit $4::integer;

-- name: count :one replanned
select count(*)::integer
from contexts c
where c.tenant_id = $1
  and ($2::text is null or position(lower($2::text) in lower(c.name)) > 0)
  and ($3::jsonb is null or c.metadata @> $3::jsonb)
  and (not $4::boolean or c.parent_id is null)
  and ($5::uuid is null or c.parent_id = $5::uuid)
  and ($6::timestamptz is null or c.updated_at >= $6::timestamptz)
  and ($7::boolean or c.deleted_at is null);

-- name: matching :many pipelined
-- Those of some contexts ($7) that a filter chooses, deleted ones too.
select
  c.id, c.root_id, c.name, c.metadata, c.created_at, c.updated_at, c.deleted_at,
  c.latest_version, c.message_count, c.total_tokens, c.parent_id, c.fork_version, c.depth
from contexts c
where c.tenant_id = $1
  and c.id = any($7::uuid[])
  and ($2::text is null or position(lower($2::text) in lower(c.name)) > 0)
  and ($3::jsonb is null or c.metadata @> $3::jsonb)
  and (not $4::boolean or c.parent_id is null)
  and ($5::uuid is null or c.parent_id = $5::uuid)
  and ($6::timestamptz is null or c.updated_at >= $6::timestamptz)
order by c.updated_at, c.id;
