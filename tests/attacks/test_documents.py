"""Documents that cost more than they look: all are refused before anything is executed, by what they are."""

import json

import pytest

from schema.errors import Code
from tests.attacks.victim import Victim

pytestmark = pytest.mark.usefixtures("nothing_written")

UNKNOWN = "0198c0de-7d0e-7000-8000-000000000000"


def test_ten_thousand_aliases_are_refused(victim: Victim) -> None:
    fields = " ".join(f"a{number}: health {{ status }}" for number in range(10_000))
    assert victim.refuse(f"{{ {fields} }}") == Code.LIMIT_EXCEEDED


def test_two_thousand_aliases_of_a_context_are_refused(victim: Victim) -> None:
    fields = " ".join(f'a{number}: context(id: "{UNKNOWN}") {{ id }}' for number in range(1_500))
    assert victim.refuse(f"{{ {fields} }}") == Code.LIMIT_EXCEEDED


def test_aliases_below_a_page_are_refused(victim: Victim) -> None:
    inner = " ".join(f"m{number}: messages(first: 1000) {{ nodes {{ content }} }}" for number in range(900))
    assert victim.refuse(f"{{ contexts(first: 1000) {{ nodes {{ {inner} }} }} }}") == Code.LIMIT_EXCEEDED


def test_one_field_asked_ten_thousand_times_is_refused(victim: Victim) -> None:
    assert victim.refuse("{ " + "__typename " * 9_000 + "}") == Code.LIMIT_EXCEEDED


def test_overlapping_fields_are_refused_before_they_are_compared(victim: Victim) -> None:
    fields = "health { status } " * 1_000
    assert victim.refuse(f"{{ {fields} }}") == Code.LIMIT_EXCEEDED


def test_directives_by_the_thousand_are_refused(victim: Victim) -> None:
    assert victim.refuse("{ __typename " + "@include(if: true) " * 3_000 + "}") == Code.LIMIT_EXCEEDED


def test_unknown_directives_are_told_briefly(victim: Victim) -> None:
    answer = victim.ask("{ __typename " + "@a " * 3_000 + "}")
    assert answer.code in {Code.LIMIT_EXCEEDED, Code.GRAPHQL_VALIDATION_FAILED}
    assert len(answer.json["errors"]) <= 21
    assert len(answer.body) < 50_000


def test_unknown_fields_are_told_briefly(victim: Victim) -> None:
    answer = victim.ask("{ " + " ".join(f"nothing{number}" for number in range(1_900)) + " }")
    assert answer.code in {Code.LIMIT_EXCEEDED, Code.GRAPHQL_VALIDATION_FAILED}
    assert len(answer.json["errors"]) <= 21
    assert len(answer.body) < 50_000


def test_a_mutation_of_a_thousand_fields_is_refused_whole(victim: Victim) -> None:
    fields = " ".join(f"a{number}: createContext(input: {{}}) {{ context {{ id }} }}" for number in range(1_000))
    assert victim.refuse(f"mutation {{ {fields} }}") == Code.LIMIT_EXCEEDED


def test_a_batch_is_refused(victim: Victim) -> None:
    answer = victim.send([{"query": "mutation { createContext(input: {}) { context { id } } }"}] * 1_000)
    assert answer.code in {Code.BAD_USER_INPUT, Code.LIMIT_EXCEEDED}
    assert answer.status == 400


def test_a_batch_of_a_hundred_thousand_is_refused(victim: Victim) -> None:
    body = b"[" + b",".join([b'{"query":"{__typename}"}'] * 100_000) + b"]"
    assert victim.send(body).code in {Code.BAD_USER_INPUT, Code.LIMIT_EXCEEDED}


def test_fragments_in_a_circle_are_refused(victim: Victim) -> None:
    assert victim.refuse("{ ...A } fragment A on Query { ...A }") == Code.GRAPHQL_VALIDATION_FAILED
    chain = " ".join(f"fragment F{number} on Query {{ ...F{(number + 1) % 1_000} }}" for number in range(1_000))
    assert victim.refuse(f"{{ ...F0 }} {chain}") in {Code.GRAPHQL_VALIDATION_FAILED, Code.LIMIT_EXCEEDED}


def test_fragments_in_a_circle_through_fields_are_refused(victim: Victim) -> None:
    text = "{ contexts { nodes { ...A } } } fragment A on Context { parent { ...B } } fragment B on Context { ...A }"
    assert victim.refuse(text) == Code.GRAPHQL_VALIDATION_FAILED


def test_fragments_in_a_circle_that_nobody_spreads_are_refused(victim: Victim) -> None:
    text = "{ __typename } fragment A on Context { parent { ...B } } fragment B on Context { parent { ...A } }"
    assert victim.refuse(text) == Code.GRAPHQL_VALIDATION_FAILED


def test_fragments_that_double_forty_times_are_refused(victim: Victim) -> None:
    doubling = " ".join(f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(40))
    text = f"{{ ...F0 }} {doubling} fragment F40 on Query {{ __typename }}"
    assert victim.refuse(text) == Code.LIMIT_EXCEEDED


def test_fragments_that_double_through_fields_are_refused(victim: Victim) -> None:
    doubling = " ".join(
        f"fragment F{n} on Context {{ a: parent {{ ...F{n + 1} }} b: parent {{ ...F{n + 1} }} }}" for n in range(25)
    )
    text = f'{{ context(id: "{UNKNOWN}") {{ ...F0 }} }} {doubling} fragment F25 on Context {{ id }}'
    assert victim.refuse(text) == Code.LIMIT_EXCEEDED


def test_many_fragments_side_by_side_are_refused(victim: Victim) -> None:
    spreads = " ".join(f"...F{number}" for number in range(900))
    fragments = " ".join(f"fragment F{number} on Query {{ __typename }}" for number in range(900))
    assert victim.refuse(f"{{ {spreads} }} {fragments}") == Code.LIMIT_EXCEEDED


def test_inline_fragments_nested_by_the_thousand_are_refused(victim: Victim) -> None:
    assert victim.refuse("{ " + "... { " * 2_000 + "__typename" + " }" * 2_000 + " }") == Code.LIMIT_EXCEEDED


def test_fields_nested_too_deeply_are_refused(victim: Victim) -> None:
    for depth in (31, 150, 5_000):
        text = f'{{ context(id: "{UNKNOWN}") ' + "{ parent " * depth + "{ id }" + " }" * depth + " }"
        assert victim.refuse(text) == Code.LIMIT_EXCEEDED


def test_literals_nested_too_deeply_are_refused(victim: Victim) -> None:
    for opening, closing in (("[", "]"), ("{a: ", "}")):
        value = opening * 5_000 + "1" + closing * 5_000
        text = f"mutation {{ createContext(input: {{metadata: {value}}}) {{ context {{ id }} }} }}"
        assert victim.refuse(text) == Code.LIMIT_EXCEEDED
    assert victim.refuse(f"{{ nodes(ids: {'[' * 190}1{']' * 190}) {{ id }} }}") in {
        Code.GRAPHQL_VALIDATION_FAILED,
        Code.BAD_USER_INPUT,
        Code.LIMIT_EXCEEDED,
    }


def test_types_of_variables_nested_too_deeply_are_refused(victim: Victim) -> None:
    text = "query ($a: " + "[" * 5_000 + "Int" + "]" * 5_000 + ") { __typename }"
    assert victim.refuse(text) in {Code.LIMIT_EXCEEDED, Code.GRAPHQL_PARSE_FAILED}


def test_variables_nested_too_deeply_are_refused(victim: Victim) -> None:
    text = "mutation ($m: JSON) { createContext(input: {metadata: $m}) { context { id } } }"
    for depth in (300, 100_000):
        for opening, closing in (("[", "]"), ('{"a":', "}")):
            value = opening * depth + "1" + closing * depth
            body = f'{{"query": {json.dumps(text)}, "variables": {{"m": {{"a": {value}}}}}}}'.encode()
            assert victim.send(body).code in {Code.LIMIT_EXCEEDED, Code.BAD_USER_INPUT}


def test_lists_of_a_hundred_thousand_items_are_refused(victim: Victim) -> None:
    ids = [UNKNOWN] * 100_000
    body = {"query": "query ($ids: [ID!]!) { nodes(ids: $ids) { id } }", "variables": {"ids": ids}}
    assert victim.refuse(body) == Code.LIMIT_EXCEEDED
    literal = " ".join([f'"{UNKNOWN}"'] * 1_001)
    assert victim.refuse(f"{{ nodes(ids: [{literal}]) {{ id }} }}") == Code.LIMIT_EXCEEDED


def test_variables_by_the_thousand_are_refused(victim: Victim) -> None:
    declared = " ".join(f"$v{number}: Int" for number in range(9_000))
    assert victim.refuse(f"query ({declared}) {{ __typename }}") == Code.LIMIT_EXCEEDED


def test_values_for_variables_that_nobody_declares_cost_nothing(victim: Victim) -> None:
    body = {"query": "{ __typename }", "variables": {f"v{number}": number for number in range(100_000)}}
    assert victim.send(body).data == {"__typename": "Query"}


def test_operations_by_the_thousand_are_refused(victim: Victim) -> None:
    operations = " ".join(f"query Q{number} {{ __typename }}" for number in range(1_500))
    assert victim.refuse({"query": operations, "operationName": "Q7"}) == Code.LIMIT_EXCEEDED


def test_operations_that_share_costly_fragments_are_refused(victim: Victim) -> None:
    fragment = "fragment F on Query { " + " ".join(f"a{n}: __typename" for n in range(1_900)) + " }"
    operations = " ".join(f"query Q{number} {{ ...F }}" for number in range(100))
    assert victim.refuse({"query": f"{operations} {fragment}", "operationName": "Q7"}) == Code.LIMIT_EXCEEDED


def test_comments_by_the_thousand_are_refused(victim: Victim) -> None:
    assert victim.refuse("#\n" * 250_000 + "{ __typename }") == Code.LIMIT_EXCEEDED


def test_a_comment_of_a_megabyte_is_refused(victim: Victim) -> None:
    assert victim.refuse("#" + "x" * 1_000_000 + "\n{ __typename }") == Code.LIMIT_EXCEEDED


def test_commas_and_spaces_by_the_megabyte_are_refused(victim: Victim) -> None:
    assert victim.refuse("{" + " ,\n" * 400_000 + "__typename }") == Code.LIMIT_EXCEEDED


def test_strings_by_the_megabyte_are_refused(victim: Victim) -> None:
    for quoted in (f'"{"x" * 1_000_000}"', '"' + "\\u0041" * 200_000 + '"', f'"""{"x" * 1_000_000}"""'):
        text = f"mutation {{ createContext(input: {{name: {quoted}}}) {{ context {{ id }} }} }}"
        assert victim.refuse(text) == Code.LIMIT_EXCEEDED


def test_block_strings_of_many_lines_take_linear_work(victim: Victim) -> None:
    for lines in ("\n" * 500_000, " \n" * 250_000, "\n".join(" " * (n % 300) for n in range(3_000))):
        text = f'mutation {{ createContext(input: {{name: """{lines}x"""}}) {{ context {{ id }} }} }}'
        # Lines of nothing are cut away, and the name that is left is one of many spaces or of one letter.
        answer = victim.ask(text + " trailing")
        assert answer.code in {Code.LIMIT_EXCEEDED, Code.GRAPHQL_PARSE_FAILED}


def test_strings_and_comments_that_never_end_take_linear_work(victim: Victim) -> None:
    for text in ('{ a(b: "' + "\\" * 400_001, '{ a(b: """' + '\\"""' * 100_000, '"' * 500_001, "{ a #" + "x" * 500_000):
        assert victim.refuse(text) in {Code.GRAPHQL_PARSE_FAILED, Code.LIMIT_EXCEEDED}


def test_names_of_two_hundred_thousand_letters_are_told_briefly(victim: Victim) -> None:
    name = "x" * 200_000
    for text in (f"{{ {name} }}", f"query {name} {{ {name} }}", f"{{ a: __typename @{name} }}", f"{{ ...{name} }}"):
        answer = victim.ask(text)
        assert answer.code == Code.GRAPHQL_VALIDATION_FAILED
        assert len(answer.body) < 5_000
    answer = victim.send({"query": "query Q { __typename }", "operationName": name})
    assert answer.code == Code.BAD_USER_INPUT
    assert len(answer.body) < 5_000


def test_suggestions_for_a_misspelt_name_cost_no_more_than_others(victim: Victim) -> None:
    for text in ("{ contextz { id } }", "{ " + "c" * 100_000 + " }", '{ context(idd: "x") { id } }'):
        assert victim.refuse(text) == Code.GRAPHQL_VALIDATION_FAILED


def test_a_page_over_the_largest_is_refused(victim: Victim) -> None:
    for first in (1_001, 2**31 - 1, -1, 10**10, 10**300):
        answer = victim.ask(f"{{ contexts(first: {first}) {{ nodes {{ id }} }} }}")
        assert answer.code in {Code.LIMIT_EXCEEDED, Code.BAD_USER_INPUT, Code.GRAPHQL_VALIDATION_FAILED}


def test_pages_within_pages_are_refused(victim: Victim) -> None:
    inner = "{ nodes { id forks(first: 1000) { nodes { id forks(first: 1000) { nodes { id } } } } } }"
    answer = victim.ask(f"{{ contexts(first: 1000) {inner} }}")
    assert answer.code == Code.LIMIT_EXCEEDED


def test_type_system_definitions_are_refused(victim: Victim) -> None:
    for text in ("type Query { a: Int }", "{ __typename } extend type Query { a: Int }", "schema { query: Q }"):
        assert victim.refuse(text) in {Code.GRAPHQL_VALIDATION_FAILED, Code.BAD_USER_INPUT, Code.GRAPHQL_PARSE_FAILED}


def test_no_document_at_all_is_refused(victim: Victim) -> None:
    for query in ("", " ", "#", ",,,", "\ufeff", "query", "}", "\0"):
        assert victim.refuse(query) in {Code.BAD_USER_INPUT, Code.GRAPHQL_PARSE_FAILED}


def test_subscriptions_of_several_fields_are_refused(victim: Victim) -> None:
    fields = " ".join(f'a{number}: contextChanged(contextId: "{UNKNOWN}") {{ kind }}' for number in range(100))
    assert victim.refuse(f"subscription {{ {fields} }}") in {Code.GRAPHQL_VALIDATION_FAILED, Code.BAD_USER_INPUT}
