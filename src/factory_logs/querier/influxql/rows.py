"""Combine streams of points into the rows of a SELECT statement: the points of all columns at one time form one row."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from factory_logs.influxql.ast import Call, Expression, Fill, Reference, Type
from factory_logs.influxql.evaluation import Value, evaluate
from factory_logs.influxql.filling import cast_value
from factory_logs.influxql.resolving import call_type
from factory_logs.influxql.series import PointSeries, Stream
from factory_logs.querier.influxql.columns import Columns, field_of
from factory_logs.querier.influxql.plans import Plan

Row = tuple[int, list[Value]]


@dataclass(slots=True)
class RowSeries:
    """The rows of one measurement that have the same tags."""

    name: str
    tags: tuple[str, ...]
    rows: list[Row] = field(default_factory=list)


def as_rows(plan: Plan, columns: Columns, calls: Sequence[Call], streams: Sequence[Stream]) -> list[RowSeries]:
    """Return the rows. The points of all streams at one time form one row."""
    merging = _Merging(plan, columns, calls)
    by_key: dict[tuple[str, tuple[str, ...]], list[PointSeries | None]] = {}
    for index, stream in enumerate(streams):
        for series in stream.series:
            by_key.setdefault(series.key, [None] * len(streams))[index] = series
    found = []
    for key in sorted(by_key, reverse=plan.descending):
        rows = RowSeries(*key)
        rows.rows = merging.rows(by_key[key])
        if rows.rows:
            found.append(rows)
    return found


class _Merging:
    """Builds the rows of one series from the points of its streams."""

    def __init__(self, plan: Plan, columns: Columns, calls: Sequence[Call]) -> None:
        self._descending = plan.descending
        self._columns = columns
        self._calls = calls
        self._filling = plan.filling
        self._indexes = {reference: index for index, reference in enumerate(columns.references)}
        self._call_types = {call: call_type(call.name, [field_of(call).type]) for call in calls}
        self._absent: dict[Expression, Value] = {}
        for call in columns.calls:
            # A function of a missing field is filled only if the type of its result does not depend on the field's
            # type.
            kind = call_type(call.name, [None])
            if plan.filling.fill is Fill.NUMBER and call not in calls and kind is not None:
                self._absent[call] = cast_value(plan.filling.value, kind)

    def rows(self, streams: Sequence[PointSeries | None]) -> list[Row]:
        """Return a row for each time at which a stream has a point. A column without a point at that time is filled."""
        present = [(index, series) for index, series in enumerate(streams) if series is not None]
        positions = [0] * len(streams)
        values = dict(self._absent)
        rows: list[Row] = []
        if len(streams) == 1 and self._is_plain():
            ((_, series),) = present
            return self._plain(series)
        while True:
            times = [
                series.times[positions[index]] for index, series in present if positions[index] < len(series.times)
            ]
            if not times:
                return rows
            time = max(times) if self._descending else min(times)
            for index, stream in enumerate(streams):
                here = positions[index]
                if stream is not None and here < len(stream.times) and stream.times[here] == time:
                    self._take(index, stream, here, values)
                    positions[index] += 1
                else:
                    self._default(index, values)
            rows.append((time, [_shown(evaluate(each, values)) for each in self._columns.expressions]))

    def _is_plain(self) -> bool:
        """Return whether each column is a value of the points, so that nothing has to be computed or filled."""
        return (
            not self._calls
            and self._filling.fill is Fill.NULL
            and all(isinstance(each, Reference) for each in self._columns.expressions)
        )

    def _plain(self, series: PointSeries) -> list[Row]:
        indexes = [self._indexes[each] for each in self._columns.expressions if isinstance(each, Reference)]
        return [
            (time, [others[index] for index in indexes])
            for time, others in zip(series.times, series.others, strict=True)
        ]

    def _take(self, index: int, series: PointSeries, here: int, values: dict[Expression, Value]) -> None:
        if self._calls:
            call = self._calls[index]
            value = series.values[here] if series.values else None
            self._set(call, value, self._call_types[call], values)
        if series.others:
            for reference, value in zip(self._columns.references, series.others[here], strict=True):
                self._set(reference, value, reference.type, values)

    def _set(self, name: Expression, value: Value, kind: Type | None, values: dict[Expression, Value]) -> None:
        if value is not None:
            values[name] = value
        elif self._filling.fill is Fill.NUMBER:
            # In a series without a point, InfluxDB fills in the number of fill() itself even for strings and booleans.
            values[name] = cast_value(self._filling.value, kind)
        elif self._filling.fill is not Fill.PREVIOUS:
            values[name] = None

    def _default(self, index: int, values: dict[Expression, Value]) -> None:
        call = self._calls[index]
        self._set(call, None, self._call_types[call], values)
        for reference in self._columns.references:
            self._set(reference, None, reference.type, values)


def _shown(value: Value) -> Value:
    """Return a value as rows show it: None for a number that is not finite."""
    if isinstance(value, float) and (value != value or value in (float("inf"), float("-inf"))):
        return None
    return value
