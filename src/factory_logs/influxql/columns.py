"""Build the SQL for the values of fields and tags in a log. Names are bound values, never SQL text."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Boolean, ColumnElement, Float, Text, case, cast, func, literal, null
from sqlalchemy.dialects.postgresql import JSONB

from factory_logs.db.models import FactoryLog
from factory_logs.influxql.ast import Reference, Type
from factory_logs.influxql.schema import COLUMN_TAGS, MeasurementSchema, Path

LOGS = FactoryLog.__table__
JSON_TYPES = {
    Type.FLOAT: "number",
    Type.INTEGER: "number",
    Type.UNSIGNED: "number",
    Type.STRING: "string",
    Type.BOOLEAN: "boolean",
}


def json_at(column: ColumnElement[Any], path: Path) -> ColumnElement[Any]:
    """Return the JSON value at a path.

    The operator `#>` is not used, because it would interpret a numeric key as the index of an array.
    """
    for key in path:
        column = column.op("->", return_type=JSONB())(literal(key, Text))
    return column


def field_json(measurement: MeasurementSchema, name: str) -> ColumnElement[Any] | None:
    """Return a field as JSON, or None if the measurement has no field with this name."""
    if name not in measurement.fields:
        return None
    return _first([json_at(LOGS.c.fields, path) for path in measurement.fields[name].paths])


def _first(values: Sequence[ColumnElement[Any]]) -> ColumnElement[Any]:
    return values[0] if len(values) == 1 else func.coalesce(*values, type_=values[0].type)


def string_text(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a JSON string as text, without quotes."""
    return value.op("#>>", return_type=Text())(literal([], ARRAY(Text)))


def tag_text(measurement: MeasurementSchema, name: str) -> ColumnElement[Any]:
    """Return a tag as text, or null if a log has no tag with this name."""
    if name == "product_imei" and name in measurement.tags:
        return LOGS.c.product_imei
    if name == "repair_id" and name in measurement.tags:
        return cast(LOGS.c.repair_id, Text)
    paths = measurement.tags.get(name)
    if not paths or name in COLUMN_TAGS:
        return cast(null(), Text)
    return _first([_string_at(path) for path in paths])


def _string_at(path: Path) -> ColumnElement[Any]:
    *parents, last = path
    parent = json_at(LOGS.c.tags, tuple(parents))
    text = parent.op("->>", return_type=Text())(literal(last, Text))
    return case((func.jsonb_typeof(json_at(parent, (last,))) == "string", text))


def typed_value(measurement: MeasurementSchema, reference: Reference) -> ColumnElement[Any]:
    """Return the value of a field or tag, with the type of the reference.

    The value is null if it is missing or has another type. If a field contains floats and is cast to integer, its
    values are truncated to whole numbers, but they are still floats.
    """
    if reference.type is Type.TAG:
        return tag_text(measurement, reference.name)
    value = field_json(measurement, reference.name)
    if value is None or reference.type not in JSON_TYPES:
        return cast(null(), Text)
    typed: ColumnElement[Any]
    match reference.type:
        case Type.STRING:
            typed = string_text(value)
        case Type.BOOLEAN:
            typed = cast(value, Boolean)
        case Type.INTEGER if Type.FLOAT not in measurement.fields[reference.name].types:
            typed = cast(value, BigInteger)
        case Type.INTEGER:
            typed = func.trunc(cast(value, Float(53)), type_=Float(53))
        case _:
            typed = cast(value, Float(53))
    return case((func.jsonb_typeof(value) == JSON_TYPES[reference.type], typed))
