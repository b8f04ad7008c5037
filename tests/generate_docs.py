"""Writes what pages of docs/ take from the code and its packages: `python -m tests.generate_docs`.

Each page holds a part that begins and ends with a comment; only that is written. `tests/test_docs.py` compares.
"""

import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le
from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLScalarType,
    Undefined,
    ast_from_value,
    get_named_type,
    is_introspection_type,
    is_specified_scalar_type,
    print_ast,
)
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from graphql_api.settings import Settings
from schema.root import schema
from tests import licences
from tests.generate_limits import limits_tables

DOCS = Path(__file__).parents[1] / "docs"
BEGIN = "<!-- generated: `python -m tests.generate_docs` writes what follows -->"
END = "<!-- end of what is generated -->"
WIDTH = 120

TYPES = schema._schema.type_map  # noqa: SLF001 - graphql-core's own schema

# Which types a reader meets together, and in which order.
GROUPS = {
    "Reading": ["Query"],
    "Writing": ["Mutation"],
    "Watching": ["Subscription", "MessageEvent", "ContextEvent", "ContextEventKind"],
    "Contexts": [
        "Context",
        "ContextSnapshot",
        "Window",
        "ContextConnection",
        "ContextEdge",
        "ContextFilter",
        "ContextOrder",
        "ContextOrderField",
    ],
    "Trees and differences": ["ContextTree", "ContextTreeNode", "CommonAncestor", "ContextDiff", "DiffSide"],
    "Messages": ["Message", "MessageConnection", "MessageEdge", "MessageInput", "Role", "ToolCall", "ToolCallInput"],
    "Inputs and payloads": [
        f"{change}{kind}"
        for change in (
            "CreateContext",
            "ForkContext",
            "CopyContext",
            "AppendMessages",
            "UpdateContext",
            "DeleteContext",
            "RestoreContext",
            "DeleteMessage",
            "RestoreMessage",
        )
        for kind in ("Input", "Payload")
    ]
    + ["OnConflict"],
    "API keys": [
        "ApiKey",
        "ApiKeyScope",
        "ApiKeyConnection",
        "ApiKeyEdge",
        "CreateApiKeyInput",
        "CreateApiKeyPayload",
        "RevokeApiKeyInput",
        "RevokeApiKeyPayload",
    ],
    "Pages, ids and scalars": ["PageInfo", "OrderDirection", "Node", "DateTime", "JSON"],
    "The state of the service": [
        "Health",
        "HealthStatus",
        "HealthChecks",
        "DatabaseHealth",
        "DatabaseStatus",
        "LiveHealth",
        "LiveStatus",
    ],
}

UNITS = {"points": "points", "hours": "hours", "seconds": "seconds", "bytes": "bytes"}


def main() -> None:
    """Write the generated part of each page."""
    for name, text in (
        ("schema.md", schema_reference()),
        ("settings.md", settings_table()),
        ("limits.md", limits_tables()),
        ("licences.md", licences.table()),
    ):
        page = DOCS / name
        before, _, after = split(page.read_text(encoding="utf-8"))
        page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def split(page: str) -> tuple[str, str, str]:
    """Give what stands before, in and after the generated part of a page."""
    before, _, rest = page.partition(BEGIN)
    text, _, after = rest.partition(END)
    return before, text.strip(), after


def documented_types() -> list[str]:
    """Name the types that are ours."""
    return [
        name for name, kind in TYPES.items() if not is_introspection_type(kind) and not is_specified_scalar_type(kind)
    ]


def schema_reference() -> str:
    """Describe every type, group by group."""
    parts: list[str] = []
    for group, names in GROUPS.items():
        parts.append(f"## {group}")
        parts += [_type(TYPES[name]) for name in names]
    return "\n\n".join(parts)


def _type(kind: GraphQLNamedType) -> str:
    lines = [f"### {kind.name}", ""]
    match kind:
        case GraphQLScalarType():
            word, members = "Scalar.", []
        case GraphQLEnumType():
            word = "Enum."
            members = [_item(f"`{name}`. {value.description}") for name, value in kind.values.items()]
        case GraphQLInputObjectType():
            word = "Input."
            members = [_input(name, field, "") for name, field in kind.fields.items()]
        case GraphQLInterfaceType():
            word, members = "Interface.", list(_fields(kind.fields))
        case GraphQLObjectType():
            word = " ".join(["Type.", *(f"Implements {_link(each)}." for each in kind.interfaces)])
            members = list(_fields(kind.fields))
        case _:
            raise TypeError(f"{kind} is of a kind that is not described yet")
    lines += [*_wrap(f"{word} {kind.description}"), ""]
    return "\n".join([*lines, *members]).rstrip()


def _fields(fields: dict[str, GraphQLField]) -> Iterator[str]:
    for name, field in fields.items():
        yield _item(f"`{name}`: {_link(field.type)}. {field.description}")
        for argument, given in field.args.items():
            yield _input(argument, given, "  ")


def _input(name: str, given: GraphQLArgument | GraphQLInputField, indent: str) -> str:
    default = ""
    if given.default_value is not Undefined:
        node = ast_from_value(given.default_value, given.type)
        default = f" = `{print_ast(node)}`" if node else ""
    return _item(f"`{name}`: {_link(given.type)}{default}. {given.description}", indent)


def _item(text: str, indent: str = "") -> str:
    return "\n".join(_wrap(text, f"{indent}- ", f"{indent}  "))


def _wrap(text: str, first: str = "", then: str = "") -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=then, break_long_words=False, break_on_hyphens=False
    )


def _link(kind: Any) -> str:
    name = get_named_type(kind).name
    return f"`{kind}`" if name not in documented_types() else f"[`{kind}`](#{name.lower()})"


def settings_table() -> str:
    """List every setting: its variable, what it may hold, its default, its meaning."""
    rows = ["| Variable | Value | Default | Meaning |", "| --- | --- | --- | --- |"]
    rows += [
        f"| `{variable(name)}` | {_value(name, field)} | {_default(field)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(rows)


def variable(name: str) -> str:
    """Name the environment variable of a setting."""
    return "DATABASE_URL" if name == "database_url" else f"FORKPOINT_{name.upper()}"


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None:
        given = [{"environment": environment} for environment in ("development", "production")]
        here, there = (_shown(field.get_default(call_default_factory=True, validated_data=each)) for each in given)
        return f"{here}; in production {there}"
    if field.default in {None, (), ""}:
        return "none"
    if isinstance(field.default, tuple):
        return f"`{','.join(field.default)}`"
    return _shown(field.default)


def _shown(value: Any) -> str:
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _value(name: str, field: FieldInfo) -> str:
    """Say what a setting may hold: its kind or unit, then its bounds."""
    annotation = field.annotation
    if get_origin(annotation) in {Union, UnionType}:
        (annotation,) = (part for part in get_args(annotation) if part is not NoneType)
    if get_origin(annotation) is Literal:
        return _or(f"`{value}`" for value in get_args(annotation))
    if annotation is bool:
        return "`true` or `false`"
    if get_origin(annotation) is tuple:
        anything = name.startswith("allowed")
        return "list, separated by commas or in JSON; `*` for all" if anything else "list, separated by commas"
    if not isinstance(annotation, type):
        raise TypeError(f"{annotation} is a type that is not described yet")
    units = [UNITS[word] for word in name.split("_") if word in UNITS]
    secret = "URL, secret" if name.endswith("url") else "secret"
    kinds = {SecretStr: secret, Path: "path", str: "text", int: "whole number", float: "number"}
    return ", ".join([*(units or [kinds[annotation]]), *_bounds(field.metadata)])


def _or(values: Iterable[str]) -> str:
    *others, last = values
    return f"{', '.join(others)} or {last}"


def _bounds(metadata: list[Any]) -> Iterator[str]:
    for bound in metadata:
        match bound:
            case Gt(gt=value):
                yield f"more than {value:,}"
            case Ge(ge=value):
                yield f"at least {value:,}"
            case Le(le=value):
                yield f"at most {value:,}"
            case _:
                raise TypeError(f"{bound!r} is a bound that is not described yet")


if __name__ == "__main__":
    main()
