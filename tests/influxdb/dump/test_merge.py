"""Reading by column has the same result as reading line by line, and parts that are too large are split."""

import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from factory_logs.influxdb.dump import merge, partition
from factory_logs.influxdb.dump.formats import line_groups
from factory_logs.influxdb.dump.merge import MergedPart, PartMerger, read_column
from factory_logs.influxdb.dump.partition import DumpPart, LineRun, Partitioner
from factory_logs.ingest.validation import NewLog
from factory_logs.schemas.record_limits import RecordLimits
from tests.influxdb.strategies import escaped, written

DAY = 1_706_708_700_000_000_000
LIMITS = RecordLimits(max_record_bytes=2_000, max_nesting=32)


def partitioned(folder: Path, lines: Sequence[str], done: Sequence[int] = ()) -> list[DumpPart]:
    text = "\n".join(lines).encode("utf-8", "surrogateescape")
    found = Partitioner(folder, len(text), done, 1)
    for group in line_groups([text], 10_000):
        found.add(group)
    return found.parts()


def both_ways(folder: Path, lines: Sequence[str]) -> tuple[MergedPart, MergedPart]:
    merger, (part,) = PartMerger(LIMITS, 1, 10_000), partitioned(folder, lines)
    by_column = merger.merge(part.path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge, "read_column", lambda run: None)
        by_line = merger.merge(part.path)
    part.path.unlink()
    return by_column, by_line


def reported(part: MergedPart) -> object:
    """Return the stored and the refused records; jsonb does not keep the order of keys."""
    logs = [log._replace(fields="".join(sorted(log.fields or ""))) for log in part.logs]
    bad = {number: error.errors for number, error in part.bad_lines.items()}
    return sorted(logs, key=repr), bad, {key: error.errors for key, error in part.bad_points.items()}


VALUES = st.one_of(
    st.lists(st.booleans() | st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5),
    st.lists(st.booleans(), min_size=1, max_size=5),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5),
    st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5),
    st.lists(st.floats(-1000, 1000).map(lambda number: round(number, 2)), min_size=1, max_size=5),
    st.lists(st.text(max_size=10), min_size=1, max_size=5),
)
KEYS = st.sampled_from(["f", "g", "gg", "ü", "two words", "tags"])


@given(st.lists(st.tuples(KEYS, VALUES, st.integers(0, 3), st.integers(1, 2)), min_size=1, max_size=5))
def test_a_run_reads_the_same_as_its_single_lines(
    tmp_path_factory: pytest.TempPathFactory, columns: list[tuple[str, list[object], int, int]]
) -> None:
    lines = [
        f"m {escaped(key)}={written(value)} {DAY + first + step * index}"
        for key, values, first, step in columns
        for index, value in enumerate(values)
    ]
    by_column, by_line = both_ways(tmp_path_factory.mktemp("part"), lines)
    assert reported(by_column) == reported(by_line)


@pytest.mark.parametrize(
    "value",
    ["1", "-0", "1e+23", "1e-07", "0.10", "007", "1e400", "1e+400", "nan", "1_0", "+1", ".5", "12i", "-0i", "01i",
     "1_0i", "9223372036854775807i", "9223372036854775808i", "18446744073709551615u", "true", "t", "TRUE", '"a"',
     '"a,b= c 5"', r'"a\"b"', r'"a\\"', '"\t"', '"\0"', '"\udcff"', '"é"', '"""', '"a"b', '"', "", "1,g=2",
     '"' + "x" * 2_000 + '"', '"' + "é" * 900 + '"', "1 5", "١"],
)  # fmt: skip
def test_each_kind_of_value_reads_the_same(tmp_path: Path, value: str) -> None:
    by_column, by_line = both_ways(tmp_path, [f"m f={value} {DAY}", f"m f={value} {DAY + 1}"])
    assert reported(by_column) == reported(by_line)


@pytest.mark.parametrize(
    "time",
    ["5", "0", "-5", "-0", "05", "+5", "5.0", "٥", "9223372036854775806", "9223372036854775807", "", "5 ", "now"],
)
def test_each_kind_of_time_reads_the_same(tmp_path: Path, time: str) -> None:
    by_column, by_line = both_ways(tmp_path, [f"m f=1 {time}", f"m g=1 {time}"])
    assert reported(by_column) == reported(by_line)


def test_the_size_limit_is_the_same_to_the_byte(tmp_path: Path) -> None:
    room = LIMITS.max_record_bytes - len(
        '{"app_name":"m","timestamp":"2024-01-31 13:45:00.000001","tags":{"a":"b"},"fields":{"f":"","g":""}}'
    )
    for more, stored in ((0, 1), (1, 0)):
        lines = [f'm,a=b f="{"x" * (room - 10)}" {DAY + 1000}', f'm,a=b g="{"x" * (10 + more)}" {DAY + 1000}']
        by_column, by_line = both_ways(tmp_path, lines)
        assert reported(by_column) == reported(by_line)
        assert (len(by_column.logs), len(by_column.bad_points)) == (stored, 1 - stored)


def test_the_lines_of_an_export_are_read_by_column() -> None:
    for rests in (["1 1", "-2.5 2", "1e-07 3"], ["1i 1", "-2i 2"], ["true 1", "false 2"], ['"a b" 1', '"é" 2']):
        assert read_column(LineRun("", "m", "f", 1, len(rests), "\n".join(rests))) is not None


def test_a_part_that_is_too_large_is_always_partitioned_in_the_same_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a dense series, all points are in one slice of time, and so at first in one part."""
    monkeypatch.setattr(partition, "PART_BYTES", 2_000)
    monkeypatch.setattr(partition, "LARGEST_PART_BYTES", 4_000)
    lines = [f"m {key}={n}i {DAY + n}" for key in ("f", "g") for n in range(100)] + [f"m h=1i {DAY}"]
    merger = PartMerger(LIMITS, 1, 10_000)

    def logs_of(part: DumpPart) -> list[NewLog]:
        return merger.merge(part.path).logs

    (first := tmp_path / "1").mkdir()
    parts = partitioned(first, lines)
    assert len({part.number for part in parts}) == len(parts) > 4
    assert sum(part.lines for part in parts) == len(lines)
    stored = {part.number: logs_of(part) for part in parts}
    assert sorted(log.fields or "" for logs in stored.values() for log in logs) == sorted(
        ['{"f":0,"g":0,"h":1}', *(f'{{"f":{n},"g":{n}}}' for n in range(1, 100))]
    )
    done = list(stored)[::2]
    (second := tmp_path / "2").mkdir()
    assert {part.number: logs_of(part) for part in partitioned(second, lines, done)} == {
        number: logs for number, logs in stored.items() if number not in done
    }


def test_the_logs_of_a_part_are_in_memory_once(tmp_path: Path) -> None:
    lines = [f"m,jig=J-{jig} f={point} {DAY + point * 1000}" for jig in range(50) for point in range(100)]
    merger, (file,) = PartMerger(LIMITS, 1, 10_000), partitioned(tmp_path, lines)
    tracemalloc.start()
    try:
        part = merger.merge(file.path)
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        columns = part.take_columns()
        assert tracemalloc.get_traced_memory()[1] < 1.4 * before
    finally:
        tracemalloc.stop()
    assert (list(columns), part.logs) == (merger.merge(file.path).logs, [])
    assert len(columns) == 5000
