"""Series of points, with times and values in the order of time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from factory_logs.influxql.ast import Type
from factory_logs.influxql.evaluation import Value
from factory_logs.influxql.windows import Windows

Beside = tuple[Value, ...]
"""The other fields and tags of a point."""


@dataclass(slots=True)
class PointSeries:
    """The points of one measurement that have the same tags. `tags` contains their values, in the order of the
    dimensions' names.

    `values` may contain None for a window without points. `beside` is empty, or contains the values of the other
    columns of each point.
    """

    name: str
    tags: tuple[str, ...]
    times: list[int] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    beside: list[Beside] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, tuple[str, ...]]:
        return self.name, self.tags

    def add(self, time: int, value: Value, beside: Beside = ()) -> None:
        """Append a point."""
        self.times.append(time)
        self.values.append(value)
        if beside:
            self.beside.append(beside)

    def like(self) -> "PointSeries":
        """Return a series with the same name and tags, without points."""
        return PointSeries(self.name, self.tags)


@dataclass(slots=True)
class Stream:
    """Series in the order in which the result shows them. `type` is the type of their values."""

    type: Type | None
    series: list[PointSeries]


@dataclass(frozen=True, slots=True)
class Window:
    """The points of one series in one window, without missing values."""

    start: int
    times: Sequence[int]
    values: Sequence[Any]
    beside: Sequence[Beside]

    def values_beside(self, place: int) -> Beside:
        return self.beside[place] if self.beside else ()


def split_windows(series: PointSeries, windows: Windows, *, descending: bool) -> Iterator[Window]:
    """Yield the windows that have points, in the order of the points."""
    times, values, beside = series.times, series.values, series.beside
    if None in values:
        kept = [place for place, value in enumerate(values) if value is not None]
        times, values = [times[place] for place in kept], [values[place] for place in kept]
        beside = [beside[place] for place in kept] if beside else beside
    begin = 0
    while begin < len(times):
        start, end = windows.around(times[begin])
        stop = begin + 1
        if descending:
            while stop < len(times) and times[stop] >= start:
                stop += 1
        else:
            while stop < len(times) and times[stop] < end:
                stop += 1
        yield Window(start, times[begin:stop], values[begin:stop], beside[begin:stop])
        begin = stop
