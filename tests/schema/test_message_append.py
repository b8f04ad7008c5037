"""Appending after an expected version: nothing comes in between, and what came before is told, or forked around."""

import asyncio
from itertools import pairwise

import pytest

from graphql_api.app import create_app
from graphql_api.settings import Settings
from tests.client import Api, ApiError
from tests.conftest import api_over
from tests.schema.calls import (
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
    say,
    stored,
)


async def conflict(api: Api, context_id: str, *messages: Json, **given: object) -> Json:
    """Append what must meet a conflict; gives its error."""
    with pytest.raises(ApiError) as refused:
        await append(api, context_id, *messages, **given)
    (error,) = refused.value.errors
    return error


async def test_the_expected_version_is_appended_to(api: Api) -> None:
    context_id = (await create(api))["id"]
    for version, choice in enumerate(["REJECT", "FORK", None, "FORK"]):
        payload = await append(api, context_id, say(str(version)), expectedVersion=version, onConflict=choice)
        assert (payload["context"]["id"], payload["forked"], payload["replayed"]) == (context_id, False, False)
        assert payload["context"] == await read(api, context_id)
    assert await contents(api, context_id) == ["0", "1", "2", "3"]


@pytest.mark.parametrize("choice", [{}, {"onConflict": None}, {"onConflict": "REJECT"}])
async def test_an_older_version_is_a_conflict_that_tells_the_latest(api: Api, database_url: str, choice: Json) -> None:
    context_id = (await create(api, say("1"), say("2")))["id"]
    before = stored(database_url)
    assert await conflict(api, context_id, say("3"), expectedVersion=1, **choice) == {
        "message": "input.expectedVersion is 1, but the latest version is 2. Read on first, or send onConflict: FORK.",
        "extensions": {"code": "CONFLICT", "latestVersion": 2},
        "path": ["appendMessages"],
        "locations": [{"line": 1, "column": 43}],
    }
    assert stored(database_url) == before


async def test_a_deleted_message_still_counts_as_a_version(api: Api) -> None:
    context_id = (await create(api, say("1"), say("2")))["id"]
    await delete_message(api, context_id, 2)
    error = await conflict(api, context_id, say(), expectedVersion=1)
    assert error["extensions"]["latestVersion"] == 2
    assert (await append(api, context_id, say(), expectedVersion=2))["messages"][0]["version"] == 3


async def test_an_older_version_is_forked_when_that_is_wished(api: Api) -> None:
    parent = await create(api, say("1", tokenCount=10), say("2"), say("3"), name="trip", metadata={"a": 1})
    await delete_message(api, parent["id"], 1)
    before = await read(api, parent["id"])
    payload = await append(api, parent["id"], say("b"), say("c"), expectedVersion=2, onConflict="FORK")
    made = payload["context"]
    assert made == await read(api, made["id"])
    expected = {"parent": {"id": parent["id"]}, "forkVersion": 2, "latestVersion": 4, "messageCount": 3}
    expected |= {"totalTokens": 3, "name": None, "metadata": {}, "depth": 1}
    assert {name: made[name] for name in expected} == expected
    assert (payload["forked"], payload["replayed"]) == (True, False)
    assert [(m["version"], m["content"], m["context"]["id"]) for m in payload["messages"]] == [
        (3, "b", made["id"]),
        (4, "c", made["id"]),
    ]
    assert await contents(api, made["id"]) == ["2", "b", "c"]
    assert await read(api, parent["id"]) == before


async def test_the_empty_beginning_can_be_expected_and_forked(api: Api) -> None:
    parent = await create(api, say("1"))
    payload = await append(api, parent["id"], say("other"), expectedVersion=0, onConflict="FORK")
    assert (payload["context"]["forkVersion"], payload["messages"][0]["version"]) == (0, 1)
    assert await contents(api, payload["context"]["id"]) == ["other"]


async def test_without_an_expected_version_there_is_no_conflict(api: Api) -> None:
    context_id = (await create(api, say()))["id"]
    for choice in ("FORK", "REJECT"):
        payload = await append(api, context_id, say(), onConflict=choice, expectedVersion=None)
        assert (payload["forked"], payload["context"]["id"]) == (False, context_id)


@pytest.mark.parametrize("version", [-(2**31), -1, 2, 2**31 - 1])
@pytest.mark.parametrize("choice", ["REJECT", "FORK"])
async def test_a_version_that_cannot_be_is_bad_input(api: Api, database_url: str, version: int, choice: str) -> None:
    context_id = (await create(api, say()))["id"]
    before = stored(database_url)
    assert await refusal(append(api, context_id, say(), expectedVersion=version, onConflict=choice)) == (
        "BAD_USER_INPUT",
        f"input.expectedVersion is {version}. It must be from 0 to 1, the latest version.",
    )
    assert stored(database_url) == before


@pytest.mark.parametrize("choice", ["REJECT", "FORK"])
async def test_a_context_that_is_not_there_is_not_found(api: Api, choice: str) -> None:
    deleted = (await create(api, say()))["id"]
    await delete(api, deleted)
    for context_id in (UNKNOWN, deleted):
        assert await refusal(append(api, context_id, say(), expectedVersion=0, onConflict=choice)) == (
            "NOT_FOUND",
            f"There is no context {context_id}, or it is deleted.",
        )


async def test_a_fork_on_conflict_is_no_deeper_than_others_may_be(settings: Settings, database_url: str) -> None:
    async with api_over(create_app(settings.model_copy(update={"fork_depth_max": 1}))) as api:
        root = await create(api, say("1"), say("2"))
        forked = await fork(api, root["id"])
        await append(api, forked["id"], say("3"))
        before = stored(database_url)
        assert await refusal(append(api, forked["id"], say(), expectedVersion=2, onConflict="FORK")) == (
            "LIMIT_EXCEEDED",
            "The fork would be 2 forks deep. 1 is the most (FORKPOINT_FORK_DEPTH_MAX); fork an ancestor.",
        )
        assert stored(database_url) == before
        assert not (await append(api, forked["id"], say(), expectedVersion=3, onConflict="FORK"))["forked"]


async def test_a_batch_too_much_for_the_fork_leaves_no_fork(api: Api, database_url: str) -> None:
    largest = say(tokenCount=10_000_000)
    root = await create(api, *[largest] * 200)
    await append(api, root["id"], say())
    before = stored(database_url)
    call = append(api, root["id"], *[largest] * 20, expectedVersion=200, onConflict="FORK")
    assert (await refusal(call))[0] == "LIMIT_EXCEEDED"
    assert stored(database_url) == before


async def test_of_many_that_expect_one_version_one_is_let_through(api: Api) -> None:
    context_id = (await create(api, say("0")))["id"]
    calls = (append(api, context_id, say(str(n)), say(str(n)), expectedVersion=1) for n in range(12))
    found = await asyncio.gather(*calls, return_exceptions=True)
    won = [answer for answer in found if isinstance(answer, dict)]
    lost = [error for error in found if isinstance(error, ApiError)]
    assert (len(won), len(lost)) == (1, 11)
    assert {(error.code, error.errors[0]["extensions"]["latestVersion"]) for error in lost} == {("CONFLICT", 3)}
    assert await contents(api, context_id) == ["0", *(message["content"] for message in won[0]["messages"])]


async def test_of_many_that_expect_one_version_all_but_one_are_forked(api: Api) -> None:
    """Beside others who append, and delete messages of the tree: it neither deadlocks nor forks without need."""
    context_id = (await create(api, say("0"), say("1")))["id"]
    calls = [append(api, context_id, say(f"own {n}"), expectedVersion=2, onConflict="FORK") for n in range(12)]
    deletions = [delete_message(api, context_id, 1) for _ in range(6)]
    answers = (await asyncio.gather(*calls, *deletions))[: len(calls)]
    assert sorted(answer["forked"] for answer in answers) == [False] + [True] * 11
    assert len({answer["context"]["id"] for answer in answers}) == 12
    for number, answer in enumerate(answers):
        assert await contents(api, answer["context"]["id"]) == ["1", f"own {number}"]
        context = await read(api, answer["context"]["id"])
        assert (context["messageCount"], context["totalTokens"], context["latestVersion"]) == (2, 2, 3)


async def test_writers_who_retry_with_the_version_they_are_told_make_one_history(api: Api) -> None:
    context_id = (await create(api))["id"]

    async def write(writer: int) -> list[int]:
        versions: list[int] = []
        expected = 0
        while len(versions) < 4:
            try:
                payload = await append(api, context_id, say(f"{writer}/{expected}"), expectedVersion=expected)
            except ApiError as error:
                expected = error.errors[0]["extensions"]["latestVersion"]
            else:
                expected = payload["context"]["latestVersion"]
                versions.append(payload["messages"][0]["version"])
        return versions

    written = await asyncio.gather(*map(write, range(6)))
    assert sorted(version for own in written for version in own) == list(range(1, 25))
    # Each message was written by one who knew of all before it.
    said = [content.split("/") for content in await contents(api, context_id)]
    assert [int(expected) for _, expected in said] == list(range(24))
    assert all(earlier < later for own in written for earlier, later in pairwise(own))
