"""Trusted documents: what an operator lets clients ask for by an id, read once at start.

A JSON file maps ids to texts, as @graphql-codegen and the Relay compiler write it. In a folder each `.graphql` file is
a document, and its stem an id. The SHA-256 of its text is an id of every document.
"""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from graphql_api.documents import Documents, Invalid
from graphql_api.settings import Settings
from graphql_api.terminal import CommandError

VARIABLE = "FORKPOINT_TRUSTED_DOCUMENTS"


def load(settings: Settings, documents: Documents) -> dict[str, str]:
    """Read the trusted documents and trust them for good.

    Shape: the text of each id.
    Raises: CommandError when one cannot be read, or is not valid.
    """
    path = settings.trusted_documents
    if path is None:
        if settings.trusted_documents_only:
            raise CommandError(f"{VARIABLE}_ONLY lets nothing be executed: name the documents with {VARIABLE} as well.")
        return {}
    texts: dict[str, str] = {}
    for name, text in _read(path):
        try:
            documents.trust(text)
        except Invalid as error:
            why = " ".join(str(error).split())
            raise _refusal(path, f"the document {name!r} cannot be executed: {why}") from error
        for known in (name, hash_of(text)):
            if texts.setdefault(known, text) != text:
                raise _refusal(path, f"two documents have the id {known!r}. Give each an id of its own.")
    if not texts:
        raise _refusal(path, "there is no document. Name a JSON file of ids and texts, or a folder of .graphql files.")
    return texts


def hash_of(text: str) -> str:
    """Give the SHA-256 of a text in UTF-8, in hexadecimal digits."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _read(path: Path) -> Iterator[tuple[str, str]]:
    try:
        if path.is_dir():
            for file in sorted(path.rglob("*.graphql")):
                yield file.stem, file.read_text(encoding="utf-8-sig")
            return
        texts = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise _refusal(path, f"cannot be read: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise _refusal(path, "is no JSON in UTF-8. It must be an object of ids and texts.") from error
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise _refusal(path, "must be a JSON object whose keys are ids and whose values are the texts of documents.")
    yield from texts.items()


def _refusal(path: Path, what: str) -> CommandError:
    return CommandError(f"{VARIABLE}, {path}: {what}")
