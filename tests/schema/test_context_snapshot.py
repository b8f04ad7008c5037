"""Standing at an earlier version: by number and by time, through forks, with what has been deleted since hidden."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.client import Api
from tests.schema.calls import append, create, delete_message, fork, refusal, restore_message, say

Json = dict[str, Any]

AT = """query ($id: ID!, $version: Int, $time: DateTime) { context(id: $id) { at(version: $version, time: $time) {
  version messageCount totalTokens context { id latestVersion } messages { nodes { version content } totalCount }
} } }"""
PAGE = """query ($id: ID!, $version: Int!, $first: Int, $after: String, $last: Int, $before: String, $roles: [Role!]) {
  context(id: $id) { at(version: $version) {
    messages(first: $first, after: $after, last: $last, before: $before, roles: $roles) {
      nodes { version } totalCount pageInfo { hasPreviousPage hasNextPage startCursor endCursor }
    }
  } }
}"""
TIMES = "query ($id: ID!) { context(id: $id) { messages { nodes { createdAt } } } }"


async def at(api: Api, context_id: str, **place: Any) -> Json:
    snapshot: Json = (await api(AT, id=context_id, **place))["context"]["at"]
    return snapshot


async def page(api: Api, context_id: str, version: int, **arguments: Any) -> Json:
    messages: Json = (await api(PAGE, id=context_id, version=version, **arguments))["context"]["at"]["messages"]
    return messages


async def lineage(api: Api) -> tuple[str, str]:
    """Make a root with a to d, and a fork of it at 3 with x and y; message n has n tokens."""
    root = await create(api, *(say(text, tokenCount=n) for n, text in enumerate("abcd", 1)))
    forked = await fork(api, root["id"], 3)
    await append(api, forked["id"], say("x", tokenCount=4), say("y", tokenCount=5))
    return root["id"], forked["id"]


async def test_every_version_is_the_history_until_then(api: Api) -> None:
    _, forked = await lineage(api)
    for version in range(6):
        assert await at(api, forked, version=version) == {
            "version": version,
            "messageCount": version,
            "totalTokens": sum(range(version + 1)),
            "context": {"id": forked, "latestVersion": 5},
            "messages": {
                "nodes": [{"version": n, "content": text} for n, text in enumerate("abcxy", 1)][:version],
                "totalCount": version,
            },
        }


async def test_a_message_deleted_since_stays_hidden_and_comes_back(api: Api) -> None:
    root, forked = await lineage(api)
    await delete_message(api, root, 2)
    await delete_message(api, forked, 5)
    counts = [(await at(api, forked, version=version)) for version in range(6)]
    assert [(s["messageCount"], s["totalTokens"]) for s in counts] == [(0, 0), (1, 1), (1, 1), (2, 4), (3, 8), (3, 8)]
    assert counts[3]["messages"]["nodes"] == [{"version": 1, "content": "a"}, {"version": 3, "content": "c"}]
    await restore_message(api, forked, 2)
    assert (await at(api, forked, version=2))["messageCount"] == 2


async def test_a_moment_stands_for_the_last_version_appended_by_then(api: Api) -> None:
    root = await create(api, say("a"), say("b"))
    await append(api, root["id"], say("c"))
    forked = (await fork(api, root["id"], 2))["id"]
    await append(api, forked, say("x"))
    nodes = (await api(TIMES, id=forked))["context"]["messages"]["nodes"]
    times = [datetime.fromisoformat(node["createdAt"]) for node in nodes]
    moments = [times[0] - timedelta(microseconds=1), times[0], times[2] - timedelta(microseconds=1), times[2]]
    found = [(await at(api, forked, time=moment.isoformat()))["version"] for moment in moments]
    assert found == [0, 2, 2, 3]
    assert (await at(api, forked, time="9999-01-01T00:00:00Z"))["version"] == 3
    assert (await at(api, forked, time="0001-01-01T00:00:00Z"))["version"] == 0


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ({}, "at takes either version or time. Give exactly one of them."),
        ({"version": 1, "time": "2026-01-01T00:00:00Z"}, "at takes either version or time. Give exactly one of them."),
        ({"version": -1}, "version is -1. It must be from 0 to 5, the latest version."),
        ({"version": 6}, "version is 6. It must be from 0 to 5, the latest version."),
    ],
)
async def test_a_place_that_is_none_is_refused(api: Api, place: Json, message: str) -> None:
    _, forked = await lineage(api)
    assert await refusal(at(api, forked, **place)) == ("BAD_USER_INPUT", message)


async def test_pages_end_at_the_version(api: Api) -> None:
    _, forked = await lineage(api)
    await append(api, forked, say("tool", role="ASSISTANT"))
    newest = await page(api, forked, 4, last=3)
    assert [node["version"] for node in newest["nodes"]] == [2, 3, 4]
    assert (newest["totalCount"], newest["pageInfo"]["hasPreviousPage"], newest["pageInfo"]["hasNextPage"]) == (
        4,
        True,
        False,
    )
    oldest = await page(api, forked, 4, first=2)
    rest = await page(api, forked, 4, first=10, after=oldest["pageInfo"]["endCursor"])
    assert [node["version"] for node in rest["nodes"]] == [3, 4]
    assert (rest["pageInfo"]["hasPreviousPage"], rest["pageInfo"]["hasNextPage"]) == (True, False)
    before = await page(api, forked, 4, last=10, before=newest["pageInfo"]["endCursor"])
    assert [node["version"] for node in before["nodes"]] == [1, 2, 3]
    assert before["pageInfo"]["hasNextPage"] is True
    behind = await page(api, forked, 4, first=10, after=newest["pageInfo"]["endCursor"])
    assert (behind["nodes"], behind["pageInfo"]["hasNextPage"], behind["pageInfo"]["hasPreviousPage"]) == (
        [],
        False,
        True,
    )
    assert (await page(api, forked, 5, roles=["USER"]))["totalCount"] == 5
    assert (await page(api, forked, 6, roles=["USER"]))["totalCount"] == 5
    assert (await page(api, forked, 0, first=5))["nodes"] == []


async def test_cursors_belong_to_one_version(api: Api) -> None:
    _, forked = await lineage(api)
    cursor = (await page(api, forked, 4, first=1))["pageInfo"]["endCursor"]
    code, _ = await refusal(page(api, forked, 3, first=1, after=cursor))
    assert code == "BAD_USER_INPUT"


async def test_snapshots_of_many_contexts_are_read_together(api: Api) -> None:
    root, forked = await lineage(api)
    document = "query ($ids: [ID!]!) { nodes(ids: $ids) { ... on Context { at(version: 2) { totalTokens } } } }"
    assert (await api(document, ids=[root, forked]))["nodes"] == [{"at": {"totalTokens": 3}}] * 2
