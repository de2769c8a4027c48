from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory_logs.influxdb.dump.partition import Partitioner, split_runs
from factory_logs.influxdb.line_protocol import split_head
from tests.influxdb.strategies import POINTS, Point


def numbered(*lines: str) -> list[tuple[int, str]]:
    return list(enumerate(lines, 1))


def test_lines_of_one_field_and_day_are_one_run() -> None:
    lines = numbered(
        "m,a=b f=1 1706708700123456789", "m,a=b f=2i 1706708700123456789", "m,a=b f=3 1706799999999999999",
        "m,a=b f=4 1706800000000000000", "m,a=b g=5 1706800000000000000", "m,a=c g=6 1706800000000000000",
        "m,a=c gg=7 1706800000000000000",
    )  # fmt: skip
    runs = split_runs("", lines, 14)
    assert [(run.head, run.key, run.rests[0], run.number, run.length, time_slice) for run, time_slice in runs] == [
        ("m,a=b", "f", "1 1706708700123456789", 1, 3, " 17067"),
        ("m,a=b", "f", "4 1706800000000000000", 4, 1, " 17068"),
        ("m,a=b", "g", "5 1706800000000000000", 5, 1, " 17068"),
        ("m,a=c", "g", "6 1706800000000000000", 6, 1, " 17068"),
        ("m,a=c", "gg", "7 1706800000000000000", 7, 1, " 17068"),
    ]


@pytest.mark.slow
@given(st.lists(POINTS, max_size=6), st.sampled_from([0, 2, 14]))
def test_no_line_is_lost_or_changed(points: list[Point], digits: int) -> None:
    lines = numbered(*(point.line() for point in points))
    assert [line for run, _ in split_runs("", lines, digits) for line in run.lines()] == lines
    halves = [(run.head, rest) for run, _ in split_runs("", lines, digits) for _, rest in run.after_head()]
    assert halves == [split_head(line) for _, line in lines]


TIME = st.integers(-(2**63), 2**63) | st.integers(-20, 20) | st.integers(10**18, 10**18 + 20)


@given(st.lists(st.tuples(TIME, st.integers(0, 3), st.integers(0, 2)), max_size=8), st.sampled_from([0, 1, 14]))
def test_a_time_is_in_the_same_slice_in_each_spelling(times: list[tuple[int, int, int]], digits: int) -> None:
    lines = numbered(
        *(f"m f=1 {'-' * (time < 0)}{'0' * zeros}{abs(time)}{' ' * spaces}" for time, zeros, spaces in times)
    )
    slices: dict[int, set[str]] = {}
    for run, time_slice in split_runs("", lines, digits):
        for number, _ in run.lines():
            slices.setdefault(times[number - 1][0], set()).add(time_slice)
    assert all(len(found) == 1 for found in slices.values())
    for time, (time_slice,) in slices.items():
        assert time_slice == f" {time}"[: -digits or None]


def test_long_lines_do_not_collect_in_memory(tmp_path: Path) -> None:
    partitioner = Partitioner(tmp_path, 1, (), 1)
    text = "x" * 1024 * 1024
    for number in range(1, 101):
        partitioner.add(("", [(number, f'm note="{text}" {number}')]))
    (part,) = tmp_path.iterdir()
    assert part.stat().st_size > 36 * len(text)
