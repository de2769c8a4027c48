"""The windows of GROUP BY time(): each moment is in one, and they begin at local midnight."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from hypothesis import given
from hypothesis import strategies as st

from factory_logs.influxql.ast import Fill, Type
from factory_logs.influxql.constants import EARLIEST, LATEST
from factory_logs.influxql.filling import Filling, filled
from factory_logs.influxql.series import PointSeries
from factory_logs.influxql.windows import SECOND, Windows

HOUR, DAY = 3600 * SECOND, 86400 * SECOND
BERLIN = ZoneInfo("Europe/Berlin")


def moment(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * SECOND


@given(st.integers(EARLIEST // 2, LATEST // 2), st.integers(1, 30 * DAY), st.integers(-DAY, DAY))
def test_a_time_is_in_its_window(at: int, interval: int, offset: int) -> None:
    begin, end = Windows(EARLIEST, LATEST, interval, offset).around(at)
    assert begin <= at < end == begin + interval
    assert (begin - offset) % interval == 0


def test_without_an_interval_the_span_is_one_window() -> None:
    assert Windows(5, 9).around(7) == (5, 10)


def test_days_begin_at_local_midnight_also_if_the_clock_is_changed() -> None:
    windows = Windows(EARLIEST, LATEST, DAY, 0, BERLIN)
    for inside, begin, end in (
        ("2024-01-31T12:00", "2024-01-30T23:00", "2024-01-31T23:00"),
        ("2024-03-31T12:00", "2024-03-30T23:00", "2024-03-31T22:00"),
        ("2024-07-01T12:00", "2024-06-30T22:00", "2024-07-01T22:00"),
        ("2024-10-27T12:00", "2024-10-26T22:00", "2024-10-27T23:00"),
    ):
        assert windows.around(moment(inside)) == (moment(begin), moment(end))


def fill(filling: Filling, kind: Type = Type.FLOAT, *, descending: bool = False, **points: float) -> list[object]:
    """Return the values of the windows 0 to 4 of which some have a point."""
    windows = Windows(0, 5 * HOUR - 1, HOUR)
    hours = sorted((int(name[1:]) for name in points), reverse=descending)
    series = PointSeries("m", (), [hour * HOUR for hour in hours], [points[f"_{hour}"] for hour in hours])
    result = filled(series, windows, filling, kind, descending=descending, most=5)
    expected = [hour * HOUR for hour in range(5)]
    assert result.times == (expected[::-1] if descending else expected)
    return list(result.values)


def test_empty_windows_are_filled() -> None:
    assert fill(Filling(Fill.NULL), _1=2.0, _3=4.0) == [None, 2.0, None, 4.0, None]
    assert fill(Filling(Fill.NUMBER, 7), _1=2.0, _3=4.0) == [7.0, 2.0, 7.0, 4.0, 7.0]
    assert fill(Filling(Fill.PREVIOUS), _1=2.0, _3=4.0) == [None, 2.0, 2.0, 4.0, 4.0]
    assert fill(Filling(Fill.LINEAR), _1=2.0, _4=5.0) == [None, 2.0, 3.0, 4.0, 5.0]
    assert fill(Filling(Fill.LINEAR), Type.INTEGER, _0=1, _3=3) == [1, 1, 2, 3, None]
    assert fill(Filling(Fill.NUMBER, 0.9), Type.INTEGER, _0=1) == [1, 0, 0, 0, 0]
    assert fill(Filling(Fill.PREVIOUS), descending=True, _1=2.0, _3=4.0) == [None, 4.0, 4.0, 2.0, 2.0]
