"""`forkpoint export` and `forkpoint import`: whole trees as JSON Lines, and the conversations of others."""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO
from uuid import UUID

from db.errors import StoreError
from db.live import Live
from db.pool import Database, PoolLimits
from graphql_api import __version__
from graphql_api.app import limits_of
from graphql_api.history import exporting, importing
from graphql_api.history.importing import Imported, Outcome
from graphql_api.history.item import Source
from graphql_api.history.reading import Format
from graphql_api.progress import Report, progress
from graphql_api.settings import Settings
from graphql_api.terminal import CommandError, say
from schema.errors import Refusal
from schema.request import Service
from schema.scalar import read_id
from schema.token_count import TokenCounter

# One after the other: a tree is one transaction.
POOL = PoolLimits(
    size_min=1, size_max=1, wait_seconds=10.0, connect_seconds=5.0, statement_seconds=60.0, row_security=True
)
STANDARD_INPUT = "-"
# So many imported trees are named.
NAMED_MAX = 10


def run_export(url: str, tenant_id: str, ids: Sequence[str], output: Path | None) -> None:
    """Write the trees of a tenant that the ids belong to, each once, to a file or to standard output.

    Raises: CommandError.
    """
    contexts = _read_ids(ids)
    with _words():
        asyncio.run(_export(url, tenant_id, contexts, output))


def run_import(
    url: str, settings: Settings, tenant_id: str, files: Sequence[str], chosen: Format, *, remap: bool
) -> int:
    """Store the trees of the files for a tenant, and print what happened.

    Shape: the exit code; 1 when a tree or a file was refused.
    Raises: CommandError.
    """
    status = 0
    for name in files:
        with _words(), _reading(name) as source:
            outcome = asyncio.run(_import(url, settings, tenant_id, source, chosen, remap=remap))
        for line in outcome.refused:
            sys.stderr.write(f"{line}\n")
            status = 1
        say(_imported(source.name, outcome.imported))
    return status


@contextmanager
def _words() -> Iterator[None]:
    """Let failures of the database be told as a line."""
    try:
        yield
    except StoreError as error:
        raise CommandError(str(error)) from error


def _read_ids(ids: Sequence[str]) -> list[UUID]:
    try:
        return [read_id(text, ascii(text)) for text in ids]
    except Refusal as error:
        raise CommandError(error.message) from None


async def _export(url: str, tenant_id: str, ids: Sequence[UUID], output: Path | None) -> None:
    async with Database(url, POOL) as database, database.snapshot(tenant_id) as snapshot:
        trees = await exporting.trees_of(snapshot, tenant_id, ids)
        contexts = sum(map(len, trees.values()))
        messages = sum(member.own_count for members in trees.values() for member in members)
        done = 0
        with _writing(output) as write, progress("Exporting messages", aside=output is None) as report:

            def tell(count: int) -> None:
                nonlocal done
                done += count
                report(done, messages)

            for root_id, members in trees.items():
                await exporting.write(snapshot, tenant_id, root_id, members, write, tell)
    if output is not None:
        say(f"Exported {_count(len(trees), 'tree')}: {_count(contexts, 'context')}, {_count(messages, 'message')}.")


@contextmanager
def _writing(output: Path | None) -> Iterator[Callable[[str], object]]:
    """Give what writes text; a file is there whole at the end, or is as it was.

    Raises: CommandError.
    """
    try:
        if output is None:
            with _standard_output() as file:
                yield lambda text: file.write(text.encode())
        elif output.exists() and not output.is_file():  # such as a pipe
            with output.open("wb") as file:
                yield lambda text: file.write(text.encode())
        else:
            partial = output.with_name(f"{output.name}.partial")
            try:
                with partial.open("wb") as file:
                    yield lambda text: file.write(text.encode())
                partial.replace(output)
            finally:
                partial.unlink(missing_ok=True)
    except OSError as error:
        raise CommandError(f"{output or 'Standard output'} cannot be written: {error.strerror}.") from error


@contextmanager
def _standard_output() -> Iterator[IO[bytes]]:
    try:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except BrokenPipeError:  # `forkpoint export ID | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise


@contextmanager
def _reading(name: str) -> Iterator[Source]:
    try:
        if name == STANDARD_INPUT:
            yield Source("standard input", sys.stdin.buffer, None)
            return
        with Path(name).open("rb") as file:
            yield Source(name, file, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise CommandError(f"{name} cannot be read: {error.strerror}.") from error


async def _import(
    url: str, settings: Settings, tenant_id: str, source: Source, chosen: Format, *, remap: bool
) -> Outcome:
    async with Database(url, POOL) as database:
        counter = TokenCounter(settings.token_encoding)
        service = Service(database, counter, limits_of(settings), __version__, Live(database))
        with progress("Importing bytes") as report:
            return await importing.store(
                service, tenant_id, source, chosen, remap=remap, report=_reporter(source, report)
            )


def _reporter(source: Source, report: Report) -> Callable[[int], None]:
    return lambda done: report(done, source.size or 0)


def _imported(name: str, imported: Sequence[Imported]) -> str:
    contexts = sum(tree.contexts for tree in imported)
    messages = sum(tree.messages for tree in imported)
    counts = f"{_count(contexts, 'context')}, {_count(messages, 'message')}"
    lines = [f"Imported {_count(len(imported), 'tree')} from {name}: {counts}."]
    lines += [f"  {tree.root_id}{f'  {tree.name}' if tree.name else ''}" for tree in imported[:NAMED_MAX]]
    if len(imported) > NAMED_MAX:
        lines.append(f"  and {len(imported) - NAMED_MAX:,} more")
    return "\n".join(lines)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
