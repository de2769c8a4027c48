"""Pools of asyncpg connections for pages and batches: connections are opened when needed, up to a limit, and reused.

They do not use SQLAlchemy's pool, because it costs more than a page does, and because pages and batches must not take
connections away from other requests. They do not use asyncpg.create_pool, because its proxy costs 1.8 times the
processor time for a short query (131 against 73 us for `SELECT 1` on 4 connections), and because it does not support
connections of several kinds.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import ExitStack, asynccontextmanager
from enum import Enum
from typing import Generic, TypeVar

import asyncpg

from factory_logs.db.citus import is_distributed
from factory_logs.db.engine import Database
from factory_logs.db.errors import ALL_BUSY, refusing_records
from factory_logs.errors import DatabaseUnavailableError, FactoryLogsError, OverloadedError
from factory_logs.settings import Settings

Kind = TypeVar("Kind", bound=Hashable)


async def _as_opened(connection: asyncpg.Connection, kind: object) -> None:
    pass


class ConnectionPool(Generic[Kind]):
    """A pool with connections of several kinds. `become` changes the kind of an idle connection."""

    def __init__(
        self,
        database: Database,
        *,
        most: int,
        wait_seconds: float,
        busy: Callable[[], FactoryLogsError],
        become: Callable[[asyncpg.Connection, Kind], Awaitable[object]] = _as_opened,
    ) -> None:
        """Open up to `most` connections. `busy` creates the error to raise if no connection is free within
        `wait_seconds`."""
        self._database = database
        self._wait_seconds = wait_seconds
        self._busy = busy
        self._become = become
        self._semaphore = asyncio.Semaphore(most)
        self._idle: defaultdict[Kind, list[asyncpg.Connection]] = defaultdict(list)
        self._losses = 0

    @asynccontextmanager
    async def connect(self, kind: Kind) -> AsyncIterator[asyncpg.Connection]:
        """Yield a connection, and reuse it afterwards unless it is closed.

        Raises the error that `busy` creates, or DatabaseUnavailableError.
        """
        await self._acquire()
        connection: asyncpg.Connection | None = None
        try:
            async with self._database.available():
                connection = await self._connection(kind)
                yield connection
        finally:
            if connection is not None and not connection.is_closed():
                self._idle[kind].append(connection)
            self._semaphore.release()

    def close(self) -> None:
        """Close the idle connections, without waiting for PostgreSQL, which may not respond."""
        for idle in self._idle.values():
            while idle:
                idle.pop().terminate()

    async def _acquire(self) -> None:
        if not self._semaphore.locked():
            await self._semaphore.acquire()
            return
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._semaphore.acquire()
        except TimeoutError:
            raise self._busy() from None

    async def _connection(self, kind: Kind) -> asyncpg.Connection:
        self._drop_suspect()
        connection = self._pop(kind)
        if connection is not None:
            return connection
        others = (self._pop(other) for other in self._idle)
        connection = next((other for other in others if other is not None), None)
        if connection is None:
            connection = await self._database.connect_raw()
        try:
            await self._become(connection, kind)
        except BaseException:
            connection.terminate()
            raise
        return connection

    def _pop(self, kind: Kind) -> asyncpg.Connection | None:
        idle = self._idle[kind]
        while idle:
            connection = idle.pop()
            if not connection.is_closed():
                return connection
        return None

    def _drop_suspect(self) -> None:
        """Close idle connections from before PostgreSQL last stopped responding: they may never respond again."""
        if self._losses != self._database.heartbeat.losses:
            self._losses = self._database.heartbeat.losses
            self.close()


class Planning(Enum):
    """How PostgreSQL plans a prepared statement; the value is its `plan_cache_mode`.

    A generic plan halves the time of a page, but it may be bad for some values. On a cluster there is no generic plan.
    """

    FOR_THESE_VALUES = "force_custom_plan"
    FOR_ANY_VALUES = "force_generic_plan"


async def _plan(connection: asyncpg.Connection, planning: Planning) -> None:
    if not is_distributed(connection):
        await connection.execute(f"SET plan_cache_mode TO {planning.value}")


class PageConnections:
    """A pool for reading pages. Each connection plans its statements in one way, which the caller chooses."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._pool = ConnectionPool(
            database,
            most=settings.page_connections,
            wait_seconds=settings.pool_timeout_seconds,
            busy=lambda: DatabaseUnavailableError(ALL_BUSY),
            become=_plan,
        )
        self.close = self._pool.close

    @asynccontextmanager
    async def connect(self, planning: Planning) -> AsyncIterator[asyncpg.Connection]:
        """Yield a connection on which each statement is its own transaction. Raises DatabaseUnavailableError."""
        async with self._pool.connect(planning) as connection:
            try:
                yield connection
            except (asyncpg.PostgresError, asyncio.CancelledError):
                raise  # the connection is still good; asyncpg stops a cancelled statement before the next use
            except BaseException:
                connection.terminate()
                raise


class BatchConnections:
    """A pool of connections for batches."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._pool: ConnectionPool[None] = ConnectionPool(
            database,
            most=settings.batch_connections,
            wait_seconds=settings.batch_wait_seconds,
            busy=lambda: OverloadedError("The service cannot take more batches right now"),
        )
        self.close = self._pool.close

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[asyncpg.Connection]:
        """Yield a connection in a transaction that commits at the end; on any error it stores nothing.

        Raises BadRequestError if PostgreSQL refuses a record, OverloadedError if all connections stay busy,
        DatabaseUnavailableError.
        """
        with refusing_records():
            async with self._pool.connect(None) as connection, _committing(connection):
                yield connection


@asynccontextmanager
async def _committing(connection: asyncpg.Connection) -> AsyncIterator[None]:
    transaction = connection.transaction()
    with ExitStack() as unless_ended:
        # PostgreSQL rolls back by itself; a ROLLBACK would wait if PostgreSQL does not respond.
        unless_ended.callback(connection.terminate)
        try:
            await transaction.start()
            yield
            await transaction.commit()
        except FactoryLogsError:  # raised by our own code: the connection is still good
            await transaction.rollback()
            unless_ended.pop_all()
            raise
        unless_ended.pop_all()
