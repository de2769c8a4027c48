"""Describe logs as points of InfluxDB: measurements, fields and tags (docs/reference/influxql.md#data-model).

The functions build the SQL for the values of fields and tags in a log. Names are bound values, never SQL text.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ARRAY, BigInteger, Boolean, ColumnElement, Float, Text, case, cast, func, literal, null
from sqlalchemy.dialects.postgresql import JSONB

from factory_logs.db.models import FactoryLog
from factory_logs.influxql.ast import Reference, Type

Path = tuple[str, ...]
"""The keys below `fields` or `tags` that lead to a value."""
COLUMN_TAGS = ("product_imei", "repair_id")
"""The tags that are columns of a log."""
LOGS = FactoryLog.__table__
JSON_TYPES = {
    Type.FLOAT: "number",
    Type.INTEGER: "number",
    Type.UNSIGNED: "number",
    Type.STRING: "string",
    Type.BOOLEAN: "boolean",
}
_TYPES = {"integer": Type.INTEGER, "float": Type.FLOAT, "string": Type.STRING, "boolean": Type.BOOLEAN}


@dataclass(slots=True)
class FieldKey:
    """A field of one measurement: the types of its values, and their paths.

    If a key contains a dot, two paths can have the same name.
    """

    types: set[Type] = field(default_factory=set)
    paths: list[Path] = field(default_factory=list)

    @property
    def type(self) -> Type:
        """The type to which all values are converted. Values that cannot be converted count as missing."""
        return min(self.types, key=lambda each: each.preference)


@dataclass(slots=True)
class MeasurementSchema:
    """The fields and tags of one measurement, by name. A tag that is stored in a column of its own has no path."""

    fields: dict[str, FieldKey] = field(default_factory=dict)
    tags: dict[str, list[Path]] = field(default_factory=dict)


Schema = Mapping[str, MeasurementSchema]
"""The measurements by name."""


def as_schema(
    apps: Iterable[tuple[str, Sequence[str]]], paths: Iterable[tuple[str, Sequence[str], str]]
) -> dict[str, MeasurementSchema]:
    """Return the schema of apps, from the columns that each app uses as tags, and from its paths with their types."""
    schema = {name: MeasurementSchema(tags={column: [] for column in columns}) for name, columns in sorted(apps)}
    for app, (column, *keys), kind in sorted(paths, key=lambda path: (path[0], list(path[1]), path[2])):
        name = ".".join(keys)
        measurement = schema.setdefault(app, MeasurementSchema())
        if not keys or kind not in _TYPES:
            continue
        if column == "fields":
            key = measurement.fields.setdefault(name, FieldKey())
            key.types.add(_TYPES[kind])
            if tuple(keys) not in key.paths:
                key.paths.append(tuple(keys))
        elif _TYPES[kind] is Type.STRING and name not in COLUMN_TAGS:
            measurement.tags.setdefault(name, []).append(tuple(keys))
    return schema


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
