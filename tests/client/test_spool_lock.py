"""The sender's lock and its status."""

import shutil
from pathlib import Path

from factory_logs.client.spool_lock import SENDER, STATUS_FILE, SenderStatus, SpoolLock


def test_only_one_process_holds_the_senders_lock(tmp_path: Path) -> None:
    first, second = SpoolLock(tmp_path), SpoolLock(tmp_path)
    assert first.acquire()
    assert first.acquire()
    assert not second.acquire()
    first.close()
    assert second.acquire()
    second.close()


def test_a_lock_whose_file_was_damaged_can_be_acquired(tmp_path: Path) -> None:
    (tmp_path / SENDER).write_bytes(b"garbage" * 1000)
    first, second = SpoolLock(tmp_path), SpoolLock(tmp_path)
    assert first.acquire()
    assert not second.acquire()
    first.close()


def test_a_lock_whose_file_was_deleted_is_not_held(tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    folder.mkdir()
    first, second = SpoolLock(folder), SpoolLock(folder)
    assert first.acquire()
    shutil.rmtree(folder)
    assert not first.held
    folder.mkdir()
    assert second.acquire()
    assert not first.held
    assert not first.acquire()
    second.close()
    assert first.acquire()
    assert first.held
    first.close()


def test_a_status_that_cannot_be_read_or_written_is_ignored(tmp_path: Path) -> None:
    (tmp_path / STATUS_FILE).write_bytes(b"{")
    assert SenderStatus(tmp_path).read() is None
    gone = SenderStatus(tmp_path / "gone")
    gone.write("trouble")
    assert gone.read() is None
    shutil.rmtree(tmp_path)


def test_a_trouble_that_names_a_file_whose_name_is_no_text_is_recorded(tmp_path: Path) -> None:
    SenderStatus(tmp_path).write("the token file to\udcffken cannot be read")  # as os.fsdecode() returns it
    trouble = SenderStatus(tmp_path).read()
    assert trouble is not None
    assert trouble.message == r"the token file to\udcffken cannot be read"
