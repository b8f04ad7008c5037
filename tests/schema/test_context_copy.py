"""Copying contexts: what the copy holds, that it shares nothing, what waits meanwhile and what is refused."""

import asyncio
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings

from db.copy import BATCH
from graphql_api.app import create_app
from graphql_api.settings import Settings
from tests import strategies
from tests.client import Api
from tests.conftest import api_over
from tests.schema.calls import (
    CONTEXT,
    UNKNOWN,
    Json,
    append,
    contents,
    create,
    delete,
    delete_message,
    fork,
    mutate,
    read,
    refusal,
    restore_message,
    say,
    stored,
)
from tests.strategies import Command
from tests.test_history import World, run

CALL = {"id": "call", "name": "search", "arguments": {"b": 1, "a": [1e300, 0.1]}}
# What each of two lineages holds at every version, deleted messages too, but for ids and where it is stored.
LINEAGE = """
with recursive up as (
  select c.*, c.latest_version as high from contexts c where c.id = %s
  union all
  select p.*, least(u.high, u.fork_version) from up u join contexts p on p.id = u.parent_id
)
select to_jsonb(m) - 'id' - 'context_id', m.tool_calls::text
from up u
join messages m on m.context_id = u.id and m.version <= u.high and m.version > coalesce(u.fork_version, 0)
order by m.version
"""


async def copy(api: Api, context_id: str, version: int | None = None, **given_too: Any) -> Json:
    """Copy; gives the copy."""
    payload = await mutate(
        api, "copyContext", f"context {{ {CONTEXT} }}", contextId=context_id, version=version, **given_too
    )
    context: Json = payload["context"]
    return context


def lineage(database_url: str, context_id: str) -> list[Any]:
    with psycopg.connect(database_url) as connection:
        return connection.execute(LINEAGE, [context_id]).fetchall()


def rows(database_url: str, statement: str, *parameters: Any) -> list[Any]:
    with psycopg.connect(database_url) as connection:
        return connection.execute(statement.encode(), parameters).fetchall()


async def family(api: Api) -> tuple[str, str, str]:
    """Make a root, its fork, and a fork of that below its fork version, with tools and deleted messages."""
    root = (
        await create(
            api,
            say("1", role="SYSTEM"),
            say("2", metadata={"n": 1e20}),
            say("", role="ASSISTANT", toolCalls=[CALL, CALL | {"id": "other"}], model="m", tokenCount=7),
            say("4", role="TOOL", toolCallId="call", toolName="search"),
        )
    )["id"]
    middle = (await fork(api, root, 3))["id"]
    await append(api, middle, say("m4", role="TOOL", toolCallId="other"), say("m5", role="TOOL", toolCallId="unknown"))
    leaf = (await fork(api, middle, 4, name="leaf", metadata={"big": 12345678901234567890, "f": 0.1}))["id"]
    await append(api, leaf, say("l5", tokenCount=3), say("l6", role="TOOL", toolCallId="call"))
    await delete_message(api, leaf, 2)
    await delete_message(api, leaf, 5)
    return root, middle, leaf


async def test_a_copy_is_a_root_with_the_same_history(api: Api, database_url: str) -> None:
    _, _, leaf = await family(api)
    source, made = await read(api, leaf), await copy(api, leaf)
    assert made == source | {
        "id": made["id"],
        "createdAt": made["createdAt"],
        "updatedAt": made["updatedAt"],
        "parent": None,
        "forkVersion": None,
        "depth": 0,
        "ancestors": [],
    }
    assert made["updatedAt"] >= made["createdAt"] >= source["updatedAt"]
    assert (made["messageCount"], made["latestVersion"], made["totalTokens"]) == (4, 6, 10)
    assert await read(api, made["id"]) == made
    history = lineage(database_url, leaf)
    assert len(history) == 6
    assert lineage(database_url, made["id"]) == history
    counters = (
        "select message_count, total_tokens, running_tokens, latest_version, metadata::text from contexts where id = %s"
    )
    assert rows(database_url, counters, made["id"]) == rows(database_url, counters, leaf)
    assert rows(database_url, "select count(*) from trees where id = %s", made["id"]) == [(1,)]


async def test_calls_are_copied_so_that_later_results_find_theirs(api: Api, database_url: str) -> None:
    _, _, leaf = await family(api)
    made = await copy(api, leaf)
    calls = "select call_key, version from calls where context_id = %s order by 1, 2"
    assert len(rows(database_url, calls, made["id"])) == 2
    await append(api, made["id"], say("late", role="TOOL", toolCallId="other"))
    found = "select call_version from messages where context_id = %s order by version"
    assert rows(database_url, found, made["id"]) == [(None,), (None,), (None,), (3,), (None,), (3,), (3,)]


async def test_embeddings_are_copied(api: Api, database_url: str) -> None:
    root = (await create(api, say("1")))["id"]
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "update messages set embedding_model = 'e', embedding = array_fill(0.5, array[1536])::vector"
        )
    made = await copy(api, root)
    assert lineage(database_url, made["id"]) == lineage(database_url, root)
    assert rows(database_url, "select count(embedding) from messages") == [(2,)]


async def test_a_copy_goes_up_to_any_version(api: Api, database_url: str) -> None:
    _, _, leaf = await family(api)
    history = lineage(database_url, leaf)
    at = "query ($id: ID!, $version: Int!) { context(id: $id) { at(version: $version) { messageCount totalTokens } } }"
    for version in range(7):
        made = await copy(api, leaf, version)
        assert lineage(database_url, made["id"]) == history[:version]
        snapshot = (await api(at, id=leaf, version=version))["context"]["at"]
        assert {name: made[name] for name in snapshot} == snapshot
        assert made["latestVersion"] == version
        assert (await append(api, made["id"], say("on")))["messages"][0]["version"] == version + 1


async def test_name_and_metadata_may_be_given(api: Api) -> None:
    _, _, leaf = await family(api)
    source = await read(api, leaf)
    assert source["name"] == "leaf"
    cases: list[tuple[Json, Json]] = [
        ({"name": "copy"}, {"name": "copy"}),
        ({"metadata": {"a": 1}}, {"metadata": {"a": 1}}),
        ({"name": "", "metadata": {}}, {"name": "", "metadata": {}}),
        ({"name": None, "metadata": None, "version": None}, {}),
    ]
    for given_too, expected in cases:
        made = await copy(api, leaf, **given_too)
        assert (made["name"], made["metadata"]) == tuple((source | expected)[each] for each in ("name", "metadata"))


async def test_a_copy_shares_nothing_with_its_source(api: Api) -> None:
    root, _, leaf = await family(api)
    made = (await copy(api, leaf))["id"]
    before = await contents(api, leaf)
    assert await contents(api, made) == before
    await restore_message(api, made, 2)
    await delete_message(api, made, 1)
    await append(api, made, say("more"))
    assert await contents(api, leaf) == before
    assert await contents(api, made) == ["2", *before[1:], "more"]
    await delete_message(api, root, 1)
    await delete(api, leaf)
    assert await contents(api, made) == ["2", *before[1:], "more"]
    trees = """query ($id: ID!, $other: ID!) {
      context(id: $id) { tree { nodes { id } } commonAncestor(with: $other) { version } }
    }"""
    assert await api(trees, id=made, other=root) == {
        "context": {"tree": {"nodes": [{"id": made}]}, "commonAncestor": None}
    }


async def test_a_history_of_several_batches_is_copied_whole(api: Api, database_url: str) -> None:
    """Also where a batch ends at a fork, just before it and just behind it."""
    root = (await create(api, *(say(str(n)) for n in range(BATCH - 1))))["id"]
    tip = root
    for _ in range(3):
        tip = (await fork(api, tip))["id"]
        await append(api, tip, say("x"))
    await append(api, tip, *(say(str(n)) for n in range(BATCH)))
    made = await copy(api, tip)
    assert made["latestVersion"] == 2 * BATCH + 2
    assert lineage(database_url, made["id"]) == lineage(database_url, tip)


async def test_an_empty_context_is_copied(api: Api) -> None:
    made = await copy(api, (await create(api, name="empty"))["id"])
    assert (made["name"], made["latestVersion"]) == ("empty", 0)


async def test_what_cannot_be_copied_is_refused(api: Api, database_url: str) -> None:
    root = await create(api, say(), say())
    gone = await create(api, say())
    await delete(api, gone["id"])
    before = stored(database_url)
    for version in (3, -1, 2**31 - 1):
        expected = f"input.version is {version}. It must be from 0 to 2, the latest version."
        assert await refusal(copy(api, root["id"], version)) == ("BAD_USER_INPUT", expected)
    for missing in (UNKNOWN, gone["id"]):
        expected = f"There is no context {missing}, or it is deleted."
        assert await refusal(copy(api, missing)) == ("NOT_FOUND", expected)
    assert (await refusal(copy(api, "x")))[0] == "BAD_USER_INPUT"
    assert (await refusal(copy(api, root["id"], name="a" * 256)))[0] == "LIMIT_EXCEEDED"
    assert (await refusal(copy(api, root["id"], metadata=[1])))[0] == "BAD_USER_INPUT"
    assert stored(database_url) == before


async def test_a_setting_bounds_the_length_of_a_copy(settings: Settings, database_url: str) -> None:
    async with api_over(create_app(settings.model_copy(update={"copy_messages_max": 2}))) as api:
        root = await create(api, say(), say(), say())
        before = stored(database_url)
        expected = "The copy would hold 3 messages. 2 is the most (FORKPOINT_COPY_MESSAGES_MAX); "
        expected += "copy up to an earlier version."
        assert await refusal(copy(api, root["id"])) == ("LIMIT_EXCEEDED", expected)
        assert stored(database_url) == before
        assert (await copy(api, root["id"], 2))["latestVersion"] == 2


async def test_a_copy_that_breaks_off_leaves_nothing(api: Api, database_url: str) -> None:
    """The last message cannot be copied: the batches before it go too."""
    root = (await create(api, *(say(str(n)) for n in range(BATCH))))["id"]
    await append(api, root, say("last"))
    with psycopg.connect(database_url) as connection:
        connection.execute(f"alter table messages add constraint planted check (version <= {BATCH}) not valid".encode())
    before = stored(database_url)
    assert (await refusal(copy(api, root)))[0] == "INTERNAL_SERVER_ERROR"
    assert stored(database_url) == before


@pytest.mark.parametrize("change", [delete_message, restore_message])
async def test_deletions_wait_for_a_copy_and_the_copy_shows_one_moment(
    api: Api, database_url: str, change: Any
) -> None:
    root = (await create(api, *(say(str(n)) for n in range(3 * BATCH // 4))))["id"]
    tip = (await fork(api, root))["id"]
    await append(api, tip, *(say(str(n)) for n in range(3 * BATCH // 4)))
    if change is restore_message:
        await asyncio.gather(*(delete_message(api, tip, version) for version in (1, BATCH + 1)))
    changes = [change(api, tip, version) for version in (1, BATCH + 1)]
    appends = [append(api, tip, say("new"))]
    made, *_ = await asyncio.gather(copy(api, tip), *changes, *appends)
    visible = (
        "select count(*)::integer, sum(token_count)::integer from messages where context_id = %s and deleted_at is null"
    )
    assert rows(database_url, visible, made["id"]) == [(made["messageCount"], made["totalTokens"])]
    assert lineage(database_url, made["id"])[-1][0]["version"] == made["latestVersion"]


@given(history=strategies.histories)
@hypothesis_settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_every_copy_reads_as_its_source(api: Api, database_url: str, history: list[Command]) -> None:
    world = World(api)
    for command in history:
        if not isinstance(command, strategies.Look):
            await run(world, command)
    for context in world.model.stored:
        if context.deleted:
            continue
        version = context.latest_version // 2 if context.key % 2 else context.latest_version
        made = await copy(api, world.id(context.key), version)
        read_then = [message for message in context.lineage[:version] if not message.deleted]
        assert await contents(api, made["id"]) == [message.content for message in read_then]
        assert (made["messageCount"], made["totalTokens"], made["latestVersion"]) == (
            len(read_then),
            sum(message.token_count for message in read_then),
            version,
        )
        assert lineage(database_url, made["id"]) == lineage(database_url, world.id(context.key))[:version]
