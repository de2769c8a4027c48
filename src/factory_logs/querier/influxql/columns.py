"""Find the columns of a SELECT statement: their expressions, and the calls and references in these.

A statement computes one stream of points for each call, so the same call in two columns is computed once.
"""

from dataclasses import dataclass

from factory_logs.influxql.ast import Call, Expression, Reference, nodes
from factory_logs.influxql.checking import TRANSFORMATIONS
from factory_logs.influxql.math_functions import MATH_FUNCTIONS
from factory_logs.influxql.resolving import Resolved, top_arguments


@dataclass(frozen=True, slots=True)
class Columns:
    """The expressions of a statement's columns, the calls in them, and the references outside calls."""

    expressions: tuple[Expression, ...]
    calls: tuple[Call, ...]
    references: tuple[Reference, ...]


def columns_of(resolved: Resolved) -> Columns:
    """Return the columns of a statement. The references are in the order of their names."""
    expressions: list[Expression] = []
    for each in resolved.fields:
        expressions += [each.expression, *top_arguments(each)]
    calls: dict[Call, None] = {}
    references: dict[Reference, None] = {}
    for expression in expressions:
        for node in _outermost(expression):
            if isinstance(node, Call):
                calls[node] = None
            elif isinstance(node, Reference):
                references[node] = None
    in_order = sorted(references, key=lambda each: (each.name, "" if each.type is None else each.type.value))
    return Columns(tuple(expressions), tuple(calls), tuple(in_order))


def _outermost(expression: Expression) -> list[Expression]:
    """Return the references and calls that are not inside another call, except inside functions of single values."""
    found: list[Expression] = []
    inside: set[int] = set()
    for node in nodes(expression):
        if id(node) in inside or not isinstance(node, Call | Reference):
            continue
        if isinstance(node, Call) and node.name in MATH_FUNCTIONS:
            continue
        found.append(node)
        inside |= {id(each) for each in nodes(node)}
    return found


def field_of(call: Call) -> Reference:
    """Return the field that a call reads, through all nested calls."""
    argument = call.arguments[0]
    while isinstance(argument, Call):
        argument = argument.arguments[0]
    return argument if isinstance(argument, Reference) else Reference("")


def is_transformed(resolved: Resolved) -> bool:
    """Return whether each row of a subquery is computed from consecutive points of one series."""
    return all(call.name in TRANSFORMATIONS for call in columns_of(resolved).calls)
