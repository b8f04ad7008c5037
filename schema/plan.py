"""Plans: a validated query, or what a subscription asks of its events, becomes a tree of steps, once.

Binders read its arguments and encoders write its rows. Planning is pure: it looks at the document and the schema. What
no plan can answer (introspection, mutations, a directive that is not known, more fields than pays) is `Unplanned`, and
resolvers answer it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import strawberry
from graphql import (
    DocumentNode,
    FragmentDefinitionNode,
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLObjectType,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    get_named_type,
    is_leaf_type,
    is_list_type,
    is_non_null_type,
)

from db.records import NO_LARGE_COLUMN, Columns, ContextRecord, MessageRecord
from schema.arguments import Binder, Variables, bind_arguments, strawberry_field
from schema.collect import Collected, Collector, Unplanned, conditions_of, fragments_of
from schema.encoder import Encoder, make_encoder, write_leaf
from schema.step import Asked, Step
from schema.steps import STEPS

# The rows that stand for the types which an interface may hold.
RECORDS: dict[str, type] = {"Context": ContextRecord, "Message": MessageRecord}

# Their objects go on to show the record that they were asked of.
_PASSING = {("Context", "at")}


@dataclass(slots=True, eq=False)
class Field:
    """A field of the response whose values a step gives, or the plain attribute of an object that holds objects."""

    name: str
    type_name: str
    field_name: str
    number: int
    step: Step
    asked: Asked
    many: bool
    above: "Field | None"
    below: "Selection | None" = None


@dataclass(slots=True, eq=False)
class Branch:
    """What is asked of the objects of one type: which fields take steps, and the encoder of all of them."""

    type_name: str
    names: frozenset[str]
    fields: list[Field]
    encode: Encoder


@dataclass(slots=True, eq=False)
class Selection:
    """What is asked of the objects at one place: one branch, or one for each type of record that may stand there."""

    branches: list[tuple[type, Branch]]


@dataclass(slots=True, eq=False)
class Plan:
    """An operation for one choice of what `@include` and `@skip` leave of it."""

    root: Selection
    fields: list[Field]
    binders: list[Binder]
    health: bool
    # How many fields load: each is a statement at least, where there is anything to load for.
    statements: int
    # Those asked of a context of which the id is an argument: it need not be read before.
    early: list[Field] = field(default_factory=list)
    # Whether all that is read can be asked in one flush, as far as that is known before anything is read.
    one_flush: bool = field(default=False)


class Planner:
    """Plans one operation: a query, or what a subscription asks of each event."""

    def __init__(self, schema: strawberry.Schema, document: DocumentNode, operation: OperationDefinitionNode) -> None:
        self._schema = schema
        self._operation = operation
        self._fragments = fragments_of(document)
        self._plans: dict[tuple[Any, ...], Plan | None] = {}
        core = schema._schema  # noqa: SLF001 - graphql-core's own schema
        roots = {OperationType.QUERY: core.query_type, OperationType.SUBSCRIPTION: core.subscription_type}
        root_type = roots.get(operation.operation)
        if root_type is None:
            raise Unplanned
        self._root_type = root_type
        self.variables = Variables(schema, operation)
        self._conditions = conditions_of(operation, self._fragments)

    def plan(self, variables: Mapping[str, Any]) -> Plan:
        """Give the plan for the variables' values, made once for each choice of conditions.

        Raises: Unplanned.
        """
        chosen = tuple([variables.get(name) for name in self._conditions])
        try:
            plan = self._plans[chosen]
        except KeyError:
            try:
                plan = _Planning(self._schema, self._fragments, dict(zip(self._conditions, chosen, strict=True))).plan(
                    self._root_type, self._operation.selection_set
                )
            except Unplanned:
                plan = None
            if len(self._plans) >= _PLANS_MAX:
                self._plans.clear()
            self._plans[chosen] = plan
        if plan is None:
            raise Unplanned
        return plan


# Each of them is a statement of its own, where loaders make one of many: from some 200 on resolvers are faster.
LOADING_MAX = 200

# Choices of conditions kept for one operation. Eight booleans make 256; they hardly all come.
_PLANS_MAX = 64


class _Planning:
    """Makes one plan."""

    def __init__(
        self,
        schema: strawberry.Schema,
        fragments: Mapping[str, FragmentDefinitionNode],
        conditions: Mapping[str, Any],
    ) -> None:
        self._strawberry = schema
        self._schema = schema._schema  # noqa: SLF001 - graphql-core's own schema
        self._collector = Collector(self._schema, fragments, conditions)
        self._fields: list[Field] = []
        self._binders: list[Binder] = []
        self._loading = 0

    def plan(self, root_type: GraphQLObjectType, selections: SelectionSetNode) -> Plan:
        collected = self._collect(root_type, [selections])
        branch = self._branch(root_type, collected, None)
        health = any(found.field_name == "health" for found in branch.fields)
        plan = Plan(Selection([(type(None), branch)]), self._fields, self._binders, health, self._loading)
        plan.early = [found for found in self._fields if _is_early(found)]
        plan.one_flush = all(_in_one_flush(found) for found in branch.fields)
        return plan

    def _collect(self, parent: GraphQLObjectType, sets: Sequence[SelectionSetNode]) -> dict[str, Collected]:
        collected = self._collector.collect(parent, sets)
        if any(found.field_name in {"__schema", "__type"} for found in collected.values()):
            raise Unplanned
        return collected

    def _branch(self, parent: GraphQLObjectType, collected: dict[str, Collected], above: Field | None) -> Branch:
        names = frozenset(found.field_name for found in collected.values())
        plain = {
            name: write_leaf(found.definition)
            for name, found in collected.items()
            if (parent.name, found.field_name) not in STEPS and is_leaf_type(get_named_type(found.definition.type))
        }
        fields = [self._field(name, parent, found, above) for name, found in collected.items() if name not in plain]
        return Branch(parent.name, names, fields, make_encoder(parent.name, list(collected), plain))

    def _field(self, name: str, parent: GraphQLObjectType, found: Collected, above: Field | None) -> Field:
        field_name = found.field_name
        step = STEPS.get((parent.name, field_name)) or _attribute(found.definition)
        self._loading += step.loads and not step.seldom
        if self._loading > LOADING_MAX:
            raise Unplanned
        number = len(self._fields)
        planned = Field(
            name, parent.name, field_name, number, step, _ASKED_NOTHING, _is_list(found.definition.type), above
        )
        self._fields.append(planned)
        self._binders.append(bind_arguments(self._strawberry, found.definition, found.nodes[0]))
        named = get_named_type(found.definition.type)
        if isinstance(named, GraphQLObjectType | GraphQLInterfaceType):
            planned.below = self._selection(named, found.below, planned)
            planned.asked = _asked(planned.below)
        return planned

    def _selection(
        self, named: GraphQLObjectType | GraphQLInterfaceType, sets: Sequence[SelectionSetNode], above: Field
    ) -> Selection:
        if isinstance(named, GraphQLObjectType):
            return Selection([(object, self._branch(named, self._collect(named, sets), above))])
        branches: list[tuple[type, Branch]] = []
        for kind in self._schema.get_possible_types(named):
            if kind.name not in RECORDS:
                raise Unplanned
            branches.append((RECORDS[kind.name], self._branch(kind, self._collect(kind, sets), above)))
        return Selection(branches)


def _is_list(kind: Any) -> bool:
    return is_list_type(kind.of_type if is_non_null_type(kind) else kind)


def _attribute(definition: GraphQLField) -> Step:
    """Read the attribute of a field that has no resolver, and holds objects."""
    made = strawberry_field(definition)
    if made.base_resolver is not None:
        raise Unplanned
    name = made.python_name

    def read(_at: Any, objects: Sequence[Any], _asked: Asked) -> list[Any]:
        return [getattr(found, name) for found in objects]

    return Step(read, lambda **_arguments: 1, loads=False)


_ASKED_NOTHING = Asked(frozenset(), NO_LARGE_COLUMN, metadata=False)


def _asked(selection: Selection) -> Asked:
    """Sum up what is asked of the rows at one place, through all that only looks at them."""
    named: set[str] = set()
    heavy: set[tuple[str, str]] = set()

    def look(below: Selection, *, first: bool) -> None:
        for _, branch in below.branches:
            if first:
                named.update(branch.names)
            heavy.update((branch.type_name, name) for name in branch.names)
            for found in branch.fields:
                passes = not found.step.loads or (found.type_name, found.field_name) in _PASSING
                if found.below and passes:
                    look(found.below, first=False)

    look(selection, first=True)
    columns = Columns(*(("Message", name) in heavy for name in ("content", "toolCalls", "metadata")))
    return Asked(frozenset(named), columns, ("Context", "metadata") in heavy)


def _is_early(found: Field) -> bool:
    above = found.above
    by_id = above is not None and above.above is None and above.field_name == "context"
    return by_id and found.step.early is not None


def _in_one_flush(root: Field) -> bool:
    """Tell whether a root field and all below it can be asked at once: what is not asked early hardly ever asks."""
    if root.below is None:
        return True
    waiting = [root.below]
    while waiting:
        for _, branch in waiting.pop().branches:
            for found in branch.fields:
                if found.step.loads and not found.step.seldom and not _is_early(found):
                    return False
                if found.below:
                    waiting.append(found.below)
    return True
