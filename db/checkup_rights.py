"""Examines what the role of a connection may do: change the schema, and write what the service writes.

It asks PostgreSQL for each right and tries none, so nothing is written.
"""

from db import preflight
from db.dbmate import Connection, MigrateError
from db.finding import Finding, failed, ok, refused, skipped, warning

# What the service does. Only idempotency keys are deleted for good.
TABLES = {
    "schema_migrations": ("select",),
    "trees": ("select", "insert", "update"),
    "contexts": ("select", "insert", "update"),
    "messages": ("select", "insert", "update"),
    "calls": ("select", "insert"),
    "idempotency_keys": ("select", "insert", "update", "delete"),
    "api_keys": ("select", "insert", "update"),
    "rate_limits": ("select", "insert", "update"),
}
FUNCTIONS = ("append_messages", "fit_window", "nearest_call", "segments")

_ROLE = "select quote_ident(current_user)"
_TABLE_RIGHTS = """
select wanted.name, wanted.privilege, has_table_privilege(to_regclass(wanted.name)::oid, wanted.privilege)
from unnest(%s::text[], %s::text[]) with ordinality as wanted (name, privilege, place)
order by wanted.place
"""
_FUNCTION_RIGHTS = """
select wanted.name, bool_and(has_function_privilege(function.oid, 'execute'))
from unnest(%s::text[]) as wanted (name)
left join pg_proc as function on function.proname = wanted.name and pg_function_is_visible(function.oid)
group by wanted.name
order by wanted.name
"""
_CLOSED_SCHEMA = """
select quote_ident(schema.nspname)
from pg_class as held
join pg_namespace as schema on schema.oid = held.relnamespace
where held.relname = 'schema_migrations'
  and to_regclass('schema_migrations') is null
  and not has_schema_privilege(schema.oid, 'usage')
order by schema.nspname
limit 1
"""
_OF_OTHERS = """
select held.relname, quote_ident(pg_get_userbyid(held.relowner))
from unnest(%s::text[]) as wanted (name)
join pg_class as held on held.oid = to_regclass(wanted.name)
where not pg_has_role(held.relowner, 'usage')
order by held.relname
"""
_KEPT_APART = """
select
  asking.rolsuper, asking.rolbypassrls,
  array(
    select held.relname
    from unnest(%s::text[]) with ordinality as wanted (name, place)
    join pg_class as held on held.oid = to_regclass(wanted.name)
    where not (held.relrowsecurity and held.relforcerowsecurity)
    order by wanted.place
  ),
  array(
    select distinct quote_ident(pg_get_userbyid(held.relowner))
    from unnest(%s::text[]) as wanted (name)
    join pg_class as held on held.oid = to_regclass(wanted.name)
    where pg_has_role(held.relowner, 'usage')
  )
from pg_roles as asking
where asking.rolname = current_user
"""
_PLACE = """
select current_database(), extract(epoch from pg_postmaster_start_time()), to_regclass('schema_migrations')::oid
"""


def role(connection: Connection) -> str:
    """Give the role of a connection, quoted where SQL needs that."""
    (name,) = preflight.row(connection, _ROLE)
    return str(name)


def may_migrate(connection: Connection, *, needed: bool) -> Finding:
    """Tell whether the role may create and alter tables.

    A role that only writes is good practice where another one migrates, so unless `needed` it is but a warning.
    """
    found = _may_migrate(connection)
    return found if needed or found.remedy is None else warning(found.found, found.remedy)


def _may_migrate(connection: Connection) -> Finding:
    try:
        preflight.require_tables_allowed(connection)
    except MigrateError as error:
        return refused(error)
    others = connection.execute(_OF_OTHERS, (list(TABLES),)).fetchall()
    if others:
        tables, owners = ", ".join(name for name, _ in others), ", ".join(sorted({owner for _, owner in others}))
        return failed(
            f"The role {role(connection)} may create tables, but {tables} belong to {owners}.",
            f"Set FORKPOINT_MIGRATE_URL to a URL of {owners}, such as postgresql://{owners}:PASSWORD@HOST:5432/DATABASE.",
        )
    return ok(f"The role {role(connection)} may create tables and owns what is there.")


def is_same_database(connection: Connection, other: Connection) -> bool:
    """Tell whether two connections lead to the same tables, whoever asks and by whichever way."""
    *here, table = preflight.row(connection, _PLACE)
    *there, other_table = preflight.row(other, _PLACE)
    return here == there and (table == other_table or None in {table, other_table})


def closed_schema(connection: Connection) -> str | None:
    """Name the schema that holds our tables, but is closed to this role."""
    found = connection.execute(_CLOSED_SCHEMA).fetchone()
    return str(found[0]) if found else None


def may_read_versions(connection: Connection) -> bool:
    """Tell whether the role may read which migrations are applied, where any are."""
    ((*_, allowed),) = connection.execute(_TABLE_RIGHTS, (["schema_migrations"], ["select"])).fetchall()
    return allowed is not False


def may_write(connection: Connection, *, migrated: bool) -> Finding:
    """Tell whether the role may do everything that the service does."""
    name, schema = role(connection), closed_schema(connection)
    if schema is not None:
        return failed(
            f"The role {name} may not use the schema {schema}, which holds the tables.",
            f"Run `grant usage on schema {schema} to {name};` as its owner.",
        )
    missing, grants = _table_grants(connection)
    for function, allowed in connection.execute(_FUNCTION_RIGHTS, (list(FUNCTIONS),)):
        if allowed is None:
            missing.append(function)
        elif not allowed:
            grants[f"function {function}"] = ["execute"]
    if missing and not migrated:
        return skipped("migrations are pending")
    if missing:
        return failed(
            f"There is no {', '.join(missing)} in the database, though no migration is pending.",
            "Restore the database from a backup, or name a new one in DATABASE_URL.",
        )
    if grants:
        lacking = "; ".join(f"{', '.join(rights)} on {thing}" for thing, rights in grants.items())
        pasted = " ".join(f"grant {', '.join(rights)} on {thing} to {name};" for thing, rights in grants.items())
        return failed(f"The role {name} lacks {lacking}.", f"Run `{pasted}` as the owner of the tables.")
    return ok(f"The role {name} may read and write everything that the service does.")


def keeps_tenants_apart(connection: Connection) -> Finding:
    """Tell whether row security binds the role on every table that holds rows of tenants.

    An owner is bound, but might take the policies away.
    """
    name = role(connection)
    tables = [table for table in TABLES if table != "schema_migrations"]
    is_superuser, bypasses, open_tables, owners = preflight.row(connection, _KEPT_APART, tables, tables)
    serve_as = "Serve as a role that owns nothing (docs/postgresql.md makes one), or set FORKPOINT_ROW_SECURITY=off."
    if is_superuser or bypasses:
        kind = "is a superuser" if is_superuser else "has BYPASSRLS"
        return failed(f"The role {name} {kind}, whom row security does not bind.", serve_as)
    if open_tables:
        listed = ", ".join(open_tables)
        pasted = " ".join(
            f"alter table {table} enable row level security, force row level security;" for table in open_tables
        )
        return failed(f"Row security is not forced on {listed}.", f"Run `{pasted}` as the owner of the tables.")
    if owners:
        return warning(f"The role {name} owns tables, and may take their row security away.", serve_as)
    return ok(f"Row security binds the role {name} on every table.")


def _table_grants(connection: Connection) -> tuple[list[str], dict[str, list[str]]]:
    """Give the tables that are not there, and the rights that are lacking on those that are."""
    wanted = [(table, right) for table, rights in TABLES.items() for right in rights]
    missing: dict[str, None] = {}
    grants: dict[str, list[str]] = {}
    for table, right, allowed in connection.execute(_TABLE_RIGHTS, tuple(map(list, zip(*wanted, strict=True)))):
        if allowed is None:
            missing[table] = None
        elif not allowed:
            grants.setdefault(table, []).append(right)
    return list(missing), grants
