"""Idempotency keys: a repetition changes nothing and gives what came of the first call, whatever happened since."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphql_api.app import create_app
from graphql_api.settings import Settings
from schema.idempotency import hash_of
from schema.message import Role
from schema.message_input import MessageInput, ToolCallInput
from tests.client import Api, ApiError
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
    refusal,
    restore,
    say,
    stored,
    update,
)

USED = "input.idempotencyKey was used before, with other input. Send that input again, or choose another key."
MADE = f"context {{ {CONTEXT} }} replayed"


async def make(api: Api, field: str, **given: Any) -> Json:
    """Create or fork under a key; gives the payload."""
    return await mutate(api, field, MADE, **given)


async def conflict(call: Any) -> Json:
    """Await what must meet a conflict over its key; gives the extensions beside the code."""
    with pytest.raises(ApiError) as refused:
        await call
    (error,) = refused.value.errors
    assert (error["extensions"].pop("code"), error["message"]) == ("CONFLICT", USED)
    extensions: Json = error["extensions"]
    return extensions


def age(database_url: str, hours: float) -> None:
    """Let time pass for every key."""
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "update idempotency_keys set created_at = created_at - make_interval(secs => %s)", [hours * 3600]
        )


def keys(database_url: str) -> list[str]:
    with psycopg.connect(database_url) as connection:
        return [key for (key,) in connection.execute("select key from idempotency_keys order by created_at, key")]


async def test_an_append_sent_again_gives_the_same_messages_and_changes_nothing(api: Api, database_url: str) -> None:
    context_id = (await create(api, say("0")))["id"]
    calls = [{"id": "c", "name": "f", "arguments": {"a": [1, None], "b": 1.5}}]
    batch = [say("1", metadata={"k": 1, "j": None}), {"role": "ASSISTANT", "content": "", "toolCalls": calls}]
    first = await append(api, context_id, *batch, idempotencyKey="k")
    assert (first["replayed"], first["forked"]) == (False, False)
    before = stored(database_url)
    assert await append(api, context_id, *batch, idempotencyKey="k") == first | {"replayed": True}
    assert stored(database_url) == before
    later = await append(api, context_id, say("2"))
    assert await append(api, context_id, *batch, idempotencyKey="k") == first | {
        "replayed": True,
        "context": later["context"],
    }
    assert await contents(api, context_id) == ["0", "1", "", "2"]


async def test_what_equals_the_input_may_be_written_differently(api: Api) -> None:
    context_id = (await create(api))["id"]
    message = say("1", metadata={"a": 1, "b": {"c": 2, "d": 3}}, tokenCount=None)
    first = await append(api, context_id, message, idempotencyKey="k")
    again: Json = {"tokenCount": None, "model": None, "metadata": {"b": {"d": 3, "c": 2}, "a": 1}, "toolCalls": None}
    again |= {"content": "1", "role": "USER"}
    replayed = await append(api, context_id.upper(), again, idempotencyKey="k", expectedVersion=None, onConflict=None)
    assert replayed == first | {"replayed": True}


@pytest.mark.parametrize(
    "other",
    [
        [say("2")],
        [say("1"), say("1")],
        [say("1", role="SYSTEM")],
        [say("1", tokenCount=2)],
        [say("1", tokenCount=None)],
        [say("1", metadata={"a": None})],
        [say("1", model="m")],
    ],
)
async def test_other_messages_under_the_same_key_are_a_conflict(api: Api, database_url: str, other: list[Json]) -> None:
    context_id = (await create(api, say("0")))["id"]
    await append(api, context_id, say("1"), idempotencyKey="k")
    before = stored(database_url)
    assert await conflict(append(api, context_id, *other, idempotencyKey="k")) == {"latestVersion": 2}
    assert stored(database_url) == before


async def test_each_context_has_keys_of_its_own(api: Api) -> None:
    root = await create(api, say("0"))
    forked = await fork(api, root["id"])
    for context_id in (root["id"], forked["id"]):
        assert not (await append(api, context_id, say("1"), idempotencyKey="k"))["replayed"]
        assert not (await append(api, context_id, say("1"), idempotencyKey="K"))["replayed"]
        assert await contents(api, context_id) == ["0", "1", "1"]


async def test_the_key_is_looked_up_before_the_expected_version_is_judged(api: Api) -> None:
    context_id = (await create(api))["id"]
    first = await append(api, context_id, say("1"), expectedVersion=0, idempotencyKey="k")
    for more in ({"expectedVersion": 0}, {"expectedVersion": 0, "onConflict": "FORK"}, {"expectedVersion": 99}, {}):
        assert await append(api, context_id, say("1"), idempotencyKey="k", **more) == first | {"replayed": True}
    assert await contents(api, context_id) == ["1"]


async def test_a_fork_on_conflict_is_given_again_and_its_key_belongs_to_the_context_named(api: Api) -> None:
    parent = await create(api, say("0"), say("1"))
    given = {"expectedVersion": 1, "onConflict": "FORK", "idempotencyKey": "k"}
    first = await append(api, parent["id"], say("a"), say("b"), **given)
    fork_id = first["context"]["id"]
    assert first["forked"]
    assert await append(api, parent["id"], say("a"), say("b"), **given) == first | {"replayed": True}
    after = (await append(api, fork_id, say("c")))["context"]
    assert await append(api, parent["id"], say("a"), say("b"), **given) == first | {"replayed": True, "context": after}
    assert not (await append(api, fork_id, say("a"), say("b"), idempotencyKey="k"))["replayed"]
    document = "query ($id: ID!) { context(id: $id) { forks { totalCount } } }"
    assert await api(document, id=parent["id"]) == {"context": {"forks": {"totalCount": 1}}}


async def test_what_was_deleted_since_is_still_given_and_stays_deleted(api: Api, database_url: str) -> None:
    context_id = (await create(api))["id"]
    first = await append(api, context_id, say("1"), say("2"), idempotencyKey="k")
    deleted = (await delete_message(api, context_id, 1))["message"]
    gone = await delete(api, context_id)
    before = stored(database_url)
    replayed = await append(api, context_id, say("1"), say("2"), idempotencyKey="k")
    holder = {"context": {"id": context_id, "deletedAt": gone["deletedAt"]}}
    assert replayed == {
        "replayed": True,
        "forked": False,
        "context": gone | {"messageCount": 1, "totalTokens": 1},
        "messages": [deleted | holder, first["messages"][1] | holder],
    }
    assert await conflict(append(api, context_id, say(), idempotencyKey="k")) == {"latestVersion": 2}
    assert (await refusal(append(api, context_id, say("1"), idempotencyKey="other")))[0] == "NOT_FOUND"
    assert stored(database_url) == before


async def test_a_created_context_is_given_again_as_it_is_now(api: Api, database_url: str) -> None:
    given = {"name": "trip", "metadata": {"a": 1}, "messages": [say("1"), say("2")], "idempotencyKey": "k"}
    first = await make(api, "createContext", **given)
    assert not first["replayed"]
    before = stored(database_url)
    assert await make(api, "createContext", **given) == first | {"replayed": True}
    assert stored(database_url) == before
    context_id = first["context"]["id"]
    renamed = await update(api, context_id, name="other")
    assert await make(api, "createContext", **given) == {"context": renamed, "replayed": True}
    gone = await delete(api, context_id)
    assert await make(api, "createContext", **given) == {"context": gone, "replayed": True}
    for other in ({"name": "Trip"}, {"metadata": None}, {"messages": [say("1")]}, {"messages": None}, {"name": None}):
        assert await conflict(make(api, "createContext", **given | other)) == {}


async def test_a_fork_is_given_again_as_it_is_now(api: Api, database_url: str) -> None:
    parent = await create(api, say("1"), say("2"))
    given = {"contextId": parent["id"], "version": 1, "name": "f", "metadata": {"a": 1}, "idempotencyKey": "k"}
    first = await make(api, "forkContext", **given)
    assert not first["replayed"]
    before = stored(database_url)
    assert await make(api, "forkContext", **given) == first | {"replayed": True}
    assert stored(database_url) == before
    grown = (await append(api, first["context"]["id"], say("other")))["context"]
    await append(api, parent["id"], say("3"))
    assert await make(api, "forkContext", **given) == {"context": grown, "replayed": True}
    others: list[Json] = [{"version": 2}, {"version": None}, {"name": None}, {"metadata": {}}]
    for other in others:
        assert await conflict(make(api, "forkContext", **given | other)) == {"latestVersion": 3}
    assert await conflict(make(api, "forkContext", **given | {"contextId": UNKNOWN})) == {}
    await delete(api, parent["id"])
    replayed = await make(api, "forkContext", **given)
    assert (replayed["context"]["id"], replayed["context"]["parent"]) == (grown["id"], None)


async def test_a_fork_at_the_latest_version_is_made_once_though_the_parent_grows(api: Api) -> None:
    parent = await create(api, say("1"))
    first = await make(api, "forkContext", contextId=parent["id"], idempotencyKey="k")
    await append(api, parent["id"], say("2"))
    again = await make(api, "forkContext", contextId=parent["id"], idempotencyKey="k", version=None)
    assert again == first | {"replayed": True}


async def test_create_and_fork_share_their_keys_but_not_with_appends(api: Api) -> None:
    first = await make(api, "createContext", idempotencyKey="k")
    assert await conflict(make(api, "forkContext", contextId=first["context"]["id"], idempotencyKey="k")) == {
        "latestVersion": 0
    }
    assert not (await append(api, first["context"]["id"], say(), idempotencyKey="k"))["replayed"]


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("", ("BAD_USER_INPUT", "input.idempotencyKey is empty. Give 1 to 255 characters, or none at all.")),
        (
            "\0",
            ("BAD_USER_INPUT", "input.idempotencyKey holds U+0000 at character 1, which cannot be stored. Remove it."),
        ),
        ("k" * 256, ("LIMIT_EXCEEDED", "input.idempotencyKey has 256 characters. It may have 255 at most.")),
    ],
)
async def test_a_key_that_is_none_is_refused(api: Api, database_url: str, key: str, expected: tuple[str, str]) -> None:
    context_id = (await create(api))["id"]
    before = stored(database_url)
    for call in (
        append(api, context_id, say(), idempotencyKey=key),
        make(api, "createContext", idempotencyKey=key),
        make(api, "forkContext", contextId=context_id, idempotencyKey=key),
    ):
        assert await refusal(call) == expected
    assert stored(database_url) == before


@pytest.mark.parametrize("key", [" ", "😀" * 255, "'; drop table messages; --", "%_\\", "a\nb"])
async def test_any_other_text_is_a_key(api: Api, key: str) -> None:
    context_id = (await create(api))["id"]
    for replayed in (False, True):
        assert (await append(api, context_id, say(), idempotencyKey=key))["replayed"] == replayed
        assert (await make(api, "createContext", idempotencyKey=key))["replayed"] == replayed
    assert not (await append(api, context_id, say(), idempotencyKey=f"{key[1:]}x"))["replayed"]


async def test_no_key_and_a_null_key_promise_nothing(api: Api, database_url: str) -> None:
    context_id = (await create(api))["id"]
    for key in ({}, {"idempotencyKey": None}):
        assert not (await append(api, context_id, say("1"), **key))["replayed"]
        assert not (await make(api, "createContext", **key))["replayed"]
    assert await contents(api, context_id) == ["1", "1"]
    assert keys(database_url) == []


async def test_a_call_that_failed_leaves_its_key_free(api: Api, database_url: str) -> None:
    root = await create(api, say("0"), say("0"))
    deleted = (await create(api))["id"]
    await delete(api, deleted)
    before = stored(database_url)
    k: Json = {"idempotencyKey": "k"}
    failures = [
        append(api, root["id"], **k),
        append(api, root["id"], say(tokenCount=-1), **k),
        append(api, root["id"], say(), expectedVersion=1, **k),
        append(api, root["id"], say(), expectedVersion=3, onConflict="FORK", **k),
        append(api, UNKNOWN, say(), **k),
        append(api, deleted, say(), **k),
        append(api, deleted, say(), expectedVersion=0, **k),
        make(api, "createContext", messages=[say(tokenCount=-1)], **k),
        make(api, "createContext", messages=[say(tokenCount=10_000_000)] * 215, **k),
        make(api, "forkContext", contextId=root["id"], version=3, **k),
        make(api, "forkContext", contextId=deleted, **k),
    ]
    assert [(await refusal(failure))[0] for failure in failures] == [
        "BAD_USER_INPUT",
        "BAD_USER_INPUT",
        "CONFLICT",
        "BAD_USER_INPUT",
        "NOT_FOUND",
        "NOT_FOUND",
        "NOT_FOUND",
        "BAD_USER_INPUT",
        "LIMIT_EXCEEDED",
        "BAD_USER_INPUT",
        "NOT_FOUND",
    ]
    assert stored(database_url) == before
    await restore(api, deleted)
    for context_id in (root["id"], deleted):
        assert not (await append(api, context_id, say(), **k))["replayed"]
    assert not (await make(api, "createContext", **k))["replayed"]


async def test_of_many_calls_at_once_one_is_done_and_all_give_the_same(api: Api) -> None:
    parent = await create(api, say("0"), say("1"))
    document = "query ($id: ID!) { context(id: $id) { forks { totalCount } } }"
    k: Json = {"idempotencyKey": "k"}
    appends = [append(api, parent["id"], say("2"), say("3"), **k) for _ in range(16)]
    elsewhere = [
        append(api, parent["id"], say("2"), say("3"), expectedVersion=1, onConflict="FORK", idempotencyKey="f")
        for _ in range(8)
    ]
    creations = [make(api, "createContext", messages=[say("new")], **k) for _ in range(8)]
    forks = [make(api, "forkContext", contextId=parent["id"], idempotencyKey="f") for _ in range(8)]
    answers = await asyncio.gather(*appends, *elsewhere, *creations, *forks)
    for group in (answers[:16], answers[16:24], answers[24:32], answers[32:]):
        assert sorted(answer["replayed"] for answer in group) == [False] + [True] * (len(group) - 1)
        assert len({answer["context"]["id"] for answer in group}) == 1
        assert len({str(answer.get("messages")) for answer in group}) == 1
    assert await contents(api, parent["id"]) == ["0", "1", "2", "3"]
    assert await api(document, id=parent["id"]) == {"context": {"forks": {"totalCount": 2}}}


async def test_of_two_inputs_at_once_under_one_key_one_is_stored(api: Api) -> None:
    context_id = (await create(api))["id"]
    calls = [append(api, context_id, say(str(n % 2)), idempotencyKey="k") for n in range(16)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    (kept,) = await contents(api, context_id)
    for number, answer in enumerate(answers):
        if str(number % 2) == kept:
            assert isinstance(answer, dict)
        else:
            assert isinstance(answer, ApiError)
            assert (answer.code, answer.message) == ("CONFLICT", USED)


@contextmanager
def claimed(database_url: str, scope_id: str, key: str) -> Iterator[psycopg.Connection]:
    """Hold a key in a transaction that is not over, as a service does that has been stopped in the middle."""
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into idempotency_keys (tenant_id, scope_id, key, request_hash, result_id, message_count) "
            "values ('default', %s, %s, sha256(''), %s, 1)",
            [scope_id, key, UNKNOWN],
        )
        yield connection


@pytest.mark.parametrize("committed", [True, False])
async def test_a_call_waits_for_another_one_of_its_key(api: Api, database_url: str, committed: bool) -> None:
    context_id = (await create(api))["id"]
    with claimed(database_url, context_id, "k") as other:
        call = asyncio.create_task(append(api, context_id, say("1"), idempotencyKey="k"))
        await asyncio.sleep(0.2)
        assert not call.done()
        # Who waits for a key holds up nobody else.
        await append(api, context_id, say("0"))
        other.commit() if committed else other.rollback()
    if committed:
        assert await conflict(call) == {"latestVersion": 1}
        assert await contents(api, context_id) == ["0"]
    else:
        assert not (await call)["replayed"]
        assert await contents(api, context_id) == ["0", "1"]


async def test_keys_are_forgotten_when_their_time_is_over_a_few_at_each_call(api: Api, database_url: str) -> None:
    context_id = (await create(api))["id"]
    for number in range(13):
        await append(api, context_id, say(), idempotencyKey=f"old{number:02}")
    age(database_url, 23.9)
    await make(api, "createContext", idempotencyKey="young")
    assert len(keys(database_url)) == 14
    age(database_url, 0.2)
    # Whatever no call has pruned yet still counts, and a repetition prunes nothing.
    assert (await append(api, context_id, say(), idempotencyKey="old00"))["replayed"]
    await append(api, context_id, say())
    assert len(keys(database_url)) == 14
    await append(api, context_id, say(), idempotencyKey="new")
    assert keys(database_url) == ["old10", "old11", "old12", "young", "new"]
    assert not (await append(api, context_id, say("other"), idempotencyKey="old00"))["replayed"]
    assert keys(database_url) == ["young", "new", "old00"]


async def test_pruning_passes_over_keys_that_others_are_at(api: Api, database_url: str) -> None:
    context_id = (await create(api))["id"]
    for key in ("a", "b"):
        await append(api, context_id, say(), idempotencyKey=key)
    age(database_url, 25)
    with psycopg.connect(database_url) as other:
        other.execute("select from idempotency_keys where key = 'a' for update")
        await append(api, context_id, say(), idempotencyKey="c")
    assert keys(database_url) == ["a", "c"]


async def test_a_setting_says_how_long_keys_are_kept(settings: Settings, database_url: str) -> None:
    async with api_over(create_app(settings.model_copy(update={"idempotency_hours": 48}))) as api:
        await make(api, "createContext", idempotencyKey="a")
        age(database_url, 47)
        await make(api, "createContext", idempotencyKey="b")
        assert keys(database_url) == ["a", "b"]
        age(database_url, 2)
        await make(api, "createContext", idempotencyKey="c")
        assert keys(database_url) == ["b", "c"]


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text('ab"\\é', max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
calls_of_tools = st.builds(
    ToolCallInput, id=st.text("ab", max_size=2), name=st.text("ab", max_size=2), arguments=json_values
)
message_inputs = st.builds(
    MessageInput,
    role=st.sampled_from(Role),
    content=st.text('ab"[]{},:', max_size=4),
    tool_calls=st.none() | st.lists(calls_of_tools, max_size=2),
    tool_call_id=st.none() | st.text("ab", max_size=2),
    tool_name=st.none() | st.text("ab", max_size=2),
    token_count=st.none() | st.integers(0, 2),
    model=st.none() | st.text("ab", max_size=2),
    metadata=st.none() | st.dictionaries(st.sampled_from("abc"), json_values, max_size=2),
)
batches = st.lists(message_inputs, max_size=3)


def plain(value: Any) -> Any:
    """Write a value so that Python's equality is that of JSON: 1, 1.0 and true are three values."""
    if isinstance(value, list):
        return [plain(part) for part in value]
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items()}
    return (type(value).__name__, repr(value)) if isinstance(value, bool | int | float) else value


def parts(batch: list[MessageInput]) -> Any:
    return [
        [
            message.role,
            message.content,
            None
            if message.tool_calls is None
            else [[call.id, call.name, plain(call.arguments)] for call in message.tool_calls],
            message.tool_call_id,
            message.tool_name,
            plain(message.token_count),
            message.model,
            plain(message.metadata),
        ]
        for message in batch
    ]


@given(batches, batches)
def test_hashes_are_equal_exactly_where_the_inputs_are(one: list[MessageInput], other: list[MessageInput]) -> None:
    assert (hash_of("appendMessages", one) == hash_of("appendMessages", other)) == (parts(one) == parts(other))
    assert hash_of("createContext", one) != hash_of("appendMessages", one)
