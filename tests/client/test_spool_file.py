"""The folder of a spool's file is created and flushed, and the pages of the file are small."""

import os
from pathlib import Path

import pytest

from factory_logs.client import spool_file
from factory_logs.client.errors import SpoolError
from factory_logs.client.outbox import Outbox
from factory_logs.client.spool import Spool

LINE = b'{"n": 1}'
FRAME_HEAD = 24
"""The bytes before each page in SQLite's write-ahead log."""


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


def test_a_commit_of_a_small_log_writes_two_small_pages(tmp_path: Path) -> None:
    spool, wal = Spool(tmp_path), tmp_path / "spool-1.sqlite3-wal"
    spool.put([LINE])
    before = wal.stat().st_size
    spool.put([LINE])
    assert wal.stat().st_size - before == 2 * (FRAME_HEAD + 1024)
    spool.file.close()


def test_a_spool_of_an_older_version_with_larger_pages_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_file, "PAGE_BYTES", 4096)
    older = Spool(tmp_path)
    older.put([LINE] * 1000)
    older.file.close()
    monkeypatch.undo()
    spool = Spool(tmp_path)
    outbox = Outbox(spool.file)
    spool.put([LINE])
    while (batch := outbox.open(100, 10_000, "jig", 0.0)) is not None:
        outbox.mark_delivered(batch)
    (tmp_path / "reserve").write_bytes(b"")
    outbox.keep_reserve(is_idle=True)
    spool.file.check()
    assert spool.totals().delivered == 1001
    spool.file.close()
