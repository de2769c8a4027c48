"""Connections to PostgreSQL: a pool for each kind of use, and raw asyncpg connections for the hot paths."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from enum import Enum

import asyncpg
import orjson
from sqlalchemy import ExceptionContext, event, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from factory_logs.db import citus
from factory_logs.db.connecting import check_pooler, connect_once, normalise_url
from factory_logs.db.errors import TIMEOUT_NOTE, UNREACHABLE, translate_errors
from factory_logs.db.heartbeat import Heartbeat
from factory_logs.errors import DatabaseUnavailableError
from factory_logs.settings import Settings

PLANNING = {"random_page_cost": "1.1", "jit": "off"}
"""PostgreSQL's defaults suit spinning disks and queries that take minutes (docs/explanation/indexes.md)."""
PLANNED_EACH_TIME = {"plan_cache_mode": "force_custom_plan"}
"""The best plan depends on the values, for example on the number of logs of an app or on the length of a time range."""
ANSWER_GRACE_SECONDS = 5.0
"""How long to wait for a response after the statement timeout. After that, the server or the network is considered
lost."""


class Pool(Enum):
    """The purposes of pooled connections. Each has its own pool, so that reads never delay the look-up of a token, for
    example."""

    READING = "reading"
    AUTHENTICATION = "authentication"
    WRITING = "writing"
    """All writes except writes of logs, which have their own connections."""


class Database:
    """Provides the database connections of a worker. No connection is opened before the first use.

    `dsn` is the URL as it was given, and `url` is the same URL in SQLAlchemy's form; both may contain a password.
    """

    def __init__(self, url: str, settings: Settings) -> None:
        self.dsn = url
        self._settings = settings
        self.url = normalise_url(url)
        sizes = {
            Pool.READING: settings.pool_size,
            Pool.AUTHENTICATION: settings.auth_connections,
            Pool.WRITING: settings.write_connections,
        }
        self.engines = {pool: self._engine(size) for pool, size in sizes.items()}
        self.engine = self.engines[Pool.WRITING]
        # Each statement is its own transaction. Created once, because creating it costs as much as a small query.
        self._readers = self.engines[Pool.READING].execution_options(isolation_level="AUTOCOMMIT")
        self._snapshots = self.engines[Pool.READING].execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        self.is_distributed = False
        """Whether the logs are distributed over a Citus cluster, according to the newest connection."""
        self.heartbeat = Heartbeat(self._connect, settings.stall_seconds, self._end_what_waits)
        self._waiting: set[asyncio.Timeout] = set()

    def _engine(self, size: int) -> AsyncEngine:
        # asyncpg opens the connections from the original URL, because SQLAlchemy's asyncpg dialect does not support
        # everything that libpq does.
        engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=self._connect_for_queries,
            pool_size=size,
            max_overflow=0,
            pool_timeout=self._settings.pool_timeout_seconds,
            pool_pre_ping=False,
            hide_parameters=True,  # error texts are logged, but stored values must not be logged
            json_deserializer=orjson.Fragment,  # rows are sent as JSON, so PostgreSQL's text is not decoded
        )
        event.listen(engine.sync_engine, "handle_error", self._note_timeout)
        event.listen(engine.sync_engine, "connect", self._note_losses)
        event.listen(engine.sync_engine, "checkout", self._refuse_suspect)
        return engine

    async def _connect_for_queries(self) -> asyncpg.Connection:
        return await self._connect(PLANNED_EACH_TIME)

    async def _connect(self, more: Mapping[str, str] | None = None) -> asyncpg.Connection:
        seconds = self._settings.statement_timeout_seconds
        connection = await connect_once(
            self.dsn,
            self._settings.connect_timeout_seconds,
            {"statement_timeout": str(max(1, round(seconds * 1000))), **PLANNING, **(more or {})},
            seconds + ANSWER_GRACE_SECONDS,
        )
        self.is_distributed = connection.is_distributed
        for engine in self.engines.values():
            citus.compile_for(engine.dialect, is_distributed=self.is_distributed)
        return connection

    async def connect_raw(self) -> asyncpg.Connection:
        """Open a connection outside the pools. The caller must close it. Raises DatabaseUnavailableError."""
        async with self.available():
            return await self._connect()

    async def check(self) -> None:
        """Check that this program can use the database. Raises UnsuitableDatabaseError, DatabaseConnectError."""
        await check_pooler(self.dsn, self._settings.connect_timeout_seconds)

    @asynccontextmanager
    async def connect(self, pool: Pool = Pool.WRITING) -> AsyncIterator[AsyncConnection]:
        """Yield a pooled connection, and roll back what is not committed. Errors are translated as by `available`."""
        async with self.available(), self.engines[pool].connect() as connection:
            yield connection

    @asynccontextmanager
    async def connect_reader(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection for reads on which each statement is its own transaction. Errors are translated."""
        async with self.available(), self._readers.connect() as connection:
            yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection for reads. All its statements see one snapshot; on a cluster, one snapshot of each node.
        Errors are translated."""
        async with self.available(), self._snapshots.connect() as connection:
            if self.is_distributed:
                await connection.execute(text(citus.ONE_SNAPSHOT_OF_EACH_NODE))
            yield connection

    @asynccontextmanager
    async def begin(self, pool: Pool = Pool.WRITING) -> AsyncIterator[AsyncConnection]:
        """Yield a pooled connection in a transaction that commits at the end. Errors are translated."""
        async with self.available(), self.engines[pool].begin() as connection:
            yield connection

    async def ping(self) -> None:
        """Run a query. Raises DatabaseUnavailableError if the database does not respond."""
        async with self.connect() as connection:
            await connection.execute(text("select 1"))

    async def dispose(self) -> None:
        """Close the pools."""
        for engine in self.engines.values():
            await engine.dispose()

    @asynccontextmanager
    async def available(self) -> AsyncIterator[None]:
        """Run a block that waits for PostgreSQL, and translate its errors (db/errors.py).

        Raises DatabaseUnavailableError at once if PostgreSQL does not respond, and as soon as it stops responding.
        """
        if not self.heartbeat.is_responding:
            raise DatabaseUnavailableError(UNREACHABLE)
        with translate_errors():
            async with asyncio.timeout(None) as waiting:
                self._waiting.add(waiting)
                try:
                    yield
                except asyncpg.QueryCanceledError as error:  # raised by a raw connection
                    self._note_limit(error)
                    raise
                finally:
                    self._waiting.discard(waiting)

    def _end_what_waits(self) -> None:
        now = asyncio.get_running_loop().time()
        for waiting in self._waiting:
            if not waiting.expired():  # the block may have ended already and be closing its connection
                waiting.reschedule(now)

    def _note_losses(self, _: object, record: ConnectionPoolEntry) -> None:
        record.info["losses"] = self.heartbeat.losses
        record.info["is new"] = True

    def _refuse_suspect(self, connection: DBAPIConnection, record: ConnectionPoolEntry, _: object) -> None:
        """Make the pool open another connection if this one was opened before PostgreSQL last stopped responding."""
        if record.info.pop("is new", False):  # if it is lost already, its first statement fails
            return
        if record.info["losses"] != self.heartbeat.losses or connection.driver_connection.is_closed():
            raise DisconnectionError

    def _note_timeout(self, context: ExceptionContext) -> None:
        """Add the time limit to the error as a note, which `translate_errors` puts into the message."""
        cause = context.original_exception.__cause__
        if isinstance(cause, asyncpg.QueryCanceledError):
            self._note_limit(cause)

    def _note_limit(self, error: BaseException) -> None:
        error.add_note(f"{TIMEOUT_NOTE}{self._settings.statement_timeout_seconds:g} s")
