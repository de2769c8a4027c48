"""Rewrite queries so that results and statements can be reused.

`with_placeholders` replaces the values, so queries that differ only in values share one statement. Everything that
affects the SQL stays in the query: fields, paths, operators, the JSON type of a value, whether a list is empty, whether
an integer fits in 64 bits, whether there is a limit. A query with placeholders is compared and compiled like any other.
`split_time` separates the time range, so that a result for one range can be extended to another.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from factory_logs.db.prepared_statements import Placeholder
from factory_logs.query.ast import And, Compare, Field, Has, Json, Kind, Member, Node, Not, Or, OutOfRangeInteger, Query
from factory_logs.query.operators import Operator


def with_placeholders(query: Query) -> tuple[Query, list[Any]]:
    """Return the query with numbered placeholders for its values, and the list of the values."""
    values: list[Any] = []
    filters = tuple([_node(node, values) for node in query.filters])
    if query.limit is not None or query.offset is not None:
        query = replace(query, limit=_count(query.limit, values), offset=_count(query.offset, values))
    return Query(filters, query.order_by, query.group_by, query.limit, query.offset), values


def _placeholder(value: object, values: list[Any]) -> Any:
    """Return a placeholder for the value. Its type is Any, because it replaces values of any type."""
    values.append(value)
    return Placeholder(len(values) - 1)


def _count(value: int | None, values: list[Any]) -> Any:
    return None if value is None else _placeholder(value, values)


def _node(node: Node, values: list[Any]) -> Node:
    match node:
        case Compare(field, operator, Json(text, json_type)):
            return Compare(field, operator, Json(_placeholder(text, values), json_type))
        case Compare(field, operator, OutOfRangeInteger(number)):
            return Compare(field, operator, OutOfRangeInteger(_placeholder(number, values)))
        case Compare(field, operator, value):
            return Compare(field, operator, _placeholder(value, values))
        case Member(field, members, negated) if members:
            return Member(field, _placeholder(members, values), negated)
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


TIME = Field("timestamp", Kind.DATETIME)
MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class TimeRange:
    """The timestamps from `begin` to before `end`; None means no limit."""

    begin: datetime | None = None
    end: datetime | None = None

    def without(self, other: "TimeRange") -> tuple["TimeRange", ...]:
        """Return the parts of this range that are not in the other range. Both must overlap."""
        parts = []
        if other.begin is not None and (self.begin is None or self.begin < other.begin):
            parts.append(TimeRange(self.begin, other.begin))
        if other.end is not None and (self.end is None or other.end < self.end):
            parts.append(TimeRange(other.end, self.end))
        return tuple(parts)

    def touches(self, other: "TimeRange") -> bool:
        """Return whether there is no gap between this range and the other one."""
        return not _is_before(self, other) and not _is_before(other, self)

    def joined(self, other: "TimeRange") -> "TimeRange":
        """Return the range from the earlier beginning to the later end."""
        begins, ends = (self.begin, other.begin), (self.end, other.end)
        begin = None if None in begins else min(moment for moment in begins if moment is not None)
        return TimeRange(begin, None if None in ends else max(moment for moment in ends if moment is not None))

    def as_query(self) -> Query:
        """Return the query of the logs in this range."""
        bounds = ((Operator.GREATER_OR_EQUAL, self.begin), (Operator.LESS, self.end))
        return Query(tuple(Compare(TIME, operator, moment) for operator, moment in bounds if moment is not None))


def _is_before(one: TimeRange, other: TimeRange) -> bool:
    return one.end is not None and other.begin is not None and one.end < other.begin


def split_time(query: Query) -> tuple[Query, TimeRange]:
    """Return the query without its conditions on `timestamp`, and the range that these conditions select."""
    found, others = TimeRange(), []
    for node in query.filters:
        bound = _bound(node)
        if bound is None:
            others.append(node)
        else:
            begins = [begin for begin in (found.begin, bound.begin) if begin is not None]
            ends = [end for end in (found.end, bound.end) if end is not None]
            found = TimeRange(max(begins, default=None), min(ends, default=None))
    return replace(query, filters=tuple(others)), found


def _bound(node: Node) -> TimeRange | None:
    if not isinstance(node, Compare) or node.field != TIME or not isinstance(node.value, datetime):
        return None
    moment = node.value
    match node.operator:
        case Operator.GREATER_OR_EQUAL:
            return TimeRange(begin=moment)
        case Operator.LESS:
            return TimeRange(end=moment)
        case Operator.GREATER if moment < datetime.max:
            return TimeRange(begin=moment + MICROSECOND)
        case Operator.LESS_OR_EQUAL if moment < datetime.max:
            return TimeRange(end=moment + MICROSECOND)
    return None
