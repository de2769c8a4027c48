"""Read logs by id: the ids of concurrent requests are combined into one statement (docs/explanation/reading.md).

db/coalescer.py explains the batching. A statement is cancelled if all its requests have disconnected.
`python -m benchmarks.reads --only "by id"` shows what this saves.
"""

import asyncio
from dataclasses import dataclass

import asyncpg

from factory_logs.db.coalescer import Coalescer
from factory_logs.db.engine import Database
from factory_logs.db.records import logs_by_id
from factory_logs.errors import STOPPING, DatabaseUnavailableError
from factory_logs.settings import Settings

MAX_BATCH = 200
CHECK_SECONDS = 0.1
"""The interval of the check whether any request still waits for a long statement."""


@dataclass(slots=True)
class IdRead:
    """A request that waits for the log with this id."""

    record_id: int
    receiver: "asyncio.Future[str | None]"


class LogsById(Coalescer[IdRead, dict[int, str]]):
    """Reads single logs by id for one worker, and combines many concurrent requests into one query.

    Call `start` before the first `get`, and `stop` at the end.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        super().__init__(
            database,
            name="logs-by-id",
            tasks=settings.id_readers,
            timeout_seconds=settings.statement_timeout_seconds,
        )

    def get(self, record_id: int) -> "asyncio.Future[str | None]":
        """Return a future of the log's JSON text, or of None if the log does not exist.

        The future fails with DatabaseUnavailableError.
        """
        future: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        if not 0 < record_id < 2**63:
            future.set_result(None)
            return future
        self._add(IdRead(record_id, future))
        return future

    def _take(self) -> list[IdRead]:
        return [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]

    async def _send(self, connection: asyncpg.Connection, batch: list[IdRead]) -> dict[int, str]:
        """Return the logs that exist, or no logs if all requests have disconnected."""
        loop = asyncio.get_running_loop()
        timer: asyncio.TimerHandle
        try:
            async with asyncio.timeout(None) as wanted:

                def check() -> None:
                    nonlocal timer
                    if all(read.receiver.done() for read in batch):
                        wanted.reschedule(loop.time())
                    else:
                        timer = loop.call_later(CHECK_SECONDS, check)

                timer = loop.call_later(CHECK_SECONDS, check)
                try:
                    return await logs_by_id(connection, [read.record_id for read in batch])
                finally:
                    timer.cancel()
        except TimeoutError:
            if wanted.expired():
                return {}  # asyncpg stops the statement before the connection is used again
            raise

    def _resolve(self, batch: list[IdRead], results: dict[int, str], _seconds: float) -> None:
        for read in batch:
            if not read.receiver.done():
                read.receiver.set_result(results.get(read.record_id))

    def _stopping_error(self) -> DatabaseUnavailableError:
        return DatabaseUnavailableError(STOPPING)
