"""Makes a document that fails smaller, while it goes on failing."""

import re
from collections.abc import Awaitable, Callable
from typing import Any

from graphql import (
    REMOVE,
    ArgumentNode,
    DirectiveNode,
    DocumentNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLSyntaxError,
    Node,
    OperationDefinitionNode,
    SelectionNode,
    SelectionSetNode,
    VariableNode,
    Visitor,
    parse,
    print_ast,
    visit,
)

from tests.documents import Document

TRIES_MAX = 400
REMOVABLE = (SelectionNode, ArgumentNode, DirectiveNode, OperationDefinitionNode)


async def reduce(document: Document, fails: Callable[[Document], Awaitable[bool]]) -> Document:
    """Remove parts, the largest first, as long as the rest fails."""
    try:
        size = _count(parse(document.text))
    except GraphQLSyntaxError:
        return document
    number = tries = 0
    while number < size and tries < TRIES_MAX:
        tries += 1
        smaller = _without(document, number)
        if smaller is not None and await fails(smaller):
            document, size = smaller, _count(parse(smaller.text))
        else:
            number += 1
    return document


class _Remover(Visitor):
    """Removes one part by its number in document order, where what holds comes before what is held."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.seen = 0
        self.empty = 0

    def enter(self, node: Node, *_: Any) -> Any:
        if isinstance(node, SelectionSetNode) and not node.selections:
            self.empty += 1
        if not isinstance(node, REMOVABLE):
            return None
        self.seen += 1
        return REMOVE if self.seen - 1 == self.number else None


def _count(document: DocumentNode, *, empty: bool = False) -> int:
    """Count the parts that can be removed, or the selection sets in which nothing is left."""
    remover = _Remover(-1)
    visit(document, remover)
    return remover.empty if empty else remover.seen


def _without(document: Document, number: int) -> Document | None:
    """Remove a part, and whatever nobody uses then; what is no document any more simply does not fail."""
    tree = visit(parse(document.text), _Remover(number))
    if _count(tree, empty=True):
        return None  # graphql-core takes an empty selection set, the specification does not
    fragments = {node.name.value: node for node in tree.definitions if isinstance(node, FragmentDefinitionNode)}
    operations = [node for node in tree.definitions if isinstance(node, OperationDefinitionNode)]
    used: dict[str, FragmentDefinitionNode] = {}
    waiting: list[Node] = list(operations)
    while waiting:
        for name in _named(waiting.pop(), FragmentSpreadNode):
            if name in fragments and name not in used:
                used[name] = fragments[name]
                waiting.append(fragments[name])
    texts = [_declare(operation, used) for operation in operations] + [print_ast(node) for node in used.values()]
    text = "\n".join(texts)
    variables = {name: value for name, value in document.variables.items() if re.search(rf"\${name}\b", text)}
    return Document(text, variables, document.operation_name) if operations else None


def _declare(operation: OperationDefinitionNode, fragments: dict[str, FragmentDefinitionNode]) -> str:
    """Print an operation with the variables that it needs."""
    needed = set(_named(operation.selection_set, VariableNode))
    reached: set[str] = set()
    waiting = _named(operation, FragmentSpreadNode)
    while waiting:
        name = waiting.pop()
        if name in fragments and name not in reached:
            reached.add(name)
            needed.update(_named(fragments[name], VariableNode))
            waiting += _named(fragments[name], FragmentSpreadNode)
    declared = [print_ast(each) for each in operation.variable_definitions or () if each.variable.name.value in needed]
    name = operation.name.value if operation.name else ""
    variables = f"({', '.join(declared)})" if declared else ""
    return f"query {name}{variables} {print_ast(operation.selection_set)}"


def _named(node: Node, kind: type[VariableNode] | type[FragmentSpreadNode]) -> list[str]:
    found: list[str] = []

    class Collector(Visitor):
        def enter(self, each: Node, *_: Any) -> None:
            if isinstance(each, kind):
                found.append(each.name.value)

    visit(node, Collector())
    return found
