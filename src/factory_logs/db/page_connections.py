"""The database connections that pages are read on: asyncpg's own, as SQLAlchemy's pool costs more than a page does.

PostgreSQL plans a prepared statement anew for its values, or once for any values, which spares a page half of its time
and may be a bad plan for the next ones. Each connection does one or the other; who asks says which it may be.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum

import asyncpg

from factory_logs.db.engine import Database
from factory_logs.errors import DatabaseUnavailableError
from factory_logs.settings import Settings


class Planning(Enum):
    """The value is PostgreSQL's `plan_cache_mode`."""

    FOR_THESE_VALUES = "force_custom_plan"
    FOR_ANY_VALUES = "force_generic_plan"


class PageConnections:
    """Opens connections as they are needed, a bounded number, and keeps them for the next page."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._wait_seconds = settings.pool_timeout_seconds
        self._places = asyncio.Semaphore(settings.page_connections)
        self._idle: dict[Planning, list[asyncpg.Connection]] = {planning: [] for planning in Planning}
        self._losses = 0

    @asynccontextmanager
    async def connect(self, planning: Planning) -> AsyncIterator[asyncpg.Connection]:
        """A connection on which each statement is a transaction of its own. Raises DatabaseUnavailableError."""
        await self._take_place()
        connection: asyncpg.Connection | None = None
        try:
            async with self._database.answering():
                connection = await self._connection(planning)
                try:
                    yield connection
                except (asyncpg.PostgresError, asyncio.CancelledError):
                    raise  # it is as good as before; asyncpg stops what was cancelled before it is used again
                except BaseException:
                    connection.terminate()
                    raise
        finally:
            if connection is not None and not connection.is_closed():
                self._idle[planning].append(connection)
            self._places.release()

    async def close(self) -> None:
        """Close the idle connections."""
        for idle in self._idle.values():
            while idle:
                await idle.pop().close()

    async def _take_place(self) -> None:
        if not self._places.locked():
            await self._places.acquire()
            return
        try:
            async with asyncio.timeout(self._wait_seconds):
                await self._places.acquire()
        except TimeoutError:
            raise DatabaseUnavailableError("All database connections are busy; try again shortly.") from None

    async def _connection(self, planning: Planning) -> asyncpg.Connection:
        self._drop_suspect()
        connection = self._pop(planning)
        if connection is not None:
            return connection
        others = (self._pop(other) for other in Planning)
        connection = next((other for other in others if other is not None), None)
        if connection is None:
            connection = await self._database.connect_raw()
        try:
            await connection.execute(f"SET plan_cache_mode TO {planning.value}")
        except BaseException:
            connection.terminate()
            raise
        return connection

    def _pop(self, planning: Planning) -> asyncpg.Connection | None:
        idle = self._idle[planning]
        while idle:
            connection = idle.pop()
            if not connection.is_closed():
                return connection
        return None

    def _drop_suspect(self) -> None:
        """What led to a server that went silent may never answer again."""
        if self._losses != self._database.heartbeat.losses:
            self._losses = self._database.heartbeat.losses
            for idle in self._idle.values():
                while idle:
                    idle.pop().terminate()
