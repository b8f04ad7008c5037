"""What `forkpoint` can do: each command reads its flags and calls one function.

Nothing heavy is imported before a command needs it, so that `--help` answers at once.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from graphql_api import __version__
from graphql_api.command_settings import Tenant, read_settings
from graphql_api.keys_app import keys_app
from graphql_api.terminal import CommandError, say, say_aside

SCHEMA_FILE = Path("schema.graphql")


class _Group(TyperGroup):
    """The whole program, whose help ends with the environment variables."""

    def format_epilog(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        with formatter.section("Environment variables, also read from .env in the working folder"):
            formatter.write_dl(list(_variables()))
        super().format_epilog(ctx, formatter)


def _variables() -> Iterator[tuple[str, str]]:
    from graphql_api.settings import Settings, variable

    for name, field in Settings.model_fields.items():
        default = "" if field.default in {None, ()} else f" [default: {field.default}]"
        yield variable(name), f"{field.description}{default}"


app = typer.Typer(
    cls=_Group,
    help="A store for LLM contexts that fork, over GraphQL and PostgreSQL.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
migrate_app = typer.Typer(
    help="""Bring the database's schema up to date and back.

    The database is that of FORKPOINT_MIGRATE_URL, else of DATABASE_URL, else the embedded one in FORKPOINT_HOME, which
    is started for as long as the command runs.
    """,
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(migrate_app, name="migrate")
app.add_typer(keys_app, name="keys")


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer's way to call back
    if wanted:
        say(f"forkpoint {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    *,
    _version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command("serve")
def _serve(
    context: typer.Context,
    *,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on, before FORKPOINT_HOST.", metavar="ADDRESS")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            help="Port to listen on, before FORKPOINT_PORT; 0 takes a free one.", min=0, max=65_535, metavar="PORT"
        ),
    ] = None,
    workers: Annotated[int, typer.Option(help="Processes that share the port.", min=1, max=1_000, metavar="COUNT")] = 1,
    reload: Annotated[bool, typer.Option("--reload", help="Start anew whenever a Python file changes.")] = False,
    migrating: Annotated[
        bool,
        typer.Option(
            "--migrate/--no-migrate",
            help="Migrate the database of DATABASE_URL first, or refuse to start when that is needed. "
            "The embedded one is always migrated.",
        ),
    ] = False,
) -> None:
    """Serve GraphQL over HTTP until Ctrl-C.

    With DATABASE_URL set it uses that database. Without, it starts PostgreSQL with pgvector in FORKPOINT_HOME, or joins
    the one that another command has started there.
    """
    if reload and workers > 1:
        raise typer.BadParameter("it goes with one process only.", param_hint="'--reload'")
    from graphql_api import serve

    flags = {name: value for name, value in {"host": host, "port": port}.items() if value is not None}
    settings = read_settings(**flags)
    if reload and settings.environment == "production":
        raise typer.BadParameter("it is for development; FORKPOINT_ENVIRONMENT is production.", param_hint="'--reload'")
    serve.serve(settings, context.obj, migrating=migrating, workers=workers, reload=reload)


@migrate_app.command("up")
def _up() -> None:
    """Apply the migrations that are pending."""
    from graphql_api import database

    with database.to_migrate(read_settings()) as url:
        for applied in database.apply_migrations(url):
            say(f"Applied {applied.version} {applied.name}")
        say("The database is up to date.")


@migrate_app.command("down")
def _down() -> None:
    """Roll the newest migration back; what its tables hold is lost."""
    from db import migrate
    from graphql_api import database

    with database.to_migrate(read_settings()) as url:
        undone = migrate.down(url)
        say(f"Rolled back {undone.version} {undone.name}" if undone else "There is nothing to roll back.")


@migrate_app.command("status")
def _status() -> None:
    """List the migrations: applied, pending, or unknown to this program."""
    from db import migrate
    from graphql_api import database

    with database.to_migrate(read_settings()) as url:
        for found in migrate.status(url):
            state = "pending" if not found.applied else "applied" if found.name else "unknown"
            say(f"{state}  {found.version}  {found.name}".rstrip())


@migrate_app.command("new")
def _new(
    name: Annotated[str, typer.Argument(help="What it does, in a few words like add_labels.", show_default=False)],
) -> None:
    """Make an empty migration that comes after all others."""
    from db import migrate

    say(str(migrate.new(name)))


@migrate_app.command("dump")
def _dump() -> None:
    """Write the database's schema to db/schema.sql."""
    from db import migrate
    from graphql_api import database

    with database.to_migrate(read_settings()) as url:
        say(str(migrate.dump(url)))


@app.command("doctor")
def _doctor(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")] = False,
    workers: Annotated[
        int, typer.Option(help="Processes that `serve` will run, for the sum of connections.", min=1, metavar="COUNT")
    ] = 1,
) -> None:
    """Examine what the service needs, and name the remedy of what is wrong.

    Exits with 1 when something failed; warnings are allowed.
    """
    from graphql_api import doctor

    raise typer.Exit(doctor.run(as_json=as_json, workers=workers))


@app.command("demo")
def _demo(
    *,
    seed: Annotated[int, typer.Option(help="The same seed makes the same histories.", metavar="NUMBER")] = 1,
    remove: Annotated[bool, typer.Option("--remove", help="Take the histories of this seed away again.")] = False,
) -> None:
    """Fill the database with some hundred histories to explore: chats, agents with tools, forks of forks.

    Running it again adds only what is missing.
    """
    from graphql_api import database, demo

    settings = read_settings()
    with database.ready(settings, migrating=False) as found:
        status = demo.run(found.url, seed=seed, remove=remove, token_encoding=settings.token_encoding)
    raise typer.Exit(status)


@app.command("export")
def _export(
    ids: Annotated[list[str], typer.Argument(help="Contexts whose trees to write.", metavar="ID…", show_default=False)],
    *,
    tenant: Tenant = "default",
    output: Annotated[
        Path | None,
        typer.Option(help="File to write; without it the lines go to standard output.", metavar="FILE"),
    ] = None,
) -> None:
    """Write whole trees, each context with all its forks and messages, deleted ones too, as JSON Lines.

    What they hold is imported by `forkpoint import`, into an empty database exactly as it was.
    """
    from graphql_api import database, history

    with database.ready(read_settings(), migrating=False, tell=say if output else say_aside) as found:
        history.run_export(found.url, tenant, ids, output)


@app.command("import")
def _import(
    files: Annotated[
        list[str], typer.Argument(help="Files to read; - is standard input.", metavar="FILE…", show_default=False)
    ],
    *,
    tenant: Tenant = "default",
    chosen: Annotated[
        str,
        typer.Option(
            "--format",
            help="auto, forkpoint, openai, anthropic or chatgpt; auto looks at what is in the file.",
            metavar="FORMAT",
        ),
    ] = "auto",
    remap: Annotated[
        bool, typer.Option("--remap", help="Give new ids to all contexts and messages, beside the originals.")
    ] = False,
) -> None:
    """Store histories: what `forkpoint export` wrote, or conversations of OpenAI, Anthropic or ChatGPT.

    Each tree is stored whole or not at all. Exits with 1 when one was refused; the others are stored.
    """
    from graphql_api import database, history
    from graphql_api.history.reading import Format

    if chosen not in set(Format):
        raise typer.BadParameter(f"it must be one of {', '.join(Format)}.", param_hint="'--format'")
    settings = read_settings()
    with database.ready(settings, migrating=False) as found:
        status = history.run_import(found.url, settings, tenant, files, Format(chosen), remap=remap)
    raise typer.Exit(status)


@app.command("explain")
def _explain(
    document: Annotated[
        Path, typer.Argument(help="File that holds a GraphQL document.", metavar="FILE", show_default=False)
    ],
    *,
    tenant: Tenant = "default",
    variables: Annotated[
        str | None, typer.Option(help="Its variables, as a JSON object.", metavar="JSON", show_default=False)
    ] = None,
    operation_name: Annotated[
        str | None, typer.Option("--operation", help="Which of its operations.", metavar="NAME", show_default=False)
    ] = None,
) -> None:
    """Show how a query is answered: its plan, the queries that it asks, and EXPLAIN ANALYZE of each.

    The query is run, twice.
    """
    from graphql_api import explain

    explain.explain(read_settings(), tenant, document, variables, operation_name)


@app.command("export-schema")
def _export_schema(
    *,
    output: Annotated[
        Path | None,
        typer.Option(help="File to write, or to check; without it the text goes to standard output.", metavar="FILE"),
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Write nothing; fail when the file (schema.graphql unless --output) is stale."),
    ] = False,
) -> None:
    """Write the GraphQL schema in its definition language."""
    from schema import root

    text = root.sdl()
    file = output or SCHEMA_FILE
    try:
        if check:
            if not file.exists() or file.read_text(encoding="utf-8") != text:
                raise CommandError(f"{file} is stale. Run `forkpoint export-schema --output {file}`.")
        elif output:
            output.write_text(text, encoding="utf-8")
        else:
            say(text.rstrip())
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise CommandError(f"{file} cannot be used: {reason}. Name another file with --output.") from error
