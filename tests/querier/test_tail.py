"""The tail of new logs, without HTTP: what happens to clients when the database connection breaks."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from factory_logs.db.engine import Database
from factory_logs.db.watermark import LAST_DRAWN
from factory_logs.querier import tail as module
from factory_logs.querier.tail import LogTail
from factory_logs.query import FACTORY_LOGS, QueryLimits, parse_query
from factory_logs.settings import Settings

SECONDS = 60
EVERYTHING = parse_query(None, FACTORY_LOGS, QueryLimits())


@pytest.fixture
async def tail(database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[LogTail]:
    """Yield a running tail with one follower."""
    monkeypatch.setattr(module, "AWAY_SECONDS", 0.01)
    tail = LogTail(database, settings.model_copy(update={"tail_poll_seconds": 0.02}))
    running = asyncio.create_task(tail.run())
    tail.join()
    yield tail
    tail.leave()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(
    "lost",
    [
        asyncpg.InternalClientError("got result for unknown protocol state 0"),
        asyncpg.InterfaceError("the underlying connection is closed"),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        asyncpg.AdminShutdownError("terminating connection due to administrator command"),
        ConnectionResetError(),
    ],
    ids=lambda lost: type(lost).__name__,
)
async def test_followers_get_new_logs_after_a_lost_connection(
    tail: LogTail, database: Database, monkeypatch: pytest.MonkeyPatch, lost: Exception
) -> None:
    cursor = await tail.newest()
    was_lost = asyncio.Event()
    fetchval = asyncpg.Connection.fetchval

    async def fetch_or_fail(connection: asyncpg.Connection, query: str, *values: Any, **options: Any) -> Any:
        if query == LAST_DRAWN and not was_lost.is_set():
            was_lost.set()
            raise lost
        return await fetchval(connection, query, *values, **options)

    monkeypatch.setattr(asyncpg.Connection, "fetchval", fetch_or_fail)
    async with asyncio.timeout(SECONDS):
        await was_lost.wait()
        async with database.begin() as connection:
            await connection.exec_driver_sql("INSERT INTO factory_logs (app_name, timestamp) VALUES ('new', now())")
        await tail.changed(cursor)
        found, reached = await tail.after(cursor, EVERYTHING)
    assert [json.loads(text)["app_name"] for _, text in found] == ["new"]
    assert reached > cursor


@pytest.mark.slow
async def test_a_follower_that_begins_during_a_long_transaction_gets_its_logs(
    tail: LogTail, database: Database, migrated_url: str
) -> None:
    insert = "INSERT INTO factory_logs (app_name, timestamp) VALUES ($1, now()) RETURNING factory_log_id"
    long, short = await asyncpg.connect(migrated_url), await asyncpg.connect(migrated_url)
    try:
        before = await short.fetchval(insert, "before")
        async with asyncio.timeout(SECONDS):
            await tail.changed(before - 1)
        async with long.transaction():
            await long.execute(insert, "long")
            await short.execute(insert, "meanwhile")
            cursor = await tail.newest()
        names: list[str] = []
        async with asyncio.timeout(SECONDS):
            while "meanwhile" not in names:
                await tail.changed(cursor)
                found, cursor = await tail.after(cursor, EVERYTHING)
                names += [json.loads(text)["app_name"] for _, text in found]
        assert names == ["long", "meanwhile"]
    finally:
        await long.close()
        await short.close()
