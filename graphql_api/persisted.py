"""Documents that a request only names: by the id of a trusted document, or by the hash of what was sent before.

Source: GraphQL over HTTP, appendix "Persisted Documents"; the automatic persisted queries of Apollo, whose clients know
`PersistedQueryNotFound` and `PersistedQueryNotSupported` by these very messages.
"""

import re
from typing import Any

from graphql_api.documents import Documents, Recent
from graphql_api.settings import Settings
from graphql_api.trusted import hash_of
from schema.errors import BadUserInput, Code, Refusal

TEXTS_MAX = 1_000
TEXTS_BYTES_MAX = 4 * 1024 * 1024
_SHA256 = re.compile("[0-9a-f]{64}")


class PersistedQueryNotFound(Refusal):
    """No document is known by this hash or id."""

    code = Code.PERSISTED_QUERY_NOT_FOUND


class Persisted:
    """The texts that may be named: the trusted ones by id, and those that clients sent with their hash."""

    def __init__(self, documents: Documents, trusted: dict[str, str], settings: Settings) -> None:
        self._documents = documents
        self._trusted = trusted
        self._allowed = settings.persisted_queries
        self._sent: Recent[str, str] = Recent(TEXTS_MAX, TEXTS_BYTES_MAX)

    def text(self, query: str | None, document_id: str | None, extensions: dict[str, Any]) -> str:
        """Give the text that a request means. A text sent with its hash is remembered, if it is a valid document.

        Raises: PersistedQueryNotFound; BadUserInput; Invalid; Forbidden.
        """
        persisted = extensions.get("persistedQuery") if extensions else None
        if document_id is None and persisted is None:
            if query is None:
                raise BadUserInput("The request names no document: send its text in `query`, or its id or hash.")
            return query
        if document_id is None:
            return self._by_hash(_read_hash(persisted), query)
        if query is not None or persisted is not None:
            raise BadUserInput("`documentId` is given beside another document: send only one of them.")
        return self._by_id(document_id)

    def _by_id(self, document_id: str) -> str:
        text = self._trusted.get(document_id)
        if text is None and document_id.startswith("sha256:"):
            text = self._find(document_id.removeprefix("sha256:"))
        if text is None:
            message = (
                f"No document has the id {document_id[:100]!r}: send the id of a trusted one, or its text in `query`."
            )
            raise PersistedQueryNotFound(message)
        return text

    def _by_hash(self, sha256: str, query: str | None) -> str:
        text = self._find(sha256)
        if text is None and not self._allowed:
            raise BadUserInput("PersistedQueryNotSupported")
        if query is None:
            if text is None:
                raise PersistedQueryNotFound("PersistedQueryNotFound")
            return text
        if text != query:
            if hash_of(query) != sha256:
                raise BadUserInput("`sha256Hash` is not the SHA-256 of `query`: hash the text as it is sent, in UTF-8.")
            self._documents.find(query)
            self._sent.put(sha256, query, 4 * len(query))
        return query

    def _find(self, sha256: str) -> str | None:
        return self._trusted.get(sha256) or (self._sent.get(sha256) if self._allowed else None)


def _read_hash(persisted: Any) -> str:
    """Read the hash of `extensions.persistedQuery`.

    Raises: BadUserInput.
    """
    if not isinstance(persisted, dict):
        raise BadUserInput("`extensions.persistedQuery` must be an object with `version` and `sha256Hash`.")
    version = persisted.get("version")
    if isinstance(version, bool) or version != 1:
        raise BadUserInput("The version of `extensions.persistedQuery` is not known: it must be 1.")
    sha256 = persisted.get("sha256Hash")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise BadUserInput("`sha256Hash` must be a SHA-256 in 64 hexadecimal digits, in lower case.")
    return sha256
