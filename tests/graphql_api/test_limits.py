from time import perf_counter

import pytest
from graphql import GraphQLError, OperationDefinitionNode, build_schema, get_introspection_query, parse
from hypothesis import given
from hypothesis import strategies as st

from graphql_api import limits
from graphql_api.limits import check_document, check_variables, read_document
from graphql_api.operation import Operations, Parameters
from graphql_api.outcome import Outcome
from graphql_api.settings import Settings
from schema.errors import LimitExceeded
from schema.principal import ANYBODY

# These would come first.
SETTINGS = Settings(_env_file=None, document_aliases_max=5_000, document_root_fields_max=5_000)
DEFAULTS = Settings(_env_file=None)
SCHEMA = build_schema("""
    type Query { n: Query  l: [Query!]!  a(x: Int, ids: [ID!]): Int }
    input In { ids: [[ID!]]  in: [In] }
    scalar JSON
""")


def chain(length: int, body: str) -> str:
    """Fragments that each spread the next one, `%d` in `body` being its number; the last asks for a field."""
    bodies = (body.replace("%d", str(number + 1)) for number in range(length))
    links = " ".join(f"fragment F{number} on Query {{ {text} }}" for number, text in enumerate(bodies))
    return f"{links} fragment F{length} on Query {{ a }} {{ n {{ ...F0 }} }}"


BOMB = chain(40, "...F%d ...F%d")
HALF = " ".join(f"a{number}: a" for number in range(1_001))
UNIQUE = " ".join(f"a{number}: a" for number in range(1_990))

REFUSED = {
    "repeats doubled by fragments": (BOMB, "fields"),
    "depth through fragments": (chain(30, "n { ...F%d }"), "deep"),
    "depth": ("{ n " * 30 + "{ a }" + "}" * 30, "deep"),
    "fields": (f"{{ {HALF} n {{ {HALF} }} }}", "2,003 fields"),
    "fields in a fragment that is not used": (
        f"{{ a }} fragment F on Query {{ {HALF} n {{ {HALF} }} }}",
        "2,003 fields",
    ),
    "fields of all operations": (
        "".join(f"query Q{number} {{ ...F }} " for number in range(6)) + f"fragment F on Query {{ {UNIQUE} }}",
        "together",
    ),
    "operations": ("".join(f"query Q{number} {{ a }} " for number in range(101)), "operations"),
    "one field repeated": ("{" + " a" * 201 + "}", "repeats"),
    "one alias repeated": ("{" + " a: n { a }" * 201 + "}", "repeats"),
    "repetition through fragments": (
        "".join(f"fragment F{number} on Query {{ n {{ a }} }} " for number in range(201))
        + "{ n {"
        + "".join(f"...F{number} " for number in range(201))
        + "} }",
        "repeats",
    ),
    "repetition below merged fields": ("{" + " n { a a a }" * 70 + "}", "repeats"),
    "repetition in inline fragments": ("{" + " ... on Query { a }" * 201 + "}", "repeats"),
    "repetition in a hidden twin": (
        "{ a } fragment F on Query {" + " n { a }" * 300 + "} fragment F on Query { a }",
        "repeats",
    ),
    "introspection often": (
        "{" + "".join(f"s{number}: __schema {{ types {{ name kind description }} }} " for number in range(80)) + "}",
        "about the schema",
    ),
    "introspection of lists in lists": (
        "{ __schema { types { fields { type { fields { type { fields { args { name } } } } } } } } }",
        "lists inside lists",
    ),
    "introspection of lists in lists through fragments": (
        "fragment T on __Type { fields { args { name } } } { __schema { types { fields { type { ...T } } } } }",
        "lists inside lists",
    ),
    "aliases": (f"{{ n {{ {' '.join(f'a{number}: a' for number in range(501))} }} }}", "has 501 aliases, "),
    "aliases through fragments": (
        f"fragment F on Query {{ {' '.join(f'a{number}: a' for number in range(51))} }} {{ n {{"
        + "".join(f"l{number}: n {{ ...F }}" for number in range(10))
        + "} }",
        "has 520 aliases, ",
    ),
    "fields at the root": (
        "{" + " ".join(f"a{number}: a" for number in range(101)) + "}",
        "has 101 fields at its root; at most 100",
    ),
    "fields at the root through fragments": (
        f"fragment F on Query {{ {' '.join(f'a{number}: a' for number in range(51))} }} {{ ...F ... on Query {{"
        + " ".join(f"b{number}: a" for number in range(50))
        + "} }",
        "has 101 fields at its root; at most 100",
    ),
    "directives at one place": ("{ a " + "@skip(if: true) " * 201 + "}", "has 201 directives; at most 200"),
    "directives everywhere": (
        f"query @a {{ {' '.join(f'... @a {{ b{number}: a @b }}' for number in range(100))} }}",
        "has 201 directives; at most 200",
    ),
    "directives of fragments and variables": (
        f"query ($v: Int {'@a ' * 100}) {{ a ...F @b }} fragment F on Query {'@c ' * 100} {{ a }}",
        "has 201 directives; at most 200",
    ),
    "tokens": ("{" + " a" * 10_000 + "}", "FORKPOINT_DOCUMENT_TOKENS_MAX"),
    "characters": ("{ a }" + " " * 600_000, "characters"),
    "comments": ("#\n" * 1_001 + "{ a }", "comments"),
    "nested lists": ("{ a(ids: " + "[" * 250 + "]" * 250 + ") }", "nested"),
    "nested selections": ("{ n " * 250 + "{ a }" + "}" * 250, "nested"),
    "nested types": ("query ($v: " + "[" * 5_000 + "Int" + "]" * 5_000 + ") { a }", ""),
    "a long chain of fragments": (chain(1_500, "...F%d"), ""),
}


def check(text: str, settings: Settings = SETTINGS) -> None:
    check_document(read_document(text, settings), settings)


@pytest.mark.parametrize("name", REFUSED)
def test_what_costs_too_much_is_refused(name: str) -> None:
    text, part = REFUSED[name]
    by_default = name.startswith(("aliases", "fields at the root", "directives"))
    outcome = Operations(SCHEMA, DEFAULTS if by_default else SETTINGS).prepare(Parameters(text), ANYBODY)
    assert isinstance(outcome, Outcome)
    (error,) = outcome.body["errors"]
    assert error["extensions"] == {"code": "LIMIT_EXCEEDED"}
    assert part in error["message"]


def test_messages_say_what_was_asked_what_is_allowed_and_who_decides() -> None:
    with pytest.raises(LimitExceeded) as caught:
        check("{" + " n {" * 31 + " a " + "}" * 32)
    assert caught.value.message == (
        "Fields are nested 32 deep; at most 30 levels are allowed (FORKPOINT_DOCUMENT_DEPTH_MAX)."
    )


@pytest.mark.parametrize(
    "text",
    [
        "{" + " n {" * 29 + " a " + "}" * 30,
        f"{{ {UNIQUE} }}",
        chain(100, "...F%d"),
        "{" + " a" * 200 + "}",
        "".join(f"query Q{number} {{ a }} " for number in range(100)),
        get_introspection_query(
            specified_by_url=True,
            directive_is_repeatable=True,
            schema_description=True,
            input_value_deprecation=True,
            experimental_directive_deprecation=True,
            one_of=True,
        ),
    ],
    ids=["depth", "fields", "chain", "repeats", "operations", "introspection"],
)
def test_what_reaches_a_limit_is_allowed(text: str) -> None:
    check(text)


@pytest.mark.parametrize(
    "text",
    [
        "{ n {" + " ".join(f"a{number}: a" for number in range(500)) + "} }",
        "{" + " ".join(f"a{number}: a" for number in range(100)) + "}",
        # What is merged is one field, and a fragment that is not at the root may have more.
        "{" + " a" * 101 + "}",
        f"{{ n {{ ...F }} }} fragment F on Query {{ {' '.join(f'a{number}: a' for number in range(101))} }}",
        "{" + " ".join("... @skip(if: false) { a @include(if: true) }" for _ in range(100)) + "}",
    ],
    ids=["aliases", "root", "merged", "below", "directives"],
)
def test_what_reaches_a_limit_is_allowed_by_default(text: str) -> None:
    check(text, DEFAULTS)


@pytest.mark.parametrize("text", ["{ ...A } fragment A on Query { n { ...A } }", chain(3, "...F%d ...F0")])
def test_fragments_in_a_circle_are_named(text: str) -> None:
    with pytest.raises(GraphQLError, match=r"Fragments may not contain themselves: (A -> A|F1 -> F2 -> F0 -> F1)"):
        check(text)


def test_a_bomb_is_refused_fast() -> None:
    document = parse(BOMB)
    start = perf_counter()
    with pytest.raises(LimitExceeded, match="over 1,000,000,000 fields"):
        check_document(document, SETTINGS)
    assert perf_counter() - start < 0.1  # 0.0003 on an idle machine


@given(st.data())
def test_depth_fields_and_aliases_are_those_of_the_document_without_fragments(data: st.DataObject) -> None:
    """Reference: write fragments out, then count."""
    count = data.draw(st.integers(0, 4))

    def selection(level: int, first: int) -> tuple[str, list[tuple[int, bool]]]:
        """Text, and depth and alias of each field it stands for; a fragment only spreads later ones."""
        parts: list[str] = []
        depths: list[tuple[int, bool]] = []
        for _ in range(data.draw(st.integers(1, 3))):
            kind = data.draw(st.sampled_from(["leaf", "field", "inline", "spread"]))
            if kind == "field" and level:
                text, below = selection(level - 1, first)
                parts.append(f"x{len(parts)}: n {{ {text} }}")
                depths += [(1, True), *((depth + 1, alias) for depth, alias in below)]
            elif kind == "inline" and level:
                text, below = selection(level - 1, first)
                parts.append(f"... {{ {text} }}")
                depths += below
            elif kind == "spread" and first < count:
                number = data.draw(st.integers(first, count - 1))
                parts.append(f"...F{number}")
                depths += fragments[number][1]
            else:
                parts.append("a")
                depths.append((1, False))
        return " ".join(parts), depths

    fragments: dict[int, tuple[str, list[tuple[int, bool]]]] = {}
    for number in reversed(range(count)):
        fragments[number] = selection(2, number + 1)
    text, depths = selection(3, 0)
    written = "".join(f"fragment F{number} on Query {{ {body} }} " for number, (body, _) in fragments.items())
    document = parse(f"{{ {text} }} {written}")
    operation = document.definitions[0]
    assert isinstance(operation, OperationDefinitionNode)
    measured = limits._Ruler(document, 1).measure(operation.selection_set)  # noqa: SLF001
    assert (measured.depth, measured.fields, measured.aliases) == (
        max(depth for depth, _ in depths),
        len(depths),
        sum(alias for _, alias in depths),
    )


@pytest.mark.parametrize(
    ("kind", "value", "allowed"),
    [
        ("[ID!]", ["x"] * 10_000, True),
        ("[ID!]", ["x"] * 10_001, False),
        ("In", {"ids": [["x"] * 5_000] * 2}, False),
        ("In!", {"in": [{"ids": [["x"]]}] * 5_001}, False),
        ("JSON", [[1]] * 100_000, True),
        ("Unknown", [1] * 100_000, True),
        ("ID", ["x"] * 100_000, True),
    ],
)
def test_list_items_in_variables_are_counted_where_they_are_coerced(kind: str, value: object, allowed: bool) -> None:
    operation = parse(f"query ($v: {kind}, $absent: [In]) {{ a }}").definitions[0]
    assert isinstance(operation, OperationDefinitionNode)
    if allowed:
        check_variables(SCHEMA, operation, {"v": value}, 10_000)
    else:
        with pytest.raises(
            LimitExceeded, match=r"The variables hold \d{2},\d{3} list items or more; at most 10,000 are allowed "
        ):
            check_variables(SCHEMA, operation, {"v": value}, 10_000)
