"""Series of points in the order of time, and series of rows in the result of a statement."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

from factory_logs.influxql.ast import Type
from factory_logs.influxql.evaluation import Value
from factory_logs.influxql.windows import Windows

Others = tuple[Value, ...]
"""The values of a point's other fields and tags."""


@dataclass(slots=True)
class PointSeries:
    """The points of one measurement that have the same tags.

    `tags` contains the values of the tags, in the order of the dimensions' names.

    `values` may contain None for a window without points. `others` is empty, or contains the values of the other
    columns of each point.
    """

    name: str
    tags: tuple[str, ...]
    times: list[int] = field(default_factory=list)
    values: list[Value] = field(default_factory=list)
    others: list[Others] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, tuple[str, ...]]:
        return self.name, self.tags

    def add(self, time: int, value: Value, others: Others = ()) -> None:
        """Append a point."""
        self.times.append(time)
        self.values.append(value)
        if others:
            self.others.append(others)

    def like(self) -> "PointSeries":
        """Return a series with the same name and tags, without points."""
        return PointSeries(self.name, self.tags)


@dataclass(slots=True)
class Stream:
    """Series in the order of the result. `type` is the type of their values."""

    type: Type | None
    series: list[PointSeries]


@dataclass(frozen=True, slots=True)
class Window:
    """The points of one series in one window, without missing values."""

    start: int
    times: Sequence[int]
    values: Sequence[Any]
    others: Sequence[Others]

    def others_at(self, index: int) -> Others:
        return self.others[index] if self.others else ()


def split_windows(series: PointSeries, windows: Windows, *, descending: bool) -> Iterator[Window]:
    """Yield the windows that contain points, in the order of the points."""
    times, values, others = series.times, series.values, series.others
    if None in values:
        present = [index for index, value in enumerate(values) if value is not None]
        times, values = [times[index] for index in present], [values[index] for index in present]
        others = [others[index] for index in present] if others else others
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
        yield Window(start, times[begin:stop], values[begin:stop], others[begin:stop])
        begin = stop


def limited(stream: Stream, limit: int, offset: int) -> Stream:
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


def included(found: list[PointSeries], is_included: Callable[[tuple[str, ...]], bool]) -> list[PointSeries]:
    """Return the series whose tags are included."""
    return [series for series in found if is_included(series.tags)]


def in_order(found: list[PointSeries], *, descending: bool) -> list[PointSeries]:
    """Return the series by name and tags. Series with the same name and tags are merged in the order of time."""
    joined: dict[tuple[str, tuple[str, ...]], PointSeries] = {}
    for series in found:
        if series.key in joined:
            joined[series.key] = _joined(joined[series.key], series, descending=descending)
        else:
            joined[series.key] = series
    return [joined[key] for key in sorted(joined, reverse=descending)]


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


@dataclass(slots=True)
class ResultSeries:
    """A table in a result. If `has_time`, the first column is a time in nanoseconds, to be shown in `zone`."""

    name: str
    columns: Sequence[str]
    rows: list[list[Value]] = field(default_factory=list)
    tags: Mapping[str, str] = field(default_factory=dict)
    has_time: bool = False
    zone: ZoneInfo | None = None


@dataclass(slots=True)
class Result:
    """The result of one statement: series, or an error. `is_divided` means that chunks may divide a series."""

    statement_id: int
    series: list[ResultSeries] = field(default_factory=list)
    error: str | None = None
    is_divided: bool = True
