"""Failures as callers see them: a code, a message without our insides, and for the unforeseen an id into the log."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest
from graphql import GraphQLError
from psycopg import errors as postgresql
from psycopg_pool import PoolTimeout
from structlog.testing import capture_logs

import db.context
import db.errors
from graphql_api.app import create_app
from graphql_api.settings import Settings
from schema.errors import BadUserInput, Code, LimitExceeded, NotFound, Refusal, mask, present, present_request, show
from tests.client import Api, ApiError
from tests.conftest import api_over
from tests.schema.calls import append, create, refusal, say

SECRET = 'select "secret" from contexts'


def test_the_codes_are_those_of_the_contract() -> None:
    assert [code.value for code in Code] == [
        "GRAPHQL_PARSE_FAILED",
        "GRAPHQL_VALIDATION_FAILED",
        "PERSISTED_QUERY_NOT_FOUND",
        "BAD_USER_INPUT",
        "LIMIT_EXCEEDED",
        "UNAUTHENTICATED",
        "FORBIDDEN",
        "NOT_FOUND",
        "CONFLICT",
        "TIMEOUT",
        "UNAVAILABLE",
        "INTERNAL_SERVER_ERROR",
    ]


@pytest.mark.parametrize(
    ("cause", "code", "message"),
    [
        (BadUserInput("Wrong. Right."), "BAD_USER_INPUT", "Wrong. Right."),
        (LimitExceeded("Much. Less."), "LIMIT_EXCEEDED", "Much. Less."),
        (NotFound("Gone."), "NOT_FOUND", "Gone."),
        (
            db.errors.StatementTimeout(),
            "TIMEOUT",
            "The database took too long and was stopped. Ask for less, or try again.",
        ),
        (
            db.errors.Unavailable(),
            "UNAVAILABLE",
            "The database cannot be reached just now. Nothing was lost that was acknowledged; try again.",
        ),
        (
            db.errors.OutOfRange(),
            "LIMIT_EXCEEDED",
            "A total would pass 2147483647, the largest Int of GraphQL. Use another context.",
        ),
        (RecursionError("maximum recursion"), "LIMIT_EXCEEDED", "A value is nested too deeply: nest it less."),
    ],
)
def test_what_is_foreseen_has_a_code_and_a_place(cause: Exception, code: str, message: str) -> None:
    shown = present(GraphQLError("anything", path=["context", 0], original_error=cause))
    assert shown == {"message": message, "path": ["context", 0], "extensions": {"code": code}}


def test_a_refusal_may_carry_more() -> None:
    class Conflict(Refusal):
        code = Code.CONFLICT

    shown = show(Conflict("Others were faster.", latestVersion=7))
    assert shown == {"message": "Others were faster.", "extensions": {"code": "CONFLICT", "latestVersion": 7}}


@pytest.mark.parametrize(
    "cause",
    [KeyError(SECRET), psycopg.ProgrammingError(SECRET), postgresql.UniqueViolation(SECRET), AssertionError(), None],
)
def test_what_nobody_foresaw_is_an_id_into_the_log_and_nothing_else(cause: Exception | None) -> None:
    with capture_logs() as logged:
        shown = present(GraphQLError(SECRET, path=["a"], original_error=cause))
    error_id = shown["extensions"]["errorId"]
    assert shown == {
        "message": f"Something went wrong on our side. The log tells more under the id {error_id}.",
        "path": ["a"],
        "extensions": {"code": "INTERNAL_SERVER_ERROR", "errorId": error_id},
    }
    (entry,) = logged
    assert (entry["event"], entry["error_id"], entry["path"]) == ("unforeseen error", error_id, ["a"])
    assert entry["exc_info"] is cause or cause is None


def test_ids_of_errors_differ() -> None:
    with capture_logs() as logged:
        ids = {mask(KeyError())["extensions"]["errorId"] for _ in range(3)}
    assert ids == {entry["error_id"] for entry in logged}
    assert len(ids) == 3


def test_messages_are_short_and_can_be_sent() -> None:
    (long, odd) = [show(BadUserInput(text))["message"] for text in ("x" * 5000, "a\ud800b")]
    assert (len(long), long[-1]) == (1000, "…")
    assert odd == "a?b"


def test_a_request_error_has_the_code_of_its_stage_unless_a_refusal_says_otherwise() -> None:
    for stage in (Code.GRAPHQL_PARSE_FAILED, Code.GRAPHQL_VALIDATION_FAILED, Code.BAD_USER_INPUT):
        assert present_request(GraphQLError("Wrong."), stage) == {"message": "Wrong.", "extensions": {"code": stage}}
        caused = GraphQLError("Expected value of type 'Int!': " + SECRET, original_error=ValueError(SECRET))
        shown = present_request(caused, stage)
        assert shown == {"message": "The value does not belong to the type Int!.", "extensions": {"code": stage}}
        refused = GraphQLError("Variable '$a' has invalid value: x", original_error=LimitExceeded("Too long."))
        assert present_request(refused, stage)["extensions"] == {"code": "LIMIT_EXCEEDED"}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (postgresql.QueryCanceled(SECRET), db.errors.StatementTimeout),
        (postgresql.NumericValueOutOfRange(SECRET), db.errors.OutOfRange),
        (PoolTimeout(SECRET), db.errors.Unavailable),
        (psycopg.OperationalError(SECRET), db.errors.Unavailable),
        (postgresql.AdminShutdown(SECRET), db.errors.Unavailable),
        (postgresql.TooManyConnections(SECRET), db.errors.Unavailable),
        (postgresql.DeadlockDetected(SECRET), db.errors.Unavailable),
        (psycopg.InterfaceError(SECRET), db.errors.Unavailable),
    ],
)
def test_failures_of_postgresql_are_told_in_our_own_words(error: psycopg.Error, kind: type[Exception]) -> None:
    translated = db.errors.translate(error)
    assert type(translated) is kind
    assert SECRET not in str(translated)


def test_a_failure_of_postgresql_that_nobody_foresaw_is_told_to_the_log_alone() -> None:
    translated = db.errors.translate(postgresql.UndefinedTable(SECRET))
    assert isinstance(translated, db.errors.Unforeseen)
    shown = present(GraphQLError("x", original_error=translated))
    assert shown["extensions"]["code"] == "INTERNAL_SERVER_ERROR"
    assert SECRET not in str(shown)


async def test_a_failing_field_leaves_its_siblings_and_no_trace_of_sql(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = await create(api, say("kept"))

    async def fail(*_: object) -> object:
        raise psycopg.ProgrammingError(SECRET)

    monkeypatch.setattr(db.context, "count_forks", fail)
    document = "query ($id: ID!) { a: context(id: $id) { forks { totalCount } } b: context(id: $id) { latestVersion } }"
    with capture_logs() as logged, pytest.raises(ApiError) as caught:
        await api(document, id=root["id"])
    assert caught.value.data == {"a": None, "b": {"latestVersion": 1}}
    (shown,) = caught.value.errors
    assert shown["path"] == ["a", "forks", "totalCount"]
    (entry,) = [entry for entry in logged if entry["event"] == "unforeseen error"]
    assert shown["extensions"] == {"code": "INTERNAL_SERVER_ERROR", "errorId": entry["error_id"]}
    assert SECRET not in json.dumps(caught.value.errors)


async def test_a_broken_store_never_shows_its_sql(settings: Settings, database_url: str) -> None:
    async with api_over(create_app(settings)) as api:
        root = await create(api, say())
        with psycopg.connect(database_url) as connection:
            connection.execute("alter table messages rename to elsewhere")
        reading = "query ($id: ID!) { context(id: $id) { messages { nodes { id } } } }"
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: api(reading, id=root["id"]),
            lambda: append(api, root["id"], say()),
            lambda: create(api, say()),
        ]
        for call in calls:
            with capture_logs() as logged:
                code, message = await refusal(call())
            assert code == "INTERNAL_SERVER_ERROR"
            for word in ("select", "insert", "relation", "messages", "psycopg", "Traceback", "42P01"):
                assert word not in message
            assert [entry["event"] for entry in logged].count("unforeseen error") == 1
        assert (await api("{ contexts { totalCount } }"))["contexts"]["totalCount"] == 1
