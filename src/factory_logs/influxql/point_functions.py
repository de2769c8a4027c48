"""Compute the functions over many points, by InfluxDB's rules for ties and for too few points.

A function of a window returns points. A point consists of the time (None for the beginning of the window), the value,
and the other fields and tags.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

from factory_logs.influxql.ast import NUMBERS, Call, Duration, Literal, Type
from factory_logs.influxql.errors import InfluxqlError
from factory_logs.influxql.evaluation import Value, quotient, wrapped
from factory_logs.influxql.lexer import SECOND
from factory_logs.influxql.series import Others, PointSeries, Window
from factory_logs.influxql.windows import Windows

Point = tuple[int | None, Value, Others]
WindowFunction = Callable[[Window], list[Point]]

_ANY = frozenset({*NUMBERS, Type.STRING, Type.BOOLEAN, Type.TAG})
_TAKEN: dict[str, frozenset[Type]] = {
    "count": _ANY, "first": _ANY, "last": _ANY, "distinct": _ANY, "mode": _ANY, "elapsed": _ANY,
    "min": NUMBERS | {Type.BOOLEAN}, "max": NUMBERS | {Type.BOOLEAN},
}  # fmt: skip
"""The types that a function accepts. Functions that are not listed accept numbers only."""


def check_type(name: str, kind: Type | None) -> None:
    """Raise InfluxqlError with InfluxDB's message if the function does not accept values of this type."""
    if kind in (None, Type.TAG) or kind in _TAKEN.get(name, NUMBERS):
        return
    name = name.removeprefix("non_negative_").replace("_", " ")
    raise InfluxqlError(f"unsupported {name} iterator type: *query.{kind.value}InterruptIterator")


def window_function(call: Call) -> WindowFunction:
    """Return the function that computes a call in one window."""
    match call.name, call.arguments:
        case "percentile", (_, Literal(int() | float() as percent)):
            return lambda window: _percentile(window, percent)
        case ("top" | "bottom") as name, (*_, Literal(int() as most)):
            return lambda window: _extremes(window, most, largest=name == "top")
    return _FUNCTIONS[call.name]


def _count(window: Window) -> list[Point]:
    return [(None, len(window.values), ())]


def _sum(window: Window) -> list[Point]:
    total = sum(window.values)
    return [(None, wrapped(total) if isinstance(total, int) else total, ())]


def _mean(window: Window) -> list[Point]:
    return [(None, sum(window.values) / len(window.values), ())]


def _spread(window: Window) -> list[Point]:
    difference = max(window.values) - min(window.values)
    return [(None, wrapped(difference) if isinstance(difference, int) else difference, ())]


def _chosen(better: Callable[[int, Any, int, Any], bool]) -> WindowFunction:
    """Return a function that chooses one point of a window.

    `better` compares the time and value of a point with those of the best point so far.
    """

    def choose(window: Window) -> list[Point]:
        times, values, best = window.times, window.values, 0
        for index in range(1, len(times)):
            if better(times[index], values[index], times[best], values[best]):
                best = index
        return [(times[best], values[best], window.others_at(best))]

    return choose


_first = _chosen(lambda time, value, other_time, other: time < other_time or (time == other_time and value > other))
_last = _chosen(lambda time, value, other_time, other: time > other_time or (time == other_time and value > other))
_min = _chosen(lambda time, value, other_time, other: value < other or (value == other and time < other_time))
_max = _chosen(lambda time, value, other_time, other: value > other or (value == other and time < other_time))


def _median(window: Window) -> list[Point]:
    if len(window.values) == 1 and isinstance(window.values[0], float):
        return [(window.times[0], window.values[0], window.others_at(0))]
    values = sorted(window.values)
    middle = len(values) // 2
    if len(values) % 2:
        return [(None, float(values[middle]), ())]
    low, high = values[middle - 1], values[middle]
    return [(None, float(low) + (high - low) / 2, ())]


def _mode(window: Window) -> list[Point]:
    if len(window.values) == 1:
        return [(window.times[0], window.values[0], window.others_at(0))]
    if isinstance(window.values[0], bool):
        return [(None, 2 * sum(window.values) >= len(window.values), ())]
    points = sorted(zip(window.values, window.times, strict=True))
    most, frequency, latest = points[0][0], 1, points[0][1]
    run_value, run_length, run_begin = points[0][0], 1, points[0][1]
    for value, time in points[1:]:
        if value != run_value:
            run_value, run_length, run_begin = value, 1, time
            continue
        run_length += 1
        # InfluxDB's rule for ties: the second value wins if it first occurs no later than the last point of the first.
        if run_length > frequency or (run_length == frequency and run_begin <= latest):
            most, frequency, latest = value, run_length, time
    return [(None, most, ())]


def _stddev(window: Window) -> list[Point]:
    if len(window.values) < 2:
        return [(None, math.nan, ())]
    mean = 0.0
    for count, value in enumerate(window.values, 1):
        mean += (value - mean) / count
    variance = sum((value - mean) ** 2 for value in window.values)
    return [(None, math.sqrt(variance / (len(window.values) - 1)), ())]


def _percentile(window: Window, percent: float) -> list[Point]:
    count = len(window.values)
    index = math.floor(count * percent / 100.0 + 0.5) - 1
    if not 0 <= index < count:
        return []
    ordered = sorted(range(count), key=window.values.__getitem__)
    chosen = ordered[index]
    return [(window.times[chosen], window.values[chosen], window.others_at(chosen))]


def _distinct(window: Window) -> list[Point]:
    found: dict[Any, int] = {}
    for time, value in zip(window.times, window.values, strict=True):
        found.setdefault(value, time)
    return [(time, value, ()) for value, time in sorted(found.items(), key=lambda item: (item[1], item[0]))]


def _extremes(window: Window, most: int, *, largest: bool) -> list[Point]:
    """Return the points with the largest or smallest values, in the order of time. Ties go to the earlier point."""
    sign = -1 if largest else 1
    indexes = sorted(range(len(window.values)), key=lambda index: (sign * window.values[index], window.times[index]))[
        :most
    ]
    indexes.sort(key=lambda index: window.times[index])
    return [(window.times[index], window.values[index], window.others_at(index)) for index in indexes]


_FUNCTIONS: dict[str, WindowFunction] = {
    "count": _count, "sum": _sum, "mean": _mean, "spread": _spread, "first": _first, "last": _last, "min": _min,
    "max": _max, "median": _median, "mode": _mode, "stddev": _stddev, "distinct": _distinct,
}  # fmt: skip


def transformed(call: Call, series: PointSeries, windows: Windows, *, descending: bool) -> PointSeries:
    """Return the series that a transformation computes from another series. Points without a value are skipped."""
    points = [(time, value) for time, value in zip(series.times, series.values, strict=True) if value is not None]
    result = series.like()
    for time, value in _transformation(call, points, windows, descending=descending):
        result.add(time, value)
    return result


def _transformation(
    call: Call, points: Sequence[tuple[int, Any]], windows: Windows, *, descending: bool
) -> Iterator[tuple[int, Value]]:
    match call.name:
        case "derivative" | "non_negative_derivative":
            return _derivative(call, points, windows.interval or SECOND, descending=descending)
        case "difference" | "non_negative_difference":
            return ((time, difference) for _, time, difference in _differences(call, points))
        case "elapsed":
            return _elapsed(points, _unit(call, 1))
        case "moving_average":
            match call.arguments:
                case (_, Literal(int() as length)):
                    return _moving_average(points, length)
        case "cumulative_sum":
            return _cumulative_sum(points)
    return _integral(points, _unit(call, SECOND), windows, descending=descending)


def _unit(call: Call, default: int) -> int:
    match call.arguments:
        case (_, Duration(nanoseconds)):
            return nanoseconds
    return default


def _advancing(points: Sequence[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """Return the first point at each time."""
    found: list[tuple[int, Any]] = []
    for point in points:
        if not found or point[0] != found[-1][0]:
            found.append(point)
    return found


def _differences(call: Call, points: Sequence[tuple[int, Any]]) -> Iterator[tuple[int, int, Any]]:
    """Yield the times of two successive points and the difference of their values."""
    is_non_negative = call.name.startswith("non_negative")
    for (before, old), (time, new) in pairwise(_advancing(points)):
        difference = wrapped(new - old) if isinstance(new, int) else new - old
        if not (is_non_negative and difference < 0):  # not a number is not negative
            yield before, time, difference


def _derivative(
    call: Call, points: Sequence[tuple[int, Any]], default: int, *, descending: bool
) -> Iterator[tuple[int, Value]]:
    unit = _unit(call, default)
    for before, time, difference in _differences(call, points):
        elapsed = before - time if descending else time - before
        yield time, difference / (elapsed / unit)


def _elapsed(points: Sequence[tuple[int, Any]], unit: int) -> Iterator[tuple[int, Value]]:
    for (before, _), (time, _) in pairwise(points):
        yield time, quotient(time - before, unit)


def _moving_average(points: Sequence[tuple[int, Any]], length: int) -> Iterator[tuple[int, Value]]:
    total: Any = 0
    for index, (time, value) in enumerate(points):
        if index >= length:
            total -= points[index - length][1]
        total += value
        if index >= length - 1:
            yield time, total / length


def _cumulative_sum(points: Sequence[tuple[int, Any]]) -> Iterator[tuple[int, Value]]:
    total: Any = 0
    for time, value in points:
        total += value
        yield time, wrapped(total) if isinstance(total, int) else total


def _integral(
    points: Sequence[tuple[int, Any]], unit: int, windows: Windows, *, descending: bool
) -> Iterator[tuple[int, Value]]:
    """Yield the area under the points in each window, by the trapezoidal rule.

    A trapezoid that spans two windows is split at the boundary.
    """
    if not points:
        return
    before, old = points[0]
    start, end = _edges(windows, before, descending=descending)
    total = 0.0
    for time, value in points[1:]:
        if time == before:
            old = value
            continue
        if windows.interval and (time <= end if descending else time >= end):
            if before != end:
                middle = _on_line(end, before, time, old, value)
                total += 0.5 * (middle + old) * ((end - before) / unit)
                before, old = end, middle
            yield start, total
            start, end = _edges(windows, time, descending=descending)
            total = 0.0
        total += 0.5 * (value + old) * ((time - before) / unit)
        before, old = time, value
    if before != start or not windows.interval:
        yield start, total


def _edges(windows: Windows, moment: int, *, descending: bool) -> tuple[int, int]:
    if not windows.interval:
        return 0, 0
    begin, end = windows.around(moment)
    return (end, begin) if descending else (begin, end)


def _on_line(moment: int, before: int, after: int, old: float, new: float) -> float:
    return (new - old) / (after - before) * (moment - before) + old
