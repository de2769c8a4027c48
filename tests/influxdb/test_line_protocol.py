import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from line_protocol_parser import LineFormatError
from line_protocol_parser import parse_line as second_opinion

from factory_logs.influxdb.line_protocol import (
    EARLIEST_NS,
    LATEST_NS,
    LineError,
    SeriesKey,
    parse_line,
    parse_series,
    parse_time,
    parse_value,
)
from tests.influxdb.strategies import POINTS, Point


def parsed(line: str) -> tuple[SeriesKey, dict[str, object], int | None]:
    head, fields, time = parse_line(line)
    return parse_series(head), dict(fields), parse_time(time, 1) if time else None


def typed(fields: dict[str, object]) -> dict[str, tuple[type, object]]:
    """True == 1 == 1.0 in Python, but not in a log."""
    return {key: (type(value), value) for key, value in fields.items()}


@given(POINTS)
def test_a_point_is_equal_after_writing_and_parsing(point: Point) -> None:
    series, fields, time = parsed(point.line())
    assert series == (point.measurement, point.tags)
    assert typed(fields) == typed(point.plain_fields)
    assert time == point.time


SIMPLE = st.text(st.sampled_from("abcXYZ09_-.é"), min_size=1, max_size=6)


@pytest.mark.slow
@given(
    st.builds(
        Point,
        st.from_regex("[a-z]([a-z, ]*[a-z])?", fullmatch=True),
        st.dictionaries(st.from_regex("[a-z]([a-z,= ]*[a-z])?", fullmatch=True), SIMPLE, max_size=3),
        st.dictionaries(
            st.from_regex("[a-z]([a-z,= ]*[a-z])?", fullmatch=True),
            st.booleans()
            | st.integers(-(2**63) + 1, 2**63 - 1)
            | st.floats(-1e15, 1e15, allow_subnormal=False)
            | st.text(st.sampled_from('ab,= \n"\\'), max_size=6),
            min_size=1,
            max_size=3,
        ),
        st.integers(0, 2**62),
    )
)
def test_an_independent_parser_reads_the_same(point: Point) -> None:
    line = point.line()
    other = second_opinion(line)
    series, fields, time = parsed(line)
    assert (series.measurement, series.tags, time) == (other["measurement"], other["tags"], other["time"])
    assert typed(fields) == typed(other["fields"])


@pytest.mark.parametrize("before", ["\t", " \t ", "  "])
def test_spaces_and_tabs_before_a_line_are_skipped_as_by_influxdb(before: str) -> None:
    assert parsed(f"{before}tiger,jig=1 v=1 5") == parsed("tiger,jig=1 v=1 5")


@given(st.text(st.sampled_from('ab1., ="\\-+eiu#\n\tT'), max_size=24))
@settings(max_examples=500)
def test_any_line_is_a_point_or_an_error_and_an_independent_parser_agrees_on_points(line: str) -> None:
    try:
        mine = parsed(line)
    except LineError:
        return
    try:
        other = second_opinion(line)
    except LineFormatError:
        return  # it refuses some lines that InfluxDB accepts
    if other is not None and "\\" not in line and len(mine[1]) == line.partition(" ")[2].count("="):
        assert (mine[0].measurement, mine[0].tags) == (other["measurement"], other["tags"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12i", 12), ("-12i", -12), ("007i", 7), ("9223372036854775807i", 2**63 - 1),
        ("-9223372036854775808i", -(2**63)),
        ("0u", 0), ("18446744073709551615u", 2**64 - 1),
        ("1", 1.0), ("-1.5E-3", -0.0015), ("1e+5", 1e5), (".5", 0.5), ("5.", 5.0), ("007", 7.0), ("-0", -0.0),
        ("t", True), ("T", True), ("true", True), ("True", True), ("TRUE", True),
        ("f", False), ("F", False), ("false", False), ("False", False), ("FALSE", False),
        ('""', ""), ('"a,b= c"', "a,b= c"), (r'"a\"b\\c"', 'a"b\\c'), (r'"\n\d\,"', r"\n\d\,"), (r'"\\\""', '\\"'),
    ],
)  # fmt: skip
def test_values_have_their_types(text: str, value: object) -> None:
    assert typed({"f": parse_value(text)}) == typed({"f": value})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("m", "missing fields"), ("m,a=b", "missing fields"), (",a=b f=1", "missing measurement"),
        ("m,=b f=1", "missing tag key"), ("m,a= f=1", "missing tag value"), ("m,a f=1", "missing tag value"),
        ("m,a=b, f=1", "missing tag key"), ("m,a=b=c f=1", "invalid tag format"), ("m,a=b,a=b f=1", "duplicate tags"),
        ("m f", "invalid field format"), ("m f=", "missing field value"), ("m =1", "missing field key"),
        ("m f=1,", "invalid field format"), ("m f= 1", "missing field value"), ('m "f g"=1', "invalid field format"),
        ('m f="a', "unbalanced quotes"), ('m f="a"b', "invalid field format"), (r"m\\ f=1 1", "invalid field format"),
        ("m f=1i2", "invalid number"), ("m f=1.0i", "invalid number"), ("m f=-1u", "out of range"),
        ("m f=9223372036854775808i", "out of range"), ("m f=18446744073709551616u", "out of range"),
        ("m f=NaN", "invalid"), ("m f=Inf", "invalid"), ("m f=1e400", "beyond 64 bits"), ("m f=0x10", "invalid number"),
        ("m f=1_0", "invalid number"), ("m f=+1", "invalid"), ("m f=١", "invalid"), ("m f=tRUE", "invalid boolean"),
        ("m f=1 x", "bad timestamp"), ("m f=1 1.5", "bad timestamp"), ("m f=1 +5", "bad timestamp"),
        ("m f=1 5 6", "point is invalid"), ("m f=1 ١", "bad timestamp"),
        ("m f=1 9223372036854775807", "time outside range"), ("m f=1 -9223372036854775807", "time outside range"),
    ],
)  # fmt: skip
def test_a_bad_line_has_the_error_message_of_influxdb(line: str, message: str) -> None:
    with pytest.raises(LineError, match=message):
        parsed(line)


def test_of_equal_fields_the_last_wins() -> None:
    assert parse_line("m f=1,g=2,f=3").fields == {"f": 3.0, "g": 2.0}
    assert parse_line('m f=1,f="x"').fields == {"f": "x"}


def test_spaces_around_the_parts_are_ignored() -> None:
    assert parsed("  m,a=b   f=1   5  ") == (("m", {"a": "b"}), {"f": 1.0}, 5)
    assert parsed('  m   f="1"   5  ') == (("m", {}), {"f": "1"}, 5)


@pytest.mark.parametrize(("unit", "time"), [(1, LATEST_NS), (10**9, 9223372036), (3600 * 10**9, 2562047)])
def test_the_latest_time_of_each_unit(unit: int, time: int) -> None:
    assert EARLIEST_NS <= parse_time(str(time), unit) <= LATEST_NS
    with pytest.raises(LineError, match="time outside range"):
        parse_time(str(time + 1), unit)


@pytest.mark.parametrize("piece", ['"', "\\", '\\"', "a=", ",", '="', "x=1,", '"b=', "\\,"])
def test_a_long_line_takes_linear_time(piece: str) -> None:
    """A backtracking parser would take hours here."""
    for line in ("m " + piece * 100_000, 'm f="' + piece * 100_000, "m,a=" + piece * 100_000 + " f=1"):
        with pytest.raises(LineError):
            parsed(line + "\\")
