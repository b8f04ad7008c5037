"""No client of the last release is broken by accident; each way of breaking one is planted, and found."""

from pathlib import Path

import pytest
from graphql import build_schema

from graphql_api import __version__
from schema.root import sdl
from tests.schema import compatibility
from tests.schema.compatibility import DECLARED, faults, may_break, released, risks


def test_the_schema_breaks_no_client_of_the_last_release() -> None:
    version, old = released()
    assert faults(old, build_schema(sdl()), DECLARED, breaking=may_break(version, __version__)) == []


OLD = """
directive @mark(with: String) repeatable on FIELD | QUERY
interface Node { id: ID! }
union Found = Thing | Other
type Query {
  "One."
  thing(id: ID!, size: Int! = 3, old: Int): Thing
  things(in: [ID!]): [Thing!]!
  find(by: Choice): Found
}
type Mutation { change(input: Change!): Thing }
type Subscription { changed: Thing! }
type Thing implements Node { id: ID! name: String kind: Kind! tags: [String] }
type Other { id: ID! }
enum Kind { SMALL LARGE }
input Change { id: ID! name: String size: Int! = 1 }
input Choice { id: ID name: String }
scalar Moment
"""

BREAKING = {
    "a type goes": ("scalar Moment", ""),
    "a member goes": ("Thing | Other", "Thing"),
    "a type becomes another kind": ("scalar Moment", "type Moment { id: ID }"),
    "a root goes": ("type Query {", "schema { query: Query mutation: Mutation }\ntype Query {"),
    "a field goes": ("id: ID! name: String kind", "id: ID! kind"),
    "a field is renamed": ("thing(id", "theThing(id"),
    "a field may be null": ("kind: Kind!", "kind: Kind"),
    "an element may be null": ("[Thing!]!", "[Thing]!"),
    "a field has another type": ("name: String kind", "name: Int kind"),
    "a field becomes a list": ("name: String kind", "name: [String] kind"),
    "a value goes": ("SMALL LARGE", "SMALL"),
    "an interface goes": ("Thing implements Node", "Thing"),
    "an argument goes": (", old: Int)", ")"),
    "an argument becomes required": ("old: Int)", "old: Int!)"),
    "an argument has another type": ("old: Int)", "old: String)"),
    "a required argument comes": ("old: Int)", "old: Int, new: Int!)"),
    "an element becomes required": ("things(in: [ID!])", "things(in: [ID!]!)"),
    "an input field goes": ("id: ID! name: String size", "id: ID! size"),
    "an input field becomes required": ("id: ID! name: String size", "id: ID! name: String! size"),
    "a required input field comes": ("size: Int! = 1 }", "size: Int! = 1 new: Int! }"),
    "only one field of an input is taken": ("input Choice", "input Choice @oneOf"),
    "a directive goes": ("directive @mark(with: String) repeatable on FIELD | QUERY", ""),
    "an argument of a directive goes": ("@mark(with: String)", "@mark"),
    "a place of a directive goes": ("on FIELD | QUERY", "on FIELD"),
    "a directive stands only once": ("repeatable on", "on"),
}  # fmt: skip

RISKY = {
    "a value comes": ("SMALL LARGE", "SMALL LARGE HUGE"),
    "a member comes": ("Thing | Other", "Thing | Other | Query"),
    "an interface comes": ("type Other { id", "type Other implements Node { id"),
    "a default changes": ("size: Int! = 3", "size: Int! = 4"),
    "a default of an argument goes": ("size: Int! = 3", "size: Int!"),
    "a default of an input field changes": ("size: Int! = 1", "size: Int! = 2"),
    "a default of an input field goes": ("size: Int! = 1", "size: Int!"),
}

HARMLESS = {
    "nothing": ("", ""),
    "a field comes": ("tags: [String]", "tags: [String] more: Int"),
    "a type comes": ("scalar Moment", "scalar Moment\ntype New { id: ID }"),
    "a field is never null any more": ("name: String kind", "name: String! kind"),
    "an optional argument comes": ("old: Int)", "old: Int, new: Int, sure: Int! = 1)"),
    "an optional input field comes": ("size: Int! = 1 }", "size: Int! = 1 new: Int }"),
    "an argument may be left out": ("(id: ID!, size", "(id: ID, size"),
    "a description changes": ('"One."', '"One thing."'),
    "a field is deprecated": ("tags: [String]", 'tags: [String] @deprecated(reason: "Ask elsewhere.")'),
    "the order changes": ("SMALL LARGE", "LARGE SMALL"),
}


def changed(change: tuple[str, str]) -> dict[str, bool]:
    before, after = change
    assert not before or OLD.count(before) == 1
    return risks(build_schema(OLD), build_schema(OLD.replace(before, after) if before else OLD))


@pytest.mark.parametrize("name", BREAKING)
def test_a_change_that_breaks_documents_is_found(name: str) -> None:
    assert True in changed(BREAKING[name]).values()


@pytest.mark.parametrize("name", RISKY)
def test_a_change_that_may_break_clients_is_found(name: str) -> None:
    assert list(changed(RISKY[name]).values()) == [False]


@pytest.mark.parametrize("name", HARMLESS)
def test_a_schema_may_grow(name: str) -> None:
    assert changed(HARMLESS[name]) == {}


def test_a_change_is_declared_with_its_reason_and_its_version_or_it_is_a_fault() -> None:
    old, new = build_schema(OLD), build_schema(OLD.replace("SMALL LARGE", "SMALL HUGE"))
    added, gone = (
        "VALUE_ADDED_TO_ENUM: Enum value Kind.HUGE was added.",
        ("VALUE_REMOVED_FROM_ENUM: Enum value Kind.LARGE was removed."),
    )
    assert risks(old, new) == {added: False, gone: True}
    undeclared = [f"{change} Take it back, or declare it." for change in (gone, added)]
    assert sorted(faults(old, new, {}, breaking=True)) == sorted(undeclared)
    declared = dict.fromkeys((added, gone), "Nothing was ever large, but much is huge.")
    assert faults(old, new, declared, breaking=True) == []
    assert faults(old, new, declared, breaking=False) == [f"{gone} It breaks clients: raise the version."]
    assert faults(old, new, declared | {gone: ""}, breaking=True) == [f"{gone} Say why it is worth that."]
    stale = [f"{change} It is no change of this version: take it out." for change in declared]
    assert faults(new, new, declared, breaking=True) == stale


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        ("0.0.0", "0.1.0", True),
        ("0.1.0", "0.1.9", False),
        ("0.9.0", "0.10.0", True),
        ("0.9.0", "1.0.0", True),
        ("1.0.0", "1.9.0", False),
        ("1.9.9", "2.0.0", True),
        ("9.0.0", "10.0.0", True),
    ],
)
def test_clients_are_broken_only_by_versions_that_may(before: str, now: str, expected: bool) -> None:
    assert may_break(before, now) is expected


def test_what_is_planted_in_the_real_schema_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = sdl().replace("latestVersion: Int!", "latestVersion: Int")
    monkeypatch.setattr(f"{__name__}.sdl", lambda: planted)
    with pytest.raises(AssertionError, match=r"Field Context.latestVersion changed type from Int! to Int\."):
        test_the_schema_breaks_no_client_of_the_last_release()


def test_a_release_makes_the_schema_the_one_that_clients_rely_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "released.graphql"
    monkeypatch.setattr(compatibility, "RELEASED", path)
    compatibility.release("1.2.3", path)
    version, old = released()
    assert (version, risks(old, build_schema(sdl()))) == ("1.2.3", {})
