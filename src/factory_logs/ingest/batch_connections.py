"""The database connections that batches are written on: a bounded number, apart from those that queries use."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from factory_logs.db.engine import Database
from factory_logs.db.kept_connections import KeptConnections
from factory_logs.errors import FactoryLogsError, OverloadedError
from factory_logs.settings import Settings


class BatchConnections:
    """A bounded number of connections, kept for the next batch."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._kept: KeptConnections[None] = KeptConnections(
            database,
            most=settings.batch_connections,
            wait_seconds=settings.batch_wait_seconds,
            busy=lambda: OverloadedError("The service cannot take more batches right now"),
        )
        self.close = self._kept.close

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[asyncpg.Connection]:
        """A connection in a transaction that commits at the end; on any error nothing of it is stored.

        Raises OverloadedError where all connections stay busy, DatabaseUnavailableError.
        """
        async with self._kept.connect(None) as connection, _committing(connection):
            yield connection


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
