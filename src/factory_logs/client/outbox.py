"""The sender's interface to the spool. One batch at the head is open; its logs and key are on disk before it is sent.

A batch is a range of logs. While it is open its logs do not change, so every attempt sends the same body under the same
Idempotency-Key. If the server reports that nothing is stored, the batch is closed and its logs wait again.
"""

import hashlib
import sqlite3
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from factory_logs.client.errors import SpoolDamagedError
from factory_logs.client.spool import ROW_BYTES, RejectedLine, set_aside
from factory_logs.client.spool_file import SpoolFile

_LINES = "SELECT seq, CAST(line AS BLOB) FROM records"
"""The type of a line is stored with it. If it is damaged, the line is sent nevertheless, and the server judges it."""
_OPEN_BATCH = (str, str, int, int, float)
"""The types of the columns of an intact open batch."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """A note about a batch in doubt, for the next processes: each of them may end before the doubt is resolved.

    No request for the batch was sent after `since`; None means that it is sent again. `refusal` is the error of the
    server if that is the reason for the doubt. The server reported at `missing_since` for the first time that it does
    not contain the batch. Times are in seconds by the server's clock.
    """

    since: float | None
    refusal: str | None = None
    missing_since: float | None = None


@dataclass(frozen=True, slots=True)
class OutboxBatch:
    """Logs that are sent in one request.

    `started_at` is the time of the first attempt, in seconds by the server's clock. `account` identifies the user that
    owns the key: the server stores keys per user, so another user's token cannot use this key. `is_new` means that
    there was no earlier attempt.
    """

    key: str
    account: str
    first_seq: int
    last_seq: int
    started_at: float
    seqs: Sequence[int]
    lines: Sequence[bytes]
    is_new: bool
    doubt: Doubt | None = None

    @property
    def body(self) -> bytes:
        return b"\n".join(self.lines) + b"\n"

    @property
    def trace_id(self) -> str:
        """The id of the W3C trace for all attempts to send this batch, also by other processes."""
        return hashlib.sha256(self.key.encode()).hexdigest()[:32]


class Outbox:
    """Opens and closes the batch at the head of a spool. Only the holder of the sender's lock uses it. Every change is
    flushed to disk."""

    def __init__(self, file: SpoolFile) -> None:
        self._file = file

    def open(self, max_records: int, max_bytes: int, account: str, now: float) -> OutboxBatch | None:
        """Return the open batch. If none is open, open a batch with the oldest logs, or return None if no log is
        waiting."""

        def work(connection: sqlite3.Connection) -> OutboxBatch | None:
            row = connection.execute("SELECT key, account, first_seq, last_seq, started_at FROM open_batch").fetchone()
            if row is not None:
                if tuple(map(type, row)) != _OPEN_BATCH:
                    raise SpoolDamagedError(f"the row of the open batch has values of other types: {row}")
                key, owner, first, last, started_at = row
                rows = connection.execute(f"{_LINES} WHERE seq BETWEEN ? AND ? ORDER BY seq", (first, last)).fetchall()
                doubt = connection.execute(
                    "SELECT since, refusal, missing_since FROM doubt WHERE key = ?", (key,)
                ).fetchone()
                note = None if doubt is None else Doubt(*doubt)
                return _batch(key, owner, first, last, started_at, rows, is_new=False, doubt=note)
            rows = _oldest(connection, max_records, max_bytes)
            if not rows:
                return None
            opened = (str(uuid.uuid4()), account, rows[0][0], rows[-1][0], now)
            connection.execute("INSERT INTO open_batch VALUES (1, ?, ?, ?, ?, ?)", opened)
            return _batch(*opened, rows, is_new=True)

        return self._file.run(work)

    def note_doubt(self, batch: OutboxBatch, doubt: Doubt) -> None:
        """Store the note about a batch in doubt, instead of the one before."""
        row = batch.key, doubt.refusal, doubt.since, doubt.missing_since
        self._file.run(
            lambda connection: connection.execute("INSERT OR REPLACE INTO doubt VALUES (1, ?, ?, ?, ?)", row)
        )

    def mark_delivered(self, batch: OutboxBatch) -> None:
        """Delete the batch's logs, because the server has stored all of them."""

        def work(connection: sqlite3.Connection) -> None:
            if _close(connection, batch):
                count, size = _remove(connection, batch, range(len(batch.lines)))
                connection.execute(
                    "UPDATE totals SET pending = pending - ?1, pending_bytes = pending_bytes - ?2, "
                    "delivered = delivered + ?1",
                    (count, size),
                )

        self._file.run(work)

    def release(self, batch: OutboxBatch) -> None:
        """Close the batch, because the server has stored none of its logs. They wait for a batch with another key."""
        self._file.run(lambda connection: _close(connection, batch))

    def reject(self, batch: OutboxBatch, reasons: Mapping[int, str]) -> None:
        """Close the batch, because the server has stored nothing of it, and set aside the logs at these indexes, which
        it rejected."""

        def work(connection: sqlite3.Connection) -> None:
            if _close(connection, batch):
                count, size = _remove(connection, batch, reasons.keys())
                connection.execute(
                    "UPDATE totals SET pending = pending - ?, pending_bytes = pending_bytes - ?", (count, size)
                )
                set_aside(connection, [RejectedLine(batch.lines[index], reasons[index]) for index in sorted(reasons)])

        self._file.run(work)

    def keep_reserve(self, *, is_idle: bool) -> None:
        """Restore the reserve if it was used. With `is_idle`, shrink the spool's file to make space for it."""
        self._file.regain_reserve(shrink=is_idle)

    def flush(self) -> None:
        """Flush all logs that are in the spool to disk."""
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
    doubt: Doubt | None = None,
) -> OutboxBatch:
    return OutboxBatch(
        key, account, first, last, started_at, [seq for seq, _ in rows], [line for _, line in rows], is_new, doubt
    )


def _oldest(connection: sqlite3.Connection, max_records: int, max_bytes: int) -> list[tuple[int, bytes]]:
    """Return the oldest logs within these limits, but at least one log."""
    rows: list[tuple[int, bytes]] = []
    size = 0
    for seq, line in connection.execute(f"{_LINES} ORDER BY seq LIMIT ?", (max_records,)):
        size += len(line) + 1
        if rows and size > max_bytes:
            break
        rows.append((seq, line))
    return rows


def _close(connection: sqlite3.Connection, batch: OutboxBatch) -> bool:
    """Close the batch; return whether it was open."""
    connection.execute("DELETE FROM doubt")
    return connection.execute("DELETE FROM open_batch WHERE key = ?", (batch.key,)).rowcount == 1


def _remove(connection: sqlite3.Connection, batch: OutboxBatch, indexes: Collection[int]) -> tuple[int, int]:
    if len(indexes) == len(batch.lines):
        connection.execute("DELETE FROM records WHERE seq BETWEEN ? AND ?", (batch.first_seq, batch.last_seq))
    else:
        connection.executemany("DELETE FROM records WHERE seq = ?", [(batch.seqs[index],) for index in indexes])
    return len(indexes), sum(len(batch.lines[index]) + ROW_BYTES for index in indexes)
