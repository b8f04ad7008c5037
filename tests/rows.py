"""How many rows an answer shows, to be held against what was estimated."""

from typing import Any

from graphql import (
    FieldNode,
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLSchema,
    TypeInfo,
    TypeInfoVisitor,
    Visitor,
    get_named_type,
    parse,
    visit,
)

ROW_TYPES = {"Context", "Message", "Node", "ContextTreeNode", "ApiKey"}


class _Fields(Visitor):
    """The fields of a document, by the type that they are asked of and their name in the response."""

    def __init__(self, types: TypeInfo) -> None:
        super().__init__()
        self._types = types
        self.found: dict[tuple[str, str], GraphQLField] = {}

    def enter_field(self, node: FieldNode, *_: Any) -> None:
        parent, field = self._types.get_parent_type(), self._types.get_field_def()
        if parent is not None and field is not None:
            self.found[parent.name, (node.alias or node.name).value] = field


class Counter:
    """Counts for one document, in which a response name stands for one field of a type wherever it is asked."""

    def __init__(self, schema: GraphQLSchema, document: str) -> None:
        types = TypeInfo(schema)
        fields = _Fields(types)
        visit(parse(document), TypeInfoVisitor(types, fields))
        self._schema = schema
        self._fields = fields.found

    def rows(self, data: Any, kinds: tuple[str, ...] = ("Query",)) -> int:
        """Count contexts, messages and nodes of trees in an object of one of these types.

        What stands in two lists of one connection counts once.
        """
        pages: list[int] = []
        total = 0
        for name, value in data.items():
            field = next((self._fields[kind, name] for kind in kinds if (kind, name) in self._fields), None)
            if field is None:
                continue
            named = get_named_type(field.type)
            possible = self._schema.get_possible_types(named) if isinstance(named, GraphQLInterfaceType) else [named]
            below = tuple(kind.name for kind in possible)
            objects = [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict)]
            if kinds[0].endswith("Connection") and isinstance(value, list):
                pages.append(len(value))
            elif named.name in ROW_TYPES and not kinds[0].endswith("Edge"):
                total += len(objects)
            if hasattr(named, "fields"):
                total += sum(self.rows(item, below) for item in objects)
        return total + max(pages, default=0)
