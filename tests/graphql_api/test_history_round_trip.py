"""Export and import: what is imported is what was exported, to the last column of every row."""

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from graphql_api import demo
from graphql_api.app import create_app
from graphql_api.settings import Settings
from tests import strategies
from tests.client import Api, ApiError
from tests.conftest import api_over
from tests.graphql_api.histories import empty, exported, imported
from tests.schema import calls
from tests.schema.calls import append, create, fork, say, stored

Json = dict[str, Any]

READ = f"""query ($id: ID!) {{ context(id: $id) {{
  {calls.CONTEXT}
  messages(first: 1000) {{ totalCount nodes {{ {calls.MESSAGE} }} }}
  forks(first: 1000) {{ nodes {{ id }} }}
}} }}"""

call_id = st.sampled_from(["call_1", "call_2", "é\\\t\n"])
arguments = st.recursive(
    strategies.json_scalar | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**30), 10**30),
    lambda value: st.lists(value, max_size=2) | st.dictionaries(strategies.text, value, max_size=2),
    max_leaves=4,
)


@st.composite
def messages(draw: st.DrawFn) -> Json:
    role = draw(st.sampled_from(strategies.ROLES))
    made = say(draw(strategies.text), role=role, tokenCount=draw(st.none() | st.integers(0, 50_000)))
    made["metadata"] = draw(st.none() | strategies.metadata | st.just({"n": 1e300, "m": 1.50, "k": 1e-7}))
    if role == "TOOL":
        made |= {"toolCallId": draw(call_id), "toolName": draw(st.none() | strategies.text)}
    if role == "ASSISTANT":
        made["model"] = draw(st.none() | strategies.text)
        made["toolCalls"] = [
            {"id": each, "name": draw(strategies.text), "arguments": draw(arguments)}
            for each in draw(st.lists(call_id, max_size=3))
        ]
    return made


@dataclass(frozen=True)
class Step:
    """Something done to one of the contexts that exist then; `place` is taken modulo what it has."""

    what: str
    context: int
    place: int
    messages: list[Json]


steps = st.builds(
    Step,
    what=st.sampled_from(["append", "append", "fork", "fork", "delete message", "delete message", "restore", "delete"]),
    context=strategies.context,
    place=strategies.place,
    messages=st.lists(messages(), min_size=1, max_size=4),
)


async def built(api: Api, history: list[Step]) -> list[str]:
    """Make a tree by the API; gives the ids of its contexts."""
    ids = [(await create(api, say("first"), name="root", metadata={"a": [1, {"b": None}]}))["id"]]
    for step in history:
        chosen = ids[step.context % len(ids)]
        try:
            latest = (await calls.read(api, chosen) or {"latestVersion": 0})["latestVersion"]
            version = step.place % (latest + 1)
            match step.what:
                case "append":
                    await append(api, chosen, *step.messages)
                case "fork":
                    ids.append((await fork(api, chosen, version, name=step.messages[0]["content"]))["id"])
                case "delete message":
                    await calls.delete_message(api, chosen, version)
                case "restore":
                    await calls.restore(api, chosen)
                case "delete":
                    await calls.delete(api, chosen)
        except ApiError as error:
            # A step may come to a deleted context, or to version 0.
            if error.code not in {"NOT_FOUND", "BAD_USER_INPUT"}:
                raise
    return ids


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(history=st.lists(steps, max_size=14))
async def test_a_tree_comes_back_as_it_was_to_the_last_column(api: Api, database_url: str, history: list[Step]) -> None:
    empty(database_url)
    ids = await built(api, history)
    said = [await api(READ, id=each) for each in ids]
    text, rows = await exported(database_url, *reversed(ids)), stored(database_url)
    # Any context of a tree stands for all of it.
    assert await exported(database_url, ids[0]) == text
    empty(database_url)
    outcome = await imported(database_url, text)
    assert outcome.refused == []
    assert stored(database_url) == rows
    assert await exported(database_url, *ids) == text
    assert [await api(READ, id=each) for each in ids] == said


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(history=st.lists(steps, max_size=14))
async def test_a_tree_is_copied_under_new_ids_beside_the_original(
    api: Api, database_url: str, history: list[Step]
) -> None:
    empty(database_url)
    (root, *_) = await built(api, history)
    text, rows = await exported(database_url, root), stored(database_url)
    outcome = await imported(database_url, text, remap=True)
    assert outcome.refused == []
    (tree,) = outcome.imported
    assert numbered(await exported(database_url, str(tree.root_id))) == numbered(text)
    old, new = ids_of(text), ids_of(await exported(database_url, str(tree.root_id)))
    assert len(old) == len(new)
    assert not old & new
    after = stored(database_url)
    assert len(after) == 2 * len(rows)
    assert [row for row in after if row in rows] == rows


def ids_of(text: str) -> set[str]:
    return {line["id"] for line in read(text) if line["kind"] != "tree"}


def read(text: str) -> list[Json]:
    """Read the lines; only a line feed ends one, whatever Python takes for a line break besides."""
    return [json.loads(line) for line in text.removesuffix("\n").split("\n")]


def numbered(text: str) -> list[Json]:
    """Give the lines with ids as numbers, in the order in which they come; contexts of one moment are ordered by id."""
    numbers: dict[str, int] = {}
    lines = read(text)
    for line in lines:
        for key in ("id", "parentId"):
            if key in line:
                line[key] = numbers.setdefault(line[key], len(numbers))
    return lines


async def test_the_demo_comes_back_as_it_was(database_url: str) -> None:
    await demo.fill(database_url, 7, scale=0.04)
    rows = stored(database_url)
    roots = [row["id"] for (row,) in rows if set(row) == {"tenant_id", "id"}]
    text = await exported(database_url, *roots)
    empty(database_url)
    outcome = await imported(database_url, text, limits=demo.LIMITS)
    assert outcome.refused == []
    assert stored(database_url) == rows
    assert await exported(database_url, *roots) == text


async def test_an_imported_tree_goes_on_as_if_it_had_grown_here(api: Api, database_url: str) -> None:
    """Forks, appends, deletions and results land as in the original, with the same counters and pointers."""
    root = await create(api, *[say(str(number)) for number in range(5)])
    chain = [root["id"]]
    for _ in range(9):
        chain.append((await fork(api, chain[-1]))["id"])
        await append(api, chain[-1], say("more", role="ASSISTANT", toolCalls=[call(len(chain))]))
    await calls.delete_message(api, chain[-1], 3)
    text = await exported(database_url, root["id"])

    async def grow() -> list[Any]:
        await append(api, chain[-1], say(role="TOOL", toolCallId="call 2"))
        made = await fork(api, chain[-1], 8)
        await append(api, made["id"], say(role="TOOL", toolCallId="call 3"))
        await calls.restore_message(api, made["id"], 3)
        return [drop_fresh(row) for row in stored(database_url)]

    grown = await grow()
    empty(database_url)
    assert (await imported(database_url, text)).refused == []
    assert sorted(await grow(), key=str) == sorted(grown, key=str)


def call(number: int) -> Json:
    return {"id": f"call {number}", "name": "tool", "arguments": {"n": number}}


def drop_fresh(row: Any) -> Json:
    """Leave out what differs between two runs: ids made and moments of the second part."""
    (found,) = row
    return {
        key: value
        for key, value in found.items()
        if key in {"version", "call_version", "running_tokens", "total_tokens", "message_count", "latest_version"}
        or key in {"depth", "owner_id", "owner_depth", "jump_id", "jump_fork_version", "content"}
    }


async def test_what_spans_many_batches_and_pages_comes_back(
    api: Api, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, value in (
        ("db.history_copy", "BATCH_ROWS", 3),
        ("db.history_copy", "BATCH_BYTES", 50),
        ("graphql_api.history.exporting", "PAGE_CONTEXTS", 2),
        ("graphql_api.history.exporting", "PAGE_MESSAGES", 3),
        ("graphql_api.history.exporting", "PAGE_BYTES", 40),
        ("graphql_api.history.item", "CHUNK_BYTES", 7),
    ):
        monkeypatch.setattr(f"{module}.{name}", value)
    root = await create(api, *[say("x" * (number % 30)) for number in range(20)])
    for number in range(7):
        made = await fork(api, root["id"], 3 * number)
        await append(api, made["id"], *[say(role="ASSISTANT", toolCalls=[call(1)]) for _ in range(number)], answer())
        await calls.delete_message(api, made["id"], 3 * number + 1)
    text, rows = await exported(database_url, root["id"]), stored(database_url)
    empty(database_url)
    assert (await imported(database_url, text)).refused == []
    assert stored(database_url) == rows
    assert await exported(database_url, root["id"]) == text


def answer() -> Json:
    return say(role="TOOL", toolCallId="call 1")


async def test_settings_of_the_writer_do_not_change_what_is_read(database_url: str, settings: Settings) -> None:
    """A history is the same over another service: tokens are those of the file, whatever counts here."""
    other = settings.model_copy(update={"token_encoding": "cl100k_base", "database_url": SecretStr(database_url)})
    async with api_over(create_app(other)) as api:
        made = await create(api, {"role": "USER", "content": "Grüße aus Århus"})
    text, rows = await exported(database_url, made["id"]), stored(database_url)
    empty(database_url)
    await imported(database_url, text)
    assert stored(database_url) == rows
