"""The tables of docs/limits.md: every setting that is a limit, and the limits that are fixed."""

from collections.abc import Iterator

from graphql_api import endpoint, json_body, limits, operation
from graphql_api.settings import Settings, variable
from schema import context_change, idempotency, message_input, request, storable, tree

# Which limits a reader meets together, and the word for what each counts.
SETTINGS = {
    "What is sent": {
        "body_bytes_max": "bytes",
        "bodies_bytes_max": "bytes",
        "document_tokens_max": "tokens",
        "document_depth_max": "levels",
        "document_fields_max": "fields",
        "document_aliases_max": "aliases",
        "document_root_fields_max": "fields",
        "document_directives_max": "directives",
        "variables_items_max": "items",
    },
    "What is asked for": {
        "page_size_max": "items",
        "cost_rows_max": "rows",
        "cost_bytes_max": "bytes",
        "window_messages_max": "messages",
    },
    "What is written": {
        "append_messages_max": "messages",
        "append_bytes_max": "bytes",
        "fork_depth_max": "forks",
        "copy_messages_max": "messages",
    },
    "What goes on at once": {
        "connections_max": "connections",
        "requests_max": "requests",
        "request_queue_max": "requests",
        "subscriptions_max": "subscriptions",
        "connection_operations_max": "operations",
        "pool_size_max": "connections",
    },
}
# Everything else is answered by LIMIT_EXCEEDED.
CODES = {
    "bodies_bytes_max": "UNAVAILABLE",
    "connections_max": "UNAVAILABLE",
    "requests_max": "none: it waits",
    "request_queue_max": "UNAVAILABLE",
    "subscriptions_max": "UNAVAILABLE",
    "pool_size_max": "none: it waits",
}

FIXED: dict[str, int] = {
    "Operations in a request": 1,
    "Bytes of a query string": endpoint.QUERY_STRING_BYTES_MAX,
    "Strings, commas and brackets in a JSON body": json_body.JSON_TOKENS_MAX,
    "Characters of a document": limits.CHARACTERS_MAX,
    "Comments in a document": limits.COMMENTS_MAX,
    "Operations in a document": limits.OPERATIONS_MAX,
    "Pairs of fields of one name that are compared to be merged": limits.PAIRS_MAX,
    "Fields of introspection": limits.INTROSPECTION_FIELDS_MAX,
    "List items of introspection, as estimated": limits.INTROSPECTION_COST_MAX,
    "Levels of variables": limits.VARIABLES_DEPTH_MAX,
    "Bytes of a request for a subscription": operation.SUBSCRIPTION_BYTES_MAX,
    "Nodes of a tree": tree.NODES_MAX,
    "Nodes of all trees in a request": request.TREE_NODES_MAX,
    "Messages of all windows in a request, in largest windows": request.WINDOWS_MAX,
    "Levels of a JSON value that is stored": storable.DEPTH_MAX,
    "Digits of a number in one": storable.DIGITS_MAX,
    "Tokens of a message": message_input.TOKEN_COUNT_MAX,
    "Characters of a name": context_change.NAME_CHARS_MAX,
    "Characters of an idempotency key": idempotency.KEY_CHARS_MAX,
}


def limits_tables() -> str:
    """List each limit: what it counts, how many, and what who asks for more reads."""
    return "\n\n".join(["\n".join(_settings(group)) for group in SETTINGS] + ["\n".join(_fixed())])


def _settings(group: str) -> Iterator[str]:
    yield from (f"### {group}", "", "| Setting | Default | What it limits | Beyond it |", "| --- | --- | --- | --- |")
    for name, unit in SETTINGS[group].items():
        field = Settings.model_fields[name]
        code = CODES.get(name, "LIMIT_EXCEEDED")
        told = code if " " in code else f"`{code}`"
        yield f"| `{variable(name)}` | {field.default:,} {unit} | {field.description} | {told} |"


def _fixed() -> Iterator[str]:
    yield from ("### Fixed", "", "| What | At most |", "| --- | --- |")
    yield from (f"| {what} | {count:,} |" for what, count in FIXED.items())
