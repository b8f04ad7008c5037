"""Arguments of planned fields: from the document and its variables to what a resolver would be called with.

Constants are converted once, when the plan is made. Variables of the usual scalars are checked here, in a microsecond;
whatever else may stand in a variable is left to graphql-core and Strawberry. Nothing here says what is wrong with a
value: it is `Unplanned`, and resolvers say it.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import strawberry
from graphql import (
    FieldNode,
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLField,
    GraphQLInputObjectType,
    OperationDefinitionNode,
    ValueNode,
    VariableNode,
    Visitor,
    get_argument_values,
    get_named_type,
    get_variable_values,
    is_list_type,
    is_non_null_type,
    is_required_argument,
    type_from_ast,
    visit,
)
from graphql.execution.values import VariableValues
from strawberry.types.arguments import convert_argument

from schema.collect import Unplanned

# Variables in, the arguments of a resolver out.
Binder = Callable[[VariableValues], dict[str, Any]]

_INT_END = 2**31
_MISSING = object()


def strawberry_field(definition: GraphQLField) -> Any:
    """Give the field that Strawberry made a definition from."""
    return definition.extensions["strawberry-definition"]


class _Variable(NamedTuple):
    name: str
    kind: type
    required: bool


class Variables:
    """The variables of an operation."""

    def __init__(self, schema: strawberry.Schema, operation: OperationDefinitionNode) -> None:
        self._schema = schema._schema  # noqa: SLF001 - graphql-core's own schema
        self._definitions = operation.variable_definitions or ()
        self._plain: list[_Variable] | None = []
        for definition in self._definitions:
            kind = type_from_ast(self._schema, definition.type)
            required = is_non_null_type(kind)
            named = kind.of_type if is_non_null_type(kind) else kind
            plain = _PLAIN.get(getattr(named, "name", ""))
            if plain is None or definition.default_value is not None:
                self._plain = None
                return
            self._plain.append(_Variable(definition.variable.name.value, plain, required))

    @property
    def plain(self) -> bool:
        """Whether all are of the usual scalars, so that they hold no lists and no input objects."""
        return self._plain is not None

    def read(self, given: Mapping[str, Any]) -> VariableValues:
        """Check the values that were given.

        Raises: Unplanned.
        """
        if self._plain is not None:
            values: dict[str, Any] = {}
            for name, kind, required in self._plain:
                value = given.get(name, _MISSING)
                if type(value) is not kind or (type(value) is int and not -_INT_END <= value < _INT_END):
                    if required or (value is not None and value is not _MISSING):
                        break
                    if value is _MISSING:
                        continue
                values[name] = value
            else:
                return VariableValues({}, values)
        found = get_variable_values(self._schema, self._definitions, dict(given), max_errors=1)
        if isinstance(found, list):
            raise Unplanned
        return found


# An Int for an ID, say, is a case for graphql-core.
_PLAIN: dict[str, type] = {"ID": str, "String": str, "Int": int, "Boolean": bool}


def bind_arguments(schema: strawberry.Schema, definition: GraphQLField, node: FieldNode) -> Binder:
    """Give the binder of one field of a document."""
    given = {argument.name.value: argument for argument in node.arguments or ()}
    if any(_holds_variables(argument.value) for argument in given.values()):
        return _bind_all(schema, definition, node)
    constant: dict[str, Any] = {}
    direct: list[_Direct] = []
    known = _known(definition, node)
    for name, argument in definition.args.items():
        convert = _converter(schema, argument)
        python_name = _python_name(argument)
        if name in given and isinstance(given[name].value, VariableNode):
            default = known.get(name, _MISSING)
            direct.append(
                _Direct(
                    given[name].value.name.value,  # type: ignore[attr-defined] # it is a VariableNode
                    python_name,
                    is_non_null_type(argument.type),
                    convert,
                    default if default is _MISSING else convert(default),
                )
            )
        elif name in known:
            constant[python_name] = convert(known[name])
    if not direct:
        return lambda _variables: constant
    return lambda variables: _bind(constant, direct, variables.coerced)


class _Direct(NamedTuple):
    """An argument whose value is a variable."""

    variable: str
    python_name: str
    required: bool
    convert: Callable[[Any], Any]
    default: Any


def _bind(constant: dict[str, Any], direct: list[_Direct], variables: Mapping[str, Any]) -> dict[str, Any]:
    arguments = constant.copy()
    for variable, python_name, required, convert, default in direct:
        value = variables.get(variable, _MISSING)
        if value is _MISSING:
            value = default
            if value is _MISSING:
                if required:
                    raise Unplanned
                continue
        elif value is None:
            if required:
                raise Unplanned
        else:
            value = convert(value)
        arguments[python_name] = value
    return arguments


def _bind_all(schema: strawberry.Schema, definition: GraphQLField, node: FieldNode) -> Binder:
    """Bind arguments that hold variables inside lists or input objects as the resolvers' arguments are bound."""
    converters = {
        name: (_python_name(argument), _converter(schema, argument)) for name, argument in definition.args.items()
    }

    def bind(variables: VariableValues) -> dict[str, Any]:
        arguments: dict[str, Any] = {}
        for name, value in get_argument_values(definition, node, variables).items():
            python_name, convert = converters[name]
            arguments[python_name] = convert(value)
        return arguments

    return bind


def _python_name(argument: GraphQLArgument) -> str:
    return str(argument.extensions["strawberry-definition"].python_name)


def _converter(schema: strawberry.Schema, argument: GraphQLArgument) -> Callable[[Any], Any]:
    """Give what Strawberry does to a coerced value; nothing to a scalar."""
    named = get_named_type(argument.type)
    kind = argument.type.of_type if is_non_null_type(argument.type) else argument.type
    if not is_list_type(kind) and not isinstance(named, GraphQLEnumType | GraphQLInputObjectType):
        return lambda value: value
    of_strawberry = argument.extensions["strawberry-definition"].type
    registry, config = schema.schema_converter.scalar_registry, schema.config
    return lambda value: convert_argument(value, of_strawberry, registry, config)


class _Finder(Visitor):
    def __init__(self) -> None:
        super().__init__()
        self.found = False

    def enter_variable(self, _node: VariableNode, *_args: Any) -> None:
        self.found = True


def _holds_variables(value: ValueNode) -> bool:
    """Tell whether variables stand inside a value that is none itself."""
    if isinstance(value, VariableNode):
        return False
    finder = _Finder()
    visit(value, finder)
    return finder.found


def _known(definition: GraphQLField, node: FieldNode) -> dict[str, Any]:
    """Give the values of arguments that are constants, and the defaults of all others."""
    given = {argument.name.value: argument for argument in node.arguments or ()}
    variables = {name for name, argument in given.items() if isinstance(argument.value, VariableNode)}
    constants = FieldNode(
        name=node.name, arguments=tuple(argument for name, argument in given.items() if name not in variables)
    )
    known = {
        name: argument
        for name, argument in definition.args.items()
        if name not in variables or not is_required_argument(argument)
    }
    return get_argument_values(GraphQLField(definition.type, args=known), constants)
