"""Appends through the fast lane: one transaction in one round trip, whole or absent whatever breaks, and in order."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import psycopg
import pytest
import uuid_utils.compat

from db import queries
from db.errors import UNCONFIRMED, LaneAway, OutOfRange, Unavailable
from db.message import append_at_once
from db.pipeline import Lane
from db.records import ContextRecord, MessageRecord, NewMessage
from tests.db.lane import BACKEND, opened, outcome, recovered, through_proxy, until
from tests.db.said import TENANT
from tests.proxy import pass_all, swallow

SYNC, READY = b"S\0\0\0\4", b"Z\0\0\0\5"


@asynccontextmanager
async def append_lane(url: str, **chosen: Any) -> AsyncIterator[Lane]:
    """Give the lane that appends have, with one query more."""
    prepared = (BACKEND, *queries.pipelined(writing=True))
    chosen = {"size": 1, "in_flight_max": 1} | chosen
    async with opened(url, *prepared, session="write", **chosen) as lane:
        yield lane


@pytest.fixture
def store(database_url: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(database_url, autocommit=True) as connection:
        yield connection


def new_context(store: psycopg.Connection) -> UUID:
    made = uuid_utils.compat.uuid7()
    store.execute("insert into trees (tenant_id, id) values (%s, %s)", [TENANT, made])
    store.execute("insert into contexts (tenant_id, id, root_id) values (%s, %s, %s)", [TENANT, made, made])
    return made


def batch(*contents: str) -> list[NewMessage]:
    return [
        NewMessage(uuid_utils.compat.uuid7(), "user", content, None, None, None, 1, None, "{}") for content in contents
    ]


async def append(lane: Lane, context_id: UUID, *contents: str) -> tuple[ContextRecord | None, list[MessageRecord]]:
    return await append_at_once(lane, TENANT, context_id, batch(*contents))


def stored(store: psycopg.Connection, context_id: UUID) -> list[str]:
    """Give the contents of a context, whose counters and versions must agree with them."""
    with store.transaction():
        store.execute("set transaction isolation level repeatable read")
        text = "select version, content from messages where context_id = %s order by version"
        rows = store.execute(text, [context_id]).fetchall()
        counters = "select latest_version, message_count, total_tokens from contexts where id = %s"
        assert store.execute(counters, [context_id]).fetchall() == [(len(rows),) * 3]
    assert [version for version, _ in rows] == list(range(1, len(rows) + 1))
    return [content for _, content in rows]


async def test_an_append_is_one_transaction_in_one_round_trip(database_url: str, store: psycopg.Connection) -> None:
    context_id, chunks = new_context(store), list[bytes]()
    async with through_proxy(database_url) as (proxy, url), append_lane(url) as lane:
        proxy.judge = chunks.append
        record, messages = await append(lane, context_id, "a", "b", "c")
        proxy.judge = pass_all
    assert [message.version for message in messages] == [1, 2, 3]
    assert record is not None
    assert (record.id, record.latest_version) == (context_id, 3)
    # Only what is sent is looked at for a Sync: an id before a number may look like one in the answer.
    asked, answered = chunks
    assert (asked.count(SYNC), answered.count(READY)) == (1, 1)
    text = "select count(distinct xmin::text) from (select xmin from messages union all select xmin from contexts) t"
    assert store.execute(text).fetchall() == [(1,)]


async def test_what_cannot_be_appended_leaves_nothing(database_url: str, store: psycopg.Connection) -> None:
    context_id, full = new_context(store), new_context(store)
    store.execute("update contexts set total_tokens = 2147483647, running_tokens = 2147483647 where id = %s", [full])
    async with append_lane(database_url) as lane:
        assert await append(lane, uuid_utils.compat.uuid7(), "a") == (None, [])
        with pytest.raises(OutOfRange):
            await append(lane, full, "a")
        for bad in ("\0", "\ud800"):
            with pytest.raises(ValueError, match=r"U\+0000|surrogates"):
                await append(lane, context_id, "fine", bad)
        assert stored(store, context_id) == []
        await append(lane, context_id, "c")
    assert stored(store, context_id) == ["c"]


@pytest.mark.every_loop
async def test_cut_at_any_byte_a_batch_is_whole_or_absent(database_url: str, store: psycopg.Connection) -> None:
    context_id, sent, maybe, passed = new_context(store), list[str](), set[str](), 0
    cut_after: int | None = None

    def judge(chunk: bytes) -> int | None:
        nonlocal passed, cut_after
        before, passed = passed, passed + len(chunk)
        if cut_after is None or passed < cut_after:
            return None
        place, cut_after = cut_after - before, None  # once
        return place

    async with through_proxy(database_url) as (proxy, url), append_lane(url) as lane:
        proxy.judge = judge
        await append(lane, context_id, "first 0", "first 1")
        whole, dice = passed, random.Random(1)
        places = [0, 1, 2, whole - 2, whole - 1, whole, *dice.sample(range(3, whole - 2), 40)]
        for place in places:
            await recovered(lane, 1)
            passed, cut_after = 0, place
            found = await outcome(append(lane, context_id, f"{place} 0", f"{place} 1"))
            if isinstance(found, Exception):
                assert (type(found), str(found)) == (Unavailable, UNCONFIRMED)
                maybe.add(f"{place} 0")
            else:
                sent += [f"{place} 0", f"{place} 1"]
        proxy.judge = pass_all
    found = stored(store, context_id)
    firsts = found[::2]
    assert [content.replace(" 0", " 1") for content in firsts] == found[1::2], "a batch is torn"
    assert len(set(firsts)) == len(firsts), "a batch is there twice"
    assert [content for content in found if content not in {*maybe, *(m.replace(" 0", " 1") for m in maybe)}] == [
        "first 0",
        "first 1",
        *sent,
    ]
    # Some were cut before they were stored, and some after.
    assert 5 < len(maybe & set(firsts)) < len(maybe) - 5


async def test_an_answer_lost_after_the_commit_is_told_as_uncertain(
    database_url: str, store: psycopg.Connection
) -> None:
    context_id = new_context(store)
    async with through_proxy(database_url) as (proxy, url), append_lane(url) as lane:
        proxy.judge = swallow(READY)
        with pytest.raises(Unavailable, match="may or may not be stored"):
            await append(lane, context_id, "a")
        proxy.judge = pass_all
    assert stored(store, context_id) == ["a"]


@pytest.mark.every_loop
async def test_an_append_that_a_frozen_server_does_not_answer_is_told_as_uncertain(
    database_url: str, store: psycopg.Connection
) -> None:
    """It used to be told as one that had been stopped, and was stored as soon as the server went on."""
    context_id = new_context(store)
    async with through_proxy(database_url) as (proxy, url), append_lane(url, statement_seconds=0.2) as lane:
        proxy.flowing.clear()
        started = time.perf_counter()
        with pytest.raises(Unavailable, match="may or may not be stored"):
            await append(lane, context_id, "a")
        assert time.perf_counter() - started < 3
        proxy.flowing.set()
        await until(lambda: stored(store, context_id) == ["a"])


@pytest.mark.every_loop
async def test_nothing_is_uncertain_of_what_was_never_sent(database_url: str, store: psycopg.Connection) -> None:
    """A line that has just broken used to be chosen until its keeper woke up."""
    context_id = new_context(store)
    async with append_lane(database_url) as lane:
        for _ in range(5):
            await recovered(lane, 1)
            store.execute(
                "select pg_terminate_backend(pid, 5000) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid()"
            )
            with pytest.raises(Unavailable, match="may or may not be stored"):
                await append(lane, context_id, "a")
            with pytest.raises(LaneAway):
                await append(lane, context_id, "a")
    assert stored(store, context_id) == []


async def test_appends_to_a_locked_context_hold_up_no_others_while_a_line_is_free(
    database_url: str, store: psycopg.Connection
) -> None:
    locked, free = new_context(store), new_context(store)
    async with append_lane(database_url, size=3) as lane:
        with psycopg.connect(database_url) as locker:
            locker.execute("select from contexts where id = %s for update", [locked])
            held = [asyncio.create_task(append(lane, locked, f"{n}")) for n in range(2)]
            await asyncio.sleep(0.1)
            started = time.perf_counter()
            await asyncio.gather(*(append(lane, free, f"{n}") for n in range(30)))
            assert time.perf_counter() - started < 5
            assert not any(task.done() for task in held)
        await asyncio.gather(*held)
    assert (len(stored(store, locked)), len(stored(store, free))) == (2, 30)


async def test_many_writers_leave_no_gap_over_several_lines(database_url: str, store: psycopg.Connection) -> None:
    ids = [new_context(store) for _ in range(3)]

    async def write(lane: Lane, writer: int) -> list[tuple[UUID, str, int]]:
        told: list[tuple[UUID, str, int]] = []
        for number in range(6):
            context_id = ids[(writer + number) % len(ids)]
            contents = [f"{writer}/{number}/{n}" for n in range(1 + number % 3)]
            record, messages = await append(lane, context_id, *contents)
            assert record is not None
            assert [message.content for message in messages] == contents
            assert record.latest_version == messages[-1].version
            told += [(context_id, message.content, message.version) for message in messages]
        return told

    async with append_lane(database_url, size=4) as lane:
        told = [each for written in await asyncio.gather(*(write(lane, n) for n in range(32))) for each in written]
    for context_id in ids:
        own = {version: content for owner, content, version in told if owner == context_id}
        assert [own[version] for version in sorted(own)] == stored(store, context_id)
