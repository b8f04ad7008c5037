"""What is asked: for each workload a document in the words of each system, and the values of its requests."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Literal

from benchmarks.peers.dataset import LETTERS_MAX, TENANT_ID, Targets, Writer

Dialect = Literal["forkpoint", "postgraphile"]
# How many documents one run may send, each of them new.
ROUND_DOCUMENTS = 15_000
PAGE_SIZES = range(20, 81)
# Requests by which systems are compared: of a round before the first one, so that what is new stays new.
SAMPLE_SEED = -1
# What follows `$` in a document is a variable; what stands between `<<` and `>>` is written into the text.
Values = dict[str, Any]
Documents = dict[Dialect, str]

POINT: Documents = {
    "forkpoint": "query ($id: ID!) { context(id: $id) { id name metadata updatedAt messageCount latestVersion } }",
    "postgraphile": f"""query ($id: UUID!) {{
  context: contextByTenantIdAndRowId(tenantId: "{TENANT_ID}", rowId: $id) {{
    id: rowId name metadata updatedAt messageCount latestVersion
  }}
}}""",
}
NEWEST: Documents = {
    "forkpoint": """query ($id: ID!) {
  context(id: $id) {
    messages(last: 50) { nodes { id version role content tokenCount createdAt } pageInfo { hasPreviousPage } }
  }
}""",
    "postgraphile": f"""query ($id: UUID!) {{
  context: contextByTenantIdAndRowId(tenantId: "{TENANT_ID}", rowId: $id) {{
    messages: newestMessages(size: 51, first: 50) {{
      nodes {{ id: rowId version role content tokenCount createdAt }}
      pageInfo {{ hasPreviousPage: hasNextPage }}
    }}
  }}
}}""",
}
LIST: Documents = {
    "forkpoint": """{
  contexts(first: 20) {
    nodes {
      id name updatedAt messageCount latestVersion
      messages(last: 10) { nodes { id version role content tokenCount createdAt } }
      parent { id name latestVersion }
    }
  }
}""",
    "postgraphile": """{
  contexts: peersNewestContextsList(first: 20) {
    id: rowId name updatedAt messageCount latestVersion
    messages: newestMessagesList(size: 10) { id: rowId version role content tokenCount createdAt }
    parent: contextByTenantIdAndParentId { id: rowId name latestVersion }
  }
}""",
}
WINDOW: Documents = {
    "forkpoint": """query ($id: ID!) {
  context(id: $id) { window(budget: 8000) { messages { id version role content tokenCount } } }
}""",
    "postgraphile": f"""query ($id: UUID!) {{
  context: contextByTenantIdAndRowId(tenantId: "{TENANT_ID}", rowId: $id) {{
    window: windowMessagesList(budget: 8000) {{ id: rowId version role content tokenCount }}
  }}
}}""",
}
APPEND: Documents = {
    "forkpoint": """mutation ($id: ID!, $content: String!, $tokenCount: Int!) {
  appendMessages(input: { contextId: $id, messages: [{ role: USER, content: $content, tokenCount: $tokenCount }] }) {
    context { id latestVersion }
    messages { id version }
  }
}""",
    "postgraphile": """mutation ($id: UUID!, $content: String!, $tokenCount: Int!) {
  appendMessages: peersAppendOne(input: { contextId: $id, content: $content, tokenCount: $tokenCount }) {
    result { contextId latestVersion id: rowId version }
  }
}""",
}
HEALTH: Documents = {
    "forkpoint": "{ health { status } }",
    "postgraphile": "{ health: peersHealth }",
}
LITERALS: Documents = {
    "forkpoint": """{
  <<alias>>context(id: "<<id>>") {
    messages(last: <<count>>) { nodes { id version role content tokenCount createdAt } pageInfo { hasPreviousPage } }
  }
}""",
    "postgraphile": f"""{{
  <<alias>>context: contextByTenantIdAndRowId(tenantId: "{TENANT_ID}", rowId: "<<id>>") {{
    messages: newestMessages(size: <<more>>, first: <<count>>) {{
      nodes {{ id: rowId version role content tokenCount createdAt }}
      pageInfo {{ hasPreviousPage: hasNextPage }}
    }}
  }}
}}""",
}


def _contexts(targets: Targets, _seed: int) -> Iterator[Values]:
    while True:
        yield from ({"id": context_id} for context_id in targets.contexts)


def _forks(targets: Targets, _seed: int) -> Iterator[Values]:
    while True:
        yield from ({"id": context_id} for context_id in targets.forks)


def _nothing(_targets: Targets, _seed: int) -> Iterator[Values]:
    while True:
        yield {}


def _messages(targets: Targets, seed: int) -> Iterator[Values]:
    dice, writer = random.Random(seed), Writer(seed)
    while True:
        for context_id in dice.sample(targets.contexts, len(targets.contexts)):
            content = writer.text()
            assert len(content) <= LETTERS_MAX
            yield {"id": context_id, "content": content, "tokenCount": len(content) // 4 + 4}


def _literals(targets: Targets, seed: int) -> Iterator[Values]:
    """Pair each context with each size of page, 50 in the mean; no pair comes twice in the first rounds."""
    contexts, sizes = len(targets.contexts), len(PAGE_SIZES)
    for number in range(ROUND_DOCUMENTS):
        turn, index = divmod((seed * ROUND_DOCUMENTS + number) % (contexts * sizes), contexts)
        count = PAGE_SIZES[(index * 7 + turn) % sizes]
        yield {"alias": "", "id": targets.contexts[index], "count": count, "more": count + 1}


def _aliases(targets: Targets, seed: int) -> Iterator[Values]:
    for number, values in enumerate(_literals(targets, seed)):
        yield {**values, "alias": f"c{(seed + 1) * ROUND_DOCUMENTS + number}: "}


@dataclass(frozen=True, slots=True)
class Workload:
    """A kind of request: its short name, what it is in words, documents, and where values come from."""

    name: str
    title: str
    documents: Documents
    values: Callable[[Targets, int], Iterator[Values]] = field(repr=False)
    writes: bool = False
    inlined: bool = False

    def requests(self, dialect: Dialect, targets: Targets, seed: int, count: int) -> Iterator[dict[str, Any]]:
        """Write so many requests, the same ones for the same seed."""
        return (self.request(dialect, values) for values in islice(self.values(targets, seed), count))

    def request(self, dialect: Dialect, values: Values) -> dict[str, Any]:
        """Give one request."""
        document = self.documents[dialect]
        if not self.inlined:
            return {"query": document, "variables": values}
        if dialect == "postgraphile" and values["alias"]:
            document = document.replace("context:", "", 1)
        for name, value in values.items():
            document = document.replace(f"<<{name}>>", str(value))
        return {"query": document}


WORKLOADS = [
    Workload("W1", "point read of a context", POINT, _contexts),
    Workload("W2", "a context with its newest 50 messages", NEWEST, _contexts),
    Workload("W3", "20 contexts, each with its newest 10 messages and its parent", LIST, _nothing),
    Workload("W4", "window of 8,000 tokens on a fork 4 deep", WINDOW, _forks),
    Workload("W6", "health", HEALTH, _nothing),
    Workload("N1", "W2 with new literals in every document", LITERALS, _literals, inlined=True),
    Workload("N2", "the same with a new alias in every document", LITERALS, _aliases, inlined=True),
    Workload("W5", "append of one message, durable", APPEND, _messages, writes=True),
]
