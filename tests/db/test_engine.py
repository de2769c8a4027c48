"""URLs of databases, and errors of a database (503 while it is unavailable)."""

import asyncio
import socket
from collections.abc import Mapping
from unittest.mock import AsyncMock

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from factory_logs.db.connecting import connect_once, normalise_url
from factory_logs.db.engine import Database, Pool
from factory_logs.db.errors import translate_errors
from factory_logs.errors import DatabaseUnavailableError, QueryTooLongError
from factory_logs.settings import Settings


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@db:5432/logs",
        "postgres://u:p@db:5432/logs",
        "postgresql+asyncpg://u:p@db:5432/logs",
        "postgresql://u:p@db:5432,other:5433/logs",
    ],
)
def test_every_usual_form_of_a_url_is_read(url: str) -> None:
    found = normalise_url(url)
    assert (found.drivername, found.host, found.port, found.database) == ("postgresql+asyncpg", "db", 5432, "logs")


@pytest.mark.parametrize("url", ["mysql://u:p@db/logs", "sqlite:///logs.db", "http://db"])
def test_a_url_of_another_database_is_refused_without_showing_the_password(url: str) -> None:
    with pytest.raises(ValueError, match="must begin with postgresql://") as refusal:
        normalise_url(url)
    assert ":p@" not in str(refusal.value)


async def test_the_first_host_that_accepts_connections_is_used(migrated_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    folder = migrated_url.partition("host=")[2]
    url = f"postgresql://factory_logs@/factory_logs?host=127.0.0.1,{folder}&port={port},5432"
    connection = await connect_once(url, 5)
    assert await connection.fetchval("show timezone") == "UTC"
    await connection.close()


@pytest.mark.parametrize("url", ["postgresql://nobody@127.0.0.1:1/nothing", "postgresql://nobody@/x?host=/nowhere"])
async def test_a_missing_server_is_unavailable(url: str, settings: Settings) -> None:
    database = Database(url, settings)
    with pytest.raises(DatabaseUnavailableError, match="cannot be reached"):
        await database.ping()
    with pytest.raises(DatabaseUnavailableError, match="cannot be reached"):
        await database.connect_raw()
    await database.dispose()


async def test_a_silent_server_is_unavailable_in_time(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts the connection, and no process responds
        database = Database(
            f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/x?sslmode=disable",
            settings.model_copy(update={"connect_timeout_seconds": 0.2}),
        )
        with pytest.raises(DatabaseUnavailableError, match="cannot be reached"):
            await database.ping()
        await database.dispose()


async def test_a_missing_database_is_unavailable(migrated_url: str, settings: Settings) -> None:
    database = Database(migrated_url.replace("/factory_logs?", "/nothing?"), settings)
    with pytest.raises(DatabaseUnavailableError, match="cannot be reached"):
        await database.ping()
    await database.dispose()


async def test_a_query_over_the_time_limit_is_unavailable_with_this_reason(
    migrated_url: str, settings: Settings
) -> None:
    database = Database(migrated_url, settings.model_copy(update={"statement_timeout_seconds": 0.05}))
    with pytest.raises(QueryTooLongError, match=r"longer than 0\.05 s$"):
        async with database.connect() as connection:
            await connection.execute(text("select pg_sleep(30)"))
    await database.ping()
    await database.dispose()


async def test_a_caller_gets_an_error_if_all_connections_are_busy(migrated_url: str, settings: Settings) -> None:
    database = Database(
        migrated_url, settings.model_copy(update={"write_connections": 1, "pool_timeout_seconds": 0.05})
    )
    async with database.connect():
        with pytest.raises(DatabaseUnavailableError, match="busy"):
            await database.ping()
    await database.ping()
    await database.dispose()


@pytest.mark.parametrize("busy", Pool)
async def test_writes_reads_and_authentication_do_not_wait_for_each_other(
    migrated_url: str, settings: Settings, busy: Pool
) -> None:
    few = {"pool_size": 1, "auth_connections": 1, "write_connections": 1, "pool_timeout_seconds": 0.05}
    database = Database(migrated_url, settings.model_copy(update=few))
    async with database.connect(busy):
        for pool in Pool:
            if pool is busy:
                with pytest.raises(DatabaseUnavailableError, match="busy"):
                    async with database.connect(pool):
                        pass
            else:
                async with database.connect(pool) as connection:
                    assert await connection.scalar(text("select 1")) == 1
    await database.dispose()


async def test_a_connection_that_is_cut_is_unavailable_and_then_replaced(
    migrated_url: str, settings: Settings, database: Database
) -> None:
    cut = Database(migrated_url, settings.model_copy(update={"write_connections": 1}))

    async def cut_it_while_it_is_used() -> None:
        async with cut.connect() as connection:
            pid = (await connection.execute(text("select pg_backend_pid()"))).scalar_one()
            async with database.connect() as other:
                await other.execute(text("select pg_terminate_backend(:pid, 5000)"), {"pid": pid})
            await connection.execute(text("select 1"))

    with pytest.raises(DatabaseUnavailableError):
        await cut_it_while_it_is_used()
    await cut.ping()
    await cut.dispose()


async def test_a_connection_cut_while_idle_is_replaced_without_an_error(
    migrated_url: str, settings: Settings, database: Database
) -> None:
    cut = Database(migrated_url, settings.model_copy(update={"write_connections": 1}))
    async with cut.connect() as connection:
        pid = (await connection.execute(text("select pg_backend_pid()"))).scalar_one()
        raw = (await connection.get_raw_connection()).driver_connection
    assert raw is not None
    async with database.connect() as other:
        await other.execute(text("select pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    async with asyncio.timeout(60):
        while not raw.is_closed():
            await asyncio.sleep(0.01)
    await cut.ping()
    await cut.dispose()


async def test_a_second_silence_does_not_affect_connections_that_end_because_of_the_first(database: Database) -> None:
    ending, ended = asyncio.Event(), asyncio.Event()

    async def slow_to_end() -> None:
        async with database.available():
            try:
                await asyncio.sleep(60)
            finally:
                ending.set()
                await ended.wait()

    waiting = asyncio.create_task(slow_to_end())
    await asyncio.sleep(0)
    database.heartbeat.on_silence()
    await ending.wait()
    database.heartbeat.on_silence()
    ended.set()
    with pytest.raises(DatabaseUnavailableError):
        await waiting


async def test_a_caller_that_waits_for_a_silent_server_gets_an_error_at_once(
    migrated_url: str, settings: Settings
) -> None:
    database = Database(migrated_url, settings)

    async def wait_long() -> None:
        async with database.connect() as connection:
            asyncio.get_running_loop().call_later(0.1, database.heartbeat.on_silence)
            await connection.execute(text("select pg_sleep(20)"))

    with pytest.raises(DatabaseUnavailableError):
        await wait_long()
    database.heartbeat.is_responding = False
    with pytest.raises(DatabaseUnavailableError):
        await database.ping()
    database.heartbeat.is_responding = True
    await database.ping()
    await database.dispose()


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.InternalClientError("cannot switch to state 11; another operation (2) is in progress"),
        asyncpg.ReadOnlySQLTransactionError("cannot execute INSERT in a read-only transaction"),
        asyncpg.DiskFullError("could not extend file"),
        asyncpg.DeadlockDetectedError("deadlock detected"),
        asyncpg.CannotConnectNowError("the database system is starting up"),
        asyncpg.AdminShutdownError("terminating connection due to administrator command"),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.TargetServerAttributeNotMatched("None of the hosts match the target attribute"),
        ConnectionResetError("Connection lost"),
        TimeoutError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_caused_by_the_servers_state_is_unavailable(error: Exception) -> None:
    with pytest.raises(DatabaseUnavailableError), translate_errors():
        raise error


async def test_a_connection_that_ends_during_a_check_of_sqlalchemy_is_unavailable(
    migrated_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncpg has received PostgreSQL's last message but not the end of the connection, so it is in an unclear
    state."""
    database = Database(migrated_url, settings)
    confused = asyncpg.InternalClientError("cannot switch to state 11; another operation (2) is in progress")
    await database.ping()
    monkeypatch.setattr(asyncpg.Connection, "prepare", AsyncMock(side_effect=confused))
    with pytest.raises(DatabaseUnavailableError):
        async with database.connect() as connection:
            await connection.execute(text("select 2"))
    monkeypatch.undo()
    await database.ping()
    await database.dispose()


async def test_a_violated_constraint_is_not_unavailability(database: Database) -> None:
    insert = text("insert into users (username, display_name, permission) values ('a', 'A', 'BOSS')")
    with pytest.raises(IntegrityError, match="permission_is_known"):
        async with database.begin() as connection:
            await connection.execute(insert)


async def test_commits_of_connect_raw_are_flushed(migrated_url: str, settings: Settings) -> None:
    connection: asyncpg.Connection = await Database(migrated_url, settings).connect_raw()
    assert await connection.fetchval("show synchronous_commit") == "on"
    assert await connection.fetchval("show statement_timeout") == "30s"
    await connection.close()


class CutAtOnce(Database):
    """Yield a database whose new connections break immediately once `cutting` is set."""

    cutting = False

    async def _connect(self, more: Mapping[str, str] | None = None) -> asyncpg.Connection:
        connection = await super()._connect(more)
        if self.cutting:
            connection.terminate()
        return connection


async def test_connections_that_are_cut_as_fast_as_they_are_opened_are_unavailable(
    migrated_url: str, settings: Settings
) -> None:
    database = CutAtOnce(migrated_url, settings)
    await database.ping()
    database.cutting = True
    database.heartbeat.losses += 1
    with pytest.raises(DatabaseUnavailableError):
        await database.ping()
    database.cutting = False
    await database.ping()
    await database.dispose()
