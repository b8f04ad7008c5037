"""Text that is hostile or no text at all: it comes back as it was sent, or is refused."""

import json
from typing import Any

import pytest

from schema.errors import Code
from tests.attacks.victim import Answer, Victim

CREATE = """mutation ($name: String, $m: JSON) {
  createContext(input: {name: $name, metadata: $m}) { context { id name metadata } }
}"""

KEPT = {
    "combining marks": "e" + "\u0301" * 200,
    "right to left": "\u202e\u2066txt.exe\u2069\u202c",
    "zero width": "a\u200b\u200d\ufeffb",
    "beyond the first plane": "\U0001f469\u200d\U0001f469\u200d\U0001f467" * 20,
    "private use": "\ue000\U000f0000\U0010fffd",
    "no characters": "\ufffe\uffff\U0010ffff",
    "line ends": "a\r\nb\u2028c\u2029d\x85e",
    "control characters": "\x01\x02\x07\x08\x1b[31m\x7f",
    "long of few bytes": "\ufdfa" * 255,
    "homoglyphs": "\u0430dm\u0456n",
}
REFUSED = {
    "NUL": "a\0b",
    "a lone surrogate": "\ud800",
    "surrogates the wrong way round": "\udc00\ud800",
    "a surrogate at the end": "x" * 200 + "\udfff",
}


def create(victim: Victim, name: str, metadata: Any = None) -> Answer:
    return victim.send({"query": CREATE, "variables": {"name": name, "m": metadata}})


@pytest.mark.parametrize("kind", KEPT)
def test_text_of_any_kind_comes_back_as_it_was_sent(victim: Victim, kind: str) -> None:
    text = KEPT[kind]
    made = create(victim, text, {text: [text]}).data["createContext"]["context"]
    assert (made["name"], made["metadata"]) == (text, {text: [text]})
    found = victim.ask("query ($id: ID!) { context(id: $id) { name metadata } }", id=made["id"]).data
    assert found == {"context": {"name": text, "metadata": {text: [text]}}}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.usefixtures("nothing_written")
def test_what_postgresql_cannot_keep_is_refused(victim: Victim, kind: str) -> None:
    text = REFUSED[kind]
    for name, metadata in ((text, None), ("x", {text: 1}), ("x", {"a": text}), ("x", {"a": [{"b": text}]})):
        assert create(victim, name, metadata).code == Code.BAD_USER_INPUT
    escaped = json.dumps(text)
    query = f"mutation {{ createContext(input: {{name: {escaped}}}) {{ context {{ id }} }} }}"
    assert victim.refuse(query) in {Code.BAD_USER_INPUT, Code.GRAPHQL_PARSE_FAILED}


INVALID = {
    "a lone continuation": b"\x80",
    "an overlong slash": b"\xc0\xaf",
    "an overlong NUL": b"\xc0\x80",
    "an overlong quote": b"\xe0\x80\xa2",
    "a surrogate": b"\xed\xa0\x80",
    "beyond Unicode": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "cut off": b"\xe2\x82",
    "Latin-1": b"caf\xe9",
}


@pytest.mark.parametrize("kind", INVALID)
@pytest.mark.usefixtures("nothing_written")
def test_what_is_not_utf_8_is_refused(victim: Victim, kind: str) -> None:
    body = b'{"query": "mutation { createContext(input: {name: \\"%s\\"}) { context { id } } }"}' % INVALID[kind]
    answer = victim.send(body)
    assert (answer.status, answer.code) == (400, Code.BAD_USER_INPUT)
    assert victim.send(b"", "GET", "/graphql?query=" + "".join(f"%{byte:02x}" for byte in INVALID[kind])).code


@pytest.mark.usefixtures("nothing_written")
def test_hostile_names_in_documents_are_no_names(victim: Victim) -> None:
    for text in [*KEPT.values(), *REFUSED.values()]:
        assert victim.send({"query": f"{{ {text} }}"}).code in {
            Code.GRAPHQL_PARSE_FAILED,
            Code.GRAPHQL_VALIDATION_FAILED,
        }
        assert victim.send({"query": "{ __typename }", "operationName": text}).code == Code.BAD_USER_INPUT


@pytest.mark.usefixtures("nothing_written")
def test_a_flood_of_combining_marks_is_measured_by_its_characters(victim: Victim) -> None:
    assert create(victim, "e" + "\u0301" * 255).code == Code.LIMIT_EXCEEDED
    assert create(victim, "e" + "\u0301" * 1_000_000).code == Code.LIMIT_EXCEEDED


def test_tokens_of_hostile_text_are_counted_in_linear_work(victim: Victim) -> None:
    append = """mutation ($id: ID!, $text: String!) {
      appendMessages(input: {contextId: $id, messages: [{role: USER, content: $text}]}) { messages { content } }
    }"""
    context_id = create(victim, "tokens").data["createContext"]["context"]["id"]
    for piece in ("e" + "\u0301" * 100, "a", " ", "\n", "\u200b", "\U0001f469", "\ufdfa", "'s" * 10, "0", "A1 \t"):
        text = piece * (200_000 // len(piece))
        answer = victim.send({"query": append, "variables": {"id": context_id, "text": text}})
        assert answer.data["appendMessages"]["messages"] == [{"content": text}]
