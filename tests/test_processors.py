"""The processors of this machine and how busy they are."""

import time
from pathlib import Path

import pytest

from factory_logs import processors
from factory_logs.processors import ProcessorTimes, processor_times, usable_cores


def test_there_is_at_least_one_usable_core() -> None:
    assert usable_cores() >= 1


def test_the_busy_share_is_that_of_the_time_between() -> None:
    assert ProcessorTimes(10, 100).busy_share(ProcessorTimes(40, 140)) == 0.75
    assert ProcessorTimes(10, 100).busy_share(ProcessorTimes(10, 100)) is None


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="there is no /proc/stat")
def test_the_times_of_this_machine_grow() -> None:
    before = processor_times()
    time.sleep(0.1)
    after = processor_times()
    assert before
    assert after
    share = before.busy_share(after)
    assert share is None or 0 <= share <= 1
    assert after.total > before.total


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("cpu  10 1 5 100 4 1 1 2 0 0\ncpu0 1 2 3\n", ProcessorTimes(20, 124)),
        ("cpu 1 2\n", None),
        ("", None),
        ("cpu a b c d e f g h\n", None),
    ],
)
def test_the_first_line_of_proc_stat_has_the_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, times: ProcessorTimes | None
) -> None:
    file = tmp_path / "stat"
    file.write_text(text)
    monkeypatch.setattr(processors, "_STAT", file)
    assert processor_times() == times


def test_a_system_without_proc_stat_has_no_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processors, "_STAT", tmp_path / "missing")
    assert processor_times() is None
