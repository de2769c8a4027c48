"""Query -> SQLAlchemy Core. Names never reach SQL as text and values only as bound parameters (SPEC 4, 5).

A query may be a shape (query/shapes.py), with slots for its values: here nothing looks into a value, but by `derived`.

Nothing here can fail in PostgreSQL: JSON is compared as jsonb, which never errors, never cast to another type; lists
are one array parameter each, as a statement has room for 32,767.
"""

from functools import reduce
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Float,
    FromClause,
    Numeric,
    Select,
    Text,
    UnaryExpression,
    all_,
    and_,
    any_,
    cast,
    exists,
    false,
    func,
    literal,
    not_,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.types import TypeEngine

from factory_logs.db.models import TIME
from factory_logs.db.slots import derived
from factory_logs.query.ast import (
    And,
    Compare,
    CompareFields,
    Field,
    Has,
    Huge,
    Json,
    Kind,
    Member,
    Node,
    Not,
    Null,
    Or,
    Order,
    Query,
    Value,
)
from factory_logs.query.fields import Resource
from factory_logs.query.json_places import as_jsonb, contains, json_at
from factory_logs.query.operators import Operator

Condition = ColumnElement[bool]

SQL_TYPES: dict[Kind, TypeEngine[Any]] = {
    Kind.INT: BigInteger(),
    Kind.STR: Text(),
    Kind.DATETIME: TIME,
    Kind.FLOAT: Float(53),
}
_SYMBOLS = {
    Operator.EQUAL: "=",
    Operator.NOT_EQUAL: "<>",
    Operator.GREATER: ">",
    Operator.LESS: "<",
    Operator.GREATER_OR_EQUAL: ">=",
    Operator.LESS_OR_EQUAL: "<=",
    Operator.LIKE: "LIKE",
    Operator.ILIKE: "ILIKE",
}
_ORDERED_JSON = ("boolean", "number", "string")


def compile_rows(query: Query, resource: Resource, lowest: int | None = None) -> Select[Any]:
    """The rows as the columns of the resource's table, in order; ready for the caller's own `.offset().limit()`.

    `lowest` is an id below which no row matches, made use of where rows come by ascending id. With `group_by`, `limit`
    or `offset` the columns are a subquery's: reach them by `.selected_columns`.
    """
    source: FromClause = resource.table
    rows = select(source).where(*compile_filters(query, resource))
    if lowest is not None and _by_ascending_id(query, resource):
        rows = rows.where(resource.table.c[resource.primary_key] >= literal(lowest, BigInteger))
    if query.group_by:
        source = _first_of_each_group(rows, query, resource)
        rows = select(*_columns(source, resource)).where(source.c.place_in_group == 1)
    if query.limit is not None or query.offset is not None:
        rows = rows.order_by(*order_of(query, resource, source))
        source = rows.limit(_bigint(query.limit)).offset(_bigint(query.offset)).subquery()
        rows = select(*_columns(source, resource))
    return rows.order_by(*order_of(query, resource, source))


def compile_count(query: Query, resource: Resource) -> Select[int]:
    """How many rows `compile_rows` gives, exactly, without sorting; a `limit` also bounds the work."""
    table = resource.table
    matching: Select[Any] = select(table.c[resource.primary_key]).where(*compile_filters(query, resource))
    if query.group_by:
        keys = [value_of(field, resource, table).label(f"key_{n}") for n, field in enumerate(query.group_by)]
        matching = select(*keys).select_from(table).where(*compile_filters(query, resource)).distinct()
    elif query.limit is None and query.offset is None:
        return select(func.count()).select_from(table).where(*compile_filters(query, resource))
    return select(func.count()).select_from(
        matching.limit(_bigint(query.limit)).offset(_bigint(query.offset)).subquery()
    )


def compile_filters(query: Query, resource: Resource) -> list[Condition]:
    """The conditions of `filters` on the resource's table, to be used as a conjunction.

    The statement that uses them must name the table in FROM.
    """
    return [_condition(node, resource, resource.table) for node in query.filters]


def _bigint(number: int | None) -> ColumnElement[int] | None:
    """Of one type whatever the number is, so that the statement is the same one."""
    return None if number is None else literal(number, BigInteger)


def _by_ascending_id(query: Query, resource: Resource) -> bool:
    return not query.order_by or query.order_by[0] == Order(Field(resource.primary_key, Kind.INT))


def _columns(source: FromClause, resource: Resource) -> list[ColumnElement[Any]]:
    return [source.c[column.name] for column in resource.table.columns]


def _first_of_each_group(rows: Select[Any], query: Query, resource: Resource) -> FromClause:
    """Numbers the rows of each group. Not DISTINCT ON: its keys must be repeated in ORDER BY, which parameters break.

    The first is the first by `order_by`, by default the newest (SPEC 4).
    """
    table = resource.table
    first: list[UnaryExpression[Any]] = (
        order_of(query, resource, table)
        if query.order_by
        else [table.c[resource.newest].desc().nulls_last(), table.c[resource.primary_key].desc()]
    )
    place = func.row_number().over(
        partition_by=[value_of(field, resource, table) for field in query.group_by], order_by=first
    )
    return rows.add_columns(place.label("place_in_group")).subquery()


def order_of(query: Query, resource: Resource, source: FromClause) -> list[UnaryExpression[Any]]:
    """`order_by`, ties broken by the primary key. Columns sort as PostgreSQL sorts nulls; JSON has them last."""
    keys = []
    for order in query.order_by:
        key = value_of(order.field, resource, source)
        directed = key.desc() if order.descending else key.asc()
        keys.append(directed.nulls_last() if order.field.kind is Kind.JSON else directed)
    return [*keys, source.c[resource.primary_key].asc()]


def value_of(field: Field, resource: Resource, source: FromClause) -> ColumnElement[Any]:
    """The field as a value: of the row, or of its related row (null where there is none)."""
    if field.relation is None:
        column: ColumnElement[Any] = source.c[field.column]
        return column if field.kind is not Kind.JSON else json_at(column, field.path)
    relation = resource.relations[field.relation]
    target = relation.target.table.alias()
    own = Field(field.column, field.kind, path=field.path)
    return (
        select(value_of(own, relation.target, target))
        .where(target.c[relation.target.primary_key] == source.c[relation.foreign_key])
        .correlate(source)
        .scalar_subquery()
    )


def _condition(node: Node, resource: Resource, source: FromClause) -> Condition:
    match node:
        case And(items):
            return and_(true(), *(_condition(item, resource, source) for item in items))
        case Or(items):
            return or_(false(), *(_condition(item, resource, source) for item in items))
        case Not(item):
            return not_(func.coalesce(_condition(item, resource, source), false()))
        case Has(name, item):
            relation = resource.relations[name]
            target = relation.target.table.alias()
            joined = target.c[relation.target.primary_key] == source.c[relation.foreign_key]
            matching = select(target.c[relation.target.primary_key]).where(
                joined, _condition(item, relation.target, target)
            )
            return exists(matching.correlate(source))
        case Null(field, negated):
            value = value_of(field, resource, source)
            return value.is_not(None) if negated else value.is_(None)
        case Member(field, values, negated):
            return _membership(field, value_of(field, resource, source), values, negated)
        case CompareFields(left, operator, right):
            return _fields_compared(left, operator, right, resource, source)
        case Compare(field, operator, value):
            contained = contains(resource.table, source, node)
            if contained is not None:
                return contained
            return _compared(field, value_of(field, resource, source), operator, value)


def _apply(operator: Operator, left: ColumnElement[Any], right: ColumnElement[Any]) -> Condition:
    return left.bool_op(_SYMBOLS[operator])(right)


def _compared(field: Field, key: ColumnElement[Any], operator: Operator, value: Value) -> Condition:
    if isinstance(value, Json):
        same = _apply(operator, key, as_jsonb(value.text))
        return and_(func.jsonb_typeof(key) == value.type, same) if field.path else same
    if field.kind is Kind.JSON:  # a pattern, on the text of a string
        text = key.op("#>>", return_type=Text())(literal([], ARRAY(Text)))
        return and_(func.jsonb_typeof(key) == "string", _apply(operator, text, literal(value, Text)))
    if isinstance(value, Huge):
        return _apply(operator, key, literal(value.number, Numeric))
    return _apply(operator, key, literal(value, SQL_TYPES[field.kind]))


def _membership(field: Field, key: ColumnElement[Any], values: tuple[Value, ...], negated: bool) -> Condition:
    """An empty list: `in` matches nothing, `not_in` everything (SPEC 4), null included."""
    if not values:
        return true() if negated else false()
    if field.kind is Kind.JSON:
        texts = literal(derived(values, _texts), ARRAY(Text))
        candidates: ColumnElement[Any] = cast(texts, ARRAY(JSONB))
        # One of another type than all in the list is neither in it nor out of it (SPEC 5).
        types = literal(derived(values, _types), ARRAY(Text))
        comparable = func.jsonb_typeof(key) == any_(types)
    else:
        candidates = literal(derived(values, _storable), ARRAY(SQL_TYPES[field.kind]))
        comparable = key.is_not(None)
    return and_(comparable, key != all_(candidates)) if negated else key == any_(candidates)


def _texts(members: tuple[Json, ...]) -> list[str]:
    return [member.text for member in members]


def _types(members: tuple[Json, ...]) -> list[str]:
    return sorted({member.type for member in members})


def _storable(members: tuple[Value, ...]) -> list[Value]:
    return [member for member in members if not isinstance(member, Huge)]


def _fields_compared(
    left: Field, operator: Operator, right: Field, resource: Resource, source: FromClause
) -> Condition:
    """Two fields; where one is JSON both are compared as JSON, and match only where their types are the same."""
    keys = [value_of(field, resource, source) for field in (left, right)]
    if Kind.JSON not in (left.kind, right.kind):
        return _apply(operator, *keys)
    first, second = (
        key if field.kind is Kind.JSON else func.to_jsonb(key, type_=JSONB())
        for field, key in zip((left, right), keys, strict=True)
    )
    types = [func.jsonb_typeof(first) == func.jsonb_typeof(second), _apply(operator, first, second)]
    if operator not in (Operator.EQUAL, Operator.NOT_EQUAL):
        types.append(func.jsonb_typeof(first) == any_(literal(list(_ORDERED_JSON), ARRAY(Text))))
    return reduce(and_, types)
