"""Copies in the database: what they lock, and that a history with a gap is not copied as if it had none."""

from collections.abc import AsyncIterator
from uuid import UUID, uuid4

import psycopg
import pytest

import db.context
import db.copy
import db.message
from db.pool import Database, PoolLimits, Session
from db.records import ContextRecord
from tests.db.test_lineage import message

TENANT = "default"
LIMITS = PoolLimits(size_min=1, size_max=2, wait_seconds=5, connect_seconds=5, statement_seconds=5)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, LIMITS)
    await database.open()
    yield database
    await database.close()


async def fork_of_a_root(session: Session) -> tuple[UUID, ContextRecord]:
    """Make a root and a fork of it, each with two messages; gives the root's id and the fork."""
    root = await db.context.create(session, TENANT, uuid4(), "root", "{}")
    grown = await db.message.append(session, TENANT, root.id, [message("1"), message("2")])
    assert grown is not None
    made = await db.context.fork(session, TENANT, uuid4(), grown, None, "fork", "{}")
    tip = await db.message.append(session, TENANT, made.id, [message("3"), message("4")])
    assert tip is not None
    return root.id, tip


async def test_messages_are_not_deleted_or_restored_while_they_are_copied(
    database: Database, database_url: str
) -> None:
    async with database.transaction(TENANT) as session:
        root_id, source = await fork_of_a_root(session)
    lock = "select t.id from trees t where t.id = %s for {} nowait"
    async with database.transaction(TENANT) as session:
        await db.copy.copy(session, TENANT, uuid4(), source, None, None, None)
        with psycopg.connect(database_url) as connection, pytest.raises(psycopg.errors.LockNotAvailable):
            connection.execute(lock.format("update").encode(), [root_id])
        with psycopg.connect(database_url) as connection:
            # Others may fork, copy and append.
            connection.execute(lock.format("share").encode(), [root_id])
            connection.execute("select c.id from contexts c for no key update nowait")


async def test_a_copy_counts_what_its_source_has_when_the_lock_is_its_own(database: Database) -> None:
    """The row that the caller has read may be older."""
    async with database.transaction(TENANT) as session:
        _, stale = await fork_of_a_root(session)
        await db.message.delete(session, TENANT, stale, 1)
        await db.message.append(session, TENANT, stale.id, [message("5", 10)])
        made = await db.copy.copy(session, TENANT, uuid4(), stale, None, None, None)
    assert (made.latest_version, made.message_count, made.total_tokens) == (5, 4, 13)


async def test_a_history_with_a_gap_is_not_copied(database: Database, database_url: str) -> None:
    async with database.transaction(TENANT) as session:
        root_id, source = await fork_of_a_root(session)
    with psycopg.connect(database_url) as connection:
        connection.execute("delete from messages where context_id = %s and version = 2", [root_id])
    with pytest.raises(LookupError, match=f"^context {source.id} holds 3 messages from 1 to 4$"):
        async with database.transaction(TENANT) as session:
            await db.copy.copy(session, TENANT, uuid4(), source, None, None, None)
    with psycopg.connect(database_url) as connection:
        assert connection.execute("select count(*) from contexts").fetchone() == (2,)


async def test_another_tenant_copies_nothing(database: Database) -> None:
    async with database.transaction(TENANT) as session:
        _, source = await fork_of_a_root(session)
        with pytest.raises(ValueError, match="not enough values"):
            await db.copy.copy(session, "other", uuid4(), source, None, None, None)
