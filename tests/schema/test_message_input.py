"""What may be appended and what may not: every refusal has its code, names the place, and leaves nothing behind."""

import json
from typing import Any

import pytest

from tests.client import Api
from tests.schema.calls import UNKNOWN, Json, append, contents, create, post, read, refusal, say, stored

APPEND = "mutation ($input: AppendMessagesInput!) { appendMessages(input: $input) { context { id } } }"
CREATE = "mutation ($input: CreateContextInput!) { createContext(input: $input) { context { id } } }"
NUL = "holds U+0000 at character 2, which cannot be stored. Remove it."
HALF = (
    "holds U+D800, half a surrogate pair, at character 2, which cannot be stored. "
    "Send the whole character, or remove it."
)
PLACE = "input.messages[3]"
BYTES_MAX = 8 * 1024 * 1024


def call(**more: Any) -> Json:
    return {"id": "c1", "name": "search", "arguments": {}} | more


def calls(**more: Any) -> Json:
    return say(role="ASSISTANT", toolCalls=[call(), call(**more)])


def answer(**more: Any) -> Json:
    return say(role="TOOL", toolCallId="c1") | more


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


def as_json(value: Any) -> str:
    """Write JSON in ASCII, so that half a surrogate pair goes out as its escape; "1e400" becomes a number."""
    return json.dumps(value).replace('"1e400"', "1e400")


async def refused(api: Api, database_url: str, cases: dict[str, tuple[Json, str, str]]) -> None:
    """Send each message as the fourth of a batch, to append and to create with, and look for traces."""
    context_id = (await create(api, say("first")))["id"]
    before = stored(database_url)
    answers = {}
    for name, (message, _, _) in cases.items():
        batch = [say(), say(), say(), message, say()]
        appended = await refusal(post(api, APPEND, as_json({"input": {"contextId": context_id, "messages": batch}})))
        created = await refusal(post(api, CREATE, as_json({"input": {"messages": batch}})))
        assert created == appended
        answers[name] = appended
    assert answers == {name: (code, text) for name, (_, code, text) in cases.items()}
    assert stored(database_url) == before


async def test_a_batch_holds_at_least_one_message(api: Api) -> None:
    context_id = (await create(api))["id"]
    expected = ("BAD_USER_INPUT", "input.messages is empty. Give at least one message.")
    assert await refusal(append(api, context_id)) == expected
    assert (await create(api))["latestVersion"] == 0  # an empty list of first messages is none


async def test_an_unknown_role_is_refused_by_variable_and_by_literal(api: Api, database_url: str) -> None:
    context_id = (await create(api))["id"]
    before = stored(database_url)
    code, text = await refusal(append(api, context_id, say(), say(), say(), say(role="BOSS")))
    assert code == "BAD_USER_INPUT"
    assert text.startswith("Variable '$input' has invalid value at .messages[3].role: Value 'BOSS' does not exist")
    literal = (
        f'mutation {{ appendMessages(input: {{contextId: "{context_id}", messages: [{{role: BOSS, content: ""}}]}})'
    )
    code, text = await refusal(api(literal + "{ context { id } } }"))
    assert code == "GRAPHQL_VALIDATION_FAILED"
    assert "'BOSS'" in text
    assert stored(database_url) == before


async def test_tool_fields_belong_to_their_roles(api: Api, database_url: str) -> None:
    missing = f"{PLACE}.toolCallId is missing. A TOOL message names the call that it answers."
    cases = {
        "no call id": (say(role="TOOL"), "BAD_USER_INPUT", missing),
        "null call id": (answer(toolCallId=None), "BAD_USER_INPUT", missing),
        "empty call id": (answer(toolCallId=""), "BAD_USER_INPUT", missing),
    }
    for role in ("USER", "SYSTEM", "TOOL"):
        cases[f"calls of {role}"] = (
            calls() | {"role": role, "toolCallId": "c1" if role == "TOOL" else None},
            "BAD_USER_INPUT",
            f"{PLACE}.toolCalls is given for a {role} message. Only ASSISTANT messages call tools.",
        )
    for role in ("USER", "SYSTEM", "ASSISTANT"):
        for field in ("toolCallId", "toolName"):
            cases[f"{field} of {role}"] = (
                say(role=role) | {field: ""},
                "BAD_USER_INPUT",
                f"{PLACE}.{field} is given for a {role} message. Only TOOL messages have one.",
            )
    await refused(api, database_url, cases)


async def test_token_counts_have_bounds(api: Api, database_url: str) -> None:
    most = "A message may have 10000000 tokens at most."
    beyond = "Variable '$input' has invalid value at .messages[3].tokenCount:"
    await refused(
        api,
        database_url,
        {
            "-1": (say(tokenCount=-1), "BAD_USER_INPUT", f"{PLACE}.tokenCount is -1. It must be 0 or more."),
            "more": (say(tokenCount=10_000_001), "LIMIT_EXCEEDED", f"{PLACE}.tokenCount is 10000001. {most}"),
            "Int": (say(tokenCount=2**31 - 1), "LIMIT_EXCEEDED", f"{PLACE}.tokenCount is 2147483647. {most}"),
            "beyond Int": (
                say(tokenCount=2**31),
                "BAD_USER_INPUT",
                f"{beyond} Int cannot represent non 32-bit signed integer value: 2147483648",
            ),
        },
    )
    context = await create(api, say(tokenCount=0), say(tokenCount=10_000_000))
    assert context["totalTokens"] == 10_000_000


@pytest.mark.parametrize(("text", "flaw"), [("a\0", NUL), ("a\ud800", HALF)])
async def test_what_postgresql_cannot_store_is_refused_in_every_string(
    api: Api, database_url: str, text: str, flaw: str
) -> None:
    shown = "a\\u0000" if text == "a\0" else "a\\ud800"
    second = f"{PLACE}.toolCalls[1]"
    cases = {
        f"{PLACE}.content": say(text),
        f"{PLACE}.model": say(model=text),
        f"{PLACE}.toolCallId": answer(toolCallId=text),
        f"{PLACE}.toolName": answer(toolName=text),
        f"{second}.id": calls(id=text),
        f"{second}.name": calls(name=text),
        f"{second}.arguments": calls(arguments=text),
        f"{second}.arguments.a[1].b": calls(arguments={"a": [0, {"b": text}]}),
        f"The key '{shown}' of {second}.arguments.a": calls(arguments={"a": {text: 0}}),
        f"{PLACE}.metadata.a[1].b": say(metadata={"a": [0, {"b": text}]}),
        f"The key '{shown}' of {PLACE}.metadata": say(metadata={text: 0}),
    }
    expected = {place: (message, "BAD_USER_INPUT", f"{place} {flaw}") for place, message in cases.items()}
    await refused(api, database_url, expected)


async def test_json_that_cannot_be_kept_is_refused(api: Api, database_url: str) -> None:
    finite = "is not a finite number. Send a finite number, a string or null."
    digits = "is a number of more than 1,000 digits. Send a smaller one, or send it as a string."
    deep = "is nested too deep. Nest at most 100 arrays and objects."
    arguments = f"{PLACE}.toolCalls[1].arguments"
    kinds = {"an array": [1], "a string": "{}", "a number": 1.5, "a boolean": True}
    cases = {
        kind: (
            say(metadata=value),
            "BAD_USER_INPUT",
            f'{PLACE}.metadata is {kind}. Send a JSON object, such as {{"key": "value"}}.',
        )
        for kind, value in kinds.items()
    } | {
        "infinite": (say(metadata={"a": ["1e400"]}), "BAD_USER_INPUT", f"{PLACE}.metadata.a[0] {finite}"),
        "infinite argument": (calls(arguments="1e400"), "BAD_USER_INPUT", f"{arguments} {finite}"),
        "huge": (say(metadata={"a": 10**1000}), "LIMIT_EXCEEDED", f"{PLACE}.metadata.a {digits}"),
        "huge argument": (calls(arguments=-(10**1000)), "LIMIT_EXCEEDED", f"{arguments} {digits}"),
        "deep": (say(metadata={"a": nested(100)}), "LIMIT_EXCEEDED", f"{PLACE}.metadata {deep}"),
        "deep argument": (calls(arguments=nested(101)), "LIMIT_EXCEEDED", f"{arguments} {deep}"),
    }
    await refused(api, database_url, cases)


async def test_literals_are_held_to_the_same(api: Api, database_url: str) -> None:
    context_id = (await create(api))["id"]
    before = stored(database_url)
    answers = {}
    literals = ('content: "\\u0000"', 'content: "", metadata: {a: -1e400}', 'content: "", metadata: [1]')
    for literal in literals:
        messages = f"[{{role: USER, {literal}}}]"
        document = f'mutation {{ appendMessages(input: {{contextId: "{context_id}", messages: {messages}}})'
        answers[literal] = await refusal(api(document + "{ context { id } } }"))
    finite = "is not a finite number. Send a finite number, a string or null."
    texts = (
        "content holds U+0000 at character 1, which cannot be stored. Remove it.",
        f"metadata.a {finite}",
        'metadata is an array. Send a JSON object, such as {"key": "value"}.',
    )
    expected = [("BAD_USER_INPUT", f"input.messages[0].{text}") for text in texts]
    assert answers == dict(zip(literals, expected, strict=True))
    assert stored(database_url) == before


async def test_a_variable_that_is_not_given_is_left_out_of_a_literal(api: Api) -> None:
    document = "mutation ($x: Int) { createContext(input: {metadata: {a: 1, b: $x}}) { context { metadata } } }"
    assert (await api(document))["createContext"]["context"]["metadata"] == {"a": 1}
    assert (await api(document, x=2))["createContext"]["context"]["metadata"] == {"a": 1, "b": 2}


async def test_a_call_takes_a_thousand_messages(api: Api, database_url: str) -> None:
    context = await create(api, *[say()] * 1000)
    assert context["latestVersion"] == 1000
    before = stored(database_url)
    expected = (
        "LIMIT_EXCEEDED",
        "input.messages holds 1001 messages. One call takes 1000 at most (FORKPOINT_APPEND_MESSAGES_MAX).",
    )
    assert await refusal(append(api, context["id"], *[say()] * 1001)) == expected
    assert await refusal(create(api, *[say()] * 1001)) == expected
    assert stored(database_url) == before


async def test_a_call_takes_8_mib_of_utf8(api: Api) -> None:
    """The metadata of a message counts, too: `{}` when it has none."""
    context_id = (await create(api))["id"]
    rest = "That is the most in one call (FORKPOINT_APPEND_BYTES_MAX); send several."
    expected = (
        "LIMIT_EXCEEDED",
        f"input.messages takes more than 8388608 bytes, reached at input.messages[1]. {rest}",
    )
    half = BYTES_MAX // 2 - 2
    # U+0001 takes one byte in UTF-8 and six in JSON; é takes two of the one and six of the other, as an escape.
    for unit, size in (("a", 1), ("\\u0001", 1), ("\\u00e9", 2)):
        for excess in (0, 1):
            texts = [unit * (half // size), unit * (half // size) + "a" * excess]
            messages = ", ".join(f'{{"role": "USER", "content": "{text}", "tokenCount": 1}}' for text in texts)
            sent = post(api, APPEND, f'{{"input": {{"contextId": "{context_id}", "messages": [{messages}]}}}}')
            if excess:
                assert await refusal(sent) == expected
            else:
                await sent
    assert (await read(api, context_id))["latestVersion"] == 6


async def test_tool_calls_and_metadata_count_as_the_json_that_is_stored(api: Api) -> None:
    context_id = (await create(api))["id"]
    text = "a" * (BYTES_MAX // 2)
    for message in (
        calls(arguments={"text": text}, name=text),
        say(metadata={"a": text, "b": text}),
        say(model=text * 2),
    ):
        code, place = await refusal(append(api, context_id, message))
        assert (code, "reached at input.messages[0]" in place) == ("LIMIT_EXCEEDED", True)
    assert (await read(api, context_id))["latestVersion"] == 0


async def test_totals_stay_an_int_and_an_append_that_would_pass_it_leaves_nothing(api: Api, database_url: str) -> None:
    largest = say(tokenCount=10_000_000)
    context = await create(api, *[largest] * 214, say(tokenCount=7_483_646))
    assert context["totalTokens"] == 2**31 - 2
    before = stored(database_url)
    expected = ("LIMIT_EXCEEDED", "A total would pass 2147483647, the largest Int of GraphQL. Use another context.")
    assert await refusal(append(api, context["id"], say(), say())) == expected
    assert await refusal(create(api, *[largest] * 215)) == expected
    assert stored(database_url) == before
    assert (await append(api, context["id"], say()))["context"]["totalTokens"] == 2**31 - 1


async def test_an_unknown_context_takes_nothing(api: Api, database_url: str) -> None:
    expected = ("NOT_FOUND", f"There is no context {UNKNOWN}, or it is deleted.")
    assert await refusal(append(api, UNKNOWN, say())) == expected
    code, text = await refusal(append(api, "\0", say()))
    assert (code, text.startswith("input.contextId is not an id.")) == ("BAD_USER_INPUT", True)
    assert stored(database_url) == []


async def test_what_is_unusual_but_sensible_passes(api: Api) -> None:
    """Empty texts, results of unknown calls, results that come twice, calls without results, no calls at all."""
    context_id = (await create(api))["id"]
    await append(api, context_id, say(""), answer(toolCallId="never called"), answer(), answer(), calls(id="", name=""))
    await append(api, context_id, say(toolCalls=[]), say(role="ASSISTANT", toolCalls=[]), answer(toolName="", model=""))
    assert await contents(api, context_id) == [""] * 8


async def test_null_is_the_same_as_absent(api: Api) -> None:
    optional = ("toolCalls", "toolCallId", "toolName", "tokenCount", "model", "metadata")
    absent = {"role": "USER", "content": "Hello"}
    payload = await append(api, (await create(api))["id"], absent, absent | dict.fromkeys(optional))
    first, second = payload["messages"]
    given: Json = {
        "toolCalls": [],
        "toolCallId": None,
        "toolName": None,
        "tokenCount": 1,
        "model": None,
        "metadata": {},
    }
    for message in (first, second):
        assert {name: message[name] for name in optional} == given
    context = await create(api, name=None, metadata=None)
    assert (context["name"], context["metadata"]) == (None, {})


async def test_tool_calls_come_back_as_they_were_sent(api: Api) -> None:
    """Keys stay in the order of the provider, whole numbers exact, and every character itself."""
    values = [
        {"zebra": 1, "apple": {"b": [], "a": {}}, "": None},
        {"big": [2**63, -(2**64), 10**999], "float": [0.1, 1e300, 5e-324, -0.0]},
        'line\u2028paragraph\u2029tab\tquote" \\ / \x01 😀 e\u0301 \ufeff\uffff',
        nested(40),
        [],
        "",
        0,
        False,
        1.0,
    ]
    sent = [call(id=f"\u2028{index}", name="😀", arguments=value) for index, value in enumerate(values)]
    payload = await append(api, (await create(api))["id"], say(role="ASSISTANT", toolCalls=sent))
    # As text, because {"a": 1, "b": 2} and {"b": 2, "a": 1}, 1 and 1.0 and True are equal values.
    assert json.dumps(payload["messages"][0]["toolCalls"]) == json.dumps(sent)


async def test_metadata_comes_back_as_equal_json(api: Api) -> None:
    """Numbers keep their value; a large float comes back written out as a whole number."""
    whole = [0, -1, 2**63, 10**999]
    floats = [0.1, 1e300, 5e-324, 1.7976931348623157e308, 3.0]
    rest = {"texts": ["", "\x01\u2028😀", "\\u0000"], "nested": {"": [None, True, {"a": nested(30)}]}}
    metadata = rest | {"whole": whole, "floats": floats}
    context = await create(api, say(metadata=metadata), metadata=metadata)
    payload = await append(api, context["id"], say(metadata=metadata))
    for found in (context["metadata"], payload["messages"][0]["metadata"]):
        assert found | {"floats": [float(number) for number in found["floats"]]} == metadata
