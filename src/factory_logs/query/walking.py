"""Walking through what a query selects (SPEC 5): the rows that come after a given one, found by its sort keys.

A page by OFFSET reads and throws away all pages before it. Here the sort keys of the last row say where the next page
begins, which an index on them finds at once; and as records never change, no row moves from one side to the other.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, Text, and_, cast, false, literal, or_, select

from factory_logs.query.ast import Kind, Order, Query
from factory_logs.query.compiler import SQL_TYPES, Condition, compile_filters, order_of, value_of
from factory_logs.query.fields import Resource
from factory_logs.query.json_places import as_jsonb

Key = Any
"""The value that one row has for one entry of `order_by`; JSON as text, so that it is exact. None for null."""


def compile_keys(query: Query, resource: Resource, row_id: int) -> Select[Any]:
    """The sort keys of one row, as `compile_after` takes them; no row where there is no such record."""
    values = (value_of(order.field, resource, resource.table) for order in query.order_by)
    keys = [
        (cast(value, Text) if order.field.kind is Kind.JSON else value).label(f"key_{place}")
        for place, (order, value) in enumerate(zip(query.order_by, values, strict=True))
    ]
    table = resource.table
    return select(*keys).select_from(table).where(table.c[resource.primary_key] == literal(row_id, BigInteger))


def compile_after(query: Query, resource: Resource, keys: Sequence[Key], row_id: int) -> list[Select[Any]]:
    """The rows after that one with these keys and this id, as statements whose rows follow one another.

    One for each key that is in an index: the rows that share the keys before it are one range there, and one condition
    for all would read that range from its beginning. `group_by`, `limit` and `offset` are not looked at.
    """
    table = resource.table
    rows = select(table).where(*compile_filters(query, resource)).order_by(*order_of(query, resource, table))
    rest: Condition = table.c[resource.primary_key] > literal(row_id, BigInteger)
    places = [_Place(order, key, resource) for order, key in zip(query.order_by, keys, strict=True)]
    if not places:
        return [rows.where(rest)]
    indexed = list(takewhile(lambda place: place.is_indexed, places))
    for place in reversed(places[max(1, len(indexed)) :]):
        rest = or_(false(), *place.after, and_(place.same, rest))
    if not indexed:
        return [rows.where(condition) for condition in places[0].ranges(rest)]
    conditions = [] if indexed[-1].is_unique else [and_(*(place.same for place in indexed), rest)]
    for number, place in reversed(list(enumerate(indexed))):
        before = [earlier.same for earlier in indexed[:number]]
        conditions += [and_(*before, later) for later in place.after]
    return [rows.where(condition) for condition in conditions]


class _Place:
    """Where one key stands in the order of its field."""

    def __init__(self, order: Order, key: Key, resource: Resource) -> None:
        field = order.field
        value = value_of(field, resource, resource.table)
        self._key = key
        self._value = value
        self._descending = order.descending
        # As order_of has it: JSON has nulls last, columns as PostgreSQL sorts them.
        self._nulls_first = order.descending and field.kind is not Kind.JSON
        is_own = field.relation is None and field.kind is not Kind.JSON
        self.is_unique = is_own and field.column == resource.primary_key
        self.is_indexed = self.is_unique or (is_own and field.column in _indexed(resource))
        self._nullable = not is_own or bool(resource.table.c[field.column].nullable)
        self._literal: ColumnElement[Any] = (
            as_jsonb(key) if field.kind is Kind.JSON else literal(key, SQL_TYPES[field.kind])
        )

    @property
    def same(self) -> Condition:
        return self._value.is_(None) if self._key is None else self._value == self._literal

    @property
    def after(self) -> list[Condition]:
        """Alternatives: what comes later and is of the key's kind, then nulls or, after nulls, all the others."""
        if self._key is None:
            return [self._value.is_not(None)] if self._nulls_first else []
        later = self._value < self._literal if self._descending else self._value > self._literal
        return [later, self._value.is_(None)] if self._nullable and not self._nulls_first else [later]

    def ranges(self, rest: Condition) -> list[Condition]:
        """For the first key: each alternative apart, the first one as a range that an index can begin at."""
        if self._key is None:
            return [and_(self.same, rest), *self.after]
        later, *others = self.after
        begin = self._value <= self._literal if self._descending else self._value >= self._literal
        return [and_(begin, or_(later, and_(self.same, rest))), *others]


def _indexed(resource: Resource) -> set[str]:
    return {column.name for index in resource.table.indexes for column in index.columns}
