"""Run a SELECT statement: compute a stream of points for each function, and combine the streams into rows.

Functions over many points run in a thread, so that the event loop can serve other requests.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from factory_logs.influxql.ast import Call, Fill, Reference
from factory_logs.influxql.checking import SELECTORS, TRANSFORMATIONS
from factory_logs.influxql.constants import EARLIEST
from factory_logs.influxql.evaluation import Value
from factory_logs.influxql.filling import Filling, at_window_starts, filled
from factory_logs.influxql.point_functions import check_type, transformed, window_function
from factory_logs.influxql.resolving import Resolved, call_type
from factory_logs.influxql.series import Others, PointSeries, Stream, in_order, included, limited, split_windows
from factory_logs.querier.influxql.aggregated_calls import AggregatedCalls
from factory_logs.querier.influxql.columns import columns_of, field_of, is_transformed
from factory_logs.querier.influxql.plans import Plan, subquery_plan
from factory_logs.querier.influxql.points import PointReader
from factory_logs.querier.influxql.rows import RowSeries, as_rows
from factory_logs.querier.influxql.subquery_rows import SubqueryColumns, as_series

T = TypeVar("T")
FEW_VALUES = 1_000
_KEEPING_TIMES = TRANSFORMATIONS | {"integral", "top", "bottom"}
"""Functions whose points keep their own times, so that no window is filled."""


class Selecting:
    """Runs one SELECT statement with its subqueries."""

    def __init__(self, reader: PointReader, now: int) -> None:
        self._reader = reader
        self._aggregated_calls = AggregatedCalls(reader)
        self._now = now
        self._most = reader.limits.rows

    async def rows(self, plan: Plan) -> list[RowSeries]:
        """Return the rows of a plan, by series. Raises InfluxqlError."""
        columns = columns_of(plan.resolved)
        calls = [call for call in columns.calls if field_of(call).type is not None]
        if not columns.calls:
            if all(each.type is None for each in columns.references):
                return []
            streams = [Stream(None, await self._raw_points(plan, columns.references))]
        else:
            is_selector = len(columns.calls) == 1 and columns.calls[0].name in SELECTORS
            known = await self._aggregated_calls.streams(plan, calls, columns.references)
            streams = []
            for call in calls:
                stream = known.get(call) or await self._call(plan, call, columns.references)
                enough = plan.offset + plan.limit if plan.limit else 0
                finished = await _computed(
                    _filled_points(plan, stream), self._finished, plan, call, stream, is_selector, enough
                )
                streams.append(limited(finished, plan.limit, plan.offset))
        values = sum(map(_points_in, streams)) * len(columns.expressions)
        return await _computed(values, as_rows, plan, columns, calls, streams)

    async def _raw_points(self, plan: Plan, references: Sequence[Reference]) -> list[PointSeries]:
        """Return points with several values, for a statement without functions."""
        found: list[PointSeries] = []
        has_subquery = any(isinstance(source, Resolved) for source in plan.resolved.sources)
        limit, offset = (0, 0) if has_subquery else (plan.limit, plan.offset)
        for source in plan.resolved.sources:
            if isinstance(source, Resolved):
                found += await self._from_subquery(plan, source, None, references)
            else:
                read = self._reader.source(source, plan)
                is_included = await self._reader.series_filter(read, plan)
                points = await self._reader.points(read, references, references, limit=limit, offset=offset)
                found += included(points, is_included)
        stream = Stream(None, in_order(found, descending=plan.descending))
        return limited(stream, plan.limit, plan.offset).series if has_subquery else stream.series

    async def _points(self, plan: Plan, reference: Reference, others: Sequence[Reference]) -> Stream:
        """Return the points of one field, with the values of the other columns."""
        found: list[PointSeries] = []
        for source in plan.resolved.sources:
            if isinstance(source, Resolved):
                found += await self._from_subquery(plan, source, reference, others)
                continue
            read = self._reader.source(source, plan)
            is_included = await self._reader.series_filter(read, plan)
            if others:
                points = await self._reader.points(read, [reference, *others], [reference])
                for series in points:
                    series.values = [values[0] for values in series.others]
                    series.others = [values[1:] for values in series.others]
            else:
                points = await self._reader.arrays(read, reference)
            found += included(points, is_included)
        return Stream(reference.type, in_order(found, descending=plan.descending))

    async def _from_subquery(
        self, plan: Plan, resolved: Resolved, reference: Reference | None, others: Sequence[Reference]
    ) -> list[PointSeries]:
        """Return the rows of a subquery as points of the outer statement."""
        inner = subquery_plan(resolved, plan, self._now)
        columns = SubqueryColumns(inner)
        if reference is not None and not columns.has(reference):
            return []
        found: dict[tuple[str, tuple[str, ...]], list[tuple[int, Value, Others]]] = {}
        indexes = [inner.dimensions.index(name) for name in plan.dimensions]
        # Within a window, InfluxDB orders the series by their tags, even if time is descending.
        for series in sorted(await self.rows(inner), key=lambda each: (each.name, each.tags)):
            tags = tuple(series.tags[index] for index in indexes)
            points = found.setdefault((series.name, tags), [])
            for time, row in series.rows:
                if plan.resolved.condition is not None and not columns.meets(plan.resolved.condition, series, row):
                    continue
                value = None if reference is None else columns.value(reference, series, row)
                points.append((time, value, tuple(columns.value(each, series, row) for each in others)))
        return [
            as_series(key, points, inner, is_sorted=resolved.is_raw or is_transformed(resolved))
            for key, points in found.items()
            if points
        ]

    # Calls

    async def _call(self, plan: Plan, call: Call, others: Sequence[Reference]) -> Stream:
        """Return the points that a call computes, at their own times."""
        match call.arguments[0]:
            case Call() as inner if call.name in TRANSFORMATIONS:
                source_plan = plan if call.name == "cumulative_sum" else plan.earlier()
                known = await self._aggregated_calls.streams(source_plan, [inner], ())
                stream = known.get(inner) or await self._call(source_plan, inner, ())
                points = _filled_points(source_plan, stream)
                stream = await _computed(points, self._finished, source_plan, inner, stream, False)
                return await _computed(points, self._transformed, plan, call, stream)
            case Call() as inner:  # count(distinct(...))
                stream = await self._call(plan, inner, ())
                return await _computed(_points_in(stream), self._reduced, plan, call, stream)
            case Reference() as reference if call.name in TRANSFORMATIONS or call.name == "integral":
                is_rate = call.name in TRANSFORMATIONS and call.name != "cumulative_sum"
                source_plan = plan.earlier() if is_rate and plan.windows.interval else plan
                stream = await self._points(source_plan, reference, ())
                return await _computed(_points_in(stream), self._transformed, plan, call, stream)
            case Reference() as reference if call.name in ("top", "bottom") and len(call.arguments) > 2:
                return await self._top_by_tags(plan, call, reference, others)
            case Reference() as reference:
                stream = await self._points(plan, reference, others)
                return await _computed(_points_in(stream), self._reduced, plan, call, stream)
        return Stream(None, [])

    def _transformed(self, plan: Plan, call: Call, stream: Stream) -> Stream:
        check_type(call.name, stream.type)
        kind = call_type(call.name, [stream.type])
        found = [transformed(call, series, plan.windows, descending=plan.descending) for series in stream.series]
        return Stream(kind, [series for series in found if series.times])

    def _reduced(self, plan: Plan, call: Call, stream: Stream) -> Stream:
        check_type(call.name, stream.type)
        function, found = window_function(call), []
        for series in stream.series:
            result = series.like()
            for window in split_windows(series, plan.windows, descending=plan.descending):
                for time, value, others in function(window):
                    result.add(window.start if time is None else time, value, others)
            if result.times:
                found.append(result)
        return Stream(call_type(call.name, [stream.type]), found)

    async def _top_by_tags(self, plan: Plan, call: Call, reference: Reference, others: Sequence[Reference]) -> Stream:
        """Return top() or bottom() over the best point for each combination of the listed tags."""
        tags = [each.name for each in call.arguments[1:-1] if isinstance(each, Reference)]
        inner = plan.grouped_by(tuple({*plan.dimensions, *tags})).of_all_series()
        best = Call("max" if call.name == "top" else "min", (reference,))
        stream = await self._points(inner, reference, others)
        stream = await _computed(_points_in(stream), self._reduced, inner, best, stream)
        regrouped = _regrouped(plan, inner, stream.series)
        stream = Stream(stream.type, await self._left(plan, regrouped))
        return await _computed(_points_in(stream), self._reduced, plan, call, stream)

    async def _left(self, plan: Plan, found: list[PointSeries]) -> list[PointSeries]:
        """Return the series that SLIMIT and SOFFSET select. Subqueries have already limited their own series."""
        names = [source for source in plan.resolved.sources if isinstance(source, str)]
        left = [series for series in found if series.name not in names]
        for name in names:
            is_included = await self._reader.series_filter(self._reader.source(name, plan), plan)
            left += included([series for series in found if series.name == name], is_included)
        return left

    def _finished(self, plan: Plan, call: Call, stream: Stream, is_selector: bool, enough: int = 0) -> Stream:
        """Return the stream with the beginnings of windows as times, and with empty windows filled."""
        if call.name in _KEEPING_TIMES:
            return stream
        if is_selector and not plan.windows.interval:
            return stream
        stream = _at_starts(plan, stream)
        filling = plan.filling
        if call.name == "distinct" or not plan.windows.interval or filling.fill is Fill.NONE:
            return stream
        if call.name == "count" and filling.fill is Fill.NULL:
            filling = Filling(Fill.NUMBER, 0)
        series = [
            filled(each, plan.windows, filling, stream.type, descending=plan.descending, most=self._most, enough=enough)
            for each in stream.series
        ]
        return Stream(stream.type, series)


async def _computed(values: int, function: Callable[..., T], *arguments: object) -> T:
    """Return the result of a function over this many values. Run it in a thread if that is worth the switch."""
    if values <= FEW_VALUES:
        return function(*arguments)
    return await asyncio.to_thread(function, *arguments)


def _points_in(stream: Stream) -> int:
    return sum(len(series.times) for series in stream.series)


def _filled_points(plan: Plan, stream: Stream) -> int:
    """Return the maximum number of points in a stream after empty windows are filled."""
    windows = plan.windows
    if not windows.interval or plan.filling.fill is Fill.NONE:
        return _points_in(stream)
    first = min((series.times[0] for series in stream.series if series.times), default=0)
    span = windows.last - (first if windows.first == EARLIEST else windows.first)
    return _points_in(stream) + len(stream.series) * (abs(span) // windows.interval)


def _at_starts(plan: Plan, stream: Stream) -> Stream:
    return Stream(stream.type, [at_window_starts(series, plan.windows) for series in stream.series])


def _regrouped(plan: Plan, inner: Plan, found: list[PointSeries]) -> list[PointSeries]:
    """Return the series grouped by fewer dimensions."""
    indexes = [inner.dimensions.index(name) for name in plan.dimensions]
    regrouped = [
        PointSeries(each.name, tuple(each.tags[index] for index in indexes), each.times, each.values, each.others)
        for each in found
    ]
    return in_order(regrouped, descending=plan.descending)
