from typing import Any

import pytest
from graphql import GraphQLError, Lexer, Source, TokenKind, parse, print_ast, validate
from hypothesis import example, given
from hypothesis import strategies as st

from graphql_api.documents import Document, Documents, Invalid
from graphql_api.limits import CHARACTERS_MAX
from graphql_api.literals import TOKENS, TOKENS_MAX, lift, scan
from graphql_api.operation import Operations, Parameters, Prepared
from graphql_api.outcome import Outcome
from graphql_api.settings import Settings
from schema.cost import Cost
from schema.principal import ANYBODY
from schema.root import schema as real_schema
from tests.graphql_api.small_schema import SCHEMA

SETTINGS = Settings(_env_file=None)
OPERATIONS = Operations(SCHEMA, SETTINGS)


def lifted(text: str) -> tuple[str, dict[str, Any] | None, tuple[str, ...]] | None:
    """Give the lifted document on one line, the values of its variables, and the literals that stay."""
    document = parse(text)
    assert validate(SCHEMA, document) == []
    found, cut = lift(SCHEMA, document, text), scan(text)
    if found is None:
        return None
    assert cut
    return " ".join(print_ast(found[1]).split()), found[0].values(cut[1]), found[0].rest(cut[1])


async def run(document: Document, variables: dict[str, Any]) -> Outcome:
    prepared = Prepared(document, document.choose(None), Parameters("", variables), "", ANYBODY, Cost(0, 0))
    return await OPERATIONS.execute(prepared, "CONTEXT")


async def agree(documents: Documents, text: str, variables: dict[str, Any] | None = None) -> bool:
    """Check that a text's shared document, if there is one, gives what its own document gives."""
    shared = documents.shared(text)
    if shared is None:
        return False
    document, values = shared
    exact = Documents(SCHEMA, SETTINGS).find(text)
    outcome = await run(document, {**(variables or {}), **values})
    expected = await run(exact, variables or {})
    for error in (*outcome.body.get("errors", ()), *expected.body.get("errors", ())):
        if error_id := error["extensions"].pop("errorId", None):  # another one each time
            error["message"] = error["message"].replace(error_id, "")
    assert outcome == expected
    return True


def test_structure_and_literals_of_a_text() -> None:
    text = '{ a1(id: "x", n: -5, f: 1.5, g: 2e7) # "no" 3\n b(s: "\\"", t: """ "4" """, u: "") }'
    assert scan(text) == (
        (
            *("{ a1(id: ", "String", ", n: ", "Int", ", f: 1.5, g: 2e7) ", '# "no" 3', "\n b(s: "),
            *('"\\""', ", t: ", '""" "4" """', ", u: ", "String", ") }"),
        ),
        ['"x"', "-5", '""'],
    )


@pytest.mark.parametrize(
    "text", ["", "{ a }", "{ a1 b2 }", "{ a(f: 1.0) }", "{ a(n: 01) }", "{ a(n: 12345678901) }", '{ a(s: """x""") }']
)
def test_a_text_without_plain_literals_is_not_cut(text: str) -> None:
    assert scan(text) is None


def test_too_many_literals_and_too_long_texts_are_not_cut() -> None:
    assert scan("[" + "1 " * TOKENS_MAX + "]") is not None
    assert scan("[" + "1 " * (TOKENS_MAX + 1) + "]") is None
    assert scan("[1]" + " " * 70_000) is None


@pytest.mark.parametrize("text", ['"\\', '"', '"""\\', "1-", "#", '"\n', "1 ", '\\"', '"" ', "-", "0", "\ud800", "#\r"])
def test_cutting_is_linear(text: str) -> None:
    TOKENS.split(text * (CHARACTERS_MAX // len(text)), TOKENS_MAX)  # quadratic, one of them would take hours


LIFTED = {
    '{ show(id: "x") }': ("query ($_0: ID!) { show(id: $_0) }", {"_0": "x"}, ()),
    "{ show(id: -0) }": ("query ($_0: ID!) { show(id: $_0) }", {"_0": "-0"}, ()),
    "{ show(number: -0) }": ("query ($_0: Int!) { show(number: $_0) }", {"_0": 0}, ()),
    "{ show(ratio: 3) }": ("query ($_0: Float!) { show(ratio: $_0) }", {"_0": 3.0}, ()),
    '{ show(ids: ["x", 5]) }': ("query ($_0: ID!, $_1: ID!) { show(ids: [$_0, $_1]) }", {"_0": "x", "_1": "5"}, ()),
    '{ show(odd: "3") }': ("query ($_0: Odd!) { show(odd: $_0) }", {"_0": "3"}, ()),
    "{ show(one: {number: 3}) }": ("query ($_0: Int!) { show(one: { number: $_0 }) }", {"_0": 3}, ()),
    '{ show(part: {name: "x", parts: [{name: "y", odd: "z"}]}) }': (
        "query ($_0: String!, $_1: String!, $_2: Odd!) { show(part: { name: $_0, parts: [{ name: $_1, odd: $_2 }] }) }",
        {"_0": "x", "_1": "y", "_2": "z"},
        (),
    ),
    'query ($_0: Int = 5) { show(number: $_0, text: "x", value: {a: 1, b: ["y"]}) }': (
        'query ($_0: Int = 5, $__1: String!) { show(number: $_0, text: $__1, value: { a: 1, b: ["y"] }) }',
        {"__1": "x"},
        ("5", "1", '"y"'),
    ),
    'query ($ _0: Int, $__: Int) { show(number: $_0, text: "$___") deeper { show(number: $__) } }': (
        "query ($_0: Int, $__: Int, $___0: String!) { show(number: $_0, text: $___0) deeper { show(number: $__) } }",
        {"___0": "$___"},
        (),
    ),
    'query A($b: Boolean!) { ...F @skip(if: $b) } fragment F on Query { deeper { show(text: "x") } }': (
        "query A($b: Boolean!, $_0: String!) { ...F @skip(if: $b) } fragment F on Query { deeper { show(text: $_0) } }",
        {"_0": "x"},
        (),
    ),
    '{ __type(name: "Query") { name } }': ("query ($_0: String!) { __type(name: $_0) { name } }", {"_0": "Query"}, ()),
}


@pytest.mark.parametrize("text", LIFTED)
def test_literals_become_variables_of_their_place(text: str) -> None:
    assert lifted(text) == LIFTED[text]


NOT_LIFTED = [
    '{ show(ids: "x") }',  # one for a list
    '{ show(value: ["x", {a: 1}]) }',
    "query ($n: Int = 3) { show(number: $n) }",
    '{ a: show(id: "x") a: show(id: "x") }',  # may not be merged when they differ
    '{ ...F deeper { show(id: "x") } } fragment F on Query { deeper { show(id: "x") } }',
    'query A { show(id: "x") } query B { show(id: "x") }',
    'mutation { write(text: "x") }',
]


@pytest.mark.parametrize("text", NOT_LIFTED)
def test_what_might_mean_something_else_is_not_shared(text: str) -> None:
    assert lifted(text) is None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("{ show(number: 1) }", "{ show(number: 2147483648) }"),
        ("{ show(number: 1) }", "{ show(number: -2147483649) }"),
        ("{ show(number: 1) }", '{ show(number: "1") }'),
        ("{ show(number: 1) }", "{ show(number: 1.0) }"),
        ('{ show(odd: "1") }', '{ show(odd: "fail") }'),
        ('{ show(odd: "1") }', '{ show(odd: "limit") }'),
        ('{ show(text: "1") }', "{ show(text: 1) }"),
        ('{ show(ids: ["1" "1"]) }', '{ show(ids: ["" "1"]) }'.replace(" ", "")),
        ('{ show(text: "1") }', '{ show(text: "\ud83d\ude00") }'),
        ('{ show(text: "1") }', '{ show(text: "\\u0031") }'),
        ('{ show(text: "1") }', '{ show(text: """1""") }'),
        ("{ show(value: 1, number: 1) }", "{ show(value: 2, number: 1) }"),
    ],
)
def test_a_text_that_differs_in_more_than_values_is_not_shared(first: str, second: str) -> None:
    documents = Documents(SCHEMA, SETTINGS)
    documents.shared(first)
    assert documents.shared(first) is not None
    assert documents.shared(second) is None


def test_other_literals_that_stay_have_a_document_of_their_own() -> None:
    documents = Documents(SCHEMA, SETTINGS)
    texts = [f'{{ show(value: {value}, text: "{text}") }}' for value in (1, 2) for text in ("$_1", "b", "c")]
    found = [documents.shared(text) for text in texts]
    assert [shared and shared[1] for shared in found] == [
        None,
        {"_1": "b"},
        {"_1": "c"},
        None,
        {"_1": "b"},
        {"_1": "c"},
    ]
    used = [shared[0] for shared in found if shared]
    assert used[0] is used[1] is not used[2] is used[3]


# What could be taken for something else, in literals and between them.
SNIPPETS = [
    '"',
    "'",
    "#",
    "\\",
    '\\"',
    '"""',
    "\\u0041",
    "\\n",
    "\u2028",
    "\ufeff",
    "é",
    "😀",
    "$_0",
    "{",
    "1",
    ",",
    "\x00",
]
WORDS = st.lists(st.sampled_from([*SNIPPETS, "a", " ", "-", "\ud800", "\n", "\r"]), max_size=4).map("".join)
STRINGS = WORDS.map(lambda text: f'"{text}"') | WORDS.map(lambda text: f'"""{text}"""') | st.just('"fail"')
NUMBERS = st.integers(-(2**33), 2**33).map(str) | st.sampled_from(
    ["0", "-0", "1.5", "-1e5", "1E+2", "01", "1x", "-", "0.5"]
)
LITERALS = st.one_of(STRINGS, NUMBERS, st.sampled_from(["null", "true", "RED", "$v", "[]", "{}"]))
GAPS = st.sampled_from([" ", ",", "\n", "", ' # "x" 1\n', "#\n", "\t, ", "\ufeff"])
ARGUMENTS = ["id", "number", "ratio", "text", "odd", "value"]


@st.composite
def fields(draw: st.DrawFn, literals: st.SearchStrategy[str]) -> str:
    def value(name: str) -> str:
        match name:
            case "ids":
                return "[" + draw(GAPS).join(draw(st.lists(literals, max_size=3))) + "]"
            case "part":
                return (
                    f"{{name: {draw(literals)}{draw(GAPS)} odd: {draw(literals)} parts: [{{name: {draw(literals)}}}]}}"
                )
            case "one":
                return f"{{id: {draw(literals)}}}"
        return draw(literals)

    names = draw(st.lists(st.sampled_from([*ARGUMENTS, "ids", "part", "one"]), min_size=1, max_size=3, unique=True))
    alias = draw(st.sampled_from(["", "a1: ", "b: ", "show: "]))
    return f"{alias}show({draw(GAPS).join(f'{name}:{value(name)} ' for name in names)})"


TEXTS = st.lists(fields(LITERALS), min_size=1, max_size=3).map(
    lambda found: "query ($v: String) {" + " ".join(found) + " ...F } fragment F on Query { deeper { echo(text: $v) } }"
)
# Mostly valid: each argument gets literals of its own type.
PLAIN = st.text(st.characters(exclude_characters='"\\\r\n', exclude_categories=["Cs"]), max_size=6).map(
    lambda text: f'"{text}"'
)
SMALL = st.integers(-(2**31), 2**31 - 1).map(str)


@st.composite
def same_structure(draw: st.DrawFn) -> list[str]:
    """Texts that differ only in their literals."""
    chosen = draw(
        st.lists(
            st.sampled_from(
                [
                    ("id", PLAIN), ("id", SMALL), ("number", SMALL), ("ratio", SMALL), ("text", PLAIN), ("odd", PLAIN),
                    ("ids", st.tuples(PLAIN, SMALL).map(lambda two: f"[{two[0]} {two[1]}]")),
                    ("part", st.tuples(PLAIN, PLAIN).map(lambda two: f"{{name: {two[0]} odd: {two[1]}}}")),
                    ("one", SMALL.map(lambda number: f"{{number:{number}}}")),
                ]
            ),
            min_size=1, max_size=4, unique_by=lambda one: one[0],
        )
    )  # fmt: skip
    gap = draw(GAPS.filter(bool))

    def text() -> str:
        shown = gap.join(f"{name}:{draw(literals)}" for name, literals in chosen)
        return f"query ($v: String) {{ x1: show({shown}) ...F }} fragment F on Query {{ deeper {{ echo(text: $v) }} }}"

    return [text() for _ in range(4)]


@given(same_structure())
async def test_texts_of_one_structure_share_a_document(texts: list[str]) -> None:
    documents = Documents(SCHEMA, SETTINGS)
    assert [await agree(documents, text, {"v": "é"}) for text in texts] == [False, True, True, True]


KEPT = st.sampled_from(['"a"', '"$_"', '"$_1"', "1", '"""$_"""', '"\\u0024_"'])


@given(st.lists(st.tuples(KEPT, PLAIN | KEPT), min_size=4, max_size=12))
async def test_literals_that_stay_never_mix_with_those_that_do_not(pairs: list[tuple[str, str]]) -> None:
    documents = Documents(SCHEMA, SETTINGS)
    for kept, text in pairs:
        await agree(documents, f"{{ show(value: [{kept}], text: {text}) }}")


@given(same_structure(), TEXTS, st.data())
async def test_a_text_that_was_touched_is_shared_only_if_that_changes_nothing(
    texts: list[str], other: str, data: st.DataObject
) -> None:
    documents = Documents(SCHEMA, SETTINGS)
    for text in (*texts[:2], other, other):
        await agree(documents, text, {"v": "é"})
    for text in (texts[2], other):
        start = data.draw(st.integers(0, len(text)))
        end = data.draw(st.integers(start, min(start + 4, len(text))))
        piece = data.draw(LITERALS | GAPS | st.sampled_from(SNIPPETS))
        await agree(documents, text[:start] + piece + text[end:], {"v": "é"})


@given(st.lists(TEXTS | WORDS, max_size=3).map(" ".join))
@example('["""a"]')
@example('"a""b"')
@example('1"a"-2#3')
def test_a_text_is_cut_where_the_lexer_cuts_it(text: str) -> None:
    lexer, tokens = Lexer(Source(text)), []
    try:
        token = lexer.token
        while token.kind is not TokenKind.EOF:
            token = lexer.read_next_token(token.end)
            tokens.append(token)
    except GraphQLError:
        return
    numbers = {(token.start, token.end) for token in tokens if token.kind is TokenKind.INT}
    kinds = {TokenKind.STRING, TokenKind.BLOCK_STRING, TokenKind.COMMENT}
    others = {(token.start, token.end) for token in tokens if token.kind in kinds}
    cut = {found.span() for found in TOKENS.finditer(text)}
    assert others == {span for span in cut if text[span[0]] in '"#'}
    assert {span for span in cut if text[span[0]] not in '"#'} == {
        span
        for span in numbers
        if len(text[slice(*span)].lstrip("-")) <= 10 and text[span[0] - 1 : span[0]] not in {*"-"}
    } - {span for span in numbers if span[0] and text[span[0] - 1].isalnum()}


def test_ids_sizes_cursors_and_moments_are_lifted_and_json_is_not() -> None:
    def text(context_id: str, first: int, cursor: str, moment: str, tag: str) -> str:
        return f"""{{
          node(id: "{context_id}") {{ ... on Context {{ ...Page name at(time: "{moment}") {{ version }} }} }}
          contexts(first: 2, filter: {{ metadataContains: {{ tag: "{tag}" }} nameContains: "x" }}) {{ nodes {{ id }} }}
        }}
        fragment Page on Context {{ messages(first: {first}, after: "{cursor}") {{ nodes {{ version }} }} }}"""

    documents = Documents(real_schema._schema, SETTINGS)  # noqa: SLF001 - graphql-core's own schema
    moment = "2026-11-23T20:09:00Z"
    first = text("0198c0de-7d0e-7000-8000-000000000000", 5, "c", moment, "t")
    documents.find(first)
    assert documents.shared(first) is None
    learned, shared = documents.shared(first), documents.shared(text("no id", -1, "", "0001-01-01T00:00:00Z", "t"))
    assert learned
    assert shared
    assert learned[0] is shared[0]
    assert list(shared[1].values()) == ["no id", "0001-01-01T00:00:00Z", 2, "x", -1, ""]
    assert documents.shared(text("", 5, "", "yesterday", "t")) is None
    assert documents.shared(text("", 5, "", moment, "another")) is None


def test_an_invalid_text_shares_nothing_and_spoils_nothing() -> None:
    documents = Documents(SCHEMA, SETTINGS)
    assert [documents.shared("{ show(number: 9999999999) }") for _ in range(3)] == [None, None, None]
    with pytest.raises(Invalid):
        documents.find("{ show(number: 9999999999) }")
    assert documents.shared("{ show(number: 1) }") is not None
