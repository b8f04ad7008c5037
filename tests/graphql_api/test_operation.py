import asyncio
from typing import Any

import pytest
from graphql import OperationType, get_introspection_query
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from graphql_api.operation import Operations, Parameters, Prepared
from graphql_api.outcome import Outcome
from graphql_api.settings import Settings
from schema.errors import Code
from schema.principal import ANYBODY
from tests.graphql_api.small_schema import FAILURES, SCHEMA, SECRET

SETTINGS = Settings(_env_file=None)


@pytest.fixture
def operations() -> Operations:
    return Operations(SCHEMA, SETTINGS)


async def run(
    operations: Operations, query: str, variables: dict[str, Any] | None = None, name: str | None = None
) -> Outcome:
    prepared = operations.prepare(Parameters(query, variables or {}, name), ANYBODY)
    return prepared if isinstance(prepared, Outcome) else await operations.execute(prepared, "CONTEXT")


def code(outcome: Outcome) -> tuple[str, Code]:
    """Check what holds of every error that is shown; give the kind and the code."""
    assert SECRET not in repr(outcome)
    error = outcome.body["errors"][0]
    assert 0 < len(error["message"]) <= 1_000
    assert set(error) <= {"message", "locations", "path", "extensions"}
    assert ("data" in outcome.body) is (outcome.kind == "executed")
    return outcome.kind, Code(error["extensions"]["code"])


def message(outcome: Outcome) -> str:
    (error,) = outcome.body["errors"]
    return str(error["message"])


async def test_strawberry_resolvers_run_under_plain_execution(operations: Operations) -> None:
    query = "query ($c: Colour!) { a: context colour(colour: $c) __typename j: json(value: {a: [1]}) }"
    outcome = await run(operations, query, {"c": "BLUE"})
    data = {"a": "CONTEXT context a Query", "colour": "BLUE", "__typename": "Query", "j": {"a": [1]}}
    assert outcome == Outcome({"data": data}, "executed")


async def test_input_objects_lists_and_nested_selections(operations: Operations) -> None:
    query = "query ($p: PartInput) { part(part: $p) deeper { deeper { numbers(numbers: [1, 2]) } } }"
    outcome = await run(operations, query, {"p": {"name": "x", "odd": "y", "parts": [{"name": "z"}]}})
    assert outcome == Outcome({"data": {"part": False, "deeper": {"deeper": {"numbers": 2}}}}, "executed")


async def test_introspection_with_every_option_is_allowed(operations: Operations) -> None:
    query = get_introspection_query(
        specified_by_url=True,
        directive_is_repeatable=True,
        schema_description=True,
        input_value_deprecation=True,
        experimental_directive_deprecation=False,
        one_of=True,
    )
    outcome = await run(operations, query)
    assert list(outcome.body) == ["data"]


REQUEST_ERRORS = {
    "{": Code.GRAPHQL_PARSE_FAILED,
    "": Code.GRAPHQL_PARSE_FAILED,
    "\ud800": Code.GRAPHQL_PARSE_FAILED,
    '{ echo(text: "\ud800") }': Code.GRAPHQL_PARSE_FAILED,
    "{ nothing }": Code.GRAPHQL_VALIDATION_FAILED,
    "{ echo(text: 1) }": Code.GRAPHQL_VALIDATION_FAILED,
    f"{{ required(number: {'9' * 5_000}) }}": Code.GRAPHQL_VALIDATION_FAILED,
    '{ part(odd: "fail") }': Code.GRAPHQL_VALIDATION_FAILED,
    '{ part(odd: "refuse") }': Code.GRAPHQL_VALIDATION_FAILED,
    '{ part(odd: "limit") }': Code.LIMIT_EXCEEDED,
    '{ part(odd: "recurse") }': Code.LIMIT_EXCEEDED,
    "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }": Code.GRAPHQL_VALIDATION_FAILED,
    "type Query { a: Int }": Code.GRAPHQL_VALIDATION_FAILED,
    "fragment A on Query { echo }": Code.GRAPHQL_VALIDATION_FAILED,
    "query A { echo } query B { echo }": Code.BAD_USER_INPUT,
    "query A { echo } query A { echo }": Code.GRAPHQL_VALIDATION_FAILED,
    "subscription { ticks }": Code.BAD_USER_INPUT,
    "{ numbers(numbers: [[1]]) }": Code.GRAPHQL_VALIDATION_FAILED,
    "{ a: json(value: " + "[" * 300 + "]" * 300 + ") }": Code.LIMIT_EXCEEDED,
}


@pytest.mark.parametrize("query", REQUEST_ERRORS, ids=lambda query: ascii(query[:40]))
async def test_a_bad_document_is_a_request_error(operations: Operations, query: str) -> None:
    assert code(await run(operations, query)) == ("request_error", REQUEST_ERRORS[query])


VARIABLE_ERRORS: list[tuple[str, Any, Code]] = [
    ("Int!", None, Code.BAD_USER_INPUT),
    ("Int!", "1", Code.BAD_USER_INPUT),
    ("Int!", 2**40, Code.BAD_USER_INPUT),
    ("Int!", 10**4_000, Code.BAD_USER_INPUT),
    ("Int!", float("inf"), Code.BAD_USER_INPUT),
    ("Odd", "fail", Code.BAD_USER_INPUT),
    ("Odd", "refuse", Code.BAD_USER_INPUT),
    ("Odd", "limit", Code.LIMIT_EXCEEDED),
    ("Odd", "recurse", Code.LIMIT_EXCEEDED),
    ("Colour", "\ud800", Code.BAD_USER_INPUT),
    ("PartInput", {"name": "x", "odd": "limit"}, Code.LIMIT_EXCEEDED),
    ("PartInput", {"name": "x" * 100_000, "x" * 100_000: 1}, Code.BAD_USER_INPUT),
    ("PartInput", [], Code.BAD_USER_INPUT),
    ("[Int!]", [1] * 10_001, Code.LIMIT_EXCEEDED),
    ("[Int!]", ["x"] * 10_000, Code.BAD_USER_INPUT),
]


@pytest.mark.parametrize(("kind", "value", "expected"), VARIABLE_ERRORS, ids=lambda value: ascii(value)[:20])
async def test_a_variable_that_does_not_coerce_is_a_request_error(
    operations: Operations, kind: str, value: Any, expected: Code
) -> None:
    fields = {
        "Int!": "required(number: $v)",
        "Odd": "part(odd: $v)",
        "Colour": "json(value: [$v])",
        "PartInput": "part(part: $v)",
        "[Int!]": "json(value: [$v])",
    }
    outcome = await run(operations, f"query ($v: {kind}) {{ {fields[kind]} }}", {"v": value})
    assert code(outcome) == ("request_error", expected)


async def test_a_scalar_s_refusal_names_its_place(operations: Operations) -> None:
    outcome = await run(operations, "query ($p: PartInput) { part(part: $p) }", {"p": {"name": "", "odd": "refuse"}})
    assert message(outcome) == "Variable '$p' has invalid value at .odd: odd is refused: send even"


async def test_what_a_scalar_raised_is_not_shown(operations: Operations) -> None:
    outcome = await run(operations, "query ($o: Odd) { part(odd: $o) }", {"o": "fail"})
    assert message(outcome) == "Variable '$o' has invalid value: The value does not belong to the type Odd."


async def test_variables_may_not_be_nested_too_deeply(operations: Operations) -> None:
    part: dict[str, Any] = {"name": "x"}
    for _ in range(900):
        part = {"name": "x", "parts": [part]}
    outcome = await run(operations, "query ($p: PartInput) { part(part: $p) }", {"p": part})
    assert code(outcome) == ("request_error", Code.LIMIT_EXCEEDED)


@pytest.mark.parametrize("field", ["fail", "failNow"])
@pytest.mark.parametrize("how", FAILURES)
async def test_a_failing_resolver_shows_only_what_was_meant(operations: Operations, how: str, field: str) -> None:
    with capture_logs() as lines:
        outcome = await run(operations, f'{{ {field}(how: "{how}") }}')
    failure, expected = FAILURES[how]
    assert code(outcome) == ("executed", expected)
    assert outcome.body["data"] == {field: None}
    assert outcome.body["errors"][0]["path"] == [field]
    if expected is Code.INTERNAL_SERVER_ERROR:
        assert [line["error_id"] for line in lines] == [outcome.body["errors"][0]["extensions"]["errorId"]]
    elif not isinstance(failure, RecursionError):
        assert message(outcome) == str(failure)


@pytest.mark.parametrize("field", ["null", "huge", "wrongEnum", "odd"])
async def test_a_result_that_does_not_fit_the_schema_is_our_fault(operations: Operations, field: str) -> None:
    with capture_logs() as lines:
        outcome = await run(operations, f"{{ {field} }}")
    assert code(outcome) == ("executed", Code.INTERNAL_SERVER_ERROR)
    assert [line["event"] for line in lines] == ["unforeseen error"]


@pytest.mark.parametrize(
    ("query", "variables"),
    [
        ("query ($n: Int = 1) { required(number: $n) }", {"n": None}),
        ("query ($b: Boolean = true) { echo @skip(if: $b) }", {"b": None}),
        ("query ($b: Boolean = true) { deeper { echo @include(if: $b) } }", {"b": None}),
    ],
)
async def test_null_where_a_default_hid_it_is_the_callers_fault(
    operations: Operations, query: str, variables: dict[str, Any]
) -> None:
    assert code(await run(operations, query, variables)) == ("executed", Code.BAD_USER_INPUT)


async def test_cancellation_is_not_an_error(operations: Operations) -> None:
    with pytest.raises(asyncio.CancelledError):
        await run(operations, "{ cancelled }")


async def test_of_very_many_errors_the_first_are_shown(operations: Operations) -> None:
    outcome = await run(operations, "{ many(count: 1000) { value } }")
    assert len(outcome.body["errors"]) == 101
    assert outcome.body["errors"][-1]["message"] == "900 more errors are left out."
    outcome = await run(operations, "{" + " nothing" * 100 + "}")
    assert len(outcome.body["errors"]) == 21


NAMES = "query A { echo } query B { colour } mutation C { write }"


@pytest.mark.parametrize(("name", "kind"), [("A", OperationType.QUERY), ("C", OperationType.MUTATION)])
def test_the_operation_is_chosen_by_name(operations: Operations, name: str, kind: OperationType) -> None:
    prepared = operations.prepare(Parameters(NAMES, operation_name=name), ANYBODY)
    assert isinstance(prepared, Prepared)
    assert (prepared.type, prepared.operation.name and prepared.operation.name.value) == (kind, name)


@pytest.mark.parametrize(("query", "name"), [(NAMES, None), (NAMES, "D"), ("{ echo }", "A"), (NAMES, "x" * 5_000)])
async def test_an_operation_that_cannot_be_chosen_is_a_request_error(
    operations: Operations, query: str, name: str | None
) -> None:
    assert code(await run(operations, query, name=name)) == ("request_error", Code.BAD_USER_INPUT)


WORDS = "{ } ( ) [ ] : ! $ @ = ... on query mutation fragment Query A B echo deeper null fail 1 -1.5e3 true ...A #"
TOKENS = st.sampled_from([*WORDS.split(), '"x"', '"""', "\n", "@skip(if: true)", "__schema", "\ud800", "\x00", "é"])


@given(st.lists(TOKENS, max_size=40).map(" ".join))
async def test_any_document_gets_data_or_errors_with_a_code(query: str) -> None:
    outcome = await run(Operations(SCHEMA, SETTINGS), query)
    assert "data" in outcome.body or code(outcome)[0] == "request_error"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.just("fail"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "odd", "parts", "x"]), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["n", "t", "p", "c", "zz"]), VALUES))
async def test_any_variables_get_data_or_errors_with_a_code(variables: dict[str, Any]) -> None:
    query = """query ($n: Int!, $t: String, $p: PartInput, $c: Colour) {
      required(number: $n) echo(text: $t) part(part: $p) colour(colour: $c) }"""
    outcome = await run(Operations(SCHEMA, SETTINGS), query, variables)
    assert "errors" not in outcome.body or code(outcome)[1] in {Code.BAD_USER_INPUT, Code.LIMIT_EXCEEDED}
