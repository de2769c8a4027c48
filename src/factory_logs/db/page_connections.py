"""The database connections that pages are read on: asyncpg's own, as SQLAlchemy's pool costs more than a page does.

PostgreSQL plans a prepared statement anew for its values, or once for any values, which spares a page half of its time
and may be a bad plan for the next ones. Each connection does one or the other; who asks says which it may be.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum

import asyncpg

from factory_logs.db.engine import ALL_BUSY, Database
from factory_logs.db.kept_connections import KeptConnections
from factory_logs.errors import DatabaseUnavailableError
from factory_logs.settings import Settings


class Planning(Enum):
    """The value is PostgreSQL's `plan_cache_mode`."""

    FOR_THESE_VALUES = "force_custom_plan"
    FOR_ANY_VALUES = "force_generic_plan"


async def _plan(connection: asyncpg.Connection, planning: Planning) -> None:
    await connection.execute(f"SET plan_cache_mode TO {planning.value}")


class PageConnections:
    """A bounded number of connections, each of which plans in one way or the other."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._kept = KeptConnections(
            database,
            most=settings.page_connections,
            wait_seconds=settings.pool_timeout_seconds,
            busy=lambda: DatabaseUnavailableError(ALL_BUSY),
            become=_plan,
        )
        self.close = self._kept.close

    @asynccontextmanager
    async def connect(self, planning: Planning) -> AsyncIterator[asyncpg.Connection]:
        """A connection on which each statement is a transaction of its own. Raises DatabaseUnavailableError."""
        async with self._kept.connect(planning) as connection:
            try:
                yield connection
            except (asyncpg.PostgresError, asyncio.CancelledError):
                raise  # it is as good as before; asyncpg stops what was cancelled before it is used again
            except BaseException:
                connection.terminate()
                raise
