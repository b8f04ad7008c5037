"""Schema coordinates: what of a schema can be asked in queries, and what a document asks.

Fields as `Context.name`, arguments as `Context.at(time:)`, fields of inputs as `ContextFilter.rootsOnly`, members of
enums that are input as `Role.USER`.
"""

from collections.abc import Iterator
from typing import Any

from graphql import (
    EnumValueNode,
    FieldNode,
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    ObjectValueNode,
    OperationDefinitionNode,
    TypeInfo,
    TypeInfoVisitor,
    Visitor,
    get_named_type,
    parse,
    type_from_ast,
    visit,
)


def reachable(schema: GraphQLSchema) -> set[str]:
    """Give all that a query can ask."""
    found: set[str] = set()
    waiting: list[Any] = [schema.query_type]
    seen: set[str] = set()
    while waiting:
        kind = get_named_type(waiting.pop())
        if kind.name in seen:
            continue
        seen.add(kind.name)
        if not isinstance(kind, GraphQLObjectType | GraphQLInterfaceType):
            continue
        for name, field in kind.fields.items():
            found.add(f"{kind.name}.{name}")
            waiting.append(field.type)
            for given, argument in field.args.items():
                found.add(f"{kind.name}.{name}({given}:)")
                found.update(_inputs(argument.type))
        if isinstance(kind, GraphQLInterfaceType):
            waiting.extend(schema.get_possible_types(kind))
    return found


def _inputs(kind: Any) -> Iterator[str]:
    named = get_named_type(kind)
    if isinstance(named, GraphQLEnumType):
        yield from (f"{named.name}.{member}" for member in named.values)
    elif isinstance(named, GraphQLInputObjectType):
        for name, part in named.fields.items():
            yield f"{named.name}.{name}"
            yield from _inputs(part.type)


def used(schema: GraphQLSchema, text: str, variables: dict[str, Any]) -> set[str]:
    """Give what a valid document asks, with the values of its variables."""
    document = parse(text)
    info = TypeInfo(schema)
    collector = _Collector(info)
    visit(document, TypeInfoVisitor(info, collector))
    for operation in document.definitions:
        if isinstance(operation, OperationDefinitionNode):
            for definition in operation.variable_definitions or ():
                value = variables.get(definition.variable.name.value)
                kind = type_from_ast(schema, definition.type)
                collector.found.update(_in_value(value, get_named_type(kind)))
    return collector.found


def _in_value(value: Any, kind: Any) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _in_value(item, kind)
    elif isinstance(kind, GraphQLEnumType) and isinstance(value, str):
        yield f"{kind.name}.{value}"
    elif isinstance(kind, GraphQLInputObjectType) and isinstance(value, dict):
        for name, part in value.items():
            yield f"{kind.name}.{name}"
            yield from _in_value(part, get_named_type(kind.fields[name].type))


class _Collector(Visitor):
    def __init__(self, info: TypeInfo) -> None:
        super().__init__()
        self.info = info
        self.found: set[str] = set()

    def enter_field(self, node: FieldNode, *_: Any) -> None:
        parent = self.info.get_parent_type()
        coordinate = f"{parent.name if parent else None}.{node.name.value}"
        self.found.add(coordinate)
        self.found.update(f"{coordinate}({argument.name.value}:)" for argument in node.arguments or ())

    def enter_object_value(self, node: ObjectValueNode, *_: Any) -> None:
        kind = get_named_type(self.info.get_input_type())
        if isinstance(kind, GraphQLInputObjectType):
            self.found.update(f"{kind.name}.{part.name.value}" for part in node.fields or ())

    def enter_enum_value(self, node: EnumValueNode, *_: Any) -> None:
        kind = get_named_type(self.info.get_input_type())
        if isinstance(kind, GraphQLEnumType):
            self.found.add(f"{kind.name}.{node.value}")
