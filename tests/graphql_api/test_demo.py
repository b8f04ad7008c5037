"""The demo: what it holds, the same for every run of a seed; what it leaves alone when it is taken away."""

import asyncio
import re
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row
from pydantic import SecretStr

from graphql_api import demo
from graphql_api.app import create_app
from graphql_api.demo import Summary, fill, plan, remove
from graphql_api.settings import Settings
from schema.storable import json_text
from schema.token_count import TokenCounter
from tests.client import Api
from tests.conftest import api_over, copied
from tests.schema.calls import append, create, fork, say, update

ROOT = Path(__file__).parents[2]
SEED = 7
SMALL = 0.04
Row = dict[str, Any]
NewDatabase = Callable[[], AbstractContextManager[str]]


@dataclass(frozen=True)
class World:
    """Everything that is stored."""

    contexts: dict[UUID, Row]
    messages: dict[tuple[UUID, int], Row]

    def owner(self, context_id: UUID, version: int) -> UUID:
        """Climb to the context that stores a version, parent by parent."""
        context = self.contexts[context_id]
        while version <= (context["fork_version"] or 0):
            context = self.contexts[context["parent_id"]]
        found: UUID = context["id"]
        return found

    def lineage(self, context: Row) -> list[Row]:
        """Give all messages that are read through a context, deleted ones too."""
        versions = range(1, context["latest_version"] + 1)
        return [self.messages[self.owner(context["id"], version), version] for version in versions]

    def of(self, kind: str) -> list[Row]:
        return [context for context in self.contexts.values() if context["metadata"].get("kind") == kind]


@pytest.fixture(scope="module")
def new_database(postgres: str, template: str) -> NewDatabase:
    """Make as many migrated databases as a comparison wants."""

    return lambda: copied(postgres, template)


def rows(url: str, statement: str) -> list[Row]:
    with psycopg.connect(url, row_factory=dict_row) as connection:
        return connection.execute(statement.encode()).fetchall()


def stored(url: str) -> list[list[Row]]:
    """Give every row of every table as it is."""
    return [
        rows(url, "select * from trees order by tenant_id, id"),
        rows(url, "select * from contexts order by tenant_id, id"),
        rows(url, "select m.*, m.tool_calls::text as raw_calls from messages m order by tenant_id, id"),
    ]


def content(url: str) -> list[list[Row]]:
    """Give every row without the moments at which it was written."""
    return [[_timeless(row) for row in table] for table in stored(url)]


def _wait(watcher: psycopg.Connection[Any], condition: LiteralString, *, found: bool) -> None:
    """Wait until other sessions of this database meet a condition, or no longer do."""
    statement = sql.SQL("select from pg_stat_activity where datname = current_database() and {}")
    while (watcher.execute(statement.format(sql.SQL(condition))).rowcount > 0) != found:
        time.sleep(0.01)


def _timeless(row: Row) -> Row:
    told = {name: value for name, value in row.items() if name not in {"created_at", "updated_at", "deleted_at"}}
    return told | {"deleted": row.get("deleted_at") is not None}


def world_of(url: str) -> World:
    _, contexts, messages = stored(url)
    return World(
        {context["id"]: context for context in contexts},
        {(message["context_id"], message["version"]): message for message in messages},
    )


@pytest.fixture(scope="module")
def whole_url(new_database: NewDatabase) -> Iterator[str]:
    """URL of a database with the whole demo."""
    with new_database() as url:
        summary = asyncio.run(fill(url, SEED))
        world = world_of(url)
        assert summary == Summary(len(world.contexts), len(world.messages))
        yield url


@pytest.fixture(scope="module")
def whole(whole_url: str) -> World:
    return world_of(whole_url)


@pytest.fixture(scope="module")
def small(new_database: NewDatabase) -> list[list[Row]]:
    """What an uninterrupted run of the small demo stores."""
    with new_database() as url:
        asyncio.run(fill(url, SEED, scale=SMALL))
        return content(url)


def _settings(url: str) -> Settings:
    return Settings(_env_file=None, database_url=SecretStr(url), log_level="error")


def test_every_kind_is_there(whole: World) -> None:
    roots = [context for context in whole.contexts.values() if context["parent_id"] is None]
    kinds = Counter(context["metadata"]["kind"] for context in roots)
    assert kinds == {"support": 150, "agent": 80, "coding": 40, "story": 1, "long": 1}
    assert {context["metadata"]["demo"]["seed"] for context in whole.contexts.values()} == {SEED}
    assert all(context["name"] and len(context["name"]) <= 120 for context in whole.contexts.values())
    assert len({context["metadata"]["language"] for context in whole.of("support")}) == 7
    assert all(not any(mark in context["name"] for mark in "{}") for context in whole.contexts.values())


def test_forks_are_many_and_deep(whole: World) -> None:
    (story,) = [context for context in whole.of("story") if context["parent_id"] is None]
    assert len(whole.of("story")) > 200
    assert max(context["depth"] for context in whole.of("story")) >= 90
    assert Counter(context["parent_id"] for context in whole.of("story"))[story["id"]] >= 3
    forks = [context for context in whole.contexts.values() if context["parent_id"] is not None]
    parents = [(context, whole.contexts[context["parent_id"]]) for context in forks]
    assert any(context["fork_version"] == 0 for context in forks)
    assert any(0 < context["fork_version"] < (parent["fork_version"] or 0) for context, parent in parents)
    assert any(context["metadata"]["kind"] == "agent" for context in forks)
    assert len([context for context in whole.of("coding") if context["parent_id"] is not None]) >= 40


def test_one_history_has_twenty_thousand_messages(whole: World) -> None:
    (long,) = whole.of("long")
    assert (long["latest_version"], long["parent_id"]) == (20_000, None)
    assert 15_000 < long["message_count"] < 20_000
    contents = Counter(message["content"] for message in whole.lineage(long))
    assert len(contents) > 8_000


def test_some_messages_and_contexts_are_deleted(whole: World) -> None:
    deleted = Counter(
        whole.contexts[message["context_id"]]["metadata"]["kind"]
        for message in whole.messages.values()
        if message["deleted_at"] is not None
    )
    assert deleted.keys() == {"support", "story", "long"}
    gone = {context["id"] for context in whole.contexts.values() if context["deleted_at"] is not None}
    assert len(gone) >= 3
    assert any(context["parent_id"] in gone and context["deleted_at"] is None for context in whole.contexts.values())


def test_counters_equal_what_reading_gives(whole: World) -> None:
    for context in whole.contexts.values():
        lineage = whole.lineage(context)
        read = [message for message in lineage if message["deleted_at"] is None]
        assert (context["message_count"], context["total_tokens"], context["running_tokens"]) == (
            len(read),
            sum(message["token_count"] for message in read),
            sum(message["token_count"] for message in lineage),
        )
        running = 0
        for message in lineage:
            running += message["token_count"]
            assert message["running_tokens"] == running
        assert all(one["created_at"] <= other["created_at"] for one, other in pairwise(lineage))
    assert sum(len(list(group)) for _, group in groupby(sorted(whole.messages))) == len(whole.messages)


def test_lineage_pointers_are_what_climbing_finds(whole: World) -> None:
    for context in whole.contexts.values():
        version = context["fork_version"] or 0
        owner = whole.contexts[whole.owner(context["id"], version)] if version else None
        if owner is None:
            assert (context["owner_id"], context["owner_depth"], context["jump_id"]) == (None, 0, None)
            continue
        assert (context["owner_id"], context["owner_depth"]) == (owner["id"], owner["owner_depth"] + 1)
        ups = [owner]
        while ups[-1]["owner_id"] is not None:
            ups.append(whole.contexts[ups[-1]["owner_id"]])
        assert context["jump_id"] in {each["id"] for each in ups}


async def test_the_service_reads_what_is_stored(whole: World, whole_url: str) -> None:
    document = """query ($id: ID!) { context(id: $id) {
      messageCount totalTokens messages(last: 1000) { totalCount nodes { id content tokenCount } } } }"""
    async with api_over(create_app(_settings(whole_url))) as api:
        for context in list(whole.contexts.values())[::20]:
            if context["deleted_at"] is not None:
                continue
            found = (await api(document, id=str(context["id"])))["context"]
            read = [message for message in whole.lineage(context) if message["deleted_at"] is None]
            assert found["messageCount"] == found["messages"]["totalCount"] == len(read)
            assert found["totalTokens"] == sum(message["token_count"] for message in read)
            assert found["messages"]["nodes"] == [
                {"id": str(m["id"]), "content": m["content"], "tokenCount": m["token_count"]} for m in read[-1000:]
            ]


def test_tokens_are_counted_as_for_any_caller(whole: World) -> None:
    counter = TokenCounter("o200k_base")
    for message in list(whole.messages.values())[::9]:
        calls = message["tool_calls"] or []
        texts = [message["content"], *(text for call in calls for text in (call["name"], json_text(call["arguments"])))]
        assert message["token_count"] == sum(map(counter.count, texts))


def test_every_call_has_its_results_before_anything_else_is_said(whole: World) -> None:
    widths: Counter[int] = Counter()
    reordered = 0
    for context in whole.contexts.values():
        waiting: list[str] = []
        for message in [message for message in whole.lineage(context) if message["deleted_at"] is None]:
            if message["role"] == "tool":
                reordered += waiting[0] != message["tool_call_id"]
                waiting.remove(message["tool_call_id"])
                continue
            assert waiting == []
            waiting = [call["id"] for call in message["tool_calls"] or []]
            widths[len(waiting)] += 1
        assert waiting == []
    assert {1, 2, 3} <= widths.keys()
    assert reordered > 100


def test_texts_are_of_many_kinds(whole: World) -> None:
    text = "\n".join(message["content"] for message in whole.messages.values())
    assert all(
        piece in text
        for piece in ("荷物", "مرحبا", "नमस्ते", "Vielen Dank", "🎉", "Traceback", "pub fn", "async function")
    )
    assert re.findall(r"\{~?[a-z]+\}", text) == []


@pytest.mark.parametrize("seed", [*range(-1, 8), 2**64])
def test_every_seed_can_be_written(seed: int) -> None:
    histories = [planned.write() for planned in plan.plan(seed, 0.1)]
    ids = [history.context_id(branch) for history in histories for branch in history.branches]
    assert len(set(ids)) == len(ids) > 50


async def test_a_seed_gives_the_same_again(database_url: str, small: list[list[Row]]) -> None:
    await fill(database_url, SEED, scale=SMALL)
    assert content(database_url) == small


async def test_another_seed_gives_something_else_beside_it(database_url: str, small: list[list[Row]]) -> None:
    await fill(database_url, SEED + 1, scale=SMALL)
    other = content(database_url)
    assert {context["name"] for context in other[1]} != {context["name"] for context in small[1]}
    await fill(database_url, SEED, scale=SMALL)
    assert len(content(database_url)[2]) == len(other[2]) + len(small[2])


def test_the_second_run_adds_nothing_and_says_so(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert demo.run(database_url, seed=SEED, remove=False, scale=SMALL) == 0
    contexts, messages = map(len, stored(database_url)[1:])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == [
        f"Adding messages: {messages:,} of {messages:,}",
        f"Added {contexts:,} contexts with {messages:,} messages, seed {SEED}.",
    ]
    before = stored(database_url)
    assert demo.run(database_url, seed=SEED, remove=False, scale=SMALL) == 0
    assert capsys.readouterr().out == f"The demo with seed {SEED} is there already: nothing was added.\n"
    assert stored(database_url) == before


class StoppedError(Exception):
    """The run ends here."""


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
async def test_an_interrupted_run_is_completed_by_the_next(
    database_url: str, small: list[list[Row]], share: float
) -> None:
    def stop(done: int, total: int) -> None:
        if done > share * total:
            raise StoppedError

    with pytest.raises(StoppedError):
        await fill(database_url, SEED, scale=SMALL, report=stop)
    assert len(content(database_url)[2]) < len(small[2])
    seen: list[tuple[int, int]] = []
    summary = await fill(database_url, SEED, scale=SMALL, report=lambda done, total: seen.append((done, total)))
    assert content(database_url) == small
    assert summary.messages == seen[-1][0] == seen[-1][1] <= len(small[2])
    assert seen == sorted(seen)


def test_a_killed_run_is_completed_by_the_next(database_url: str, new_database: NewDatabase) -> None:
    scale = 0.15
    command = f"from graphql_api import demo; demo.run({database_url!r}, seed={SEED}, remove=False, scale={scale})"
    with subprocess.Popen([sys.executable, "-uc", command], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("Adding messages: ")
        process.kill()
    with psycopg.connect(database_url, autocommit=True) as watcher:  # the server notices a little later
        _wait(watcher, "backend_type = 'client backend' and pid <> pg_backend_pid()", found=False)
    half = len(content(database_url)[2])
    summary = asyncio.run(fill(database_url, SEED, scale=scale))
    with new_database() as url:
        asyncio.run(fill(url, SEED, scale=scale))
        assert content(database_url) == content(url)
    assert (half > 0, summary.present > 0, summary.contexts > 0) == (True, True, True)


async def test_two_runs_at_once_share_the_work(database_url: str, small: list[list[Row]]) -> None:
    one, other = await asyncio.gather(*(fill(database_url, SEED, scale=SMALL) for _ in range(2)))
    assert content(database_url) == small
    assert one.messages + other.messages == len(small[2])


async def _users_own(api: Api) -> None:
    """Let a user make contexts that have nothing to do with the demo, though one says so."""
    made = await create(api, say("mine"), name="mine", metadata={"demo": {"seed": SEED, "history": "chat-0"}})
    await fork(api, made["id"], name="mine, too")
    await create(api, name="also mine", metadata={"demo": {"seed": SEED}, "n": 1})
    await create(api, name="and mine", metadata={"demo": SEED})


async def test_removing_leaves_the_database_as_it_was(api: Api, database_url: str) -> None:
    await _users_own(api)
    await fill(database_url, SEED + 1, scale=SMALL)
    before = stored(database_url)
    added = await fill(database_url, SEED, scale=SMALL)
    seen: list[tuple[int, int]] = []
    removed = await remove(database_url, SEED, report=lambda done, total: seen.append((done, total)))
    assert stored(database_url) == before
    assert removed == replace(added, present=0)
    assert seen[-1] == (removed.contexts, removed.contexts)
    assert await remove(database_url, SEED) == Summary(0, 0)


async def _demo_context(api: Api, name: str) -> Row:
    found = await api(
        """query ($name: JSON!) { contexts(first: 1, filter: {metadataContains: $name, rootsOnly: true}) {
          nodes { id name latestVersion metadata } } }""",
        name={"demo": {"history": name}},
    )
    context: Row = found["contexts"]["nodes"][0]
    return context


async def _take_part(api: Api) -> dict[str, Row]:
    """Let users work with contexts of the demo, in every way; gives those contexts by what was done."""
    names = {"forked": "agent-0", "appended": "agent-1", "taken": "chat-0", "hidden": "chat-3", "tree": "story-0"}
    found = {deed: await _demo_context(api, name) for deed, name in names.items()}
    mine = await fork(api, found["forked"]["id"], name="my fork", metadata=found["forked"]["metadata"])
    await append(api, mine["id"], say("and mine are its messages"))
    await append(api, found["appended"]["id"], say("a word of mine"))
    await update(api, found["taken"]["id"], name="mine now", metadata={"kept": True})
    gone = await fork(api, found["hidden"]["id"], 1, name="my deleted fork")
    await api("mutation ($id: ID!) { deleteContext(input: {contextId: $id}) { context { id } } }", id=gone["id"])
    (leaf,) = (await api("""{ contexts(first: 1, filter: {nameContains: "3 nights"}) { nodes { id } } }"""))[
        "contexts"
    ]["nodes"]
    await append(api, leaf["id"], say("go on"))
    return found


def test_what_users_have_a_part_in_stays_and_is_named(
    database_url: str, capsys: pytest.CaptureFixture[str], small: list[list[Row]]
) -> None:
    demo.run(database_url, seed=SEED, remove=False, scale=SMALL)

    async def take_part() -> dict[str, Row]:
        async with api_over(create_app(_settings(database_url))) as api:
            return await _take_part(api)

    touched = asyncio.run(take_part())
    before = world_of(database_url)
    capsys.readouterr()
    assert demo.run(database_url, seed=SEED, remove=True) == 1
    after = world_of(database_url)
    roots = {UUID(context["id"]) for context in touched.values()}
    assert after.contexts == {key: row for key, row in before.contexts.items() if row["root_id"] in roots}
    assert after.messages == {key: row for key, row in before.messages.items() if key[0] in after.contexts}
    told = capsys.readouterr().out
    assert "4 histories stay, because others have a part in them:" in told
    assert "“my fork” (" in told
    assert "“my deleted fork” (" in told
    assert f") forks “{touched['forked']['name']}” ({touched['forked']['id']})" in told
    assert f"“{touched['appended']['name']}” ({touched['appended']['id']}) has messages that are not the demo's" in told
    assert told.count("has messages that are not the demo's") == 2

    asyncio.run(fill(database_url, SEED, scale=SMALL))  # what was removed comes back
    again = {row["id"]: row for row in content(database_url)[2]}
    assert {row["id"]: again[row["id"]] for row in small[2]} == {row["id"]: row for row in small[2]}


async def test_a_fork_loses_nothing_when_its_root_was_taken_over(api: Api, database_url: str) -> None:
    await fill(database_url, SEED, scale=SMALL)
    before = world_of(database_url)
    root = await _demo_context(api, "coding-0")
    await update(api, root["id"], metadata={})
    summary = await remove(database_url, SEED)
    (kept,) = summary.kept
    assert kept.because == f"its root {root['id']} does not carry the mark of the demo any more"
    assert world_of(database_url).contexts.keys() == {
        key for key, row in before.contexts.items() if row["root_id"] == UUID(root["id"])
    }


async def test_a_message_that_is_just_being_appended_is_not_lost(api: Api, database_url: str) -> None:
    await fill(database_url, SEED, scale=SMALL)
    context = await _demo_context(api, "agent-0")
    with psycopg.connect(database_url) as user, psycopg.connect(database_url, autocommit=True) as watcher:
        appended = uuid.uuid4()
        user.execute(
            "select from append_messages('default', %s, array[%s::uuid], '{user}', '{wait}', array[null::json], "
            "array[null], array[null], '{1}', array[null], array['{}'::jsonb])",
            [context["id"], appended],
        )
        removing = asyncio.create_task(remove(database_url, SEED))
        await asyncio.to_thread(_wait, watcher, "wait_event_type = 'Lock'", found=True)
        user.commit()
        summary = await removing
    assert [str(kept.root_id) for kept in summary.kept] == [context["id"]]
    assert appended in {message["id"] for message in world_of(database_url).messages.values()}


def test_a_terminal_shows_a_bar(
    database_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    assert demo.run(database_url, seed=SEED, remove=False, scale=0.001) == 0
    shown = capsys.readouterr().out
    assert "━" in shown
    assert "Adding messages: " not in shown
    assert "Added " in shown
    assert demo.run(database_url, seed=SEED, remove=True) == 0
    assert "Removed " in capsys.readouterr().out


def test_a_database_that_is_away_is_told_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "POOL", replace(demo.POOL, wait_seconds=0.3))
    assert demo.run(f"postgresql:///nothing?host={tmp_path}", seed=SEED, remove=False) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
