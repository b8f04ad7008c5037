"""The second lock: PostgreSQL lets a transaction touch the rows of one tenant only, whatever its statements say.

A policy of each table lets through what belongs to the tenant that the setting `forkpoint.tenant` names, everything
when it is `*`, and nothing when it is not set. With row security on, each transaction names its tenant right after
BEGIN, by SET LOCAL, so that nothing is left of it when the transaction ends. With row security off, sessions name all
tenants, once; the first lock, `tenant_id = $1` in every statement, is the only one then.
"""

from functools import lru_cache

from psycopg import sql

# Told to a session of the service while row security is off. No tenant has this name.
EVERY_TENANT = "*"
SET_EVERY_TENANT = b"set forkpoint.tenant = '*'"


@lru_cache(maxsize=10_000)
def set_local(tenant_id: str) -> bytes:
    """Write the statement that opens one tenant's rows to the transaction that it stands in."""
    return sql.SQL("set local forkpoint.tenant = {}").format(sql.Literal(tenant_id)).as_bytes(None)
