"""Group commit: single logs of concurrent clients share one statement and one commit (DESIGN, write path).

There is no timer: a writer takes whatever waits, bounded by rows and bytes, writes it and answers each waiter; while
one batch commits the next one gathers, so an idle service adds no latency and a busy one shares its fsyncs. The
queue is bounded too: when it is full the caller gets an OverloadedError at once.
"""

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import asyncpg
import structlog

from factory_logs.db.engine import NO_ANSWER, Database
from factory_logs.db.idempotency import FirstAnswer
from factory_logs.db.log_writes import Forgotten, NewRow, Stored, insert_logs
from factory_logs.errors import (
    BadRequestError,
    DatabaseUnavailableError,
    FactoryLogsError,
    FieldError,
    OverloadedError,
)
from factory_logs.ingest.idempotency import WriteKey, just_forgotten
from factory_logs.ingest.records import NewLog
from factory_logs.metrics import COMMIT_FAILURES, CommitMetrics
from factory_logs.settings import Settings

_log = structlog.get_logger(__name__)
_METRICS = CommitMetrics("single")
_ROW_OVERHEAD_BYTES = 200


@dataclass(frozen=True, slots=True)
class Submission:
    """A log that waits for its commit."""

    row: NewRow
    size: int
    answer: "asyncio.Future[Stored | FirstAnswer]"


class GroupCommit:
    """The queue and its writers of one worker. `start` before the first `store`, `drain` at shutdown."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._waiting: deque[Submission] = deque()
        self._queued_bytes = 0
        self._arrived = asyncio.Event()
        self._writers: list[asyncio.Task[None]] = []
        self._draining = False
        self._sent_at: dict[int, float] = {}
        """When each busy writer sent its batch, in seconds of the monotonic clock."""

    @property
    def queued(self) -> tuple[int, int]:
        """Rows and bytes that wait."""
        return len(self._waiting), self._queued_bytes

    def start(self) -> None:
        self._writers = [
            asyncio.create_task(self._write_forever(number), name=f"group-commit-{number}")
            for number in range(self._settings.writers)
        ]

    async def drain(self) -> None:
        """Write what was accepted, then stop. Whatever cannot be written within the deadline is refused."""
        self._draining = True
        self._arrived.set()
        if self._writers:
            await asyncio.wait(self._writers, timeout=self._settings.drain_seconds)
        for writer in self._writers:
            writer.cancel()
        await asyncio.gather(*self._writers, return_exceptions=True)
        self._refuse_waiting(OverloadedError("The service is stopping"))

    def store(
        self, log: NewLog, created_by: str, key: WriteKey | None = None
    ) -> "asyncio.Future[Stored | FirstAnswer]":
        """Queue one log. The future ends when the log is committed, or fails with why it was not stored.

        Where `key` was used before, nothing is stored and the future gives what the first write was answered.
        Raises OverloadedError where the queue is full, or PostgreSQL has not answered any writer for a while.
        """
        size = _ROW_OVERHEAD_BYTES + len(log.app_name) + len(log.tags or "") + len(log.fields or "")
        if (
            self._draining
            or len(self._waiting) >= self._settings.max_queued_logs
            or self._queued_bytes + size > self._settings.max_queued_bytes
        ):
            raise OverloadedError("The service cannot take more logs right now")
        if not self._database.heartbeat.answers or self._stalled():
            raise OverloadedError(NO_ANSWER)
        answer: asyncio.Future[Stored | FirstAnswer] = asyncio.get_running_loop().create_future()
        self._waiting.append(Submission(NewRow(log, created_by, key), size, answer))
        self._queued_bytes += size
        self._arrived.set()
        return answer

    def _stalled(self) -> bool:
        """Whether every writer waits for PostgreSQL longer than a commit should take."""
        if len(self._sent_at) < len(self._writers) or not self._sent_at:
            return False
        return time.monotonic() - max(self._sent_at.values()) > self._settings.stall_seconds

    async def _write_forever(self, number: int) -> None:
        connection: asyncpg.Connection | None = None
        while True:
            while not self._waiting:
                if self._draining:
                    if connection is not None:
                        await connection.close()
                    return
                self._arrived.clear()
                await self._arrived.wait()
            batch = self._take()
            self._sent_at[number] = time.monotonic()
            connection = await self._write_batch(connection, batch)
            del self._sent_at[number]

    def _take(self) -> list[Submission]:
        batch: list[Submission] = []
        size = 0
        while self._waiting and len(batch) < self._settings.max_batch_logs and size < self._settings.max_batch_bytes:
            submission = self._waiting.popleft()
            self._queued_bytes -= submission.size
            size += submission.size
            batch.append(submission)
        return batch

    async def _write_batch(
        self, connection: asyncpg.Connection | None, batch: Sequence[Submission]
    ) -> asyncpg.Connection | None:
        """One batch, never retried: after a lost connection nobody knows whether it was committed."""
        started = time.perf_counter()
        try:
            async with self._database.answering():
                if connection is None or connection.is_closed():
                    connection = await self._database.connect_raw()
                async with asyncio.timeout(self._settings.commit_timeout_seconds):
                    results = await insert_logs(connection, [entry.row for entry in batch])
        except BaseException as error:
            known = isinstance(error, FactoryLogsError | asyncio.CancelledError)
            if not known:
                _log.exception("group commit failed", rows=len(batch))
            COMMIT_FAILURES.inc()
            if connection is not None:
                connection.terminate()
            if isinstance(error, asyncio.CancelledError):
                _refuse(batch, OverloadedError("The service is stopping"))
                raise
            _refuse(batch, error)
            if isinstance(error, DatabaseUnavailableError):
                self._refuse_waiting(error)
            return None
        _METRICS.committed(sum(isinstance(result, Stored) for result in results), time.perf_counter() - started)
        for entry, result in zip(batch, results, strict=True):
            if result is None:
                _refuse([entry], no_such_repair(entry.row.log.repair_id))
            elif isinstance(result, Forgotten):
                _refuse([entry], just_forgotten())
            elif not entry.answer.done():
                entry.answer.set_result(result)
        return connection

    def _refuse_waiting(self, error: FactoryLogsError) -> None:
        """Whoever waits behind a database that is away is told at once rather than after another time-out."""
        _refuse(self._waiting, error)
        self._waiting.clear()
        self._queued_bytes = 0


def no_such_repair(repair_id: int | None) -> BadRequestError:
    """The error of a log whose `repair_id` points nowhere."""
    return BadRequestError("Validation failed", [FieldError("repair_id", f"there is no repair {repair_id}")])


def _refuse(entries: Iterable[Submission], error: BaseException) -> None:
    for entry in entries:
        if not entry.answer.done():
            entry.answer.set_exception(error)
