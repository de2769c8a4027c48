"""The SQLite file on the device's disk: opening it, transactions, and what is done when it is damaged.

WAL mode, so that a process may be killed or the power cut at any instant. Several processes may have the file open.
A damaged file is set aside, never deleted, and a new one begun: a jig must not stop for a bad sector.
"""

import logging
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

from factory_logs.client import forks
from factory_logs.client.errors import SpoolDamagedError, SpoolError, SpoolFullError

T = TypeVar("T")

BUSY_SECONDS = 60.0
VERSION = 1
WAL_BYTES_KEPT = 8 * 1024 * 1024
_NAME = re.compile(r"spool-([0-9]{1,9})\.sqlite3", re.ASCII)
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_SCHEMA = """
CREATE TABLE records (seq INTEGER PRIMARY KEY, line BLOB NOT NULL);
CREATE TABLE open_batch (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    key TEXT NOT NULL,
    account TEXT NOT NULL,
    first_seq INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    started_at REAL NOT NULL
);
CREATE TABLE rejected (number INTEGER PRIMARY KEY AUTOINCREMENT, line BLOB NOT NULL, reason TEXT NOT NULL,
    rejected_at REAL NOT NULL);
CREATE TABLE positions (path TEXT PRIMARY KEY, inode INTEGER NOT NULL, position INTEGER NOT NULL, head BLOB NOT NULL);
CREATE TABLE totals (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    next_seq INTEGER NOT NULL DEFAULT 1,
    pending INTEGER NOT NULL DEFAULT 0,
    pending_bytes INTEGER NOT NULL DEFAULT 0,
    rejected INTEGER NOT NULL DEFAULT 0,
    rejected_bytes INTEGER NOT NULL DEFAULT 0,
    delivered INTEGER NOT NULL DEFAULT 0,
    dropped INTEGER NOT NULL DEFAULT 0
);
INSERT INTO totals (id) VALUES (1);
"""

_log = logging.getLogger(__name__)


class SpoolFile:
    """One connection to the spool of a folder, shared by the threads of a process."""

    def __init__(self, folder: Path, fsync: Literal["full", "normal"]) -> None:
        self._use(_current(folder))
        self._fsync = fsync
        self._connection: sqlite3.Connection | None = None
        self.lock = threading.RLock()
        forks.register(self)

    def _use(self, path: Path) -> None:
        self.path = path
        self._marker = str(_marker(path))  # looked for at every call, so it is worth having ready

    def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """`work` in a transaction of its own, all of it or nothing.

        Raises SpoolFullError where the disk is full, SpoolError where the file cannot be used. A damaged file is set
        aside and the work done on a new one.
        """
        with self.lock:
            try:
                return self._transaction(work)
            except SpoolDamagedError:
                return self._transaction(work)

    def read(self, query: str) -> list[tuple[object, ...]]:
        """The rows of a query that changes nothing; it waits for no writer."""

        def work(connection: sqlite3.Connection) -> list[tuple[object, ...]]:
            return connection.execute(query).fetchall()

        with self.lock:
            try:
                return self._guarded(work)
            except SpoolDamagedError:
                return self._guarded(work)

    def check(self) -> None:
        """Read the file through; where it is damaged, set it aside. Raises SpoolError where it cannot be used."""

        def work(connection: sqlite3.Connection) -> None:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise SpoolDamagedError(str(verdict))

        with self.lock:
            try:
                self._guarded(work)
            except SpoolDamagedError:
                self._guarded(work)

    def close(self) -> None:
        with self.lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def whole(connection: sqlite3.Connection) -> T:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return result

        return self._guarded(whole)

    def _guarded(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return work(self._connected())
        except SpoolDamagedError as error:
            self._set_aside(str(error))
            raise
        except sqlite3.Error as error:
            translated = _translated(error, self.path)
            if isinstance(translated, SpoolDamagedError):
                self._set_aside(str(error))
            raise translated from error

    def _connected(self) -> sqlite3.Connection:
        """The connection; a new one where this or another process has set the file aside."""
        if os.path.exists(self._marker):
            self.close()
            self._use(_current(self.path.parent))
        if self._connection is None:
            self._connection = self._opened()
        return self._connection

    def _opened(self) -> sqlite3.Connection:
        _make_folder(self.path.parent)
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            _switch_to_wal(connection)
            connection.execute(f"PRAGMA synchronous={self._fsync.upper()}")
            connection.execute(f"PRAGMA journal_size_limit={WAL_BYTES_KEPT}")
            _create(connection, self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_aside(self, what: str) -> None:
        """Mark the file. It keeps its name: renamed under another process's hands it could take the new one along."""
        self.close()
        marker = _marker(self.path)
        try:
            with marker.open("x") as file:
                file.write(what + "\n")
        except FileExistsError:
            return
        except OSError as error:
            raise SpoolError(f"the damaged spool {self.path} cannot be set aside: {error.strerror}") from None
        _log.error(
            "The spool %s is damaged (%s). It is kept, marked by %s; logs in it that were not sent yet stay there "
            "and `sqlite3 %s .recover` may read them. A new spool is begun beside it.",
            self.path, what, marker.name, self.path.name,
        )  # fmt: skip


def _marker(path: Path) -> Path:
    return path.with_name(path.name + ".damaged")


def _current(folder: Path) -> Path:
    """The spool file of a folder: the one with the highest number, or the next where that one is damaged."""
    numbers = [int(match[1]) for path in folder.glob("spool-*.sqlite3") if (match := _NAME.fullmatch(path.name))]
    number = max(numbers, default=1)
    path = folder / f"spool-{number}.sqlite3"
    return folder / f"spool-{number + 1}.sqlite3" if _marker(path).exists() else path


def _translated(error: sqlite3.Error, path: Path) -> SpoolError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return SpoolFullError(f"the disk of the spool {path} is full")
    if code in _DAMAGED:
        return SpoolDamagedError(f"the spool {path} is damaged: {error}")
    return SpoolError(f"the spool {path} cannot be used: {error}")


def _make_folder(folder: Path) -> None:
    """Make the folder for this user alone, and see that a power cut does not take it away again."""
    if folder.is_dir():
        return
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SpoolError(f"the spool folder {folder} cannot be made: {error.strerror}") from None
    if os.name != "posix":
        return
    place = os.open(folder.parent, os.O_RDONLY)
    try:
        os.fsync(place)
    finally:
        os.close(place)


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """SQLite does not wait for the lock that this takes, so two processes that start at once must."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
            if mode == "wal":
                return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            raise SpoolError(f"the spool's file system cannot hold an SQLite file in WAL mode, only {mode}")


def _create(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        connection.execute("BEGIN IMMEDIATE")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version == 0:
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={VERSION}")
        connection.execute("COMMIT")
    if version > VERSION:
        raise SpoolError(f"the spool {path} was written by a newer version of factory-logs")
