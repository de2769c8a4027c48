"""The reserve of a spool's folder."""

import os
import threading
import time
from pathlib import Path

import pytest

from factory_logs.client import spool_reserve
from factory_logs.client.spool_reserve import Reserve

MIB = 1024 * 1024


def test_the_reserve_is_created_once_spent_once_and_created_again(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path, 3 * MIB + 5)
    assert not reserve.release()
    assert reserve.ensure()
    assert (tmp_path / "reserve").stat().st_size == 3 * MIB + 5
    assert reserve.release()
    assert not reserve.release()
    assert not reserve.ensure()
    assert reserve.restore()
    assert reserve.ensure()
    assert [path.name for path in tmp_path.iterdir()] == ["reserve"]


def test_a_process_that_begins_to_reserve_does_not_empty_what_another_one_has_reserved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = threading.Event(), threading.Event()
    allocate = spool_reserve._allocate
    second = threading.Thread(target=Reserve(tmp_path, MIB).restore)

    def in_steps(file: int, size: int) -> None:
        if threading.current_thread() is second:
            begun.set()
            ended.wait(60)
        allocate(file, size)
        if threading.current_thread() is not second:
            second.start()
            assert begun.wait(60)

    monkeypatch.setattr(spool_reserve, "_allocate", in_steps)
    try:
        assert Reserve(tmp_path, MIB).restore()
    finally:
        ended.set()
        second.join()
    assert (tmp_path / "reserve").stat().st_size == MIB


def test_an_unfinished_reserve_of_a_killed_process_is_removed_after_an_hour(tmp_path: Path) -> None:
    old, new = tmp_path / "reserve.17-1.new", tmp_path / "reserve.18-1.new"
    for path, age in ((old, 3601), (new, 3599)):
        path.touch()
        os.utime(path, (time.time() - age,) * 2)
    assert Reserve(tmp_path, MIB).restore()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["reserve", "reserve.18-1.new"]


def test_processes_that_create_the_reserve_at_the_same_time_share_it(tmp_path: Path) -> None:
    made: list[bool] = []
    start = threading.Barrier(8)

    def make() -> None:
        start.wait(300)
        made.append(Reserve(tmp_path, 3 * MIB).ensure())

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [True] * 8
    assert (tmp_path / "reserve").stat().st_size == 3 * MIB
