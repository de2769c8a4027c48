"""Numbers for plots: how many rows, and what they measured, per time bucket and group (SPEC 5)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Float,
    Interval,
    Numeric,
    Select,
    Text,
    case,
    cast,
    func,
    literal,
    literal_column,
    null,
    select,
)

from factory_logs.db.models import TIME
from factory_logs.errors import BadRequestError, FieldError
from factory_logs.query.ast import Field, Kind, Query
from factory_logs.query.compiler import compile_filters, value_of
from factory_logs.query.fields import Resource, resolve

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
DURATION = "([1-9][0-9]{0,5}[smh]|[1-9][0-9]{0,3}d|[1-9][0-9]{0,2}w)"
MEASURES = ("count", "min", "avg", "max", "p50", "p95")
_FIRST: ColumnElement[datetime] = literal_column("timestamp '0001-01-01'", TIME)
"""A Monday. Not a parameter: asyncpg takes datetime.min and datetime.max for -infinity and infinity."""
_LAST: ColumnElement[datetime] = literal_column(f"timestamp '{datetime.max}'", TIME)


@dataclass(frozen=True, slots=True)
class Stats:
    """What is asked for: the rows that `query.filters` select, by time bucket (None for all time in one) and by the
    fields `by`; of each group the count, and the measures of each of `fields`. Both are mapped by their names."""

    query: Query
    bucket: timedelta | None
    by: Mapping[str, Field]
    fields: Mapping[str, Field]


def parse_stats(
    query: Query, bucket: str | None, by: Sequence[str], fields: Sequence[str], resource: Resource, max_fields: int
) -> Stats:
    """Raises BadRequestError that names each parameter at fault."""
    faults: list[FieldError] = []
    if query != Query(filters=query.filters):
        faults.append(FieldError("q", "stats take filters only; leave out the rest"))
    if len(by) + len(fields) > max_fields:
        faults.append(FieldError("field", f"at most {max_fields} of by and field together"))
        by, fields = (), ()
    length = None
    if bucket is not None:
        if re.fullmatch(DURATION, bucket):
            length = timedelta(**{UNITS[bucket[-1]]: int(bucket[:-1])})
        else:
            faults.append(FieldError("bucket", "expected a duration such as 30s, 15m, 1h, 1d, 2w, at most 9999d"))
    groups = _resolved("by", by, resource, faults)
    measured = _resolved("field", fields, resource, faults)
    for name, field in measured.items():
        if not (field.kind in (Kind.INT, Kind.FLOAT) or field.path):
            faults.append(FieldError("field", f"{name} is {field.kind.value}; name a number or a JSON path"))
    if faults:
        raise BadRequestError("Validation failed", faults)
    return Stats(query, length, groups, measured)


def _resolved(parameter: str, names: Sequence[str], resource: Resource, faults: list[FieldError]) -> dict[str, Field]:
    fields = {}
    for name in names:
        try:
            fields[name] = resolve(name, resource)
        except ValueError as error:
            faults.append(FieldError(parameter, str(error)))
    return fields


def compile_stats(stats: Stats, resource: Resource, time: str) -> Select[Any]:
    """A row for each bucket and group, in their order: the bucket where there is one, the values of `by`, the count,
    and MEASURES of each field, as text. `time` is the column that the buckets are of.

    Numbers are PostgreSQL's numeric: integers stay exact, and no sum overflows as that of doubles does. Percentiles
    are of the nearest rank, a value that was measured.
    """
    table = resource.table
    keys = [value_of(field, resource, table).label(f"by_{place}") for place, field in enumerate(stats.by.values())]
    if stats.bucket is not None:
        moment = func.least(func.greatest(table.c[time], _FIRST), _LAST)
        start = func.date_bin(literal(stats.bucket, Interval), moment, _FIRST, type_=TIME)
        keys.insert(0, start.label("bucket"))
    numbers = [
        _number(value_of(field, resource, table), field).label(f"field_{place}")
        for place, field in enumerate(stats.fields.values())
    ]
    rows = select(*keys, *numbers).select_from(table).where(*compile_filters(stats.query, resource)).subquery()
    groups = [rows.c[key.name] for key in keys]
    measures = [measure for number in numbers for measure in _measures(rows.c[number.name])]
    order = [group.asc().nulls_last() for group in groups]
    return select(*groups, func.count(), *measures).select_from(rows).group_by(*groups).order_by(*order)


def _number(value: ColumnElement[Any], field: Field) -> ColumnElement[Any]:
    """The value as a number; null where it is none."""
    if field.kind is Kind.JSON:
        return case((func.jsonb_typeof(value) == "number", cast(value, Numeric)), else_=null())
    # By way of text, as PostgreSQL keeps but 15 digits of a float otherwise.
    return cast(cast(value, Text), Numeric)


def _measures(number: ColumnElement[Any]) -> list[ColumnElement[Any]]:
    def percentile(share: float) -> ColumnElement[Any]:
        return func.percentile_disc(literal(share, Float)).within_group(number)

    average = cast(func.avg(number), Float(53))
    measures = [func.count(number), func.min(number), average, func.max(number), percentile(0.5), percentile(0.95)]
    return [cast(measure, Text) for measure in measures]
