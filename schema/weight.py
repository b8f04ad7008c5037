"""What each field of the schema weighs: bytes of a value as JSON, rows that it takes, and how long its list may be.

Bytes are what is usual of a value, and text may be longer. Rows are bounds: no field gives more, unless messages have
no tokens, of which a window may hold more than its budget. Some lists are hardly ever as long as they may be; their
share says how much of it is usual. A test fails while a field has no weight here.
"""

from typing import Literal, NamedTuple

from schema.connection import OF_PAGE, PAGE_DEFAULT
from schema.tree import NODES_DEFAULT

FLAG, NUMBER, WORD, MOMENT, ID, NAME, CURSOR = 5, 8, 16, 30, 38, 40, 90
JSON, TEXT = 256, 1_024
# The braces of an object, or the brackets of a list.
OBJECT = 2
# The quotes, the colon and the comma around a name; the name itself is the caller's, and counted as it is long.
QUOTED = 4

# Tool calls of a message: most have one.
TOOL_CALLS = 2
# A copy is as long as the history, which is not known before; of a usual one it is some 1,000 rows.
COPY_ROWS = 1_000

_CONNECTION = {"totalCount": NUMBER}
_COUNTS = {"messageCount": NUMBER, "totalTokens": NUMBER}

# Bytes of the leaves.
LEAVES: dict[str, dict[str, int]] = {
    "Context": {
        "id": ID,
        "name": NAME,
        "metadata": JSON,
        "createdAt": MOMENT,
        "updatedAt": MOMENT,
        "deletedAt": MOMENT,
        "latestVersion": NUMBER,
        "forkVersion": NUMBER,
        "depth": NUMBER,
        **_COUNTS,
    },
    "Message": {
        "id": ID,
        "version": NUMBER,
        "createdAt": MOMENT,
        "role": WORD,
        "content": TEXT,
        "toolCallId": NAME,
        "toolName": NAME,
        "tokenCount": NUMBER,
        "model": NAME,
        "metadata": JSON,
        "deletedAt": MOMENT,
    },
    "ToolCall": {"id": NAME, "name": NAME, "arguments": JSON},
    "ContextConnection": _CONNECTION,
    "MessageConnection": _CONNECTION,
    "ApiKey": {
        "id": ID,
        "name": NAME,
        "scopes": NAME,
        "createdAt": MOMENT,
        "expiresAt": MOMENT,
        "revokedAt": MOMENT,
        "lastUsedAt": MOMENT,
    },
    "ApiKeyEdge": {"cursor": CURSOR},
    "CreateApiKeyPayload": {"key": CURSOR},
    "ContextEdge": {"cursor": CURSOR},
    "MessageEdge": {"cursor": CURSOR},
    "PageInfo": {"startCursor": CURSOR, "endCursor": CURSOR, "hasPreviousPage": FLAG, "hasNextPage": FLAG},
    "ContextSnapshot": {"version": NUMBER, **_COUNTS},
    "DiffSide": _COUNTS,
    "CommonAncestor": {"version": NUMBER},
    "ContextTree": {"root": ID, "truncated": FLAG},
    "ContextTreeNode": {
        "id": ID,
        "name": NAME,
        "parentId": ID,
        "forkVersion": NUMBER,
        "depth": NUMBER,
        "latestVersion": NUMBER,
        "updatedAt": MOMENT,
        "deletedAt": MOMENT,
        **_COUNTS,
    },
    "Window": {
        "tokenCount": NUMBER,
        "budget": NUMBER,
        "truncated": FLAG,
        "fromVersion": NUMBER,
        "toVersion": NUMBER,
        "minimumBudget": NUMBER,
    },
    "MessageEvent": {"version": NUMBER, "latestVersion": NUMBER},
    "ContextEvent": {"kind": WORD},
    "CreateContextPayload": {"replayed": FLAG},
    "ForkContextPayload": {"replayed": FLAG},
    "AppendMessagesPayload": {"replayed": FLAG, "forked": FLAG},
    "Health": {"status": WORD, "timestamp": MOMENT, "version": WORD},
    "DatabaseHealth": {"status": WORD, "latencyMs": NUMBER, "pooled": FLAG, "error": NAME},
    "LiveHealth": {"status": WORD},
}

# Objects of these are rows; what a page, a window or a tree holds is counted there, once.
ROW_TYPES = {"Context", "Message", "Node", "ApiKey"}
PAID_BY_PAGE = {("ContextEdge", "node"), ("MessageEdge", "node"), ("ApiKeyEdge", "node")}

# Rows of other fields that are asked of the database, for each object.
ROWS: dict[tuple[str, str], int] = {
    ("Query", "health"): 1,
    ("Context", "at"): 1,
    ("Context", "commonAncestor"): 2,
    ("Context", "diff"): 2,
    ("ContextConnection", "totalCount"): 1,
    ("MessageConnection", "totalCount"): 1,
    ("PageInfo", "hasPreviousPage"): 1,
    ("PageInfo", "hasNextPage"): 1,
    ("ContextSnapshot", "messageCount"): 1,
    ("ContextSnapshot", "totalTokens"): 1,
    ("DiffSide", "messageCount"): 1,
    ("DiffSide", "totalTokens"): 1,
    ("Mutation", "createContext"): 1,
    ("Mutation", "forkContext"): 1,
    ("Mutation", "copyContext"): COPY_ROWS,
    ("Mutation", "appendMessages"): 1,
    ("Mutation", "updateContext"): 1,
    ("Mutation", "deleteContext"): 1,
    ("Mutation", "restoreContext"): 1,
    ("Mutation", "deleteMessage"): 1,
    ("Mutation", "restoreMessage"): 1,
    ("Mutation", "createApiKey"): 1,
    ("Mutation", "revokeApiKey"): 1,
}


class Sized(NamedTuple):
    """How long a list may be: by which arguments, how long without them, at most how long, and of all together."""

    by: Literal["number", "length", "messages", "nothing"]
    arguments: tuple[str, ...]
    default: int
    most: str
    of_all: str | None = None
    # Usually one of so many that there may be: a message has a hundred tokens.
    share: int = 1
    # Asking for any of these reads the rows; None where the field itself does.
    read_by: frozenset[str] | None = None


_PAGE = Sized("number", ("first", "last"), PAGE_DEFAULT, "page_size_max", read_by=OF_PAGE)
_WINDOW = Sized("number", ("budget",), 0, "window_messages_max", "window_messages_of_all", 100)
_MESSAGES = Sized("messages", ("input",), 0, "append_messages_max")

# Fields that say how long a list is: themselves one, or holding it.
SIZED: dict[tuple[str, str], Sized] = {
    ("Query", "contexts"): _PAGE,
    ("Query", "apiKeys"): _PAGE,
    ("Query", "nodes"): Sized("length", ("ids",), 0, "page_size_max"),
    ("Context", "forks"): _PAGE,
    ("Context", "messages"): _PAGE,
    ("ContextSnapshot", "messages"): _PAGE,
    ("DiffSide", "messages"): _PAGE,
    ("Context", "ancestors"): Sized("nothing", (), 1_000_000_000, "fork_depth_max", "fork_depth_max", 1_000),
    ("Context", "tree"): Sized("number", ("first",), NODES_DEFAULT, "tree_nodes_max", "tree_nodes_of_all", 10),
    ("Context", "window"): _WINDOW,
    ("ContextSnapshot", "window"): _WINDOW,
    ("Mutation", "createContext"): _MESSAGES,
    ("Mutation", "appendMessages"): _MESSAGES,
}

# Lists as long as the field that holds them says.
OF_HOLDER = {
    ("ContextConnection", "edges"),
    ("ContextConnection", "nodes"),
    ("MessageConnection", "edges"),
    ("MessageConnection", "nodes"),
    ("ApiKeyConnection", "edges"),
    ("ApiKeyConnection", "nodes"),
    ("ContextTree", "nodes"),
    ("Window", "messages"),
    ("AppendMessagesPayload", "messages"),
}

# Lists that are short, and no rows of their own.
SHORT: dict[tuple[str, str], int] = {("Message", "toolCalls"): TOOL_CALLS}
# Of another schema than ours.
UNKNOWN = 8

# Introspection reads no rows. Its lists are of about this length in our schema.
INTROSPECTION_LEAF = 16
INTROSPECTION_LISTS = {
    "types": 64,
    **dict.fromkeys(("args", "directives", "enumValues", "fields", "inputFields", "interfaces", "possibleTypes"), 8),
}
