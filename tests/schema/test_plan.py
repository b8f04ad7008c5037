"""Which queries have a plan, and what that plan asks for."""

from itertools import product
from typing import Any

import pytest
import strawberry
from strawberry.directive import DirectiveLocation, DirectiveValue

from db.records import NO_LARGE_COLUMN as NOTHING
from db.records import Columns
from schema import plan
from schema.collect import Unplanned
from schema.plan import Plan
from schema.query import Query
from tests.schema.planning import ID, bound_of, field_of, plan_of, planner_of


@pytest.mark.parametrize(
    "text",
    [
        "{ __schema { queryType { name } } }",
        '{ ...Types health { status } } fragment Types on Query { t: __type(name: "Context") { name } }',
        "query { health { status } ... on Query { __schema { queryType { name } } } }",
        'mutation { deleteContext(input: {contextId: "x"}) { context { id } } }',
    ],
)  # fmt: skip
def test_introspection_and_mutations_are_not_planned(text: str) -> None:
    with pytest.raises(Unplanned):
        plan_of(text)


def test_introspection_that_is_left_out_hinders_no_plan() -> None:
    text = "query ($asked: Boolean!) { health { status } __schema @include(if: $asked) { queryType { name } } }"
    assert plan_of(text, asked=False).fields
    with pytest.raises(Unplanned):
        plan_of(text, asked=True)


@strawberry.directive(locations=[DirectiveLocation.FIELD, DirectiveLocation.INLINE_FRAGMENT])
def louder(value: DirectiveValue[str]) -> str:
    return value.upper()


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def ticks(self) -> int:
        return 1


LOUD = strawberry.Schema(Query, subscription=Subscription, directives=[louder])


@pytest.mark.parametrize(
    "text",
    [
        "{ health { version @louder } }",
        "{ health { ... @louder { version } } }",
        "subscription { ticks }",
    ],
)
def test_subscriptions_and_directives_that_are_not_known_are_not_planned(text: str) -> None:
    with pytest.raises(Unplanned):
        planner_of(text, LOUD).plan({})
    assert planner_of("{ health { version } }", LOUD).plan({}).health


@pytest.mark.parametrize("given", [{}, {"v": None}, {"v": 1}])
def test_a_condition_that_is_no_boolean_is_not_planned(given: dict[str, Any]) -> None:
    planner = planner_of("query ($v: Boolean!) { health @include(if: $v) { status } }")
    with pytest.raises(Unplanned):
        planner.plan(given)


def test_each_choice_of_conditions_has_a_plan_of_its_own_which_is_made_once() -> None:
    planner = planner_of(
        """query ($a: Boolean!, $b: Boolean = true, $other: ID!) {
          context(id: $other) {
            id @include(if: $a)
            name @skip(if: $b) @include(if: $a)
            ...Messages @include(if: $b)
          }
        }
        fragment Messages on Context { messages { nodes { content @skip(if: $a) version } } }"""
    )
    found: dict[tuple[bool, bool], Plan] = {}
    for a, b in product([True, False], repeat=2):
        for other in ("one", "two"):
            variables = planner.variables.read({"a": a, "b": b, "other": other}).coerced
            assert found.setdefault((a, b), planner.plan(variables)) is planner.plan(variables)
    assert len(set(map(id, found.values()))) == 4
    assert {choice: names(made, "context") for choice, made in found.items()} == {
        (True, True): {"id", "messages"},
        (True, False): {"id", "name"},
        (False, True): {"messages"},
        (False, False): set(),
    }
    assert field_of(found[True, True], "context", "messages").asked.columns.content is False
    assert field_of(found[False, True], "context", "messages").asked.columns.content is True
    assert planner.plan(planner.variables.read({"a": True, "other": "x"}).coerced) is found[True, True]


def names(made: Plan, *path: str) -> set[str]:
    below = field_of(made, *path).below
    assert below is not None
    ((_, branch),) = below.branches
    return set(branch.names)


def test_plans_for_choices_are_bounded_in_number() -> None:
    booleans = [f"v{number}" for number in range(8)]
    fields = " ".join(f"f{name}: health @include(if: ${name}) {{ status }}" for name in booleans)
    planner = planner_of(f"query ({', '.join(f'${name}: Boolean!' for name in booleans)}) {{ {fields} }}")
    kept = planner._plans  # noqa: SLF001 - what is bounded
    for choice in product([True, False], repeat=len(booleans)):
        made = planner.plan(dict(zip(booleans, choice, strict=True)))
        assert [field.name for field in made.fields] == [
            f"f{name}" for name, chosen in zip(booleans, choice, strict=True) if chosen
        ]
        assert len(kept) <= plan._PLANS_MAX  # noqa: SLF001 - the bound
    assert len(kept) > 1


def test_a_plan_of_more_statements_than_pays_is_none() -> None:
    def text(count: int) -> str:
        return "{" + "".join(f"a{number}: contexts {{ pageInfo {{ hasNextPage }} }} " for number in range(count)) + "}"

    assert len(plan_of(text(plan.LOADING_MAX)).fields) == 3 * plan.LOADING_MAX
    with pytest.raises(Unplanned):
        plan_of(text(plan.LOADING_MAX + 1))


def shape(text: str, *path: str, **variables: Any) -> list[str]:
    """Give the keys of what an encoder writes, in order."""
    made = plan_of(text, **variables)
    selection = field_of(made, *path).below if path else made.root
    assert selection is not None
    ((_, branch),) = selection.branches
    encoded = branch.encode([Anything()], [[0]] * len(branch.fields))
    return list(encoded[0])


class Anything:
    """Has every attribute."""

    def __getattr__(self, name: str) -> None:
        return None


def test_fields_are_written_in_the_order_in_which_they_are_met() -> None:
    text = """query ($id: ID!) {
      z: context(id: $id) { ...Second name ...First z: id ... { depth name } __typename t: __typename }
      a: health { status }
      z: context(id: $id) { totalTokens ...First }
    }
    fragment First on Context { latestVersion ...Second messages { totalCount } }
    fragment Second on Node { id ... on Context { forkVersion ... on Node { id } } ... on Message { role } }"""
    assert shape(text, id=ID) == ["z", "a"]
    assert shape(text, "z", id=ID) == [
        *("id", "forkVersion", "name", "latestVersion", "messages", "z", "depth"),
        *("__typename", "t", "totalTokens"),
    ]


def test_what_is_asked_of_one_name_in_many_places_is_asked_together() -> None:
    text = """query ($id: ID!) {
      context(id: $id) { messages(first: 3) { nodes { id } } ...More }
      ... on Query { context(id: $id) { messages(first: 3) { edges { node { content } } } } }
    }
    fragment More on Context { messages(first: 3) { nodes { version } } all: messages { totalCount } }"""
    made = plan_of(text, id=ID)
    assert [field.field_name for field in made.fields if field.step.loads] == [
        *("context", "messages", "messages", "totalCount"),
    ]
    messages = field_of(made, "context", "messages")
    assert messages.asked == (frozenset({"nodes", "edges"}), NOTHING._replace(content=True), False)
    assert names(made, "context", "messages", "nodes") == {"id", "version"}


def test_an_interface_has_a_branch_for_each_type_with_what_applies_to_it() -> None:
    made = plan_of(
        """query ($id: ID!) { node(id: $id) {
          id __typename ... on Context { name parent { id } } ... on Message { content } ... on Node { again: id }
        } }""",
        id=ID,
    )
    node = field_of(made, "node")
    assert node.below is not None
    assert {branch.type_name: set(branch.names) for _, branch in node.below.branches} == {
        "Context": {"id", "__typename", "name", "parent"},
        "Message": {"id", "__typename", "content"},
    }
    assert node.asked.columns == NOTHING._replace(content=True)


HEAVY = [
    ("context(id: $id) { name }", ("context",), NOTHING, False),
    ("context(id: $id) { meta: metadata }", ("context",), NOTHING, True),
    ("context(id: $id) { messages { nodes { id metadata } } }", ("context",), NOTHING, False),
    ("context(id: $id) { parent { metadata } }", ("context",), NOTHING, False),
    ("context(id: $id) { parent { metadata } }", ("context", "parent"), NOTHING, True),
    ("context(id: $id) { at(version: 1) { context { ...M } } }", ("context",), NOTHING, True),
    ("context(id: $id) { at(version: 1) { context { at(version: 0) { context { ...M } } } } }", ("context",), NOTHING,
     True),
    ("context(id: $id) { at(version: 1) { messages { nodes { content } } } }", ("context",), NOTHING, False),
    ("context(id: $id) { at(version: 1) { messages { edges { node { c: content } } } } }",
     ("context", "at", "messages"), NOTHING._replace(content=True), False),
    ("context(id: $id) { messages { totalCount pageInfo { endCursor } } }", ("context", "messages"), NOTHING, False),
    ("context(id: $id) { messages { nodes { toolCalls { id } } } }", ("context", "messages"),
     NOTHING._replace(tool_calls=True), False),
    ("context(id: $id) { messages { nodes { toolCallId toolName model role } } }", ("context", "messages"), NOTHING,
     False),
    ("context(id: $id) { messages { nodes { ... on Message { metadata } } edges { node { content } } } }",
     ("context", "messages"), Columns(content=True, tool_calls=False, metadata=True), False),
    ("context(id: $id) { messages { nodes { context { metadata } } } }", ("context", "messages"), NOTHING, False),
    ("context(id: $id) { messages { nodes { context { metadata } } } }", ("context", "messages", "nodes", "context"),
     NOTHING, True),
    ("context(id: $id) { window(budget: 1) { messages { content } } }", ("context", "window"),
     NOTHING._replace(content=True), False),
    ("context(id: $id) { window(budget: 1) { tokenCount } }", ("context", "window"), NOTHING, False),
    ("context(id: $id) { forks { edges { node { metadata } } } }", ("context", "forks"), NOTHING, True),
    ("context(id: $id) { diff(with: $id) { onlyThere { context { metadata } } } }", ("context", "diff"), NOTHING, True),
    ("context(id: $id) { diff(with: $id) { onlyThere { messages { nodes { content } } } } }",
     ("context", "diff"), NOTHING, False),
    ("context(id: $id) { diff(with: $id) { onlyThere { messages { nodes { content } } } } }",
     ("context", "diff", "onlyThere", "messages"), NOTHING._replace(content=True), False),
    ("context(id: $id) { ancestors { ...M } }", ("context", "ancestors"), NOTHING, True),
    ("contexts { nodes { id } edges { node { metadata } } }", ("contexts",), NOTHING, True),
    ("nodes(ids: [$id]) { ... on Message { context { metadata } } }", ("nodes",), NOTHING, False),
    ("nodes(ids: [$id]) { ... on Message { toolCalls { name } } ...M }", ("nodes",), NOTHING._replace(tool_calls=True),
     True),
]  # fmt: skip


@pytest.mark.parametrize(("text", "path", "columns", "metadata"), HEAVY)
def test_only_heavy_columns_that_are_shown_are_asked(
    text: str, path: tuple[str, ...], columns: Columns, metadata: bool
) -> None:
    fragment = " fragment M on Context { ... { m: metadata } }" if "...M" in text else ""
    variable = "query ($id: ID!)" if "$id" in text else ""
    asked = field_of(plan_of(f"{variable} {{ {text} }}{fragment}", id=ID), *path).asked
    assert (asked.columns, asked.metadata) == (columns, metadata)


EARLY = "messages { nodes { id } } window(budget: 9) { tokenCount } forks { nodes { id } } message(version: 1) { id }"
FLUSHES = {
    "__typename": True,
    "health { status }": True,
    f"context(id: $id) {{ name {EARLY} }}": True,
    "a: context(id: $id) { messages { nodes { id } } } b: context(id: $id) { id } c: contexts { nodes { id } }": True,
    "context(id: $id) { messages { totalCount pageInfo { hasNextPage hasPreviousPage } edges { cursor } } }": True,
    "context(id: $id) { at(version: 1) { version context { name } } }": True,
    "contexts { nodes { id name } pageInfo { endCursor hasNextPage } }": True,
    "nodes(ids: [$id]) { id }": True,
    "contexts { nodes { messages { nodes { id } } } }": False,
    "contexts { totalCount }": False,
    "context(id: $id) { parent { id } }": False,
    "context(id: $id) { ancestors { id } }": False,
    "context(id: $id) { tree { root } }": False,
    "context(id: $id) { messages { nodes { context { id } } } }": False,
    "context(id: $id) { forks { nodes { messages { nodes { id } } } } }": False,
    "context(id: $id) { forks { totalCount } }": False,
    "context(id: $id) { at(version: 1) { messageCount } }": False,
    "context(id: $id) { at(version: 1) { context { messages { nodes { id } } } } }": False,
    "node(id: $id) { ... on Context { messages { nodes { id } } } }": False,
    "a: context(id: $id) { id } b: context(id: $id) { parent { id } }": False,
}


@pytest.mark.parametrize("text", FLUSHES)
def test_what_can_be_asked_at_once_is_known_beforehand(text: str) -> None:
    variable = "query ($id: ID!)" if "$id" in text else ""
    assert plan_of(f"{variable} {{ {text} }}", id=ID).one_flush is FLUSHES[text]


ROWS: dict[str, int | None] = {
    "__typename": 0,
    "health { status checks { database { status } } }": 0,
    "context(id: $id) { id }": 1,
    "context(id: $id) { messages { nodes { id } } }": 1 + 51,
    "context(id: $id) { messages(first: 9) { nodes { id } totalCount } }": 1 + 10 + 10,
    "context(id: $id) { messages(last: 1000) { edges { cursor } } }": 1 + 1_001,
    "context(id: $id) { messages(last: 2147483647) { edges { cursor } } }": 1 + 1_001,
    "context(id: $id) { messages(first: null, last: null) { edges { cursor } } }": 1 + 51,
    "context(id: $id) { messages(first: 3, roles: []) { edges { cursor } } }": None,
    "context(id: $id) { messages(first: 3, roles: null) { edges { cursor } } }": 1 + 4,
    "context(id: $id) { messages(first: 9) { nodes { context { id } } } }": 1 + 10 + 10,
    "contexts(first: 20) { nodes { messages(last: 10) { nodes { id } } parent { id } } }": 21 + 21 * 11 + 21,
    "contexts(first: 2) { edges { node { message(version: 1) { id } } } }": 3 + 3,
    "contexts(filter: {}) { nodes { id } }": None,
    "contexts(filter: null) { nodes { id } }": 51,
    "contexts(first: 3) { totalCount }": None,
    "context(id: $id) { window(budget: 8000) { tokenCount } }": 1 + 401,
    "context(id: $id) { window(budget: -8000) { tokenCount } }": 1 + 401,
    "context(id: $id) { window(budget: 32001) { tokenCount } }": None,
    "context(id: $id) { ancestors { id } }": None,
    "context(id: $id) { tree { root } }": None,
    "context(id: $id) { diff(with: $id) { onlyHere { messageCount } } }": None,
    "context(id: $id) { commonAncestor(with: $id) { version } }": None,
    "context(id: $id) { forks(first: 4) { nodes { id } } }": 1 + 5,
    "context(id: $id) { forks(first: 4) { nodes { id } totalCount } }": None,
    "nodes(ids: [$id, $id, $id]) { id }": 3,
    "context(id: $id) { id } b: health { status }": 1,
}


@pytest.mark.parametrize("text", ROWS)
def test_what_a_plan_reads_is_bounded_or_known_not_to_be(text: str) -> None:
    variable = "query ($id: ID!)" if "$id" in text else ""
    assert bound_of(f"{variable} {{ {text} }}", id=ID).rows == ROWS[text]


def test_many_small_statements_are_not_small() -> None:
    text = "query ($id: ID!) {{ {} }}".format(" ".join(f"a{number}: context(id: $id) {{ id }}" for number in range(51)))
    assert not bound_of(text, id=ID).is_small
    assert bound_of(text.replace("a50: context(id: $id) { id }", ""), id=ID).is_small
