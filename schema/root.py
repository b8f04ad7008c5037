"""The schema: query, mutation and subscription put together, and its text."""

from datetime import datetime

import strawberry
from graphql import (
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    Undefined,
)
from strawberry.scalars import JSON
from strawberry.schema.config import StrawberryConfig

from schema.context import Context
from schema.input import convert_at_once
from schema.message import Message
from schema.mutation import Mutation
from schema.query import Query
from schema.scalar import DateTime, Json
from schema.subscription import Subscription


def _drop_null_defaults(built: GraphQLSchema) -> None:
    """Leave out the `= null` that Python's None becomes: absent and null are the same."""
    for kind in built.type_map.values():
        match kind:
            case GraphQLObjectType() | GraphQLInterfaceType():
                inputs = [argument for field in kind.fields.values() for argument in field.args.values()]
            case GraphQLInputObjectType():
                inputs = list(kind.fields.values())
            case _:
                continue
        for given in inputs:
            if given.default_value is None:
                given.default_value = Undefined


schema = strawberry.Schema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    types=[Context, Message],
    config=StrawberryConfig(scalar_map={datetime: DateTime, JSON: Json}),
)
_drop_null_defaults(schema._schema)  # noqa: SLF001 - graphql-core's own schema
convert_at_once(schema)


def sdl() -> str:
    """Give the schema in the schema definition language, as `schema.graphql` holds it."""
    return schema.as_str() + "\n"
