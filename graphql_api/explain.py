"""`forkpoint explain`: how a document is answered, from its plan down to what PostgreSQL does for it."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import SecretStr

import db.explain
from graphql_api import database
from graphql_api.app import service_of
from graphql_api.operation import Operations, Parameters
from graphql_api.outcome import Outcome
from graphql_api.settings import Settings
from graphql_api.terminal import CommandError, say, say_aside
from schema.execute import Bound, Plans
from schema.moment import Trace
from schema.plan_text import asked, describe
from schema.principal import ANYBODY, Principal
from schema.request import Request
from schema.root import schema


def explain(
    settings: Settings, tenant_id: str, document: Path, variables: str | None, operation_name: str | None
) -> None:
    """Plan the document, run it once, and print the plan, the queries, and EXPLAIN ANALYZE of each.

    Raises: CommandError for a document that cannot be read or executed, or that no plan answers; MigrateError,
    EmbeddedError.
    """
    principal = replace(ANYBODY, tenant_id=tenant_id)
    parameters = Parameters(_read(document), _read_variables(variables), operation_name)
    plans = Plans(schema)
    operations = Operations(schema._schema, settings, plans)  # noqa: SLF001 - graphql-core's own schema
    prepared = operations.prepare(parameters, principal)
    if isinstance(prepared, Outcome):
        raise CommandError("; ".join(error["message"] for error in prepared.body["errors"]))
    if prepared.planned is None:
        kind = prepared.type.value
        raise CommandError(f"There is no plan: resolvers answer this {kind}, or say what is wrong. Send the document.")
    say(f"Plan\n{describe(prepared.planned)}")
    say(f"Cost\n{prepared.cost.rows:,} rows at most, some {prepared.cost.bytes:,} bytes\n")
    with database.ready(settings, migrating=False, tell=say_aside) as ready:
        reached = settings.model_copy(update={"database_url": SecretStr(ready.service_url)})
        trace = asyncio.run(_run(reached, principal, plans, prepared.planned))
        say(f"Queries\n{asked(trace)}")
        calls = [call for flush in trace.flushes for call in flush]
        for call, lines in zip(calls, db.explain.explain(ready.service_url, tenant_id, calls), strict=True):
            say("\n".join([call.query.name, *(f"  {line}" for line in lines), ""]))


async def _run(settings: Settings, principal: Principal, plans: Plans, bound: Bound) -> Trace:
    """Answer once, and give how.

    Raises: CommandError when no plan gives the answer.
    """
    service, trace = service_of(settings), Trace()
    await service.database.open()
    try:
        await service.database.lanes_ready(settings.connect_seconds)
        async with Request(service, principal) as request:
            if await plans.run(bound, request, trace) is None:
                raise CommandError(
                    "The plan gives no answer: resolvers give it, or say what is wrong. Send the document."
                )
    finally:
        await service.database.close()
    return trace


def _read(document: Path) -> str:
    try:
        return document.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise CommandError(
            f"{document} cannot be read: {reason}. Name a file that holds a GraphQL document."
        ) from error


def _read_variables(text: str | None) -> dict[str, Any]:
    try:
        variables = json.loads(text or "{}")
    except (ValueError, RecursionError):
        variables = None
    if not isinstance(variables, dict):
        raise CommandError('--variables is no JSON object. Write it as in \'{"id": "…"}\'.')
    return variables
