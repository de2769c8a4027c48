"""Finish the series of GROUP BY time: move points to the beginnings of their windows, and fill empty windows."""

import math
from dataclasses import dataclass

from factory_logs.influxql.ast import Fill, Type
from factory_logs.influxql.constants import EARLIEST
from factory_logs.influxql.errors import InfluxqlError
from factory_logs.influxql.evaluation import Value, quotient, wrapped
from factory_logs.influxql.series import PointSeries
from factory_logs.influxql.windows import Windows


@dataclass(frozen=True, slots=True)
class Filling:
    """The option of fill(). `value` is the number in fill(number)."""

    fill: Fill
    value: float | int | None = None


def cast_value(value: Value, kind: Type | None) -> Value:
    """Return a number converted to another numeric type. Other values are returned unchanged."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if kind is Type.FLOAT:
        return float(value)
    if kind in (Type.INTEGER, Type.UNSIGNED):
        return to_integer(value)
    return value


def _number_for(filling: Filling, kind: Type | None) -> Value:
    """Return the value of fill(number) in this type. It is empty text for a string, and false for a boolean."""
    if kind is Type.STRING:
        return ""
    return False if kind is Type.BOOLEAN else cast_value(filling.value, kind)


def to_integer(value: float) -> int:
    """Return a number truncated to a 64-bit integer."""
    if isinstance(value, int):
        return value
    if not math.isfinite(value) or abs(value) >= 2**63:
        return -(2**63)
    return math.trunc(value)


def at_window_starts(series: PointSeries, windows: Windows) -> PointSeries:
    """Return the series with each point at the beginning of its window.

    The time is 0, in 1970, if the window has no beginning.
    """
    result = series.like()
    result.values, result.others = series.values, series.others
    starts = (windows.start(time) for time in series.times)
    result.times = [0 if start == EARLIEST else start for start in starts]
    return result


def filled(
    series: PointSeries,
    windows: Windows,
    filling: Filling,
    kind: Type | None,
    *,
    descending: bool,
    most: int,
    enough: int = 0,
) -> PointSeries:
    """Return the series with a point in each window of the span.

    The first window contains the beginning of the span, or the first point if the span has no beginning. The last
    window contains the end of the span. If `enough` is not 0, at most `enough` points are returned. Raises
    InfluxqlError for more than `most` points.
    """
    return _Filled(series, windows, filling, kind, descending=descending, most=most, enough=enough).result()


class _Filled:
    def __init__(
        self,
        series: PointSeries,
        windows: Windows,
        filling: Filling,
        kind: Type | None,
        *,
        descending: bool,
        most: int,
        enough: int,
    ) -> None:
        self._series, self._windows, self._filling, self._kind = series, windows, filling, kind
        self._descending, self._most, self._enough = descending, most, enough or most + 1
        first, last = (windows.last, windows.first) if descending else (windows.first, windows.last)
        self._begin, self._end = windows.start(first), windows.start(last)
        if self._begin == EARLIEST:
            self._begin = windows.start(series.times[0])

    def result(self) -> PointSeries:
        series, result = self._series, self._series.like()
        moment, index, previous = self._begin, 0, None
        nothing = [tuple(None for _ in each) for each in series.others[:1]]
        zone = self._windows.zone_offset(moment)
        while len(result.times) < self._enough and (index < len(series.times) or not self._is_past(moment)):
            if index < len(series.times) and not self._is_before(moment, series.times[index]):
                result.times.append(series.times[index])
                result.values.append(series.values[index])
                result.others += series.others[index : index + 1]
                previous, index = index, index + 1
            else:
                result.times.append(moment)
                result.values.append(self._fill(moment, previous))
                result.others += nothing
            if len(result.times) > self._most:
                raise InfluxqlError(
                    f"more than {self._most} rows of one series: use a longer GROUP BY time() or a shorter time range"
                )
            moment, zone = self._next(moment, zone)
        return result

    def _is_past(self, moment: int) -> bool:
        if self._descending:
            return moment < self._end or self._end == EARLIEST
        return moment > self._end

    def _is_before(self, moment: int, time: int) -> bool:
        """Return whether a window comes before the point at `time`."""
        return time < moment if self._descending else time > moment

    def _next(self, moment: int, zone: int) -> tuple[int, int]:
        """Return the beginning of the next window, adjusted for a change of the clock, and the offset of local time
        there."""
        interval = self._windows.interval
        moment += -interval if self._descending else interval
        if self._windows.zone is None:
            return moment, 0
        ahead = self._windows.zone_offset(moment - 1)
        if ahead != zone and abs(zone - ahead) < interval:
            moment += zone - ahead
        return moment, ahead

    def _fill(self, moment: int, previous: int | None) -> Value:
        match self._filling.fill:
            case Fill.NUMBER:
                return _number_for(self._filling, self._kind)
            case Fill.PREVIOUS if previous is not None:
                return self._series.values[previous]
            case Fill.LINEAR if previous is not None and previous + 1 < len(self._series.times):
                return self._on_line(moment, previous)
        return None

    def _on_line(self, moment: int, previous: int) -> Value:
        values, times, interval = self._series.values, self._series.times, self._windows.interval
        old, new = values[previous], values[previous + 1]
        if isinstance(old, bool | str) or isinstance(new, bool | str) or old is None or new is None:
            return None
        before, here, after = (quotient(time, interval) for time in (times[previous], moment, times[previous + 1]))
        if after == before:
            return None
        line = (new - old) / (after - before) * (here - before) + old
        return wrapped(math.trunc(line)) if self._kind is Type.INTEGER else line
