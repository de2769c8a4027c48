"""The file of `--rejected`: each bad line once, whatever the instant at which an import is killed.

A part's lines are on the disk before the part is committed, between two comments that name the dump and the part. So
what a killed run leaves is at most too much: a section without its end, or one whose part was not committed and is
written again. The last whole section of a part is the one that was committed, as a part is written by nobody but who
has claimed it; `tidy` takes the others out.
"""

import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from factory_logs.cli.reporting import CommandError, all_in_words
from factory_logs.influx.merge import RejectedLine

_BEGIN = re.compile(rb"# PART ([0-9a-f]{64}) ([0-9]+)\n")


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Bytes of the file from `start` to `end`: a section of a part of the dump, or what is none (`part` None)."""

    start: int
    end: int
    part: int | None
    whole: bool


@dataclass(frozen=True, slots=True)
class RejectedFile:
    """Shared by the processes of an import. `name` is the dump's, `source` its fingerprint."""

    path: Path
    name: str
    source: bytes

    def check(self) -> None:
        """Raises CommandError where the file cannot be written."""
        with self._locked():
            pass

    def add(self, part: int, lines: Sequence[RejectedLine]) -> None:
        """Put a part's lines on the disk: inside its transaction, after it is claimed. Raises CommandError."""
        with self._locked() as file:
            if _ends_inside_a_line(file):
                file.write(b"\n")
            file.write(b"# PART %s %d\n" % (self.source.hex().encode(), part))
            for line in lines:
                reasons = _one_line(all_in_words(line.faults))
                text = f"# {self.name}:{line.number}: {reasons}\n{line.context}{line.line}\n"
                file.write(text.encode(errors="surrogateescape"))
            file.write(_end(self.source, part))
            file.flush()
            if _is_regular(file.fileno()):
                os.fsync(file.fileno())

    def tidy(self) -> None:
        """Take out what killed runs left, once all parts are stored. Raises CommandError."""
        if not self.path.is_file():
            return
        with self._locked() as file:
            found = list(_stretches(file, self.source))
            last = {stretch.part: stretch for stretch in found if stretch.whole}
            kept = [stretch for stretch in found if stretch.part is None or last.get(stretch.part) is stretch]
            if len(kept) < len(found):
                _replace(self.path.resolve(), file, kept)

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        """The file, at its end, with nobody else writing it."""
        try:
            while True:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
                with os.fdopen(descriptor, "r+b" if _is_regular(descriptor) else "wb") as file:
                    if _is_regular(file.fileno()):
                        fcntl.flock(file, fcntl.LOCK_EX)
                        if not os.path.samestat(os.fstat(descriptor), os.stat(self.path)):
                            continue  # replaced while we waited
                    yield file
                    return
        except OSError as error:
            raise CommandError(f"{self.path}: {error.strerror}") from None


def _end(source: bytes, part: int) -> bytes:
    return b"# END OF PART %s %d\n" % (source.hex().encode(), part)


def _one_line(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n")


def _is_regular(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)


def _ends_inside_a_line(file: BinaryIO) -> bool:
    if not _is_regular(file.fileno()) or file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"


def _stretches(file: BinaryIO, source: bytes) -> Iterator[_Stretch]:
    """The file from its start to its end. No line is taken for a marker: none can hold its own dump's fingerprint."""
    hexadecimal = source.hex().encode()
    file.seek(0)
    start = position = 0
    part: int | None = None
    for line in file:
        begin = _BEGIN.fullmatch(line)
        if begin:
            yield _Stretch(start, position, part, whole=False)
            start, part = position, int(begin[2]) if begin[1] == hexadecimal else None
        position += len(line)
        if part is not None and line == _end(source, part):
            yield _Stretch(start, position, part, whole=True)
            start, part = position, None
    yield _Stretch(start, position, part, whole=False)


def _replace(path: Path, file: BinaryIO, kept: Sequence[_Stretch]) -> None:
    """By one rename, so that a kill leaves the old file or the new one."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as new:
        try:
            for stretch in kept:
                file.seek(stretch.start)
                left = stretch.end - stretch.start
                while left and (piece := file.read(min(left, 1024 * 1024))):
                    new.write(piece)
                    left -= len(piece)
            new.flush()
            os.fsync(new.fileno())
            shutil.copymode(path, new.name)
            os.replace(new.name, path)
        except BaseException:
            os.unlink(new.name)
            raise
