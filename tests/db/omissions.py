"""Each way to leave the tenant out of a statement, done to the tree that was parsed of it, and taken back."""

from collections.abc import Callable, Iterator
from typing import Any

from pglast import ast, enums

from tests.db.tenancy import Statement, equal, is_tenant


def omissions(statement: Statement) -> Iterator[tuple[str, Callable[[], None], Callable[[], None]]]:
    """Give each way to leave the tenant out at one place: what, do it, and take it back.

    Each place that names the tenant is given another value; each condition that compares with it is turned round, made
    one of two, and left out.
    """
    for holder, name, node in list(_places(statement.tree)):
        if is_tenant(node, within=statement.within) and not isinstance(node, ast.TypeCast):
            another = ast.ColumnRef((ast.String("p_other"),)) if statement.within else ast.ParamRef(number=2)
            yield f"another value for {node}", *_swap(holder, name, node, another)
        sides = equal(node)
        if sides is None or not any(is_tenant(side, within=statement.within) for side in sides):
            continue
        true = ast.A_Const(val=ast.Boolean(boolval=True))
        either = ast.BoolExpr(boolop=enums.BoolExprType.OR_EXPR, args=(node, true))
        unequal = ast.A_Expr(kind=node.kind, name=(ast.String("<>"),), lexpr=node.lexpr, rexpr=node.rexpr)
        for what, other in (("left out", true), ("one of two", either), ("turned round", unequal)):
            yield f"{node} {what}", *_swap(holder, name, node, other)


def _places(node: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Give every node below, with what holds it and where: an attribute, or an attribute and its position."""
    for name in node:
        value = getattr(node, name)
        if isinstance(value, ast.Node):
            yield node, (name,), value
            yield from _places(value)
        elif isinstance(value, tuple):
            yield from _places_in(node, (name,), value)


def _places_in(holder: Any, path: tuple[Any, ...], values: tuple[Any, ...]) -> Iterator[tuple[Any, Any, Any]]:
    for number, value in enumerate(values):
        if isinstance(value, tuple):
            yield from _places_in(holder, (*path, number), value)
        elif isinstance(value, ast.Node):
            yield holder, (*path, number), value
            yield from _places(value)


def _swap(holder: Any, path: tuple[Any, ...], node: Any, other: Any) -> tuple[Callable[[], None], Callable[[], None]]:
    def put(value: Any) -> None:
        name, *numbers = path
        setattr(holder, name, _with_value(getattr(holder, name), numbers, value))

    return lambda: put(other), lambda: put(node)


def _with_value(values: Any, numbers: list[Any], value: Any) -> Any:
    if not numbers:
        return value
    first, *rest = numbers
    return tuple(_with_value(each, rest, value) if number == first else each for number, each in enumerate(values))
