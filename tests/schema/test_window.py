"""Windows through the API: what a budget holds, what stays together, what is said of the rest."""

from typing import Any

import pytest

from graphql_api.app import create_app
from graphql_api.settings import Settings
from tests.client import Api, ApiError
from tests.conftest import api_over
from tests.schema.calls import append, create, delete_message, fork, refusal, say

Json = dict[str, Any]

WINDOW = """query ($id: ID!, $budget: Int!, $step: Int, $keepSystem: Boolean) {
  context(id: $id) { window(budget: $budget, step: $step, keepSystem: $keepSystem) { ...W } }
}
fragment W on Window {
  messages { version } tokenCount budget truncated fromVersion toVersion minimumBudget
}"""
AT = """query ($id: ID!, $version: Int!, $budget: Int!) {
  context(id: $id) { at(version: $version) {
    window(budget: $budget) { messages { content } minimumBudget truncated }
  } }
}"""


async def window(api: Api, context_id: str, budget: int, **arguments: Any) -> Json:
    """Ask for a window; gives it with its messages as versions."""
    found: Json = (await api(WINDOW, id=context_id, budget=budget, **arguments))["context"]["window"]
    return found | {"messages": [message["version"] for message in found["messages"]]}


def calls(*ids: str, tokens: int = 10) -> Json:
    tools = [{"id": call, "name": "search", "arguments": {}} for call in ids]
    return {"role": "ASSISTANT", "content": "", "toolCalls": tools, "tokenCount": tokens}


def result(call: str, tokens: int = 10) -> Json:
    return {"role": "TOOL", "content": "found", "toolCallId": call, "tokenCount": tokens}


def ten(role: str = "USER") -> Json:
    return say(role.lower(), role=role, tokenCount=10)


async def test_a_window_is_the_system_run_and_the_longest_suffix_that_fits(api: Api) -> None:
    made = await create(api, ten("SYSTEM"), *[ten() for _ in range(5)])
    assert await window(api, made["id"], 35) == {
        "messages": [1, 5, 6],
        "tokenCount": 30,
        "budget": 35,
        "truncated": True,
        "fromVersion": 5,
        "toVersion": 6,
        "minimumBudget": 20,
    }
    assert (await window(api, made["id"], 60))["messages"] == [1, 2, 3, 4, 5, 6]
    assert (await window(api, made["id"], 60))["truncated"] is False
    assert (await window(api, made["id"], 35, keepSystem=False))["messages"] == [4, 5, 6]
    assert (await window(api, made["id"], 35, keepSystem=None, step=None))["messages"] == [1, 5, 6]


async def test_a_call_and_its_results_are_never_parted(api: Api) -> None:
    made = await create(api, ten(), calls("a", "b"), result("a"), result("b"), ten("ASSISTANT"))
    found = {budget: (await window(api, made["id"], budget))["messages"] for budget in (10, 20, 30, 39, 40, 50)}
    assert found == {10: [5], 20: [5], 30: [5], 39: [5], 40: [2, 3, 4, 5], 50: [1, 2, 3, 4, 5]}


async def test_a_unit_larger_than_the_budget_leaves_the_system_run_and_says_what_would_do(api: Api) -> None:
    made = await create(api, ten("SYSTEM"), ten(), calls("a"), result("a", 500))
    assert await window(api, made["id"], 100) == {
        "messages": [1],
        "tokenCount": 10,
        "budget": 100,
        "truncated": True,
        "fromVersion": None,
        "toVersion": None,
        "minimumBudget": 520,
    }
    assert (await window(api, made["id"], 520))["messages"] == [1, 3, 4]
    assert (await window(api, made["id"], 9))["messages"] == []


async def test_a_result_in_a_fork_keeps_its_call_in_the_parent(api: Api) -> None:
    root = await create(api, ten(), calls("a"), ten())
    forked = (await fork(api, root["id"]))["id"]
    await append(api, forked, result("a"), ten())
    assert [(await window(api, forked, budget))["messages"] for budget in (10, 39, 40)] == [[5], [5], [2, 3, 4, 5]]
    # The parent has no result, so there nothing holds the call and what follows together.
    assert (await window(api, root["id"], 10))["messages"] == [3]


async def test_a_result_far_from_its_call_makes_one_unit_of_all_between(api: Api) -> None:
    made = await create(api, ten(), calls("early"), *[ten() for _ in range(700)], result("early"))
    assert await window(api, made["id"], 200) == {
        "messages": [],
        "tokenCount": 0,
        "budget": 200,
        "truncated": True,
        "fromVersion": None,
        "toVersion": None,
        "minimumBudget": 7_020,
    }
    await delete_message(api, made["id"], 400)
    assert (await window(api, made["id"], 200))["minimumBudget"] == 7_010
    # Without its call the result belongs to the message before it.
    await delete_message(api, made["id"], 2)
    assert (await window(api, made["id"], 25))["messages"] == [702, 703]


async def test_the_nearest_call_of_an_id_counts(api: Api) -> None:
    made = await create(api, calls("a"), result("a"), ten(), calls("a"), result("a"))
    assert (await window(api, made["id"], 20))["messages"] == [4, 5]
    await delete_message(api, made["id"], 4)
    assert await window(api, made["id"], 39) | {"budget": 0} == {
        "messages": [],
        "tokenCount": 0,
        "budget": 0,
        "truncated": True,
        "fromVersion": None,
        "toVersion": None,
        "minimumBudget": 40,
    }


async def test_results_that_nothing_stands_before_are_in_no_window(api: Api) -> None:
    made = await create(api, result("nobody's"), ten())
    assert (await window(api, made["id"], 1_000))["messages"] == [2]
    assert (await window(api, made["id"], 1_000))["truncated"] is True
    alone = await create(api, ten("SYSTEM"), result("nobody's"))
    assert await window(api, alone["id"], 1_000) == {
        "messages": [1],
        "tokenCount": 10,
        "budget": 1_000,
        "truncated": True,
        "fromVersion": None,
        "toVersion": None,
        "minimumBudget": 10,
    }
    assert (await window(api, alone["id"], 1_000, keepSystem=False))["messages"] == [1, 2]


async def test_windows_with_a_step_begin_alike_for_a_while(api: Api) -> None:
    made = await create(api, ten("SYSTEM"), *[ten() for _ in range(9)])
    starts = []
    for _ in range(12):
        found = await window(api, made["id"], 100, step=50)
        starts.append(found["fromVersion"])
        assert found["messages"][0] == 1
        await append(api, made["id"], ten())
    # 100 fit whole; from then on the suffix begins after 50, 100 and 150 tokens.
    assert starts == [2, 6, 6, 6, 6, 11, 11, 11, 11, 11, 16, 16]


async def test_messages_without_tokens_belong_to_the_longest_suffix_that_fits(api: Api) -> None:
    large, empty = say("large", tokenCount=1_000), say("", tokenCount=0)
    made = await create(api, *[large] * 100, *[empty] * 200, large)
    found = await window(api, made["id"], 1_000)
    assert (found["fromVersion"], found["toVersion"], found["tokenCount"]) == (101, 301, 1_000)


async def test_a_long_unit_of_few_tokens_leaves_room_for_what_comes_before(api: Api) -> None:
    large, small = say("large", tokenCount=1_000), say("small", tokenCount=1)
    made = await create(api, *[large] * 100, calls("a"), *[small] * 60, result("a"))
    found = await window(api, made["id"], 2_000)
    assert (found["fromVersion"], found["tokenCount"], found["minimumBudget"]) == (100, 1_080, 80)


async def test_an_empty_context_has_an_empty_window(api: Api) -> None:
    made = await create(api)
    assert await window(api, made["id"], 1) == {
        "messages": [],
        "tokenCount": 0,
        "budget": 1,
        "truncated": False,
        "fromVersion": None,
        "toVersion": None,
        "minimumBudget": 0,
    }


async def test_a_window_of_a_snapshot_ends_at_its_version(api: Api) -> None:
    made = await create(api, say("a", tokenCount=1), calls("x", tokens=2), result("x", 4), say("b", tokenCount=8))
    found = [(await api(AT, id=made["id"], version=n, budget=6))["context"]["at"]["window"] for n in range(5)]
    assert [[message["content"] for message in each["messages"]] for each in found] == [
        [],
        ["a"],
        ["a", ""],
        ["", "found"],
        [],
    ]
    assert [each["minimumBudget"] for each in found] == [0, 1, 2, 6, 8]
    assert [each["truncated"] for each in found] == [False, False, False, True, True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"budget": 0}, "budget is 0. It must be 1 token or more."),
        ({"budget": -5}, "budget is -5. It must be 1 token or more."),
        ({"budget": 5, "step": -1}, "step is -1. It must be 0 or more tokens."),
    ],
)
async def test_a_budget_or_step_that_makes_no_sense_is_refused(api: Api, arguments: Json, message: str) -> None:
    made = await create(api, ten())
    assert await refusal(window(api, made["id"], **arguments)) == ("BAD_USER_INPUT", message)


async def test_the_largest_budget_and_step_are_served(api: Api) -> None:
    made = await create(api, ten(), ten())
    found = await window(api, made["id"], 2**31 - 1, step=2**31 - 1)
    assert (found["messages"], found["truncated"]) == ([1, 2], False)
    assert (await window(api, made["id"], 10, step=2**31 - 1))["messages"] == [2]


async def test_a_window_and_all_windows_of_a_request_have_a_limit(settings: Settings) -> None:
    async with api_over(create_app(settings.model_copy(update={"window_messages_max": 6}))) as api:
        made = await create(api, *[ten()] * 7)
        assert (await window(api, made["id"], 60))["tokenCount"] == 60
        refused = await refusal(window(api, made["id"], 70))
        told = "The window has more than 6 messages, the most allowed (FORKPOINT_WINDOW_MESSAGES_MAX). "
        assert refused == ("LIMIT_EXCEEDED", f"{told}Ask for a smaller budget.")
        many = " ".join(f"w{n}: window(budget: 50, step: {n}) {{ tokenCount }}" for n in range(12))
        assert len((await api(f"query ($id: ID!) {{ context(id: $id) {{ {many} }} }}", id=made["id"]))["context"]) == 12
        more = " ".join(f"w{n}: window(budget: 50, step: {n}) {{ tokenCount }}" for n in range(60))
        with pytest.raises(ApiError) as raised:
            await api(f"query ($id: ID!) {{ context(id: $id) {{ {more} }} }}", id=made["id"])
        assert raised.value.code == "LIMIT_EXCEEDED"
        assert raised.value.message.startswith("The windows asked for have more than 60 messages in all, ")


async def test_windows_of_many_contexts_are_read_together(api: Api) -> None:
    root = await create(api, ten(), ten())
    forked = await fork(api, root["id"], 1)
    document = """query ($ids: [ID!]!) { nodes(ids: $ids) { ... on Context {
      a: window(budget: 10) { toVersion } b: window(budget: 20) { fromVersion truncated }
    } } }"""
    assert (await api(document, ids=[root["id"], forked["id"]]))["nodes"] == [
        {"a": {"toVersion": 2}, "b": {"fromVersion": 1, "truncated": False}},
        {"a": {"toVersion": 1}, "b": {"fromVersion": 1, "truncated": False}},
    ]
