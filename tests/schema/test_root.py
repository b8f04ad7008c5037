"""The schema as a whole: exported, described, and holding to its contract."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from graphql import (
    DEFAULT_DEPRECATION_REASON,
    GraphQLEnumType,
    GraphQLNamedType,
    GraphQLSchema,
    build_schema,
    is_introspection_type,
    is_specified_directive,
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
NO_REASON = {DEFAULT_DEPRECATION_REASON, f"{DEFAULT_DEPRECATION_REASON}."}

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
  apiKeys(first: Int = 50, after: String): ApiKeyConnection!
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
  createApiKey(input: CreateApiKeyInput!): CreateApiKeyPayload!
  revokeApiKey(input: RevokeApiKeyInput!): RevokeApiKeyPayload!
}
input CreateApiKeyInput { name: String! scopes: [ApiKeyScope!]! expiresAt: DateTime }
input RevokeApiKeyInput { id: ID! }
type CreateApiKeyPayload { apiKey: ApiKey! key: String! }
type RevokeApiKeyPayload { apiKey: ApiKey! }
type ApiKey {
  id: ID! name: String! scopes: [ApiKeyScope!]! createdAt: DateTime! expiresAt: DateTime revokedAt: DateTime
  lastUsedAt: DateTime
}
type ApiKeyConnection { edges: [ApiKeyEdge!]! nodes: [ApiKey!]! pageInfo: PageInfo! }
type ApiKeyEdge { node: ApiKey! cursor: String! }
enum ApiKeyScope { READ WRITE ADMIN ACT_AS }
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

type Subscription {
  messageAppended(contextId: ID!, afterVersion: Int): MessageEvent!
  contextChanged(contextId: ID!): ContextEvent!
  contextsChanged(filter: ContextFilter): ContextEvent!
}
type MessageEvent { message: Message! version: Int! latestVersion: Int! }
"""


def own_types(built: GraphQLSchema) -> Iterator[GraphQLNamedType]:
    for kind in built.type_map.values():
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


def described(built: GraphQLSchema) -> Iterator[tuple[str, Any]]:
    """Give everything that can have a description or a reason of its deprecation, by its name."""
    for directive in built.directives:
        if not is_specified_directive(directive):
            yield f"@{directive.name}", directive
            yield from ((f"@{directive.name}({name})", given) for name, given in directive.args.items())
    for kind in own_types(built):
        yield kind.name, kind
        members: Mapping[str, Any] = getattr(kind, "values" if isinstance(kind, GraphQLEnumType) else "fields", {})
        for name, member in members.items():
            yield f"{kind.name}.{name}", member
            arguments: Mapping[str, Any] = getattr(member, "args", {})
            yield from ((f"{kind.name}.{name}({argument})", given) for argument, given in arguments.items())


def is_poor(text: str | None) -> bool:
    return not text or not text[0].isupper() or text[-1] not in ".)"


def poor_descriptions(built: GraphQLSchema) -> set[str]:
    return {name for name, element in described(built) if is_poor(element.description)}


def poor_reasons(built: GraphQLSchema) -> set[str]:
    """Name what is deprecated without a sentence that tells what to use instead; GraphQL's default tells nothing."""
    reasons = {name: getattr(element, "deprecation_reason", None) for name, element in described(built)}
    return {name for name, reason in reasons.items() if reason is not None and (is_poor(reason) or reason in NO_REASON)}


def test_everything_is_described_in_sentences() -> None:
    assert poor_descriptions(BUILT) == set()


def test_what_is_deprecated_says_why() -> None:
    assert poor_reasons(BUILT) == set()


UNDESCRIBED = """
directive @mark(with: String) on FIELD
interface Node { id(short: Boolean @deprecated(reason: "Ids have one length. Leave it out.")): ID! }
union Found = Thing
scalar Moment
enum Kind { SMALL LARGE @deprecated }
input Change { name: String @deprecated(reason: "") size: Int @deprecated(reason: "large is out") }
type Thing implements Node { id(short: Boolean @deprecated): ID! @deprecated(reason: "No longer supported.") }
"The root." type Query {
  "one thing" thing("Which one." id: ID!): Thing @deprecated(reason: "Ask `found`, which finds all.")
  "All." found: Found
}
"""


def test_what_is_not_described_or_deprecated_without_a_reason_is_found() -> None:
    built = build_schema(UNDESCRIBED)
    assert poor_descriptions(built) == {
        *("@mark", "@mark(with)", "Node", "Node.id", "Node.id(short)", "Found", "Moment", "Kind", "Kind.SMALL"),
        *("Kind.LARGE", "Change", "Change.name", "Change.size", "Thing", "Thing.id", "Thing.id(short)", "Query.thing"),
    }
    assert poor_reasons(built) == {"Kind.LARGE", "Change.name", "Change.size", "Thing.id", "Thing.id(short)"}


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
