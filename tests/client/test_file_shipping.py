"""Following a file: the reader reads each line exactly once, through every kind of rotation and through restarts."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from factory_logs.client import Client, file_shipping
from factory_logs.client.file_shipping import READ_BYTES, FollowedFile, Shipper, _read
from factory_logs.client.spool import FilePosition
from tests.client.factories import NOWHERE, Clock, settings

ROTATED_SECONDS = 2.0


class Reader:
    """Follows a file; a restart continues at the position that was stored with the last lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        self.lines: list[str] = []
        self.position: FilePosition | None = None
        self.file = self._opened()

    def _opened(self) -> FollowedFile:
        return FollowedFile(self.path, self.position, rotated_seconds=ROTATED_SECONDS, clock=self.clock)

    def read(self, *, to_the_end: bool = False) -> list[str]:
        """Return all lines that have arrived since the reader began."""
        while (chunk := self.file.read(to_the_end=to_the_end)) is not None:
            self.lines += [line.decode() for line in chunk.lines]
            self.position = chunk.position
        return self.lines

    def wait(self) -> None:
        """Make the reader treat a rotated file as closed by its writer."""
        self.read()
        self.clock.seconds += ROTATED_SECONDS
        self.read()

    def restart(self) -> None:
        self.file.__exit__()
        self.file = self._opened()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "jig.log"


@pytest.fixture
def reader(path: Path) -> Iterator[Reader]:
    reader = Reader(path)
    yield reader
    reader.file.__exit__()


def write(path: Path, *lines: object) -> None:
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def numbers(start: int, end: int) -> list[str]:
    return [f"line {number}" for number in range(start, end)]


def rename_away(path: Path) -> None:
    """Rotate like logrotate: each file moves up one number, and the newest becomes `.1`."""
    for number in range(8, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.rename(path.with_name(f"{path.name}.{number + 1}"))
    path.rename(path.with_name(f"{path.name}.1"))


def copy_and_truncate(path: Path) -> None:
    """Rotate like logrotate with `copytruncate`, for writers that do not reopen their file."""
    for number in range(8, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.rename(path.with_name(f"{path.name}.{number + 1}"))
    shutil.copy(path, path.with_name(f"{path.name}.1"))
    os.truncate(path, 0)


def date_away(path: Path) -> None:
    """Rotate like logrotate with `dateext`, and like Python's TimedRotatingFileHandler: the latest date is the
    newest."""
    count = len(list(path.parent.iterdir()))
    path.rename(path.with_name(f"{path.name}.2024-01-{count:02}"))


ROTATIONS = pytest.mark.parametrize("rotate", [rename_away, copy_and_truncate, date_away])
RESTARTS = pytest.mark.parametrize("restart", [False, True], ids=["running", "restarted"])


def test_a_missing_file_is_waited_for_and_blank_lines_are_skipped(path: Path, reader: Reader) -> None:
    assert reader.read() == []
    path.write_bytes(b"a\n\n  \r\nb\n")
    assert reader.read() == ["a", "b"]


def test_a_line_is_read_when_it_is_complete(path: Path, reader: Reader) -> None:
    path.write_text("whole\nhal")
    assert reader.read() == ["whole"]
    reader.restart()
    with path.open("a") as file:
        file.write("f\n")
    assert reader.read() == ["whole", "half"]


def test_an_unfinished_last_line_is_left(path: Path, reader: Reader) -> None:
    path.write_text("whole\nhalf")
    assert reader.read(to_the_end=True) == ["whole"]
    assert reader.file.unfinished_bytes == 4
    reader.restart()
    with path.open("a") as file:
        file.write(" and half\n")
    assert reader.read(to_the_end=True) == ["whole", "half and half"]
    assert reader.file.unfinished_bytes == 0


def test_a_very_long_line_is_read_in_pieces(path: Path, reader: Reader) -> None:
    path.write_text("x" * (READ_BYTES + 5) + "\nshort\n")
    assert [len(line) for line in reader.read()] == [READ_BYTES, 5, 5]


@ROTATIONS
@RESTARTS
def test_the_rest_of_a_rotated_file_is_read_before_the_next_file(
    path: Path, reader: Reader, rotate: object, restart: bool
) -> None:
    assert callable(rotate)
    write(path, *numbers(0, 20))
    assert reader.read() == numbers(0, 20)
    write(path, *numbers(20, 25))
    if restart:
        reader.restart()
    rotate(path)
    write(path, *numbers(25, 30))
    reader.wait()
    assert reader.lines == numbers(0, 30)
    assert not reader.file.lost_track


@ROTATIONS
@RESTARTS
def test_several_rotations_between_two_reads_lose_nothing(
    path: Path, reader: Reader, rotate: object, restart: bool
) -> None:
    assert callable(rotate)
    write(path, *numbers(0, 20))
    reader.read()
    for start in range(20, 50, 10):
        write(path, *numbers(start, start + 5))
        rotate(path)
        write(path, *numbers(start + 5, start + 10))
    if restart:
        reader.restart()
    for _ in range(5):
        reader.wait()
    assert reader.lines == numbers(0, 50)


@ROTATIONS
def test_a_restart_in_the_middle_of_a_rotated_file_continues_there(path: Path, reader: Reader, rotate: object) -> None:
    assert callable(rotate)
    write(path, *numbers(0, 20))
    reader.read()
    write(path, *numbers(20, 22))
    rotate(path)
    write(path, *numbers(22, 24))
    reader.read()
    assert reader.lines == numbers(0, 22)
    reader.restart()
    reader.wait()
    assert reader.lines == numbers(0, 24)


def test_a_renamed_file_that_is_still_written_is_read_to_its_end(path: Path, reader: Reader) -> None:
    with path.open("w") as writer:
        writer.write("before\n")
        writer.flush()
        reader.read()
        rename_away(path)
        reader.read()
        write(path, "new")
        assert reader.read() == ["before"]
        reader.clock.seconds += ROTATED_SECONDS / 2
        writer.write("after\n")
        writer.flush()
        assert reader.read() == ["before", "after"]
        reader.clock.seconds += ROTATED_SECONDS / 2
        assert reader.read() == ["before", "after"]
    reader.wait()
    assert reader.lines == ["before", "after", "new"]


def test_the_unfinished_last_line_of_a_rotated_file_is_read(path: Path, reader: Reader) -> None:
    path.write_text("whole\ncut o")
    reader.read()
    rename_away(path)
    write(path, "new")
    reader.wait()
    assert reader.lines == ["whole", "cut o"]
    reader.wait()
    assert reader.lines == ["whole", "cut o", "new"]


def test_a_file_with_a_reused_inode_is_not_mistaken_for_the_old_one(path: Path, reader: Reader) -> None:
    write(path, *numbers(0, 20))
    reader.read()
    assert reader.position is not None
    path.write_text("".join(f"other {number}\n" for number in range(40)))  # the same inode, and longer than before
    reader.restart()
    reader.wait()
    assert reader.lines == [*numbers(0, 20), *(f"other {number}" for number in range(40))]
    assert reader.file.lost_track


def test_a_file_that_vanished_unread_is_reported_and_the_new_one_is_read_from_its_beginning(
    path: Path, reader: Reader
) -> None:
    write(path, *numbers(0, 5))
    reader.read()
    path.unlink()
    write(path, "new")
    reader.restart()
    reader.wait()
    assert reader.lines == [*numbers(0, 5), "new"]
    assert reader.file.lost_track


def test_a_byte_order_mark_before_the_first_line_is_removed(path: Path, reader: Reader) -> None:
    path.write_bytes(b"\xef\xbb\xbfa\n\xef\xbb\xbfb\n")
    assert reader.read() == ["a", "\ufeffb"]
    rename_away(path)
    path.write_bytes(b"\xef\xbb\xbfc\n")
    reader.wait()
    assert reader.lines == ["a", "\ufeffb", "c"]


def test_a_file_with_only_a_byte_order_mark_has_no_lines(path: Path, reader: Reader) -> None:
    path.write_bytes(b"\xef\xbb\xbf\r\n")
    assert reader.read() == []


class Writer:
    """A writer that does not append: after copytruncate it continues at its old position, and NULs precede its text."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb", buffering=0)

    def write(self, *lines: str) -> None:
        self.file.write("".join(f"{line}\n" for line in lines).encode())


@pytest.fixture
def writer(path: Path) -> Iterator[Writer]:
    writer = Writer(path)
    yield writer
    writer.file.close()


@RESTARTS
def test_no_line_is_lost_because_of_nuls_from_a_writer_that_does_not_append(
    path: Path, reader: Reader, writer: Writer, restart: bool
) -> None:
    for start in range(0, 60, 20):
        writer.write(*numbers(start, start + 10))
        reader.read()
        writer.write(*numbers(start + 10, start + 15))
        if restart:
            reader.restart()
        copy_and_truncate(path)
        writer.write(*numbers(start + 15, start + 20))
        reader.wait()
    assert reader.lines == numbers(0, 60)
    assert not reader.file.lost_track


@RESTARTS
def test_a_hole_before_an_unfinished_line_is_not_mistaken_for_the_next_rotation(
    path: Path, reader: Reader, writer: Writer, restart: bool
) -> None:
    writer.write(*numbers(0, 5))
    reader.read()
    copy_and_truncate(path)
    writer.file.write(b"lin")
    reader.wait()
    writer.file.write(b"e 5\n")
    writer.write("line 6")
    if restart:
        reader.restart()
    copy_and_truncate(path)
    writer.write("line 7")
    reader.wait()
    reader.wait()
    assert reader.lines == numbers(0, 8)


def test_a_sparse_hole_of_300_mb_is_skipped_without_reading_it(
    path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    with path.open("wb") as file:
        file.seek(300_000_000)
        file.write(b"line 0\n")
    if path.stat().st_blocks * 512 > 1_000_000:
        pytest.skip("this file system has no holes")
    read_bytes = 0

    def count(file: BinaryIO, position: int, size: int) -> bytes:
        nonlocal read_bytes
        data = _read(file, position, size)
        read_bytes += len(data)
        return data

    monkeypatch.setattr(file_shipping, "_read", count)
    assert reader.read() == ["line 0"]
    assert read_bytes < 10 * READ_BYTES
    reader.restart()
    write(path, "line 1")
    assert reader.read() == ["line 0", "line 1"]


def test_nuls_that_a_power_cut_left_between_lines_are_skipped(path: Path, reader: Reader) -> None:
    path.write_bytes(b"a\n" + b"\0" * (3 * READ_BYTES + 17) + b"b\nc\n" + b"\0" * 10)
    assert reader.read() == ["a", "b", "c"]
    with path.open("ab") as file:
        file.write(b"d\n")
    assert reader.read() == ["a", "b", "c", "d"]


def test_a_file_is_shipped_once_by_any_path_to_its_folder(tmp_path: Path) -> None:
    folder, linked = tmp_path / "logs", tmp_path / "linked"
    folder.mkdir()
    linked.symlink_to(folder)
    (folder / "jig.ndjson").write_bytes(b"1\n2\n")
    with Client(NOWHERE, "t", spool=tmp_path / "spool", settings=settings(exit_seconds=0)) as client:
        counts = []
        for path in (folder, linked, folder / ".." / "logs"):
            with Shipper(client, path / "jig.ndjson", bytes) as shipper:
                while shipper.step(to_the_end=True):
                    pass
                counts.append(shipper.shipped)
        assert counts == [2, 0, 0]


def test_a_position_that_an_older_version_stored_is_found(tmp_path: Path) -> None:
    folder, linked = tmp_path / "logs", tmp_path / "linked"
    folder.mkdir()
    linked.symlink_to(folder)
    file = folder / "jig.ndjson"
    file.write_bytes(b"1\n2\n")
    old = FilePosition(str(linked / "jig.ndjson"), file.stat().st_ino, 2, b"1\n1\n")
    with Client(NOWHERE, "t", spool=tmp_path / "spool", settings=settings(exit_seconds=0)) as client:
        client.spool.put([], position=old)
        with Shipper(client, linked / "jig.ndjson", bytes) as shipper:
            while shipper.step(to_the_end=True):
                pass
            assert shipper.shipped == 1
