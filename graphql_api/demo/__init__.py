"""`forkpoint demo`: fills a database with histories to look at, and takes them away again.

A history, which is a root with all its forks, is stored in one transaction: it is there whole or not at all, and what
an interrupted run left out is what the next run finds missing. It is taken away whole as well; where something in it is
not the demo's, such as a fork that a user made, it stays whole. Taking `demo` out of the metadata of a context does the
same: its history is the user's then.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import typer

import db.context
import db.demo
import db.message
from db.errors import StoreError
from db.live import Live
from db.pool import Database, PoolLimits, Session
from db.records import ContextRecord, NewMessage
from graphql_api import __version__
from graphql_api.demo import plan
from graphql_api.demo.history import MARK, Branch, History, is_own, message_id
from graphql_api.demo.plan import Planned
from graphql_api.progress import Report, progress
from schema import message_input
from schema.principal import DEFAULT_TENANT
from schema.request import Limits, Service
from schema.storable import json_text
from schema.token_count import TokenCounter

TOKEN_ENCODING = "o200k_base"  # noqa: S105 - these tokens are no passwords
LIMITS = Limits(
    page_size_max=1_000,
    append_messages_max=1_000,
    append_bytes_max=8 * 1024 * 1024,
    fork_depth_max=10_000,
    window_messages_max=10_000,
    idempotency_hours=24,
    copy_messages_max=1_000_000,
    health_seconds=2.0,
)
# One after the other: over several connections, histories would come to be in another order each time.
POOL = PoolLimits(
    size_min=1, size_max=1, wait_seconds=10.0, connect_seconds=5.0, statement_seconds=60.0, row_security=True
)
PAGE = 1_000
# How many reasons are named for each history that stays.
NAMED_MAX = 5


@dataclass(frozen=True)
class Kept:
    """A history that stays, because something in it is not the demo's."""

    root_id: UUID
    name: str | None
    because: str


@dataclass(frozen=True)
class Summary:
    """What was added or removed, how many histories were there before, and which ones had to stay."""

    contexts: int
    messages: int
    present: int = 0
    kept: tuple[Kept, ...] = ()


def run(url: str, *, seed: int, remove: bool, token_encoding: str = TOKEN_ENCODING, scale: float = 1.0) -> int:
    """Fill the database, or remove what was filled in, and print what happened.

    Shape: the exit code; 1 when the database failed, or when histories had to stay.
    """
    try:
        summary = _run_removal(url, seed) if remove else _run_fill(url, seed, token_encoding, scale)
    except StoreError as error:
        typer.echo(error, err=True)
        return 1
    except KeyboardInterrupt:
        typer.echo("Stopped. Nothing is half-done; the same command goes on from here.", err=True)
        raise
    typer.echo(_removed(summary, seed) if remove else _added(summary, seed))
    return 1 if summary.kept else 0


def _run_fill(url: str, seed: int, token_encoding: str, scale: float) -> Summary:
    with progress("Adding messages") as report:
        return asyncio.run(fill(url, seed, report=report, token_encoding=token_encoding, scale=scale))


def _run_removal(url: str, seed: int) -> Summary:
    with progress("Removing contexts") as report:
        return asyncio.run(remove(url, seed, report=report))


def _quiet(_done: int, _total: int) -> None:
    pass


async def fill(
    database_url: str, seed: int, *, report: Report = _quiet, token_encoding: str = TOKEN_ENCODING, scale: float = 1.0
) -> Summary:
    """Store the histories of a seed that are not there; `report` is told of messages. The database must be migrated.

    Raises: the family of db.errors. What was stored until then stays, and the next run adds the rest.
    """
    planned = plan.plan(seed, scale)
    async with Database(database_url, POOL) as database:
        service = Service(database, TokenCounter(token_encoding), LIMITS, __version__, Live(database))
        histories = [each.write() for each in await _missing(database, planned)]
        total = sum(history.message_count for history in histories)
        done = 0

        def tell(stored: int) -> None:
            report(done + stored, total)

        added: list[History] = []
        for history in histories:
            if await _store(service, history, tell):
                added.append(history)
            tell(history.message_count)
            done += history.message_count
    return Summary(
        contexts=sum(len(history.branches) for history in added),
        messages=sum(history.message_count for history in added),
        present=len(planned) - len(added),
    )


async def remove(database_url: str, seed: int, *, report: Report = _quiet) -> Summary:
    """Delete the histories of a seed for real, but for those that others have a part in; `report` is told of contexts.

    Raises: the family of db.errors. What was removed until then is gone, and the next run removes the rest.
    """
    contexts = messages = done = 0
    kept: list[Kept] = []
    async with Database(database_url, POOL) as database:
        trees = await _trees(database, seed)
        total = sum(map(len, trees.values()))
        for root_id, ids in trees.items():
            async with database.transaction(DEFAULT_TENANT) as session:
                records = await _locked(session, seed, root_id, ids)
                reason = await _why_kept(session, root_id, records)
                if reason is not None:
                    kept.append(reason)
                elif records:
                    contexts += await db.demo.delete(
                        session, DEFAULT_TENANT, root_id, [record.id for record in records]
                    )
                    messages += sum(record.latest_version - (record.fork_version or 0) for record in records)
            done += len(ids)
            report(done, total)
    return Summary(contexts, messages, kept=tuple(kept))


async def _missing(database: Database, planned: Sequence[Planned]) -> list[Planned]:
    """Give the histories that are not stored. One that a user has deleted is there."""
    async with database.snapshot(DEFAULT_TENANT) as snapshot:
        records = await db.context.by_ids(snapshot, DEFAULT_TENANT, [each.root_id for each in planned])
    there = {record.id for record in records}
    return [each for each in planned if each.root_id not in there]


async def _store(service: Service, history: History, report: Callable[[int], None]) -> bool:
    """Store a history, all of it or nothing; false when somebody else has stored it meanwhile."""
    batches = [(branch, batch) for branch in history.branches for batch in await _prepared(service, history, branch)]
    stored = 0
    records: list[ContextRecord] = []
    try:
        async with service.database.transaction(DEFAULT_TENANT) as session:
            for branch in history.branches:
                records.append(await _made(session, history, branch, records))
                for batch in [batch for of, batch in batches if of is branch]:
                    await db.message.append(session, DEFAULT_TENANT, records[-1].id, batch)
                    stored += len(batch)
                    report(stored)
            await _hide(session, history, records)
    except db.demo.AlreadyThereError:
        return False
    return True


async def _prepared(service: Service, history: History, branch: Branch) -> list[list[NewMessage]]:
    """Check and count a branch's messages as those of any caller, in batches of one call, and give them their ids."""
    context = history.context_id(branch)
    batches: list[list[NewMessage]] = []
    for start in range(0, len(branch.messages), LIMITS.append_messages_max):
        given = branch.messages[start : start + LIMITS.append_messages_max]
        first = len(branch.inherited) + start + 1
        read = await message_input.read(service, given, f"{history.key}[{first}]")
        batches.append([replace(new, id=message_id(context, version)) for version, new in enumerate(read, first)])
    return batches


async def _made(session: Session, history: History, branch: Branch, records: Sequence[ContextRecord]) -> ContextRecord:
    made, metadata = history.context_id(branch), json_text(history.metadata(branch))
    if branch.parent is None:
        return await db.demo.create(session, DEFAULT_TENANT, made, branch.name, metadata)
    parent, version = records[branch.parent.number], len(branch.inherited)
    return await db.context.fork(session, DEFAULT_TENANT, made, parent, version, branch.name, metadata)


async def _hide(session: Session, history: History, records: Sequence[ContextRecord]) -> None:
    for branch, record in zip(history.branches, records, strict=True):
        for version in branch.deleted_versions:
            await db.message.delete(session, DEFAULT_TENANT, record, version)
    for branch, record in zip(history.branches, records, strict=True):
        if branch.deleted:
            await db.context.delete(session, DEFAULT_TENANT, record.id)


async def _trees(database: Database, seed: int) -> dict[UUID, list[UUID]]:
    """Give the contexts of the demo by the root of their tree, deleted ones too."""
    chosen = db.context.Filter(metadata_contains=json_text({MARK: {"seed": seed}}), include_deleted=True)
    trees: defaultdict[UUID, list[UUID]] = defaultdict(list)
    after = None
    async with database.snapshot(DEFAULT_TENANT) as snapshot:
        while records := await db.context.page(snapshot, DEFAULT_TENANT, chosen, "created_at", "asc", after, PAGE):
            for record in records:
                if is_own(seed, record.metadata, record.id):
                    trees[record.root_id].append(record.id)
            after = (records[-1].created_at, records[-1].id)
    return dict(trees)


async def _locked(session: Session, seed: int, root_id: UUID, ids: Sequence[UUID]) -> list[ContextRecord]:
    """Read the demo's contexts of a tree as they are, and let nobody add to them before the transaction ends."""
    await db.demo.lock(session, DEFAULT_TENANT, root_id, ids)
    records = await db.context.by_ids(session, DEFAULT_TENANT, ids)
    return [record for record in records if is_own(seed, record.metadata, record.id)]


async def _why_kept(session: Session, root_id: UUID, records: Sequence[ContextRecord]) -> Kept | None:
    """Look for what is not the demo's: contexts that fork its own, messages appended to its own."""
    names = {record.id: record.name for record in records}
    if not names:
        return None
    others = [
        f"{_shown(fork.name, fork.id)} forks {_shown(names[fork.parent_id], fork.parent_id)}"
        for fork in await db.demo.forks_by_others(session, DEFAULT_TENANT, list(names), NAMED_MAX + 1)
    ]
    newest = await db.demo.newest(session, DEFAULT_TENANT, list(names))
    others += [
        f"{_shown(record.name, record.id)} has messages that are not the demo's"
        for record in records
        # Versions are gapless, and the demo's came first: if the newest is its own, all are.
        if record.id in newest and newest[record.id] != message_id(record.id, record.latest_version)
    ]
    if root_id not in names:
        others.append(f"its root {root_id} does not carry the mark of the demo any more")
    if len(others) > NAMED_MAX:
        others[NAMED_MAX:] = ["and more"]
    return Kept(root_id, names.get(root_id), "; ".join(others)) if others else None


def _added(summary: Summary, seed: int) -> str:
    if not summary.contexts:
        return f"The demo with seed {seed} is there already: nothing was added."
    before = f" {summary.present} histories were there already." if summary.present else ""
    return f"Added {summary.contexts:,} contexts with {summary.messages:,} messages, seed {seed}.{before}"


def _removed(summary: Summary, seed: int) -> str:
    if not summary.contexts and not summary.kept:
        return f"The demo with seed {seed} is not there: nothing was removed."
    lines = [f"Removed {summary.contexts:,} contexts with {summary.messages:,} messages, seed {seed}."]
    if summary.kept:
        lines.append(f"{len(summary.kept)} histories stay, because others have a part in them:")
        lines += [f"  {_shown(kept.name, kept.root_id)}: {kept.because}" for kept in summary.kept]
    return "\n".join(lines)


def _shown(name: str | None, context_id: UUID) -> str:
    return f"“{name}” ({context_id})" if name else str(context_id)
