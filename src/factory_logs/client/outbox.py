"""The spool as the sender sees it: one open batch at its head, whose content and key are on the disk before it is sent.

A batch is a range of logs. While it is open nothing in the range changes, so every attempt sends the same records
under the same Idempotency-Key. An answer that says "nothing stored" closes it, and its logs wait again.
"""

import sqlite3
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from factory_logs.client.spool import ROW_BYTES, Reject, set_aside
from factory_logs.client.spool_file import SpoolFile


@dataclass(frozen=True, slots=True)
class Batch:
    """Logs that are sent together. `started_at` is when they first may have left, by the server's clock (s).

    `account` is whose key it is: the server keeps keys by user, so under another's token this one says nothing.
    `is_new`: opened just now, so no earlier try of it can be on the server.
    """

    key: str
    account: str
    first_seq: int
    last_seq: int
    started_at: float
    seqs: Sequence[int]
    lines: Sequence[bytes]
    is_new: bool

    @property
    def body(self) -> bytes:
        return b"\n".join(self.lines) + b"\n"


class Outbox:
    """The head of the queue. Only the holder of the sender's lock uses it; flushed to the disk whatever the policy."""

    def __init__(self, file: SpoolFile) -> None:
        self._file = file

    def open(self, max_records: int, max_bytes: int, account: str, now: float) -> Batch | None:
        """The open batch, or a new one of the oldest logs that wait; None where none do."""

        def work(connection: sqlite3.Connection) -> Batch | None:
            row = connection.execute("SELECT key, account, first_seq, last_seq, started_at FROM open_batch").fetchone()
            if row is not None:
                key, owner, first, last, started_at = row
                rows = connection.execute(
                    "SELECT seq, line FROM records WHERE seq BETWEEN ? AND ? ORDER BY seq", (first, last)
                ).fetchall()
                return _batch(key, owner, first, last, started_at, rows, is_new=False)
            rows = _oldest(connection, max_records, max_bytes)
            if not rows:
                return None
            opened = (str(uuid.uuid4()), account, rows[0][0], rows[-1][0], now)
            connection.execute("INSERT INTO open_batch VALUES (1, ?, ?, ?, ?, ?)", opened)
            return _batch(*opened, rows, is_new=True)

        return self._file.run(work)

    def settle(self, batch: Batch) -> None:
        """The server has all of the batch: forget it."""

        def work(connection: sqlite3.Connection) -> None:
            if _close(connection, batch):
                count, size = _remove(connection, batch, range(len(batch.lines)))
                connection.execute(
                    "UPDATE totals SET pending = pending - ?1, pending_bytes = pending_bytes - ?2, "
                    "delivered = delivered + ?1",
                    (count, size),
                )

        self._file.run(work)

    def withdraw(self, batch: Batch) -> None:
        """The server has nothing of the batch: its logs wait again, to be sent under another key."""
        self._file.run(lambda connection: _close(connection, batch))

    def reject(self, batch: Batch, faults: Mapping[int, str]) -> None:
        """The server has nothing of the batch and will not take those at these places of it: set them aside."""

        def work(connection: sqlite3.Connection) -> None:
            if _close(connection, batch):
                count, size = _remove(connection, batch, faults.keys())
                connection.execute(
                    "UPDATE totals SET pending = pending - ?, pending_bytes = pending_bytes - ?", (count, size)
                )
                set_aside(connection, [Reject(batch.lines[place], faults[place]) for place in sorted(faults)])

        self._file.run(work)

    def flush(self) -> None:
        """See that all that was put into the spool so far is on the disk."""
        self._file.run(lambda connection: connection.execute("UPDATE totals SET id = 1"))


def _batch(
    key: str,
    account: str,
    first: int,
    last: int,
    started_at: float,
    rows: Sequence[tuple[int, bytes]],
    *,
    is_new: bool,
) -> Batch:
    return Batch(key, account, first, last, started_at, [seq for seq, _ in rows], [line for _, line in rows], is_new)


def _oldest(connection: sqlite3.Connection, max_records: int, max_bytes: int) -> list[tuple[int, bytes]]:
    """The logs at the head of the queue; the first one whatever its size."""
    rows: list[tuple[int, bytes]] = []
    size = 0
    for seq, line in connection.execute("SELECT seq, line FROM records ORDER BY seq LIMIT ?", (max_records,)):
        size += len(line) + 1
        if rows and size > max_bytes:
            break
        rows.append((seq, line))
    return rows


def _close(connection: sqlite3.Connection, batch: Batch) -> bool:
    """Whether the batch was the open one, which it is no longer."""
    return connection.execute("DELETE FROM open_batch WHERE key = ?", (batch.key,)).rowcount == 1


def _remove(connection: sqlite3.Connection, batch: Batch, places: Collection[int]) -> tuple[int, int]:
    if len(places) == len(batch.lines):
        connection.execute("DELETE FROM records WHERE seq BETWEEN ? AND ?", (batch.first_seq, batch.last_seq))
    else:
        connection.executemany("DELETE FROM records WHERE seq = ?", [(batch.seqs[place],) for place in places])
    return len(places), sum(len(batch.lines[place]) + ROW_BYTES for place in places)
