"""Build SQL that reads the points of one measurement and aggregates them by tags and time.

A log counts as a point of a statement if it contains one of the fields that the statement reads.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Float,
    FromClause,
    Integer,
    Interval,
    Numeric,
    Select,
    Subquery,
    Text,
    UnaryExpression,
    cast,
    func,
    literal,
    literal_column,
    or_,
    select,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by, array, distinct_on
from sqlalchemy.types import TypeEngine

from factory_logs.db.models import TIME
from factory_logs.influxql.ast import Expression, Reference, Type, nodes
from factory_logs.influxql.conditions import compile_condition
from factory_logs.influxql.constants import EARLIEST, LATEST
from factory_logs.influxql.schema import LOGS, MeasurementSchema, tag_text, typed_value

LARGEST = 2**63 - 1
EPOCH = datetime(1970, 1, 1)
MICROSECOND = 1_000
BIGINT = BigInteger()


def to_datetime(nanoseconds: int, *, up: bool = False) -> datetime:
    """Return a time as PostgreSQL stores it, truncated or rounded up to the microsecond."""
    microseconds = -(-nanoseconds // MICROSECOND) if up else nanoseconds // MICROSECOND
    return EPOCH + timedelta(microseconds=microseconds)


def to_nanoseconds(moment: datetime) -> int:
    """Return a time from PostgreSQL in nanoseconds since 1970."""
    return (moment - EPOCH) // timedelta(microseconds=1) * MICROSECOND


@dataclass(frozen=True, slots=True)
class Source:
    """The logs of a measurement that a statement reads: from `first` to `last`, in nanoseconds, both included.

    `dimensions` contains the tags whose values distinguish series, in the order of their names.
    """

    name: str
    measurement: MeasurementSchema
    condition: Expression | None
    first: int
    last: int
    dimensions: tuple[str, ...]
    descending: bool = False

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the conditions of the source except the bounds of time. Raises InfluxqlError."""
        found: list[ColumnElement[bool]] = [LOGS.c.app_name == literal(self.name, Text)]
        if self.condition is not None:
            found.append(compile_condition(self.condition, self.measurement))
        return found

    def times(self) -> list[ColumnElement[bool]]:
        """Return the bounds of time."""
        first, last = to_datetime(self.first, up=True), to_datetime(self.last)
        return [LOGS.c.timestamp >= literal(first, TIME), LOGS.c.timestamp <= literal(last, TIME)]

    def open_ends(self) -> list[ColumnElement[bool]]:
        """Return the bounds of time that exist only because InfluxDB's range of times is limited."""
        first, last = self.times()
        return [first] * (self.first <= EARLIEST) + [last] * (self.last >= LATEST)

    def locations(self, names: Iterable[str]) -> list[tuple[Any, ...]]:
        """Return the paths and types of these names and of the names in the condition.

        Known results of a statement are valid as long as these paths and types do not change.
        """
        asked = set(names)
        if self.condition is not None:
            asked |= {node.name for node in nodes(self.condition) if isinstance(node, Reference)}
        tags, fields = self.measurement.tags, self.measurement.fields
        return [
            (name, tags.get(name), sorted(fields[name].paths), sorted(kind.value for kind in fields[name].types))
            if name in fields
            else (name, tags.get(name))
            for name in sorted(asked)
        ]

    def keys(self) -> list[ColumnElement[Any]]:
        """Return the values of the dimensions; a missing tag is empty text."""
        return [
            func.coalesce(tag_text(self.measurement, name), "", type_=Text()).label(f"key_{index}")
            for index, name in enumerate(self.dimensions)
        ]


def point_rows(
    source: Source,
    references: Sequence[Reference],
    needed: Sequence[Reference],
    most: int,
    limit: int = LARGEST,
    offset: int = 0,
) -> Select[Any]:
    """Return a statement for points, ordered by series and time: the keys of the series, the time, and the values.

    A log counts if it contains one of the values `needed`. From each series, `limit` points are read after the first
    `offset`, and at most `most` points in all. Raises InfluxqlError.
    """
    points = _points(source, references, needed)
    by = _by(source, points)
    order = _order(source, points)
    statement = select(*by, points.c.time, *(points.c[f"value_{n}"] for n in range(len(references))))
    if not by:
        return statement.order_by(*order).offset(_bigint(offset)).limit(_bigint(min(limit, most)))
    if limit == LARGEST and not offset:
        return statement.order_by(*order).limit(_bigint(most))
    position = func.row_number().over(partition_by=by, order_by=order[len(by) :])
    numbered = statement.add_columns(points.c.number, position.label("position")).subquery()
    included = numbered.c.position.between(_bigint(offset + 1), _bigint(min(offset + limit, LARGEST)))
    columns = [numbered.c[column.name] for column in statement.selected_columns]
    return select(*columns).where(included).order_by(*_order(source, numbered)).limit(_bigint(most))


def _bigint(number: int) -> ColumnElement[int]:
    return literal(number, BigInteger)


def _points(
    source: Source,
    references: Sequence[Reference],
    needed: Sequence[Reference],
    bins: "TimeBins | None" = None,
    conditions: Sequence[ColumnElement[bool]] | None = None,
) -> Subquery:
    """Return the points in the time span of the source as a subquery. If `conditions` are given, they replace the time
    span.

    Without the subquery, PostgreSQL would treat a parameter in SELECT and in ORDER BY as two different expressions.
    OFFSET makes PostgreSQL compute each value once, however often the outer statement uses it.
    """
    values = [typed_value(source.measurement, each).label(f"value_{n}") for n, each in enumerate(references)]
    start = [bins.start().label("bin")] if bins is not None and bins.length else []
    columns = (LOGS.c.timestamp.label("time"), LOGS.c.factory_log_id.label("number"))
    span = source.times() if conditions is None else conditions
    return (
        select(*source.keys(), *start, *columns, *values)
        .where(*source.conditions(), *span, *_has_any(source, needed))
        .offset(_bigint(0))
        .subquery()
    )


def _by(source: Source, points: FromClause) -> list[ColumnElement[Any]]:
    return [points.c[f"key_{index}"] for index in range(len(source.dimensions))]


def _order(source: Source, points: FromClause) -> list[UnaryExpression[Any]]:
    order = [*(key.collate("C") for key in _by(source, points)), points.c.time, points.c.number]
    return [each.desc() if source.descending else each.asc() for each in order]


def _has_any(source: Source, needed: Sequence[Reference]) -> list[ColumnElement[bool]]:
    present = [typed_value(source.measurement, each).is_not(None) for each in dict.fromkeys(needed)]
    return [or_(*present)] if present else []


def series_rows(source: Source, most: int) -> Select[Any]:
    """Return a statement for at most `most` series that exist in the time span: the values of their keys."""
    series = select(*source.keys(), LOGS.c.factory_log_id).where(*source.conditions(), *source.times()).subquery()
    by: list[ColumnElement[Any]] = [key.collate("C").label(key.name) for key in _by(source, series)]
    return select(*by).distinct().order_by(*by).limit(_bigint(most))


def array_rows(source: Source, reference: Reference, most: int, most_series: int) -> Select[Any]:
    """Return a statement for whole series: the keys, the times in microseconds, and the values of one field.

    The statement reads at most `most` points and returns at most `most_series` series. Raises InfluxqlError.
    """
    points = _points(source, [reference], [reference])
    limited = select(points).limit(_bigint(most)).subquery()
    by = _by(source, limited)
    order = _order(source, limited)[len(by) :]
    value = limited.c.value_0
    times = func.array_agg(aggregate_order_by(_microseconds(limited.c.time), *order), type_=ARRAY(BigInteger))
    values = func.array_agg(aggregate_order_by(value, *order), type_=ARRAY(value.type))
    return select(*by, times, values).group_by(*by).limit(_bigint(most_series))


def _microseconds(time: ColumnElement[Any], kind: TypeEngine[Any] = BIGINT) -> ColumnElement[Any]:
    return cast(func.extract("epoch", time) * literal_column("1000000"), kind)


@dataclass(frozen=True, slots=True)
class TimeBins:
    """Bins of time: `length` is their length in nanoseconds, and one of them begins at `origin`. Length 0 means a
    single bin."""

    length: int = 0
    origin: int = 0

    def start(self) -> ColumnElement[datetime]:
        """Return the beginning of the bin that contains a log, as SQL."""
        length = literal(timedelta(microseconds=self.length // MICROSECOND), Interval)
        return func.date_bin(length, LOGS.c.timestamp, literal(to_datetime(self.origin), TIME), type_=TIME)


Aggregate = tuple[str, Reference]
"""The name of an aggregate (count, sum, min, max, first, last, `min at` or `max at`), and the reference to
aggregate."""


def aggregate_rows(
    source: Source,
    bins: TimeBins,
    wanted: Sequence[Aggregate],
    conditions: Sequence[ColumnElement[bool]],
) -> Select[Any]:
    """Return a statement with a row for each series and bin. A row contains the keys, the bin's beginning in
    microseconds, and each aggregate.

    `first` and `last` are arrays of a time in microseconds and a value; `first` contains the negated value. `min at`
    and `max at` are arrays of a value and a time; `max at` contains the negated time. Only logs that meet `conditions`
    count; they replace the time span of the source. Raises InfluxqlError.
    """
    references = list(dict.fromkeys(reference for _, reference in wanted))
    points = _points(source, references, (), bins, conditions)
    by = _by(source, points)
    keys = list(by)
    if bins.length:
        by.append(points.c.bin)
        keys.append(_microseconds(points.c.bin))
    values = {each: points.c[f"value_{n}"] for n, each in enumerate(references)}
    aggregates = [_aggregate(name, each, values[each], points.c.time) for name, each in wanted]
    return select(*keys, *aggregates).group_by(*by)


def edge_rows(source: Source, wanted: Aggregate, conditions: Sequence[ColumnElement[bool]], most: int) -> Select[Any]:
    """Return a statement for the oldest `most` logs for `first`, or the newest for `last`, with a row for each series.
    A row contains the keys, the aggregate as in `aggregate_rows`, the number of the series' logs among these, and the
    time in microseconds of the one that is farthest from that edge."""
    name, reference = wanted
    is_last = name == "last"
    time = LOGS.c.timestamp
    value = typed_value(source.measurement, reference).label("value_0")
    logs = (
        select(*source.keys(), time.label("time"), value)
        .where(*source.conditions(), *conditions)
        .order_by(time.desc() if is_last else time)
        .limit(_bigint(most))
        .subquery()
    )
    by = _by(source, logs)
    found = _aggregate(name, reference, logs.c.value_0, logs.c.time).label("found")
    farthest = (func.min if is_last else func.max)(_microseconds(logs.c.time)).label("farthest")
    return select(*by, found, func.count().label("logs"), farthest).group_by(*by)


def _aggregate(
    name: str, reference: Reference, value: ColumnElement[Any], time: ColumnElement[Any]
) -> ColumnElement[Any]:
    if name == "count":
        return func.count(value)
    if reference.type is Type.BOOLEAN:
        value = cast(value, Integer)
    match name:
        case "sum":
            return func.sum(value)
        case "min":
            return func.min(value)
        case "max":
            return func.max(value)
    return _at_edge(name, reference, value, time)


def _at_edge(
    name: str, reference: Reference, value: ColumnElement[Any], time: ColumnElement[Any]
) -> ColumnElement[Any]:
    """Return an array of a time and a value. PostgreSQL compares arrays item by item, so the second item breaks ties:
    of several values at one time, the greatest is chosen, and of several times of one value, the earliest."""
    kind = Numeric() if reference.type is Type.INTEGER else Float(53)
    moment = _microseconds(time, kind)
    number = cast(value, kind)
    first, second = {
        "first": (moment, -number),
        "last": (moment, number),
        "min at": (number, moment),
        "max at": (number, -moment),
    }[name]
    least = func.min if name in ("first", "min at") else func.max
    return least(array((first, second)), type_=ARRAY(kind)).filter(value.is_not(None))


def chosen_rows(
    source: Source, bins: TimeBins, chosen: Aggregate, others: Sequence[Reference], most: int
) -> Select[Any]:
    """Return a statement for the point that a selector chooses in each series and bin.

    Its columns are the keys, the time, the value, and the values of `others`. Raises InfluxqlError.
    """
    name, reference = chosen
    points = _points(source, [reference, *others], [reference], bins)
    by: list[ColumnElement[Any]] = [key.collate("C") for key in _by(source, points)]
    if bins.length:
        by.append(points.c.bin)
    value, time = points.c.value_0, points.c.time
    ranked = value.collate("C") if reference.type is Type.STRING else value
    order = {
        "first": [time.asc(), ranked.desc()],
        "last": [time.desc(), ranked.desc()],
        "min": [ranked.asc(), time.asc()],
        "max": [ranked.desc(), time.asc()],
    }[name]
    other_values = [points.c[f"value_{n}"] for n in range(1, len(others) + 1)]
    statement = select(*_by(source, points), time, value, *other_values).order_by(*by, *order, points.c.number.asc())
    return statement.ext(distinct_on(*by)).limit(_bigint(most)) if by else statement.limit(_bigint(1))
