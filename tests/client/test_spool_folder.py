"""The small files of a spool's folder: lock, status, reserve."""

import os
import shutil
import threading
import time
from pathlib import Path

import pytest

from factory_logs.client import spool_folder
from factory_logs.client.errors import SpoolError
from factory_logs.client.spool import Spool
from factory_logs.client.spool_folder import STATUS_FILE, Reserve, SenderStatus, SpoolLock

MIB = 1024 * 1024
LINE = b'{"n": 1}'


def test_a_folder_that_cannot_be_created_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpoolError, match="cannot be created"):
        Spool(tmp_path / "file" / "spool").totals()


@pytest.mark.skipif(os.name != "posix", reason="this system flushes no folders")
def test_every_new_folder_on_the_path_of_the_spool_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[Path] = []
    fsync = os.fsync

    def note(opened: int) -> None:
        flushed.append(Path(f"/proc/self/fd/{opened}").readlink())
        fsync(opened)

    monkeypatch.setattr(os, "fsync", note)
    Spool(tmp_path / "a" / "b" / "spool").put([LINE])
    assert flushed == [tmp_path, tmp_path / "a", tmp_path / "a" / "b"]
    Spool(tmp_path / "a" / "b" / "spool").put([LINE])
    Spool(tmp_path / "a" / "other").put([LINE])
    assert flushed[3:] == [tmp_path / "a"]


def test_only_one_process_holds_the_senders_lock(tmp_path: Path) -> None:
    first, second = SpoolLock(tmp_path), SpoolLock(tmp_path)
    assert first.acquire()
    assert first.acquire()
    assert not second.acquire()
    first.close()
    assert second.acquire()
    second.close()


def test_a_status_that_cannot_be_read_or_written_is_ignored(tmp_path: Path) -> None:
    (tmp_path / STATUS_FILE).write_bytes(b"{")
    assert SenderStatus(tmp_path).read() is None
    gone = SenderStatus(tmp_path / "gone")
    gone.write("trouble")
    assert gone.read() is None
    shutil.rmtree(tmp_path)


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
    allocate = spool_folder._allocate
    second = threading.Thread(target=Reserve(tmp_path, MIB).restore)

    def in_steps(file: int, size: int) -> None:
        if threading.current_thread() is second:
            begun.set()
            ended.wait(60)
        allocate(file, size)
        if threading.current_thread() is not second:
            second.start()
            assert begun.wait(60)

    monkeypatch.setattr(spool_folder, "_allocate", in_steps)
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
