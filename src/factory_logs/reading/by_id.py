"""Group reading: single logs that concurrent requests ask for by id share one statement.

As with group commit there is no timer: while one batch is on its way the next one gathers, so an idle service adds no
latency and a busy one asks PostgreSQL once for dozens of requests (docs/reading.md). A statement for which nobody waits
any more is stopped.
"""

import asyncio
from collections import deque
from collections.abc import Iterable

import asyncpg
import structlog

from factory_logs.db.engine import Database
from factory_logs.db.records import logs_by_id
from factory_logs.errors import DatabaseUnavailableError, FactoryLogsError
from factory_logs.settings import Settings

MAX_BATCH = 200
LOOK_SECONDS = 0.1
"""How often it is looked whether anybody still waits for a statement that takes long."""

_log = structlog.get_logger(__name__)
Asked = tuple[int, "asyncio.Future[str | None]"]


class LogsById:
    """The readers of one worker, a database connection each. `start` before the first `get`, `stop` at the end."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settings = settings
        self._waiting: deque[Asked] = deque()
        self._arrived = asyncio.Event()
        self._readers: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._readers = [
            asyncio.create_task(self._read_forever(), name=f"logs-by-id-{number}")
            for number in range(self._settings.id_readers)
        ]

    async def stop(self) -> None:
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        _refuse(self._waiting, DatabaseUnavailableError("The service is stopping"))

    def get(self, record_id: int) -> "asyncio.Future[str | None]":
        """The log's JSON text; None where there is none. The future fails with DatabaseUnavailableError."""
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        if not 0 < record_id < 2**63:
            answer.set_result(None)
            return answer
        self._waiting.append((record_id, answer))
        self._arrived.set()
        return answer

    async def _read_forever(self) -> None:
        connection: asyncpg.Connection | None = None
        try:
            while True:
                while not self._waiting:
                    self._arrived.clear()
                    await self._arrived.wait()
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
                connection = await self._read(connection, batch)
        finally:
            if connection is not None:
                connection.terminate()

    async def _read(self, connection: asyncpg.Connection | None, batch: list[Asked]) -> asyncpg.Connection | None:
        """Answer one batch; gives the connection for the next one, None where it is lost."""
        try:
            async with self._database.answering():
                if connection is None or connection.is_closed():
                    connection = await self._database.connect_raw()
                async with asyncio.timeout(self._settings.statement_timeout_seconds):
                    found = await _found(connection, batch)
        except BaseException as error:
            if connection is not None:
                connection.terminate()
            if isinstance(error, asyncio.CancelledError):
                _refuse(batch, DatabaseUnavailableError("The service is stopping"))
                raise
            if not isinstance(error, FactoryLogsError):
                _log.exception("reading logs by id failed", logs=len(batch))
            _refuse(batch, error)
            return None
        for record_id, answer in batch:
            if not answer.done():
                answer.set_result(found.get(record_id))
        return connection


async def _found(connection: asyncpg.Connection, batch: list[Asked]) -> dict[int, str]:
    """The logs that the batch asks for; none where those who asked have all gone away before that."""
    loop = asyncio.get_running_loop()
    looking: asyncio.TimerHandle
    try:
        async with asyncio.timeout(None) as wanted:

            def look() -> None:
                nonlocal looking
                if all(answer.done() for _, answer in batch):
                    wanted.reschedule(loop.time())
                else:
                    looking = loop.call_later(LOOK_SECONDS, look)

            looking = loop.call_later(LOOK_SECONDS, look)
            try:
                return await logs_by_id(connection, [record_id for record_id, _ in batch])
            finally:
                looking.cancel()
    except TimeoutError:
        if wanted.expired():
            return {}  # asyncpg stops the statement before the connection is used again
        raise


def _refuse(batch: Iterable[Asked], error: BaseException) -> None:
    for _, answer in batch:
        if not answer.done():
            answer.set_exception(error)
