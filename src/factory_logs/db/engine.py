"""The way to PostgreSQL: one pool for everything, dedicated connections for the group-commit writers.

The one place that knows how a database fails: `translate_errors` turns it into DatabaseUnavailableError.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg
import orjson
from sqlalchemy import URL, ExceptionContext, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry

from factory_logs.db.heartbeat import Heartbeat
from factory_logs.errors import DatabaseUnavailableError, QueryTooLongError
from factory_logs.settings import Settings

APPLICATION_NAME = "factory_logs"
TIMEOUT_NOTE = "statement timeout: "
POSTGRESQL_SCHEMES = {"postgres", "postgresql", "postgresql+asyncpg"}
PLANNING = {"random_page_cost": "1.1", "jit": "off"}
"""PostgreSQL's defaults are for a disk that turns and for queries of minutes (docs/indexes.md)."""
PLANNED_EACH_TIME = {"plan_cache_mode": "force_custom_plan"}
"""Which plan is good hangs on the values: how many logs an app has, how long a time is."""
UNREACHABLE_STATES = ("08", "53", "57P", "25006", "40", "58030")
"""SQLSTATEs of a server that is gone, full, starting or stopping, has become a standby, had to break off what it did
to go on with something else, or whose disk fails."""
NO_ANSWER = "The database cannot be reached; try again shortly."
ALL_BUSY = "All database connections are busy; try again shortly."
_LOST = (asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What asyncpg raises for a connection that was lost, the latter where PostgreSQL has said good-bye meanwhile."""
ANSWER_GRACE_SECONDS = 5.0
"""How much longer than a statement may run we wait for its answer: then the server, or the way to it, is gone."""


def normalise_url(url: str) -> URL:
    """The SQLAlchemy URL of any usual way to write a PostgreSQL URL; ValueError for another database."""
    # SQLAlchemy cannot parse the multi-host authority `a:1,b:2`; asyncpg gets the URL as it is, so here the first
    # host is enough to have a URL at all.
    parsed = make_url(_with_one_host(url))
    if parsed.drivername not in POSTGRESQL_SCHEMES:
        raise ValueError(f"the database URL must begin with postgresql://, not {parsed.drivername}://")
    return parsed.set(drivername="postgresql+asyncpg")


def _with_one_host(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    authority, slash, tail = rest.partition("/")
    login, at, hosts = authority.rpartition("@")
    return f"{scheme}{separator}{login}{at}{hosts.split(',')[0]}{slash}{tail}"


async def connect_once(
    url: str,
    connect_seconds: float,
    server_settings: dict[str, str] | None = None,
    answer_seconds: float | None = None,
) -> asyncpg.Connection:
    """One asyncpg connection. asyncpg reads libpq's URLs: several hosts, `?host=/socket`, `sslmode`."""
    normalise_url(url)
    dsn = "postgresql://" + url.partition("://")[2]
    settings = {"application_name": APPLICATION_NAME, "timezone": "UTC"} | (server_settings or {})
    return await asyncpg.connect(dsn, timeout=connect_seconds, server_settings=settings, command_timeout=answer_seconds)


class Database:
    """The connections of one worker. Nothing is opened before the first use.

    `dsn` is the URL as it was given, `url` as SQLAlchemy has it; both may hold a password.
    """

    def __init__(self, url: str, settings: Settings) -> None:
        self.dsn = url
        self._settings = settings
        self.url = normalise_url(url)
        # asyncpg opens the connections from the URL as it was given: it reads all that libpq does, SQLAlchemy's
        # asyncpg dialect does not.
        self.engine: AsyncEngine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=self._connect_for_queries,
            pool_size=settings.pool_size,
            max_overflow=0,
            pool_timeout=settings.pool_timeout_seconds,
            pool_pre_ping=False,
            hide_parameters=True,  # an error's text goes into the log, and what is stored does not
            json_deserializer=orjson.Fragment,  # rows go out as JSON: PostgreSQL's text is not decoded on the way
        )
        event.listen(self.engine.sync_engine, "handle_error", self._note_timeout)
        event.listen(self.engine.sync_engine, "connect", self._note_losses)
        event.listen(self.engine.sync_engine, "checkout", self._refuse_suspect)
        # Of the same pool, each statement a transaction of its own. Made once: it costs as much as a small query.
        self.autocommit: AsyncEngine = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        self.heartbeat = Heartbeat(self._connect, settings.stall_seconds, self._end_what_waits)
        self._waiting: set[asyncio.Timeout] = set()
        self.sessions = async_sessionmaker(self.engine, expire_on_commit=False)

    async def _connect_for_queries(self) -> asyncpg.Connection:
        return await self._connect(PLANNED_EACH_TIME)

    async def _connect(self, more: Mapping[str, str] | None = None) -> asyncpg.Connection:
        seconds = self._settings.statement_timeout_seconds
        return await connect_once(
            self.dsn,
            self._settings.connect_timeout_seconds,
            {"statement_timeout": str(max(1, round(seconds * 1000))), **PLANNING, **(more or {})},
            seconds + ANSWER_GRACE_SECONDS,
        )

    async def connect_raw(self) -> asyncpg.Connection:
        """A connection outside the pool, the caller's to close. What it commits is on the disk.

        Raises DatabaseUnavailableError.
        """
        async with self.answering():
            connection = await self._connect()
            if await connection.fetchval("show synchronous_commit") == "off":
                await connection.execute("set synchronous_commit to on")
            return connection

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        """A pooled connection; what is not committed is rolled back. Failures are translated."""
        async with self.answering(), self.engine.connect() as connection:
            yield connection

    @asynccontextmanager
    async def connect_autocommit(self) -> AsyncIterator[AsyncConnection]:
        """A pooled connection where each statement is a transaction of its own. Failures are translated."""
        async with self.answering(), self.autocommit.connect() as connection:
            yield connection

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """A pooled connection in a transaction that commits at the end. Failures are translated."""
        async with self.answering(), self.engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """An ORM session; the caller commits. Failures are translated."""
        async with self.answering(), self.sessions() as session:
            yield session

    async def ping(self) -> None:
        """Raises DatabaseUnavailableError unless the database answers a query."""
        async with self.connect() as connection:
            await connection.execute(text("select 1"))

    async def dispose(self) -> None:
        """Close the pool."""
        await self.engine.dispose()

    @asynccontextmanager
    async def answering(self) -> AsyncIterator[None]:
        """Around whatever waits for PostgreSQL; its failures are translated.

        Raises DatabaseUnavailableError at once where PostgreSQL does not answer, and as soon as it stops to.
        """
        if not self.heartbeat.answers:
            raise DatabaseUnavailableError(NO_ANSWER)
        with translate_errors():
            async with asyncio.timeout(None) as waiting:
                self._waiting.add(waiting)
                try:
                    yield
                except asyncpg.QueryCanceledError as error:  # of a connection that is asyncpg's own
                    self._note_limit(error)
                    raise
                finally:
                    self._waiting.discard(waiting)

    def _end_what_waits(self) -> None:
        now = asyncio.get_running_loop().time()
        for waiting in self._waiting:
            if not waiting.expired():  # one that ended at an earlier silence may still be closing its connection
                waiting.reschedule(now)

    def _note_losses(self, _: object, record: ConnectionPoolEntry) -> None:
        record.info["losses"] = self.heartbeat.losses
        record.info["is new"] = True

    def _refuse_suspect(self, connection: DBAPIConnection, record: ConnectionPoolEntry, _: object) -> None:
        """The pool opens another one for it: what led to a server that went silent may never answer again."""
        if record.info.pop("is new", False):  # one that is lost already fails as any other does
            return
        if record.info["losses"] != self.heartbeat.losses or connection.driver_connection.is_closed():
            raise DisconnectionError

    def _note_timeout(self, context: ExceptionContext) -> None:
        """Leave the limit on the error, so that `translate_errors` can name it wherever it is used."""
        cause = context.original_exception.__cause__
        if isinstance(cause, asyncpg.QueryCanceledError):
            self._note_limit(cause)

    def _note_limit(self, error: BaseException) -> None:
        error.add_note(f"{TIMEOUT_NOTE}{self._settings.statement_timeout_seconds:g} s")


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise DatabaseUnavailableError for a database that is not there, is full or took too long (QueryTooLongError).

    Any other fault, such as a broken constraint, passes through: it is not the database's state that is wrong.
    """
    try:
        yield
    except PoolTimeoutError as error:
        raise DatabaseUnavailableError(ALL_BUSY) from error
    except (DBAPIError, asyncpg.PostgresError, *_LOST, OSError, TimeoutError) as error:
        cause = _driver_error(error)
        if isinstance(cause, asyncpg.QueryCanceledError):
            raise QueryTooLongError(f"The query ran longer than {_limit_of(cause)}") from error
        message = _unavailable_message(error)
        if message is None:
            raise
        raise DatabaseUnavailableError(message) from error


def _unavailable_message(error: BaseException) -> str | None:
    cause = _driver_error(error)
    if isinstance(cause, OSError | TimeoutError):
        return NO_ANSWER
    if isinstance(cause, asyncpg.PostgresError):
        state: Any = cause.sqlstate
        login = isinstance(cause, asyncpg.InvalidAuthorizationSpecificationError | asyncpg.InvalidCatalogNameError)
        if login or (isinstance(state, str) and state.startswith(UNREACHABLE_STATES)):
            return NO_ANSWER
        return None
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    if lost or isinstance(error, InterfaceError) or isinstance(cause, _LOST):
        return "The connection to the database was lost; try again shortly."
    return None


def _limit_of(error: asyncpg.QueryCanceledError) -> str:
    notes: list[str] = getattr(error, "__notes__", [])
    return next((note.removeprefix(TIMEOUT_NOTE) for note in notes if note.startswith(TIMEOUT_NOTE)), "it may")


def _driver_error(error: BaseException) -> BaseException:
    """What asyncpg raised, under SQLAlchemy's two layers."""
    original = error.orig if isinstance(error, DBAPIError) else None
    if original is None:
        return error
    return original.__cause__ or original
