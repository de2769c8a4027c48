"""Places inside JSON columns as SQL, and the comparison with one that an index can serve."""

import json
from functools import cache, partial
from typing import Any

from sqlalchemy import ARRAY, ColumnElement, FromClause, Table, Text, cast, func, literal
from sqlalchemy.dialects.postgresql import JSONB

from factory_logs.db.slots import derived
from factory_logs.query.ast import Compare, Json
from factory_logs.query.operators import Operator

SCALARS = frozenset({"string", "number", "boolean"})


def json_at(column: ColumnElement[Any], path: tuple[str, ...]) -> ColumnElement[Any]:
    """The JSON at the path, null where it is missing or JSON null. A numeric part also indexes an array."""
    value = column.op("#>", return_type=JSONB())(literal(list(path), ARRAY(Text))) if path else column
    return func.nullif(value, as_jsonb("null"), type_=JSONB())


def as_jsonb(text: str) -> ColumnElement[Any]:
    """JSON from text: a dialect's own serializer would not keep large integers."""
    return cast(literal(text, Text), JSONB)


def contains(table: Table, source: FromClause, node: Compare) -> ColumnElement[bool] | None:
    """The comparison as a containment, for a column with a GIN index on that; None where it is not the same.

    A scalar at a path of keys is the same thing as a document that contains it: `tags @> '{"jig_id": "J-07"}'`. Not so
    an array or object, which contains smaller ones, nor a part that may index an array.
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
    """Whether PostgreSQL might read the part as a number. Python reads more than that as one."""
    try:
        int(part)
    except ValueError:
        return False
    return True
