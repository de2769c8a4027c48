"""Lines parsed together have the same results as lines parsed one by one, and no valid line is refused."""

import json
from datetime import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from factory_logs.errors import BadRequestError
from factory_logs.influxdb.line_reader import LineProtocolReader
from factory_logs.influxdb.mapping import PointParser
from factory_logs.influxdb.uniform_lines import FEWEST_LINES, MAX_FORM_PARTS, MAX_FORMS, UniformLineReader
from factory_logs.ingest.batch_collector import Batch, BatchLimits
from factory_logs.ingest.validation import NewLog
from factory_logs.schemas.record_limits import RecordLimits
from tests.influxdb.lines import split_lines
from tests.influxdb.strategies import POINTS, Point

LIMITS = RecordLimits(max_record_bytes=256 * 1024, max_nesting=32)
NOW = 1_706_708_700_000_000_000
SERIES = "tiger,jig_id=J-07,product_imei=352099001761481,repair_id=12"
PLAIN = f'{SERIES} passed=t,voltage=3.28,n=7i,note="正常 %s" 1706708700123'


def read(lines: list[str], limits: RecordLimits = LIMITS, unit: int = 1) -> Batch:
    reader = LineProtocolReader(limits, BatchLimits(max_reported=1000), unit, NOW)
    reader.feed("\n".join(lines).encode("utf-8", "surrogateescape"))
    reader.finish()
    return reader.take()


def read_one_by_one(
    lines: list[str], limits: RecordLimits = LIMITS, unit: int = 1
) -> tuple[list[NewLog], list[int], int]:
    reader = PointParser(limits, unit, NOW)
    longest = 2 * limits.max_record_bytes
    logs, numbers, rejected = [], [], 0
    for number, line in split_lines("\n".join(lines), longest):
        try:
            logs.append(reader.read(line, longest))
            numbers.append(number)
        except BadRequestError:
            rejected += 1
    return logs, numbers, rejected


def alike(lines: list[str], limits: RecordLimits = LIMITS, unit: int = 1) -> list[NewLog | None]:
    """Return the logs of the lines of common forms, and None for other lines."""
    found = UniformLineReader(limits, 2 * limits.max_record_bytes, unit, NOW).read(lines)
    logs: dict[int, NewLog | None] = dict.fromkeys(found.others)
    for some, indexes in found.logs:
        logs |= dict(zip(indexes, some, strict=True))
    assert len(logs) == len(lines)
    return [logs[index] for index in range(len(lines))]


def all_at_once(lines: list[str], limits: RecordLimits = LIMITS) -> list[NewLog] | None:
    logs = UniformLineReader(limits, 2 * limits.max_record_bytes, 1, NOW).read_text("\n".join(lines))
    return None if logs is None else list(logs)


def in_any_order(log: NewLog) -> NewLog:
    """Return the log with its fields sorted by name, because jsonb has no order of its own."""
    return log._replace(fields=json.dumps(json.loads(log.fields or ""), sort_keys=True))


def assert_same(lines: list[str], limits: RecordLimits = LIMITS, unit: int = 1) -> None:
    batch = read(lines, limits, unit)
    logs, positions, rejected = read_one_by_one(lines, limits, unit)
    assert list(map(in_any_order, batch.logs)) == list(map(in_any_order, logs))
    assert (list(batch.positions), batch.rejected) == (positions, rejected)


UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""The first look at a form compiles it, on a machine that may be busy."""

SHAPES = POINTS | st.builds(
    Point,
    st.sampled_from(["tiger", "an=equals", "100%s", "é"]),
    st.fixed_dictionaries({"jig_id": st.sampled_from(["J-07", "%s", "é", 'a"b', "a b"])})
    | st.fixed_dictionaries({"product_imei": st.sampled_from(["352099001761481", "12"]), "repair_id": st.just("7")}),
    st.fixed_dictionaries({
        "voltage": st.floats(allow_nan=False, allow_infinity=False), "n%d": st.integers(-(2**63), 2**63 - 1),
        "passed": st.booleans(), "note": st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    }),
    st.none() | st.integers(-(2**63) + 2, 2**63 - 2),
)  # fmt: skip


@pytest.mark.slow
@UNHURRIED
@given(st.lists(SHAPES, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_many_lines_become_the_same_logs_as_single_lines(points: list[Point], chance) -> None:  # type: ignore[no-untyped-def]
    lines = [point.line() for point in points for _ in range(FEWEST_LINES)]
    chance.shuffle(lines)
    assert_same(lines)


@UNHURRIED
@given(st.lists(st.text(st.sampled_from('ab1., ="\\-+eiuT%'), max_size=12), min_size=1, max_size=5))
def test_other_lines_between_good_ones_have_their_usual_result(odd: list[str]) -> None:
    assert_same([line for text in odd for line in [*[PLAIN] * FEWEST_LINES, f"tiger{text}", f"tiger f={text} 1"]])


def test_plain_lines_are_all_read_together() -> None:
    lines = [PLAIN] * FEWEST_LINES
    logs = alike(lines, unit=10**6)
    assert logs == [
        NewLog(
            "tiger", "352099001761481", 12, datetime(2024, 1, 31, 13, 45, 0, 123000), '{"jig_id":"J-07"}',
            '{"n":7,"note":"正常 %s","passed":true,"voltage":3.28}',
        )
    ] * FEWEST_LINES  # fmt: skip
    assert_same(lines, unit=10**6)
    assert all_at_once(lines) == alike(lines)
    assert all_at_once(lines[1:]) is None
    assert alike(lines[1:]) == [None] * (FEWEST_LINES - 1)


def test_alternating_forms_are_read_together_up_to_a_limit() -> None:
    forms = [f"m{number},a=b f={number} 1" for number in range(MAX_FORMS + 1)]
    logs = alike(forms * FEWEST_LINES)
    assert logs.count(None) == FEWEST_LINES
    assert_same(forms * FEWEST_LINES)


def test_a_form_has_a_limited_number_of_parts() -> None:
    def line(fields: int) -> str:
        return "m " + ",".join(f"f{number}=1" for number in range(fields))

    assert None not in alike([line(MAX_FORM_PARTS)] * FEWEST_LINES)
    assert alike([line(MAX_FORM_PARTS + 1)] * FEWEST_LINES) == [None] * FEWEST_LINES


@pytest.mark.parametrize(
    "odd",
    [
        "m,a=b f=1 9223372036854775807", "m,a=b f=1 5 6", "m,a=b  f=1 5", "m,a=b f=1", "m,a=b f=1i 5",
        "m,a=b f=1,f=2 5", "m,a=b f=1e400 5", "m,a=b f=-0 5", "m,a=b f=1e23 5", "m,a=b f=007 5", "m,a=b f=1 -5",
        "m,a=c\\ d f=1 5", 'm,a="b f=1 5', "m,a=b\0 f=1 5", "m,a=\udcff f=1 5", "m,a=b f=1 05", "m,a=b f=1 \u0661",
        "m,product_imei=12 f=1 5", "m,product_imei=352099001761481 f=1 5", "m,repair_id=01 f=1 5",
        "m,a=b timestamp=1 5",
    ],
)  # fmt: skip
def test_unusual_lines_among_plain_ones_are_read_too(odd: str) -> None:
    assert_same([*["m,a=b f=1 5"] * 20, odd, *["m,a=b f=2 6"] * 20])
    assert_same([odd] * 40)


@pytest.mark.parametrize("odd", ["m,a=b f=2", "m,a=b f=1i 5", "n,a=b f=1 5", "# m,a=b f=1 5", "", "m,a=b f=1 5\r"])
@pytest.mark.parametrize("position", [0, 7, FEWEST_LINES])
def test_a_text_with_one_other_line_is_not_read_at_once(odd: str, position: int) -> None:
    plain = ["m,a=b f=1 5"] * FEWEST_LINES
    lines = [*plain[:position], odd, *plain[position:]]
    assert all_at_once(plain) == alike(plain)
    assert all_at_once(lines) is None
    assert_same(lines)


def test_a_string_that_contains_a_plain_line_is_one_line() -> None:
    string = 'n g="\nm,a=b f=1 5\nm,a=b f=2 5" 7'
    for lines in ([*["m,a=b f=1 5"] * 20, string], [string, *["m,a=b f=1 5"] * 20]):
        assert len(read(lines).logs) == 21
        assert_same(lines)


@pytest.mark.parametrize("comment", ["#m,a=b f=1 5", "#m f=1", " #m f=1 5", "\t#m f=1 5", "# m f=1 5", "#", "#="])
def test_comments_that_look_like_plain_lines_are_no_logs(comment: str) -> None:
    lines = [comment] * FEWEST_LINES
    assert all_at_once(lines) is None
    assert_same(lines)
    assert_same([*["m f=1 5"] * FEWEST_LINES, *lines])
    assert not read(lines).logs


@pytest.mark.slow
@UNHURRIED
@given(SHAPES, st.integers(1, 400), st.booleans())
def test_many_lines_of_one_form_have_the_same_logs_however_they_arrive(point: Point, size: int, ends: bool) -> None:
    lines = [point.line()] * (FEWEST_LINES + 4)
    data = ("\n".join(lines) + "\n" * ends).encode()
    reader = LineProtocolReader(LIMITS, BatchLimits(max_reported=1000), 1, NOW)
    for start in range(0, len(data), size):
        reader.feed(data[start : start + size])
    reader.finish()
    batch, (logs, positions, rejected) = reader.take(), read_one_by_one(lines)
    assert list(map(in_any_order, batch.logs)) == list(map(in_any_order, logs))
    assert (list(batch.positions), batch.rejected) == (positions, rejected)


# Parts of lines that are plain, nearly plain or invalid.
HEADS = st.sampled_from(
    ["m", "#m", " m", "\tm", "m\t", "é", 'm"', "m=x", "m\\ x", "m\\", "(m$", "\u2028m", "m\x85", "n,a=b", "n,b=1,a=2",
     "n,a=b,a=b", "n,product_imei=352099001761481", "n,repair_id=012,product_imei=352099001761481", "n,product_imei=1",
     'n,a="x"', 'n,"a=b', "n,a=\\,", "n,a=😀", "n,timestamp=1", "n,a=", "n,a=\x1f"]
)  # fmt: skip
FIELD_KEYS = st.sampled_from(
    ["f", "g", "aa", "b", "é", "zz", "timestamp", "f\\ g", 'f"', "\t", "😀", "\uffff", "f\r", "", "#"]
)
FIELD_VALUES = st.sampled_from(
    ["1", "1i", "1u", "0", "-0", "-0i", "1.0", "0.10", "1e3", "1E+23", "1e400", "1.", "-.5", "007", "+1",
     "9007199254740993", "9007199254740993i", "999999999999999999i", "9223372036854775807i", "9223372036854775808i",
     "18446744073709551615u", "18446744073709551616", "99999999999999999999", "123456789012345678901", "5e-324", "1e15",
     "0.000000000000000000000000000001", "t", "True", "FALSE", "tru", "NaN", '""', '"a,b=c d"', '"a=\\"b"', '"a\\\\"',
     '"a\n#m f=1 5\nb"', '"\r"', '"\x7f"', '"\u2028"', '"😀"', '"-0.0"', '"1e23"', '"a', '"x"y']
)  # fmt: skip
ENDS = st.sampled_from(
    ["", " 5", " -5", " 0", " -0", " 05", " 5 ", "  5", " 5x", " 1706708700123456789", " 9223372036854775806",
     " 9223372036854775807", " -9223372036854775808", " 99999999999999999999", " 2562047", " \u0661"]
)  # fmt: skip
FIELDS = st.lists(st.tuples(FIELD_KEYS, FIELD_VALUES).map("=".join), min_size=1, max_size=4).map(",".join)
HOSTILE = st.builds("{} {}{}".format, HEADS, FIELDS, ENDS)
OTHER = HOSTILE | st.sampled_from(["", " ", "#", "\r", "\x85"])
RUNS = st.tuples(HOSTILE, st.integers(FEWEST_LINES - 2, FEWEST_LINES + 4)) | st.tuples(OTHER, st.integers(1, 3))


@pytest.mark.slow
@UNHURRIED
@given(
    st.lists(RUNS, min_size=1, max_size=4), st.sampled_from(["\n", "\n", "\r\n"]), st.booleans(),
    st.sampled_from([1, 1000, 10**9, 3600 * 10**9]), st.lists(st.integers(1, 2000), max_size=4),
    st.sampled_from([LIMITS, RecordLimits(max_record_bytes=700, max_nesting=32)]),
)  # fmt: skip
def test_hostile_text_in_pieces_has_the_results_of_its_lines(
    runs: list[tuple[str, int]], line_end: str, ends: bool, unit: int, pieces: list[int], limits: RecordLimits
) -> None:
    text = line_end.join(line for line, count in runs for _ in range(count)) + line_end * ends
    data = text.encode()
    reader = LineProtocolReader(limits, BatchLimits(max_reported=1000), unit, NOW)
    for size in pieces:
        reader.feed(data[:size])
        data = data[size:]
    reader.feed(data)
    reader.finish()
    batch, (logs, positions, rejected) = reader.take(), read_one_by_one([text], limits, unit)
    assert list(map(in_any_order, batch.logs)) == list(map(in_any_order, logs))
    assert (list(batch.positions), batch.rejected) == (positions, rejected)


@pytest.mark.parametrize(
    "kind", ["m\0,a=b f=1 1", "m\udcff,a=b f=1 1", "m\udcff=1", "m,a=b \0=1 1", "m,\udcff=b f=1 1"]
)
def test_a_name_that_cannot_be_stored_is_refused_in_many_lines_too(kind: str) -> None:
    assert read([kind] * 40).rejected == 40


@pytest.mark.parametrize("length", range(0, 260, 5))
def test_the_size_limit_is_the_same_for_any_number_of_lines(length: int) -> None:
    limits = RecordLimits(max_record_bytes=350, max_nesting=32)
    assert_same([f'm,a=b f="{"é" * length}" 1'] * 20, limits)
    assert_same([f"m,a=b f=0.{'0' * 29}1,g={'1' * 20}.{'0' * length} 1"] * 20, limits)


def test_lines_without_a_time_get_the_current_time_and_are_not_all_timed() -> None:
    reader = LineProtocolReader(LIMITS, BatchLimits(max_reported=10), 1, NOW)
    reader.feed(b"m f=1 5\n" * 20)
    assert reader.all_timed
    reader.feed(b"m f=1\n" * 20)
    assert not reader.all_timed
    assert reader.take().logs[-1].timestamp == datetime(2024, 1, 31, 13, 45)
