"""Holds the schema to that of the last release: what could break a client of it is a decision, never an accident.

`python -m tests.schema.compatibility` makes the schema as it is the last release's, which is a step of a release.
"""

import re
import sys
from pathlib import Path

from graphql import GraphQLInputObjectType, GraphQLSchema, OperationType, build_schema
from graphql.utilities import BreakingChangeType, DangerousChangeType, find_schema_changes

from graphql_api import __version__
from schema.root import sdl

RELEASED = Path(__file__).with_name("released.graphql")
HEADING = "# The schema of version {}, which clients rely on: `python -m tests.schema.compatibility` writes it.\n\n"

# What this version changes although a client may rely on it: the change, in the words of `risks`, and why it is worth
# that. One that breaks clients is declared only for a new major version, or before 1.0 for a new minor one.
DECLARED: dict[str, str] = {}

# How a schema grows: no client that leaves them out notices.
HARMLESS = {DangerousChangeType.OPTIONAL_ARG_ADDED, DangerousChangeType.OPTIONAL_INPUT_FIELD_ADDED}


def risks(old: GraphQLSchema, new: GraphQLSchema) -> dict[str, bool]:
    """Give each change that a client may notice, and whether it breaks documents that were valid.

    What does not may break clients all the same: they switch over the values of an enum, or rely on a default.
    """
    found = {
        f"{change.type.name}: {change.description}": isinstance(change.type, BreakingChangeType)
        for change in find_schema_changes(old, new)
        if isinstance(change.type, BreakingChangeType | DangerousChangeType) and change.type not in HARMLESS
    }
    return found | dict.fromkeys(_overlooked(old, new), True)


def _overlooked(old: GraphQLSchema, new: GraphQLSchema) -> list[str]:
    """Find what graphql-core does not look for."""
    found = [
        f"ROOT_REMOVED: There is no {operation.value} any more."
        for operation in OperationType
        if old.get_root_type(operation) and not new.get_root_type(operation)
    ]
    for name, kind in new.type_map.items():
        was = old.type_map.get(name)
        if isinstance(kind, GraphQLInputObjectType) and isinstance(was, GraphQLInputObjectType):
            found += [f"ONE_OF_ADDED: {name} takes exactly one field now."] if kind.is_one_of > was.is_one_of else []
    return found


def released() -> tuple[str, GraphQLSchema]:
    """Give the last release's version, and its schema."""
    text = RELEASED.read_text(encoding="utf-8")
    version = re.match(re.escape(HEADING).replace(r"\{\}", r"(\d+\.\d+\.\d+)"), text)
    assert version, f"{RELEASED.name} must begin with its version"
    return version[1], build_schema(text)


def may_break(before: str, now: str) -> bool:
    """Tell whether clients of one version may be broken by another. Source: https://semver.org, items 4 and 8."""

    def promise(version: str) -> tuple[int, int]:
        major, minor, _ = map(int, version.split("."))
        return major, 0 if major else minor

    return promise(now) > promise(before)


def faults(old: GraphQLSchema, new: GraphQLSchema, declared: dict[str, str], *, breaking: bool) -> list[str]:
    """Say what must be mended before these schemas may follow one another, given what is declared.

    `breaking` says whether the version allows to break clients.
    """
    found = risks(old, new)
    return [
        *(f"{change} Take it back, or declare it." for change in found if change not in declared),
        *(
            f"{change} It breaks clients: raise the version."
            for change in declared
            if found.get(change) and not breaking
        ),
        *(f"{change} It is no change of this version: take it out." for change in declared if change not in found),
        *(f"{change} Say why it is worth that." for change, reason in declared.items() if not reason.endswith(".")),
    ]


def release(version: str, path: Path = RELEASED) -> None:
    """Make the schema as it is that of the last release."""
    path.write_text(HEADING.format(version) + sdl(), encoding="utf-8")


if __name__ == "__main__":
    if released()[0] == __version__:
        sys.exit(f"{__version__} is released already: raise the version in graphql_api/__init__.py first.")
    release(__version__)
