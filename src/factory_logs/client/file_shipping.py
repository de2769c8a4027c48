"""Ship a growing file into the spool, line by line, through rotations by renaming or by copying and truncating.

A file is identified by its inode, and by bytes at its start and before the position. Its name does not identify it,
because names change at each rotation. The inode alone is not enough, because it is soon reused. A rotated file is read
to its end before the next file. Lines are stored together with the position after them, so each line is shipped once.
"""

import errno
import hashlib
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from factory_logs.client.client import Client
from factory_logs.client.errors import InvalidLogError, SpoolError
from factory_logs.client.spool import FilePosition, RejectedLine
from factory_logs.client.spool_lock import SpoolLock

BOM = b"\xef\xbb\xbf"
MARK_BYTES = 256
_NUMBER = re.compile(r"\.[0-9]{1,3}", re.ASCII)
_DATE = re.compile(r"[.-][0-9]{4}[0-9T:_.-]*", re.ASCII)
READ_BYTES = 1024 * 1024
"""The maximum number of bytes read at a time; a longer line is split."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Complete lines without line ends, and the position after them."""

    lines: list[bytes]
    position: FilePosition


class FollowedFile:
    """Reads the lines of `path` from `start`; None means the beginning.

    `rotated_seconds` is the time that the reader stays in a rotated file after the last write, because its writer may
    continue with it for a while.
    """

    def __init__(
        self,
        path: Path,
        start: FilePosition | None,
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
        self._seen = 0, b""
        self._nuls_end = 0
        self._unfinished_bytes = 0
        self._silent_since: float | None = None
        self.lost_track = False
        """Whether a file was removed before it was read to its end."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def read(self, *, to_the_end: bool = False) -> Chunk | None:
        """Return the next complete lines, or None if there are none yet.

        With `to_the_end`, do not wait for the writer of a rotated file. If the last line has no line end, it is not
        returned, because its writer may not have finished it; in a rotated file it counts as a line.
        """
        while True:
            file = self._file or self._first()
            if file is None:
                return None
            if not _continues(file, self._position, self._mark):
                self._truncated(file)
                continue
            if not _continues(file, *self._seen) and self._is_copied():
                continue
            is_over = self._is_over(
                file, to_the_end
            )  # checked before reading, so that lines written in between are not missed
            chunk = self._lines(file, last=is_over)
            if chunk is not None:
                self._silent_since = None
                return chunk
            if not is_over:
                return None
            self._go_to(self._after(file), 0)

    def _first(self) -> BinaryIO | None:
        """Open the file that was read last, under its current name. If it no longer exists, open the file at the
        path."""
        if self._start is not None:
            start, self._start = self._start, None
            path = self._find(start)
            if path is not None:
                return self._go_to(path, start.position)
            self.lost_track = True
        return self._go_to(self._path, 0)

    def _go_to(self, path: Path, position: int) -> BinaryIO | None:
        if self._file is not None:
            self._file.close()
        self._silent_since = None
        try:
            self._file = path.open("rb", buffering=0)
        except FileNotFoundError:
            self._file = None
            return None
        self._position = position
        self._nuls_end = 0
        self._mark = _mark(self._file, position)
        self._seen = position, self._mark
        return self._file

    def _find(self, start: FilePosition) -> Path | None:
        """Return the current path of the file that a position belongs to: its own name, a rotated name, or a copy."""
        found = [path for path in (self._path, *self._rotated()) if _is_continued_by(path, start)]
        same_inode = [path for path in found if _inode(path) == start.inode]
        return next(iter(same_inode or found), None)

    def _rotated(self) -> list[Path]:
        """Return `name.1`, `name.2` and so on, then `name-20240131`, `name.2024-01-30` and similar names; newest
        first."""
        numbered: list[tuple[int, Path]] = []
        dated: list[tuple[str, Path]] = []
        for path in self._path.parent.iterdir():
            name, ending = path.name[: len(self._path.name)], path.name[len(self._path.name) :]
            if name != self._path.name:
                continue
            if _NUMBER.fullmatch(ending):
                numbered.append((int(ending[1:]), path))
            elif _DATE.fullmatch(ending):
                dated.append((ending[1:], path))
        return [path for _, path in [*sorted(numbered), *sorted(dated, reverse=True)]]

    def _truncated(self, file: BinaryIO) -> None:
        """Continue in the copy that was made before the open file was truncated."""
        left_off = self._here(file)
        copy = next((path for path in self._rotated() if _is_continued_by(path, left_off)), None)
        if copy is None:
            self.lost_track = True
            self._go_to(self._path, 0)
        else:
            self._go_to(copy, left_off.position)

    def _is_copied(self) -> bool:
        """Return whether the file was copied and truncated within a line. If so, continue in the copy, which contains
        the whole line.

        Before the first line of a file is read, this is the only way to detect a truncation.
        """
        seen = FilePosition(stored_name(self._path), 0, *self._seen)
        copy = next((path for path in self._rotated() if _is_continued_by(path, seen)), None)
        if copy is None:
            self._seen = self._position, self._mark
            return False
        self._go_to(copy, self._position)
        return True

    def _is_over(self, file: BinaryIO, to_the_end: bool) -> bool:
        """Return whether the open file was rotated and its writer has not written for long enough."""
        try:
            current = self._path.stat()
        except FileNotFoundError:
            return False  # the file was renamed, and the new one does not exist yet
        own = os.fstat(file.fileno())
        if (current.st_dev, current.st_ino) == (own.st_dev, own.st_ino):
            return False
        now = self._clock()
        if self._silent_since is None:
            self._silent_since = now
        return to_the_end or now - self._silent_since >= self._rotated_seconds

    def _after(self, file: BinaryIO) -> Path:
        """Return the file after the open file: the next newer rotated file, or the file at the path."""
        own = _inode_number(file)
        newer = self._path
        for path in self._rotated():
            if _inode(path) == own:
                return newer
            newer = path
        # The open file was compressed or deleted since; every file with later writes comes after it.
        since = os.fstat(file.fileno()).st_mtime_ns
        later = [path for path in reversed(self._rotated()) if _modified(path) > since]
        return next(iter(later), self._path)

    @property
    def unfinished_bytes(self) -> int:
        """The number of bytes after the last complete line at the last `read`."""
        return self._unfinished_bytes

    def _lines(self, file: BinaryIO, *, last: bool) -> Chunk | None:
        start = self._after_nuls(file)
        data = _read(file, start, READ_BYTES)
        if last and len(data) < READ_BYTES:
            whole = len(data)
        else:
            whole = data.rfind(b"\n") + 1 or (len(data) if len(data) == READ_BYTES else 0)
        self._unfinished_bytes = len(data) - whole
        if data:
            self._seen = start + len(data), _mark(file, start + len(data))
        if whole == 0:
            return None  # stay before the NULs, because a mark of only NULs would match other files too
        text = data[:whole].removeprefix(BOM) if start == 0 else data[:whole]
        self._position = start + whole
        self._mark = _mark(file, self._position)
        lines = (line.lstrip(b"\0") for line in text.split(b"\n"))
        return Chunk([line for line in lines if line.strip()], self._here(file))

    def _after_nuls(self, file: BinaryIO) -> int:
        """Return the position after the following NULs. The holes of a sparse file are not read.

        If a writer does not append, it continues at its old position after a truncation, and NULs fill the space
        before.
        """
        position = self._position
        if _read(file, position, 1) != b"\0":
            return position
        if position < self._nuls_end <= _size(file):
            position = self._nuls_end
        while data := _read(file, position, READ_BYTES):
            rest = data.lstrip(b"\0")
            position += len(data) - len(rest)
            if rest:
                break
            position = _next_data(file, position)
        self._nuls_end = position
        return position

    def _here(self, file: BinaryIO) -> FilePosition:
        return FilePosition(stored_name(self._path), _inode_number(file), self._position, self._mark)


def stored_name(path: Path) -> str:
    """Return the path as text that can be stored, even if the name is not UTF-8.

    It is the same for each path to the file's folder, such as `../jig.ndjson`. A link at the path itself is kept: it
    may point to another file later.
    """
    return _as_text(path.parent.resolve() / path.name)


def _as_text(path: Path) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _size(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size


def _next_data(file: BinaryIO, position: int) -> int:
    """Return the position of the next byte outside the holes of a sparse file, or the file's end."""
    if not hasattr(os, "SEEK_DATA"):
        return position
    try:
        return os.lseek(file.fileno(), position, os.SEEK_DATA)
    except OSError as error:  # ENXIO: no data follows; other errors: the file system does not support holes
        return max(position, _size(file)) if error.errno == errno.ENXIO else position


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino % 2**63
    except OSError:
        return None


def _inode_number(file: BinaryIO) -> int:
    """Return the inode, mapped to the range of SQLite's integers."""
    return os.fstat(file.fileno()).st_ino % 2**63


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _read(file: BinaryIO, position: int, size: int) -> bytes:
    file.seek(position)
    return file.read(size)


def _mark(file: BinaryIO, position: int) -> bytes:
    """Return the bytes that identify a file that was read up to a position."""
    near = max(0, position - MARK_BYTES)
    return _read(file, 0, min(MARK_BYTES, position)) + _read(file, near, position - near)


def _continues(file: BinaryIO, position: int, mark: bytes) -> bool:
    """Return whether the file still contains the bytes that were read from it."""
    return os.fstat(file.fileno()).st_size >= position and _mark(file, position) == mark


def _is_continued_by(path: Path, start: FilePosition) -> bool:
    try:
        with path.open("rb", buffering=0) as file:
            return _continues(file, start.position, start.head)
    except OSError:
        return False


LineMaker = Callable[[bytes], bytes]
"""Converts a line of the file to the NDJSON line of a log. Raises InvalidLogError."""


class Shipper:
    """Ships one file. Raises SpoolError if another process ships the same file into the same spool."""

    def __init__(self, client: Client, path: Path, make_line: LineMaker, *, rotated_seconds: float = 2.0) -> None:
        self._client = client
        self._make_line = make_line
        name = stored_name(path)
        self._lock = SpoolLock(client.folder, f"ship-{hashlib.sha256(name.encode()).hexdigest()[:16]}.lock")
        if not self._lock.acquire():
            raise SpoolError(f"{path} is being shipped by another process")
        # Older versions stored the position under the path as it was given.
        start = client.spool.position(name) or client.spool.position(_as_text(path.absolute()))
        self.file = FollowedFile(path, start, rotated_seconds=rotated_seconds)
        self._chunk: Chunk | None = None
        self.shipped = 0
        self.rejected = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.__exit__()
        self._lock.close()

    def step(self, *, to_the_end: bool = False) -> bool:
        """Put the next lines into the spool. Return whether there were any lines.

        Raises SpoolFullError if there is no space. No line is lost: the next call tries the same lines again.
        """
        if self._chunk is None:
            self._chunk = self.file.read(to_the_end=to_the_end)
        if self._chunk is None:
            return False
        lines: list[bytes] = []
        rejects: list[RejectedLine] = []
        for line in self._chunk.lines:
            try:
                lines.append(self._make_line(line.rstrip(b"\r")))
            except InvalidLogError as error:
                rejects.append(RejectedLine(line, error.message))
        self._client.put(lines, rejects, self._chunk.position)
        self._chunk = None
        self.shipped += len(lines)
        self.rejected += len(rejects)
        return True
