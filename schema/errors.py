"""Every failure a caller sees: its code, its message, and the one function that shows it."""

import re
import uuid
from enum import StrEnum
from typing import Any

import structlog
from graphql import GraphQLError, ValueNode

import db.errors

log = structlog.get_logger(__name__)

MESSAGE_CHARACTERS_MAX = 1_000
LOCATIONS_MAX = 20


class Code(StrEnum):
    """What `extensions.code` may hold. Clients branch on these; they are never renamed."""

    GRAPHQL_PARSE_FAILED = "GRAPHQL_PARSE_FAILED"
    GRAPHQL_VALIDATION_FAILED = "GRAPHQL_VALIDATION_FAILED"
    PERSISTED_QUERY_NOT_FOUND = "PERSISTED_QUERY_NOT_FOUND"
    BAD_USER_INPUT = "BAD_USER_INPUT"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    CONFLICT = "CONFLICT"
    TIMEOUT = "TIMEOUT"
    UNAVAILABLE = "UNAVAILABLE"
    INTERNAL_SERVER_ERROR = "INTERNAL_SERVER_ERROR"


class Refusal(Exception):
    """A request that is refused on purpose: the message says what was wrong, then what would be right."""

    code: Code

    def __init__(self, message: str, **extensions: Any) -> None:
        super().__init__(message)
        self.message = message
        self.extensions = extensions


class BadUserInput(Refusal):
    """The input does not mean anything here."""

    code = Code.BAD_USER_INPUT


class LimitExceeded(Refusal):
    """The input is too much, too long or too large."""

    code = Code.LIMIT_EXCEEDED


class Unauthenticated(Refusal):
    """Nobody is known who asks like this."""

    code = Code.UNAUTHENTICATED


class Forbidden(Refusal):
    """Who asks is known, and may not do this."""

    code = Code.FORBIDDEN


class NotFound(Refusal):
    """A mutation names an object that is not there."""

    code = Code.NOT_FOUND


class Conflict(Refusal):
    """What the call builds on has changed, or its key stands for another call."""

    code = Code.CONFLICT


def present(error: GraphQLError) -> dict[str, Any]:
    """Show one execution error to the caller: message, path, locations and `extensions.code`.

    An error that nobody foresaw is logged with an id and shown as INTERNAL_SERVER_ERROR with that id, and nothing else.
    """
    root = _root(error)
    cause = root.original_error
    if root.nodes and isinstance(root.nodes[0], ValueNode):
        # graphql-core blames a value of the document or a variable in its place: an argument that does not coerce.
        return _placed(error) | _blame(error, root, Code.BAD_USER_INPUT)
    match cause:
        case Refusal():
            shown = show(cause)
        case db.errors.StatementTimeout():
            shown = _shown(str(cause), Code.TIMEOUT)
        case db.errors.Unavailable():
            shown = _shown(str(cause), Code.UNAVAILABLE)
        case db.errors.OutOfRange():
            shown = _shown(str(cause), Code.LIMIT_EXCEEDED)
        case RecursionError():
            log.warning("too deep a value", path=error.path, exc_info=cause)
            shown = _shown("A value is nested too deeply: nest it less.", Code.LIMIT_EXCEEDED)
        case _:
            # Without a cause it is graphql-core that speaks, of our insides: null for a non-null field, or a value
            # that its scalar cannot serialise.
            shown = mask(cause or root, path=error.path)
    return _placed(error) | shown


def present_request(error: GraphQLError, code: Code) -> dict[str, Any]:
    """Show one error of parsing, validation or variables; it is of `code` unless a Refusal says otherwise."""
    return _placed(error) | _blame(error, _root(error), code)


def show(refusal: Refusal) -> dict[str, Any]:
    """Show a refusal that has no place in a document."""
    return _shown(refusal.message, refusal.code, **refusal.extensions)


def _shown(message: str, code: Code, **extensions: Any) -> dict[str, Any]:
    # What quotes the caller is cut, and lone surrogates are replaced because many a JSON reader refuses them.
    text = message if len(message) <= MESSAGE_CHARACTERS_MAX else message[: MESSAGE_CHARACTERS_MAX - 1] + "…"
    return {"message": text.encode("utf-8", "replace").decode(), "extensions": {"code": code, **extensions}}


def _placed(error: GraphQLError) -> dict[str, Any]:
    placed: dict[str, Any] = {}
    if error.locations:
        places = error.locations[:LOCATIONS_MAX]
        placed["locations"] = [{"line": place.line, "column": place.column} for place in places]
    if error.path:
        placed["path"] = error.path
    return placed


def _root(error: GraphQLError) -> GraphQLError:
    """Find the error that graphql-core first made, before it added where and for which variable."""
    while isinstance(error.original_error, GraphQLError):
        error = error.original_error
    return error


def _blame(error: GraphQLError, root: GraphQLError, code: Code) -> dict[str, Any]:
    """Say what is wrong with a value; what a scalar raised is shown only when it was a Refusal."""
    cause = root.original_error
    if cause is None:
        return _shown(error.message, code)
    # "Variable '$input' has invalid value at 'input.metadata': ...", or the same of an argument.
    place, colon, _ = error.message.partition(": ")
    prefix = place + colon if colon and place.startswith(("Variable '$", "Argument '")) else ""
    if isinstance(cause, Refusal):
        own = code if isinstance(cause, BadUserInput) else cause.code
        return _shown(prefix + cause.message, own, **cause.extensions)
    if isinstance(cause, RecursionError):
        return _shown(f"{prefix}The value is nested too deeply: nest it less.", Code.LIMIT_EXCEEDED)
    expected = re.search(r"Expected value of type '([\[\]\w!]+)'", error.message)
    kind = f"the type {expected[1]}" if expected else "its type"
    return _shown(f"{prefix}The value does not belong to {kind}.", code)


def mask(cause: BaseException, **where: Any) -> dict[str, Any]:
    """Log what nobody foresaw, and say of it only an id that finds it in the log."""
    error_id = uuid.uuid4().hex
    log.error("unforeseen error", error_id=error_id, exc_info=cause, **where)
    return {
        "message": f"Something went wrong on our side. The log tells more under the id {error_id}.",
        "extensions": {"code": Code.INTERNAL_SERVER_ERROR, "errorId": error_id},
    }
