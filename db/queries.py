"""Named queries: SQL text lives in `queries/*.sql`, one file a concept, and reaches PostgreSQL unchanged.

A query begins at a header `-- name: fork :one`; the comment lines that follow it are its documentation. `:one` gives
at most one row, `:many` any number. Parameters are PostgreSQL's own `$1`, and `$1` is always the tenant. A query is
planned once for each connection; one whose header ends in `replanned` is planned at each call, because its best plan
depends on the parameters. One that ends in `pipelined` does work of a known bound, and may run in the fast lane.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import LiteralString, cast

FOLDER = Path(__file__).parent / "queries"
_HEADER = re.compile(r"^-- name: (?P<name>[a-z_]+) :(?P<kind>one|many)(?P<mark> replanned| pipelined)?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Query:
    """A statement by name: `lineage.page`, its kind, its text, and the mark of its header."""

    name: str
    kind: str
    text: LiteralString
    replanned: bool = False
    pipelined: bool = False


@cache
def load(stem: str) -> dict[str, Query]:
    """Read the queries of one file, by name.

    Raises ValueError when a name stands twice.
    """
    text = (FOLDER / f"{stem}.sql").read_text(encoding="utf-8")
    parts = _HEADER.split(text)[1:]
    queries: dict[str, Query] = {}
    for name, kind, mark, body in zip(parts[::4], parts[1::4], parts[2::4], parts[3::4], strict=True):
        if name in queries:
            raise ValueError(f"{stem}.sql names {name} twice")
        # The text is ours, read from a file of the package: what LiteralString asks for, though no checker can see it.
        queries[name] = Query(
            f"{stem}.{name}", kind, cast("LiteralString", body.strip()), mark == " replanned", mark == " pipelined"
        )
    return queries


def pipelined(*, writing: bool) -> list[Query]:
    """Give the queries of the fast lane: those that only read, or those that its writes need."""
    writes = {"message.append", "rate_limit.charge"}
    marked = [query for stem in stems() for query in load(stem).values() if query.pipelined]
    if writing:
        return [query for query in marked if query.name in writes | {"message.by_ids"}]
    return [query for query in marked if query.name not in writes]


def stems() -> list[str]:
    """Name every file of queries."""
    return sorted(path.stem for path in FOLDER.glob("*.sql"))
