"""Grouped reads by id: one query serves many requests, and requests get errors if the database is unavailable."""

import asyncio
import json
from collections.abc import AsyncIterator

import asyncpg
import pytest

from factory_logs.db.engine import Database
from factory_logs.errors import DatabaseUnavailableError
from factory_logs.querier.by_id import LogsById
from factory_logs.settings import Settings
from tests.locking import locked

WAITING = """
    SELECT pid FROM pg_stat_activity
    WHERE query LIKE 'SELECT factory_log_id, %' AND wait_event_type = 'Lock' AND pid <> pg_backend_pid()
"""


@pytest.fixture
async def logs(database: Database, settings: Settings) -> AsyncIterator[LogsById]:
    async with database.begin() as connection:
        await connection.exec_driver_sql(
            "INSERT INTO factory_logs (app_name, timestamp)"
            " SELECT 'app-' || n, timestamp '2024-01-31' FROM generate_series(1, 500) AS n"
        )
    logs = LogsById(database, settings)
    logs.start()
    yield logs
    await logs.stop()


async def test_each_caller_gets_the_requested_log(logs: LogsById) -> None:
    ids = [*range(1, 501), 7, 7, 501, 0, -1, 2**63 - 1, 2**63]
    found = await asyncio.gather(*(logs.get(log_id) for log_id in ids))
    assert [text and json.loads(text)["app_name"] for text in found[:502]] == [
        *(f"app-{n}" for n in range(1, 501)), "app-7", "app-7",
    ]  # fmt: skip
    assert found[502:] == [None] * 5


async def test_concurrent_callers_share_queries(logs: LogsById, migrated_url: str) -> None:
    async with locked(migrated_url) as watcher:
        asked = [logs.get(log_id) for log_id in range(1, 101)]
        assert len(await readers(watcher)) == 1
        assert not any(response.done() for response in asked)
    assert all(await asyncio.gather(*asked))


async def test_the_number_of_readers_is_a_setting(database: Database, settings: Settings, migrated_url: str) -> None:
    logs = LogsById(database, settings.model_copy(update={"id_readers": 2}))
    logs.start()
    try:
        async with locked(migrated_url) as watcher:
            asked = []
            for number in range(1, 4):
                asked.append(logs.get(number))
                while len(await readers(watcher)) < min(number, 2):
                    await asyncio.sleep(0.01)
            assert len(await readers(watcher)) == 2
        assert await asyncio.gather(*asked) == [None, None, None]
    finally:
        await logs.stop()


async def test_a_cancelled_caller_does_not_affect_others(logs: LogsById) -> None:
    gone, stays = logs.get(1), logs.get(2)
    gone.cancel()
    assert await stays
    assert await logs.get(3)


async def test_a_statement_is_cancelled_only_when_all_its_callers_are(logs: LogsById, migrated_url: str) -> None:
    async with locked(migrated_url) as watcher:
        gone, stays = logs.get(1), logs.get(2)
        (reader,) = await readers(watcher)
        gone.cancel()
    assert await stays
    async with locked(migrated_url) as watcher:
        asked = [logs.get(1), logs.get(2)]
        assert await readers(watcher) == [reader]
        for response in asked:
            response.cancel()
        while await watcher.fetch(WAITING):
            await asyncio.sleep(0.01)
        assert await watcher.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", reader) == 1
        after = logs.get(2)
    assert await after


async def test_a_lost_connection_fails_its_callers_and_later_ones_succeed(logs: LogsById, migrated_url: str) -> None:
    async with locked(migrated_url) as watcher:
        waits = logs.get(2)
        for pid in await readers(watcher):
            await watcher.execute("SELECT pg_terminate_backend($1::int)", pid)
        with pytest.raises(DatabaseUnavailableError):
            await waits
    assert await logs.get(2)


async def test_a_stop_refuses_waiting_callers(database: Database, settings: Settings) -> None:
    logs = LogsById(database, settings)
    waits = logs.get(1)
    await logs.stop()
    with pytest.raises(DatabaseUnavailableError, match="stopping"):
        await waits


async def readers(watcher: asyncpg.Connection) -> list[int]:
    """Return the backends that wait to read by id, as soon as there is one."""
    while True:
        found = await watcher.fetch(WAITING)
        if found:
            return [row["pid"] for row in found]
        await asyncio.sleep(0.01)
