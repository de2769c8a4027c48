import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory_logs.errors import BadRequestError
from factory_logs.influxdb import line_reader
from factory_logs.influxdb.line_reader import LineProtocolReader, LineSplitter, read_only_line
from factory_logs.ingest.batch_collector import BatchLimits
from factory_logs.ingest.validation import NewLog
from factory_logs.schemas.record_limits import RecordLimits
from tests.influxdb.lines import split_lines
from tests.influxdb.strategies import POINTS, Point


def in_lines(points: list[Point]) -> str:
    return "\n".join(point.line() for point in points)


def fed(text: str, sizes: list[int], limit: int = 10_000) -> list[tuple[int, str]]:
    splitter, lines, start = LineSplitter(limit), [], 0
    for size in sizes:
        lines += splitter.feed(text[start : start + size])
        start += size
    return [*lines, *splitter.feed(text[start:]), *splitter.finish()]


@pytest.mark.slow
@given(st.lists(POINTS, max_size=6), st.sampled_from(["\n", "\r\n"]), st.lists(st.integers(0, 20), max_size=8))
def test_lines_are_whole_however_the_text_arrives(points: list[Point], end: str, sizes: list[int]) -> None:
    text = end.join(point.line() for point in points)
    lines = fed(text, sizes)
    assert [line for _, line in lines] == [point.line() for point in points]
    assert [number for number, _ in lines] == [
        1 + sum(point.line().count("\n") + 1 for point in points[:index]) for index in range(len(points))
    ]


@given(st.text(st.sampled_from('m f=",\\\n#1'), max_size=60), st.lists(st.integers(0, 9), max_size=8))
def test_the_pieces_of_a_text_make_no_difference(text: str, sizes: list[int]) -> None:
    assert fed(text, sizes) == list(split_lines(text, 10_000))


@given(st.text(st.sampled_from('m f=",\\\n#1'), max_size=60) | st.lists(POINTS, max_size=3).map(in_lines))
def test_checking_only_the_last_quote_makes_no_difference(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_reader, "_is_surely_closed", lambda line: False)
        looked_into = list(split_lines(text, 10_000))
    assert list(split_lines(text, 10_000)) == looked_into


def test_comments_and_blank_lines_are_left_out_and_counted() -> None:
    text = '# one "quote\n\n  \r\n  # two\nm f=1\r\n#m f=1\nm\\ #x f=2'
    assert list(split_lines(text, 100)) == [(5, "m f=1"), (7, "m\\ #x f=2")]


def test_a_quote_in_a_name_opens_no_string() -> None:
    text = 'm"x,a=b"c "f=1,g=2\nm f="\nx",h"=1,i="\n",j=2\nm f=1'
    assert [line for _, line in split_lines(text, 100)] == ['m"x,a=b"c "f=1,g=2', 'm f="\nx",h"=1,i="\n",j=2', "m f=1"]


def test_a_string_without_an_end_takes_no_more_than_the_limit() -> None:
    text = 'm f="' + "x\n" * 100 + "m g=1\n"
    lines = list(split_lines(text, 50))
    assert len(lines[0][1]) == 51
    assert lines[-1] == (101, "m g=1")


def test_a_line_over_the_limit_is_cut_off_and_the_next_is_whole() -> None:
    text = "m f=" + "1" * 100 + "\nm g=1"
    for size in (1, 7, 1000):
        lines = fed(text, [size] * (len(text) // size), limit=20)
        assert [(number, line[:20]) for number, line in lines] == [(1, "m f=" + "1" * 16), (2, "m g=1")]
        assert len(lines[0][1]) > 20


def test_a_string_over_the_limit_is_cut_off_and_the_next_line_is_whole() -> None:
    text = 'm f="a\n' + "1" * 100 + '"\nm g=1'
    for size in (1, 7, 30, 1000):
        lines = fed(text, [size] * (len(text) // size), limit=20)
        assert [(number, line[:20]) for number, line in lines] == [(1, 'm f="a\n' + "1" * 13), (3, "m g=1")]
        assert len(lines[0][1]) > 20


def test_the_end_of_a_line_over_the_limit_opens_no_string() -> None:
    text = 'm f="' + "1" * 100 + ' b="\nm g=1\n'
    lines = [*(splitter := LineSplitter(20)).feed(text[:50]), *splitter.feed(text[50:]), *splitter.finish()]
    assert [number for number, _ in lines] == [1, 2]


def test_a_string_over_many_lines_takes_linear_time() -> None:
    text = 'm f="' + '\\"\n' * 300_000 + '" 1\nm g=1'
    assert [number for number, _ in split_lines(text, 10**7)] == [1, 300_001 + 1]


LIMITS = RecordLimits(100, 5)
SURELY_ONE_LINE = [b"m f=1", b"m f=1\n", b'm f="x"\n']


def only_line(body: bytes) -> tuple[NewLog | None, list[tuple[str, str]]]:
    try:
        return read_only_line(body, LIMITS, 1, 5), []
    except BadRequestError as error:
        return None, [(each.field, each.message) for each in error.errors]


@given(
    (st.text(st.sampled_from('m f=",\\\n#1é\r\t'), max_size=60) | st.lists(POINTS, max_size=2).map(in_lines)).map(
        str.encode
    )
    | st.sampled_from([b"m f=1", b"m f=1\n", b'm f="x"\n', b'm f="x', b"m f=\xff", b"m f=" + b"1" * 300])
)
def test_the_only_line_is_read_like_any_line(body: bytes) -> None:
    reader = LineProtocolReader(LIMITS, BatchLimits(), 1, 5)
    reader.read(body)
    batch = reader.take()
    log, errors = only_line(body)
    if log is None and not errors:
        assert body not in SURELY_ONE_LINE
    else:
        assert (list(batch.logs), batch.rejected) == ([] if log is None else [log], bool(errors))
        assert [(each.field, each.message) for each in batch.errors] == errors
