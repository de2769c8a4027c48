"""The spool's SQLite file: open it, run transactions, and set it aside if it is damaged.

In WAL mode, the process may be killed and the power may be cut at any time. Several processes may open the file. A
damaged file is never deleted. It is set aside, and a new file is begun, because a jig must not stop for a bad sector.
"""

import logging
import os
import re
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeVar

from factory_logs.client import forks
from factory_logs.client.errors import DiskFullError, SpoolDamagedError, SpoolError
from factory_logs.client.spool_reserve import RESERVE_BYTES, Reserve

T = TypeVar("T")

BUSY_SECONDS = 60.0
VERSION = 1
PAGE_BYTES = 1024
"""A commit writes whole pages, so a small log is written with fewer bytes than with SQLite's default of 4096."""
WAL_BYTES_KEPT = 8 * 1024 * 1024
LEAST_ROOM = 1024 * 1024
"""The disk counts as full if less than this is free, because some errors of SQLite do not contain the cause."""
_NAME = re.compile(r"spool-([0-9]{1,9})\.sqlite3", re.ASCII)
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CONSTRAINT}
"""In an intact file, no statement of the client violates a constraint."""
_DAMAGED_SCHEMA = ("no such table", "no such column", "unsupported file format")
"""The beginnings of messages that SQLite sends without a code of their own."""
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
# A separate table, so that older versions of the client can use the same file.
_DOUBT = """
CREATE TABLE IF NOT EXISTS doubt (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    key TEXT NOT NULL,
    refusal TEXT,
    since REAL,
    missing_since REAL
)
"""

_log = logging.getLogger(__name__)


class SpoolFile:
    """Manages the connection to the spool in a folder, which the threads of a process share."""

    def __init__(self, folder: Path, fsync: Literal["full", "normal"], reserve_bytes: int = RESERVE_BYTES) -> None:
        self.reserve = Reserve(folder, reserve_bytes)
        self._use(current_file(folder))
        self._fsync = fsync
        self._connection: sqlite3.Connection | None = None
        self._opened_file: tuple[int, int] | None = None
        self.lock = threading.RLock()
        forks.register(self)

    def _use(self, path: Path) -> None:
        self.path = path
        self._marker = str(_marker(path))  # computed once, because every call checks it

    def run(self, work: Callable[[sqlite3.Connection], T], *, spends_reserve: bool = True) -> T:
        """Run `work` in its own transaction, all or nothing, and return its result.

        Raises DiskFullError, or SpoolError if the file cannot be used. If the file is damaged, it is set aside, and the
        work is repeated on a new file. On a full disk the reserve is used, unless the work would add to the spool.
        """
        with self.lock:
            return self._recovered(lambda: self._transaction(work), spends_reserve)

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work`, which must change nothing, without waiting for a writer."""
        with self.lock:
            return self._recovered(lambda: self._guarded(work))

    def check(self) -> None:
        """Read the whole file, and set it aside if it is damaged. Raises SpoolError if it cannot be used."""

        def work(connection: sqlite3.Connection) -> None:
            (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise SpoolDamagedError(str(verdict))

        with self.lock:
            self._recovered(lambda: self._guarded(work))

    def damaged(self) -> list[Path]:
        """Return the files that were set aside before this one, the newest first."""
        return [path for _, path in sorted(_numbered(self.path.parent), reverse=True) if path != self.path]

    def regain_reserve(self, *, shrink: bool) -> bool:
        """Restore the reserve if it was used. Return whether the reserve exists.

        With `shrink`, return free pages to the disk if most pages of the file are free.
        """
        if self.reserve.ensure():
            return True
        with self.lock:
            for step in (_empty_wal, _vacuum) if shrink else (_empty_wal,):
                try:
                    self._guarded(step)
                except SpoolError as error:
                    _log.debug("The spool cannot return free space to the disk yet: %s", error)
                if free_bytes(self.path.parent) > self.reserve.size + LEAST_ROOM and self.reserve.restore():
                    return True
        return False

    def close(self) -> None:
        with self.lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def _recovered(self, attempt: Callable[[], T], spends_reserve: bool = True) -> T:
        """Run `attempt`; repeat it if a damaged file was set aside or the reserve was used."""
        try:
            return attempt()
        except SpoolDamagedError:
            return attempt()
        except DiskFullError:
            if not (spends_reserve and self.reserve.release()):
                raise
            _log.warning("The disk of the spool %s is full; its reserve is used until logs are delivered", self.path)
            return attempt()

    def _transaction(self, work: Callable[[sqlite3.Connection], T]) -> T:
        def whole(connection: sqlite3.Connection) -> T:
            try:  # Ctrl-C may interrupt the script between any two statements, also while BEGIN waits for its lock
                connection.execute("BEGIN IMMEDIATE")
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection is self._connection and connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return result

        return self._guarded(whole)

    def _guarded(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` with the connection, and translate its errors.

        A signal handler may interrupt the work between any two statements, and itself store a log or close the file.
        That closes the connection, which ends the open transaction, so the work is then repeated.
        """
        connection: sqlite3.Connection | None = None
        try:
            connection = self._connected()
            return work(connection)
        except SpoolDamagedError as error:
            self._set_aside(str(error))
            raise
        except (sqlite3.Error, UnicodeDecodeError) as error:
            if connection is not None and connection is not self._connection:
                return self._guarded(work)
            translated = _translated(error, self.path)
            if isinstance(translated, SpoolDamagedError):
                self._set_aside(str(error))
            raise translated from error

    def _connected(self) -> sqlite3.Connection:
        """Return the connection. It is a new one if any process has set the file aside, if the file was deleted, or if
        this call comes from a signal handler that has interrupted a transaction."""
        if os.path.exists(self._marker):
            self.close()
            self._use(current_file(self.path.parent))
        elif self._connection is not None and file_identity(self.path) != self._opened_file:
            self.close()
            _log.error(
                "The spool %s was deleted or moved while it was used; the client continues with a new spool", self.path
            )
        elif self._connection is not None and self._connection.in_transaction:
            self._connection.execute("ROLLBACK")  # closing alone keeps its lock while it has unfinished statements
            self.close()
        if self._connection is None:
            self._connection = self._opened()
            self._opened_file = file_identity(self.path)
        return self._connection

    def _opened(self) -> sqlite3.Connection:
        _make_folder(self.path.parent)
        connection = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            connection.execute(f"PRAGMA page_size={PAGE_BYTES}")  # only for a new file
            _switch_to_wal(connection)
            connection.execute(f"PRAGMA synchronous={self._fsync.upper()}")
            connection.execute(f"PRAGMA journal_size_limit={WAL_BYTES_KEPT}")
            _create(connection, self.path)
        except BaseException:
            connection.close()
            raise
        return connection

    def _set_aside(self, what: str) -> None:
        """Mark the file as damaged. It keeps its name, because other processes may have it open."""
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
            "The spool %s is damaged (%s). The file stays, marked by %s, with the logs that were not sent yet; "
            "`sqlite3 %s .recover` may read them. The client continues with a new spool beside it.",
            self.path, what, marker.name, self.path.name,
        )  # fmt: skip


def _marker(path: Path) -> Path:
    return path.with_name(path.name + ".damaged")


def file_identity(path: Path) -> tuple[int, int] | None:
    """Return the device and inode of a file, or None if there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def current_file(folder: Path) -> Path:
    """Return the spool file of a folder: the file with the highest number. If that file is damaged, return a file with
    the next number."""
    number = max((number for number, _ in _numbered(folder)), default=1)
    path = folder / f"spool-{number}.sqlite3"
    return folder / f"spool-{number + 1}.sqlite3" if _marker(path).exists() else path


def has_spool(folder: Path) -> bool:
    """Return whether a folder contains a spool."""
    return any(folder.glob("spool-*.sqlite3"))


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    return [(int(match[1]), path) for path in folder.glob("spool-*.sqlite3") if (match := _NAME.fullmatch(path.name))]


def _translated(error: sqlite3.Error | UnicodeDecodeError, path: Path) -> SpoolError:
    code = getattr(error, "sqlite_errorcode", 0)
    if code & 0xFF == sqlite3.SQLITE_FULL or code == sqlite3.SQLITE_IOERR_SHMSIZE or _has_no_room(code, path.parent):
        return DiskFullError(f"the disk of the spool {path} is full")
    if _is_damage(error, code):
        return SpoolDamagedError(f"the spool {path} is damaged: {error}")
    return SpoolError(f"the spool {path} cannot be used: {error}")


def _is_damage(error: sqlite3.Error | UnicodeDecodeError, code: int) -> bool:
    """Return whether the file is damaged. The module sqlite3 raises UnicodeDecodeError for damaged names."""
    return (
        isinstance(error, UnicodeDecodeError)
        or code & 0xFF in _DAMAGED
        or code == sqlite3.SQLITE_IOERR_READ
        or (code == sqlite3.SQLITE_ERROR and str(error).startswith(_DAMAGED_SCHEMA))
    )


def _has_no_room(code: int, folder: Path) -> bool:
    """Return whether the disk is full, for error codes that SQLite uses for other errors too."""
    if code & 0xFF not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR):
        return False
    try:
        return free_bytes(folder) < LEAST_ROOM
    except OSError:
        return False


def _make_folder(folder: Path) -> None:
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


def free_bytes(folder: Path) -> int:
    """Return the number of bytes that this user can still write to the folder's disk."""
    return shutil.disk_usage(folder).free


def _empty_wal(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


def _vacuum(connection: sqlite3.Connection) -> None:
    """Shrink a file in which most pages are free. For other files this would need more space than it frees."""
    (free,), (pages,) = (connection.execute(f"PRAGMA {name}").fetchone() for name in ("freelist_count", "page_count"))
    if free * 2 > pages:
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute("VACUUM")
        _empty_wal(connection)


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL mode. SQLite does not wait for the lock that this needs, so this function waits."""
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
    connection.execute(_DOUBT)
