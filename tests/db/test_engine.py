"""How a database is named, and how it fails (SPEC 3: 503 while it is away)."""

import asyncio
import socket
from collections.abc import Mapping
from unittest.mock import AsyncMock

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from factory_logs.db.engine import Database, connect_once, normalise_url, translate_errors
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
def test_another_database_is_refused_without_showing_the_password(url: str) -> None:
    with pytest.raises(ValueError, match="must begin with postgresql://") as refusal:
        normalise_url(url)
    assert ":p@" not in str(refusal.value)


async def test_of_several_hosts_the_one_that_answers_is_used(migrated_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    folder = migrated_url.partition("host=")[2]
    url = f"postgresql://factory_logs@/factory_logs?host=127.0.0.1,{folder}&port={port},5432"
    connection = await connect_once(url, 5)
    assert await connection.fetchval("show timezone") == "UTC"
    await connection.close()


@pytest.mark.parametrize("url", ["postgresql://nobody@127.0.0.1:1/nothing", "postgresql://nobody@/x?host=/nowhere"])
async def test_a_server_that_is_not_there_is_unavailable(url: str, settings: Settings) -> None:
    database = Database(url, settings)
    with pytest.raises(DatabaseUnavailableError, match="cannot be reached"):
        await database.ping()
    with pytest.raises(DatabaseUnavailableError, match="cannot be reached"):
        await database.connect_raw()
    await database.dispose()


async def test_a_server_that_does_not_answer_is_unavailable_in_time(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel takes the connection, nobody answers
        database = Database(
            f"postgresql://u@127.0.0.1:{silent.getsockname()[1]}/x?sslmode=disable",
            settings.model_copy(update={"connect_timeout_seconds": 0.2}),
        )
        with pytest.raises(DatabaseUnavailableError, match="cannot be reached"):
            await database.ping()
        await database.dispose()


async def test_a_database_that_does_not_exist_is_unavailable(migrated_url: str, settings: Settings) -> None:
    database = Database(migrated_url.replace("/factory_logs?", "/nothing?"), settings)
    with pytest.raises(DatabaseUnavailableError, match="cannot be reached"):
        await database.ping()
    await database.dispose()


async def test_a_query_over_the_limit_is_unavailable_and_says_so(migrated_url: str, settings: Settings) -> None:
    database = Database(migrated_url, settings.model_copy(update={"statement_timeout_seconds": 0.05}))
    with pytest.raises(QueryTooLongError, match=r"longer than 0\.05 s$"):
        async with database.connect() as connection:
            await connection.execute(text("select pg_sleep(30)"))
    await database.ping()
    await database.dispose()


async def test_when_all_connections_are_busy_the_next_caller_is_told_so(migrated_url: str, settings: Settings) -> None:
    database = Database(migrated_url, settings.model_copy(update={"pool_size": 1, "pool_timeout_seconds": 0.05}))
    async with database.connect():
        with pytest.raises(DatabaseUnavailableError, match="busy"):
            await database.ping()
    await database.ping()
    await database.dispose()


async def test_a_connection_that_is_cut_is_unavailable_and_then_replaced(
    migrated_url: str, settings: Settings, database: Database
) -> None:
    cut = Database(migrated_url, settings.model_copy(update={"pool_size": 1}))

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


async def test_a_connection_that_was_cut_while_nobody_used_it_is_replaced_unseen(
    migrated_url: str, settings: Settings, database: Database
) -> None:
    cut = Database(migrated_url, settings.model_copy(update={"pool_size": 1}))
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


async def test_a_second_silence_leaves_alone_what_still_ends_because_of_the_first(database: Database) -> None:
    ending, ended = asyncio.Event(), asyncio.Event()

    async def slow_to_end() -> None:
        async with database.answering():
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


async def test_what_waits_for_a_server_that_falls_silent_is_unavailable_at_once(
    migrated_url: str, settings: Settings
) -> None:
    database = Database(migrated_url, settings)

    async def wait_long() -> None:
        async with database.connect() as connection:
            asyncio.get_running_loop().call_later(0.1, database.heartbeat.on_silence)
            await connection.execute(text("select pg_sleep(20)"))

    with pytest.raises(DatabaseUnavailableError):
        await wait_long()
    database.heartbeat.answers = False
    with pytest.raises(DatabaseUnavailableError):
        await database.ping()
    database.heartbeat.answers = True
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
def test_what_the_state_of_the_server_is_to_blame_for_is_unavailable(error: Exception) -> None:
    with pytest.raises(DatabaseUnavailableError), translate_errors():
        raise error


async def test_a_connection_that_says_good_bye_while_sqlalchemy_asks_is_unavailable(
    migrated_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncpg has seen PostgreSQL's last message and not yet the connection's end: it is confused, and not closed."""
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


async def test_a_broken_constraint_is_nobodys_outage(database: Database) -> None:
    insert = text("insert into users (username, display_name, permission) values ('a', 'A', 'BOSS')")
    with pytest.raises(IntegrityError, match="permission_is_known"):
        async with database.begin() as connection:
            await connection.execute(insert)


async def test_what_connect_raw_commits_is_flushed(migrated_url: str, settings: Settings) -> None:
    connection: asyncpg.Connection = await Database(migrated_url, settings).connect_raw()
    assert await connection.fetchval("show synchronous_commit") == "on"
    assert await connection.fetchval("show statement_timeout") == "30s"
    await connection.close()


class CutAtOnce(Database):
    """A database whose connections are lost as soon as they are made, once `cutting` is set."""

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
