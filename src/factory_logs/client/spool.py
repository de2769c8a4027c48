"""The scripts' interface to the spool: put logs into it, and read counts and rejected logs.

The transaction that stores a log also counts its size, so the limit holds for any number of processes.
"""

import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from factory_logs.client.errors import DiskFullError, SpoolDamagedError, SpoolFullError
from factory_logs.client.spool_file import SpoolFile, free_bytes
from factory_logs.client.spool_reserve import RESERVE_BYTES

ROW_BYTES = 32
"""The approximate size of a log in the file in addition to its own bytes."""
LARGE_PUT_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class SpoolTotals:
    """The numbers of logs that are waiting, rejected, delivered and dropped since the spool was created."""

    pending: int
    pending_bytes: int
    rejected: int
    rejected_bytes: int
    delivered: int
    dropped: int


class RejectedLine(NamedTuple):
    """A line that is not sent, and the reason."""

    line: bytes
    reason: str


class RejectedLog(NamedTuple):
    """A log that was set aside. `rejected_at` is in seconds since 1970, by the device's clock."""

    number: int
    line: bytes
    reason: str
    rejected_at: float


class FilePosition(NamedTuple):
    """The position up to which a followed file was read, in bytes. `head` contains bytes that identify the file."""

    path: str
    inode: int
    position: int
    head: bytes


class Spool:
    """Stores logs in the spool in a folder, and reads its counts. Several threads and processes may use it."""

    def __init__(
        self,
        folder: Path,
        *,
        fsync: Literal["full", "normal"] = "full",
        max_bytes: int = 2**63 - 1,
        when_full: Literal["block", "drop_oldest"] = "block",
        reserve_bytes: int = RESERVE_BYTES,
    ) -> None:
        self.file = SpoolFile(folder, fsync, reserve_bytes)
        self._max_bytes = max_bytes
        self._drop_oldest = when_full == "drop_oldest"

    def put(
        self, lines: Sequence[bytes], rejects: Sequence[RejectedLine] = (), position: FilePosition | None = None
    ) -> None:
        """Store lines in order, all or none, together with the position in a followed file.

        Raises SpoolFullError if there is currently no space for the lines, SpoolError.
        """

        def work(connection: sqlite3.Connection) -> None:
            size = _size(lines) + _size([reject.line for reject in rejects])
            self._check_disk(size)
            self._make_room(connection, size)
            _append(connection, lines)
            if rejects:
                set_aside(connection, rejects)
            if position is not None:
                connection.execute("INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?)", position)

        self.file.run(work, spends_reserve=False)

    def _check_disk(self, size: int) -> None:
        """Raise DiskFullError while the reserve is used, or if a large put could take the space that sending needs.

        A large put needs its size twice: in the write-ahead log and, at its checkpoint, in the file.
        """
        if not self.file.reserve.ensure():
            raise DiskFullError(f"the disk of the spool {self.file.path} is full, or too small for its reserve")
        if size > LARGE_PUT_BYTES and free_bytes(self.file.path.parent) < 2 * size:
            raise DiskFullError(f"the disk of the spool {self.file.path} has no room for {size} bytes")

    def _make_room(self, connection: sqlite3.Connection, size: int) -> None:
        pending, rejected = _numbers(connection, "pending_bytes, rejected_bytes")
        excess = pending + rejected + size - self._max_bytes
        if excess <= 0:
            return
        if self._drop_oldest:
            excess -= _drop(connection, "rejected", "number", 0, excess)
            (open_seq,) = connection.execute("SELECT max(last_seq) FROM open_batch").fetchone()
            excess -= _drop(connection, "pending", "seq", open_seq or 0, excess)
        if excess > 0:
            aside = f", {rejected} of them in rejected logs" if rejected else ""
            raise SpoolFullError(
                f"the spool {self.file.path} is full: "
                f"it holds {pending + rejected} of at most {self._max_bytes} bytes{aside}"
            )

    def totals(self) -> SpoolTotals:
        """Return the numbers of logs that are waiting, rejected, delivered and dropped."""
        return self.file.read(read_totals)

    def position(self, path: str) -> FilePosition | None:
        """Return the position up to which a followed file was read, or None if it was never read.

        A new spool beside a damaged one does not know the position, so it is read from the damaged one if possible.
        """

        def work(connection: sqlite3.Connection) -> FilePosition | None:
            row = connection.execute("SELECT * FROM positions WHERE path = ?", (path,)).fetchone()
            return None if row is None else FilePosition(*row)

        found = self.file.run(work)
        for damaged in self.file.damaged():
            if found is not None:
                break
            with (
                suppress(sqlite3.Error),
                closing(sqlite3.connect(f"{damaged.absolute().as_uri()}?mode=ro", uri=True)) as old,
            ):
                found = work(old)
        return found

    def rejected(self, limit: int = -1) -> list[RejectedLog]:
        """Return the rejected logs, the oldest first."""
        return self.file.read(lambda connection: rejected_logs(connection, limit))

    def retry(self, numbers: Iterable[int] | None) -> int:
        """Send rejected logs again, after all waiting logs, and return their number. If `numbers` is None, send all."""

        def work(connection: sqlite3.Connection) -> int:
            lines = _take_rejected(connection, numbers)
            self._check_disk(_size(lines))
            _append(connection, lines)
            return len(lines)

        return self.file.run(work, spends_reserve=False)

    def drop(self, numbers: Iterable[int] | None) -> int:
        """Delete rejected logs and return their number. If `numbers` is None, delete all. They count as dropped."""

        def work(connection: sqlite3.Connection) -> int:
            lines = _take_rejected(connection, numbers)
            connection.execute("UPDATE totals SET dropped = dropped + ?", (len(lines),))
            return len(lines)

        return self.file.run(work)


def read_totals(connection: sqlite3.Connection) -> SpoolTotals:
    """Return the counts of a spool."""
    columns = "pending, pending_bytes, rejected, rejected_bytes, delivered, dropped"
    return SpoolTotals(*_numbers(connection, columns))


def _numbers(connection: sqlite3.Connection, columns: str) -> Sequence[int]:
    """Return columns of the row of `totals`. Raises SpoolDamagedError if the row is missing, or a column has no number;
    SQLite itself does not notice such damage."""
    row = connection.execute(f"SELECT {columns} FROM totals").fetchone()  # noqa: S608 - our own names
    if row is None or not all(isinstance(number, int) for number in row):
        raise SpoolDamagedError(f"the row of totals has other values than numbers: {row}")
    numbers: Sequence[int] = row
    return numbers


def rejected_logs(connection: sqlite3.Connection, limit: int) -> list[RejectedLog]:
    """Return rejected logs, the oldest first; -1 means no limit."""
    query = "SELECT number, line, reason, rejected_at FROM rejected ORDER BY number LIMIT ?"
    return [RejectedLog(*row) for row in connection.execute(query, (limit,))]


def set_aside(connection: sqlite3.Connection, rejects: Sequence[RejectedLine]) -> None:
    """Store lines as rejected, inside the caller's transaction."""
    now = time.time()
    connection.executemany(
        "INSERT INTO rejected (line, reason, rejected_at) VALUES (?, ?, ?)", [(*reject, now) for reject in rejects]
    )
    connection.execute(
        "UPDATE totals SET rejected = rejected + ?, rejected_bytes = rejected_bytes + ?",
        (len(rejects), _size([reject.line for reject in rejects])),
    )


def _take_rejected(connection: sqlite3.Connection, numbers: Iterable[int] | None) -> list[bytes]:
    if numbers is None:
        rows = connection.execute("SELECT number, line FROM rejected ORDER BY number").fetchall()
    else:
        found = (
            connection.execute("SELECT number, line FROM rejected WHERE number = ?", (number,)).fetchone()
            for number in sorted(set(numbers))
        )
        rows = [row for row in found if row is not None]
    connection.executemany("DELETE FROM rejected WHERE number = ?", [(number,) for number, _ in rows])
    lines = [line for _, line in rows]
    connection.execute(
        "UPDATE totals SET rejected = rejected - ?, rejected_bytes = rejected_bytes - ?",
        (len(lines), _size(lines)),
    )
    return lines


def _drop(
    connection: sqlite3.Connection, kind: Literal["pending", "rejected"], key: str, after: int, excess: int
) -> int:
    """Drop the oldest logs of a kind whose keys are above `after`, until `excess` bytes are free. Return the number of
    freed bytes."""
    if excess <= 0:
        return 0
    table = "records" if kind == "pending" else kind
    freed, count, last = 0, 0, after
    for last, length in connection.execute(  # noqa: B007 - the last one is used
        f"SELECT {key}, length(line) FROM {table} WHERE {key} > ? ORDER BY {key}",  # noqa: S608 - our own names
        (after,),
    ):
        freed += length + ROW_BYTES
        count += 1
        if freed >= excess:
            break
    connection.execute(f"DELETE FROM {table} WHERE {key} > ? AND {key} <= ?", (after, last))  # noqa: S608 - as above
    connection.execute(
        f"UPDATE totals SET {kind} = {kind} - ?1, {kind}_bytes = {kind}_bytes - ?2, dropped = dropped + ?1",  # noqa: S608
        (count, freed),
    )
    return freed


def _append(connection: sqlite3.Connection, lines: Sequence[bytes]) -> None:
    (first,) = _numbers(connection, "next_seq")
    connection.executemany("INSERT INTO records VALUES (?, ?)", enumerate(lines, first))
    connection.execute(
        "UPDATE totals SET next_seq = next_seq + ?1, pending = pending + ?1, pending_bytes = pending_bytes + ?2",
        (len(lines), _size(lines)),
    )


def _size(lines: Sequence[bytes]) -> int:
    return sum(map(len, lines)) + ROW_BYTES * len(lines)
