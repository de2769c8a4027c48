"""The file of `--rejected`. It contains each bad record once, even if an import is killed at any time.

The bad records of a part are on disk before the part is committed, between two comments that contain the imported file
and the part. So a killed run can only leave extra text: a section without its end, or a section of a part that was not
committed and will be written again. If a part has several sections, the last complete section is the committed one,
because only the process that has claimed a part writes its section; `tidy` removes the others.
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
from typing import BinaryIO, NamedTuple, Protocol

from factory_logs.cli.output import CommandError
from factory_logs.errors import FieldError

COMMENT = b"# "
FIRST_COMMENT = b"# PART "
"""The beginning of a file that `--rejected` has written."""
SECTION = re.compile(rb"# PART ([0-9a-f]{64}) ([0-9]+)\n")


class Rejection(Protocol):
    """A record or line that is not stored, with its errors. `context` contains the lines that must precede it."""

    @property
    def number(self) -> int: ...
    @property
    def context(self) -> str: ...
    @property
    def line(self) -> str: ...
    @property
    def errors(self) -> Sequence[FieldError]: ...


class RejectedRecord(NamedTuple):
    """A bad record from a file of records."""

    number: int
    context: str
    line: str
    errors: Sequence[FieldError]


@dataclass(frozen=True, slots=True)
class _Section:
    """Bytes of the file from `start` to `end`: the section of a part, or other text (`part` is None)."""

    start: int
    end: int
    part: int | None
    whole: bool


@dataclass(frozen=True, slots=True)
class RejectedFile:
    """Writes bad records to the file; the processes of an import share it. `name` is the name of the imported file,
    `source` its fingerprint."""

    path: Path
    name: str
    source: bytes

    def check(self) -> None:
        """Open the file. Raises CommandError if it cannot be written."""
        with self._locked():
            pass

    def add(self, part: int, rejections: Sequence[Rejection]) -> None:
        """Write a part's bad records to disk. Raises CommandError.

        Call this in the part's transaction, after the part has been claimed.
        """
        with self._locked() as file:
            if _ends_inside_a_line(file):
                file.write(b"\n")
            file.write(b"# PART %s %d\n" % (self.source.hex().encode(), part))
            context = ""
            for rejection in rejections:
                reasons = _one_line("; ".join(map(str, rejection.errors)))
                before = rejection.context if rejection.context != context else ""
                context = rejection.context
                text = f"# {self.name}:{rejection.number}: {reasons}\n{before}{rejection.line}\n"
                file.write(text.encode(errors="surrogateescape"))
            file.write(_end(self.source, part))
            file.flush()
            if _is_regular(file.fileno()):
                os.fsync(file.fileno())

    def tidy(self) -> None:
        """Remove the remains of killed runs. Call this when all parts are stored. Raises CommandError."""
        if not self.path.is_file():
            return
        with self._locked() as file:
            found = list(_sections(file, self.source))
            last = {section.part: section for section in found if section.whole}
            current = [section for section in found if section.part is None or last.get(section.part) is section]
            if len(current) < len(found):
                _replace(self.path.resolve(), file, current)

    @contextmanager
    def _locked(self) -> Iterator[BinaryIO]:
        """Yield the file, locked and at its end."""
        try:
            while True:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
                with os.fdopen(descriptor, "r+b" if _is_regular(descriptor) else "wb") as file:
                    if _is_regular(file.fileno()):
                        fcntl.flock(file, fcntl.LOCK_EX)
                        if not os.path.samestat(os.fstat(descriptor), os.stat(self.path)):
                            continue  # another process replaced the file while we waited
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


def _sections(file: BinaryIO, source: bytes) -> Iterator[_Section]:
    """Yield the sections from the file's start to its end.

    A record cannot look like a marker, because it cannot contain the fingerprint of its own file.
    """
    hexadecimal = source.hex().encode()
    file.seek(0)
    start = position = 0
    part: int | None = None
    for line in file:
        begin = SECTION.fullmatch(line)
        if begin:
            yield _Section(start, position, part, whole=False)
            start, part = position, int(begin[2]) if begin[1] == hexadecimal else None
        position += len(line)
        if part is not None and line == _end(source, part):
            yield _Section(start, position, part, whole=True)
            start, part = position, None
    yield _Section(start, position, part, whole=False)


def _replace(path: Path, file: BinaryIO, current: Sequence[_Section]) -> None:
    """Rewrite the file and rename it, so that a kill leaves either the old file or the new one."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as new:
        try:
            for section in current:
                file.seek(section.start)
                left = section.end - section.start
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
