"""Conversations of other services become contexts: who said what, which call a result answers, and nothing is lost."""

import json
from typing import Any

import pytest

from graphql_api.history.reading import Format
from tests.client import Api
from tests.graphql_api.histories import exported, imported
from tests.schema.calls import read, stored

Json = dict[str, Any]

MESSAGES = """query ($id: ID!) { context(id: $id) { messages(first: 100) { nodes {
  role content toolCalls { id name arguments } toolCallId toolName model metadata createdAt tokenCount
} } } }"""
FORKS = "query ($id: ID!) { context(id: $id) { forks { nodes { id forkVersion name } } } }"


async def store(url: str, value: Any, chosen: Format = Format.AUTO) -> list[str]:
    """Import a value; gives the roots."""
    text = value if isinstance(value, str) else json.dumps(value)
    outcome = await imported(url, text, chosen, name="chat.json")
    assert outcome.refused == []
    return [str(tree.root_id) for tree in outcome.imported]


async def messages(api: Api, context_id: str) -> list[Json]:
    """Read the messages without what is null or empty, and without moments and tokens."""
    nodes = (await api(MESSAGES, id=context_id))["context"]["messages"]["nodes"]
    return [
        {
            key: value
            for key, value in node.items()
            if value not in (None, [], {}) and key not in {"createdAt", "tokenCount"}
        }
        for node in nodes
    ]


async def refused(url: str, value: Any) -> str:
    outcome = await imported(url, json.dumps(value), name="chat.json")
    assert stored(url) == []
    (line,) = outcome.refused
    return line


def call(call_id: str, name: str, arguments: str) -> Json:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


AGENT = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "name": "ada", "content": "Weather in Paris and Oslo?"},
    {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "tool_calls": [
            call("call_a", "weather", '{"city": "Paris", "days": 1.50}'),
            call("call_b", "weather", "{city: Oslo"),
        ],
    },
    {"role": "tool", "tool_call_id": "call_b", "content": "-3"},
    {"role": "tool", "tool_call_id": "call_a", "content": [{"type": "text", "text": "12"}]},
    {"role": "assistant", "content": "Paris 12, Oslo -3.", "annotations": [{"url": "https://example.org"}]},
]

AGENT_READ = [
    {"role": "SYSTEM", "content": "Be brief.", "metadata": {"openai": {"role": "developer"}}},
    {"role": "USER", "content": "Weather in Paris and Oslo?", "metadata": {"openai": {"name": "ada"}}},
    {
        "role": "ASSISTANT",
        "content": "",
        "toolCalls": [
            {"id": "call_a", "name": "weather", "arguments": {"city": "Paris", "days": 1.5}},
            {"id": "call_b", "name": "weather", "arguments": "{city: Oslo"},
        ],
    },
    {"role": "TOOL", "content": "-3", "toolCallId": "call_b", "toolName": "weather"},
    {"role": "TOOL", "content": "12", "toolCallId": "call_a", "toolName": "weather"},
    {
        "role": "ASSISTANT",
        "content": "Paris 12, Oslo -3.",
        "metadata": {"openai": {"annotations": [{"url": "https://example.org"}]}},
    },
]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(AGENT),
        json.dumps({"messages": AGENT}),
        json.dumps({"messages": AGENT}, indent=2),
        json.dumps([{"messages": AGENT}]),
        "\n \n" + json.dumps({"messages": AGENT}) + "\n",
    ],
)
async def test_openai_messages_are_read_however_they_are_wrapped(api: Api, database_url: str, text: str) -> None:
    (root,) = await store(database_url, text)
    assert await messages(api, root) == AGENT_READ


async def test_a_result_lies_with_the_call_that_it_answers(api: Api, database_url: str) -> None:
    (root,) = await store(database_url, AGENT)
    rows = [row for (row,) in stored(database_url) if "content" in row]
    assert {row["version"]: row["call_version"] for row in rows if row["role"] == "tool"} == {4: 3, 5: 3}
    # As everybody else's, its tokens are counted, and its export comes back.
    assert (await read(api, root))["totalTokens"] > 20
    text = await exported(database_url, root)
    assert text.count('"kind":"message"') == 6


async def test_a_fine_tuning_file_holds_a_conversation_a_line(api: Api, database_url: str) -> None:
    lines = [
        {"messages": [{"role": "user", "content": str(number)}, {"role": "assistant", "content": "ok", "weight": 0}]}
        for number in range(3)
    ]
    lines[1]["parallel_tool_calls"] = False  # type: ignore[assignment] # a line may hold more
    roots = await store(database_url, "\n".join(map(json.dumps, lines)))
    for number, root in enumerate(roots):
        assert await messages(api, root) == [
            {"role": "USER", "content": str(number)},
            {"role": "ASSISTANT", "content": "ok", "metadata": {"openai": {"weight": 0}}},
        ]
    assert (await read(api, roots[1]))["metadata"] == {"openai": {"parallel_tool_calls": False}}


@pytest.mark.parametrize("arguments", ["null", None])
async def test_a_call_without_arguments_has_an_empty_object(api: Api, database_url: str, arguments: str | None) -> None:
    calls = [{"id": "c", "type": "function", "function": {"name": "now", "arguments": arguments}}]
    (root,) = await store(database_url, [{"role": "assistant", "content": None, "tool_calls": calls}])
    (message,) = await messages(api, root)
    assert message["toolCalls"] == [{"id": "c", "name": "now", "arguments": {}}]


async def test_old_function_calls_are_answered_by_name(api: Api, database_url: str) -> None:
    (root,) = await store(
        database_url,
        [
            {"role": "assistant", "content": None, "function_call": {"name": "now", "arguments": "{}"}},
            {"role": "function", "name": "now", "content": "noon"},
            {"role": "assistant", "content": None, "function_call": {"name": "now", "arguments": '{"zone": "UTC"}'}},
            {"role": "function", "name": "now", "content": "ten"},
            {"role": "function", "name": "never", "content": "?"},
        ],
    )
    first, second, third, fourth, fifth = await messages(api, root)
    assert first["toolCalls"] == [{"id": "function_call 1", "name": "now", "arguments": {}}]
    assert (second["toolCallId"], second["toolName"]) == ("function_call 1", "now")
    assert third["toolCalls"] == [{"id": "function_call 3", "name": "now", "arguments": {"zone": "UTC"}}]
    assert (fourth["toolCallId"], fifth["toolCallId"]) == ("function_call 3", "function never")


async def test_parts_of_a_content_are_joined_and_kept(api: Api, database_url: str) -> None:
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        {"type": "text", "text": "Be exact."},
    ]
    refusal = {"role": "assistant", "content": None, "refusal": "I cannot say."}
    custom = {"id": "c", "type": "custom", "custom": {"name": "shell", "input": "ls"}}
    (root,) = await store(
        database_url, [{"role": "user", "content": parts}, refusal, {"role": "assistant", "tool_calls": [custom]}]
    )
    assert await messages(api, root) == [
        {"role": "USER", "content": "What is this?\nBe exact.", "metadata": {"openai": {"content": parts}}},
        {"role": "ASSISTANT", "content": "I cannot say.", "metadata": {"openai": {"refusal": "I cannot say."}}},
        {
            "role": "ASSISTANT",
            "content": "",
            "toolCalls": [{"id": "c", "name": "shell", "arguments": "ls"}],
            "metadata": {"openai": {"custom": ["c"]}},
        },
    ]


async def test_arguments_that_could_not_be_stored_as_json_stay_text(api: Api, database_url: str) -> None:
    hard = ['{"a": "\\u0000"}', '{"a": "\\ud83d"}', "[" * 5000 + "]" * 5000, '{"a": NaN}', "9" * 5000, ""]
    given = [{"role": "assistant", "tool_calls": [call(str(number), "f", text) for number, text in enumerate(hard)]}]
    (root,) = await store(database_url, given)
    ((message,)) = await messages(api, root)
    assert [each["arguments"] for each in message["toolCalls"]] == hard


ANTHROPIC: Json = {
    "model": "claude-sonnet-4-5",
    "max_tokens": 1024,
    "system": "You plan trips.",
    "messages": [
        {"role": "user", "content": "Two trains?"},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Ask both.", "signature": "c2ln"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "toolu_1", "name": "trains", "input": {"to": "Porto"}},
                {"type": "tool_use", "id": "toolu_2", "name": "trains", "input": {"to": "Faro"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_2", "content": "none", "is_error": True},
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [{"type": "text", "text": "10:00"}]},
                {"type": "text", "text": "Hurry."},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "text", "text": "One more."},
                {"type": "tool_use", "id": "toolu_3", "name": "trains", "input": {}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_3"}]},
        {"role": "assistant", "content": "Take the 10:00."},
    ],
}


async def test_anthropic_blocks_become_messages_of_their_own(api: Api, database_url: str) -> None:
    (root,) = await store(database_url, ANTHROPIC)
    assert (await read(api, root))["metadata"] == {"anthropic": {"model": "claude-sonnet-4-5", "max_tokens": 1024}}
    assert await messages(api, root) == [
        {"role": "SYSTEM", "content": "You plan trips."},
        {"role": "USER", "content": "Two trains?"},
        {
            "role": "ASSISTANT",
            "content": "I look.",
            "toolCalls": [
                {"id": "toolu_1", "name": "trains", "arguments": {"to": "Porto"}},
                {"id": "toolu_2", "name": "trains", "arguments": {"to": "Faro"}},
            ],
            "metadata": {"anthropic": {"content": ANTHROPIC["messages"][1]["content"]}},
        },
        {
            "role": "TOOL",
            "content": "none",
            "toolCallId": "toolu_2",
            "toolName": "trains",
            "metadata": {"anthropic": {"is_error": True}},
        },
        {"role": "TOOL", "content": "10:00", "toolCallId": "toolu_1", "toolName": "trains"},
        {"role": "USER", "content": "Hurry."},
        {
            "role": "ASSISTANT",
            "content": "One more.",
            "toolCalls": [{"id": "toolu_3", "name": "trains", "arguments": {}}],
        },
        {"role": "TOOL", "content": "", "toolCallId": "toolu_3", "toolName": "trains"},
        {"role": "ASSISTANT", "content": "Take the 10:00."},
    ]


async def test_images_and_documents_of_anthropic_are_kept(api: Api, database_url: str) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}}
    system = [{"type": "text", "text": "Look.", "cache_control": {"type": "ephemeral"}}]
    content = [{"type": "tool_result", "tool_use_id": "t", "content": [image]}, image]
    (root,) = await store(database_url, {"system": system, "messages": [{"role": "user", "content": content}]})
    assert await messages(api, root) == [
        {"role": "SYSTEM", "content": "Look.", "metadata": {"anthropic": {"content": system}}},
        {"role": "TOOL", "content": "", "toolCallId": "t", "metadata": {"anthropic": {"content": [image]}}},
        {"role": "USER", "content": "", "metadata": {"anthropic": {"content": [image]}}},
    ]


def node(node_id: str, parent: str | None, *children: str, said: Json | None = None) -> tuple[str, Json]:
    message = None if said is None else {"id": node_id} | said
    return node_id, {"id": node_id, "message": message, "parent": parent, "children": list(children)}


def spoken(role: str, text: str, at: float | None = None, **more: Any) -> Json:
    content = {"content_type": "text", "parts": [text]}
    author: Json = {"role": role, "name": None, "metadata": {}}
    return {"author": author, "create_time": at, "content": content, "recipient": "all", "metadata": {}} | more


HIDDEN = {"is_visually_hidden_from_conversation": True}
CODE = {"content_type": "code", "language": "unknown", "text": '{"q": "tides"}'}
PYTHON = {"role": "tool", "name": "browser", "metadata": {}}

CHAT: Json = {
    "title": "Tides",
    "create_time": 1_700_000_000.0,
    "update_time": 1_700_000_900.5,
    "conversation_id": "6556-tides",
    "current_node": "answer2",
    "mapping": dict(
        [
            node("client-created-root", None, "system"),
            node("system", "client-created-root", "profile", said=spoken("system", "", metadata=HIDDEN)),
            node(
                "profile",
                "system",
                "ask",
                "ask2",
                said=spoken(
                    "user",
                    "",
                    content={
                        "content_type": "user_editable_context",
                        "user_profile": "A sailor.",
                        "user_instructions": "",
                    },
                    metadata=HIDDEN,
                ),
            ),
            node("ask", "profile", "think", said=spoken("user", "When is high tide?", 1_700_000_100.25)),
            node(
                "think",
                "ask",
                "search",
                said=spoken("assistant", "", content={"content_type": "thoughts", "thoughts": [{"summary": "Look"}]}),
            ),
            node(
                "search",
                "think",
                "found",
                said=spoken("assistant", "", 1_700_000_110, content=CODE, recipient="browser"),
            ),
            node(
                "found",
                "search",
                "answer",
                "answer2",
                said=spoken("tool", "At nine.", 1_700_000_105, author=PYTHON),
            ),
            node("answer", "found", "thanks", said=spoken("assistant", "Nine.", 1_700_000_120)),
            node("thanks", "answer", said=spoken("user", "Thanks.", 1_700_000_130)),
            node(
                "answer2",
                "found",
                said=spoken("assistant", "At nine o'clock.", 1_700_000_140, metadata={"model_slug": "gpt-4o"}),
            ),
            node("ask2", "profile", "wrong", said=spoken("user", "And low tide?", 1_700_000_200)),
            node("wrong", "ask2", said=spoken("tool", "Unasked.", 1_700_000_210, author=PYTHON)),
        ]
    ),
}


async def test_a_chatgpt_tree_becomes_a_context_with_forks(api: Api, database_url: str) -> None:
    (root,) = await store(database_url, [CHAT])
    context = await read(api, root)
    assert (context["name"], context["createdAt"]) == ("Tides", "2023-11-14T22:13:20.000000Z")
    assert context["metadata"]["chatgpt"]["conversation_id"] == "6556-tides"
    main = await messages(api, root)
    assert [(message["role"], message["content"]) for message in main] == [
        ("SYSTEM", "A sailor."),
        ("USER", "When is high tide?"),
        ("ASSISTANT", ""),
        ("TOOL", "At nine."),
        ("ASSISTANT", "At nine o'clock."),
    ]
    assert main[2]["toolCalls"] == [{"id": "search", "name": "browser", "arguments": {"q": "tides"}}]
    assert (main[3]["toolCallId"], main[3]["toolName"]) == ("search", "browser")
    assert main[4]["model"] == "gpt-4o"
    # What was passed over is with the message that follows, what has no field with its own.
    assert main[0]["metadata"]["chatgpt"]["before"][0]["id"] == "system"
    assert main[2]["metadata"]["chatgpt"]["before"][0]["content"]["thoughts"] == [{"summary": "Look"}]
    assert main[2]["metadata"]["chatgpt"]["content"] == CODE
    forks = (await api(FORKS, id=root))["context"]["forks"]["nodes"]
    branches = {fork["forkVersion"]: await messages(api, fork["id"]) for fork in forks}
    assert {version: [each["content"] for each in branch] for version, branch in branches.items()} == {
        4: ["A sailor.", "When is high tide?", "", "At nine.", "Nine.", "Thanks."],
        1: ["A sailor.", "And low tide?", "Unasked."],
    }
    # What a tool said that nobody had called is no result of a call.
    assert branches[1][2]["role"] == "ASSISTANT"
    assert branches[1][2]["metadata"]["chatgpt"]["author"]["role"] == "tool"


async def test_chatgpt_moments_are_kept_and_never_step_back(api: Api, database_url: str) -> None:
    (root,) = await store(database_url, [CHAT])
    nodes = (await api(MESSAGES, id=root))["context"]["messages"]["nodes"]
    assert [node["createdAt"][14:] for node in nodes] == [
        "13:20.000000Z",
        "15:00.250000Z",
        "15:10.000000Z",
        "15:10.000000Z",
        "15:40.000000Z",
    ]


async def test_every_branch_of_a_bushy_tree_is_read_somewhere(api: Api, database_url: str) -> None:
    """Each leaf's way from the top is the lineage of some context, or the beginning of one."""
    mapping = dict(
        node(
            str(number),
            str((number - 1) // 3) if number else None,
            *[str(child) for child in range(3 * number + 1, 3 * number + 4) if child < 60],
            said=spoken("user" if number % 2 else "assistant", f"m{number}"),
        )
        for number in range(60)
    )
    await store(database_url, [{"title": None, "mapping": mapping, "current_node": "31"}])
    document = "{ contexts(first: 99) { nodes { parent { id } messages(first: 99) { nodes { content } } } } }"
    ways = []
    for context in (await api(document))["contexts"]["nodes"]:
        ways.append([each["content"] for each in context["messages"]["nodes"]])
        assert (ways[-1] == ["m0", "m3", "m10", "m31"]) == (context["parent"] is None)
    leaves = [number for number in range(60) if 3 * number + 1 >= 60]
    for leaf in leaves:
        way: list[str] = []
        number = leaf
        while True:
            way.insert(0, f"m{number}")
            if not number:
                break
            number = (number - 1) // 3
        assert way in ways
    assert len(ways) == len(leaves)
    assert sum("content" in row for (row,) in stored(database_url)) == 60


async def test_an_edit_of_the_first_message_is_a_fork_at_version_0(api: Api, database_url: str) -> None:
    mapping = dict(
        [
            node("root", None, "old", "new"),
            node("old", "root", said=spoken("user", "Helo")),
            node("new", "root", said=spoken("user", "Hello")),
        ]
    )
    (root,) = await store(database_url, {"mapping": mapping, "current_node": "old"})
    (edited,) = (await api(FORKS, id=root))["context"]["forks"]["nodes"]
    assert edited["forkVersion"] == 0
    assert [each["content"] for each in await messages(api, root)] == ["Helo"]
    assert [each["content"] for each in await messages(api, edited["id"])] == ["Hello"]


async def test_a_conversation_of_nothing_is_an_empty_context(api: Api, database_url: str) -> None:
    (root,) = await store(database_url, {"title": "x" * 300, "mapping": dict([node("root", None)])})
    context = await read(api, root)
    assert (context["messageCount"], context["name"]) == (0, "x" * 255)
    assert context["metadata"] == {"chatgpt": {"title": "x" * 300}}


async def test_several_conversations_and_one_bad_among_them(api: Api, database_url: str) -> None:
    bad = CHAT | {"mapping": CHAT["mapping"] | dict([node("loop", "loop", "loop", said=spoken("user", "?"))])}
    outcome = await imported(database_url, json.dumps([CHAT, bad, CHAT]), name="conversations.json")
    (flaw,) = outcome.refused
    assert flaw.startswith("conversations.json conversation 2: some nodes hang on none, so mapping is no tree.")
    assert [tree.name for tree in outcome.imported] == ["Tides", "Tides"]
    assert (await api("{ contexts { totalCount } }"))["contexts"]["totalCount"] == 6


@pytest.mark.parametrize(
    ("value", "flaw"),
    [
        ([{"role": "user", "content": "\0"}], "chat.json, message 1: message.content holds U+0000"),
        ([{"role": "user", "content": 7}], "chat.json, message 1: content is neither a string nor an array of parts."),
        ([{"role": "judge", "content": ""}], "chat.json, message 1: role is not one of system, developer,"),
        ([{"role": "tool", "content": ""}], "chat.json, message 1: tool_call_id is missing."),
        ([{"role": "user", "content": "", "tool_calls": [call("a", "f", "")]}], "chat.json, message 1: message.toolC"),
        ([{"role": "assistant", "tool_calls": [{"id": 1}]}], "chat.json, message 1: tool_calls must be objects"),
        ([{"role": "user", "content": "x" * 100_001}], "chat.json, message 1: message takes 100003 bytes."),
        ([{"messages": []}, {"messages": ["a"]}][1:], "chat.json conversation 1, message 1: it is no JSON object."),
        ({"messages": {}}, "chat.json line 1: it is no history of a known format."),
        ({"chat_messages": []}, "chat.json line 1: it is no history of a known format."),
        ({"system": 7, "messages": []}, "chat.json line 1, system: content is neither"),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]},
            "chat.json line 1, message 1: tool_use_id is missing",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "id": "a"}]}]},
            "chat.json line 1, message 1: a block of the type tool_use must have",
        ),
        ({"mapping": {"a": 1}}, "chat.json line 1: mapping must hold nodes with message, parent and children."),
        (
            {"mapping": dict([node("a", None, "b", "b", said=spoken("user", "a")), node("b", "a")])},
            "chat.json line 1: node 'b' is reached twice, so mapping is no tree.",
        ),
        (
            {"mapping": dict([node("a", None, said=spoken("user", "a", 1e30))])},
            "chat.json line 1: create_time is 1e+30, which is no moment",
        ),
        (
            {"mapping": dict([node("a", None, said=spoken("critic", "a"))])},
            "chat.json line 1, node 'a': a message has content, and a role of",
        ),
    ],
)
async def test_a_bad_place_is_named(database_url: str, value: Any, flaw: str) -> None:
    assert (await refused(database_url, value)).startswith(flaw)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[\n{"messages": []},\n{"messages": [}\n]', 3),
        ('{"messages": []}\n{"messages": []}\n{"mess', 3),
        ('[{"messages": []}\n{"messages": []}]', 2),
        ('[{"messages": []}]\n\n7', 3),
        ('[{"messages": []},\n]', 2),
    ],
)
async def test_broken_json_is_named_by_line_and_what_came_before_stays(
    api: Api, database_url: str, text: str, line: int
) -> None:
    outcome = await imported(database_url, text, name="chat.json")
    (flaw,) = outcome.refused
    assert flaw.startswith(f"chat.json line {line}: ")
    assert flaw.endswith("Nothing is read from there on.")
    assert (await api("{ contexts { totalCount } }"))["contexts"]["totalCount"] == len(outcome.imported) > 0


async def test_values_longer_than_a_chunk_are_read(
    api: Api, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graphql_api.history.item.CHUNK_BYTES", 3)
    roots = await store(database_url, json.dumps([{"messages": AGENT}] * 3, ensure_ascii=False, indent=1) + "\n ")
    assert [await messages(api, root) for root in roots] == [AGENT_READ] * 3


async def test_a_format_may_be_said(api: Api, database_url: str) -> None:
    given = {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "x": 1}]}]}
    for chosen in (Format.OPENAI, Format.ANTHROPIC):
        (root,) = await store(database_url, given, chosen)
        assert [list(message["metadata"]) for message in await messages(api, root)] == [[chosen.value]]


@pytest.mark.parametrize(
    "conversation",
    [
        {"messages": [{"role": "assistant", "content": "x", "tool_calls": 5}]},
        {"messages": [{"role": "user", "content": [{"type": ["a"]}]}]},
        {"mapping": {"a": {"id": "a", "parent": [1], "children": [], "message": None}}, "current_node": "a"},
        {"mapping": {"a": {"id": "a", "parent": None, "children": [{}], "message": None}}, "current_node": "a"},
    ],
)
async def test_a_conversation_of_wrong_types_is_refused_and_the_next_one_is_stored(
    database_url: str, conversation: Json
) -> None:
    good = {"messages": [{"role": "user", "content": "hello"}]}
    outcome = await imported(database_url, json.dumps([conversation, good]))
    assert len(outcome.imported) == 1
    (refused,) = outcome.refused
    assert "conversation 1" in refused
    assert refused.endswith("Nothing of its tree is stored.")
