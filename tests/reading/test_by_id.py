"""Reading by id in groups: one query for many, and what becomes of the callers when the database goes away."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from factory_logs.db.engine import Database
from factory_logs.errors import DatabaseUnavailableError
from factory_logs.reading.by_id import LogsById
from factory_logs.settings import Settings

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


async def test_each_caller_gets_the_log_it_asked_for(logs: LogsById) -> None:
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
        assert not any(answer.done() for answer in asked)
    assert all(await asyncio.gather(*asked))


async def test_there_are_as_many_readers_as_are_set(database: Database, settings: Settings, migrated_url: str) -> None:
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


async def test_one_that_has_gone_away_disturbs_nobody(logs: LogsById) -> None:
    gone, stays = logs.get(1), logs.get(2)
    gone.cancel()
    assert await stays
    assert await logs.get(3)


async def test_a_statement_is_stopped_when_all_who_wait_for_it_have_gone_and_no_earlier(
    logs: LogsById, migrated_url: str
) -> None:
    async with locked(migrated_url) as watcher:
        gone, stays = logs.get(1), logs.get(2)
        (reader,) = await readers(watcher)
        gone.cancel()
    assert await stays
    async with locked(migrated_url) as watcher:
        asked = [logs.get(1), logs.get(2)]
        assert await readers(watcher) == [reader]
        for answer in asked:
            answer.cancel()
        while await watcher.fetch(WAITING):
            await asyncio.sleep(0.01)
        assert await watcher.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", reader) == 1
        after = logs.get(2)
    assert await after


async def test_a_lost_connection_fails_its_callers_and_the_next_ones_are_answered(
    logs: LogsById, migrated_url: str
) -> None:
    async with locked(migrated_url) as watcher:
        waits = logs.get(2)
        for pid in await readers(watcher):
            await watcher.execute("SELECT pg_terminate_backend($1)", pid)
        with pytest.raises(DatabaseUnavailableError):
            await waits
    assert await logs.get(2)


async def test_a_stop_refuses_who_still_waits(database: Database, settings: Settings) -> None:
    logs = LogsById(database, settings)
    waits = logs.get(1)
    await logs.stop()
    with pytest.raises(DatabaseUnavailableError, match="stopping"):
        await waits


@asynccontextmanager
async def locked(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Nobody can read logs meanwhile. Gives a connection to watch them with."""
    holder, watcher = await asyncpg.connect(url), await asyncpg.connect(url)
    try:
        async with asyncio.timeout(20), holder.transaction():
            await holder.execute("LOCK TABLE factory_logs IN ACCESS EXCLUSIVE MODE")
            yield watcher
    finally:
        await holder.close()
        await watcher.close()


async def readers(watcher: asyncpg.Connection) -> list[int]:
    """The backends that wait to read by id, once there is one."""
    while True:
        found = await watcher.fetch(WAITING)
        if found:
            return [row["pid"] for row in found]
        await asyncio.sleep(0.01)
