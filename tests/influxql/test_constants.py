"""Parts that are computed without data: constants, times, and the bounds of time in WHERE."""

from zoneinfo import ZoneInfo

import pytest

from factory_logs.influxql.ast import Duration, Expression, Literal, Select, Time
from factory_logs.influxql.constants import EARLIEST, LATEST, Context, TimeSpan, reduced, split_time
from factory_logs.influxql.errors import InfluxqlError
from factory_logs.influxql.parser import parse_query
from factory_logs.influxql.text import format_expression

SECOND = 10**9
NOW = 1_706_700_000 * SECOND
CONTEXT = Context(NOW)


def condition(text: str) -> Expression:
    (statement,) = parse_query(f"SELECT a FROM m WHERE {text}")
    assert isinstance(statement, Select)
    assert statement.condition is not None
    return statement.condition


def split(text: str, context: Context = CONTEXT) -> tuple[str, TimeSpan]:
    left, span = split_time(condition(text), context)
    return "" if left is None else format_expression(left), span


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", Literal(7)), ("7 / 2", Literal(3.5)), ("7 % -3", Literal(1)), ("-7 % 3", Literal(-1)), ("1 / 0", Literal(0.0)),
        ("5 & 3 | 8", Literal(9)), ("1.5 + 1", Literal(2.5)), ("'a' + 'b'", Literal("ab")), ("1h + 30m", Duration(5400 * SECOND)),
        ("1h * 2", Duration(7200 * SECOND)), ("1h / 2", Duration(1800 * SECOND)), ("now()", Time(NOW)), ("now() - 1h", Time(NOW - 3600 * SECOND)),
        ("'2024-01-31T11:20:00Z' + 1s", Time(NOW + SECOND)), ("9223372036854775807 + 1", Literal(-(2**63))), ("sqrt(4)", Literal(2.0)),
        ("true AND 1 = 1", Literal(True)), ("2 > 1.5", Literal(True)), ("'a' = 'b'", Literal(False)),
        ("'2024-01-31' = '2024-01-31T00:00:00Z'", Literal(True)), ("now() - '2024-01-31T11:19:59Z'", Duration(SECOND)),
    ],
)  # fmt: skip
def test_constants_are_computed(text: str, value: Expression) -> None:
    assert reduced(condition(f"({text})"), CONTEXT) == value


@pytest.mark.parametrize(
    ("text", "left", "span"),
    [
        ("time > 5", "", TimeSpan(6)), ("time <= 1s", "", TimeSpan(None, SECOND)), ("5 < time", "", TimeSpan(6)),
        ("time = 5", "", TimeSpan(5, 5)), ("TIME >= 1 AND a = 2", "a = 2", TimeSpan(1)), ("a = 2 OR time < 3", "a = 2", TimeSpan(None, 2)),
        ("(a = 1 AND (time > 1 AND time < 9)) AND time > 4", "a = 1", TimeSpan(5, 8)),
        ("time > now() - 1h AND 1 = 1", "", TimeSpan(NOW - 3600 * SECOND + 1)), ("a = 1 AND 1 = 2", "false", TimeSpan()),
        ("time >= '2024-01-31'", "", TimeSpan(1_706_659_200 * SECOND)),
        ("time >= '2024-01-31 11:20:00.5'", "", TimeSpan(NOW + SECOND // 2)),
        ("time >= '2024-01-31T19:20:00+08:00'", "", TimeSpan(NOW)),
    ],
)  # fmt: skip
def test_bounds_of_time_are_split_off(text: str, left: str, span: TimeSpan) -> None:
    assert split(text) == (left, span)


def test_a_date_is_local_time_if_the_statement_has_a_zone() -> None:
    shanghai = Context(NOW, ZoneInfo("Asia/Shanghai"))
    assert split("time >= '2024-01-31 19:20:00'", shanghai)[1] == TimeSpan(NOW)
    assert split("time >= '2024-01-31T11:20:00Z'", shanghai)[1] == TimeSpan(NOW)


@pytest.mark.parametrize(
    ("zone", "local", "expected"),
    [
        ("Europe/Berlin", "2024-03-31 02:30:00", "2024-03-31T01:30:00Z"),
        ("Europe/Berlin", "2024-10-27 02:30:00", "2024-10-27T01:30:00Z"),
        ("America/New_York", "2024-03-10 02:30:00", "2024-03-10T06:30:00Z"),
        ("America/New_York", "2024-11-03 01:30:00", "2024-11-03T05:30:00Z"),
        ("America/Asuncion", "2024-10-06", "2024-10-06T03:00:00Z"),
    ],
)
def test_a_local_time_that_is_skipped_or_repeated_is_that_of_go(zone: str, local: str, expected: str) -> None:
    assert split(f"time >= '{local}'", Context(NOW, ZoneInfo(zone))) == split(f"time >= '{expected}'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time != 5", "invalid time comparison operator: !="),
        ("time > 'x'", "invalid operation: time and *influxql.StringLiteral are not compatible"),
        ("time > true", "invalid operation: time and *influxql.BooleanLiteral are not compatible"),
        ("time > '2024-13-01'", "invalid timestamp string"),
        ("time > '2024-01-31T11:20:00'", "invalid timestamp string"),
        ("time > '3000-01-01'", "time 3000-01-01T00:00:00Z overflows time literal"),
        ("time > '1600-01-01'", "time 1600-01-01T00:00:00Z underflows time literal"),
        ("time > '9999-12-31' + 1w", "time 253402819200000000000ns overflows time literal"),
        ("time > '0001-01-01' - 1d", "time -62135683200000000000ns underflows time literal"),
        ("a", "invalid condition expression: a"),
    ],
)
def test_invalid_time_conditions_are_errors(text: str, message: str) -> None:
    with pytest.raises(InfluxqlError) as raised:
        split(text)
    assert raised.value.message == message


def test_times_have_the_range_of_influxdb() -> None:
    assert split(f"time >= '{'2262-04-11T23:47:16.854775806Z'}'")[1] == TimeSpan(LATEST)
    assert split("time > '1677-09-21T00:12:43.145224195Z'")[1] == TimeSpan(EARLIEST + 2)
