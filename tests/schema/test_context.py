"""Contexts: what they show, forking, updating, deleting and restoring them, and what is refused."""

import json
from typing import Any

import pytest

from graphql_api.app import create_app
from graphql_api.settings import Settings
from tests.client import Api
from tests.conftest import api_over
from tests.schema.calls import (
    UNKNOWN,
    Json,
    append,
    contents,
    create,
    delete,
    fork,
    post,
    read,
    refusal,
    restore,
    say,
    stored,
    update,
)

LISTS = "{ contexts(first: 1000) { nodes { id } totalCount } }"


async def listed(api: Api) -> set[str]:
    contexts = (await api(LISTS))["contexts"]
    found = {context["id"] for context in contexts["nodes"]}
    assert contexts["totalCount"] == len(found)
    return found


async def forks(api: Api, context_id: str) -> list[str]:
    document = "query ($id: ID!) { context(id: $id) { forks { nodes { id } totalCount } } }"
    found = (await api(document, id=context_id))["context"]["forks"]
    assert found["totalCount"] == len(found["nodes"])
    return [context["id"] for context in found["nodes"]]


async def test_a_new_context_shows_what_was_given_and_is_empty(api: Api) -> None:
    context = await create(api, name="Notes", metadata={"a": [1, {"b": None}]})
    assert context == {
        "id": context["id"],
        "name": "Notes",
        "metadata": {"a": [1, {"b": None}]},
        "createdAt": context["createdAt"],
        "updatedAt": context["createdAt"],
        "deletedAt": None,
        "messageCount": 0,
        "totalTokens": 0,
        "latestVersion": 0,
        "parent": None,
        "forkVersion": None,
        "depth": 0,
        "ancestors": [],
    }
    assert await read(api, context["id"]) == context


async def test_a_fork_shares_the_messages_up_to_its_version_and_goes_its_own_way(api: Api, database_url: str) -> None:
    root = await create(api, *(say(f"r{n}", tokenCount=n) for n in (1, 2, 3)), name="root", metadata={"a": 1})
    before = stored(database_url)
    forked = await fork(api, root["id"], 2, name="fork")
    assert len(stored(database_url)) == len(before) + 1  # one row, whatever it inherits
    assert forked == {
        "id": forked["id"],
        "name": "fork",
        "metadata": {},
        "createdAt": forked["createdAt"],
        "updatedAt": forked["updatedAt"],
        "deletedAt": None,
        "messageCount": 2,
        "totalTokens": 3,
        "latestVersion": 2,
        "parent": {"id": root["id"]},
        "forkVersion": 2,
        "depth": 1,
        "ancestors": [{"id": root["id"]}],
    }
    appended = await append(api, forked["id"], say("f3"))
    assert appended["messages"][0]["version"] == 3
    await append(api, root["id"], say("r4"))
    assert await contents(api, forked["id"]) == ["r1", "r2", "f3"]
    assert await contents(api, root["id"]) == ["r1", "r2", "r3", "r4"]


async def test_a_fork_may_be_made_at_any_version_of_the_lineage(api: Api) -> None:
    """At 0, at the latest by default, and at or below the parent's own fork version."""
    root = await create(api, say("r1"), say("r2"), say("r3"))
    middle = await fork(api, root["id"], 2)
    await append(api, middle["id"], say("m3"))
    expected = {None: ["r1", "r2", "m3"], 3: ["r1", "r2", "m3"], 2: ["r1", "r2"], 1: ["r1"], 0: []}
    made = {}
    for version, inherited in expected.items():
        forked = await fork(api, middle["id"], version)
        made[version] = forked["id"]
        assert (forked["forkVersion"], forked["latestVersion"]) == (len(inherited), len(inherited))
        assert (forked["depth"], forked["parent"]) == (2, {"id": middle["id"]})
        assert forked["ancestors"] == [{"id": middle["id"]}, {"id": root["id"]}]
        assert await contents(api, forked["id"]) == inherited
    assert await forks(api, middle["id"]) == list(made.values())
    assert (await append(api, made[0], say("own")))["messages"][0]["version"] == 1
    assert await contents(api, made[0]) == ["own"]


async def test_an_empty_context_has_forks_too(api: Api) -> None:
    forked = await fork(api, (await create(api))["id"])
    assert (forked["forkVersion"], forked["latestVersion"], forked["depth"]) == (0, 0, 1)


async def test_a_fork_outside_the_lineage_is_refused(api: Api, database_url: str) -> None:
    root = await create(api, say(), say())
    before = stored(database_url)
    for version in (3, -1, 2**31 - 1, -(2**31)):
        expected = f"input.version is {version}. It must be from 0 to 2, the latest version."
        assert await refusal(fork(api, root["id"], version)) == ("BAD_USER_INPUT", expected)
    assert await refusal(fork(api, UNKNOWN)) == ("NOT_FOUND", f"There is no context {UNKNOWN}, or it is deleted.")
    assert stored(database_url) == before


async def test_a_setting_bounds_the_depth_of_forks(settings: Settings, database_url: str) -> None:
    async with api_over(create_app(settings.model_copy(update={"fork_depth_max": 2}))) as api:
        root = await create(api, say())
        child = await fork(api, root["id"])
        grandchild = await fork(api, child["id"])
        before = stored(database_url)
        expected = (
            "LIMIT_EXCEEDED",
            "The fork would be 3 forks deep. 2 is the most (FORKPOINT_FORK_DEPTH_MAX); fork an ancestor.",
        )
        assert await refusal(fork(api, grandchild["id"], 0)) == expected
        assert stored(database_url) == before
        assert (await fork(api, child["id"]))["depth"] == 2


async def test_an_update_changes_what_is_given_and_nothing_else(api: Api) -> None:
    context = await create(api, say(), name="old", metadata={"a": 1, "b": 2})
    steps: list[tuple[Json, Json]] = [
        ({"name": "new"}, {"name": "new"}),
        ({"metadata": {"c": 3}}, {"metadata": {"c": 3}}),  # in place of the whole
        ({"name": "", "metadata": {}}, {"name": "", "metadata": {}}),
        ({"name": "last", "metadata": None}, {"name": "last"}),
    ]
    for given, change in steps:
        changed = await update(api, context["id"], **given)
        assert changed["updatedAt"] > context["updatedAt"]
        context = context | change | {"updatedAt": changed["updatedAt"]}
        assert changed == context
    for nothing in ({}, {"name": None}, {"name": None, "metadata": None}):
        assert await update(api, context["id"], **nothing) == context
    assert await read(api, context["id"]) == context


async def test_names_have_255_characters_at_most(api: Api, database_url: str) -> None:
    longest = "😀" * 255
    root = await create(api, name=longest)
    assert (root["name"], (await fork(api, root["id"], name=longest))["name"]) == (longest, longest)
    await update(api, root["id"], name="a" * 255)
    before = stored(database_url)
    expected = ("LIMIT_EXCEEDED", "input.name has 256 characters. It may have 255 at most.")
    assert await refusal(create(api, say(), name="a" * 256)) == expected
    assert await refusal(fork(api, root["id"], name="a" * 256)) == expected
    assert await refusal(update(api, root["id"], name="a" * 256, metadata={"a": 1})) == expected
    assert stored(database_url) == before


async def test_names_and_metadata_that_cannot_be_stored_are_refused(api: Api, database_url: str) -> None:
    root = await create(api)
    before = stored(database_url)
    nul = "holds U+0000 at character 1, which cannot be stored. Remove it."
    half = "holds U+DC00, half a surrogate pair, at character 1, which cannot be stored. "
    half += "Send the whole character, or remove it."
    cases: list[tuple[Json, str]] = [
        ({"name": "\0"}, f"input.name {nul}"),
        ({"name": "\udc00"}, f"input.name {half}"),
        ({"metadata": {"a": ["\0"]}}, f"input.metadata.a[0] {nul}"),
        ({"metadata": {"a": {"\udc00": 1}}}, f"The key '\\udc00' of input.metadata.a {half}"),
        ({"metadata": [{}]}, 'input.metadata is an array. Send a JSON object, such as {"key": "value"}.'),
        ({"metadata": "{}"}, 'input.metadata is a string. Send a JSON object, such as {"key": "value"}.'),
    ]
    fields: dict[str, Json] = {
        "createContext": {"messages": [say()]},
        "forkContext": {"contextId": root["id"]},
        "updateContext": {"contextId": root["id"]},
    }
    for field, given in fields.items():
        kind = f"{field[0].upper()}{field[1:]}Input"
        document = f"mutation ($input: {kind}!) {{ {field}(input: $input) {{ context {{ id }} }} }}"
        for bad, text in cases:
            sent = post(api, document, json.dumps({"input": given | bad}))
            assert await refusal(sent) == ("BAD_USER_INPUT", text), field
    assert stored(database_url) == before


async def test_metadata_has_a_size(settings: Settings, database_url: str) -> None:
    async with api_over(create_app(settings.model_copy(update={"append_bytes_max": 20}))) as api:
        root = await create(api, metadata={"é": "123456789é"})  # as stored: {"é":"123456789é"}
        before = stored(database_url)
        expected = (
            "LIMIT_EXCEEDED",
            "input.metadata takes 21 bytes. It may take 20 at most (FORKPOINT_APPEND_BYTES_MAX).",
        )
        large = {"é": "123456789éa"}
        assert await refusal(create(api, metadata=large)) == expected
        assert await refusal(fork(api, root["id"], metadata=large)) == expected
        assert await refusal(update(api, root["id"], metadata=large)) == expected
        assert stored(database_url) == before


async def test_a_deleted_context_is_hidden_wherever_contexts_are_read(api: Api) -> None:
    root = await create(api, say("r1"))
    middle = await fork(api, root["id"])
    leaf = await fork(api, middle["id"])
    deleted = await delete(api, middle["id"])
    assert deleted["deletedAt"] == deleted["updatedAt"]
    assert deleted == middle | {"deletedAt": deleted["deletedAt"], "updatedAt": deleted["updatedAt"]}
    document = "query ($id: ID!) { context(id: $id) { id } node(id: $id) { id } nodes(ids: [$id]) { id } }"
    assert await api(document, id=middle["id"]) == {"context": None, "node": None, "nodes": [None]}
    assert await listed(api) == {root["id"], leaf["id"]}
    assert await forks(api, root["id"]) == []
    # The fork keeps its place and its messages; only the way to the parent is closed.
    assert await read(api, leaf["id"]) == leaf | {"parent": None, "ancestors": [{"id": root["id"]}]}
    assert await contents(api, leaf["id"]) == ["r1"]


async def test_mutations_of_a_deleted_context_find_nothing_until_it_is_restored(api: Api, database_url: str) -> None:
    root = await create(api, say("r1"), name="root")
    forked = await fork(api, root["id"])
    before = await read(api, root["id"])
    await delete(api, root["id"])
    rows = stored(database_url)
    expected = ("NOT_FOUND", f"There is no context {root['id']}, or it is deleted.")
    for attempt in (
        append(api, root["id"], say()),
        fork(api, root["id"]),
        fork(api, root["id"], 99),
        update(api, root["id"], name="x"),
        update(api, root["id"]),
        delete(api, root["id"]),
    ):
        assert await refusal(attempt) == expected
    assert stored(database_url) == rows
    restored = await restore(api, root["id"])
    assert restored["updatedAt"] > before["updatedAt"]
    assert restored == before | {"updatedAt": restored["updatedAt"]}
    assert await restore(api, root["id"]) == restored
    assert (await read(api, forked["id"]))["parent"] == {"id": root["id"]}
    assert await listed(api) == {root["id"], forked["id"]}


@pytest.mark.parametrize("change", [delete, restore, update, append, fork])
async def test_what_is_no_context_is_refused(api: Api, change: Any) -> None:
    more = (say(),) if change is append else ()
    assert await refusal(change(api, UNKNOWN, *more)) == (
        "NOT_FOUND",
        f"There is no context {UNKNOWN}, or it is deleted.",
    )
    for malformed in ("", "x", f"{UNKNOWN} ", f"{{{UNKNOWN}}}", UNKNOWN.replace("-", ""), f"urn:uuid:{UNKNOWN}"):
        expected = "input.contextId is not an id. Ids look like 0198c0de-7d0e-7000-8000-000000000000."
        assert await refusal(change(api, malformed, *more)) == ("BAD_USER_INPUT", expected)


async def test_ids_are_read_in_either_case(api: Api) -> None:
    root = await create(api)
    assert (await update(api, root["id"].upper(), name="x"))["id"] == root["id"]
    assert (await read(api, root["id"].upper()))["name"] == "x"


async def test_a_message_id_is_no_context(api: Api) -> None:
    root = await create(api, say())
    document = "query ($id: ID!) { context(id: $id) { messages { nodes { id } } } }"
    message_id = (await api(document, id=root["id"]))["context"]["messages"]["nodes"][0]["id"]
    assert await read(api, message_id) is None
    assert (await refusal(append(api, message_id, say())))[0] == "NOT_FOUND"


async def test_updated_at_moves_with_what_a_context_shows(api: Api) -> None:
    """Its own messages, name and deletion; not with its forks, and not with what a fork's parent goes on to do."""
    root = await create(api, say())
    forked = await fork(api, root["id"])
    assert (await read(api, root["id"]))["updatedAt"] == root["updatedAt"]
    appended = (await append(api, root["id"], say()))["context"]
    assert appended["updatedAt"] > root["updatedAt"]
    assert (await read(api, forked["id"]))["updatedAt"] == forked["updatedAt"]
    assert root["createdAt"] == appended["createdAt"] <= forked["createdAt"] <= forked["updatedAt"]
