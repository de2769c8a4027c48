"""A growing file, read line by line across its rotations: renamed and made anew, or copied and truncated.

A file is known by its inode and by bytes at its beginning and before the position, never by its name: names move on at
each rotation, and an inode is soon given to the next file. What is left of a rotated file is read to its end before
the next one is begun.
"""

import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from factory_logs.client.spool import Position

MARK_BYTES = 256
_NUMBER = re.compile(r"\.[0-9]{1,3}", re.ASCII)
_DATE = re.compile(r"[.-][0-9]{4}[0-9T:_.-]*", re.ASCII)
READ_BYTES = 1024 * 1024
"""The most that is read at once; a longer line comes in pieces."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Whole lines without their ends, and the position that holds once they are taken."""

    lines: list[bytes]
    position: Position


class FollowedFile:
    """The lines of `path`, from `start` on; None is its first byte.

    `rotated_seconds`: how long a rotated file must be silent before it is left for the next one, as its writer may go
    on with it for a while.
    """

    def __init__(
        self,
        path: Path,
        start: Position | None,
        *,
        rotated_seconds: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._start = start if start is not None and start.position else None
        self._rotated_seconds = rotated_seconds
        self._clock = clock
        self._file: BinaryIO | None = None
        self._position = 0
        self._mark = b""
        self._silent_since: float | None = None
        self.lost_track = False
        """Whether a file vanished before its end was known to be reached."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, *, to_the_end: bool = False) -> Chunk | None:
        """The next lines, None where there are none now. `to_the_end` waits for nothing: not for the end of a last
        line, nor for a rotated file's writer.
        """
        while True:
            file = self._file or self._first()
            if file is None:
                return None
            if not _continues(file, self._position, self._mark):
                self._truncated(file)
                continue
            is_over = self._is_over(file, to_the_end)  # asked before reading: what is written then is read yet
            chunk = self._lines(file, last=is_over or to_the_end)
            if chunk is not None:
                self._silent_since = None
                return chunk
            if not is_over:
                return None
            self._go_to(self._after(file), 0)

    def _first(self) -> BinaryIO | None:
        """The file to begin with: what was being read, wherever it is now, else the path's own."""
        if self._start is not None:
            start, self._start = self._start, None
            place = self._find(start)
            if place is not None:
                return self._go_to(place, start.position)
            self.lost_track = True
        return self._go_to(self._path, 0)

    def _go_to(self, place: Path, position: int) -> BinaryIO | None:
        if self._file is not None:
            self._file.close()
        self._silent_since = None
        try:
            self._file = place.open("rb", buffering=0)
        except FileNotFoundError:
            self._file = None
            return None
        self._position = position
        self._mark = _mark(self._file, position)
        return self._file

    def _find(self, start: Position) -> Path | None:
        """Where the file of a position is now: under its own name, a rotated one, or as a copy made of it."""
        found = [place for place in (self._path, *self._rotated()) if _is_continued_by(place, start)]
        same_inode = [place for place in found if _inode(place) == start.inode]
        return next(iter(same_inode or found), None)

    def _rotated(self) -> list[Path]:
        """`name.1`, `name.2` and so on, then `name-20240131`, `name.2024-01-30` and the like; the newest first."""
        numbered: list[tuple[int, Path]] = []
        dated: list[tuple[str, Path]] = []
        for place in self._path.parent.iterdir():
            name, ending = place.name[: len(self._path.name)], place.name[len(self._path.name) :]
            if name != self._path.name:
                continue
            if _NUMBER.fullmatch(ending):
                numbered.append((int(ending[1:]), place))
            elif _DATE.fullmatch(ending):
                dated.append((ending[1:], place))
        return [place for _, place in [*sorted(numbered), *sorted(dated, reverse=True)]]

    def _truncated(self, file: BinaryIO) -> None:
        """The open file was emptied, so a copy of it was made first: read that one on from where we are."""
        left_off = self._here(file)
        copy = next((place for place in self._rotated() if _is_continued_by(place, left_off)), None)
        if copy is None:
            self.lost_track = True
            self._go_to(self._path, 0)
        else:
            self._go_to(copy, left_off.position)

    def _is_over(self, file: BinaryIO, to_the_end: bool) -> bool:
        """Whether the open file was rotated away and its writer has been silent for long enough."""
        try:
            current = self._path.stat()
        except FileNotFoundError:
            return False  # renamed and not made anew yet
        own = os.fstat(file.fileno())
        if (current.st_dev, current.st_ino) == (own.st_dev, own.st_ino):
            return False
        now = self._clock()
        if self._silent_since is None:
            self._silent_since = now
        return to_the_end or now - self._silent_since >= self._rotated_seconds

    def _after(self, file: BinaryIO) -> Path:
        """The file that followed the open one: the next newer rotated one, or the path's own."""
        own = _inode_of(file)
        newer = self._path
        for place in self._rotated():
            if _inode(place) == own:
                return newer
            newer = place
        # Compressed or deleted meanwhile: whatever was written to later than it comes after it.
        since = os.fstat(file.fileno()).st_mtime_ns
        later = [place for place in reversed(self._rotated()) if _modified(place) > since]
        return next(iter(later), self._path)

    def _lines(self, file: BinaryIO, *, last: bool) -> Chunk | None:
        data = _read(file, self._position, READ_BYTES)
        whole = len(data) if last or len(data) == READ_BYTES else 0
        whole = data.rfind(b"\n") + 1 or whole
        if last and len(data) < READ_BYTES:
            whole = len(data)
        if whole == 0:
            return None
        self._position += whole
        self._mark = _mark(file, self._position)
        return Chunk([line for line in data[:whole].split(b"\n") if line.strip()], self._here(file))

    def _here(self, file: BinaryIO) -> Position:
        return Position(str(self._path.absolute()), _inode_of(file), self._position, self._mark)


def _inode(place: Path) -> int | None:
    try:
        return place.stat().st_ino % 2**63
    except OSError:
        return None


def _inode_of(file: BinaryIO) -> int:
    """The inode, as SQLite's integers hold it."""
    return os.fstat(file.fileno()).st_ino % 2**63


def _modified(place: Path) -> int:
    try:
        return place.stat().st_mtime_ns
    except OSError:
        return 0


def _read(file: BinaryIO, position: int, size: int) -> bytes:
    file.seek(position)
    return file.read(size)


def _mark(file: BinaryIO, position: int) -> bytes:
    """Bytes by which a file that was read up to a position is known again."""
    near = max(0, position - MARK_BYTES)
    return _read(file, 0, min(MARK_BYTES, position)) + _read(file, near, position - near)


def _continues(file: BinaryIO, position: int, mark: bytes) -> bool:
    """Whether the file still has what was read of it."""
    return os.fstat(file.fileno()).st_size >= position and _mark(file, position) == mark


def _is_continued_by(place: Path, start: Position) -> bool:
    try:
        with place.open("rb", buffering=0) as file:
            return _continues(file, start.position, start.head)
    except OSError:
        return False
