"""Open a connection to PostgreSQL: parse the URL, set the session's parameters, and explain why a connection fails.

A statement sets the parameters, because pgbouncer accepts only a few of them in the startup message.
"""

import os
import ssl
from collections.abc import Mapping
from urllib.parse import parse_qs, unquote

import asyncpg
from sqlalchemy import URL, make_url

from factory_logs.db import citus
from factory_logs.db.errors import CLIENT_ERRORS, UNREACHABLE
from factory_logs.errors import DatabaseConnectError, UnsuitableDatabaseError

APPLICATION_NAME = "factory_logs"
POSTGRESQL_SCHEMES = {"postgres", "postgresql", "postgresql+asyncpg"}
ENCODING = "UTF8"
SESSION = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "client_encoding": ENCODING,
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    "gin_fuzzy_search_limit": "0",
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
}
"""Parameters that the HTTP contract depends on. They override those of the database and the role. Parameters that this
PostgreSQL version does not have are left out.

The operator may set `lock_timeout` and `default_transaction_read_only`: both lead to a 503.
"""
# A value weaker than `local` is not durable; the operator may choose a stronger value. It is set in any case, because
# otherwise a later change of the server's configuration would apply to the open connection too.
_DURABLE = """
SELECT set_config('synchronous_commit', coalesce(nullif(current_setting('synchronous_commit'), 'off'), 'on'), false)
"""
_REFUSALS = (asyncpg.PostgresError, *CLIENT_ERRORS, OSError, TimeoutError, UnicodeError)
_POOLED_STATES = ("26000", "42P05")
"""SQLSTATEs of a prepared statement that exists only on another connection, or that another client has made."""
_POOLED = (
    "there is a pooler before PostgreSQL that gives each transaction another connection (pgbouncer's pool_mode = "
    "transaction or statement); this program needs pool_mode = session"
)


def normalise_url(url: str) -> URL:
    """Return the SQLAlchemy URL for any usual form of a PostgreSQL URL. Raises ValueError for another database."""
    # SQLAlchemy cannot parse the multi-host authority `a:1,b:2`. asyncpg gets the original URL, so the first host is
    # sufficient here.
    scheme, authority, tail = _parts(url)
    login, at, hosts = authority.rpartition("@")
    parsed = make_url(f"{scheme}{login}{at}{hosts.split(',')[0]}{tail}")
    if parsed.drivername not in POSTGRESQL_SCHEMES:
        raise ValueError(f"the database URL must begin with postgresql://, not {parsed.drivername}://")
    return parsed.set(drivername="postgresql+asyncpg")


def destination(url: str) -> str:
    """Return the host, port, database and user of a URL for a message, with libpq's defaults, without the password."""
    parsed, (_, authority, tail) = normalise_url(url), _parts(url)
    query = {name: values[-1] for name, values in parse_qs(tail.partition("?")[2]).items()}
    hosts = unquote(authority.rpartition("@")[2]) or query.get("host") or os.environ.get("PGHOST") or "its local socket"
    port = query.get("port") or os.environ.get("PGPORT") or "5432"
    user = parsed.username or query.get("user") or os.environ.get("PGUSER") or "of this process"
    database = parsed.database or query.get("dbname") or query.get("database") or os.environ.get("PGDATABASE") or user
    with_port = hosts if authority and parsed.port is not None else f"{hosts}, port {port}"
    return f"{with_port}, database {database}, user {user}"


def _parts(url: str) -> tuple[str, str, str]:
    """Split a URL into the scheme with its `://`, the authority, and the rest."""
    scheme, separator, rest = url.partition("://")
    end = next((index for index, letter in enumerate(rest) if letter in "/?"), len(rest))
    return scheme + separator, rest[:end], rest[end:]


async def connect_once(
    url: str,
    connect_seconds: float,
    settings: Mapping[str, str] | None = None,
    response_seconds: float | None = None,
) -> citus.Connection:
    """Open a citus.Connection and set SESSION, `settings` and, on a cluster, the cluster's parameters.

    Its commits are flushed to disk. asyncpg accepts libpq's URLs: several hosts, `?host=/socket`, `sslmode`. Raises
    DatabaseConnectError, and UnsuitableDatabaseError if a retry cannot help.
    """
    normalise_url(url)
    dsn = "postgresql://" + url.partition("://")[2]
    name = {"application_name": APPLICATION_NAME}
    connection: citus.Connection | None = None
    try:
        connection = await asyncpg.connect(
            dsn,
            timeout=connect_seconds,
            server_settings=name,
            command_timeout=response_seconds,
            connection_class=citus.Connection,
        )
        _check_encoding(connection, url)
        await connection.execute(setting({**SESSION, **(settings or {})}), timeout=connect_seconds)
        connection.is_distributed = await citus.find_distributed(connection, connect_seconds)
        if connection.is_distributed:
            await connection.execute(setting(citus.SESSION), timeout=connect_seconds)
    except BaseException as error:
        if connection is not None:
            connection.terminate()
        if isinstance(error, _REFUSALS):
            raise _refused(url, error, connect_seconds) from error
        raise
    return connection


def setting(settings: Mapping[str, str]) -> str:
    """Return the SQL that sets these parameters, without placeholders, because a pooler may not support prepared
    statements."""
    rows = ", ".join(f"('{name}', '{value}')" for name, value in settings.items())
    return f"""
        SELECT set_config(name, value, false) FROM (VALUES {rows}) AS wanted (name, value)
        WHERE current_setting(name, true) IS NOT NULL;
        {_DURABLE}
    """  # noqa: S608 - our own text


def _check_encoding(connection: asyncpg.Connection, url: str) -> None:
    found = connection.get_settings().server_encoding
    if found != ENCODING:
        raise UnsuitableDatabaseError(
            UNREACHABLE,
            f"the database has the encoding {found} ({destination(url)}), which cannot hold every text; make one with "
            "CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0 and name it in FACTORY_LOGS_DATABASE_URL",
        )


def _refused(url: str, error: BaseException, seconds: float) -> DatabaseConnectError:
    state = error.sqlstate if isinstance(error, asyncpg.PostgresError) else None
    reason = f"cannot connect to PostgreSQL at {destination(url)}: {_reason(error, seconds)}"
    return DatabaseConnectError(UNREACHABLE, reason, state if isinstance(state, str) else None)


def _reason(error: BaseException, seconds: float) -> str:
    if isinstance(error, TimeoutError) and not error.args:
        return f"no response within {seconds:g} s"
    if isinstance(error, ssl.SSLError):  # its `errno` is a number of OpenSSL, not of the system
        return str(error)
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno) if error.errno > 0 else str(error.strerror)
    return str(error.args[0]) if error.args else type(error).__name__


async def check_pooler(url: str, connect_seconds: float) -> None:
    """Raise UnsuitableDatabaseError if a pooler shares connections between clients. Raises DatabaseConnectError too.

    The service needs its own session for parameters, for the lock of a migration and for prepared statements.
    """
    first = await connect_once(url, connect_seconds)
    try:
        if not await _is_behind_pooler(first):
            return
        second = await connect_once(url, connect_seconds)
        try:
            async with second.transaction():
                # Both are open, so each has its own server process, unless a pooler assigns one for each transaction.
                if await _process(first) == await _process(second):
                    raise UnsuitableDatabaseError(UNREACHABLE, _POOLED)
        finally:
            second.terminate()
    except asyncpg.PostgresError as error:
        if error.sqlstate in _POOLED_STATES or "pooling mode" in str(error):
            raise UnsuitableDatabaseError(UNREACHABLE, _POOLED) from error
        raise _refused(url, error, connect_seconds) from error
    finally:
        first.terminate()


async def _is_behind_pooler(connection: asyncpg.Connection) -> bool:
    """Return whether there is a pooler: the startup messages contain another process id than that of the backend."""
    return bool(connection.get_server_pid() != await _process(connection))


async def _process(connection: asyncpg.Connection) -> int:
    found: int = await connection.fetchval("SELECT pg_backend_pid()")
    return found
