"""Differences: what each of two contexts holds after the version where they part, as pages with their totals."""

from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from tests import strategies
from tests.client import Api
from tests.schema.calls import (
    UNKNOWN,
    Json,
    append,
    create,
    delete,
    delete_message,
    fork,
    mutate,
    refusal,
    say,
)
from tests.strategies import Command
from tests.test_history import World, run

SIDE = """fragment Side on DiffSide {
  context { id } messageCount totalTokens
  messages(first: 1000) { nodes { version content } totalCount pageInfo { hasNextPage hasPreviousPage } }
}"""
DIFF = f"""query ($id: ID!, $with: ID!) {{
  context(id: $id) {{
    diff(with: $with) {{ commonAncestor {{ context {{ id }} version }} onlyHere {{ ...Side }} onlyThere {{ ...Side }} }}
  }}
}} {SIDE}"""
PAGE = """query (
  $id: ID!, $with: ID!, $first: Int, $after: String, $last: Int, $before: String, $roles: [Role!]
) {
  context(id: $id) { diff(with: $with) { onlyHere {
    messages(first: $first, after: $after, last: $last, before: $before, roles: $roles) {
      edges { cursor node { content } } totalCount
      pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
    }
  } } }
}"""


async def diff(api: Api, context_id: str, other_id: str) -> Json | None:
    found: Json | None = (await api(DIFF, id=context_id, **{"with": other_id}))["context"]["diff"]
    return found


def side(context_id: str, tokens: int, **messages: str) -> Json:
    """Give a side with messages by version, as in `v3="content"`."""
    return {
        "context": {"id": context_id},
        "messageCount": len(messages),
        "totalTokens": tokens,
        "messages": {
            "nodes": [{"version": int(name[1:]), "content": content} for name, content in messages.items()],
            "totalCount": len(messages),
            "pageInfo": {"hasNextPage": False, "hasPreviousPage": False},
        },
    }


async def page(api: Api, context_id: str, other_id: str, **arguments: Any) -> Json:
    answer = await api(PAGE, id=context_id, **{"with": other_id}, **arguments)
    found: Json = answer["context"]["diff"]["onlyHere"]["messages"]
    return found


def texts(found: Json) -> list[str]:
    return [edge["node"]["content"] for edge in found["edges"]]


async def test_two_forks_differ_in_what_was_said_after_they_parted(api: Api) -> None:
    root = (await create(api, *(say(str(n), tokenCount=100) for n in range(1, 5))))["id"]
    here, there = (await fork(api, root, 2))["id"], (await fork(api, root, 3))["id"]
    await append(api, here, say("h3", tokenCount=1), say("h4", tokenCount=2))
    await append(api, there, say("t4", tokenCount=5))
    expected: Json = {
        "commonAncestor": {"context": {"id": root}, "version": 2},
        "onlyHere": side(here, 3, v3="h3", v4="h4"),
        "onlyThere": side(there, 105, v3="3", v4="t4"),
    }
    assert await diff(api, here, there) == expected
    mirrored = expected | {"onlyHere": expected["onlyThere"], "onlyThere": expected["onlyHere"]}
    assert await diff(api, there, here) == mirrored


async def test_a_context_lacks_nothing_of_what_it_was_forked_from_but_what_came_after(api: Api) -> None:
    root = (await create(api, say("1"), say("2"), say("3")))["id"]
    child = (await fork(api, root, 2))["id"]
    await append(api, child, say("c3"))
    expected = {
        "commonAncestor": {"context": {"id": root}, "version": 2},
        "onlyHere": side(root, 1, v3="3"),
        "onlyThere": side(child, 1, v3="c3"),
    }
    assert await diff(api, root, child) == expected
    same = {"commonAncestor": {"context": {"id": root}, "version": 3}, "onlyHere": side(root, 0)}
    assert await diff(api, root, root) == same | {"onlyThere": side(root, 0)}


async def test_contexts_of_two_trees_differ_in_everything(api: Api) -> None:
    one, two = (await create(api, say("1")))["id"], (await create(api, say("a"), say("b")))["id"]
    assert await diff(api, one, two) == {
        "commonAncestor": None,
        "onlyHere": side(one, 1, v1="1"),
        "onlyThere": side(two, 2, v1="a", v2="b"),
    }


async def test_a_context_that_is_missing_or_deleted_differs_from_none(api: Api) -> None:
    root = (await create(api, say("1")))["id"]
    child = (await fork(api, root))["id"]
    await delete(api, child)
    assert await diff(api, root, child) is None
    assert await diff(api, root, UNKNOWN) is None
    expected = "with is not an id. Ids look like 0198c0de-7d0e-7000-8000-000000000000."
    assert await refusal(diff(api, root, "x")) == ("BAD_USER_INPUT", expected)


async def test_deleted_messages_are_in_no_difference_and_in_no_total(api: Api) -> None:
    root = (await create(api, say("1"), say("2", tokenCount=10), say("3", tokenCount=20), say("4", tokenCount=40)))[
        "id"
    ]
    here, there = (await fork(api, root, 1))["id"], (await fork(api, root))["id"]
    await append(api, here, say("h2"), say("h3"))
    for context_id, version in ((root, 1), (root, 3), (here, 2)):
        await delete_message(api, context_id, version)
    await delete(api, root)
    assert await diff(api, here, there) == {
        "commonAncestor": {"context": None, "version": 1},
        "onlyHere": side(here, 1, v3="h3"),
        "onlyThere": side(there, 50, v2="2", v4="4"),
    }


async def test_a_difference_is_paged_from_both_ends(api: Api) -> None:
    root = (await create(api, say("1"), say("2")))["id"]
    here = (await fork(api, root))["id"]
    await append(api, here, *(say(str(n), role="USER" if n % 2 else "SYSTEM") for n in range(3, 10)))
    whole = await page(api, here, root)
    assert (texts(whole), whole["totalCount"]) == (list("3456789"), 7)
    cursors = dict(zip(texts(whole), (edge["cursor"] for edge in whole["edges"]), strict=True))
    cases: list[tuple[Json, str, bool, bool]] = [
        ({"first": 3}, "345", False, True),
        ({"last": 3}, "789", True, False),
        ({"first": 2, "after": cursors["4"]}, "56", True, True),
        ({"last": 9, "before": cursors["5"]}, "34", False, True),
        ({"last": 1, "before": cursors["3"]}, "", False, True),
        ({"first": 9, "after": cursors["9"]}, "", True, False),
        ({"first": 9, "after": cursors["3"], "before": cursors["7"]}, "456", True, True),
        ({"roles": ["SYSTEM"]}, "468", False, False),
        ({"first": 0}, "", False, True),
    ]
    for arguments, shown, previous, following in cases:
        found = await page(api, here, root, **arguments)
        information = found["pageInfo"]
        assert ("".join(texts(found)), information["hasPreviousPage"], information["hasNextPage"]) == (
            shown,
            previous,
            following,
        ), arguments
        assert found["totalCount"] == (3 if "roles" in arguments else 7)


async def test_cursors_of_a_difference_survive_appends_and_belong_to_it_alone(api: Api) -> None:
    root = (await create(api, say("1"), say("2"), say("3")))["id"]
    here, elsewhere = (await fork(api, root, 2))["id"], (await fork(api, root, 1))["id"]
    await append(api, here, say("h3"), say("h4"))
    cursor = (await page(api, here, root, first=1))["pageInfo"]["endCursor"]
    await append(api, here, say("h5"))
    await append(api, root, say("4"))
    assert texts(await page(api, here, root, after=cursor)) == ["h4", "h5"]
    for context_id, other_id in ((root, here), (here, elsewhere)):
        assert (await refusal(page(api, context_id, other_id, after=cursor)))[0] == "BAD_USER_INPUT"
    document = "query ($id: ID!, $after: String!) { context(id: $id) { messages(after: $after) { totalCount } } }"
    assert (await refusal(api(document, id=here, after=cursor)))[0] == "BAD_USER_INPUT"
    first = "query ($id: ID!) { context(id: $id) { messages(first: 1) { edges { cursor } } } }"
    own = (await api(first, id=here))["context"]["messages"]["edges"][0]["cursor"]
    assert (await refusal(page(api, here, root, after=own)))[0] == "BAD_USER_INPUT"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ({"first": 1, "last": 1}, "BAD_USER_INPUT"),
        ({"first": -1}, "BAD_USER_INPUT"),
        ({"last": 1001}, "LIMIT_EXCEEDED"),
    ],
)
async def test_pages_of_a_difference_that_make_no_sense_are_refused(api: Api, arguments: Json, code: str) -> None:
    root = (await create(api, say("1")))["id"]
    assert (await refusal(page(api, root, root, **arguments)))[0] == code


async def test_the_payload_of_an_append_tells_the_difference_with_what_was_appended(api: Api) -> None:
    root = (await create(api, say("1")))["id"]
    child = (await fork(api, root))["id"]
    selection = f'context {{ diff(with: "{root}") {{ onlyHere {{ messageCount messages {{ totalCount }} }} }} }}'
    payload = await mutate(api, "appendMessages", selection, contextId=child, messages=[say("2"), say("3")])
    assert payload["context"]["diff"] == {"onlyHere": {"messageCount": 2, "messages": {"totalCount": 2}}}


async def compare(world: World, key: int, other: int) -> None:
    found = await diff(world.api, world.id(key), world.id(other))
    assert found is not None
    known = world.model.common_ancestor(key, other)
    assert found["commonAncestor"] == (
        known and {"context": None if known[0].deleted else {"id": world.id(known[0].key)}, "version": known[1]}
    )
    for name, one, two in (("onlyHere", key, other), ("onlyThere", other, key)):
        messages = world.model.only_in(one, two)
        contents = {f"v{message.version}": message.content for message in messages}
        assert found[name] == side(world.id(one), sum(message.token_count for message in messages), **contents)


@given(history=strategies.histories)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_every_difference_is_as_the_model_says(api: Api, history: list[Command]) -> None:
    world = World(api)
    for command in history:
        if not isinstance(command, strategies.Look):
            await run(world, command)
    keys = [context.key for context in world.model.stored if not context.deleted]
    for key, other in product(keys[:6], keys[-6:]):
        await compare(world, key, other)
