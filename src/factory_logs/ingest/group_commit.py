"""Group commit: single logs of concurrent clients share one statement and one commit (ARCHITECTURE.md).

db/coalescer.py collects each batch, up to a limit of rows and bytes. So the more requests arrive, the more of them
share an fsync. The queue is limited too: if it is full, the caller gets an OverloadedError at once. `python -m
benchmarks.hot_path` shows where the time of a single POST goes.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

import asyncpg

from factory_logs.db.citus import is_distributed
from factory_logs.db.citus_inserts import insert_logs_on_cluster
from factory_logs.db.coalescer import Coalescer, Receiver, fail
from factory_logs.db.engine import Database
from factory_logs.db.errors import REFUSAL, UNREACHABLE
from factory_logs.db.idempotency_keys import FirstResponse
from factory_logs.db.log_inserts import Forgotten, NewRow, Outcome, Stored, insert_logs
from factory_logs.errors import (
    STOPPING,
    BadRequestError,
    DatabaseUnavailableError,
    FactoryLogsError,
    FieldError,
    OverloadedError,
)
from factory_logs.ingest.disk_reserve import DiskReserve
from factory_logs.ingest.idempotency import WriteKey, just_forgotten
from factory_logs.ingest.validation import NewLog
from factory_logs.metrics import COMMIT_FAILURES, CommitMetrics
from factory_logs.settings import Settings

_METRICS = CommitMetrics("single")
_ROW_OVERHEAD_BYTES = 200


class Submission(NamedTuple):
    """A log that waits for its commit."""

    row: NewRow
    size: int
    receiver: Receiver


class GroupCommit(Coalescer[Submission, Sequence[Outcome]]):
    """Queues the single logs of a worker, and commits them in groups. Call `start` before the first `store`, and
    `drain` at shutdown."""

    def __init__(self, database: Database, settings: Settings, disk: DiskReserve) -> None:
        super().__init__(
            database, name="group-commit", tasks=settings.writers, timeout_seconds=settings.commit_timeout_seconds
        )
        self._settings = settings
        self._disk = disk
        self._queued_bytes = 0

    @property
    def queued(self) -> tuple[int, int]:
        """The number of waiting rows and bytes."""
        return len(self._waiting), self._queued_bytes

    async def drain(self) -> None:
        """Store the accepted logs, then stop. Logs that are not stored within `drain_seconds` get an error."""
        await self.stop(self._settings.drain_seconds)

    def store(
        self, log: NewLog, created_by: str, key: WriteKey | None = None
    ) -> "asyncio.Future[Stored | FirstResponse]":
        """Queue one log. The future ends when the log is committed, or raises the reason why it was not stored.

        If `key` was used before, store nothing; the result is then the response to the first write. Raises the errors
        of `add`.
        """
        future: asyncio.Future[Stored | FirstResponse] = asyncio.get_running_loop().create_future()
        self.add(log, created_by, future, key)
        return future

    def add(self, log: NewLog, created_by: str, receiver: Receiver, key: WriteKey | None = None) -> None:
        """Queue one log, whose outcome `receiver` gets.

        Raises OverloadedError if the queue is full, if PostgreSQL has not responded to any writer for a while, or if
        the disk is nearly full.
        """
        self._disk.refuse_if_low()
        size = _ROW_OVERHEAD_BYTES + len(log.app_name) + len(log.tags or "") + len(log.fields or "")
        if (
            self._draining
            or len(self._waiting) >= self._settings.max_queued_logs
            or self._queued_bytes + size > self._settings.max_queued_bytes
        ):
            raise OverloadedError("The service cannot take more logs right now")
        if not self._database.heartbeat.is_responding or self._stalled():
            raise OverloadedError(UNREACHABLE)
        self._queued_bytes += size
        self._add(Submission(NewRow(log, created_by, key), size, receiver))

    def _stalled(self) -> bool:
        """Return whether every writer has waited for PostgreSQL longer than a commit should take."""
        if len(self._sent_at) < len(self._tasks) or not self._sent_at:
            return False
        return time.monotonic() - max(self._sent_at.values()) > self._settings.stall_seconds

    def _take(self) -> list[Submission]:
        batch: list[Submission] = []
        size = 0
        most_logs, most_bytes = self._settings.max_batch_logs, self._settings.max_batch_bytes
        while self._waiting and len(batch) < most_logs and size < most_bytes:
            submission = self._waiting.popleft()
            size += submission.size
            batch.append(submission)
        self._queued_bytes -= size
        return batch

    async def _send(self, connection: asyncpg.Connection, batch: list[Submission]) -> Sequence[Outcome]:
        insert = insert_logs_on_cluster if is_distributed(connection) else insert_logs
        return await insert(connection, [entry.row for entry in batch])

    def _resolve(self, batch: list[Submission], results: Sequence[Outcome], seconds: float) -> None:
        _METRICS.committed(list(map(type, results)).count(Stored), seconds)
        for entry, result in zip(batch, results, strict=True):
            if result is None:
                fail([entry], no_such_repair(entry.row.log.repair_id))
            elif isinstance(result, Forgotten):
                fail([entry], just_forgotten() if entry.row.key else _discarded())
            elif not entry.receiver.done():
                entry.receiver.set_result(result)

    def _note_failure(self, error: BaseException) -> None:
        """Count the failure. If the database is unavailable, give the waiting logs the error at once instead of after
        another timeout."""
        COMMIT_FAILURES.inc()
        if isinstance(error, DatabaseUnavailableError):
            self._fail_waiting(error)

    def _fail_waiting(self, error: FactoryLogsError) -> None:
        super()._fail_waiting(error)
        self._queued_bytes = 0

    def _stopping_error(self) -> OverloadedError:
        return OverloadedError(STOPPING)


def no_such_repair(repair_id: int | None) -> BadRequestError:
    """Return the error of a log whose `repair_id` does not exist."""
    return BadRequestError("Validation failed", [FieldError("repair_id", f"there is no repair {repair_id}")])


def _discarded() -> BadRequestError:
    return BadRequestError(REFUSAL, [FieldError("", "a trigger of the database discards it")])
