"""Trees of forks: which contexts they show, in which order, and where two contexts part."""

from itertools import product
from typing import Any
from uuid import UUID

import psycopg
from hypothesis import HealthCheck, given, settings

from db.context import LATEST
from db.tree import Node
from graphql_api.app import create_app
from graphql_api.settings import Settings
from schema.request import TREE_NODES_MAX
from schema.tree import NODES_MAX, cut
from tests import strategies
from tests.client import Api
from tests.conftest import api_over
from tests.schema.calls import UNKNOWN, Json, append, create, delete, delete_message, fork, read, refusal, restore, say
from tests.strategies import Command
from tests.test_history import World, run

NODE = "id name parentId forkVersion depth latestVersion messageCount totalTokens updatedAt deletedAt"
TREE = f"""query ($id: ID!, $maxDepth: Int, $first: Int) {{
  context(id: $id) {{ tree(maxDepth: $maxDepth, first: $first) {{ root nodes {{ {NODE} }} truncated }} }}
}}"""
MEETING = """query ($id: ID!, $with: ID!) {
  context(id: $id) { commonAncestor(with: $with) { context { id } version } }
}"""


async def tree(api: Api, context_id: str, **arguments: Any) -> Json:
    found: Json = (await api(TREE, id=context_id, **arguments))["context"]["tree"]
    return found


async def shown(api: Api, context_id: str, **arguments: Any) -> tuple[list[str], bool]:
    """Give the names of the nodes, and whether something was left out."""
    found = await tree(api, context_id, **arguments)
    return [node["name"] for node in found["nodes"]], found["truncated"]


async def meeting(api: Api, context_id: str, other_id: str) -> tuple[str | None, int] | None:
    """Give the id of the common ancestor, None while it is deleted, and the version."""
    found = (await api(MEETING, id=context_id, **{"with": other_id}))["context"]["commonAncestor"]
    if found is None:
        return None
    return (None if found["context"] is None else found["context"]["id"]), found["version"]


async def family(api: Api) -> dict[str, str]:
    """Make a root with two forks, and one fork of each; gives ids by name."""
    made = {"root": (await create(api, say("1"), say("2"), name="root"))["id"]}
    for name, parent in [("a", "root"), ("b", "root"), ("b/c", "b"), ("a/d", "a")]:
        made[name] = (await fork(api, made[parent], name=name))["id"]
    return made


async def test_a_tree_has_all_its_contexts_whichever_is_asked(api: Api) -> None:
    made = await family(api)
    await append(api, made["a"], say("3", tokenCount=5))
    await create(api, name="of another tree")
    expected = []
    for name, parent in [("root", None), ("a", "root"), ("b", "root"), ("b/c", "b"), ("a/d", "a")]:
        context = await read(api, made[name])
        node = {field: context[field] for field in NODE.split() if field != "parentId"}
        expected.append(node | {"parentId": parent and made[parent]})
    for context_id in made.values():
        assert await tree(api, context_id) == {"root": made["root"], "nodes": expected, "truncated": False}
    assert [node["totalTokens"] for node in expected] == [2, 7, 2, 2, 2]


async def test_a_tree_is_cut_below_and_says_so(api: Api) -> None:
    made = await family(api)
    whole = ["root", "a", "b", "b/c", "a/d"]
    assert await shown(api, made["b"], maxDepth=0) == (whole[:1], True)
    assert await shown(api, made["b"], maxDepth=1) == (whole[:3], True)
    assert await shown(api, made["b"], maxDepth=2) == (whole, False)
    for first in range(7):
        assert await shown(api, made["b"], first=first) == (whole[:first], first < 5)
    assert await shown(api, made["b"], maxDepth=1, first=2) == (whole[:2], True)
    assert await shown(api, made["b"], maxDepth=2**31 - 1, first=NODES_MAX) == (whole, False)
    assert await shown(api, made["b"], maxDepth=None, first=None) == (whole, False)


async def test_a_deleted_context_is_shown_while_one_that_is_not_hangs_below_it(api: Api) -> None:
    made = await family(api)
    await delete(api, made["b"])
    found = await tree(api, made["a"])
    assert [(each["name"], each["deletedAt"] is None) for each in found["nodes"]] == [
        ("root", True),
        ("a", True),
        ("b", False),
        ("b/c", True),
        ("a/d", True),
    ]
    assert await shown(api, made["a"], first=3) == (["root", "a", "b"], True)
    await delete(api, made["b/c"])
    assert await shown(api, made["a"]) == (["root", "a", "a/d"], False)
    assert await shown(api, made["a"], first=3) == (["root", "a", "a/d"], False)
    await delete(api, made["root"])
    await delete(api, made["a"])
    assert await shown(api, made["a/d"]) == (["root", "a", "a/d"], False)
    assert await shown(api, made["a/d"], maxDepth=1) == (["root", "a"], True)
    await restore(api, made["a"])
    await delete(api, made["a/d"])
    assert await shown(api, made["a"], maxDepth=1) == (["root", "a"], False)


async def test_a_tree_of_deleted_contexts_alone_is_empty(api: Api) -> None:
    made = await create(api, say())
    document = (
        "mutation ($id: ID!) { deleteContext(input: {contextId: $id}) { context { tree { nodes { id } truncated } } } }"
    )
    payload = (await api(document, id=made["id"]))["deleteContext"]
    assert payload == {"context": {"tree": {"nodes": [], "truncated": False}}}


async def test_what_makes_no_sense_of_a_tree_is_refused(api: Api) -> None:
    made = await create(api)
    cases = [
        ({"first": -1}, "BAD_USER_INPUT", "first is -1. It must be 0 or more."),
        ({"maxDepth": -1}, "BAD_USER_INPUT", "maxDepth is -1. It must be 0 or more."),
        ({"first": NODES_MAX + 1}, "LIMIT_EXCEEDED", "first is 10001. It may be 10000 at most."),
    ]
    for arguments, code, message in cases:
        assert await refusal(tree(api, made["id"], **arguments)) == (code, message)


async def test_one_request_reads_so_many_nodes_of_trees_and_no_more(settings: Settings) -> None:
    async with api_over(create_app(settings.model_copy(update={"cost_rows_max": 10_000_000}))) as api:
        await read_many_trees(api, await family(api))


async def read_many_trees(api: Api, made: dict[str, str]) -> None:
    aliases = " ".join(f"t{n}: tree {{ truncated }}" for n in range(150))
    document = f"query ($ids: [ID!]!) {{ nodes(ids: $ids) {{ ... on Context {{ {aliases} }} }} }}"
    enough = TREE_NODES_MAX // (150 * len(made))
    await api(document, ids=[made["a"]] * enough)
    message = "The nodes of the trees asked for are more than 20000 in all. "
    message += "Ask for those of fewer contexts at a time, or for fewer nodes."
    refused = await first_refusal(api, document, ids=[made["a"]] * (enough + 1))
    assert refused == ("LIMIT_EXCEEDED", message)


async def test_nodes_that_are_read_count_though_none_is_shown(api: Api, database_url: str) -> None:
    root = (await create(api))["id"]
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "insert into contexts (tenant_id, id, root_id, parent_id, fork_version, depth) "
            "select 'default', gen_random_uuid(), %s, %s, 0, 1 from generate_series(1, 2000)",
            [root, root],
        )
    document = "query ($id: ID!) {{ context(id: $id) {{ {} }} }}"
    aliases = [f"t{n}: tree(maxDepth: 0, first: {1500 + n}) {{ truncated }}" for n in range(40)]
    await api(document.format(" ".join(aliases[:10])), id=root)
    code, message = await first_refusal(api, document.format(" ".join(aliases)), id=root)
    assert (code, message.startswith("The nodes of the trees asked for")) == ("LIMIT_EXCEEDED", True)


async def first_refusal(api: Api, document: str, **variables: Any) -> tuple[str, str]:
    body = (await api.http.post("/graphql", json={"query": document, "variables": variables})).json()
    return body["errors"][0]["extensions"]["code"], body["errors"][0]["message"]


async def test_two_contexts_part_where_the_lower_fork_was_made(api: Api) -> None:
    root = (await create(api, *(say(str(n)) for n in range(1, 7))))["id"]
    early, late = (await fork(api, root, 2))["id"], (await fork(api, root, 4))["id"]
    await append(api, early, say("early 3"), say("early 4"))
    below = (await fork(api, early, 3))["id"]
    assert await meeting(api, early, late) == (root, 2)
    assert await meeting(api, late, early) == (root, 2)
    assert await meeting(api, below, late) == (root, 2)
    assert await meeting(api, below, early) == (early, 3)
    assert await meeting(api, root, below) == (root, 2)
    assert await meeting(api, late, root) == (root, 4)
    assert await meeting(api, root, root) == (root, 6)


async def test_two_contexts_meet_at_a_parent_that_stores_nothing_of_what_they_share(api: Api) -> None:
    """Forks made at or below their parent's own fork version, also at 0."""
    root = (await create(api, say("1"), say("2"), say("3")))["id"]
    middle = (await fork(api, root, 2))["id"]
    await append(api, middle, say("m3"))
    low, lower, none = [(await fork(api, middle, version))["id"] for version in (2, 1, 0)]
    assert await meeting(api, low, lower) == (middle, 1)
    assert await meeting(api, low, root) == (root, 2)
    assert await meeting(api, none, low) == (middle, 0)
    assert await meeting(api, none, root) == (root, 0)
    await append(api, none, say("n1"))
    again = (await fork(api, none, 0))["id"]
    assert await meeting(api, again, none) == (none, 0)


async def test_deleted_messages_and_ancestors_do_not_move_the_place_where_two_contexts_part(api: Api) -> None:
    root = (await create(api, say("1"), say("2")))["id"]
    one, two = (await fork(api, root))["id"], (await fork(api, root))["id"]
    await delete_message(api, one, 2)
    assert await meeting(api, one, two) == (root, 2)
    await delete(api, root)
    assert await meeting(api, one, two) == (None, 2)


async def test_what_is_missing_or_of_another_tree_meets_nothing(api: Api) -> None:
    made, other = await family(api), await create(api, say())
    for stranger in (other["id"], UNKNOWN):
        assert await meeting(api, made["a"], stranger) is None
    await delete(api, made["b"])
    assert await meeting(api, made["a"], made["b"]) is None
    expected = "with is not an id. Ids look like 0198c0de-7d0e-7000-8000-000000000000."
    assert await refusal(meeting(api, made["a"], "b")) == ("BAD_USER_INPUT", expected)


def node(number: int, parent: int | None, depth: int) -> Node:
    return Node(UUID(int=number), None, None if parent is None else UUID(int=parent), 0, depth, 0, 0, 0, LATEST, None)


def test_a_node_whose_parent_is_not_there_is_left_out_with_all_below_it() -> None:
    whole = [node(1, None, 0), node(2, 1, 1), node(4, 3, 2), node(5, 2, 2), node(6, 4, 3), node(7, 5, 3)]
    assert cut(whole, None, 9) == [whole[place] for place in (0, 1, 3, 5)]
    assert cut(whole, 2, 9) == [whole[place] for place in (0, 1, 3)]
    assert cut(whole, None, 4) == [whole[place] for place in (0, 1, 3)]


async def compare(world: World) -> None:
    """Hold the tree of each context, cut anywhere, and its meetings with all others to the model."""
    keys = [context.key for context in world.model.stored if not context.deleted]
    for key in keys:
        expected = world.model.tree(key)
        nodes = [
            (world.id(c.key), c.parent and world.id(c.parent.key), c.message_count, c.total_tokens, c.deleted)
            for c in expected
        ]
        for max_depth, first in [(None, 1000), (1, 1000), (None, len(nodes) - 1), (2, len(nodes) // 2)]:
            found = await tree(world.api, world.id(key), maxDepth=max_depth, first=first)
            part = [node for node, c in zip(nodes, expected, strict=True) if max_depth is None or c.depth <= max_depth]
            assert [
                (n["id"], n["parentId"], n["messageCount"], n["totalTokens"], n["deletedAt"] is not None)
                for n in found["nodes"]
            ] == part[:first]
            assert found["truncated"] == (len(part[:first]) < len(nodes))
    for key, other in product(keys[:8], keys[-8:]):
        known = world.model.common_ancestor(key, other)
        shown_ancestor = known and (None if known[0].deleted else world.id(known[0].key), known[1])
        assert await meeting(world.api, world.id(key), world.id(other)) == shown_ancestor


@given(history=strategies.histories)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_every_tree_is_as_the_model_says(api: Api, history: list[Command]) -> None:
    world = World(api)
    for command in history:
        if not isinstance(command, strategies.Look):
            await run(world, command)
    await compare(world)
