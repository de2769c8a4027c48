"""Keyset pagination (docs/reference/http-api.md#cursors): select the rows after a given row by its sort keys.

A page by OFFSET reads and discards all earlier pages. With the sort keys of the last row, PostgreSQL finds the start of
the next page directly in an index. Records never change, so no row moves from one page to another.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, Select, Text, and_, cast, false, literal, or_, select

from factory_logs.query.ast import Kind, Order, Query
from factory_logs.query.compiler import SQL_TYPES, Condition, as_jsonb, compile_filters, field_value, order_by_columns
from factory_logs.query.fields import Resource

Key = Any
"""The value of a row for one entry of `order_by`; None for null. JSON is given as text, so that it is exact."""


def compile_keys(query: Query, resource: Resource, row_id: int) -> Select[Any]:
    """Return a statement that selects the sort keys of one row, for `compile_after`; no row if the record does not
    exist."""
    values = (field_value(order.field, resource, resource.table) for order in query.order_by)
    keys = [
        (cast(value, Text) if order.field.kind is Kind.JSON else value).label(f"key_{index}")
        for index, (order, value) in enumerate(zip(query.order_by, values, strict=True))
    ]
    table = resource.table
    return select(*keys).select_from(table).where(table.c[resource.primary_key] == literal(row_id, BigInteger))


def compile_after(query: Query, resource: Resource, keys: Sequence[Key], row_id: int) -> list[Select[Any]]:
    """Return statements that select the rows after the row with these keys and this id, in this order.

    There is one statement for each key that is in an index. The rows with equal earlier keys are one range of the
    index, but with a single condition for all keys PostgreSQL would read the range from its beginning. `group_by`,
    `limit` and `offset` are ignored.
    """
    table = resource.table
    rows = select(table).where(*compile_filters(query, resource)).order_by(*order_by_columns(query, resource, table))
    rest: Condition = table.c[resource.primary_key] > literal(row_id, BigInteger)
    sort_keys = [_SortKey(order, key, resource) for order, key in zip(query.order_by, keys, strict=True)]
    if not sort_keys:
        return [rows.where(rest)]
    indexed = list(takewhile(lambda sort_key: sort_key.is_indexed, sort_keys))
    for sort_key in reversed(sort_keys[max(1, len(indexed)) :]):
        rest = or_(false(), *sort_key.after, and_(sort_key.same, rest))
    if not indexed:
        return [rows.where(condition) for condition in sort_keys[0].ranges(rest)]
    conditions = [] if indexed[-1].is_unique else [and_(*(sort_key.same for sort_key in indexed), rest)]
    for number, sort_key in reversed(list(enumerate(indexed))):
        before = [earlier.same for earlier in indexed[:number]]
        conditions += [and_(*before, later) for later in sort_key.after]
    return [rows.where(condition) for condition in conditions]


def has_indexed_order(query: Query, resource: Resource) -> bool:
    """Return whether an index contains the records in the order of the query, at least by its first key."""
    if not query.order_by:
        return True
    field = query.order_by[0].field
    is_own = field.relation is None and field.kind is not Kind.JSON
    return is_own and (field.column == resource.primary_key or field.column in _indexed(resource))


class _SortKey:
    """One sort key of the row. It makes conditions for the rows before and after the row."""

    def __init__(self, order: Order, key: Key, resource: Resource) -> None:
        field = order.field
        value = field_value(field, resource, resource.table)
        self._key = key
        self._value = value
        self._descending = order.descending
        # The same order as order_by_columns: nulls of JSON come last, nulls of columns as PostgreSQL sorts them.
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
        """Return alternative conditions for later rows: a later value, null, or any value after null."""
        if self._key is None:
            return [self._value.is_not(None)] if self._nulls_first else []
        later = self._value < self._literal if self._descending else self._value > self._literal
        return [later, self._value.is_(None)] if self._nullable and not self._nulls_first else [later]

    def ranges(self, rest: Condition) -> list[Condition]:
        """Return the conditions of the first key. The first condition is a range, so an index scan can begin at its
        start."""
        if self._key is None:
            return [and_(self.same, rest), *self.after]
        later, *others = self.after
        begin = self._value <= self._literal if self._descending else self._value >= self._literal
        return [and_(begin, or_(later, and_(self.same, rest))), *others]


def _indexed(resource: Resource) -> set[str]:
    return {column.name for index in resource.table.indexes for column in index.columns}
