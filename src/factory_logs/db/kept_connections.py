"""A bounded number of asyncpg's own connections, opened as they are needed and kept for the next use.

For what is hot enough that SQLAlchemy's pool would show, or must not take connections away from everything else.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

import asyncpg

from factory_logs.db.engine import Database
from factory_logs.errors import FactoryLogsError

Kind = TypeVar("Kind", bound=Hashable)


async def _as_opened(connection: asyncpg.Connection, kind: object) -> None:
    pass


class KeptConnections(Generic[Kind]):
    """Connections of some kinds; one that is idle may become another kind by `become`."""

    def __init__(
        self,
        database: Database,
        *,
        most: int,
        wait_seconds: float,
        busy: Callable[[], FactoryLogsError],
        become: Callable[[asyncpg.Connection, Kind], Awaitable[object]] = _as_opened,
    ) -> None:
        """`busy` makes the error for whoever has waited `wait_seconds` in vain."""
        self._database = database
        self._wait_seconds = wait_seconds
        self._busy = busy
        self._become = become
        self._places = asyncio.Semaphore(most)
        self._idle: defaultdict[Kind, list[asyncpg.Connection]] = defaultdict(list)
        self._losses = 0

    @asynccontextmanager
    async def connect(self, kind: Kind) -> AsyncIterator[asyncpg.Connection]:
        """One that is kept afterwards, unless it is closed. Raises `busy`'s error, DatabaseUnavailableError."""
        await self._take_place()
        connection: asyncpg.Connection | None = None
        try:
            async with self._database.answering():
                connection = await self._connection(kind)
                yield connection
        finally:
            if connection is not None and not connection.is_closed():
                self._idle[kind].append(connection)
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
        """What led to a server that went silent may never answer again."""
        if self._losses != self._database.heartbeat.losses:
            self._losses = self._database.heartbeat.losses
            for idle in self._idle.values():
                while idle:
                    idle.pop().terminate()
