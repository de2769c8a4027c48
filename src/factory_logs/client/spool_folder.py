"""A spool's folder and its small files: the sender's lock, its status, and the reserve.

The lock ensures that only one of several processes sends from a spool. If the process dies, the operating system
releases the lock.

The reserve is disk space that only sending may use. Deleting a log from SQLite first needs space: the write-ahead log
grows, and its checkpoint extends the file. The sender empties the reserve when the disk is full. Until the sender has
restored the reserve, no log is put into the spool.
"""

import errno
import os
import sqlite3
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import orjson

from factory_logs.client import forks
from factory_logs.client.errors import SpoolError

SENDER = "sender.lock"
STATUS_FILE = "sender-status.json"
RESERVE_BYTES = 8 * 1024 * 1024
"""The maximum that sending needs: a checkpoint of SQLite's 4 MiB of write-ahead log and a large put, and one batch."""
_BLOCK = bytes(1024 * 1024)
ABANDONED_SECONDS = 3600.0
"""An unfinished file of this age belongs to a process that was killed: filling it takes a moment."""


def make_folder(folder: Path) -> None:
    """Create the folder, accessible only by this user. Flush each new name, so that it survives a power cut."""
    if folder.is_dir():
        return
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in reversed(new):
            _flush_folder(path.parent)
    except OSError as error:
        raise SpoolError(f"the spool folder {folder} cannot be created: {error.strerror}") from None


def _flush_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


class SpoolLock:
    """An exclusive lock on an empty SQLite file. It works on every file system on which the spool works."""

    def __init__(self, folder: Path, name: str = SENDER) -> None:
        self._path = folder / name
        self._connection: sqlite3.Connection | None = None
        self.lock = threading.RLock()
        forks.register(self)

    @property
    def held(self) -> bool:
        return self._connection is not None

    def acquire(self) -> bool:
        """Try to lock, without waiting. Return whether the lock is held. Raises SpoolError."""
        with self.lock:
            if self._connection is None:
                self._connection = self._locked()
            return self._connection is not None

    def close(self) -> None:
        """Release the lock."""
        with self.lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _locked(self) -> sqlite3.Connection | None:
        try:
            connection = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise SpoolError(f"{self._path} cannot be opened: {error}") from error
        try:
            connection.execute("PRAGMA journal_mode=MEMORY")  # a journal on disk would need space
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            connection.close()
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                return None
            raise SpoolError(f"{self._path} cannot be locked: {error}") from error
        return connection


@dataclass(frozen=True, slots=True)
class Trouble:
    """The reason why no log is delivered, and since when (seconds since 1970, by the device's clock)."""

    message: str
    since: float


class SenderStatus:
    """Reads and writes the file in which the sender's process records its trouble. Errors while writing are ignored."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / STATUS_FILE
        self._written: str | None = ""

    def write(self, trouble: str | None) -> None:
        """Write the trouble if it has changed; None removes the file."""
        if trouble == self._written:
            return
        new = self._path.with_suffix(".new")
        with suppress(OSError):  # also on Windows, while another process reads the file; the next step tries again
            if trouble is None:
                self._path.unlink(missing_ok=True)
            else:
                new.write_bytes(orjson.dumps({"trouble": trouble, "since": time.time()}))
                new.replace(self._path)
            self._written = trouble

    def read(self) -> Trouble | None:
        """Return the trouble of the last sender, or None if there is none."""
        try:
            status = orjson.loads(self._path.read_bytes())
            return Trouble(str(status["trouble"]), float(status["since"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None


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
        return self._is_taken()  # also if another process was faster

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
