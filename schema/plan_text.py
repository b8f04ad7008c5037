"""Plans in words, for people: what is read for which field, and what was asked flush by flush."""

from collections.abc import Iterator

from schema.execute import Bound
from schema.moment import Trace
from schema.plan import Field

_WAYS = {
    "one flush": "the fast lane, one flush",
    "a lease": "the fast lane, a transaction of several flushes",
    "the pool": "the pool, a transaction",
}


def describe(bound: Bound) -> str:
    """Name each field that a step reads, below the field that it is asked of, with its arguments."""
    return "".join(f"{line}\n" for line in _fields(bound))


def _fields(bound: Bound) -> Iterator[str]:
    for field in bound.plan.fields:
        arguments = ", ".join(f"{name}: {value!r}" for name, value in bound.arguments[field.number].items())
        name = field.name if field.name == field.field_name else f"{field.name}: {field.field_name}"
        yield f"{'  ' * _depth(field)}{name}{f'({arguments})' if arguments else ''}{_remark(field)}"


def _depth(field: Field) -> int:
    return 0 if field.above is None else 1 + _depth(field.above)


def _remark(field: Field) -> str:
    if not field.step.loads:
        return ""
    asked = field.asked
    heavy = [name for name, wanted in asked.columns._asdict().items() if wanted]
    heavy += ["metadata of contexts"] if asked.metadata else []
    return f" - reads{' ' + ', '.join(heavy) if heavy else ''}"


def asked(trace: Trace) -> str:
    """Name the queries of each flush, in the order in which they were sent."""
    if trace.way is None or not trace.flushes:
        return "nothing is asked\n"
    lines = [f"over {_WAYS[trace.way]}"]
    for number, calls in enumerate(trace.flushes, 1):
        lines += [f"flush {number}", *(f"  {call.query.name}" for call in calls)]
    return "".join(f"{line}\n" for line in lines)
