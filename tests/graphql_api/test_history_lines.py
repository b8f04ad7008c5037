"""A bad line: it is named with what is wrong, nothing of its tree is stored, and the trees around it are."""

import json
from itertools import pairwise
from typing import Any

import pytest

from graphql_api.history.reading import Format
from tests.client import Api
from tests.graphql_api.histories import (
    FORK,
    LIMITS,
    NAME,
    ROOT,
    context,
    exported,
    fork_at,
    imported,
    message,
    message_id,
    text_of,
    tree,
)
from tests.schema.calls import append, create, read, say, stored

Json = dict[str, Any]

NOTHING = " Nothing of its tree is stored."
OTHER = "0198c0de-7d0e-7000-8000-0000000000b0"
EARLY, LATE = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"
DEEP = "[" * 200 + "]" * 200
DEEPER = "[" * 200_000


def tool(**more: Any) -> Json:
    return message(1, role="TOOL", **more)


# Lines after the line of the tree, the number of the bad one, and what is said of it.
BAD: list[tuple[str, list[Json | str], int, str]] = [
    ("truncated", [context(), '{"kind":"message","id":'], 3, "it is no JSON: expecting value at column 24."),
    ("no object", [context(), "[1]"], 3, "it is no JSON object."),
    ("two on a line", [context(), json.dumps(message(1)) * 2], 3, "it is no JSON: extra data at column 128."),
    ("a gap", [context(), message(1), message(3)], 4, "version is 3, but 2 comes next."),
    ("twice a version", [context(), message(1), message(1, number=2)], 4, "version is 1, but 2 comes next."),
    ("version 0", [context(), message(0)], 3, "version is 0, but 1 comes next."),
    ("no version", [context(), message(1) | {"version": None}], 3, "version is missing."),
    ("version of a fork", [context(), message(1), fork_at(1), message(1, number=5)], 5, "version is 1, but 2 comes"),
    ("unknown parent", [context(), fork_at(0, parent=OTHER)], 3, f"its parent {OTHER} is not known."),
    ("its own parent", [context(), fork_at(0, parent=FORK)], 3, f"its parent {FORK} is not known."),
    ("fork above latest", [context(), message(1), fork_at(2)], 4, "forkVersion is 2. It must be from 0 to 1,"),
    ("fork below 0", [context(), fork_at(-1)], 3, "forkVersion is -1. It must be from 0 to 0,"),
    ("fork without version", [context(), context(FORK, parentId=ROOT)], 3, "parentId and forkVersion go together"),
    ("root with version", [context(forkVersion=0)], 2, "parentId and forkVersion go together"),
    ("a fork first", [fork_at(0)], 2, f"the root is not {ROOT}, the id of the tree."),
    ("the root has a parent", [fork_at(0, of=ROOT, parent=FORK)], 2, "the first context of a tree has a parent."),
    ("another root", [context(), context(OTHER)], 3, "a second root."),
    ("a message first", [message(1), context()], 2, "a message stands before any context."),
    ("context twice", [context(), fork_at(0), fork_at(0)], 4, f"the id {FORK} stands twice."),
    ("message twice", [context(), message(1), message(2, number=1)], 4, f"the id {message_id(1)} stands twice."),
    ("wrong role", [context(), message(1, role="user")], 3, "role is not one of USER, ASSISTANT, SYSTEM, TOOL."),
    ("no role", [context(), message(1) | {"role": None}], 3, "role is not one of"),
    (
        "no content",
        [context(), {"kind": "message", "id": ROOT, "version": 1, "role": "USER"}],
        3,
        "content is missing.",
    ),
    ("NUL in content", [context(), message(1, "a\0b")], 3, "message.content holds U+0000 at character 2,"),
    ("half a pair", [context(), message(1, "\ud83d")], 3, "message.content holds U+D83D, half a surrogate pair,"),
    ("NUL in name", [context(name="\0")], 2, "name holds U+0000 at character 1,"),
    ("NUL in metadata", [context(metadata={"a": "\0"})], 2, "metadata.a holds U+0000 at character 1,"),
    ("too deep", [context(), message(1, metadata={"a": json.loads(DEEP)})], 3, "message.metadata is nested too deep."),
    ("much too deep", [context(), '{"metadata":' + DEEPER], 3, "it is nested too deep."),
    ("metadata no object", [context(metadata=[1])], 2, "metadata is not an object."),
    ("NaN", [context(), '{"kind":"message","metadata":{"a":NaN}}'], 3, "it is no JSON: NaN is not a number of JSON."),
    ("many digits", [context(), '{"a":' + "9" * 5000 + "}"], 3, "it is no JSON: a number has too many digits."),
    ("a long name", [context(name="x" * 256)], 2, "name has 256 characters. It may have 255 at most."),
    (
        "large content",
        [context(), message(1, "x" * 100_001)],
        3,
        "message takes 100003 bytes. It may take 1",
    ),
    ("large metadata", [context(metadata={"a": "x" * 100_000})], 2, "metadata takes 100008 bytes."),
    ("tool without call", [context(), tool()], 3, "message.toolCallId is missing."),
    ("call of a user", [context(), message(1, toolCallId="a")], 3, "message.toolCallId is given for a USER message."),
    ("calls of a user", [context(), message(1, toolCalls=[{"id": "", "name": "", "arguments": 1}])], 3, "message.tool"),
    (
        "null for arguments",
        [context(), message(1, role="ASSISTANT", toolCalls=[{"id": "a", "name": "b", "arguments": None}])],
        3,
        "message.toolCalls[0].arguments is null.",
    ),
    ("half a call", [context(), message(1, role="ASSISTANT", toolCalls=[{"id": "a"}])], 3, "toolCalls must be objects"),
    ("negative tokens", [context(), message(1, tokenCount=-1)], 3, "message.tokenCount is -1. It must be 0 or more."),
    ("true for a number", [context(), message(1, tokenCount=True)], 3, "tokenCount is not a whole number."),
    ("too many tokens", [context(), message(1, tokenCount=10**7 + 1)], 3, "message.tokenCount is 10000001."),
    ("text for a number", [context(), message(1, tokenCount="1")], 3, "tokenCount is not a whole number."),
    ("a number for text", [context(name=1)], 2, "name is not a string."),
    ("no id", [context(), message(1) | {"id": None}], 3, "id is missing."),
    ("bad id", [context(), message(1) | {"id": "1"}], 3, "id is not an id."),
    ("bad moment", [context(), message(1, createdAt="yesterday")], 3, "createdAt: DateTime is written as in 2026-"),
    ("back in time", [context(), message(1, createdAt=LATE), message(2, createdAt=EARLY)], 4, "createdAt lies before"),
    (
        "a fork back in time",
        [context(), message(1, createdAt=LATE), fork_at(1), message(2, createdAt=EARLY)],
        5,
        "createdAt lies before that of the message before it.",
    ),
    (
        "updated before its message",
        [context(createdAt=EARLY, updatedAt=EARLY), message(1, createdAt=LATE)],
        2,
        "updatedAt lies before the createdAt of its newest message.",
    ),
    ("unknown key", [context(), message(1, colour="red")], 3, "a message has no 'colour'."),
    ("unknown kind", [context(), {"kind": "note"}], 3, "kind must be tree, context or message."),
    ("no context", [], 1, "no context follows."),
]


@pytest.mark.parametrize(("lines", "number", "flaw"), [each[1:] for each in BAD], ids=[each[0] for each in BAD])
async def test_a_bad_line_is_named_and_nothing_of_its_tree_is_stored(
    database_url: str, lines: list[Json | str], number: int, flaw: str
) -> None:
    outcome = await imported(database_url, text_of([tree(), *lines]))
    (refused,) = outcome.refused
    assert refused.startswith(f"{NAME} line {number}: {flaw}")
    assert refused.endswith(NOTHING)
    assert refused.isprintable()
    assert outcome.imported == []
    assert stored(database_url) == []


async def test_what_is_no_utf_8_is_named_by_its_line(database_url: str) -> None:
    text = text_of([tree(), context(), message(1, "ä")]).encode().replace(b"\\u00e4", b"\xff")
    outcome = await imported(database_url, text)
    assert outcome.refused == [f"{NAME} line 3: it is no text in UTF-8, at byte 109.{NOTHING}"]
    assert stored(database_url) == []


@pytest.mark.parametrize("batch_rows", [1, 2, 3, 5_000])
async def test_the_trees_around_a_bad_one_are_stored(
    database_url: str, monkeypatch: pytest.MonkeyPatch, batch_rows: int
) -> None:
    monkeypatch.setattr("db.history_copy.BATCH_ROWS", batch_rows)
    good = [tree(), context(), message(1)]
    bad = [tree(root=OTHER), context(OTHER), message(1, number=11), message(2, number=12), message(9), message(10)]
    third = "0198c0de-7d0e-7000-8000-0000000000c0"
    last = [tree(root=third), context(third), message(1, number=20)]
    outcome = await imported(database_url, text_of([*good, *bad, *last]))
    assert [str(found.root_id) for found in outcome.imported] == [ROOT, third]
    assert outcome.refused == [
        f"{NAME} line 8: version is 9, but 3 comes next. Versions have no gaps and stand in order.{NOTHING}"
    ]
    assert {row["id"] for (row,) in stored(database_url)} == {ROOT, third, message_id(1), message_id(20)}


@pytest.mark.parametrize(
    ("more", "flaw"),
    [
        ({"contextCount": 1, "messageCount": 2}, "messageCount is 2, but 1 follow. Lines were lost."),
        ({"contextCount": 2, "messageCount": 1}, "contextCount is 2, but 1 follow. Lines were lost."),
        ({"format": 2}, "format is not 1, the only one that this Forkpoint reads."),
        ({"id": None}, "id is missing."),
    ],
)
async def test_a_tree_is_refused_by_its_first_line(database_url: str, more: Json, flaw: str) -> None:
    outcome = await imported(database_url, text_of([tree() | more, context(), message(1)]))
    assert outcome.refused == [f"{NAME} line 1: {flaw}{NOTHING}"]
    assert stored(database_url) == []


async def test_a_file_that_was_cut_off_at_the_end_of_a_line_is_noticed(api: Api, database_url: str) -> None:
    made = await create(api, say("one"), say("two"))
    text = await exported(database_url, made["id"])
    rows = stored(database_url)
    outcome = await imported(database_url, "\n".join(text.split("\n")[:3]), remap=True)
    assert outcome.refused == [f"{NAME} line 1: messageCount is 2, but 1 follow. Lines were lost.{NOTHING}"]
    assert stored(database_url) == rows


@pytest.mark.parametrize(
    ("text", "flaw"),
    [
        ("", "history.jsonl: it is empty, and holds no history."),
        (" \n\t", "history.jsonl: it is empty, and holds no history."),
        ("hello", "history.jsonl line 1: a JSON object must come here."),
        ("\n\n7", "history.jsonl line 3: a JSON object must come here."),
        ('{"a": 1', "history.jsonl line 1: it is no JSON: expecting ',' delimiter."),
        ("\ufeff" + text_of([context()]), "history.jsonl line 1: it is no history of a known format."),
        ("[", "history.jsonl line 1: the file ends inside its array."),
        ("[]", "history.jsonl: it is empty, and holds no history."),
    ],
)
async def test_a_file_that_holds_no_history_is_refused(database_url: str, text: str, flaw: str) -> None:
    (refused,) = (await imported(database_url, text)).refused
    assert refused.startswith(flaw)
    assert stored(database_url) == []


async def test_a_format_that_was_asked_for_is_not_guessed(database_url: str) -> None:
    outcome = await imported(database_url, '[{"role": "user", "content": "a"}]', Format.FORKPOINT)
    (refused,) = outcome.refused
    assert refused.startswith(f"{NAME} line 1: it is no line of the kind tree, which a history begins with.")
    outcome = await imported(database_url, '[{"role": "user", "content": "a"}]', Format.CHATGPT)
    (refused,) = outcome.refused
    assert refused.startswith(f"{NAME}: it is not of the format chatgpt.")
    assert stored(database_url) == []


async def test_an_id_that_is_there_already_is_refused_and_the_rest_goes_on(database_url: str) -> None:
    await imported(database_url, text_of([tree(), context(), message(1)]))
    rows = stored(database_url)
    beside = "Use --remap to import it beside the original, under new ids."
    for lines, number, flaw in (
        ([tree(), context(), message(1, number=9)], 2, f"the tree {ROOT} is there already."),
        ([tree(root=OTHER), context(OTHER), fork_at(0, ROOT, OTHER)], 3, f"the context {ROOT} is there already."),
        ([tree(root=OTHER), context(OTHER), message(1)], 3, f"the message {message_id(1)} is there already."),
    ):
        outcome = await imported(database_url, text_of(lines))
        assert outcome.refused == [f"{NAME} line {number}: {flaw} {beside}{NOTHING}"]
        assert stored(database_url) == rows
    last = [tree(root=OTHER), context(OTHER)]
    outcome = await imported(database_url, text_of([tree(), context(), *last]))
    assert len(outcome.refused) == len(outcome.imported) == 1


async def test_a_tree_is_as_deep_as_the_api_allows(database_url: str) -> None:
    def chain(depth: int) -> str:
        ids = [message_id(1000 + number) for number in range(depth + 1)]
        forks = [fork_at(0, own, parent) for parent, own in pairwise(ids)]
        return text_of([tree(root=ids[0]), context(ids[0]), *forks])

    limit = LIMITS.fork_depth_max
    (refused,) = (await imported(database_url, chain(limit + 1))).refused
    assert refused.startswith(f"{NAME} line {limit + 3}: it would be {limit + 1} forks deep. {limit} is the most;")
    assert stored(database_url) == []
    assert (await imported(database_url, chain(limit))).refused == []


async def test_tokens_are_as_many_as_an_int_of_graphql_holds(api: Api, database_url: str) -> None:
    most = [message(version, tokenCount=10**7) for version in range(1, 215)]
    lines = [tree(), context(), *most]
    fits = message(215, tokenCount=2**31 - 1 - 214 * 10**7)
    (refused,) = (
        await imported(database_url, text_of([*lines, fits | {"tokenCount": fits["tokenCount"] + 1}]))
    ).refused
    assert refused.startswith(f"{NAME} line 217: the tokens of its context would pass 2147483647,")
    assert stored(database_url) == []
    # Deleted messages do not count.
    hidden = message(216, tokenCount=10**7, deletedAt=LATE)
    assert (await imported(database_url, text_of([*lines, fits, hidden]))).refused == []
    assert (await read(api, ROOT))["totalTokens"] == 2**31 - 1


async def test_a_history_written_by_hand_needs_no_more_than_what_it_says(api: Api, database_url: str) -> None:
    lines: list[Json | str] = [
        f'{{"kind": "tree", "format": 1, "id": "{ROOT}"}}',
        context(),
        "",
        {"kind": "message", "id": message_id(1), "version": 1, "role": "USER", "content": "Grüße"},
        fork_at(1),
    ]
    outcome = await imported(database_url, "\ufeff" + text_of(lines).replace("\n", "\r\n"))
    assert outcome.refused == []
    root, its_fork = await read(api, ROOT), await read(api, FORK)
    assert (root["messageCount"], root["totalTokens"], its_fork["latestVersion"]) == (1, 3, 1)
    assert root["createdAt"] == root["updatedAt"]
    added = await append(api, ROOT, say())
    assert added["messages"][0]["createdAt"] >= root["updatedAt"]


@pytest.mark.parametrize(
    ("lines", "place"),
    [
        ([tree(), context(), message(1, createdAt="9999-12-31T23:59:59.999999Z")], "line 3: createdAt"),
        ([tree(), context(createdAt="2999-01-01T00:00:00Z")], "line 2: createdAt"),
        ([tree(), context(updatedAt="2999-01-01T00:00:00Z")], "line 2: updatedAt"),
    ],
)
async def test_a_moment_in_the_future_would_stop_the_clock_and_is_refused(
    database_url: str, lines: list[Json], place: str
) -> None:
    outcome = await imported(database_url, text_of(lines))
    (refused,) = outcome.refused
    assert f"{place} lies in the future." in refused
    assert stored(database_url) == []
