"""What operations are estimated to cost; `tests/test_planned_reads.py` holds that to what they return."""

from collections.abc import Iterator
from time import perf_counter
from typing import Any

import pytest
from graphql import (
    GraphQLInterfaceType,
    GraphQLObjectType,
    get_introspection_query,
    get_named_type,
    get_operation_ast,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
    parse,
    validate,
)
from hypothesis import given
from hypothesis import strategies as st

from graphql_api import settings
from schema.connection import PAGE_DEFAULT, PAGE_MAX
from schema.cost import COST_MAX, Cost, Costs, lengths, weigh
from schema.weight import (
    COPY_ROWS,
    INTROSPECTION_LISTS,
    LEAVES,
    OF_HOLDER,
    PAID_BY_PAGE,
    ROWS,
    SHORT,
    SIZED,
    TEXT,
)
from tests.schema.planning import BUILT, ID

MOST = lengths(page_size_max=1_000, fork_depth_max=10_000, window_messages_max=10_000, append_messages_max=1_000)


def costs_of(text: str, name: str | None = None) -> Costs:
    document = parse(text)
    assert validate(BUILT, document) == []
    operation = get_operation_ast(document, name)
    assert operation is not None
    return Costs(BUILT, document, operation, MOST)


def rows(text: str, **variables: Any) -> int:
    return costs_of(text).of(variables).rows


def fields() -> Iterator[tuple[str, str, Any]]:
    """Give the objects' fields of our own."""
    for kind in BUILT.type_map.values():
        if isinstance(kind, GraphQLObjectType) and not kind.name.startswith("__"):
            for name, field in kind.fields.items():
                yield kind.name, name, field.type


def is_list(kind: Any) -> bool:
    return is_list_type(kind.of_type if is_non_null_type(kind) else kind)


def test_every_leaf_has_a_weight_and_no_weight_is_left_over() -> None:
    leaves = {(owner, name) for owner, name, kind in fields() if is_leaf_type(get_named_type(kind))}
    assert {(owner, name) for owner, weights in LEAVES.items() for name in weights} == leaves


def test_every_list_has_a_length_and_no_length_is_left_over() -> None:
    lists = {
        (owner, name) for owner, name, kind in fields() if is_list(kind) and not is_leaf_type(get_named_type(kind))
    }
    known = {(owner, name) for owner, name, _ in fields()}
    holders = {key for key in SIZED if key not in lists}
    assert lists - OF_HOLDER - set(SIZED) - set(SHORT) == set()
    assert (OF_HOLDER | set(SHORT)) - lists == set()
    assert (set(SIZED) | set(ROWS) | PAID_BY_PAGE) - known == set()
    # Wherever a type is given whose lists are as long as its holder says, the holder says it.
    holding = {owner for owner, _ in OF_HOLDER}
    giving = {(owner, name) for owner, name, kind in fields() if get_named_type(kind).name in holding}
    assert giving - holders == set()


def test_the_setting_of_pages_knows_what_the_schema_says_of_them() -> None:
    assert (settings.PAGE_DEFAULT, settings.PAGE_MAX) == (PAGE_DEFAULT, PAGE_MAX)


def test_every_mutation_costs_rows() -> None:
    mutations = {(owner, name) for owner, name, _ in fields() if owner == "Mutation"}
    assert mutations - set(ROWS) == set()


def test_every_list_of_introspection_has_a_length() -> None:
    lists = {
        name
        for kind in BUILT.type_map.values()
        if isinstance(kind, GraphQLObjectType | GraphQLInterfaceType) and kind.name.startswith("__")
        for name, field in kind.fields.items()
        if is_list(field.type) and not is_leaf_type(get_named_type(field.type))
    }
    assert lists == set(INTROSPECTION_LISTS)


CONTEXT = f'context(id: "{ID}")'


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        ("{ __typename }", 0),
        (f"{{ {CONTEXT} {{ id }} }}", 1),
        (f"{{ a: {CONTEXT} {{ id }} b: {CONTEXT} {{ id }} }}", 2),
        (f"{{ {CONTEXT} {{ id }} {CONTEXT} {{ name }} }}", 1),
        (f"{{ {CONTEXT} {{ messages {{ nodes {{ id }} }} }} }}", 1 + PAGE_DEFAULT),
        (f"{{ {CONTEXT} {{ messages(last: 7) {{ nodes {{id}} edges {{ cursor }} pageInfo {{ endCursor }} }} }} }}", 8),
        (f"{{ {CONTEXT} {{ messages(first: 7) {{ totalCount }} }} }}", 2),
        (f"{{ {CONTEXT} {{ messages(first: null) {{ pageInfo {{ endCursor }} }} }} }}", 51),
        (f"{{ {CONTEXT} {{ messages(first: 5000) {{ nodes {{ id }} }} }} }}", 1_001),
        (f"{{ {CONTEXT} {{ messages(first: -5) {{ nodes {{ id }} }} }} }}", 1),
        ("{ contexts(first: 10) { nodes { messages(last: 5) { nodes { context { id } } } } } }", 10 + 50 + 50),
        ("{ contexts(first: 0) { nodes { messages(last: 5) { nodes { id } } } } }", 0),
        (f'{{ nodes(ids: ["{ID}", "{ID}"]) {{ id ... on Context {{ parent {{ id }} }} }} }}', 4),
        (f'{{ nodes(ids: "{ID}") {{ id }} }}', 1),
        (f"{{ {CONTEXT} {{ window(budget: 300) {{ tokenCount }} }} }}", 301),
        (f"{{ {CONTEXT} {{ window(budget: 1000000) {{ messages {{ id }} }} }} }}", 10_001),
        (f"{{ {CONTEXT} {{ at(version: 3) {{ window(budget: 3) {{ messages {{ id }} }} }} }} }}", 5),
        (f"{{ {CONTEXT} {{ tree {{ nodes {{ id }} }} }} }}", 1_001),
        (f"{{ {CONTEXT} {{ tree(first: 7) {{ truncated }} }} }}", 8),
        (f"{{ {CONTEXT} {{ ancestors {{ id }} }} }}", 10_001),
        ("{ contexts(first: 100) { nodes { ancestors { id } } } }", 10_100),
        ("{ contexts(first: 100) { nodes { tree { nodes { id } } } } }", 20_100),
        ("{ contexts(first: 100) { nodes { window(budget: 100000) { tokenCount } } } }", 100_100),
        (f'{{ {CONTEXT} {{ diff(with: "{ID}") {{ onlyHere {{ messages(first: 4) {{ nodes {{ id }} }} }} }} }} }}', 7),
        (f'subscription {{ messageAppended(contextId: "{ID}") {{ message {{ context {{ id }} }} }} }}', 2),
        ("{ __schema { types { name } } }", 0),
    ],
)  # fmt: skip
def test_rows_are_multiplied_by_the_lengths_of_lists(selection: str, expected: int) -> None:
    assert rows(selection) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(3, 4), (3.0, 4), (None, 51), (10**30, 1_001), (-3, 1), ("3", 51), (True, 51), ([3], 51), (1e300, 1_001)],
)
def test_lengths_are_read_from_variables_whatever_they_are(value: Any, expected: int) -> None:
    document = f"query ($n: Int) {{ {CONTEXT} {{ messages(last: $n) {{ nodes {{ id }} }} }} }}"
    assert rows(document, n=value) == expected
    assert rows(document) == 51


def test_defaults_of_variables_count_where_nothing_is_sent() -> None:
    document = f"query ($n: Int = 7) {{ {CONTEXT} {{ messages(last: $n) {{ nodes {{ id }} }} }} }}"
    assert (rows(document), rows(document, n=3)) == (8, 4)


def test_ids_are_counted_in_variables_too() -> None:
    document = "query ($ids: [ID!]!) { nodes(ids: $ids) { id } }"
    assert [rows(document, ids=ids) for ids in ([ID] * 3, ID, [], None, [ID] * 2_000)] == [3, 1, 0, 0, 1_000]
    assert rows("query ($id: ID!) { nodes(ids: [$id, $id]) { id } }", id=ID) == 2


def test_what_is_left_out_is_not_counted() -> None:
    document = f"""query ($yes: Boolean!, $no: Boolean = false) {{
        {CONTEXT} @include(if: $yes) {{
            messages(first: 9) @skip(if: $no) {{ nodes {{ id }} }} ...F @include(if: false)
        }}
    }} fragment F on Context {{ forks {{ nodes {{ id }} }} }}"""
    assert [rows(document, yes=yes, no=no) for yes in (True, False) for no in (True, False)] == [1, 10, 0, 0]
    assert rows(document, yes=True) == 10
    # The request is refused then, or a part of it: as if all were asked.
    assert rows(document, yes=[1], no=None) == 10


def test_fields_of_one_name_are_counted_once_wherever_they_stand() -> None:
    page = "messages(first: 9) { nodes { id } }"
    document = f"{{ {CONTEXT} {{ {page} ...F ... {{ {page} }} }} }} fragment F on Context {{ {page} ...G }}"
    assert rows(f"{document} fragment G on Node {{ ... on Context {{ {page} }} }}") == 10


def test_bytes_count_names_that_the_caller_chose() -> None:
    short = costs_of("{ contexts(first: 1000) { nodes { a: content: name } } }".replace("content: ", "")).of({})
    long = costs_of(f"{{ contexts(first: 1000) {{ nodes {{ {'a' * 1_000}: name }} }} }}").of({})
    assert long.bytes - short.bytes == 999_000


def test_aliases_count_each() -> None:
    once = costs_of(f"{{ {CONTEXT} {{ messages(first: 9) {{ nodes {{ content }} }} }} }}").of({}).bytes
    aliases = " ".join(f"a{number}: content" for number in range(100))
    often = costs_of(f"{{ {CONTEXT} {{ messages(first: 9) {{ nodes {{ content {aliases} }} }} }} }}").of({}).bytes
    assert once > 9 * TEXT
    assert often > 101 * 9 * TEXT


APPEND = "mutation ($in: AppendMessagesInput!) { appendMessages(input: $in) { messages { id context { id } } } }"
MESSAGE = {"role": "USER", "content": "x" * 1_000}


def test_mutations_cost_what_they_write_and_what_they_show() -> None:
    messages = [MESSAGE] * 5
    cost = costs_of(APPEND).of({"in": {"contextId": ID, "messages": messages}})
    assert cost.rows == 1 + 5 + 5
    assert 5_000 < cost.bytes < 6_000
    inner = 'mutation ($m: [MessageInput!]!) { appendMessages(input: {contextId: "", messages: $m}) { replayed } }'
    assert [rows(inner, m=m) for m in (messages, MESSAGE, [])] == [6, 2, 1]
    literal = 'mutation { createContext(input: {messages: [{role: USER, content: "abc"}]}) { context { id } } }'
    assert rows(literal) == 1 + 1 + 1
    copy = f'mutation {{ a: copyContext(input: {{contextId: "{ID}"}}) {{ context {{ id }} }} }}'
    assert rows(copy) == COPY_ROWS + 1


def test_a_variable_that_is_written_often_is_weighed_once_and_counted_each_time() -> None:
    fields_ = " ".join(f"a{number}: appendMessages(input: $in) {{ replayed }}" for number in range(1_000))
    costs = costs_of(f"mutation ($in: AppendMessagesInput!) {{ {fields_} }}")
    given_ = {"in": {"contextId": ID, "messages": [MESSAGE] * 1_000}}
    assert costs.of(given_).rows == 1_000 * 1_001
    assert costs.of(given_).bytes > 1_000 * 1_000 * 1_000
    assert weighed(costs, given_) == 1


def weighed(costs: Costs, variables: dict[str, Any]) -> int:
    """Count how often a value is gone through."""
    values: list[Any] = []

    def counting(value: Any) -> int:
        values.append(value)
        return weigh(value)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("schema.cost.weigh", counting)
        costs.of(variables)
    return len(values)


def test_the_operation_that_is_meant_is_measured() -> None:
    text = f"query A {{ {CONTEXT} {{ id }} }} query B {{ contexts {{ nodes {{ id }} }} }}"
    assert [costs_of(text, name).of({}).rows for name in ("A", "B")] == [1, 50]


def test_numbers_end_where_readers_of_json_end() -> None:
    depth = 29
    body = "forks(first: 1000) { nodes { " * depth + "id" + " } }" * depth
    cost = costs_of(f"query ($n: Int) {{ contexts(first: $n) {{ nodes {{ {body} }} }} }}").of({"n": 1_000})
    assert cost == Cost(COST_MAX, COST_MAX)
    assert cost.points == COST_MAX


@pytest.mark.parametrize(
    ("cost", "points"),
    [(Cost(0, 0), 1), (Cost(0, 1_024), 1), (Cost(0, 1_025), 2), (Cost(7, 1_025), 7), (Cost(1, 9_999), 10)],
)
def test_points_are_rows_or_kib(cost: Cost, points: int) -> None:
    assert cost.points == points
    assert cost.shown() == {"rows": cost.rows, "bytes": cost.bytes, "points": points}


@pytest.mark.parametrize(
    ("selection", "rows_at_most", "points"),
    [
        (f"{{ {CONTEXT} {{ window(budget: 8000) {{ messages {{ id }} }} }} }}", 8_001, 81),
        (f"{{ {CONTEXT} {{ ancestors {{ id }} }} }}", 10_001, 11),
        (f"{{ {CONTEXT} {{ tree {{ nodes {{ id }} }} }} }}", 1_001, 101),
        ("{ contexts(first: 10) { nodes { ancestors { parent { id } } } } }", 20_010, 210),
        (f"{{ {CONTEXT} {{ messages(first: 1000) {{ nodes {{ id }} }} }} }}", 1_001, 1_001),
    ],
)
def test_points_are_of_what_is_usual_of_lists_that_are_hardly_ever_as_long_as_they_may_be(
    selection: str, rows_at_most: int, points: int
) -> None:
    cost = costs_of(selection).of({})
    assert (cost.rows, cost.points) == (rows_at_most, points)


def test_fragments_that_double_are_measured_as_what_they_are_merged_to() -> None:
    links = " ".join(f"fragment F{n} on Context {{ ...F{n + 1} ... {{ ...F{n + 1} }} }}" for n in range(60))
    start = perf_counter()
    assert rows(f"{{ {CONTEXT} {{ ...F0 }} }} {links} fragment F60 on Context {{ id parent {{ id }} }}") == 2
    assert perf_counter() - start < 10  # exponential would be years


def test_the_usual_introspection_is_affordable() -> None:
    cost = costs_of(get_introspection_query(specified_by_url=True, input_value_deprecation=True)).of({})
    assert cost.rows == 0
    assert 100_000 < cost.bytes < 10_000_000


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: (
    st.lists(inner) | st.dictionaries(st.text(), inner)
)))  # fmt: skip
def test_weights_of_values_are_those_of_their_texts(value: Any) -> None:
    def reference(part: Any) -> int:
        match part:
            case None:
                return 0
            case str():
                return len(part.encode("utf-8", "surrogatepass"))
            case list():
                return sum(map(reference, part))
            case dict():
                return sum(reference(key) + reference(each) for key, each in part.items())
        return 8

    assert weigh(value) == reference(value)
