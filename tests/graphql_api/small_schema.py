"""A schema whose fields fail in every way that there is."""

import asyncio
import enum
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from typing import NewType

import strawberry
from graphql import GraphQLError
from strawberry.schema.config import StrawberryConfig

import db.errors
from schema.errors import BadUserInput, Code, LimitExceeded, NotFound

SECRET = "the words of an inner failure"


def read_odd(value: object) -> str:
    """A scalar that fails as its input says."""
    match value:
        case "refuse":
            raise BadUserInput("odd is refused: send even")
        case "limit":
            raise LimitExceeded("odd is too long: send a short one")
        case "recurse":
            raise RecursionError(SECRET)
        case "fail":
            raise KeyError(SECRET)
    return str(value)


def write_odd(_value: str) -> str:
    raise ValueError(SECRET)


Odd = NewType("Odd", str)


@strawberry.input(one_of=True)
class OneInput:
    id: strawberry.ID | None = strawberry.UNSET
    number: int | None = strawberry.UNSET


@strawberry.enum
class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@strawberry.input
class PartInput:
    name: str
    odd: Odd | None = None
    parts: list["PartInput"] | None = None


FAILURES: dict[str, tuple[type[Exception] | Exception, Code]] = {
    "value_error": (ValueError(SECRET), Code.INTERNAL_SERVER_ERROR),
    "graphql_error": (GraphQLError(SECRET), Code.INTERNAL_SERVER_ERROR),
    "asyncio_timeout": (TimeoutError(SECRET), Code.INTERNAL_SERVER_ERROR),
    "group": (ExceptionGroup(SECRET, [ValueError(SECRET)]), Code.INTERNAL_SERVER_ERROR),
    "type_error": (TypeError(SECRET), Code.INTERNAL_SERVER_ERROR),
    "recursion": (RecursionError(SECRET), Code.LIMIT_EXCEEDED),
    "refusal": (BadUserInput("no such thing: take another"), Code.BAD_USER_INPUT),
    "limit": (LimitExceeded("too much: take less"), Code.LIMIT_EXCEEDED),
    "not_found": (NotFound("nothing there"), Code.NOT_FOUND),
    "unavailable": (db.errors.Unavailable(), Code.UNAVAILABLE),
    "statement_timeout": (db.errors.StatementTimeout(), Code.TIMEOUT),
    "out_of_range": (db.errors.OutOfRange(), Code.LIMIT_EXCEEDED),
}


@strawberry.type
class Query:
    @strawberry.field
    def echo(self, text: str = "") -> str:
        return text

    @strawberry.field
    async def required(self, number: int) -> int | None:
        return number

    @strawberry.field
    def colour(self, colour: Colour = Colour.RED) -> Colour:
        return colour

    @strawberry.field
    def part(self, part: PartInput | None = None, odd: Odd | None = None) -> bool:
        return part is None and odd is None

    @strawberry.field
    def numbers(self, numbers: list[int]) -> int:
        return len(numbers)

    @strawberry.field
    def json(self, value: strawberry.scalars.JSON) -> strawberry.scalars.JSON:
        return value

    @strawberry.field
    def show(  # noqa: PLR0917 - GraphQL gives arguments by name
        self,
        id: strawberry.ID | None = None,  # noqa: A002 - the usual name of an argument
        ids: list[strawberry.ID] | None = None,
        number: int | None = 1,
        ratio: float = 0.5,
        text: str | None = None,
        odd: Odd | None = None,
        value: strawberry.scalars.JSON | None = None,
        part: PartInput | None = None,
        one: OneInput | None = None,
    ) -> str:
        return repr((id, ids, number, ratio, text, odd, value, part, one))

    @strawberry.field
    def context(self, info: strawberry.Info) -> str:
        return f"{info.context} {info.field_name} {info.path.key} {info.schema.query.__name__}"

    @strawberry.field
    def deeper(self) -> "Query":
        return Query()

    @strawberry.field
    async def fail(self, how: str) -> str | None:
        raise FAILURES[how][0]

    @strawberry.field
    def fail_now(self, how: str) -> str | None:
        raise FAILURES[how][0]

    @strawberry.field
    async def cancelled(self) -> str | None:
        raise asyncio.CancelledError

    @strawberry.field
    async def slow(self) -> str:
        await asyncio.Event().wait()
        return ""

    @strawberry.field
    def null(self) -> str:
        return None  # type: ignore[return-value]

    @strawberry.field
    def huge(self) -> int | None:
        return 2**40

    @strawberry.field
    def wrong_enum(self) -> Colour | None:
        return SECRET  # type: ignore[return-value]

    @strawberry.field
    def odd(self) -> Odd | None:
        return Odd("1")

    @strawberry.field
    def many(self, count: int) -> list["Broken"]:
        return [Broken()] * count


@strawberry.type
class Broken:
    @strawberry.field
    def value(self) -> str | None:
        raise LimitExceeded("each one fails")


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def write(self, info: strawberry.Info, text: str = "") -> bool:  # noqa: ARG002 - a literal's place
        info.context["written"] = True
        return True


@strawberry.type
class Tick:
    number: int

    @strawberry.field
    async def own(self, info: strawberry.Info) -> int:
        """Which context it was given, of all that were opened."""
        return int(info.context["number"])

    @strawberry.field
    async def fail(self) -> int | None:
        raise BadUserInput("this tick fails")

    @strawberry.field
    async def wait(self) -> int:
        await asyncio.Event().wait()
        return 0


@strawberry.type
class Subscription:
    """Each source says in its context whether it is open."""

    @strawberry.subscription
    async def ticks(self) -> AsyncIterator[int]:
        yield 1

    @strawberry.subscription
    async def count(self, info: strawberry.Info, to: int = 3, text: str = "") -> AsyncIterator[str]:
        with _open(info):
            for number in range(1, to + 1):
                yield f"{number}{text}"

    @strawberry.subscription
    async def objects(self, info: strawberry.Info, to: int = 2) -> AsyncIterator[Tick]:
        with _open(info):
            for number in range(1, to + 1):
                await asyncio.sleep(0)
                yield Tick(number=number)

    @strawberry.subscription
    async def forever(self, info: strawberry.Info, first: int = 1) -> AsyncIterator[int]:
        with _open(info):
            yield first
            await asyncio.Event().wait()

    @strawberry.subscription
    async def untold(self) -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    @strawberry.subscription
    async def never(self, info: strawberry.Info) -> AsyncIterator[int]:
        with _open(info):
            await asyncio.Event().wait()
            yield 1

    @strawberry.subscription
    async def without_pause(self, info: strawberry.Info, size: int = 1) -> AsyncIterator[str]:
        with _open(info):
            while True:
                info.context["given"] = info.context.get("given", 0) + 1
                yield "x" * size

    @strawberry.subscription
    async def fail(self, info: strawberry.Info, how: str, after: int = 0) -> AsyncIterator[int]:
        with _open(info):
            for number in range(1, after + 1):
                yield number
            raise FAILURES[how][0]

    @strawberry.subscription
    async def refused(self, info: strawberry.Info) -> AsyncIterator[int]:
        info.context["refused"] = True
        await asyncio.sleep(0)
        raise NotFound("nothing to follow")

    @strawberry.subscription
    async def never_begins(self) -> AsyncIterator[int]:
        await asyncio.Event().wait()
        raise AssertionError

    @strawberry.subscription
    async def no_source(self) -> AsyncIterator[int]:
        return None  # type: ignore[return-value]

    @strawberry.subscription
    async def fails_to_close(self, info: strawberry.Info) -> AsyncIterator[int]:
        with _open(info):
            try:
                yield 1
                await asyncio.Event().wait()
            finally:
                raise ValueError(SECRET)

    @strawberry.subscription
    async def slow_to_close(self, info: strawberry.Info) -> AsyncIterator[int]:
        with _open(info):
            try:
                yield 1
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0.05)

    @strawberry.subscription
    async def loses_a_cancellation(self, info: strawberry.Info) -> AsyncIterator[int]:
        with _open(info):
            yield 1
            info.context["waits"] = True
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await asyncio.Event().wait()

    @strawberry.subscription
    async def minds_no_cancellation(self, info: strawberry.Info) -> AsyncIterator[int]:
        with _open(info):
            while True:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(0.001)
                yield 1


@contextmanager
def _open(info: strawberry.Info) -> Iterator[None]:
    info.context["source"] = "open"
    try:
        yield
    finally:
        assert not info.context["closed"]
        info.context["source"] = "closed"


CONFIG = StrawberryConfig(scalar_map={Odd: strawberry.scalar(name="Odd", serialize=write_odd, parse_value=read_odd)})
SMALL = strawberry.Schema(Query, Mutation, Subscription, config=CONFIG)
SCHEMA = SMALL._schema  # noqa: SLF001 - graphql-core's own
