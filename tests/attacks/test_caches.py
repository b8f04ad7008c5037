"""Whoever sends ever other documents fills no memory, and nobody makes one hash stand for another's text."""

from hashlib import sha256
from typing import Any

import pytest

from schema.errors import Code
from tests.attacks.victim import Victim

pytestmark = pytest.mark.usefixtures("nothing_written")

MIB = 1024 * 1024
# What the caches of documents may hold together, and what of it the allocator keeps.
CACHES_BYTES_MAX = 150 * MIB


def hash_of(query: str) -> str:
    return sha256(query.encode()).hexdigest()


def persisted(sha: Any, query: str | None = None, version: Any = 1) -> dict[str, Any]:
    content: dict[str, Any] = {"extensions": {"persistedQuery": {"version": version, "sha256Hash": sha}}}
    return content if query is None else content | {"query": query}


def test_a_hash_of_another_text_is_refused_and_remembered_by_nobody(victim: Victim) -> None:
    good, evil = "{ __typename good: __typename }", "{ __typename evil: __typename }"
    assert victim.refuse(persisted(hash_of(good), evil)) == Code.BAD_USER_INPUT
    assert victim.refuse(persisted(hash_of(good))) == Code.PERSISTED_QUERY_NOT_FOUND
    assert victim.send(persisted(hash_of(good), good)).data == {"__typename": "Query", "good": "Query"}
    assert victim.refuse(persisted(hash_of(good), evil)) == Code.BAD_USER_INPUT
    assert victim.send(persisted(hash_of(good))).data == {"__typename": "Query", "good": "Query"}


def test_what_is_no_hash_is_refused(victim: Victim) -> None:
    digits = hash_of("a")
    hashes: list[Any] = ["", "x", digits.upper(), f"{digits}\n", "0" * 63, "0" * 10**6, 1, None, [], {"a": 1}, "é" * 64]
    for sha in hashes:
        assert victim.refuse(persisted(sha, "{ __typename }")) == Code.BAD_USER_INPUT
    versions: list[Any] = [0, 2, True, "1", None, 1.5, [], 10**100]
    for version in versions:
        assert victim.refuse(persisted(hash_of("{ __typename }"), "{ __typename }", version)) == Code.BAD_USER_INPUT
    others: list[Any] = [1, "x", [], True]
    for other in others:
        content = {"query": "{ __typename }", "extensions": {"persistedQuery": other}}
        assert victim.refuse(content) == Code.BAD_USER_INPUT


def test_a_document_that_is_refused_is_not_kept_by_its_hash(victim: Victim) -> None:
    for query in ("{", "{ nothing }", "{ " + "__typename " * 9_000 + "}"):
        victim.refuse(persisted(hash_of(query), query))
        assert victim.refuse(persisted(hash_of(query))) == Code.PERSISTED_QUERY_NOT_FOUND


def test_a_document_that_is_named_twice_is_refused(victim: Victim) -> None:
    query = "{ __typename }"
    assert victim.refuse({"query": query, "documentId": "x"}) == Code.BAD_USER_INPUT
    assert victim.refuse(persisted(hash_of(query), query) | {"documentId": "x"}) == Code.BAD_USER_INPUT
    assert victim.refuse({"documentId": "../../etc/passwd"}) == Code.PERSISTED_QUERY_NOT_FOUND
    assert victim.refuse({"documentId": "sha256:" + "x" * 100_000}) == Code.PERSISTED_QUERY_NOT_FOUND


def test_a_flood_of_persisted_queries_keeps_a_bounded_memory(victim: Victim) -> None:
    before = victim.memory()
    padding = "#" + "x" * 20_000
    for number in range(150):
        query = f"{{ a{number}: __typename }} {padding}"
        assert victim.send(persisted(hash_of(query), query)).data == {f"a{number}": "Query"}
    assert victim.memory() - before < CACHES_BYTES_MAX


def test_a_flood_of_distinct_documents_keeps_a_bounded_memory(victim: Victim) -> None:
    before = victim.memory()
    for number in range(60):
        fields = " ".join(f"a{number}x{each}: id" for each in range(450))
        assert victim.ask(f"{{ contexts(first: 1) {{ nodes {{ {fields} }} }} }}").data["contexts"]
    assert victim.memory() - before < CACHES_BYTES_MAX


def test_a_flood_of_distinct_literals_keeps_a_bounded_memory(victim: Victim) -> None:
    before = victim.memory()
    for number in range(200):
        query = f'{{ context(id: "0198c0de-7d0e-7000-8000-{number:012}") {{ a{number % 50}: name }} }}'
        assert victim.ask(query).data == {"context": None}
    assert victim.memory() - before < CACHES_BYTES_MAX


def test_a_flood_of_refused_documents_keeps_a_bounded_memory(victim: Victim) -> None:
    before = victim.memory()
    for number in range(40):
        fields = " ".join(f"nothing{number}x{each}{'x' * 200}" for each in range(90))
        assert victim.refuse(f"{{ {fields}  }}") == Code.GRAPHQL_VALIDATION_FAILED
    assert victim.memory() - before < CACHES_BYTES_MAX


def test_a_document_of_somebody_else_is_never_answered(victim: Victim) -> None:
    # Two texts of one structure, whose literals are cut out: each gets its own.
    for number in range(50):
        query = f'{{ contexts(first: 1, filter: {{name: "of {number}"}}) {{ totalCount nodes {{ name }} }} }}'
        answer = victim.ask(query.replace('name: "of', 'nothing: "of'))
        assert answer.code == Code.GRAPHQL_VALIDATION_FAILED
        answer = victim.ask(f'{{ a: context(id: "{number}") {{ id }} }}')
        assert answer.code == Code.BAD_USER_INPUT
