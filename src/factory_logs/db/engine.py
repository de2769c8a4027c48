"""The way to PostgreSQL: one pool for everything, dedicated connections for the group-commit writers.

The one place that knows how a database fails: `translate_errors` turns it into DatabaseUnavailableError.
"""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import asyncpg
import orjson
from sqlalchemy import URL, ExceptionContext, event, make_url, text
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from factory_logs.errors import DatabaseUnavailableError
from factory_logs.settings import Settings

APPLICATION_NAME = "factory_logs"
TIMEOUT_NOTE = "statement timeout: "
POSTGRESQL_SCHEMES = {"postgres", "postgresql", "postgresql+asyncpg"}
UNREACHABLE_STATES = ("08", "53", "57P")
"""SQLSTATE classes of a server that is gone, full, starting or stopping."""


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
    url: str, connect_seconds: float, server_settings: dict[str, str] | None = None
) -> asyncpg.Connection:
    """One asyncpg connection. asyncpg reads libpq's URLs: several hosts, `?host=/socket`, `sslmode`."""
    normalise_url(url)
    dsn = "postgresql://" + url.partition("://")[2]
    settings = {"application_name": APPLICATION_NAME, "timezone": "UTC"} | (server_settings or {})
    return await asyncpg.connect(dsn, timeout=connect_seconds, server_settings=settings)


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
            async_creator=self._connect,
            pool_size=settings.pool_size,
            max_overflow=0,
            pool_timeout=settings.pool_timeout_seconds,
            pool_pre_ping=False,
            json_deserializer=orjson.Fragment,  # rows go out as JSON: PostgreSQL's text is not decoded on the way
        )
        event.listen(self.engine.sync_engine, "handle_error", self._note_timeout)
        self.sessions = async_sessionmaker(self.engine, expire_on_commit=False)

    async def _connect(self) -> asyncpg.Connection:
        timeout_ms = max(1, round(self._settings.statement_timeout_seconds * 1000))
        return await connect_once(
            self.dsn, self._settings.connect_timeout_seconds, {"statement_timeout": str(timeout_ms)}
        )

    async def connect_raw(self) -> asyncpg.Connection:
        """A connection outside the pool, the caller's to close. What it commits is on the disk.

        Raises DatabaseUnavailableError.
        """
        with translate_errors():
            connection = await self._connect()
            if await connection.fetchval("show synchronous_commit") == "off":
                await connection.execute("set synchronous_commit to on")
            return connection

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        """A pooled connection; what is not committed is rolled back. Failures are translated."""
        with translate_errors():
            async with self.engine.connect() as connection:
                yield connection

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[AsyncConnection]:
        """A pooled connection in a transaction that commits at the end. Failures are translated."""
        with translate_errors():
            async with self.engine.begin() as connection:
                yield connection

    @asynccontextmanager
    async def session(self) -> AsyncIterator[AsyncSession]:
        """An ORM session; the caller commits. Failures are translated."""
        with translate_errors():
            async with self.sessions() as session:
                yield session

    async def ping(self) -> None:
        """Raises DatabaseUnavailableError unless the database answers a query."""
        async with self.connect() as connection:
            await connection.execute(text("select 1"))

    async def dispose(self) -> None:
        """Close the pool."""
        await self.engine.dispose()

    def _note_timeout(self, context: ExceptionContext) -> None:
        """Leave the limit on the error, so that `translate_errors` can name it wherever it is used."""
        cause = context.original_exception.__cause__
        if isinstance(cause, asyncpg.QueryCanceledError):
            cause.add_note(f"{TIMEOUT_NOTE}{self._settings.statement_timeout_seconds:g} s")


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise DatabaseUnavailableError for a database that is not there, is full or took too long.

    Any other fault, such as a broken constraint, passes through: it is not the database's state that is wrong.
    """
    try:
        yield
    except PoolTimeoutError as error:
        raise DatabaseUnavailableError("All database connections are busy; try again shortly.") from error
    except (DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        message = _unavailable_message(error)
        if message is None:
            raise
        raise DatabaseUnavailableError(message) from error


def _unavailable_message(error: BaseException) -> str | None:
    cause = _driver_error(error)
    if isinstance(cause, asyncpg.QueryCanceledError):
        notes: list[str] = getattr(cause, "__notes__", [])
        limit = next((n.removeprefix(TIMEOUT_NOTE) for n in notes if n.startswith(TIMEOUT_NOTE)), "it may")
        return f"The query ran longer than {limit}; narrow it by time, unit or app."
    if isinstance(cause, OSError | TimeoutError):
        return "The database cannot be reached; try again shortly."
    if isinstance(cause, asyncpg.PostgresError):
        state: Any = cause.sqlstate
        login = isinstance(cause, asyncpg.InvalidAuthorizationSpecificationError | asyncpg.InvalidCatalogNameError)
        if login or (isinstance(state, str) and state.startswith(UNREACHABLE_STATES)):
            return "The database cannot be reached; try again shortly."
        return None
    lost = isinstance(error, DBAPIError) and error.connection_invalidated
    if lost or isinstance(error, InterfaceError | asyncpg.InterfaceError | asyncpg.InternalClientError):
        return "The connection to the database was lost; try again shortly."
    return None


def _driver_error(error: BaseException) -> BaseException:
    """What asyncpg raised, under SQLAlchemy's two layers."""
    original = error.orig if isinstance(error, DBAPIError) else None
    if original is None:
        return error
    return original.__cause__ or original
