"""Licences: every dependency's is known, stands in docs/licences.md, and may be used here."""

import json
import re

import pytest

from tests import generate_docs, licences


def test_the_page_has_every_locked_package_as_it_is() -> None:
    _, written, _ = generate_docs.split(licences.PAGE.read_text(encoding="utf-8"))
    assert written == licences.table(), "run `python -m tests.generate_docs`"
    assert [row[0] for row in licences.rows()] == licences.locked()


@pytest.mark.parametrize("row", licences.rows(), ids=lambda row: row[0])
def test_a_package_is_under_licences_that_are_allowed_and_has_a_source(row: licences.Row) -> None:
    name, licence, url = row
    assert licences.names(licence) <= licences.ALLOWED | licences.ONLY_TESTS.get(name, set())
    assert re.fullmatch(r"https?://[\w.-]+/.*|https://[\w.-]+", url)


def test_what_only_tests_may_use_is_not_installed_to_serve() -> None:
    assert set(licences.ONLY_TESTS) & set(licences.locked(["serve"])) == set()


def test_what_is_built_into_the_page_is_under_licences_that_are_allowed() -> None:
    found = dict(licences.bundled())
    assert len(found) > 50
    assert {name: licence for name, licence in found.items() if not licences.names(licence) <= licences.ALLOWED} == {}


# Those whose packages hold no text: it is that of another one, by the same people, or stands in their repository.
WITHOUT_TEXT = {
    "@graphiql/plugin-doc-explorer",
    "@graphiql/plugin-explorer",
    "@graphiql/plugin-history",
    "react-compiler-runtime",
    "react-remove-scroll-bar",
}


def test_the_texts_of_what_is_built_into_the_page_travel_with_it() -> None:
    text = licences.BUNDLED.read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    assert {part.split()[0] for part in sections if "copyright" not in part.lower()} == WITHOUT_TEXT
    wanted = json.loads((licences.ROOT / "graphiql" / "package.json").read_text(encoding="utf-8"))["devDependencies"]
    built = dict(licences.bundled())
    assert set(wanted) - {"vite"} <= set(built)  # vite is what builds it
