"""Compute the calls of a SELECT statement that PostgreSQL can aggregate, so that their points need not be read."""

from collections.abc import Sequence
from typing import Any

from factory_logs.influxql.ast import Call, Reference, Type
from factory_logs.influxql.checking import SIMPLE_SELECTORS
from factory_logs.influxql.evaluation import Value, wrapped
from factory_logs.influxql.point_functions import check_type
from factory_logs.influxql.resolving import Resolved, call_type
from factory_logs.influxql.selection import Aggregate
from factory_logs.influxql.series import PointSeries, Stream, in_order, included
from factory_logs.querier.influxql.columns import field_of
from factory_logs.querier.influxql.plans import Plan
from factory_logs.querier.influxql.points import PointReader, can_bin

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
_ORDERED = frozenset({Type.FLOAT, Type.INTEGER, Type.BOOLEAN})


class AggregatedCalls:
    """Reads the results of the calls that PostgreSQL aggregates."""

    def __init__(self, reader: PointReader) -> None:
        self._reader = reader

    async def streams(self, plan: Plan, calls: Sequence[Call], others: Sequence[Reference]) -> dict[Call, Stream]:
        """Return the streams of the calls that PostgreSQL can aggregate."""
        if not can_bin(plan.windows) or any(isinstance(source, Resolved) for source in plan.resolved.sources):
            return {}
        is_single = len(calls) == 1 and calls[0].name in SIMPLE_SELECTORS
        if is_single and (others or field_of(calls[0]).type not in _ORDERED):
            return await self._chosen(plan, calls[0], others)
        if is_single and not plan.windows.interval:
            return await self._at_times(plan, calls[0])
        able = [call for call in calls if _can_aggregate(call)]
        if not able or others:
            return {}
        wanted: dict[Aggregate, None] = {}
        for call in able:
            reference = field_of(call)
            check_type(call.name, reference.type)
            wanted |= {(name, reference): None for name in (*_NEEDED[call.name], "count")}
        return await self._from_aggregates(plan, able, list(wanted))

    async def _chosen(self, plan: Plan, call: Call, others: Sequence[Reference]) -> dict[Call, Stream]:
        """Return the points that a selector chooses in each window, with their other values."""
        reference = field_of(call)
        check_type(call.name, reference.type)
        if plan.windows.zone is not None and plan.windows.interval:
            return {}
        found: list[PointSeries] = []
        for source in plan.resolved.sources:
            if isinstance(source, str):
                read = self._reader.source(source, plan)
                is_included = await self._reader.series_filter(read, plan)
                found += included(await self._reader.chosen(read, plan, (call.name, reference), others), is_included)
        return {call: Stream(reference.type, in_order(found, descending=plan.descending))}

    async def _at_times(self, plan: Plan, call: Call) -> dict[Call, Stream]:
        """Return the points that a selector chooses, at their own times."""
        reference, found = field_of(call), list[PointSeries]()
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
                    series.add(_nanoseconds(moment, name), _as_number(sign * number, reference.type))
                    found.append(series)
        return {call: Stream(reference.type, in_order(found, descending=plan.descending))}

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
            call: Stream(call_type(call.name, [field_of(call).type]), in_order(found, descending=plan.descending))
            for call, found in streams.items()
        }


def _can_aggregate(call: Call) -> bool:
    if call.name not in _NEEDED or not isinstance(call.arguments[0], Reference):
        return False
    kind = call.arguments[0].type
    return kind in _ORDERED or call.name == "count"


def _finished_aggregate(call: Call, values: Sequence[Any], indexes: dict[Aggregate, int]) -> Value:
    """Compute the result of a function from the aggregates of a window. Return None if the window contains no
    points."""
    reference = field_of(call)
    count = values[indexes["count", reference]]
    if not count:
        return None
    parts = [values[indexes[name, reference]] for name in _NEEDED[call.name]]
    kind = reference.type
    match call.name:
        case "count":
            return int(count)
        case "sum":
            total = _as_number(parts[0], kind)
            return wrapped(total) if isinstance(total, int) else total
        case "mean":
            total = _as_number(parts[0], kind)
            return float(total) / count if isinstance(total, int | float) else None
        case "spread":
            low, high = (_as_number(part, kind) for part in parts)
            difference = high - low  # type: ignore[operator]
            return wrapped(difference) if isinstance(difference, int) else difference
        case "first":
            return _as_number(-parts[0][1], kind)
        case "last":
            return _as_number(parts[0][1], kind)
    return _as_number(parts[0], kind)


def _as_number(value: Any, kind: Type | None) -> Value:
    """Return an aggregate from PostgreSQL as a value of this type."""
    if kind is Type.BOOLEAN:
        return bool(value)
    if kind is Type.INTEGER:
        return int(value)
    return float(value)


def _nanoseconds(moment: Any, name: str) -> int:
    """Return the time of an aggregate in nanoseconds. In `max at`, PostgreSQL returns it negated."""
    return int(-moment if name == "max at" else moment) * 1000
