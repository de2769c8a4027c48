"""Read points and aggregates with one SQL statement for each measurement, within the limits of PointLimits."""

import math
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Row, Select

from factory_logs.influxql.ast import Reference, Type
from factory_logs.influxql.conditions import tag_condition
from factory_logs.influxql.errors import InfluxqlError
from factory_logs.influxql.evaluation import Value
from factory_logs.influxql.filling import cast_value
from factory_logs.influxql.schema import MeasurementSchema, Schema
from factory_logs.influxql.selection import (
    LARGEST,
    Aggregate,
    Source,
    TimeBins,
    array_rows,
    chosen_rows,
    point_rows,
    series_rows,
    to_nanoseconds,
)
from factory_logs.influxql.series import PointSeries
from factory_logs.influxql.windows import Windows
from factory_logs.querier.influxql.catalog import InfluxqlCatalog, are_in_tags, series_in
from factory_logs.querier.influxql.plans import Plan
from factory_logs.querier.influxql.window_aggregates import EDGES, AggregatedSeries, Tags, in_windows, window_sums
from factory_logs.querier.sum_rows import TooManyRowsError
from factory_logs.querier.sums import SumsOfSnapshot
from factory_logs.settings import Settings

QUARTER_HOUR = 15 * 60 * 1_000_000_000
"""Since 1972, the offsets of local times from UTC have been multiples of this."""
SINCE_1972 = 63_072_000_000_000_000


@dataclass(frozen=True, slots=True)
class PointLimits:
    """The maximum numbers of points, their values, rows and series of one statement."""

    points: int
    values: int
    rows: int
    series: int

    @classmethod
    def of(cls, settings: Settings) -> "PointLimits":
        return cls(
            settings.max_influxql_points,
            settings.max_influxql_values,
            settings.max_influxql_rows,
            settings.max_influxql_series,
        )


def _series_order(dimensions: Sequence[str], tags: Sequence[str]) -> bytes:
    """Return InfluxDB's sort key for SLIMIT: the names of the tags of a series, then their values."""
    present = [(name, value) for name, value in zip(dimensions, tags, strict=True) if value]
    return "|".join([*(name for name, _ in present), *(value for _, value in present)]).encode()


class PointReader:
    """Reads the points of one statement in one snapshot."""

    def __init__(self, snapshot: SumsOfSnapshot, catalog: InfluxqlCatalog, schema: Schema, limits: PointLimits) -> None:
        self._snapshot = snapshot
        self._catalog = catalog
        self._schema = schema
        self.limits = limits
        self._points = 0
        self._values = 0

    def source(self, name: str, plan: Plan) -> Source:
        """Return the source for a plan: the logs of a measurement that the plan reads."""
        condition = plan.resolved.condition
        windows = plan.windows
        return Source(
            name, self._schema[name], condition, windows.first, windows.last, plan.dimensions, plan.descending
        )

    async def series_filter(self, source: Source, plan: Plan) -> Callable[[Tags], bool]:
        """Return a function that returns whether SLIMIT and SOFFSET include the series with these tags."""
        if not plan.series_limit and not plan.series_offset:
            return lambda tags: True
        by = plan.limited_by
        series: list[Tags] = [()]
        if by:
            condition = tag_condition(source.condition, source.measurement)
            rows = series_rows(replace(source, condition=condition, dimensions=by), self.limits.series + 1)
            series = [tuple(row) for row in await self._rows(rows, self.limits.series)]
            series.sort(key=lambda tags: _series_order(by, tags))
        left = set(series[plan.series_offset : plan.series_offset + plan.series_limit])
        indexes = [plan.dimensions.index(name) for name in by]
        return lambda tags: tuple(tags[index] for index in indexes) in left

    async def arrays(self, source: Source, reference: Reference) -> list[PointSeries]:
        """Return the points of one field, by series. Raises InfluxqlError for more points than the limit."""
        if not has_field(source.measurement, reference):
            return []
        rows = await self._rows(
            array_rows(source, reference, self._left() + 1, self.limits.series + 1), self.limits.series
        )
        count = len(source.dimensions)
        found = []
        for row in rows:
            times, values = row[count], row[count + 1]
            if times is None:  # without GROUP BY, PostgreSQL returns a row of nulls if there are no logs
                continue
            self._count(len(times))
            series = PointSeries(source.name, tuple(row[:count]), [time * 1000 for time in times], values)
            _convert(series.values, reference, source.measurement)
            found.append(series)
        return found

    async def points(
        self,
        source: Source,
        references: Sequence[Reference],
        needed: Sequence[Reference],
        *,
        limit: int = 0,
        offset: int = 0,
    ) -> list[PointSeries]:
        """Return points with the values of several references. Raises InfluxqlError."""
        present = [each for each in needed if has_field(source.measurement, each)]
        if not present:
            return []
        columns = max(1, len(references))
        most = self._left(columns) + 1
        rows = await self._all(point_rows(source, references, present, most, limit or LARGEST, offset))
        self._count(len(rows), columns)
        return self._as_series(source, references, rows)

    def _as_series(
        self, source: Source, references: Sequence[Reference], rows: Iterable[Row[Any]]
    ) -> list[PointSeries]:
        count, found = len(source.dimensions), list[PointSeries]()
        converted = _converted(references, source.measurement)
        for row in rows:
            tags = tuple(row[:count])
            if not found or found[-1].tags != tags:
                found.append(PointSeries(source.name, tags))
            others = converted(row[count + 1 :])
            found[-1].add(to_nanoseconds(row[count]), None, others)
        return found

    async def chosen(
        self, source: Source, plan: Plan, chosen: Aggregate, others: Sequence[Reference]
    ) -> list[PointSeries]:
        """Return the points that a selector chooses in each window, with their other values."""
        _, reference = chosen
        if not has_field(source.measurement, reference):
            return []
        bins = _bins(plan.windows)
        columns = 1 + len(others)
        most = min(self.limits.rows, self._left(columns)) + 1
        rows = await self._rows(chosen_rows(source, bins, chosen, others, most), self.limits.rows)
        self._count(len(rows), columns)
        found = self._as_series(source, [reference, *others], rows)
        for series in found:
            if series.times != sorted(series.times, reverse=source.descending):
                order = sorted(range(len(series.times)), key=series.times.__getitem__, reverse=source.descending)
                series.times = [series.times[index] for index in order]
                series.others = [series.others[index] for index in order]
            series.values = [values[0] for values in series.others]
            series.others = [values[1:] for values in series.others] if others else []
        return found

    async def aggregates(self, source: Source, plan: Plan, wanted: Sequence[Aggregate]) -> AggregatedSeries:
        """Return the aggregates for each series and window, in the order of `wanted`."""
        present = [each for each in wanted if has_field(source.measurement, each[1])]
        if not present:
            return {}
        bins = _bins(plan.windows)
        series = await self._series_to_find(source, bins, wanted)
        try:
            table = await self._snapshot.table(window_sums(source, bins, wanted, present, series), self.limits.rows)
        except TooManyRowsError:
            raise self._too_many(self.limits.rows) from None
        return in_windows(table, plan.windows, bins, wanted, descending=plan.descending)

    async def _series_to_find(self, source: Source, bins: TimeBins, wanted: Sequence[Aggregate]) -> AbstractSet[Tags]:
        """Return the series to look for in the oldest or newest logs, or an empty set if all logs must be read."""
        (name, _), *others = wanted
        if (
            name not in EDGES
            or others
            or bins.length
            or source.condition is not None
            or not are_in_tags(source.dimensions)
        ):
            return frozenset()
        tag_sets = await self._catalog.tag_sets(self._snapshot)
        return series_in((tag_sets or {}).get(source.name, ()), source.measurement, source.dimensions)

    async def _rows(self, statement: Select[Any], most: int) -> Sequence[Row[Any]]:
        rows = await self._all(statement)
        if len(rows) > most:
            raise self._too_many(most)
        return rows

    def _too_many(self, most: int) -> InfluxqlError:
        return InfluxqlError(
            f"the statement has more than {most} series or rows: use fewer tags in GROUP BY, a longer time() or a "
            "shorter time range"
        )

    async def _all(self, statement: Select[Any]) -> Sequence[Row[Any]]:
        rows: Sequence[Row[Any]] = (await self._snapshot.connection.execute(statement)).all()
        return rows

    def _left(self, columns: int = 1) -> int:
        """Return how many more points with this number of columns the statement may read."""
        return min(self.limits.points - self._points, (self.limits.values - self._values) // columns)

    def _count(self, points: int, columns: int = 1) -> None:
        self._points += points
        self._values += points * columns
        if self._points > self.limits.points:
            raise InfluxqlError(
                f"max-select-point limit exceeded: the statement reads more than {self.limits.points} points: use a "
                "shorter time range, more conditions in WHERE, or LIMIT"
            )
        if self._values > self.limits.values:
            raise InfluxqlError(
                f"the statement reads more than {self.limits.values} values: select fewer columns, or use a shorter "
                "time range, more conditions in WHERE, or LIMIT"
            )


def has_field(measurement: MeasurementSchema, reference: Reference) -> bool:
    """Return whether the measurement contains this field.

    Tags do not count, because a log with tags but no fields is not a point.
    """
    return reference.type is not Type.TAG and reference.type is not None and reference.name in measurement.fields


def can_bin(windows: Windows) -> bool:
    """Return whether PostgreSQL can assign logs to the windows.

    Windows must be whole microseconds, and the offsets of the time zone must be multiples of 15 minutes.
    """
    if windows.interval % 1000 or windows.offset % 1000:
        return False
    return windows.zone is None or windows.first >= SINCE_1972


def _bins(windows: Windows) -> TimeBins:
    if not windows.interval:
        return TimeBins()
    if windows.zone is None:
        return TimeBins(windows.interval, windows.offset)
    return TimeBins(math.gcd(windows.interval, QUARTER_HOUR, abs(windows.offset)))


def _convert(values: list[Value], reference: Reference, measurement: MeasurementSchema) -> None:
    """Truncate the floats of a field that is cast to integer."""
    if _is_cast(reference, measurement):
        values[:] = [cast_value(value, Type.INTEGER) for value in values]


def _is_cast(reference: Reference, measurement: MeasurementSchema) -> bool:
    if reference.type is not Type.INTEGER or reference.name not in measurement.fields:
        return False
    return Type.FLOAT in measurement.fields[reference.name].types


def _converted(references: Sequence[Reference], measurement: MeasurementSchema) -> Any:
    casts = [index for index, each in enumerate(references) if _is_cast(each, measurement)]
    if not casts:
        return tuple

    def convert(values: Sequence[Value]) -> tuple[Value, ...]:
        changed = list(values)
        for index in casts:
            changed[index] = cast_value(changed[index], Type.INTEGER)
        return tuple(changed)

    return convert
