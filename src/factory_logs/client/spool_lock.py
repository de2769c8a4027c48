"""One sender for a spool, however many processes use it: a lock that the operating system frees when one dies."""

import sqlite3
import threading
from pathlib import Path

from factory_logs.client import forks
from factory_logs.client.errors import SpoolError

SENDER = "sender.lock"


class SpoolLock:
    """An exclusive lock on an empty SQLite file: it works wherever the spool itself does, and leaves nothing behind."""

    def __init__(self, folder: Path, name: str = SENDER) -> None:
        self._path = folder / name
        self._connection: sqlite3.Connection | None = None
        self.lock = threading.RLock()
        forks.register(self)

    @property
    def held(self) -> bool:
        return self._connection is not None

    def acquire(self) -> bool:
        """Whether this process holds the lock now; never waits. Raises SpoolError where the file cannot be used."""
        with self.lock:
            if self._connection is None:
                self._connection = self._locked()
            return self._connection is not None

    def close(self) -> None:
        """Let another take the lock."""
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
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.Error as error:
            connection.close()
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                return None
            raise SpoolError(f"{self._path} cannot be locked: {error}") from error
        return connection
