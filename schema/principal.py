"""Who asks: the tenant whose rows are read and written, and what may be done to them."""

import re
from dataclasses import dataclass
from enum import StrEnum

from schema.errors import BadUserInput, Forbidden

# What a tenant may be called: whatever names users of the usual identity providers, such as auth0|5f7c. Neither empty
# nor `*`, which means every tenant where PostgreSQL filters rows itself.
TENANT_ID = re.compile(r"[A-Za-z0-9._~:@|/+=-]{1,128}", re.ASCII)

# Without authentication there is one tenant.
DEFAULT_TENANT = "default"


class Scope(StrEnum):
    """What a credential may do. Each of the first three implies those before it.

    Every mutation answers with what it has changed, so that who writes reads.
    """

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"
    # To name another tenant for a request. It implies nothing and nothing implies it, because it reaches over tenants.
    ACT_AS = "act-as"


_IMPLIED_BY = {
    Scope.READ: frozenset({Scope.READ, Scope.WRITE, Scope.ADMIN}),
    Scope.WRITE: frozenset({Scope.WRITE, Scope.ADMIN}),
    Scope.ADMIN: frozenset({Scope.ADMIN}),
    Scope.ACT_AS: frozenset({Scope.ACT_AS}),
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `credential` is what the log calls it: never a secret."""

    tenant_id: str
    scopes: frozenset[Scope]
    credential: str

    def may(self, scope: Scope) -> bool:
        """Tell whether it has a scope, or one that implies it."""
        return not _IMPLIED_BY[scope].isdisjoint(self.scopes)

    def require(self, scope: Scope) -> None:
        """Refuse who has not a scope.

        Raises: Forbidden.
        """
        if not self.may(scope):
            held = ", ".join(sorted(self.scopes)) or "none"
            raise Forbidden(f"This needs a credential with the scope {scope}; this one has {held}.")


# Who asks where nobody needs a credential.
ANYBODY = Principal(DEFAULT_TENANT, frozenset({Scope.ADMIN}), "none")


def check_tenant_id(tenant_id: str) -> str:
    """Give back what may be a tenant's id.

    Raises: BadUserInput.
    """
    if TENANT_ID.fullmatch(tenant_id) is None:
        raise BadUserInput("A tenant id has 1 to 128 characters, of letters, digits and . _ ~ : @ | / + = -")
    return tenant_id
