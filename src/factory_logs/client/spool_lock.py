"""The lock of the process that sends from a spool, and the status that it leaves for other processes.

The lock ensures that only one of several processes sends from a spool. If the process dies, the operating system
releases the lock.
"""

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
from factory_logs.client.spool_file import file_identity
from factory_logs.errors import printable

SENDER = "sender.lock"
STATUS_FILE = "sender-status.json"


class SpoolLock:
    """An exclusive lock on an empty SQLite file. It works on every file system on which the spool works."""

    def __init__(self, folder: Path, name: str = SENDER) -> None:
        self._path = folder / name
        self._connection: sqlite3.Connection | None = None
        self._locked_file: tuple[int, int] | None = None
        self.lock = threading.RLock()
        forks.register(self)

    @property
    def held(self) -> bool:
        """Whether the lock is held. If its file was deleted, it is not: another process may lock a new file."""
        return self._connection is not None and file_identity(self._path) == self._locked_file

    def acquire(self) -> bool:
        """Try to lock, without waiting. Return whether the lock is held. Raises SpoolError."""
        with self.lock:
            if not self.held:
                self.close()
                self._connection = self._locked()
                self._locked_file = file_identity(self._path)
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
            code = error.sqlite_errorcode & 0xFF
            if code == sqlite3.SQLITE_BUSY:
                return None
            if code == sqlite3.SQLITE_NOTADB and self._was_emptied():
                return self._locked()
            raise SpoolError(f"{self._path} cannot be locked: {error}") from error
        return connection

    def _was_emptied(self) -> bool:
        """Remove the content of a damaged file, which has none otherwise. Return whether that succeeded."""
        try:
            os.truncate(self._path, 0)  # without opening it, because closing it would release the locks of this process
        except OSError:
            return False
        return True


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
                new.write_bytes(orjson.dumps({"trouble": printable(trouble), "since": time.time()}))
                new.replace(self._path)
            self._written = trouble

    def read(self) -> Trouble | None:
        """Return the trouble of the last sender, or None if there is none."""
        try:
            status = orjson.loads(self._path.read_bytes())
            return Trouble(str(status["trouble"]), float(status["since"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
