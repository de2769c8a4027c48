"""The shape of a query: the query with slots for its values. Queries of one shape are one statement (db/slots.py).

Whatever makes SQL differ stays in the shape: fields, paths, operators, the JSON type of a value, whether a list is
empty and an integer fits in 64 bits, whether there is a limit. A shape is compared and compiled as any query is.
"""

from dataclasses import replace
from typing import Any

from factory_logs.db.slots import Slot
from factory_logs.query.ast import And, Compare, Has, Huge, Json, Member, Node, Not, Or, Query


def shape_of(query: Query) -> tuple[Query, list[Any]]:
    """The shape, and the values by the numbers of their slots."""
    values: list[Any] = []
    filters = tuple([_node(node, values) for node in query.filters])
    if query.limit is not None or query.offset is not None:
        query = replace(query, limit=_count(query.limit, values), offset=_count(query.offset, values))
    return Query(filters, query.order_by, query.group_by, query.limit, query.offset), values


def _slot(value: object, values: list[Any]) -> Any:
    """Typed as anything, as it goes wherever a value may."""
    values.append(value)
    return Slot(len(values) - 1)


def _count(value: int | None, values: list[Any]) -> Any:
    return None if value is None else _slot(value, values)


def _node(node: Node, values: list[Any]) -> Node:
    match node:
        case Compare(field, operator, Json(text, json_type)):
            return Compare(field, operator, Json(_slot(text, values), json_type))
        case Compare(field, operator, Huge(number)):
            return Compare(field, operator, Huge(_slot(number, values)))
        case Compare(field, operator, value):
            return Compare(field, operator, _slot(value, values))
        case Member(field, members, negated) if members:
            return Member(field, _slot(members, values), negated)
        case And(items):
            return And(tuple([_node(item, values) for item in items]))
        case Or(items):
            return Or(tuple([_node(item, values) for item in items]))
        case Not(item):
            return Not(_node(item, values))
        case Has(relation, item):
            return Has(relation, _node(item, values))
        case _:
            return node
