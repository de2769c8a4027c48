"""The folder of a spool's file is created and flushed."""

import os
from pathlib import Path

import pytest

from factory_logs.client.errors import SpoolError
from factory_logs.client.spool import Spool

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
