"""Results of InfluxQL as JSON and CSV: numbers as Go writes them, and pieces."""

import json
import math

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory_logs.influxdb.query_response import (
    DEFAULT_CHUNK_ROWS,
    CsvWriter,
    JsonWriter,
    Piece,
    indented,
    number,
    pieces,
)
from factory_logs.influxql.series import Result, ResultSeries

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"), (0.0, "0"), (-0.0, "-0"), (3.25, "3.25"), (1e15, "1000000000000000"), (1e20, "100000000000000000000"),
        (1.5e20, "150000000000000000000"), (1e21, "1e+21"), (1.5e300, "1.5e+300"), (0.0001, "0.0001"), (0.00001, "0.00001"),
        (1e-6, "0.000001"), (1.5e-7, "1.5e-7"), (1e-10, "1e-10"), (-2.5e-300, "-2.5e-300"), (123456789.125, "123456789.125"),
    ],
)  # fmt: skip
def test_floats_are_written_as_go_writes_them(value: float, text: str) -> None:
    assert orjson.dumps(number(value)).decode() == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_is_equal_after_writing_and_reading(value: float) -> None:
    found = float(orjson.dumps(number(value)))
    assert found == value
    assert math.copysign(1, found) == math.copysign(1, value)


@given(JSON)
def test_indented_json_is_the_same_as_in_go(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    assert indented(text).decode() == json.dumps(value, ensure_ascii=False, indent=4)


def series(rows: int) -> ResultSeries:
    return ResultSeries(
        "m", ["time", "v"], [[index * 1_000_000_001, index / 2] for index in range(rows)], has_time=True
    )


def test_times_are_written_in_each_unit() -> None:
    result = Result(0, [series(2)])
    for epoch, expected in (
        (None, "1970-01-01T00:00:01.000000001Z"),
        (1, 1_000_000_001),
        (1_000_000, 1000),
        (10**9, 1),
    ):
        document = json.loads(JsonWriter(epoch).document([Piece(result)]))
        assert document["results"][0]["series"][0]["values"][1][0] == expected


def test_each_piece_is_marked_if_another_one_follows() -> None:
    found = list(pieces(Result(3, [series(3), series(1)]), 2))
    assert [len(piece.result.series[0].rows) for piece in found] == [2, 1, 1]
    assert [piece.is_partial for piece in found] == [True, True, False]
    assert [piece.has_more_rows for piece in found] == [True, False, False]
    assert [piece.result.statement_id for piece in pieces(Result(1, error="x"), 2)] == [1]


def test_only_series_that_can_be_divided_are_marked_as_long() -> None:
    long = ResultSeries("m", ["key"], [[str(index)] for index in range(DEFAULT_CHUNK_ROWS + 1)])
    for is_divided, count in ((True, 2), (False, 1)):
        result = Result(0, [long], is_divided=is_divided)
        assert len(list(pieces(result, DEFAULT_CHUNK_ROWS))) == count
        (written,) = json.loads(JsonWriter(None).document([Piece(result)]))["results"][0]["series"]
        assert written.get("partial", False) is is_divided


def test_text_is_escaped_as_go_does() -> None:
    result = Result(0, [ResultSeries("", ["a"], [["<&>\u2028\x01é"]])])
    assert b'"\\u003c\\u0026\\u003e\\u2028\\u0001\xc3\xa9"' in JsonWriter(None).document([Piece(result)])


def test_csv_has_a_header_for_each_kind_of_series() -> None:
    tagged = ResultSeries(
        "m", ["time", "v", "w"], [[5, None, True], [6, 1e21, 'a,"b']], {"x": "1,2", "e": ""}, has_time=True
    )
    text = CsvWriter(None).document([Piece(Result(0, [tagged, series(1)])), Piece(Result(1, error="none"))])
    assert text.decode() == (
        'name,tags,time,v,w\nm,"x=1\\,2",5,,true\nm,"x=1\\,2",6,1000000000000000000000,"a,""b"\n\nname,tags,time,v\nm,,0,0\n'
    )
