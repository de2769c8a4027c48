"""View a spool without writing to it.

The file is opened read-only, so this works while a client runs and on a full disk. Only the sender's process knows why
logs are waiting; it records the reason in a file in the folder.
"""

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from factory_logs.client.errors import SpoolError
from factory_logs.client.spool import RejectedLog, SpoolTotals, read_totals, rejected_logs
from factory_logs.client.spool_file import current_file, has_spool
from factory_logs.client.spool_lock import SENDER, SenderStatus, Trouble

T = TypeVar("T")


class SpoolView:
    """Reads the spool in a folder without changing it. Raises SpoolError if there is no spool or it cannot be read."""

    def __init__(self, folder: Path) -> None:
        if not has_spool(folder):
            raise SpoolError(f"there is no spool in {folder}")
        self._folder = folder
        self._path = current_file(folder)

    def totals(self) -> SpoolTotals:
        """Return the numbers of logs that are waiting, rejected, delivered and dropped."""
        if not self._path.exists():
            return SpoolTotals(0, 0, 0, 0, 0, 0)  # the last file is damaged, and no process has begun a new file yet
        return self._read(read_totals)

    def rejected(self, limit: int) -> list[RejectedLog]:
        """Return the first rejected logs, the oldest first."""
        return self._read(lambda connection: rejected_logs(connection, limit)) if self._path.exists() else []

    def trouble(self) -> Trouble | None:
        """Return the reason why no log is delivered, as recorded by the last sender, or None."""
        return SenderStatus(self._folder).read()

    def is_sent_from(self) -> bool:
        """Return whether a process holds the sender's lock."""
        lock = self._folder / SENDER
        if not lock.exists():
            return False
        try:
            with contextlib.closing(_read_only(lock)) as connection:
                connection.execute("SELECT 1 FROM sqlite_master").fetchall()
        except sqlite3.OperationalError as error:
            return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
        return False

    def damaged(self) -> list[str]:
        """Return the names of the files that mark damaged files."""
        return sorted(path.name for path in self._folder.glob("*.damaged"))

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with contextlib.closing(_read_only(self._path)) as connection:
                return work(connection)
        except sqlite3.Error as error:
            raise SpoolError(f"the spool {self._path} cannot be read: {error}") from error


def _read_only(path: Path) -> sqlite3.Connection:
    """Open a file read-only, without creating other files next to it."""
    wal = path.with_name(f"{path.name}-wal")
    is_closed = path.suffix == ".sqlite3" and not (wal.exists() and os.stat(wal).st_size)
    uri = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if is_closed else ''}"
    return sqlite3.connect(uri, uri=True, timeout=0, isolation_level=None)
