"""`forkpoint keys …`: its commands. Each reads its flags and calls one function of `graphql_api.keys`."""

from typing import Annotated

import typer

from graphql_api.command_settings import Tenant, read_settings
from graphql_api.terminal import say_aside

keys_app = typer.Typer(
    help="""Make, list and revoke API keys.

    The database is that of DATABASE_URL, else the embedded one in FORKPOINT_HOME. A key belongs to one tenant.
    """,
    no_args_is_help=True,
    rich_markup_mode=None,
)


@keys_app.command("create")
def _create(
    *,
    name: Annotated[str, typer.Option(help="What to call it: who uses it.", metavar="NAME", show_default=False)],
    scopes: Annotated[
        str,
        typer.Option(
            help="What may be done with it: read, write or admin, each of which implies those before it.",
            metavar="SCOPE,…",
            show_default=False,
        ),
    ],
    tenant: Tenant = "default",
    expires: Annotated[
        str | None,
        typer.Option(
            help="When it expires: in so many days, such as 90d, or a date in UTC, such as 2027-12-31. Never if not "
            "given.",
            metavar="TIME",
        ),
    ] = None,
    act_as: Annotated[
        bool,
        typer.Option(
            "--act-as", help="Let it name another tenant for each request, and do there what its scopes allow."
        ),
    ] = False,
) -> None:
    """Make a key, and print it.

    Standard output has the key and nothing else. It is shown this once: what is stored does not tell it.
    """
    from graphql_api import database, keys

    wanted = keys.read_wanted(tenant, name, scopes, expires, act_as=act_as)
    with database.ready(read_settings(), migrating=False, tell=say_aside) as found:
        keys.run_create(found.url, wanted)


@keys_app.command("list")
def _list(
    *,
    tenant: Tenant = "default",
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object for each, for machines.")] = False,
) -> None:
    """List the keys of a tenant, newest first, revoked and expired ones too. None shows its secret."""
    from graphql_api import database, keys

    with database.ready(read_settings(), migrating=False, tell=say_aside) as found:
        keys.run_list(found.url, tenant, as_json=as_json)


@keys_app.command("revoke")
def _revoke(
    key_id: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="The id of the key, as `forkpoint keys list` shows it: not the key.", show_default=False
        ),
    ],
    *,
    tenant: Tenant = "default",
) -> None:
    """Revoke a key: 5 seconds later it opens nothing any more. Doing it again changes nothing."""
    from graphql_api import database, keys

    wanted = keys.read_key_id(key_id)
    with database.ready(read_settings(), migrating=False, tell=say_aside) as found:
        keys.run_revoke(found.url, tenant, wanted)
