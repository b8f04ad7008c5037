"""Messages: what they show, how their tokens are counted, and what deleting and restoring one changes, and for whom."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from itertools import pairwise

import psycopg
import pytest

from graphql_api.app import create_app
from graphql_api.settings import Settings
from schema.token_count import TokenCounter
from tests.client import Api
from tests.conftest import api_over
from tests.schema.calls import (
    MESSAGE,
    UNKNOWN,
    Json,
    append,
    contents,
    create,
    delete,
    delete_message,
    fork,
    read,
    refusal,
    restore,
    restore_message,
    say,
    stored,
)

Change = Callable[[Api, str, int], Awaitable[Json]]


async def counters(api: Api, *ids: str) -> list[tuple[int, int, int]]:
    """Give messageCount, totalTokens and latestVersion of each context."""
    contexts = [await read(api, context_id) for context_id in ids]
    return [(context["messageCount"], context["totalTokens"], context["latestVersion"]) for context in contexts]


async def message(api: Api, context_id: str, version: int) -> Json | None:
    document = "query ($id: ID!, $v: Int!) { context(id: $id) { message(version: $v) { %s } } }" % MESSAGE  # noqa: UP031 - braces
    found: Json | None = (await api(document, id=context_id, v=version))["context"]["message"]
    return found


async def test_a_message_shows_what_was_given_and_what_the_service_added(api: Api) -> None:
    context_id = (await create(api))["id"]
    calls = [{"id": "c1", "name": "search", "arguments": {"q": "x"}}]
    payload = await append(
        api,
        context_id,
        {"role": "SYSTEM", "content": "Be brief.", "tokenCount": 7},
        {"role": "ASSISTANT", "content": "", "toolCalls": calls, "model": "m-1", "metadata": {"a": 1}, "tokenCount": 0},
        {"role": "TOOL", "content": "found", "toolCallId": "c1", "toolName": "search", "tokenCount": 3},
        {"role": "USER", "content": "Thanks", "tokenCount": 1},
    )
    assert (payload["replayed"], payload["forked"]) == (False, False)
    assert (await counters(api, context_id)) == [(4, 11, 4)]
    nothing: Json = {
        "toolCalls": [],
        "toolCallId": None,
        "toolName": None,
        "model": None,
        "metadata": {},
        "deletedAt": None,
    }
    holder = {"context": {"id": context_id, "deletedAt": None}}
    shown = [
        {"role": "SYSTEM", "content": "Be brief.", "tokenCount": 7, "version": 1},
        {"role": "ASSISTANT", "content": "", "tokenCount": 0, "version": 2, "toolCalls": calls, "model": "m-1"}
        | {"metadata": {"a": 1}},
        {"role": "TOOL", "content": "found", "tokenCount": 3, "version": 3, "toolCallId": "c1", "toolName": "search"},
        {"role": "USER", "content": "Thanks", "tokenCount": 1, "version": 4},
    ]
    for appended, expected in zip(payload["messages"], shown, strict=True):
        added = {"id": appended["id"], "createdAt": payload["context"]["updatedAt"]}
        assert appended == nothing | holder | expected | added
        assert await message(api, context_id, appended["version"]) == appended
    assert len({appended["id"] for appended in payload["messages"]}) == 4


async def test_versions_outside_the_lineage_show_nothing(api: Api) -> None:
    root = await create(api, say("one"), say("two"))
    forked = await fork(api, root["id"], 1)
    await append(api, forked["id"], say("other two"), say("three"))
    for context_id, known in ((root["id"], ["one", "two"]), (forked["id"], ["one", "other two", "three"])):
        found = [await message(api, context_id, version) for version in range(-1, 6)]
        assert [m and m["content"] for m in found] == [None, None, *known, *[None] * (5 - len(known))]
        assert await message(api, context_id, 2**31 - 1) is None
        assert await message(api, context_id, -(2**31)) is None


async def test_created_at_never_goes_back_along_a_lineage(api: Api, database_url: str) -> None:
    root = await create(api, say(), say())
    await append(api, root["id"], say(), say())
    # As if the clock had been ahead and was set back.
    with psycopg.connect(database_url) as connection:
        connection.execute("update contexts set updated_at = updated_at + interval '1 hour'")
        connection.execute("update messages set created_at = created_at + interval '1 hour' where version > 2")
    forked = await fork(api, root["id"])
    await append(api, forked["id"], say())
    await append(api, root["id"], say())
    for context_id in (root["id"], forked["id"]):
        document = "query ($id: ID!) { context(id: $id) { createdAt messages { nodes { createdAt } } } }"
        found = [m["createdAt"] for m in (await api(document, id=context_id))["context"]["messages"]["nodes"]]
        assert found == sorted(found)
        assert all(moment.endswith("Z") and datetime.fromisoformat(moment).tzinfo for moment in found)


async def test_the_service_counts_the_tokens_of_content_and_tool_calls(api: Api) -> None:
    """Of calls: the name and the compact arguments. Nothing else counts, and special tokens are ordinary text."""
    count = TokenCounter("o200k_base").count
    arguments = {"q": ["naïve café", 1.5, None], "nested": {"a": "\u2028"}}
    compact = '{"q":["naïve café",1.5,null],"nested":{"a":"\u2028"}}'
    call = {"id": "not counted", "name": "search_the_web", "arguments": arguments}
    sent: list[tuple[Json, int]] = [
        ({"role": "USER", "content": "Hello, world! 😀"}, count("Hello, world! 😀")),
        ({"role": "USER", "content": ""}, 0),
        ({"role": "USER", "content": "<|endoftext|>"}, count("<|endoftext|>")),
        (
            {"role": "ASSISTANT", "content": "Wait.", "toolCalls": [call, call]},
            count("Wait.") + 2 * (count("search_the_web") + count(compact)),
        ),
        (
            {"role": "TOOL", "content": "found", "toolCallId": "long id " * 9, "toolName": "search_the_web"},
            count("found"),
        ),
        ({"role": "USER", "content": "Hi", "model": "model " * 9, "metadata": {"a": "text " * 9}}, count("Hi")),
        ({"role": "USER", "content": "given counts win", "tokenCount": 0}, 0),
        ({"role": "USER", "content": "", "tokenCount": 1234}, 1234),
    ]
    payload = await append(api, (await create(api))["id"], *(m for m, _ in sent))
    assert [m["tokenCount"] for m in payload["messages"]] == [tokens for _, tokens in sent]
    assert payload["context"]["totalTokens"] == sum(tokens for _, tokens in sent)
    assert count("<|endoftext|>") > 1


async def test_a_setting_chooses_the_encoding(settings: Settings) -> None:
    text = "Übergrößenträgerinnen 世界"
    counts = []
    for encoding in ("o200k_base", "cl100k_base"):
        async with api_over(create_app(settings.model_copy(update={"token_encoding": encoding}))) as api:
            context = await create(api, {"role": "USER", "content": text})
            counts.append(context["totalTokens"])
            assert counts[-1] == TokenCounter(encoding).count(text)
    assert counts[0] != counts[1]


async def test_a_message_deleted_through_a_fork_leaves_its_holder_and_every_context_that_inherits_it(api: Api) -> None:
    root = await create(api, *(say(f"r{n}", tokenCount=10**n) for n in range(4)))
    above, below = await fork(api, root["id"], 3), await fork(api, root["id"], 2)
    await append(api, above["id"], say("a4", tokenCount=5))
    leaf = await fork(api, above["id"], 4)
    # At or below its own fork version: `above` names it its parent, but the messages are root's.
    low = await fork(api, above["id"], 2)
    ids = [context["id"] for context in (root, above, below, leaf, low)]
    untouched = await counters(api, *ids)
    assert untouched == [(4, 1111, 4), (4, 116, 4), (2, 11, 2), (4, 116, 4), (2, 11, 2)]

    payload = await delete_message(api, leaf["id"], 3)
    assert payload["context"] == await read(api, leaf["id"])
    assert payload["message"]["content"] == "r2"
    assert payload["message"]["context"] == {"id": root["id"], "deletedAt": None}
    assert payload["message"]["deletedAt"] is not None
    assert await counters(api, *ids) == [(3, 1011, 4), (3, 16, 4), (2, 11, 2), (3, 16, 4), (2, 11, 2)]
    assert [await contents(api, context_id) for context_id in ids] == [
        ["r0", "r1", "r3"],
        ["r0", "r1", "a4"],
        ["r0", "r1"],
        ["r0", "r1", "a4"],
        ["r0", "r1"],
    ]
    assert [await message(api, context_id, 3) for context_id in ids] == [None] * 5
    assert (await api("query ($id: ID!) { node(id: $id) { id } }", id=payload["message"]["id"]))["node"] is None

    again = await delete_message(api, root["id"], 3)
    assert again["message"] == payload["message"]

    restored = await restore_message(api, above["id"], 3)
    assert restored["message"] == payload["message"] | {"deletedAt": None}
    assert await counters(api, *ids) == untouched
    assert (await restore_message(api, leaf["id"], 3))["message"] == restored["message"]
    assert await counters(api, *ids) == untouched


async def test_forks_made_while_a_message_is_deleted_take_part_in_its_return(api: Api) -> None:
    root = await create(api, say("1", tokenCount=1), say("2", tokenCount=10), say("3", tokenCount=100))
    await delete_message(api, root["id"], 2)
    at = [await fork(api, root["id"], version) for version in (1, 2, 3)]
    ids = [root["id"], *(context["id"] for context in at)]
    assert await counters(api, *ids) == [(2, 101, 3), (1, 1, 1), (1, 1, 2), (2, 101, 3)]
    assert (await append(api, at[1]["id"], say("own")))["messages"][0]["version"] == 3
    await restore_message(api, at[2]["id"], 2)
    assert await counters(api, *ids) == [(3, 111, 3), (1, 1, 1), (3, 12, 3), (3, 111, 3)]


async def test_deleting_the_newest_message_keeps_its_version(api: Api) -> None:
    context_id = (await create(api, say("1"), say("2")))["id"]
    await delete_message(api, context_id, 2)
    forked = await fork(api, context_id)
    assert forked["forkVersion"] == 2
    assert (await append(api, context_id, say("3")))["messages"][0]["version"] == 3
    assert await contents(api, context_id) == ["1", "3"]


async def test_updated_at_moves_wherever_a_message_leaves_or_returns_and_nowhere_else(api: Api) -> None:
    root = await create(api, say(), say())
    inherits, without = await fork(api, root["id"], 2), await fork(api, root["id"], 1)
    ids = [context["id"] for context in (root, inherits, without)]

    async def moments() -> list[str]:
        return [(await read(api, context_id))["updatedAt"] for context_id in ids]

    seen = [await moments()]
    for change in (delete_message, delete_message, restore_message, restore_message):
        await change(api, inherits["id"], 2)
        seen.append(await moments())
    moved = [[later > earlier for earlier, later in zip(*pair, strict=True)] for pair in pairwise(seen)]
    assert moved == [[True, True, False], [False] * 3, [True, True, False], [False] * 3]


@pytest.mark.parametrize("change", [delete_message, restore_message])
async def test_a_version_that_is_not_there_cannot_be_deleted_or_restored(
    api: Api, database_url: str, change: Change
) -> None:
    root = await create(api, say(), say())
    empty = await fork(api, root["id"], 0)
    before = stored(database_url)
    for version in (0, -1, 3, 2**31 - 1, -(2**31)):
        expected = f"input.version is {version}. It must be from 1 to 2, the latest version."
        assert await refusal(change(api, root["id"], version)) == ("BAD_USER_INPUT", expected)
    expected = "input.version is 1, but the context has no messages."
    assert await refusal(change(api, empty["id"], 1)) == ("BAD_USER_INPUT", expected)
    expected = f"There is no context {UNKNOWN}, or it is deleted."
    assert await refusal(change(api, UNKNOWN, 1)) == ("NOT_FOUND", expected)
    assert stored(database_url) == before


async def test_a_deleted_context_refuses_but_its_forks_go_on_reading_and_deleting(api: Api) -> None:
    root = await create(api, say("kept"), say("gone"))
    forked = await fork(api, root["id"])
    deleted = await delete(api, root["id"])
    for change in (delete_message, restore_message):
        code, _ = await refusal(change(api, root["id"], 1))
        assert code == "NOT_FOUND"
    found = await message(api, forked["id"], 1)
    assert found is not None
    assert found["context"] == {"id": root["id"], "deletedAt": deleted["deletedAt"]}
    assert (await delete_message(api, forked["id"], 2))["message"]["context"]["id"] == root["id"]
    assert await contents(api, forked["id"]) == ["kept"]
    assert (await restore(api, root["id"]))["messageCount"] == 1


async def test_a_return_that_would_pass_the_largest_total_is_refused_as_a_whole(api: Api, database_url: str) -> None:
    """It may be a fork's total that would pass it, where the named context has room."""
    largest = say(tokenCount=10_000_000)
    root = await create(api, *[largest] * 2)
    forked = await fork(api, root["id"])
    await delete_message(api, root["id"], 1)
    await append(api, forked["id"], *[largest] * 213, say(tokenCount=7_000_000))
    before = stored(database_url)
    expected = ("LIMIT_EXCEEDED", "A total would pass 2147483647, the largest Int of GraphQL. Use another context.")
    assert await refusal(restore_message(api, root["id"], 1)) == expected
    assert stored(database_url) == before
