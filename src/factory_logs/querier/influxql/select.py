"""Run a SELECT statement: compute a stream of points for each function, and combine the streams into rows.

Functions over many points run in a thread, so that the event loop can serve other requests.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from factory_logs.influxql.ast import Call, Expression, Fill, Reference, Type, nodes
from factory_logs.influxql.checking import SELECTORS, SIMPLE_SELECTORS, TRANSFORMATIONS
from factory_logs.influxql.constants import EARLIEST
from factory_logs.influxql.evaluation import Value, evaluate, wrapped
from factory_logs.influxql.filling import Filling, at_window_starts, cast_value, fill_value, filled
from factory_logs.influxql.math_functions import MATH_FUNCTIONS
from factory_logs.influxql.point_functions import check_type, transformed, window_function
from factory_logs.influxql.regexes import matches
from factory_logs.influxql.resolving import Resolved, call_type, top_arguments
from factory_logs.influxql.selection import Aggregate
from factory_logs.influxql.series import Others, PointSeries, Stream, split_windows
from factory_logs.querier.influxql.plans import Plan, subquery_plan
from factory_logs.querier.influxql.points import PointReader, as_number, can_bin
from factory_logs.querier.influxql.window_aggregates import Tags

T = TypeVar("T")
Row = tuple[int, list[Value]]
FEW_VALUES = 1_000
_NEEDED: dict[str, tuple[str, ...]] = {
    "count": ("count",),
    "sum": ("sum",),
    "mean": ("sum", "count"),
    "spread": ("min", "max"),
    "min": ("min",),
    "max": ("max",),
    "first": ("first",),
    "last": ("last",),
}
"""The aggregates that PostgreSQL must compute for each function that it supports."""
_AS_THEY_ARE = TRANSFORMATIONS | {"integral", "top", "bottom"}
"""Functions whose points keep their own times, so that no window is filled."""
_ORDERED = frozenset({Type.FLOAT, Type.INTEGER, Type.BOOLEAN})


@dataclass(slots=True)
class RowSeries:
    """The rows of one measurement that have the same tags."""

    name: str
    tags: tuple[str, ...]
    rows: list[Row] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Columns:
    """The expressions of a statement's columns, the calls in them, and the references outside calls."""

    expressions: tuple[Expression, ...]
    calls: tuple[Call, ...]
    references: tuple[Reference, ...]


def _columns(resolved: Resolved) -> _Columns:
    expressions: list[Expression] = []
    for each in resolved.fields:
        expressions += [each.expression, *top_arguments(each)]
    calls: dict[Call, None] = {}
    references: dict[Reference, None] = {}
    for expression in expressions:
        for node in _outermost(expression):
            if isinstance(node, Call):
                calls[node] = None
            elif isinstance(node, Reference):
                references[node] = None
    in_order = sorted(references, key=lambda each: (each.name, "" if each.type is None else each.type.value))
    return _Columns(tuple(expressions), tuple(calls), tuple(in_order))


def _outermost(expression: Expression) -> list[Expression]:
    """Return the references and calls that are not inside another call, except inside functions of single values."""
    found: list[Expression] = []
    inside: set[int] = set()
    for node in nodes(expression):
        if id(node) in inside or not isinstance(node, Call | Reference):
            continue
        if isinstance(node, Call) and node.name in MATH_FUNCTIONS:
            continue
        found.append(node)
        inside |= {id(each) for each in nodes(node)}
    return found


class Selecting:
    """Runs one SELECT statement with its subqueries."""

    def __init__(self, reader: PointReader, now: int) -> None:
        self._reader = reader
        self._now = now
        self._most = reader.limits.rows

    async def rows(self, plan: Plan) -> list[RowSeries]:
        """Return the rows of a plan, by series. Raises InfluxqlError."""
        columns = _columns(plan.resolved)
        calls = [call for call in columns.calls if _driver(call).type is not None]
        if not columns.calls:
            if all(each.type is None for each in columns.references):
                return []
            streams = [Stream(None, await self._raw_points(plan, columns.references))]
        else:
            is_selector = len(columns.calls) == 1 and columns.calls[0].name in SELECTORS
            known = await self._aggregated(plan, calls, columns.references)
            streams = []
            for call in calls:
                stream = known.get(call) or await self._call(plan, call, columns.references)
                enough = plan.offset + plan.limit if plan.limit else 0
                finished = await _computed(
                    _filled_points(plan, stream), self._finished, plan, call, stream, is_selector, enough
                )
                streams.append(_limited(finished, plan.limit, plan.offset))
        values = sum(map(_points_in, streams)) * len(columns.expressions)
        return await _computed(values, _as_rows, plan, columns, calls, streams)

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
                found += _included(points, is_included)
        stream = Stream(None, _in_order(plan, found))
        return _limited(stream, plan.limit, plan.offset).series if has_subquery else stream.series

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
            found += _included(points, is_included)
        return Stream(reference.type, _in_order(plan, found))

    async def _from_subquery(
        self, plan: Plan, resolved: Resolved, reference: Reference | None, others: Sequence[Reference]
    ) -> list[PointSeries]:
        """Return the rows of a subquery as points of the outer statement."""
        inner = subquery_plan(resolved, plan, self._now)
        columns = _SubqueryColumns(inner)
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
            _as_series(key, points, inner, is_sorted=resolved.is_raw or _is_transformed(resolved))
            for key, points in found.items()
            if points
        ]

    # Calls

    async def _call(self, plan: Plan, call: Call, others: Sequence[Reference]) -> Stream:
        """Return the points that a call computes, at their own times."""
        match call.arguments[0]:
            case Call() as inner if call.name in TRANSFORMATIONS:
                source_plan = plan if call.name == "cumulative_sum" else plan.earlier()
                known = await self._aggregated(source_plan, [inner], ())
                stream = known.get(inner) or await self._call(source_plan, inner, ())
                points = _filled_points(source_plan, stream)
                stream = await _computed(points, self._finished, source_plan, inner, stream, False)
                return await _computed(points, self._transformed, plan, call, stream)
            case Call() as inner:  # count(distinct(...))
                stream = await self._call(plan, inner, ())
                return await _computed(_points_in(stream), self._reduced, plan, call, _at_starts(plan, stream))
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
            left += _included([series for series in found if series.name == name], is_included)
        return left

    async def _aggregated(self, plan: Plan, calls: Sequence[Call], others: Sequence[Reference]) -> dict[Call, Stream]:
        """Return the streams of the calls that PostgreSQL can aggregate."""
        if not can_bin(plan.windows) or any(isinstance(source, Resolved) for source in plan.resolved.sources):
            return {}
        is_single = len(calls) == 1 and calls[0].name in SIMPLE_SELECTORS
        if is_single and (others or _driver(calls[0]).type not in _ORDERED):
            return await self._chosen(plan, calls[0], others)
        if is_single and not plan.windows.interval:
            return await self._at_times(plan, calls[0])
        able = [call for call in calls if _can_aggregate(call)]
        if not able or others:
            return {}
        wanted: dict[Aggregate, None] = {}
        for call in able:
            reference = _driver(call)
            check_type(call.name, reference.type)
            wanted |= {(name, reference): None for name in (*_NEEDED[call.name], "count")}
        return await self._from_aggregates(plan, able, list(wanted))

    async def _chosen(self, plan: Plan, call: Call, others: Sequence[Reference]) -> dict[Call, Stream]:
        reference = _driver(call)
        check_type(call.name, reference.type)
        if plan.windows.zone is not None and plan.windows.interval:
            return {}
        found: list[PointSeries] = []
        for source in plan.resolved.sources:
            if isinstance(source, str):
                read = self._reader.source(source, plan)
                is_included = await self._reader.series_filter(read, plan)
                found += _included(await self._reader.chosen(read, plan, (call.name, reference), others), is_included)
        return {call: Stream(reference.type, _in_order(plan, found))}

    async def _at_times(self, plan: Plan, call: Call) -> dict[Call, Stream]:
        """Return the points that a selector chooses, at their own times."""
        reference, found = _driver(call), list[PointSeries]()
        check_type(call.name, reference.type)
        name = f"{call.name} at" if call.name in ("min", "max") else call.name
        for source in plan.resolved.sources:
            if not isinstance(source, str):
                continue
            read = self._reader.source(source, plan)
            is_included = await self._reader.series_filter(read, plan)
            for tags, windows in (await self._reader.aggregates(read, plan, [(name, reference)])).items():
                (pair,) = windows[plan.windows.first]
                if pair is not None and is_included(tags):
                    first, second = pair
                    moment, number = (second, first) if name.endswith("at") else (first, second)
                    series = PointSeries(source, tags)
                    sign = -1 if call.name == "first" else 1
                    series.add(abs_microseconds(moment, name), as_number(sign * number, reference.type))
                    found.append(series)
        return {call: Stream(reference.type, _in_order(plan, found))}

    async def _from_aggregates(
        self, plan: Plan, calls: Sequence[Call], wanted: Sequence[Aggregate]
    ) -> dict[Call, Stream]:
        streams: dict[Call, list[PointSeries]] = {call: [] for call in calls}
        indexes = {each: index for index, each in enumerate(wanted)}
        for source in plan.resolved.sources:
            if not isinstance(source, str):
                continue
            read = self._reader.source(source, plan)
            is_included = await self._reader.series_filter(read, plan)
            for tags, windows in (await self._reader.aggregates(read, plan, wanted)).items():
                if not is_included(tags):
                    continue
                for call in calls:
                    series = PointSeries(source, tags)
                    for start in sorted(windows, reverse=plan.descending):
                        value = _finished_aggregate(call, windows[start], indexes)
                        if value is not None:
                            series.add(start, value)
                    if series.times:
                        streams[call].append(series)
        return {
            call: Stream(call_type(call.name, [_driver(call).type]), _in_order(plan, found))
            for call, found in streams.items()
        }

    def _finished(self, plan: Plan, call: Call, stream: Stream, is_selector: bool, enough: int = 0) -> Stream:
        """Return the stream with the beginnings of windows as times, and with empty windows filled."""
        if call.name in _AS_THEY_ARE:
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


def abs_microseconds(moment: Any, name: str) -> int:
    """Return the time of an aggregate in nanoseconds. In `max at`, PostgreSQL returns it negated."""
    return int(-moment if name == "max at" else moment) * 1000


def _is_transformed(resolved: Resolved) -> bool:
    """Return whether each row of a subquery is computed from consecutive points of one series."""
    return all(call.name in TRANSFORMATIONS for call in _columns(resolved).calls)


def _driver(call: Call) -> Reference:
    """Return the field that a call reads, through all nested calls."""
    argument = call.arguments[0]
    while isinstance(argument, Call):
        argument = argument.arguments[0]
    return argument if isinstance(argument, Reference) else Reference("")


def _can_aggregate(call: Call) -> bool:
    if call.name not in _NEEDED or not isinstance(call.arguments[0], Reference):
        return False
    kind = call.arguments[0].type
    return kind in _ORDERED or call.name == "count"


def _finished_aggregate(call: Call, values: Sequence[Any], indexes: dict[Aggregate, int]) -> Value:
    """Compute the result of a function from the aggregates of a window. Return None if the window contains no
    points."""
    reference = _driver(call)
    count = values[indexes["count", reference]]
    if not count:
        return None
    parts = [values[indexes[name, reference]] for name in _NEEDED[call.name]]
    kind = reference.type
    match call.name:
        case "count":
            return int(count)
        case "sum":
            total = as_number(parts[0], kind)
            return wrapped(total) if isinstance(total, int) else total
        case "mean":
            total = as_number(parts[0], kind)
            return float(total) / count if isinstance(total, int | float) else None
        case "spread":
            low, high = (as_number(part, kind) for part in parts)
            difference = high - low  # type: ignore[operator]
            return wrapped(difference) if isinstance(difference, int) else difference
        case "first":
            return as_number(-parts[0][1], kind)
        case "last":
            return as_number(parts[0][1], kind)
    return as_number(parts[0], kind)


def _at_starts(plan: Plan, stream: Stream) -> Stream:
    return Stream(stream.type, [at_window_starts(series, plan.windows) for series in stream.series])


def _limited(stream: Stream, limit: int, offset: int) -> Stream:
    """Return the stream with LIMIT and OFFSET applied to each series."""
    if not limit and not offset:
        return stream
    end = offset + limit if limit else None
    found = []
    for series in stream.series:
        short = PointSeries(
            series.name, series.tags, series.times[offset:end], series.values[offset:end], series.others[offset:end]
        )
        if short.times:
            found.append(short)
    return Stream(stream.type, found)


def _included(found: list[PointSeries], is_included: Callable[[Tags], bool]) -> list[PointSeries]:
    return [series for series in found if is_included(series.tags)]


def _in_order(plan: Plan, found: list[PointSeries]) -> list[PointSeries]:
    """Return the series by name and tags. Series with the same name and tags are merged in the order of time."""
    joined: dict[tuple[str, tuple[str, ...]], PointSeries] = {}
    for series in found:
        if series.key in joined:
            joined[series.key] = _joined(joined[series.key], series, descending=plan.descending)
        else:
            joined[series.key] = series
    return [joined[key] for key in sorted(joined, reverse=plan.descending)]


def _joined(first: PointSeries, second: PointSeries, *, descending: bool) -> PointSeries:
    times, values = first.times + second.times, first.values + second.values
    others = first.others + second.others
    order = sorted(range(len(times)), key=times.__getitem__, reverse=descending)
    return PointSeries(
        first.name,
        first.tags,
        [times[index] for index in order],
        [values[index] for index in order] if values else [],
        [others[index] for index in order] if others else [],
    )


def _regrouped(plan: Plan, inner: Plan, found: list[PointSeries]) -> list[PointSeries]:
    """Return the series grouped by fewer dimensions."""
    indexes = [inner.dimensions.index(name) for name in plan.dimensions]
    return _in_order(
        plan,
        [
            PointSeries(each.name, tuple(each.tags[index] for index in indexes), each.times, each.values, each.others)
            for each in found
        ],
    )


def _as_series(
    key: tuple[str, tuple[str, ...]], points: list[tuple[int, Value, Others]], inner: Plan, *, is_sorted: bool
) -> PointSeries:
    if is_sorted or inner.windows.interval:
        points.sort(key=lambda point: point[0], reverse=inner.descending)
    series = PointSeries(*key)
    for time, value, others in points:
        series.add(time, value, others)
    return series


class _SubqueryColumns:
    """Looks up names of the outer statement in the rows of a subquery."""

    def __init__(self, plan: Plan) -> None:
        resolved = plan.resolved
        self._column_indexes = {name: index for index, name in reversed(list(enumerate(resolved.columns)))}
        self._tags = {name: index for index, name in enumerate(plan.dimensions) if name in resolved.dimensions}
        self._all_tags = {name: index for index, name in enumerate(plan.dimensions)}

    def has(self, reference: Reference) -> bool:
        return reference.name in self._column_indexes or reference.name in self._tags

    def value(self, reference: Reference, series: RowSeries, row: Sequence[Value]) -> Value:
        if reference.name in self._column_indexes:
            return cast_value(row[self._column_indexes[reference.name]], reference.type)
        if reference.name in self._tags:
            return series.tags[self._tags[reference.name]]
        return None

    def meets(self, condition: Expression, series: RowSeries, row: Sequence[Value]) -> bool:
        """Return whether a row meets the condition of the outer statement."""
        values: dict[Expression, Value] = {}
        for node in nodes(condition):
            if isinstance(node, Reference):
                value = self.value(node, series, row)
                if value is None and node.name in self._all_tags and node.name not in self._column_indexes:
                    value = series.tags[self._all_tags[node.name]]
                if value is None and node.name not in self._column_indexes:
                    value = ""
                values[node] = value
        return evaluate(condition, values, divide_exactly=False, matches=matches) is True


def _as_rows(plan: Plan, columns: _Columns, calls: Sequence[Call], streams: Sequence[Stream]) -> list[RowSeries]:
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

    def __init__(self, plan: Plan, columns: _Columns, calls: Sequence[Call]) -> None:
        self._descending = plan.descending
        self._columns = columns
        self._calls = calls
        self._filling = plan.filling
        self._indexes = {reference: index for index, reference in enumerate(columns.references)}
        self._call_types = {call: call_type(call.name, [_driver(call).type]) for call in calls}
        self._absent: dict[Expression, Value] = {}
        for call in columns.calls:
            # A function of a missing field is filled only if the type of its result does not depend on the field's
            # type.
            kind = call_type(call.name, [None])
            if plan.filling.fill is Fill.NUMBER and call not in calls and kind is not None:
                self._absent[call] = fill_value(plan.filling, kind)

    def rows(self, streams: Sequence[PointSeries | None]) -> list[Row]:
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
            # In a series without a point, InfluxDB fills in the number of fill() itself even for strings.
            is_filled = isinstance(name, Call) and kind is not Type.STRING
            values[name] = fill_value(self._filling, kind) if is_filled else cast_value(self._filling.value, kind)
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
