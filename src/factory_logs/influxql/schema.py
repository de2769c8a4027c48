"""Describe logs as points of InfluxDB: measurements, fields and tags (docs/reference/influxql.md#data-model)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from factory_logs.influxql.ast import Type

Path = tuple[str, ...]
"""The keys below `fields` or `tags` that lead to a value."""
COLUMN_TAGS = ("product_imei", "repair_id")
"""The tags that are columns of a log."""
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
