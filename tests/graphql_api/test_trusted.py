import json
from hashlib import sha256
from pathlib import Path

import pytest

from graphql_api import trusted
from graphql_api.documents import Documents
from graphql_api.settings import Settings
from graphql_api.terminal import CommandError
from tests.graphql_api.small_schema import SCHEMA

ECHO, SHOW = "{ echo }\n", 'query Show { show(id: "é") }'


def load(path: Path | None, *, only: bool = False) -> dict[str, str]:
    settings = Settings(_env_file=None, trusted_documents=path, trusted_documents_only=only)
    documents = Documents(SCHEMA, settings, only_trusted=only)
    texts = trusted.load(settings, documents)
    assert all(documents.known(text) for text in texts.values())
    return texts


def hashed(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def test_nothing_is_trusted_unless_it_is_asked_for() -> None:
    assert load(None) == {}


def test_a_json_file_maps_ids_to_documents(tmp_path: Path) -> None:
    path = tmp_path / "persisted.json"
    path.write_text(json.dumps({"echo": ECHO, hashed(SHOW): SHOW, "again": ECHO}))
    assert load(path) == {"echo": ECHO, "again": ECHO, hashed(ECHO): ECHO, hashed(SHOW): SHOW}


def test_a_folder_holds_a_document_in_each_graphql_file(tmp_path: Path) -> None:
    (tmp_path / "pages").mkdir()
    (tmp_path / "echo.graphql").write_text(ECHO)
    (tmp_path / "pages" / "show.graphql").write_text(SHOW, encoding="utf-8-sig")
    (tmp_path / "README.md").write_text("{")
    expected = {"echo": ECHO, hashed(ECHO): ECHO, "show": SHOW, hashed(SHOW): SHOW}
    assert load(tmp_path) == load(tmp_path, only=True) == expected


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "is no JSON in UTF-8."),
        (b"\xff", "is no JSON in UTF-8."),
        (b"[" * 100_000, "is no JSON in UTF-8."),
        (b"[]", "must be a JSON object"),
        (b'{"a": 1}', "must be a JSON object"),
        (b"{}", "there is no document."),
        (b'{"a": "{ nothing }"}', "the document 'a' cannot be executed: Cannot query field 'nothing' on type 'Query'."),
        (b'{"a": "{"}', "the document 'a' cannot be executed: Syntax Error: Expected Name, found <EOF>."),
    ],
)
def test_what_cannot_be_trusted_is_told_in_one_line(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "persisted.json"
    path.write_bytes(content)
    with pytest.raises(CommandError) as caught:
        load(path)
    assert str(caught.value).startswith(f"FORKPOINT_TRUSTED_DOCUMENTS, {path}: {why}")
    assert "\n" not in str(caught.value)


def test_an_id_stands_for_one_document(tmp_path: Path) -> None:
    for folder, text in (("a", ECHO), ("b", SHOW)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.graphql").write_text(text)
    with pytest.raises(CommandError, match="two documents have the id 'same'"):
        load(tmp_path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"gone.json: cannot be read: No such file or directory\."):
        load(tmp_path / "gone.json")


def test_only_trusted_documents_means_that_there_are_some() -> None:
    with pytest.raises(CommandError, match="name the documents with FORKPOINT_TRUSTED_DOCUMENTS as well"):
        load(None, only=True)
