"""Feeds over a real database: what a follower gets, whatever happens between a read and its answer."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import aclosing
from uuid import UUID, uuid4

import psycopg
import pytest
from structlog.testing import capture_logs

from db.errors import Unforeseen
from db.feed import Feeds
from db.pool import Database
from tests.db.feeding import TENANT, Follower, Log, Stage, live, opened, staged, tails
from tests.db.lane import until


@pytest.fixture
async def stage(database_url: str) -> AsyncIterator[Stage]:
    async with staged(database_url) as stage:
        yield stage


@pytest.fixture(params=[0, 2], ids=["pool", "lane"])
async def database(database_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Database]:
    async with opened(database_url, lane_size=request.param) as database:
        await database.lanes_ready(5)
        yield database


@pytest.fixture
async def feeds(database: Database) -> AsyncIterator[Feeds]:
    feeds = Feeds(database)
    feeds.open()
    yield feeds
    await feeds.close()


@pytest.fixture
def log(database: Database) -> Log:
    return Log(database)


# What a follower gets


async def test_first_all_after_the_version_then_what_comes(feeds: Feeds, log: Log) -> None:
    context_id = await log.create(*"abc")
    followers = {version: Follower(feeds, context_id, version) for version in range(4)}
    await live(feeds, context_id, 4)
    for version, follower in followers.items():
        await follower.has(*range(version + 1, 4))
    await log.append(context_id, "d", "e")
    feeds.hear(TENANT, [context_id])
    for version, follower in followers.items():
        await follower.has(*range(version + 1, 6))
        assert follower.news[-1].latest_version == 5
        await follower.leave()
    assert tails(feeds, context_id) == (0, 0)


async def test_a_fork_of_forks_gives_what_it_inherits(feeds: Feeds, log: Log) -> None:
    root = await log.create(*"abcde")
    fork = await log.fork(root, 3)
    await log.append(fork, "x", "y")
    await log.append(root, "f", "g")
    leaf = await log.fork(fork, 4)
    lowest = await log.fork(leaf, 2)
    await log.append(leaf, "z")
    found = {leaf: "abcxz", lowest: "ab", fork: "abcxy"}
    for context_id, contents in found.items():
        for version in range(len(contents) + 1):
            follower = Follower(feeds, context_id, version)
            await follower.has(*range(version + 1, len(contents) + 1))
            await live(feeds, context_id)
            texts = "".join(each.content for news in follower.news for each in news.messages)
            assert texts == contents[version:]
            await follower.leave()


async def test_deleted_messages_are_skipped_in_the_log_and_live(feeds: Feeds, log: Log) -> None:
    context_id = await log.create(*"abcd")
    fork = await log.fork(context_id, 4)
    for version in (1, 3, 4):
        await log.delete_message(context_id, version)
    followers = [Follower(feeds, each) for each in (context_id, fork)]
    for each, follower in zip((context_id, fork), followers, strict=True):
        await follower.has(2)
        await live(feeds, each)
        await log.append(each, "e", "f", "g")
        await log.delete_message(each, 6)
        feeds.hear(TENANT, [each])
        await follower.has(2, 5, 7)


async def test_a_long_history_comes_in_order(feeds: Feeds, log: Log) -> None:
    context_id = await log.create(*(str(number) for number in range(1000)))
    follower = Follower(feeds, context_id)
    await follower.has(*range(1, 1001))


async def test_who_is_deleted_ends_after_all_that_came_before(feeds: Feeds, log: Log) -> None:
    context_id = await log.create("a")
    followers = [Follower(feeds, context_id, 0), Follower(feeds, context_id, 1)]
    await live(feeds, context_id, 2)
    await log.append(context_id, *"abcdefgh" * 20)
    await log.delete(context_id)
    feeds.hear(TENANT, [context_id])
    for follower, first in zip(followers, (1, 2), strict=True):
        await follower.ended()
        assert follower.versions == list(range(first, 162))
    late = Follower(feeds, context_id, 100)
    await late.ended()
    assert late.versions == list(range(101, 162))
    assert tails(feeds, context_id) == (0, 0)


async def test_who_is_gone_altogether_ends(feeds: Feeds, log: Log, database_url: str) -> None:
    context_id = await log.create()
    follower = Follower(feeds, context_id)
    await live(feeds, context_id)
    with psycopg.connect(database_url) as connection:
        connection.execute("delete from contexts where id = %s", [context_id])
    await feeds.check()
    await follower.ended()
    unknown = Follower(feeds, uuid4())
    await unknown.ended()


async def test_a_context_of_another_tenant_is_another_one(feeds: Feeds, database: Database, log: Log) -> None:
    context_id = await log.create("a")
    stranger = Follower(feeds, context_id, tenant_id="an  odd,\ttenant")
    await stranger.ended()
    assert stranger.news == []
    odd = Log(database, "an  odd,\ttenant")
    theirs = await odd.create("a")
    follower = Follower(feeds, theirs, tenant_id=odd.tenant_id)
    await live(feeds, theirs, tenant_id=odd.tenant_id)
    await odd.append(theirs, "b")
    feeds.hear(TENANT, [theirs])
    feeds.hear(odd.tenant_id, [theirs])
    await follower.has(1, 2)


async def test_a_lost_bell_is_found_by_looking(feeds: Feeds, log: Log) -> None:
    contexts = [await log.create("a") for _ in range(25)]
    followers = [Follower(feeds, each) for each in contexts]
    for each in contexts:
        await live(feeds, each)
    for each in contexts:
        await log.append(each, "b")
    await feeds.check()
    for follower in followers:
        await follower.has(1, 2)
    for each in contexts:
        await log.delete(each)
    await feeds.check()
    for follower in followers:
        await follower.ended()


async def test_looking_finds_nothing_where_all_is_known(stage: Stage) -> None:
    context_id = await stage.log.create("a")
    follower = Follower(stage.feeds, context_id)
    await live(stage.feeds, context_id)
    await stage.feeds.check()
    assert stage.feeds._rung == {}  # noqa: SLF001 - so the pump will read nothing
    await follower.has(1)


# Between a read and its answer


async def test_a_bell_before_the_end_of_the_log_is_known_is_kept(stage: Stage) -> None:
    context_id = await stage.log.create("a")
    stage.hold()
    follower = Follower(stage.feeds, context_id)
    hold = await stage.held()
    await stage.log.append(context_id, "b")
    stage.hear(context_id)
    await until(lambda: not stage.feeds._rung)  # noqa: SLF001 - the pump has taken it
    hold.released.set()
    await follower.has(1, 2)


async def test_who_reads_while_others_are_given_more_reads_on(stage: Stage) -> None:
    context_id = await stage.log.create("a")
    first = Follower(stage.feeds, context_id)
    await live(stage.feeds, context_id)
    stage.hold()
    second = Follower(stage.feeds, context_id)
    hold = await stage.held()
    await stage.log.append(context_id, "b")
    stage.hear(context_id)
    await first.has(1, 2)
    hold.released.set()
    await second.has(1, 2)
    await live(stage.feeds, context_id, 2)


async def test_who_is_ahead_of_what_is_pushed_takes_nothing_twice(stage: Stage) -> None:
    context_id = await stage.log.create("a")
    first = Follower(stage.feeds, context_id)
    await live(stage.feeds, context_id)
    await stage.log.append(context_id, "b")
    stage.hold()
    stage.hear(context_id)
    hold = await stage.held()
    await stage.log.append(context_id, "c")
    second = Follower(stage.feeds, context_id)
    await second.has(1, 2, 3)
    await live(stage.feeds, context_id, 2)
    hold.released.set()
    await first.has(1, 2)
    stage.hear(context_id)
    await first.has(1, 2, 3)
    await stage.log.append(context_id, "d")
    stage.hear(context_id)
    await first.has(1, 2, 3, 4)
    await second.has(1, 2, 3, 4)


async def test_who_comes_when_all_have_left_is_given_what_the_others_were_to_have(stage: Stage) -> None:
    context_id = await stage.log.create("a")
    first = Follower(stage.feeds, context_id)
    await live(stage.feeds, context_id)
    await stage.log.append(context_id, "b")
    stage.hold()
    stage.hear(context_id)
    hold = await stage.held()
    await first.leave()
    assert tails(stage.feeds, context_id) == (0, 0)
    for version in (0, 1, 2):
        second = Follower(stage.feeds, context_id, version)
        await second.has(*range(version + 1, 3))
    await live(stage.feeds, context_id, 3)
    hold.released.set()
    await stage.log.append(context_id, "c")
    stage.hear(context_id)
    await second.has(3)


async def test_who_comes_after_a_context_is_restored_is_not_ended_by_its_deletion(stage: Stage) -> None:
    context_id = await stage.log.create("a")
    first = Follower(stage.feeds, context_id)
    await live(stage.feeds, context_id)
    await stage.log.delete(context_id)
    stage.hold()
    stage.hear(context_id)
    hold = await stage.held()
    await stage.log.restore(context_id)
    second = Follower(stage.feeds, context_id)
    await second.has(1)
    await live(stage.feeds, context_id, 2)
    hold.released.set()
    await stage.log.append(context_id, "b")
    stage.hear(context_id)
    await second.has(1, 2)
    await first.leave()


async def test_who_is_past_the_end_of_the_log_waits_for_what_comes_after(stage: Stage) -> None:
    """As when a replica took over that had not got all: nothing is read over and over meanwhile."""
    context_id = await stage.log.create("a")
    follower = Follower(stage.feeds, context_id, 3)
    await live(stage.feeds, context_id)
    await stage.log.append(context_id, "b", "c", "d")
    await stage.feeds.check()
    await follower.has(4)


# Leaving, at any place


@pytest.mark.parametrize("place", ["reading", "waiting", "taking"])
async def test_who_leaves_at_any_place_leaves_nothing_and_disturbs_nobody(stage: Stage, place: str) -> None:
    context_id = await stage.log.create("a")
    other = Follower(stage.feeds, context_id)
    await live(stage.feeds, context_id)
    if place == "reading":
        stage.hold()
    leaving = Follower(stage.feeds, context_id)
    if place == "reading":
        hold = await stage.held()
    elif place == "taking":
        leaving.takes.clear()
        await leaving.has(1)
    else:
        await live(stage.feeds, context_id, 2)
    await stage.log.append(context_id, "b")
    stage.hear(context_id)
    leaving.task.cancel()
    if place == "reading":
        hold.released.set()
    await leaving.leave()
    await other.has(1, 2)
    assert tails(stage.feeds, context_id) == (1, 1)
    await other.leave()
    assert tails(stage.feeds, context_id) == (0, 0)


async def test_who_never_begins_or_closes_at_once_leaves_nothing(feeds: Feeds, log: Log) -> None:
    context_id = await log.create("a")
    await feeds.follow(TENANT, context_id, 0).aclose()
    async with aclosing(feeds.follow(TENANT, context_id, 0)) as following:
        await anext(following)
        assert tails(feeds, context_id) == (1, 1)
    assert tails(feeds, context_id) == (0, 0)


async def test_closing_the_feeds_under_way_leaves_no_task(stage: Stage) -> None:
    context_id = await stage.log.create("a")
    follower = Follower(stage.feeds, context_id)
    await live(stage.feeds, context_id)
    stage.hold()
    stage.hear(context_id)
    hold = await stage.held()
    closing = asyncio.create_task(stage.feeds.close())
    await asyncio.sleep(0)
    hold.released.set()
    await closing
    await follower.leave()


# Nobody is in anybody's way


async def test_who_takes_nothing_delays_nobody_and_gets_all_from_the_log(feeds: Feeds, log: Log) -> None:
    context_id = await log.create("a")
    slow, quick = Follower(feeds, context_id), Follower(feeds, context_id)
    await live(feeds, context_id, 2)
    slow.takes.clear()
    for number in range(40):
        await log.append(context_id, *("x" * 50 for _ in range(10)))
        feeds.hear(TENANT, [context_id])
        await quick.has(*range(1, 12 + 10 * number))
    assert tails(feeds, context_id) == (2, 1)
    assert len(slow.versions) < 60
    slow.takes.set()
    await slow.has(*range(1, 402))
    await live(feeds, context_id, 2)
    await log.append(context_id, "last")
    feeds.hear(TENANT, [context_id])
    await slow.has(*range(1, 403))
    await quick.has(*range(1, 403))


async def test_large_messages_are_read_a_few_at_a_time(feeds: Feeds, log: Log) -> None:
    context_id = await log.create(*("x" * 300_000 for _ in range(40)))
    follower = Follower(feeds, context_id)
    await follower.has(*range(1, 41))
    assert max(len(news.messages) for news in follower.news[1:]) <= 8
    assert sum(len(news.messages) for news in follower.news[-3:]) <= 6


async def test_a_busy_tenant_does_not_keep_another_from_being_read(feeds: Feeds, database: Database, log: Log) -> None:
    busy = [await log.create("a") for _ in range(25)]
    followers = [Follower(feeds, each) for each in busy]
    for each in busy:
        await live(feeds, each)
    other = Log(database, "other")
    context_id = await other.create("a")
    follower = Follower(feeds, context_id, tenant_id="other")
    await live(feeds, context_id, tenant_id="other")
    await other.append(context_id, "b")
    feeds.hear(TENANT, busy)
    feeds.hear("other", [context_id])
    # Whenever anything is read, all of the busy tenant's has rung again.
    async with asyncio.timeout(10):
        while follower.versions != [1, 2]:
            feeds.hear(TENANT, busy)
            await asyncio.sleep(0)
    for one in followers:
        await one.leave()


async def test_what_cannot_be_read_of_one_context_stops_no_other(feeds: Feeds, log: Log, database_url: str) -> None:
    poisoned, healthy = await log.create("a"), await log.create("a")
    followers = [Follower(feeds, each) for each in (poisoned, healthy)]
    for each in (poisoned, healthy):
        await live(feeds, each)
        await log.append(each, "b")
    with psycopg.connect(database_url) as connection:
        # A moment that Python cannot say.
        connection.execute(
            "update messages set created_at = 'infinity' where context_id = %s and version = 2", [poisoned]
        )
    with capture_logs():
        feeds.hear(TENANT, [poisoned, healthy])
        await followers[1].has(1, 2)
        await log.append(healthy, "c")
        feeds.hear(TENANT, [healthy])
        await followers[1].has(1, 2, 3)
        with pytest.raises((OverflowError, Unforeseen)):  # it is told, rather than kept waiting
            await followers[0].ended()
    assert followers[0].versions == [1]


async def test_writers_and_followers_at_random_places_meet_every_version_once(feeds: Feeds, log: Log) -> None:
    dice = random.Random(1)
    contexts = [await log.create() for _ in range(4)]
    latest = dict.fromkeys(contexts, 0)
    following: list[tuple[Follower, UUID, int]] = []
    for _ in range(150):
        context_id = dice.choice(contexts)
        match dice.randrange(4):
            case 0 | 1:
                count = dice.choice([1, 1, 2, 40])
                await log.append(context_id, *("x" for _ in range(count)))
                latest[context_id] += count
                if dice.random() < 0.8:  # otherwise the bell is lost
                    feeds.hear(TENANT, [context_id])
            case 2:
                version = dice.randint(0, latest[context_id])
                following.append((Follower(feeds, context_id, version), context_id, version))
            case _ if following:
                follower, context_id, version = following.pop(dice.randrange(len(following)))
                if dice.random() < 0.5:
                    follower.takes.clear() if follower.takes.is_set() else follower.takes.set()
                    following.append((follower, context_id, version))
                    continue
                await follower.leave()
                seen = version + len(follower.versions)
                assert follower.versions == list(range(version + 1, seen + 1))
                following.append((Follower(feeds, context_id, seen), context_id, seen))  # and goes on from there
    await feeds.check()
    for follower, context_id, version in following:
        follower.takes.set()
        await follower.has(*range(version + 1, latest[context_id] + 1))
        await follower.leave()
