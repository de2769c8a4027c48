"""Compile a Query to SQLAlchemy Core (docs/reference/http-api.md#the-query-language-q).

No name becomes SQL text, and values are bound parameters. A query may have placeholders for its values
(query/rewriting.py), so only `derived` may use the content of a value.

The SQL cannot fail in PostgreSQL: JSON is compared as jsonb, which raises no error, and is never cast to another type.
A list is one array parameter, because a statement may have at most 32,767 parameters.
"""

import json
from functools import cache, partial, reduce
from typing import Any
from typing import cast as type_cast

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    ColumnElement,
    Float,
    FromClause,
    Integer,
    Numeric,
    Select,
    Table,
    Text,
    UnaryExpression,
    all_,
    and_,
    any_,
    case,
    cast,
    exists,
    false,
    func,
    literal,
    not_,
    null,
    or_,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import JSONB, distinct_on
from sqlalchemy.types import TypeEngine

from factory_logs.db.citus import in_shards, shard_key, shard_keys
from factory_logs.db.models import TIME
from factory_logs.db.prepared_statements import derived
from factory_logs.query.ast import (
    And,
    Compare,
    CompareFields,
    Field,
    Has,
    Json,
    Kind,
    Member,
    Node,
    Not,
    Null,
    Or,
    Order,
    OutOfRangeInteger,
    Query,
    Value,
)
from factory_logs.query.fields import FACTORY_LOGS, Resource
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
SCALARS = frozenset(_ORDERED_JSON)


def compile_rows(query: Query, resource: Resource, lowest: int | None = None) -> Select[Any]:
    """Return a statement that selects the rows in order, with the columns of the resource's table and no offset or
    limit.

    The caller ensures that no row with an id below `lowest` matches. If the rows are ordered by ascending id, the
    statement begins there. With `group_by`, `limit` or `offset` the columns belong to a subquery: use
    `.selected_columns`.
    """
    source: FromClause = resource.table
    rows = select(source).where(*compile_filters(query, resource))
    if lowest is not None and _by_ascending_id(query, resource):
        rows = rows.where(resource.table.c[resource.primary_key] >= literal(lowest, BigInteger))
    if query.group_by:
        source = _first_of_each_group(rows, query, resource)
        rows = select(*_columns(source, resource))
    if query.limit is not None or query.offset is not None:
        rows = rows.order_by(*order_by_columns(query, resource, source))
        source = rows.limit(_bigint(query.limit)).offset(_bigint(query.offset)).subquery()
        rows = select(*_columns(source, resource))
    return rows.order_by(*order_by_columns(query, resource, source))


def compile_count(query: Query, resource: Resource) -> Select[int]:
    """Return a statement that counts the rows of `compile_rows` without sorting them. A `limit` also limits the
    work."""
    table = resource.table
    matching: Select[Any] = select(table.c[resource.primary_key]).where(*compile_filters(query, resource))
    if query.group_by:
        keys = [field_value(field, resource, table).label(f"key_{n}") for n, field in enumerate(query.group_by)]
        matching = select(*keys).select_from(table).where(*compile_filters(query, resource)).distinct()
    elif query.limit is None and query.offset is None:
        return select(func.count()).select_from(table).where(*compile_filters(query, resource))
    return select(func.count()).select_from(
        matching.limit(_bigint(query.limit)).offset(_bigint(query.offset)).subquery()
    )


def compile_filters(query: Query, resource: Resource) -> list[Condition]:
    """Return the conditions of `filters` on the resource's table. All of them must be true.

    The statement that uses them must have the table in FROM.
    """
    return [_condition(node, resource, resource.table) for node in query.filters]


MOST_ROWS = 2**61
"""More rows than any table has. The sum of an offset and a limit of this size fits in a bigint."""


def _bigint(number: int | None) -> ColumnElement[int] | None:
    """Return the number, up to MOST_ROWS, as a bigint. A single type makes the statement reusable."""
    return None if number is None else literal(derived(number, _possible), BigInteger)


def _possible(number: int) -> int:
    return min(number, MOST_ROWS)


def _by_ascending_id(query: Query, resource: Resource) -> bool:
    return not query.order_by or query.order_by[0] == Order(Field(resource.primary_key, Kind.INT))


def _columns(source: FromClause, resource: Resource) -> list[ColumnElement[Any]]:
    return [source.c[column.name] for column in resource.table.columns]


def _first_of_each_group(rows: Select[Any], query: Query, resource: Resource) -> FromClause:
    """Return the first row of each group: the first by `order_by`, by default the newest
    (docs/reference/http-api.md#the-query-language-q).

    DISTINCT ON needs its keys as columns, because an expression with parameters cannot be repeated in ORDER BY. Unlike
    a window function, a Citus cluster runs DISTINCT ON on the shards first.
    """
    keys = [
        field_value(field, resource, resource.table).label(f"group_{number}")
        for number, field in enumerate(query.group_by)
    ]
    orders = [
        field_value(order.field, resource, resource.table).label(f"order_{number}")
        for number, order in enumerate(query.order_by)
    ]
    logs = rows.add_columns(*keys, *orders).subquery()
    first: list[UnaryExpression[Any]] = [
        logs.c[resource.newest].desc().nulls_last(),
        logs.c[resource.primary_key].desc(),
    ]
    if query.order_by:
        directed = [_directed(logs.c[f"order_{number}"], order) for number, order in enumerate(query.order_by)]
        first = [*directed, logs.c[resource.primary_key].asc()]
    groups = [logs.c[key.name] for key in keys]
    return select(*_columns(logs, resource)).ext(distinct_on(*groups)).order_by(*groups, *first).subquery()


def order_by_columns(query: Query, resource: Resource, source: FromClause) -> list[UnaryExpression[Any]]:
    """Return the columns of `order_by`, then the primary key. Nulls of columns sort as in PostgreSQL, nulls of JSON
    come last."""
    keys = [_directed(field_value(order.field, resource, source), order) for order in query.order_by]
    return [*keys, source.c[resource.primary_key].asc()]


def _directed(key: ColumnElement[Any], order: Order) -> UnaryExpression[Any]:
    directed = key.desc() if order.descending else key.asc()
    return directed.nulls_last() if order.field.kind is Kind.JSON else directed


def field_value(field: Field, resource: Resource, source: FromClause) -> ColumnElement[Any]:
    """Return the field's value in the row or in its related row. The value is null if there is no related row."""
    if field.relation is None:
        column: ColumnElement[Any] = source.c[field.column]
        return column if field.kind is not Kind.JSON else json_at(column, field.path)
    relation = resource.relations[field.relation]
    target = relation.target.table.alias()
    own = Field(field.column, field.kind, path=field.path)
    return (
        select(field_value(own, relation.target, target))
        .where(target.c[relation.target.primary_key] == source.c[relation.foreign_key])
        .correlate(source)
        .scalar_subquery()
    )


def field_number(
    field: Field, resource: Resource, source: FromClause, *, with_booleans: bool = False
) -> ColumnElement[Any]:
    """Return the field as PostgreSQL's numeric, or null if it is not a number. With `with_booleans`, false is 0 and
    true is 1."""
    value = field_value(field, resource, source)
    if field.kind is not Kind.JSON:
        # Cast to text first: a direct cast of a float to numeric has only 15 digits.
        return cast(cast(value, Text), Numeric)
    json_type = func.jsonb_typeof(value)
    cases = [(json_type == "number", cast(value, Numeric))]
    if with_booleans:
        cases.append((json_type == "boolean", cast(cast(cast(value, Boolean), Integer), Numeric)))
    return case(*cases, else_=null())


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
            value = field_value(field, resource, source)
            return value.is_not(None) if negated else value.is_(None)
        case Member(field, values, negated):
            found = _membership(field, field_value(field, resource, source), values, negated)
            if _is_log_id(field) and values and not negated:
                return in_shards(found, derived(values, _shard_keys))
            return found
        case CompareFields(left, operator, right):
            return _fields_compared(left, operator, right, resource, source)
        case Compare(field, operator, value):
            contained = contains(resource.table, source, node)
            if contained is not None:
                return contained
            found = _compared(field, field_value(field, resource, source), operator, value)
            if _is_log_id(field) and operator is Operator.EQUAL and not isinstance(value, OutOfRangeInteger):
                return in_shards(found, derived(value, _shard_key_alone))
            return found


def _is_log_id(field: Field) -> bool:
    return field.column == FACTORY_LOGS.primary_key and field.relation is None


def _shard_keys(members: tuple[Value, ...]) -> list[int]:
    return shard_keys(type_cast(list[int], _storable(members)))


def _shard_key_alone(factory_log_id: int) -> list[int]:
    return [shard_key(factory_log_id)]


def _apply(operator: Operator, left: ColumnElement[Any], right: ColumnElement[Any]) -> Condition:
    return left.bool_op(_SYMBOLS[operator])(right)


def _compared(field: Field, key: ColumnElement[Any], operator: Operator, value: Value) -> Condition:
    if isinstance(value, Json):
        same = _apply(operator, key, as_jsonb(value.text))
        return and_(func.jsonb_typeof(key) == value.type, same) if field.path else same
    if field.kind is Kind.JSON:  # a pattern is matched against the text of a string
        text = key.op("#>>", return_type=Text())(literal([], ARRAY(Text)))
        return and_(func.jsonb_typeof(key) == "string", _apply(operator, text, literal(value, Text)))
    if isinstance(value, OutOfRangeInteger):
        return _apply(operator, key, literal(value.number, Numeric))
    return _apply(operator, key, literal(value, SQL_TYPES[field.kind]))


def _membership(field: Field, key: ColumnElement[Any], values: tuple[Value, ...], negated: bool) -> Condition:
    """Return the condition of `in` or `not_in`. With an empty list, `in` matches no row, and `not_in` matches every
    row, including nulls."""
    if not values:
        return true() if negated else false()
    if field.kind is Kind.JSON:
        texts = literal(derived(values, _texts), ARRAY(Text))
        candidates: ColumnElement[Any] = cast(texts, ARRAY(JSONB))
        # A value whose type differs from all types in the list matches neither `in` nor `not_in`.
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
    return [member for member in members if not isinstance(member, OutOfRangeInteger)]


def _fields_compared(
    left: Field, operator: Operator, right: Field, resource: Resource, source: FromClause
) -> Condition:
    """Return the comparison of two fields. If one of them is JSON, both are compared as JSON and must have the same
    type."""
    keys = [field_value(field, resource, source) for field in (left, right)]
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


def json_at(column: ColumnElement[Any], path: tuple[str, ...]) -> ColumnElement[Any]:
    """Return the JSON at the path, or null if it is missing or JSON null. A numeric part of the path may also be an
    array index."""
    value = column.op("#>", return_type=JSONB())(literal(list(path), ARRAY(Text))) if path else column
    return func.nullif(value, as_jsonb("null"), type_=JSONB())


def as_jsonb(text: str) -> ColumnElement[Any]:
    """Return jsonb made from text, because the serializer of a SQLAlchemy dialect would change large integers."""
    return cast(literal(text, Text), JSONB)


def contains(table: Table, source: FromClause, node: Compare) -> ColumnElement[bool] | None:
    """Return the comparison as a containment, for which PostgreSQL can use a GIN index, or None if both are not
    equivalent.

    A scalar at a path of keys is equal if the document contains it: `tags @> '{"jig_id": "J-07"}'`. This is not true
    for arrays and objects, which contain smaller ones, and for a part that may be an array index.
    """
    field, value = node.field, node.value
    if node.operator is not Operator.EQUAL or not isinstance(value, Json) or value.type not in SCALARS:
        return None
    if field.relation is not None or not field.path or field.column not in _indexed(table):
        return None
    if any(_may_be_index(part) for part in field.path):
        return None
    document = derived(value.text, partial(_document, field.path))
    return source.c[field.column].op("@>", is_comparison=True)(as_jsonb(document))


def _document(path: tuple[str, ...], text: str) -> str:
    for part in reversed(path):
        text = f"{{{json.dumps(part, ensure_ascii=False)}: {text}}}"
    return text


@cache
def _indexed(table: Table) -> frozenset[str]:
    return frozenset(
        column.name
        for index in table.indexes
        if index.dialect_options["postgresql"]["using"] == "gin"
        for column in index.columns
    )


def _may_be_index(part: str) -> bool:
    """Return whether PostgreSQL may read the part as an array index. Python's check accepts everything that PostgreSQL
    accepts, and more."""
    try:
        int(part)
    except ValueError:
        return False
    return True
