"""Does a statement name its tenant at every table? Read from the tree that PostgreSQL's own parser makes of it.

Each reference to a table of tenants must be bound to the tenant at its own level of the query: by a condition that
every row must meet, `alias.tenant_id = $1`, in `where` or in the `on` of a join that leaves no row out of it. A
function has its first parameter, `p_tenant_id`, for `$1`. Rows that are inserted take the tenant from there, or from a
row that was itself so bound. Whatever is not understood is a flaw, so a new form of statement cannot go unnoticed.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from pglast import ast, enums, parse_plpgsql, parse_sql

from db import queries

TENANT = "tenant_id"
PARAMETER = f"p_{TENANT}"


@dataclass(frozen=True)
class Store:
    """What the statements may name: tables whose rows belong to tenants, and functions that ask them."""

    tables: frozenset[str]
    functions: frozenset[str]


@dataclass
class Statement:
    """A statement, where it stands, and what it says of tenants."""

    name: str
    tree: Any
    # Whether it stands in the body of a function.
    within: bool = False


@dataclass
class Check:
    """What is found in one statement. `references` are those of tables and functions of the store."""

    store: Store
    statement: Statement
    flaws: list[str] = field(default_factory=list)
    references: int = 0

    def run(self) -> "Check":
        """Look at all of it."""
        self._inside(self.statement.tree, frozenset())
        return self

    def flaw(self, node: Any, what: str) -> None:
        """Note a flaw."""
        self.flaws.append(f"{self.statement.name} at {getattr(node, 'location', None)}: {what}")

    def is_tenant(self, node: Any) -> bool:
        """Whether an expression is the tenant that was given."""
        return is_tenant(node, within=self.statement.within)

    # -- Levels of a query

    def _inside(self, node: Any, tables: frozenset[str]) -> None:  # noqa: C901 - one line for each kind of node
        """Find the levels and calls in anything; `tables` are the common table expressions in sight."""
        match node:
            case ast.SelectStmt():
                self._select(node, tables)
            case ast.InsertStmt():
                self._insert(node, tables)
            case ast.UpdateStmt():
                self._change(node, node.fromClause, tables)
            case ast.DeleteStmt():
                self._change(node, node.usingClause, tables)
            case ast.CopyStmt():
                self._copy(node)
            case ast.RangeVar():
                self.flaw(node, f"{node.relname} is named where it cannot be checked")
            case ast.FuncCall():
                self._call(node)
                self._below(node, tables)
            case ast.Node():
                self._below(node, tables)
            case tuple():
                for part in node:
                    self._inside(part, tables)

    def _below(self, node: Any, tables: frozenset[str], *but: str) -> None:
        for name in node:
            if name not in but:
                self._inside(getattr(node, name), tables)

    def _with(self, node: Any, tables: frozenset[str]) -> frozenset[str]:
        """Check the common table expressions, and give all that are in sight after them."""
        if node.withClause is None:
            return tables
        for each in node.withClause.ctes:
            if node.withClause.recursive:
                tables |= {each.ctename}
            if each.cycle_clause is not None or each.search_clause is not None:
                self.flaw(each, "cycle and search are not understood")
            self._inside(each.ctequery, tables)
            if node.withClause.recursive and getattr(each.ctequery, "rarg", None) is not None:
                self._follows(each)
            tables |= {each.ctename}
        return tables

    def _select(self, node: Any, tables: frozenset[str]) -> None:
        tables = self._with(node, tables)
        self._from(node.fromClause or (), conditions(node.whereClause), tables)
        # `for update of` repeats an alias.
        self._below(node, tables, "withClause", "fromClause", "lockingClause")

    def _change(self, node: Any, others: Any, tables: frozenset[str]) -> None:
        """Check an update or a delete."""
        tables = self._with(node, tables)
        self._from((node.relation, *(others or ())), conditions(node.whereClause), tables)
        self._below(node, tables, "withClause", "relation", "fromClause", "usingClause")
        for target in getattr(node, "targetList", None) or ():
            if target.name == TENANT:
                self.flaw(target, "a row is given to another tenant")

    def _from(self, items: Sequence[Any], known: list[Any], tables: frozenset[str]) -> None:
        """Check what a level reads from, given the conditions that all of its rows meet."""
        for item in items:
            match item:
                case ast.RangeVar():
                    self._reference(item, known, tables)
                case ast.JoinExpr():
                    own = conditions(item.quals)
                    self._from((item.larg,), known + (own if item.jointype in _BOTH else []), tables)
                    self._from((item.rarg,), known + (own if item.jointype in _RIGHT else []), tables)
                    if item.usingClause is not None or item.isNatural:
                        self.flaw(item, "a join without `on` is not understood")
                    self._inside(item.quals, tables)
                case ast.RangeSubselect() | ast.RangeFunction():
                    self._below(item, tables)
                case _:
                    self.flaw(item, f"{type(item).__name__} is not understood")

    def _reference(self, item: Any, known: list[Any], tables: frozenset[str]) -> None:
        if item.schemaname is None and item.relname in tables:
            return
        self.references += 1
        if item.relname not in self.store.tables or item.schemaname is not None:
            self.flaw(item, f"{item.relname} is no table of tenants")
        elif not any(self._binds(condition, alias(item)) for condition in known):
            self.flaw(item, f"{item.relname} is read without {alias(item)}.{TENANT} = the tenant")

    def _binds(self, condition: Any, name: str) -> bool:
        """Whether a condition is `name.tenant_id = $1`."""
        sides = equal(condition)
        return sides is not None and any(
            column(one) == (name, TENANT) and self.is_tenant(other) for one, other in (sides, sides[::-1])
        )

    def _follows(self, each: Any) -> None:
        """Check that each step of a recursion stays with the tenant of the row before: so it can be distributed."""
        step = each.ctequery.rarg
        items = list(leaves(step.fromClause or ()))
        said = conditions(step.whereClause) + [
            part for join in joins(step.fromClause) for part in conditions(join.quals)
        ]
        before = [alias(item) for item in items if isinstance(item, ast.RangeVar) and item.relname == each.ctename]
        for item in items:
            if isinstance(item, ast.RangeVar) and item.relname in self.store.tables:
                pairs = [{column(side) for side in sides} for part in said if (sides := equal(part))]
                if not any({(alias(item), TENANT), (name, TENANT)} in pairs for name in before):
                    self.flaw(item, f"{alias(item)} does not follow the tenant of the row before")

    # -- Rows that are written

    def _insert(self, node: Any, tables: frozenset[str]) -> None:
        tables = self._with(node, tables)
        self.references += 1
        if node.relation.relname not in self.store.tables:
            self.flaw(node.relation, f"{node.relation.relname} is no table of tenants")
        columns = [target.name for target in node.cols or ()]
        if columns[:1] != [TENANT]:
            self.flaw(node.relation, f"an insert does not begin with {TENANT}")
        else:
            self._gives(node.selectStmt)
        conflict = node.onConflictClause
        if conflict is not None:
            named = [each.name for each in (conflict.infer and conflict.infer.indexElems) or ()]
            if named[:1] != [TENANT]:
                self.flaw(conflict, f"`on conflict` does not begin with {TENANT}")
            if any(target.name == TENANT for target in conflict.targetList or ()):
                self.flaw(conflict, "a row is given to another tenant")
        self._below(node, tables, "withClause", "relation")

    def _gives(self, select: Any) -> None:
        """Check the first value of each row that is inserted."""
        if select.op != enums.SetOperation.SETOP_NONE:
            self._gives(select.larg)
            self._gives(select.rarg)
            return
        firsts = [row[0] for row in select.valuesLists or ()] or [select.targetList[0].val]
        bound = {alias(item) for item in leaves(select.fromClause or ()) if self._is_table(item)}
        for first in firsts:
            place = column(first)
            if not self.is_tenant(first) and not (place and place[-1] == TENANT and place[0] in bound):
                self.flaw(select, "an inserted row does not take the tenant that was given")

    def _is_table(self, item: Any) -> bool:
        return isinstance(item, ast.RangeVar) and item.relname in self.store.tables

    def _copy(self, node: Any) -> None:
        self.references += 1
        columns = [each.sval for each in node.attlist or ()]
        if not (node.is_from and node.relation.relname in self.store.tables and columns[:1] == [TENANT]):
            self.flaw(node, f"a copy does not begin with {TENANT}")

    def _call(self, node: Any) -> None:
        if node.funcname[-1].sval in self.store.functions:
            self.references += 1
            if not self.is_tenant(node.args[0]):
                self.flaw(node, f"{node.funcname[-1].sval} is not given the tenant first")


def flaws(store: Store, statements: list[Statement]) -> list[str]:
    """Name each place where a statement reads, joins, writes or asks without the tenant."""
    return [flaw for statement in statements for flaw in Check(store, statement).run().flaws]


def references(store: Store, statements: list[Statement]) -> int:
    """Count where statements name tables or functions of the store."""
    return sum(Check(store, statement).run().references for statement in statements)


_BOTH = {enums.JoinType.JOIN_INNER, enums.JoinType.JOIN_RIGHT}
_RIGHT = {enums.JoinType.JOIN_INNER, enums.JoinType.JOIN_LEFT}


def is_tenant(node: Any, *, within: bool) -> bool:
    """Whether an expression is the tenant: `$1`, or within a function its parameter."""
    if isinstance(node, ast.TypeCast):
        node = node.arg
    return column(node) == (PARAMETER,) if within else isinstance(node, ast.ParamRef) and node.number == 1


def conditions(node: Any) -> list[Any]:
    """Give what must all hold."""
    if isinstance(node, ast.BoolExpr) and node.boolop == enums.BoolExprType.AND_EXPR:
        return [part for each in node.args or () for part in conditions(each)]
    return [] if node is None else [node]


def equal(node: Any) -> tuple[Any, Any] | None:
    """Give both sides of `one = other`."""
    is_equality = isinstance(node, ast.A_Expr) and node.kind == enums.A_Expr_Kind.AEXPR_OP
    return (node.lexpr, node.rexpr) if is_equality and [part.sval for part in node.name or ()] == ["="] else None


def column(node: Any) -> tuple[str, ...] | None:
    """Give the parts of a column's name."""
    if not isinstance(node, ast.ColumnRef) or not all(isinstance(part, ast.String) for part in node.fields or ()):
        return None
    return tuple(part.sval for part in node.fields or ())


def alias(item: Any) -> str:
    """Give the name by which a level knows a table."""
    return str(item.relname if item.alias is None else item.alias.aliasname)


def leaves(items: Sequence[Any]) -> Iterator[Any]:
    """Give what is joined."""
    for item in items:
        if isinstance(item, ast.JoinExpr):
            yield from leaves((item.larg, item.rarg))
        else:
            yield item


def joins(items: Any) -> Iterator[Any]:
    """Give the joins of a level."""
    for item in items or ():
        if isinstance(item, ast.JoinExpr):
            yield item
            yield from joins((item.larg, item.rarg))


# -- Statements


def _parse(text: str) -> Sequence[Any]:
    parsed: Sequence[Any] = parse_sql(text)
    return parsed


def statements(name: str, text: str) -> list[Statement]:
    """Read what stands in a text of SQL."""
    return [Statement(name, each.stmt) for each in _parse(text)]


def functions(schema: str) -> dict[str, str]:
    """Give the definitions of the functions that a schema makes, by name."""
    content = schema.encode()
    return {
        each.stmt.funcname[-1].sval: content[each.stmt_location :][: each.stmt_len].decode()
        for each in _made(schema, ast.CreateFunctionStmt)
    }


def _made(schema: str, kind: type[ast.Node]) -> list[Any]:
    return [each for each in _parse(schema) if isinstance(each.stmt, kind)]


def store(schema: str) -> Store:
    """Give the tables of a schema that have a tenant, and its functions that take one."""
    tables = {
        each.stmt.relation.relname
        for each in _made(schema, ast.CreateStmt)
        if TENANT in [getattr(part, "colname", None) for part in each.stmt.tableElts]
    }
    taking = {name for name, definition in functions(schema).items() if takes_tenant(definition)}
    return Store(frozenset(tables), frozenset(taking))


def takes_tenant(definition: str) -> bool:
    """Whether a function has the tenant as its first parameter."""
    (made,) = _parse(definition)
    return [each.name for each in made.stmt.parameters or ()][:1] == [PARAMETER]


def body(name: str, definition: str) -> list[Statement]:
    """Read what stands in the body of a function: statements, and expressions, which are queries too.

    Raises: ValueError for what is composed at run time, and where the tenant is changed.
    """
    (made,) = _parse(definition)
    said = {option.defname: option.arg for option in made.stmt.options}
    language = said["language"].sval
    texts = list(_expressions(parse_plpgsql(definition))) if language == "plpgsql" else [said["as"][0].sval]
    return [Statement(name, each.stmt, within=True) for text in texts for each in _parse(text)]


def _expressions(node: Any) -> Iterator[str]:
    """Give everything that a body asks or computes, as statements."""
    if isinstance(node, list):
        for part in node:
            yield from _expressions(part)
    elif isinstance(node, dict):
        for kind, part in node.items():
            if kind == "PLpgSQL_expr":
                yield _statement(part["query"], part["parseMode"])
            elif kind.startswith("PLpgSQL_stmt_dyn"):
                raise ValueError("a statement is composed at run time")
            else:
                yield from _expressions(part)


def _statement(text: str, mode: int) -> str:
    if mode == 0:
        return text
    if mode >= 3:  # an assignment
        variable, _, text = text.partition(":=")
        if re.match(rf"\s*{PARAMETER}\b", variable):
            raise ValueError(f"{PARAMETER} is changed")
    return f"select {text}"


SCHEMA = (queries.FOLDER.parent / "schema.sql").read_text(encoding="utf-8")
STORE = store(SCHEMA)
