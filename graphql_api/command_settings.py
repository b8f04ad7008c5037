"""The settings of a command, and what is wrong with them in words for whoever typed it; and whom commands work for."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from graphql_api.terminal import CommandError

if TYPE_CHECKING:
    from pydantic import ValidationError

    from graphql_api.settings import Settings


def check_tenant(tenant: str) -> str:
    """Give back what may be the name of a tenant.

    Raises: CommandError.
    """
    from schema.errors import Refusal
    from schema.principal import check_tenant_id

    try:
        return check_tenant_id(tenant)
    except Refusal as error:
        raise CommandError(f"--tenant names no tenant. {error.message}") from None


Tenant = Annotated[str, typer.Option(help="Whose they are.", metavar="TENANT", callback=check_tenant)]


def read_settings(**flags: Any) -> "Settings":
    """Read the settings; flags go before the environment.

    Raises: CommandError, with a line for each variable that cannot be used.
    """
    from pydantic import ValidationError

    from graphql_api.settings import Settings

    try:
        return Settings(**flags)
    except ValidationError as error:
        raise CommandError(_why_refused(error)) from None
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise CommandError(f"The file .env cannot be read: {reason}. Mend it, or take it away.") from error


def _why_refused(error: "ValidationError") -> str:
    from graphql_api.settings import refusals

    return "\n".join(f"{name} cannot be used: {_as_clause(message)}." for name, message in refusals(error))


def _as_clause(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
