"""What the tests of export and import share: both as functions over a database, and lines to import."""

import io
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import UUID

import psycopg

from db.live import Live
from db.pool import Database
from graphql_api import history
from graphql_api.app import limits_of
from graphql_api.history import exporting, importing
from graphql_api.history.importing import Outcome
from graphql_api.history.item import Source
from graphql_api.history.reading import Format
from graphql_api.settings import Settings
from schema.principal import DEFAULT_TENANT
from schema.request import Limits, Service
from schema.token_count import TokenCounter

Json = dict[str, Any]

LIMITS = replace(limits_of(Settings(_env_file=None)), append_bytes_max=100_000, fork_depth_max=100)
COUNTER = TokenCounter("o200k_base")
ROOT = "0198c0de-7d0e-7000-8000-0000000000a0"
FORK = "0198c0de-7d0e-7000-8000-0000000000a1"
NAME = "history.jsonl"


async def exported(url: str, *ids: str) -> str:
    """Export the trees of some contexts."""
    lines: list[str] = []
    async with Database(url, history.POOL) as database, database.snapshot(DEFAULT_TENANT) as snapshot:
        trees = await exporting.trees_of(snapshot, DEFAULT_TENANT, [UUID(each) for each in ids])
        for root_id, members in trees.items():
            await exporting.write(snapshot, DEFAULT_TENANT, root_id, members, lines.append, lambda _: None)
    return "".join(lines)


async def imported(
    url: str,
    text: str | bytes,
    chosen: Format = Format.AUTO,
    *,
    remap: bool = False,
    limits: Limits = LIMITS,
    name: str = NAME,
) -> Outcome:
    """Import a file."""
    data = text.encode() if isinstance(text, str) else text
    async with Database(url, history.POOL) as database:
        service = Service(database, COUNTER, limits, "test", Live(database))
        source = Source(name, io.BytesIO(data), len(data))
        return await importing.store(service, DEFAULT_TENANT, source, chosen, remap=remap, report=lambda _: None)


def empty(url: str) -> None:
    """Forget everything that is stored."""
    with psycopg.connect(url) as connection:
        connection.execute("truncate trees, contexts, messages, calls")


def message_id(number: int) -> str:
    return str(UUID(int=UUID(ROOT).int + 0x10_0000 + number))


def tree(*, root: str = ROOT, **more: Any) -> Json:
    return {"kind": "tree", "format": 1, "id": root} | more


def context(of: str = ROOT, **more: Any) -> Json:
    return {"kind": "context", "id": of} | more


def fork_at(version: int, of: str = FORK, parent: str = ROOT, **more: Any) -> Json:
    return context(of, parentId=parent, forkVersion=version, **more)


def message(version: int, content: str = "", *, number: int | None = None, **more: Any) -> Json:
    """Give a message of one token from the user; its id is numbered, as its version unless `number` says otherwise."""
    made = message_id(version if number is None else number)
    return {
        "kind": "message",
        "id": made,
        "version": version,
        "role": "USER",
        "content": content,
        "tokenCount": 1,
    } | more


def text_of(lines: Sequence[Json | str]) -> str:
    """Write lines: objects as JSON, text as it is."""
    return "".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines)
