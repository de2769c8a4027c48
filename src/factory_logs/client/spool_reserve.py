"""The reserve of a spool: disk space that only sending may use.

Deleting a log from SQLite first needs space: the write-ahead log grows, and its checkpoint extends the file. The sender
empties the reserve when the disk is full. Until the sender has restored the reserve, no log is put into the spool.
"""

import errno
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

RESERVE_BYTES = 8 * 1024 * 1024
"""The maximum that sending needs: a checkpoint of SQLite's 4 MiB of write-ahead log and a large put, and one batch."""
_BLOCK = bytes(1024 * 1024)
ABANDONED_SECONDS = 3600.0
"""An unfinished file of this age belongs to a process that was killed: filling it takes a moment."""


class Reserve:
    """Manages the file `reserve` in a spool's folder. If the file is empty, its space is in use."""

    def __init__(self, folder: Path, size: int) -> None:
        self._path = folder / "reserve"
        self.size = size

    def ensure(self) -> bool:
        """Return whether the space is reserved; create the file if it is missing."""
        if not self.size:
            return True
        try:
            return os.stat(self._path).st_size > 0
        except FileNotFoundError:
            return self.restore()

    def release(self) -> bool:
        """Release the space for the sender. Return whether any space was reserved."""
        if not self._is_taken():
            return False
        try:
            os.truncate(self._path, 0)
        except OSError:
            return False
        return True

    def _is_taken(self) -> bool:
        try:
            return os.stat(self._path).st_size > 0
        except OSError:
            return False

    def restore(self) -> bool:
        """Reserve the space again. Return whether that succeeded: the file has either its full size or size 0."""
        # Each thread has its own file, because it must not rename a file that another process is still filling.
        filling = self._path.with_name(f"reserve.{os.getpid()}-{threading.get_ident()}.new")
        try:
            self._remove_abandoned()
            with filling.open("wb", buffering=0) as file:
                _allocate(file.fileno(), self.size)
            filling.replace(self._path)
        except OSError:
            with suppress(OSError):
                filling.unlink(missing_ok=True)
                self._path.touch()
        return self._is_taken()  # true also if another process has reserved the space first

    def _remove_abandoned(self) -> None:
        """Remove the unfinished files of processes that were killed."""
        for path in self._path.parent.glob("reserve*.new"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > ABANDONED_SECONDS:
                    path.unlink()


def _allocate(file: int, size: int) -> None:
    """Allocate space on disk. Raises OSError."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
        else:
            return
    for start in range(0, size, len(_BLOCK)):
        os.write(file, _BLOCK[: size - start])
