from typing import Any

import pytest

from graphql_api import documents as module
from graphql_api.documents import Document, Documents, Forbidden, Invalid, Recent
from graphql_api.settings import Settings
from schema.errors import BadUserInput, Code
from tests.graphql_api.small_schema import SCHEMA

SETTINGS = Settings(_env_file=None)


@pytest.fixture
def documents() -> Documents:
    return Documents(SCHEMA, SETTINGS)


def refused(documents: Documents, text: str) -> list[dict[str, Any]]:
    with pytest.raises(Invalid) as caught:
        documents.find(text)
    return caught.value.errors


def forbid_parsing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "read_document", None)


def test_a_document_is_parsed_once(documents: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    assert documents.known("{ echo }") is None
    document = documents.find("{ echo }")
    forbid_parsing(monkeypatch)
    assert documents.find("{ echo }") is documents.known("{ echo }") is document
    assert document.memo == {}


@pytest.mark.parametrize("text", ["{", "{ nothing }", "{ a: json(value: " + "[" * 300 + "]" * 300 + ") }"])
def test_an_invalid_document_is_refused_again_without_another_look(
    documents: Documents, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    errors = refused(documents, text)
    forbid_parsing(monkeypatch)
    assert refused(documents, text) == errors
    assert documents.known(text) is None


def test_what_was_nested_too_deeply_for_the_stack_is_looked_at_again(
    documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_deep(*_: object) -> None:
        raise RecursionError

    with monkeypatch.context() as patch:
        patch.setattr(module, "check_document", too_deep)
        (error,) = refused(documents, "{ echo }")
        assert error["extensions"]["code"] == Code.LIMIT_EXCEEDED
    assert documents.find("{ echo }") is documents.known("{ echo }")


def test_a_shared_document_is_parsed_with_its_first_texts_only(
    documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [f'{{ show(id: "{name}") }}' for name in "abcd"]
    assert documents.shared(texts[0]) is None
    documents.find(texts[0])
    shared = documents.shared(texts[1])
    assert shared
    forbid_parsing(monkeypatch)
    assert documents.shared(texts[2]) == (shared[0], {"_0": "c"})
    assert documents.shared(texts[0]) == (shared[0], {"_0": "a"})
    assert documents.known(texts[2]) is None


def test_a_document_that_cannot_be_shared_is_lifted_once(documents: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f'{{ show(ids: "{name}") }}' for name in "abc"]
    assert [documents.shared(text) for text in texts[:2]] == [None, None]
    forbid_parsing(monkeypatch)
    assert documents.shared(texts[2]) is None


def test_what_is_too_large_to_be_remembered_is_found_all_the_same(
    documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TOKEN_BYTES", 1024 * 1024)
    texts = [f'{{ show(id: "{name}") }}' for name in "abc"]
    assert [documents.shared(text) for text in texts] == [None] * 3
    assert documents.find(texts[0]) is not documents.find(texts[0])


def test_trusted_documents_are_never_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DOCUMENTS_MAX", 2)
    documents = Documents(SCHEMA, SETTINGS)
    documents.trust("{ echo }")
    trusted = documents.known("{ echo }")
    for number in range(5):
        documents.find(f"{{ a{number}: echo }}")
    assert documents.known("{ a0: echo }") is None
    assert documents.find("{ echo }") is documents.known("{ echo }") is trusted is not None


def test_with_only_trusted_documents_nothing_else_is_even_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    documents = Documents(SCHEMA, SETTINGS, only_trusted=True)
    documents.trust('{ show(id: "a") }')
    with pytest.raises(Invalid):
        documents.trust("{ nothing }")
    forbid_parsing(monkeypatch)
    assert documents.find('{ show(id: "a") }') is documents.known('{ show(id: "a") }')
    for text in ['{ show(id: "b") }', '{ show(id: "a") } ', "{ nothing }", "{"]:
        for _ in range(3):
            assert (documents.shared(text), documents.known(text)) == (None, None)
            with pytest.raises(Forbidden):
                documents.find(text)


def test_the_operation_is_chosen_by_name_or_because_it_is_the_only_one(documents: Documents) -> None:
    def chosen(document: Document, name: str | None) -> str | None:
        operation = document.choose(name)
        return operation.name.value if operation.name else None

    several = documents.find("query A { echo } mutation B { write }")
    assert (chosen(several, "A"), chosen(several, "B")) == ("A", "B")
    assert chosen(documents.find("query A { echo }"), None) == "A"
    assert chosen(documents.find("{ echo }"), None) is None
    for document, name in [(several, None), (several, "C"), (documents.find("{ echo }"), "A")]:
        with pytest.raises(BadUserInput):
            document.choose(name)


def test_the_least_recently_used_is_forgotten_first() -> None:
    recent: Recent[str, int] = Recent(2, 1_000)
    for key in "ab":
        assert recent.put(key, ord(key), 1)
    assert recent.get("a") == ord("a")
    recent.put("c", 0, 1)
    assert [recent.get(key) for key in "abc"] == [ord("a"), None, 0]
    assert (len(recent), recent.size_bytes) == (2, 2)


def test_what_is_remembered_is_bounded_by_bytes_too() -> None:
    recent: Recent[int, int] = Recent(1_000, 100)
    for key in range(50):
        recent.put(key, key, 12)
    assert (len(recent), recent.size_bytes) == (8, 96)
    recent.put(49, 0, 2)
    assert (recent.get(49), len(recent), recent.size_bytes) == (0, 8, 86)
    assert not recent.put(49, 1, 13)
    assert (recent.get(49), len(recent), recent.size_bytes) == (None, 7, 84)


def test_documents_are_weighed_by_their_tokens_and_their_text(
    documents: Documents, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DOCUMENTS_BYTES_MAX", 280_000)
    documents = Documents(SCHEMA, SETTINGS)
    texts = [f"{{ {'echo ' * 20} a{number}: echo }}" for number in range(50)]
    for text in texts:
        documents.find(text)
    assert [documents.known(text) is not None for text in texts] == [False] * 37 + [True] * 13
