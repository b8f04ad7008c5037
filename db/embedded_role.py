"""The role that the embedded server is served as: it reads and writes rows and owns nothing.

The role that makes the tables there is a superuser, whom no row security binds.
"""

import psycopg

ROLE = "forkpoint_service"

# Taken by whoever makes the role, so that of two who start at the same time one finds it made.
_LOCK = "select pg_advisory_xact_lock(hashtext('forkpoint_service'))"
_IS_MADE = "select exists (select from pg_roles where rolname = 'forkpoint_service')"
# has_table_privilege() of several rights asks for any of them.
_LACKS_RIGHTS = """
select exists (
  select
  from pg_class t
  cross join unnest(array['select', 'insert', 'update', 'delete']) as wanted (privilege)
  where t.relnamespace = 'public'::regnamespace
    and t.relkind = 'r'
    and t.relname <> 'schema_migrations'
    and not has_table_privilege('forkpoint_service', t.oid, wanted.privilege)
)
"""
_MAKE = "create role forkpoint_service login"
_GRANTS = """
grant select, insert, update, delete on all tables in schema public to forkpoint_service;
revoke insert, update, delete on schema_migrations from forkpoint_service;
alter default privileges in schema public grant select, insert, update, delete on tables to forkpoint_service;
"""


def make(url: str) -> None:
    """Make the role where it is missing, and grant it what the migrations have made, and will make."""
    with psycopg.connect(url) as connection:
        connection.execute(_LOCK)
        is_new = connection.execute(_IS_MADE).fetchone() == (False,)
        if is_new:
            connection.execute(_MAKE)
        if is_new or connection.execute(_LACKS_RIGHTS).fetchone() == (True,):
            connection.execute(_GRANTS)
