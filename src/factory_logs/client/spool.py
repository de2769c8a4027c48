"""The spool as a script sees it: logs go in, counts and rejected logs come out.

What each log takes is counted in the same transaction, so the bound holds however many processes write.
"""

import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from factory_logs.client.errors import SpoolFullError
from factory_logs.client.spool_file import SpoolFile

ROW_BYTES = 32
"""What a log takes in the file beside its own bytes, about."""


@dataclass(frozen=True, slots=True)
class Totals:
    """How many logs wait, were set aside as rejected, were delivered and were dropped, since the spool began."""

    pending: int
    pending_bytes: int
    rejected: int
    rejected_bytes: int
    delivered: int
    dropped: int


class Reject(NamedTuple):
    """A line that will not be sent, and why."""

    line: bytes
    reason: str


class RejectedLog(NamedTuple):
    """A log that was set aside. `rejected_at` is in seconds since 1970, by the device's clock."""

    number: int
    line: bytes
    reason: str
    rejected_at: float


class Position(NamedTuple):
    """How far a followed file was read: `position` in bytes, `head` its first bytes, by which it is known again."""

    path: str
    inode: int
    position: int
    head: bytes


class Spool:
    """A folder's spool. Safe to use from several threads and processes."""

    def __init__(
        self,
        folder: Path,
        *,
        fsync: Literal["full", "normal"] = "full",
        max_bytes: int = 2**63 - 1,
        when_full: Literal["block", "drop_oldest"] = "block",
    ) -> None:
        self.file = SpoolFile(folder, fsync)
        self._max_bytes = max_bytes
        self._drop_oldest = when_full == "drop_oldest"

    def put(self, lines: Sequence[bytes], rejects: Sequence[Reject] = (), position: Position | None = None) -> None:
        """Store lines in order, all or none, and with them how far a followed file was read.

        Raises SpoolFullError where there is no room for them now, SpoolError.
        """

        def work(connection: sqlite3.Connection) -> None:
            self._make_room(connection, _size(lines) + _size([reject.line for reject in rejects]))
            _append(connection, lines)
            if rejects:
                set_aside(connection, rejects)
            if position is not None:
                connection.execute("INSERT OR REPLACE INTO positions VALUES (?, ?, ?, ?)", position)

        self.file.run(work)

    def _make_room(self, connection: sqlite3.Connection, size: int) -> None:
        pending, rejected = connection.execute("SELECT pending_bytes, rejected_bytes FROM totals").fetchone()
        excess = pending + rejected + size - self._max_bytes
        if excess <= 0:
            return
        if self._drop_oldest:
            excess -= _drop(connection, "rejected", "number", 0, excess)
            (kept,) = connection.execute("SELECT max(last_seq) FROM open_batch").fetchone()
            excess -= _drop(connection, "pending", "seq", kept or 0, excess)
        if excess > 0:
            aside = f", {rejected} of them in rejected logs" if rejected else ""
            raise SpoolFullError(
                f"the spool {self.file.path} is full: "
                f"it holds {pending + rejected} of at most {self._max_bytes} bytes{aside}"
            )

    def totals(self) -> Totals:
        columns = "pending, pending_bytes, rejected, rejected_bytes, delivered, dropped"
        (row,) = self.file.read(f"SELECT {columns} FROM totals")  # noqa: S608 - our own column names
        return Totals(*row)  # type: ignore[arg-type]

    def position(self, path: str) -> Position | None:
        """How far a followed file was read; None where it never was."""

        def work(connection: sqlite3.Connection) -> Position | None:
            row = connection.execute("SELECT * FROM positions WHERE path = ?", (path,)).fetchone()
            return None if row is None else Position(*row)

        return self.file.run(work)

    def rejected(self, limit: int = -1) -> list[RejectedLog]:
        """The rejected logs, the oldest first."""
        rows = self.file.read(
            f"SELECT number, line, reason, rejected_at FROM rejected ORDER BY number LIMIT {int(limit)}"  # noqa: S608
        )
        return [RejectedLog(*row) for row in rows]  # type: ignore[arg-type]

    def retry(self, numbers: Iterable[int] | None) -> int:
        """Send rejected logs again, after all that wait; None for all of them. How many those were."""

        def work(connection: sqlite3.Connection) -> int:
            lines = _take_rejected(connection, numbers)
            _append(connection, lines)
            return len(lines)

        return self.file.run(work)

    def drop(self, numbers: Iterable[int] | None) -> int:
        """Forget rejected logs; None for all of them. How many those were; they count as dropped."""

        def work(connection: sqlite3.Connection) -> int:
            lines = _take_rejected(connection, numbers)
            connection.execute("UPDATE totals SET dropped = dropped + ?", (len(lines),))
            return len(lines)

        return self.file.run(work)


def set_aside(connection: sqlite3.Connection, rejects: Sequence[Reject]) -> None:
    """Keep lines as rejected, inside the caller's transaction."""
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
    """Drop the oldest of a kind beyond the key `after` until `excess` bytes are free; how many bytes that gave."""
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
    (first,) = connection.execute("SELECT next_seq FROM totals").fetchone()
    connection.executemany("INSERT INTO records VALUES (?, ?)", enumerate(lines, first))
    connection.execute(
        "UPDATE totals SET next_seq = next_seq + ?1, pending = pending + ?1, pending_bytes = pending_bytes + ?2",
        (len(lines), _size(lines)),
    )


def _size(lines: Sequence[bytes]) -> int:
    return sum(map(len, lines)) + ROW_BYTES * len(lines)
