"""Which fields of a selection are asked of an object of some type, merged by their names in the response.

Source: GraphQL specification, CollectFields.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from graphql import (
    BooleanValueNode,
    DirectiveNode,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLField,
    GraphQLObjectType,
    GraphQLSchema,
    InlineFragmentNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableNode,
)


class Unplanned(Exception):
    """Resolvers must answer this."""


class Collected(NamedTuple):
    """A field of the response: where it is asked for, and what it is."""

    nodes: list[FieldNode]
    definition: GraphQLField

    @property
    def field_name(self) -> str:
        """Its name in the schema."""
        return self.nodes[0].name.value

    @property
    def below(self) -> list[SelectionSetNode]:
        """What is asked of it."""
        return [node.selection_set for node in self.nodes if node.selection_set]


class Collector:
    """Collects for one choice of what `@include` and `@skip` leave of a valid document.

    `otherwise` says whether a condition without a value is met; None where it is `Unplanned`.
    """

    def __init__(
        self,
        schema: GraphQLSchema,
        fragments: Mapping[str, FragmentDefinitionNode],
        conditions: Mapping[str, Any],
        *,
        otherwise: bool | None = None,
    ) -> None:
        self._schema = schema
        self._fragments = fragments
        self._conditions = conditions
        self._otherwise = otherwise

    def collect(self, parent: GraphQLObjectType, sets: Sequence[SelectionSetNode]) -> dict[str, Collected]:
        """Collect fields in the order in which they are answered.

        Raises: Unplanned.
        """
        collected: dict[str, Collected] = {}
        visited: set[str] = set()

        def visit(selections: SelectionSetNode) -> None:
            for selection in selections.selections:
                if not self._included(selection.directives):
                    continue
                match selection:
                    case FieldNode():
                        name = (selection.alias or selection.name).value
                        found = collected.setdefault(name, Collected([], self._definition(parent, selection)))
                        found.nodes.append(selection)
                    case InlineFragmentNode():
                        condition = selection.type_condition
                        if condition is None or _applies(condition.name.value, parent):
                            visit(selection.selection_set)
                    case FragmentSpreadNode():
                        fragment = self._fragments[selection.name.value]
                        if selection.name.value not in visited and _applies(fragment.type_condition.name.value, parent):
                            visited.add(selection.name.value)
                            visit(fragment.selection_set)

        for selections in sets:
            visit(selections)
        return collected

    def _definition(self, parent: GraphQLObjectType, node: FieldNode) -> GraphQLField:
        definition = self._schema.get_field(parent, node.name.value)
        if definition is None:
            raise Unplanned
        return definition

    def _included(self, directives: Sequence[DirectiveNode] | None) -> bool:
        for directive in directives or ():
            if directive.name.value not in {"include", "skip"}:
                raise Unplanned
            (argument,) = directive.arguments or ()
            value = argument.value
            condition = None
            if isinstance(value, VariableNode):
                condition = self._conditions.get(value.name.value)
            elif isinstance(value, BooleanValueNode):
                condition = value.value
            if not isinstance(condition, bool):
                if self._otherwise is None:
                    raise Unplanned
                if not self._otherwise:
                    return False
            elif condition is (directive.name.value == "skip"):
                return False
        return True


def _applies(type_name: str, parent: GraphQLObjectType) -> bool:
    return type_name == parent.name or any(interface.name == type_name for interface in parent.interfaces)


def fragments_of(document: DocumentNode) -> dict[str, FragmentDefinitionNode]:
    """Give the fragments of a document by their names."""
    return {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}


def conditions_of(
    operation: OperationDefinitionNode, fragments: Mapping[str, FragmentDefinitionNode]
) -> tuple[str, ...]:
    """Name the variables that `@include` and `@skip` look at."""
    return tuple(
        sorted(set(_condition_names([operation.selection_set, *(f.selection_set for f in fragments.values())])))
    )


def _condition_names(waiting: list[SelectionSetNode]) -> Iterator[str]:
    while waiting:
        for selection in waiting.pop().selections:
            for directive in selection.directives or ():
                for argument in directive.arguments or ():
                    if isinstance(argument.value, VariableNode):
                        yield argument.value.name.value
            below = getattr(selection, "selection_set", None)
            if below:
                waiting.append(below)
