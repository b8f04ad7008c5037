"""Ids that are guessed and cursors that are forged: they show nothing that is not the caller's to see."""

import base64
import itertools
import json
import re
import uuid
from pathlib import Path
from typing import Any

import pytest

from schema.errors import Code
from tests import program
from tests.attacks.places import PLACES, Place
from tests.attacks.victim import Honest, Victim

MESSAGES = [{"role": "USER", "content": f"message {number}"} for number in range(4)]
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def create(victim: Victim, name: str) -> str:
    query = "mutation ($input: CreateContextInput!) { createContext(input: $input) { context { id } } }"
    context_id: str = victim.ask(query, input={"name": name, "messages": MESSAGES}).data["createContext"]["context"][
        "id"
    ]
    return context_id


@pytest.fixture(scope="module")
def context_id(victim: Victim) -> str:
    """Id of a context with messages and a fork."""
    context_id = create(victim, "attacked")
    fork = "mutation ($id: ID!) { forkContext(input: {contextId: $id, version: 2}) { context { id } } }"
    for _ in range(3):
        victim.ask(fork, id=context_id)
    return context_id


@pytest.fixture(scope="module")
def foreign_id(victim: Victim) -> str:
    """Id of a context of another tenant, with a message of the version 1."""
    other = uuid.uuid4()
    victim.sql(
        """
        with root as (
          insert into trees (tenant_id, id)
          values ('another', %s)
        ), planted as (
          insert into contexts (
            tenant_id, id, root_id, name, latest_version, message_count, total_tokens, running_tokens
          )
          values ('another', %s, %s, 'of another tenant', 1, 1, 1, 1)
        )
        insert into messages (
          tenant_id, id, context_id, version, created_at, role, token_count, running_tokens, content
        )
        select 'another', gen_random_uuid(), %s, 1, now(), 'user', 1, 1, 'secret of another tenant'
        returning id
        """,
        *[other] * 4,
    )
    return str(other)


# Each asks for a page of the context `$id` after `$after`, and selects what lies there.
EDGES = "{ edges { cursor node { id } } }"
CONNECTIONS = {
    "messages": f"context(id: $id) {{ page: messages(first: 2, after: $after) {EDGES} }}",
    "forks": f"context(id: $id) {{ page: forks(first: 2, after: $after) {EDGES} }}",
    "at a version": f"context(id: $id) {{ at(version: 3) {{ page: messages(first: 2, after: $after) {EDGES} }} }}",
    "contexts": f"page: contexts(first: 2, after: $after) {EDGES}",
    "contexts by name": f"page: contexts(first: 2, after: $after, orderBy: {{field: NAME}}) {EDGES}",
    "contexts upwards": f"page: contexts(first: 2, after: $after, orderBy: {{direction: ASC}}) {EDGES}",
}


def page(victim: Victim, connection: str, context_id: str, after: Any = None) -> Any:
    """Give the edges of a page, or the code of the refusal."""
    declared = "$id: ID!, $after: String" if "$id" in CONNECTIONS[connection] else "$after: String"
    variables = {"id": context_id, "after": after}
    answer = victim.send({"query": f"query ({declared}) {{ {CONNECTIONS[connection]} }}", "variables": variables})
    if "errors" in answer.json:
        return answer.code
    found = answer.data
    while "page" not in found:
        (found,) = found.values()
    return found["page"]["edges"]


@pytest.fixture(scope="module")
def cursors(victim: Victim, context_id: str) -> dict[str, str]:
    """Give a cursor of each connection."""
    return {name: page(victim, name, context_id)[0]["cursor"] for name in CONNECTIONS}


def own_ids(victim: Victim) -> set[str]:
    """Give all ids that the caller may see: those of the tenant."""
    rows = victim.sql(
        """
        select id::text from contexts where tenant_id <> 'another'
        union
        select id::text from messages where tenant_id <> 'another'
        """
    )
    return {found for (found,) in rows}


@pytest.mark.usefixtures("nothing_written", "foreign_id")
@pytest.mark.parametrize("name", CONNECTIONS)
def test_a_cursor_with_any_byte_flipped_is_refused_or_leads_to_ones_own(
    victim: Victim, context_id: str, cursors: dict[str, str], name: str
) -> None:
    cursor = cursors[name]
    own = own_ids(victim)
    for place, letter in enumerate(cursor):
        for step in (1, 32):
            other = ALPHABET[(ALPHABET.index(letter) + step) % 64]
            found = page(victim, name, context_id, cursor[:place] + other + cursor[place + 1 :])
            if isinstance(found, str):
                assert found in {Code.BAD_USER_INPUT, Code.LIMIT_EXCEEDED}
            else:
                assert {edge["node"]["id"] for edge in found} <= own


@pytest.mark.usefixtures("nothing_written")
def test_a_cursor_of_another_connection_is_refused(victim: Victim, context_id: str, cursors: dict[str, str]) -> None:
    for name in CONNECTIONS:
        for other, cursor in cursors.items():
            found = page(victim, name, context_id, cursor)
            assert (found == Code.BAD_USER_INPUT) == (name != other), (name, other)


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize(
    "place",
    [
        2**31,
        2**63,
        2**64,
        -(2**63),
        10**300,
        1e308,
        1.5,
        True,
        None,
        [],
        {},
        "",
        "x" * 100_000,
        "'; create table pwned (); --",
        "1 or 1=1",
        "infinity",
        "9999-12-31T23:59:59.999999Z",
        "10000-01-01",
        "\0",
        "00000000-0000-0000-0000-000000000000",
    ],
    ids=lambda place: repr(place)[:30],
)
def test_a_forged_cursor_is_refused(victim: Victim, context_id: str, cursors: dict[str, str], place: Any) -> None:
    for name, cursor in cursors.items():
        parts = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        for at in range(len(parts)):
            forged = [*parts[:at], place, *parts[at + 1 :]]
            for content in (forged, [*parts, place], parts[:at], {"0": place}, place):
                written = base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")
                found = page(victim, name, context_id, written)
                # What is of the right type is a place like any other.
                assert found == Code.BAD_USER_INPUT or (isinstance(found, list) and content == forged)


@pytest.mark.usefixtures("nothing_written")
def test_what_is_no_cursor_is_refused(victim: Victim, context_id: str) -> None:
    for text in ("", " ", "=", "====", "é", "\0", "a" * 1_000_000, "W10", "bnVsbA", "W1tbW1tbW1tb", "../..", "[]", "1"):
        for name in CONNECTIONS:
            assert page(victim, name, context_id, text) == Code.BAD_USER_INPUT
    deep = base64.urlsafe_b64encode(b"[" * 100_000).decode()
    assert page(victim, "messages", context_id, deep) == Code.BAD_USER_INPUT


ID_PLACES = [
    place
    for place in PLACES
    if place.coordinate.rpartition(".")[2] in {"contextId", "parentId"}
    or place.coordinate in {"Query.context.id", "Query.node.id", "Query.nodes.ids", "Context.diff.with"}
]


def answer(victim: Victim, place: Place, given_id: str, own_id: str) -> tuple[int, str]:
    """Give the answer for an id, without the id; another id that is asked for is the caller's own."""
    found = victim.send(place.body(given_id, own_id, by_variable=True))
    return found.status, found.body.decode().replace(given_id, "ID")


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize(
    "place", [each for each in ID_PLACES if each.operation != "subscription"], ids=lambda each: each.coordinate
)
def test_a_foreign_id_is_answered_as_an_unknown_one(victim: Victim, foreign_id: str, own_id: str, place: Place) -> None:
    unknown = answer(victim, place, str(uuid.uuid4()), own_id)
    assert answer(victim, place, foreign_id, own_id) == unknown
    assert "secret" not in unknown[1]


@pytest.mark.usefixtures("nothing_written")
@pytest.mark.parametrize(
    "place",
    [each for each in ID_PLACES if each.operation == "subscription" and "parentId" not in each.path],
    ids=lambda each: each.coordinate,
)
def test_a_foreign_id_is_followed_no_more_than_an_unknown_one(victim: Victim, foreign_id: str, place: Place) -> None:
    with victim.websocket() as socket:
        told = []
        for context_id in (str(uuid.uuid4()), foreign_id):
            socket.send(
                {"type": "subscribe", "id": "1", "payload": place.body(context_id, context_id, by_variable=True)}
            )
            told.append(json.dumps(socket.receive()).replace(context_id, "ID"))
    assert told[0] == told[1]
    assert '"error"' in told[0]


def test_a_deleted_context_is_answered_as_an_unknown_one(victim: Victim, context_id: str) -> None:
    deleted, unknown = create(victim, "deleted"), str(uuid.uuid4())
    victim.ask("mutation ($id: ID!) { deleteContext(input: {contextId: $id}) { context { id } } }", id=deleted)
    for place in ID_PLACES:
        # Restoring finds what is deleted, and a list may ask for the forks of what is.
        if place.operation != "subscription" and "restore" not in place.argument and "parentId" not in place.path:
            if place.argument == "Mutation.deleteContext.input":
                continue
            assert answer(victim, place, deleted, context_id) == answer(victim, place, unknown, context_id), (
                place.coordinate
            )


def test_looking_for_a_foreign_id_is_the_same_work_as_for_an_unknown_one(
    victim: Victim, foreign_id: str, tmp_path: Path
) -> None:
    document = tmp_path / "document.graphql"
    document.write_text(
        """query ($id: ID!) {
          context(id: $id) { name messages { nodes { content } } window(budget: 100) { tokenCount } }
          node(id: $id) { id }
          nodes(ids: [$id]) { id }
        }"""
    )

    def work(context_id: str) -> list[str]:
        """Tell the statements, and of each node of their plans whether it was executed and found anything."""
        variables = json.dumps({"id": context_id})
        done = program.run(
            tmp_path, "explain", str(document), "--variables", variables, DATABASE_URL=victim.database_url
        )
        assert done.returncode == 0, done
        found = re.findall(
            r"^ +(?:-> +)?([^(\n]+)\(cost.*(never executed|rows=\S+)|^(\S+\.\S+)$", done.stdout, re.MULTILINE
        )
        return [f"{query}{node}: {re.sub('[1-9][0-9.]*', 'some', rows)}" for node, rows, query in found]

    unknown = work(str(uuid.uuid4()))
    assert len(unknown) > 40
    assert any("rows=0" in node for node in unknown)
    assert work(foreign_id) == unknown


def test_an_id_tells_when_and_nothing_else(victim: Victim) -> None:
    made = [uuid.UUID(create(victim, "timed")) for _ in range(20)]
    assert [each.version for each in made] == [7] * 20
    assert made == sorted(made)
    # Whoever knows one cannot count on to the next.
    assert min(after.int - before.int for before, after in itertools.pairwise(made)) > 2**32


def test_ids_made_in_one_moment_do_not_follow_from_each_other(victim: Victim, honest: Honest) -> None:
    query = """mutation ($id: ID!, $messages: [MessageInput!]!) {
      appendMessages(input: {contextId: $id, messages: $messages}) { messages { id } }
    }"""
    context_id = create(victim, "of one moment")
    assert context_id != honest.id
    found = victim.ask(query, id=context_id, messages=MESSAGES * 200).data["appendMessages"]["messages"]
    made = sorted(uuid.UUID(each["id"]).int for each in found)
    assert len({each & (2**32 - 1) for each in made}) == len(made)
    assert min(after - before for before, after in itertools.pairwise(made)) > 2**16


@pytest.mark.usefixtures("nothing_written")
def test_what_is_no_id_is_refused(victim: Victim, context_id: str) -> None:
    plain = context_id.replace("-", "")
    for text in (
        "",
        "x",
        plain,
        f"{{{context_id}}}",
        f"urn:uuid:{context_id}",
        f" {context_id}",
        f"{context_id}\n",
        "0" * 36,
        context_id + "\0",
        context_id[:-1] + "é",
        "1",
        "*",
        "%",
        "x" * 100_000,
        context_id.replace("-", "\u2010"),
    ):
        assert (
            victim.send({"query": "query ($id: ID!) { context(id: $id) { id } }", "variables": {"id": text}}).code
            == Code.BAD_USER_INPUT
        )
