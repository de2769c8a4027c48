"""Following a file: each line once and none skipped, however it is rotated while somebody or nobody looks."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from factory_logs.client.followed_file import READ_BYTES, FollowedFile
from factory_logs.client.spool import Position
from tests.client.test_sender import Clock

ROTATED_SECONDS = 2.0


class Reader:
    """Follows a file; a restart goes on from the position that was stored with the last lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = Clock()
        self.lines: list[str] = []
        self.position: Position | None = None
        self.file = self._opened()

    def _opened(self) -> FollowedFile:
        return FollowedFile(self.path, self.position, rotated_seconds=ROTATED_SECONDS, clock=self.clock)

    def read(self, *, to_the_end: bool = False) -> list[str]:
        """The lines that have come, all of them since the reader began."""
        while (chunk := self.file.read(to_the_end=to_the_end)) is not None:
            self.lines += [line.decode() for line in chunk.lines]
            self.position = chunk.position
        return self.lines

    def wait(self) -> None:
        """Let a rotated file count as left by its writer."""
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
    """As logrotate does: each file one number further, the newest becomes `.1`."""
    for number in range(8, 0, -1):
        place = path.with_name(f"{path.name}.{number}")
        if place.exists():
            place.rename(path.with_name(f"{path.name}.{number + 1}"))
    path.rename(path.with_name(f"{path.name}.1"))


def copy_and_truncate(path: Path) -> None:
    """As logrotate does with `copytruncate`, for writers that keep their file open."""
    for number in range(8, 0, -1):
        place = path.with_name(f"{path.name}.{number}")
        if place.exists():
            place.rename(path.with_name(f"{path.name}.{number + 1}"))
    shutil.copy(path, path.with_name(f"{path.name}.1"))
    os.truncate(path, 0)


def date_away(path: Path) -> None:
    """As logrotate does with `dateext`, and Python's TimedRotatingFileHandler: the latest date is the newest."""
    count = len(list(path.parent.iterdir()))
    path.rename(path.with_name(f"{path.name}.2024-01-{count:02}"))


ROTATIONS = pytest.mark.parametrize("rotate", [rename_away, copy_and_truncate, date_away])
RESTARTS = pytest.mark.parametrize("restart", [False, True], ids=["running", "restarted"])


def test_a_file_that_is_not_there_yet_is_waited_for_and_blank_lines_are_nothing(path: Path, reader: Reader) -> None:
    assert reader.read() == []
    path.write_bytes(b"a\n\n  \r\nb\n")
    assert reader.read() == ["a", "b"]


def test_a_line_is_taken_when_it_has_ended(path: Path, reader: Reader) -> None:
    path.write_text("whole\nhal")
    assert reader.read() == ["whole"]
    reader.restart()
    with path.open("a") as file:
        file.write("f\n")
    assert reader.read() == ["whole", "half"]


def test_to_the_end_takes_the_last_line_without_its_end(path: Path, reader: Reader) -> None:
    path.write_text("whole\nhalf")
    assert reader.read(to_the_end=True) == ["whole", "half"]


def test_a_line_longer_than_memory_comes_in_pieces(path: Path, reader: Reader) -> None:
    path.write_text("x" * (READ_BYTES + 5) + "\nshort\n")
    assert [len(line) for line in reader.read()] == [READ_BYTES, 5, 5]


@ROTATIONS
@RESTARTS
def test_what_is_left_of_a_rotated_file_comes_before_the_next_one(
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
def test_several_rotations_while_nobody_looked_lose_nothing(
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
def test_a_restart_in_the_middle_of_a_rotated_file_goes_on_there(path: Path, reader: Reader, rotate: object) -> None:
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


def test_a_writer_that_goes_on_with_the_renamed_file_is_read_to_its_end(path: Path, reader: Reader) -> None:
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


def test_the_unfinished_last_line_of_a_rotated_file_is_taken_as_it_is(path: Path, reader: Reader) -> None:
    path.write_text("whole\ncut o")
    reader.read()
    rename_away(path)
    write(path, "new")
    reader.wait()
    assert reader.lines == ["whole", "cut o"]
    reader.wait()
    assert reader.lines == ["whole", "cut o", "new"]


def test_an_inode_that_another_file_has_got_is_not_taken_for_the_old_one(path: Path, reader: Reader) -> None:
    write(path, *numbers(0, 20))
    reader.read()
    assert reader.position is not None
    path.write_text("".join(f"other {number}\n" for number in range(40)))  # the same inode, and longer than before
    reader.restart()
    reader.wait()
    assert reader.lines == [*numbers(0, 20), *(f"other {number}" for number in range(40))]
    assert reader.file.lost_track


def test_a_file_that_vanished_unread_is_told_and_the_new_one_is_read_from_its_beginning(
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
