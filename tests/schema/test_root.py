"""The schema as a whole: exported, described, and holding to its contract."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from graphql import (
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLNamedType,
    GraphQLObjectType,
    GraphQLScalarType,
    build_schema,
    is_introspection_type,
    is_specified_scalar_type,
    parse,
    print_ast,
    validate_schema,
)
from graphql.language import ast

from schema.root import schema, sdl
from tests.client import Api, ApiError
from tests.schema.calls import UNKNOWN, create, say

ROOT = Path(__file__).parents[2]
BUILT = schema._schema  # noqa: SLF001 - graphql-core's own schema

# What callers rely on. More may be added; nothing of it may go or change its type.
CONTRACT = """
interface Node { id: ID! }
enum Role { USER ASSISTANT SYSTEM TOOL }
scalar JSON
scalar DateTime

type Context implements Node {
  id: ID! name: String metadata: JSON! createdAt: DateTime! updatedAt: DateTime! deletedAt: DateTime
  messageCount: Int! totalTokens: Int! latestVersion: Int!
  parent: Context forkVersion: Int depth: Int! ancestors: [Context!]!
  forks(first: Int = 50, after: String): ContextConnection!
  messages(first: Int, after: String, last: Int, before: String, roles: [Role!]): MessageConnection!
  message(version: Int!): Message
  at(version: Int, time: DateTime): ContextSnapshot
  window(budget: Int!, step: Int = 0, keepSystem: Boolean = true): Window!
  tree(maxDepth: Int, first: Int = 1000): ContextTree! commonAncestor(with: ID!): CommonAncestor
  diff(with: ID!): ContextDiff
}
type ContextTree { root: ID! nodes: [ContextTreeNode!]! truncated: Boolean! }
type ContextTreeNode {
  id: ID! name: String parentId: ID forkVersion: Int depth: Int! latestVersion: Int! messageCount: Int!
  totalTokens: Int! updatedAt: DateTime! deletedAt: DateTime
}
type CommonAncestor { context: Context version: Int! }
type ContextDiff { commonAncestor: CommonAncestor onlyHere: DiffSide! onlyThere: DiffSide! }
type DiffSide {
  context: Context! messageCount: Int! totalTokens: Int!
  messages(first: Int, after: String, last: Int, before: String, roles: [Role!]): MessageConnection!
}
type ContextSnapshot {
  context: Context! version: Int! messageCount: Int! totalTokens: Int!
  messages(first: Int, after: String, last: Int, before: String, roles: [Role!]): MessageConnection!
  window(budget: Int!, step: Int = 0, keepSystem: Boolean = true): Window!
}
type Window {
  messages: [Message!]! tokenCount: Int! budget: Int! truncated: Boolean! fromVersion: Int toVersion: Int
  minimumBudget: Int!
}
type Message implements Node {
  id: ID! context: Context! version: Int! createdAt: DateTime! role: Role! content: String!
  toolCalls: [ToolCall!]! toolCallId: String toolName: String tokenCount: Int! model: String metadata: JSON!
  deletedAt: DateTime
}
type ToolCall { id: String! name: String! arguments: JSON! }

type PageInfo { hasNextPage: Boolean! hasPreviousPage: Boolean! startCursor: String endCursor: String }
type ContextConnection { edges: [ContextEdge!]! nodes: [Context!]! pageInfo: PageInfo! totalCount: Int! }
type ContextEdge { node: Context! cursor: String! }
type MessageConnection { edges: [MessageEdge!]! nodes: [Message!]! pageInfo: PageInfo! totalCount: Int! }
type MessageEdge { node: Message! cursor: String! }

type Query {
  context(id: ID!): Context
  contexts(first: Int = 50, after: String, filter: ContextFilter, orderBy: ContextOrder): ContextConnection!
  node(id: ID!): Node
  nodes(ids: [ID!]!): [Node]!
  health: Health!
}
input ContextFilter {
  nameContains: String metadataContains: JSON rootsOnly: Boolean parentId: ID updatedSince: DateTime
  includeDeleted: Boolean
}
enum ContextOrderField { UPDATED_AT CREATED_AT NAME }
enum OrderDirection { ASC DESC }

type Mutation {
  createContext(input: CreateContextInput!): CreateContextPayload!
  forkContext(input: ForkContextInput!): ForkContextPayload!
  copyContext(input: CopyContextInput!): CopyContextPayload!
  appendMessages(input: AppendMessagesInput!): AppendMessagesPayload!
  updateContext(input: UpdateContextInput!): UpdateContextPayload!
  deleteContext(input: DeleteContextInput!): DeleteContextPayload!
  restoreContext(input: RestoreContextInput!): RestoreContextPayload!
  deleteMessage(input: DeleteMessageInput!): DeleteMessagePayload!
  restoreMessage(input: RestoreMessageInput!): RestoreMessagePayload!
}
input CreateContextInput { name: String metadata: JSON messages: [MessageInput!] }
input ForkContextInput { contextId: ID! version: Int name: String metadata: JSON }
input CopyContextInput { contextId: ID! version: Int name: String metadata: JSON }
input AppendMessagesInput { contextId: ID! messages: [MessageInput!]! }
input UpdateContextInput { contextId: ID! name: String metadata: JSON }
input DeleteContextInput { contextId: ID! }
input RestoreContextInput { contextId: ID! }
input DeleteMessageInput { contextId: ID! version: Int! }
input RestoreMessageInput { contextId: ID! version: Int! }
input MessageInput {
  role: Role! content: String! toolCalls: [ToolCallInput!] toolCallId: String toolName: String tokenCount: Int
  model: String metadata: JSON
}
input ToolCallInput { id: String! name: String! arguments: JSON! }
type CreateContextPayload { context: Context! }
type ForkContextPayload { context: Context! }
type CopyContextPayload { context: Context! }
type AppendMessagesPayload { context: Context! messages: [Message!]! replayed: Boolean! forked: Boolean! }
type UpdateContextPayload { context: Context! }
type DeleteContextPayload { context: Context! }
type RestoreContextPayload { context: Context! }
type DeleteMessagePayload { message: Message! context: Context! }
type RestoreMessagePayload { message: Message! context: Context! }

type Health { status: HealthStatus! timestamp: DateTime! version: String! checks: HealthChecks! }
enum HealthStatus { HEALTHY DEGRADED UNHEALTHY }
type HealthChecks { database: DatabaseHealth! }
type DatabaseHealth { status: DatabaseStatus! latencyMs: Float pooled: Boolean! error: String }
enum DatabaseStatus { CONNECTED DISCONNECTED }
"""


def own_types() -> Iterator[GraphQLNamedType]:
    for kind in BUILT.type_map.values():
        if not is_introspection_type(kind) and not is_specified_scalar_type(kind):
            yield kind


def elements(text: str) -> set[str]:
    """Give every element of a schema on a line of its own, such as `Context.forks(first: Int = 50)`."""
    found: set[str] = set()
    for definition in parse(text, no_location=True).definitions:
        assert isinstance(definition, ast.TypeDefinitionNode)
        kind = definition.name.value
        found.add(f"{definition.kind} {kind}")
        if isinstance(definition, ast.ObjectTypeDefinitionNode):
            found |= {f"{kind} implements {interface.name.value}" for interface in definition.interfaces or ()}
        if isinstance(definition, ast.ObjectTypeDefinitionNode | ast.InterfaceTypeDefinitionNode):
            for field in definition.fields or ():
                name = f"{kind}.{field.name.value}"
                found.add(f"{name}: {print_ast(field.type)}")
                found |= {f"{name}({_input(argument)})" for argument in field.arguments or ()}
        if isinstance(definition, ast.InputObjectTypeDefinitionNode):
            found |= {f"{kind}.{_input(field)}" for field in definition.fields or ()}
        if isinstance(definition, ast.EnumTypeDefinitionNode):
            found |= {f"{kind}.{value.name.value}" for value in definition.values or ()}
    return found


def _input(node: ast.InputValueDefinitionNode) -> str:
    default = f" = {print_ast(node.default_value)}" if node.default_value else ""
    return f"{node.name.value}: {print_ast(node.type)}{default}"


def test_the_exported_schema_is_fresh() -> None:
    assert (ROOT / "schema.graphql").read_text(encoding="utf-8") == sdl()


def test_the_schema_is_valid_and_can_be_built_from_its_text() -> None:
    assert validate_schema(BUILT) == []
    assert validate_schema(build_schema(sdl())) == []


def test_the_contract_holds() -> None:
    assert elements(CONTRACT) - elements(sdl()) == set()


def test_what_was_required_of_no_caller_is_required_of_none() -> None:
    """An argument or input field that the contract does not name must be one that callers may leave out."""
    added = elements(sdl()) - elements(CONTRACT)
    known = {
        element.split(".")[0].split()[-1] for element in elements(CONTRACT) if element.startswith("input_object_type")
    }
    inputs = {element for element in added if "(" in element or element.split(".")[0] in known}
    assert {element for element in inputs if element.rstrip(")").endswith("!")} == set()


def test_everything_is_described_in_sentences() -> None:
    described: dict[str, str | None] = {}
    for kind in own_types():
        described[kind.name] = kind.description
        match kind:
            case GraphQLObjectType() | GraphQLInterfaceType():
                for name, field in kind.fields.items():
                    described[f"{kind.name}.{name}"] = field.description
                    for argument_name, argument in field.args.items():
                        described[f"{kind.name}.{name}({argument_name})"] = argument.description
            case GraphQLInputObjectType():
                described |= {f"{kind.name}.{name}": field.description for name, field in kind.fields.items()}
            case GraphQLEnumType():
                described |= {f"{kind.name}.{name}": value.description for name, value in kind.values.items()}
            case GraphQLScalarType():
                pass
            case _:
                pytest.fail(f"{kind} is of an unknown kind")
    assert described.pop("JSON")  # in the words of the library
    poor = {name for name, text in described.items() if not text or not text[0].isupper() or text[-1] not in ".)"}
    assert poor == set()


def test_no_input_defaults_to_null() -> None:
    assert "= null" not in sdl()


async def test_the_fields_of_a_mutation_run_in_order_and_each_sees_what_was_written_before(api: Api) -> None:
    root = await create(api, say("1"))
    document = """mutation ($id: ID!, $two: [MessageInput!]!, $three: [MessageInput!]!) {
      a: appendMessages(input: {contextId: $id, messages: $two}) { context { ...Seen } }
      b: deleteMessage(input: {contextId: $id, version: 1}) { context { ...Seen } }
      c: forkContext(input: {contextId: $id, name: "fork"}) { context { parent { ...Seen } ...Seen } }
      d: appendMessages(input: {contextId: $id, messages: $three}) { context { ...Seen } }
      e: updateContext(input: {contextId: $id, name: "named"}) { context { name ...Seen } }
      f: deleteContext(input: {contextId: $id}) { context { deletedAt ...Seen } }
      g: restoreContext(input: {contextId: $id}) { context { deletedAt ...Seen } }
    }
    fragment Seen on Context { messages { nodes { content } } forks { nodes { name parent { name } } } }"""
    answer = await api(document, id=root["id"], two=[say("2")], three=[say("3")])

    def contents(field: str) -> list[str]:
        return [message["content"] for message in answer[field]["context"]["messages"]["nodes"]]

    assert {field: contents(field) for field in answer} == {
        "a": ["1", "2"],
        "b": ["2"],
        "c": ["2"],
        "d": ["2", "3"],
        "e": ["2", "3"],
        "f": ["2", "3"],
        "g": ["2", "3"],
    }
    unnamed, named = [{"name": "fork", "parent": {"name": None}}], [{"name": "fork", "parent": {"name": "named"}}]
    forks = {field: answer[field]["context"]["forks"]["nodes"] for field in answer}
    hidden = [{"name": "fork", "parent": None}]
    assert forks == {"a": [], "b": [], "c": [], "d": unnamed, "e": named, "f": hidden, "g": named}
    assert answer["c"]["context"]["parent"]["forks"]["nodes"] == unnamed
    assert answer["f"]["context"]["deletedAt"] is not None
    assert answer["g"]["context"]["deletedAt"] is None


async def test_a_field_that_is_refused_takes_back_nothing_of_the_others(api: Api) -> None:
    document = """mutation ($unknown: ID!, $none: [MessageInput!]!) {
      a: createContext(input: {name: "a"}) { context { id } }
      b: appendMessages(input: {contextId: $unknown, messages: $none}) { context { id } }
      c: createContext(input: {name: "c"}) { context { id } }
    }"""
    with pytest.raises(ApiError) as caught:
        await api(document, unknown=UNKNOWN, none=[say()])
    assert caught.value.data is None  # a payload is never null, so the answer is
    assert [(error["path"], error["extensions"]["code"]) for error in caught.value.errors] == [(["b"], "NOT_FOUND")]
    names = {context["name"] for context in (await api("{ contexts { nodes { name } } }"))["contexts"]["nodes"]}
    assert names == {"a"}
