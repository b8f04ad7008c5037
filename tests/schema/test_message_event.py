"""`messageAppended`: what it begins with, what it gives, what it refuses, and when it ends."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from graphql_api.settings import Settings
from tests.client import ApiError
from tests.live import MESSAGES, Local, local
from tests.schema import calls
from tests.schema.calls import UNKNOWN, say

WHOLE = f"""subscription ($id: ID!, $after: Int) {{
  messageAppended(contextId: $id, afterVersion: $after) {{ message {{ {calls.MESSAGE} }} version latestVersion }}
}}"""
CALLS = [{"id": "c1", "name": "look", "arguments": {"z": 1, "a": ["é", None]}}]


@pytest.fixture(params=[True, False], ids=["planned", "resolved"])
async def api(settings: Settings, request: pytest.FixtureRequest) -> AsyncIterator[Local]:
    async with local(settings.model_copy(update={"planned_reads": request.param})) as api:
        yield api


async def refusal(api: Local, document: str, **variables: Any) -> tuple[str, str]:
    with pytest.raises(ApiError) as refused:
        async with api.subscribe(document, **variables):
            pass
    return refused.value.code, refused.value.message


async def test_it_begins_after_the_latest_version_unless_another_is_given(api: Local) -> None:
    context_id = (await calls.create(api, say("a"), say("b")))["id"]
    async with (
        api.subscribe(MESSAGES, id=context_id) as from_now,
        api.subscribe(MESSAGES, id=context_id, after=None) as from_null,
        api.subscribe(MESSAGES, id=context_id, after=0) as from_zero,
        api.subscribe(MESSAGES, id=context_id, after=2) as from_latest,
    ):
        await calls.append(api, context_id, say("c"))  # before any of them is asked for its first
        assert await from_zero.versions(3) == [1, 2, 3]
        for stream in (from_now, from_null, from_latest):
            assert await stream.next() == {
                "version": 3,
                "latestVersion": 3,
                "message": {"version": 3, "content": "c"},
            }


async def test_a_message_is_given_whole(api: Local) -> None:
    given = say("é\n", model="m", metadata={"a": [1, {"b": None}]}, role="ASSISTANT", toolCalls=CALLS)
    result = say("r", role="TOOL", toolCallId="c1", toolName="look")
    root = (await calls.create(api, given, result, name="root"))["id"]
    fork = (await calls.fork(api, root))["id"]
    page = f"query ($id: ID!) {{ context(id: $id) {{ messages {{ nodes {{ {calls.MESSAGE} }} }} }} }}"
    async with api.subscribe(WHOLE, id=fork, after=0) as stream:
        events = await stream.some(2)
        await calls.append(api, fork, given)
        events += await stream.some(1)
    nodes = (await api(page, id=fork))["context"]["messages"]["nodes"]
    assert [event["message"] for event in events] == nodes
    assert [event["latestVersion"] for event in events] == [2, 2, 3]
    assert [event["message"]["context"]["id"] for event in events] == [root, root, fork]


async def test_what_a_fork_inherits_comes_first_and_nothing_of_its_parent_afterwards(api: Local) -> None:
    root = (await calls.create(api, *(say(f"root {n}") for n in range(1, 6))))["id"]
    fork = (await calls.fork(api, root, 3))["id"]
    await calls.delete_message(api, root, 2)
    await calls.delete(api, root)
    async with api.subscribe(MESSAGES, id=fork, after=0) as stream:
        await calls.append(api, fork, say("fork 4"))
        events = await stream.some(3)
        assert [event["message"]["content"] for event in events] == ["root 1", "root 3", "fork 4"]
        await calls.restore(api, root)
        await calls.append(api, root, say("root 6"))
        await calls.append(api, fork, say("fork 5"))
        assert (await stream.next())["message"]["content"] == "fork 5"


async def test_it_ends_when_the_context_is_deleted_after_all_that_was_appended(api: Local) -> None:
    context_id = (await calls.create(api, say("a")))["id"]
    async with api.subscribe(MESSAGES, id=context_id) as stream, api.subscribe(MESSAGES, id=context_id) as waiting:
        await calls.append(api, context_id, *(say(f"{n}") for n in range(200)))
        assert await waiting.versions(200) == list(range(2, 202))
        await calls.delete(api, context_id)
        assert await stream.versions(200) == list(range(2, 202))
        assert await stream.completed()
        assert await waiting.completed()


async def test_a_fork_goes_on_when_its_parent_is_deleted(api: Local) -> None:
    root = (await calls.create(api, say("a")))["id"]
    fork = (await calls.fork(api, root))["id"]
    async with api.subscribe(MESSAGES, id=fork, after=0) as stream:
        assert await stream.versions(1) == [1]
        await calls.delete(api, root)
        await calls.append(api, fork, say("b"))
        assert await stream.versions(1) == [2]


@pytest.mark.parametrize("how", ["plain", "expected", "keyed", "forking"])
async def test_every_way_to_append_is_told(api: Local, how: str) -> None:
    context_id = (await calls.create(api, say("a"), say("b")))["id"]
    given: dict[str, dict[str, Any]] = {
        "expected": {"expectedVersion": 2},
        "keyed": {"idempotencyKey": "k"},
        "forking": {"expectedVersion": 2, "onConflict": "FORK"},
    }
    async with api.subscribe(MESSAGES, id=context_id) as stream:
        await calls.append(api, context_id, say("c"), **given.get(how, {}))
        assert await stream.versions(1) == [3]


async def test_an_unknown_and_a_deleted_context_are_not_found(api: Local) -> None:
    deleted = (await calls.create(api))["id"]
    await calls.delete(api, deleted)
    for context_id in (UNKNOWN, deleted):
        assert await refusal(api, MESSAGES, id=context_id) == (
            "NOT_FOUND",
            f"There is no context {context_id}, or it is deleted.",
        )


@pytest.mark.parametrize("after", [-1, -(2**31), 3, 2**31 - 1])
async def test_a_version_that_is_not_there_is_refused(api: Local, after: int) -> None:
    context_id = (await calls.create(api, say("a"), say("b")))["id"]
    assert await refusal(api, MESSAGES, id=context_id, after=after) == (
        "BAD_USER_INPUT",
        f"afterVersion is {after}. It must be from 0 to 2, the latest version.",
    )


@pytest.mark.parametrize("context_id", ["", "x", "0198c0de", "é" * 300])
async def test_what_is_no_id_is_refused(api: Local, context_id: str) -> None:
    code, message = await refusal(api, MESSAGES, id=context_id)
    assert (code, message.startswith("contextId ")) == ("BAD_USER_INPUT", True)


async def test_closing_it_leaves_nobody_behind_at_once(api: Local) -> None:
    context_id = (await calls.create(api, say("a"), say("b")))["id"]
    async with api.subscribe(MESSAGES, id=context_id, after=0) as stream:
        await stream.next()
        assert api.live.feeds._feeds  # noqa: SLF001 - nobody else can tell
    assert api.live.feeds._feeds == {}  # noqa: SLF001
