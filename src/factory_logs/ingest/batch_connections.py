"""The database connections that batches are written on: a bounded number, apart from those that queries use."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from factory_logs.db.engine import Database
from factory_logs.errors import FactoryLogsError, OverloadedError
from factory_logs.settings import Settings


class BatchConnections:
    """Opens connections as they are needed and keeps them for the next batch."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._wait_seconds = settings.batch_wait_seconds
        self._places = asyncio.Semaphore(settings.batch_connections)
        self._idle: list[asyncpg.Connection] = []
        self._losses = 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection in a transaction that commits at the end; on any error nothing of it is stored.

        Raises OverloadedError where all connections stay busy, DatabaseUnavailableError.
        """
        await self._take_place()
        connection: asyncpg.Connection | None = None
        try:
            async with self._database.answering():
                connection = await self._connection()
                async with _committing(connection):
                    yield connection
        finally:
            if connection is not None and not connection.is_closed():
                self._idle.append(connection)
            self._places.release()

    async def _take_place(self) -> None:
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._places.acquire()
        except TimeoutError:
            raise OverloadedError("The service cannot take more batches right now") from None

    async def _connection(self) -> asyncpg.Connection:
        self._drop_suspect()
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
        return await self._database.connect_raw()

    def _drop_suspect(self) -> None:
        """What led to a server that went silent may never answer again."""
        if self._losses != self._database.heartbeat.losses:
            self._losses = self._database.heartbeat.losses
            while self._idle:
                self._idle.pop().terminate()

    async def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            await self._idle.pop().close()


@asynccontextmanager
async def _committing(connection: asyncpg.Connection) -> AsyncIterator[None]:
    transaction = connection.transaction()
    try:
        await transaction.start()
        yield
        await transaction.commit()
    except FactoryLogsError:  # ours: the connection is as good as before
        await transaction.rollback()
        raise
    except BaseException:  # PostgreSQL rolls back by itself; to ask a silent one for it would be to wait again
        connection.terminate()
        raise
