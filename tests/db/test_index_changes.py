"""Indexes of a table with logs change while logs are written, and a change that was broken off is completed."""

import asyncio
import sys
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio
from alembic import command
from benchmarks.seeding import seed

from factory_logs.db import migrate
from factory_logs.errors import DatabaseUnavailableError
from tests.db.test_migrate import INDEXES

LOGS = 500
MIGRATE = "import asyncio, sys; from factory_logs.db.migrate import upgrade; asyncio.run(upgrade(sys.argv[1]))"


@pytest_asyncio.fixture
async def old_url(empty_url: str) -> str:
    """A database of the time before the indexes changed, with logs."""
    await asyncio.to_thread(command.upgrade, migrate.config(empty_url), "0030")
    connection = await asyncpg.connect(empty_url)
    await seed(connection, LOGS)
    await connection.close()
    return empty_url


class Writers:
    """Write one log after the other, and always one of them is not committed yet."""

    def __init__(self, one: asyncpg.Connection, other: asyncpg.Connection) -> None:
        self._idle, self._busy = one, other
        self.written = 0

    async def begin(self) -> None:
        await self._busy.execute("BEGIN; INSERT INTO factory_logs (app_name, timestamp) VALUES ('writer', now())")

    async def hand_over(self) -> None:
        """Raises LockNotAvailableError where a log has to wait."""
        self._idle, self._busy = self._busy, self._idle
        await self.begin()
        await self._idle.execute("COMMIT")
        self.written += 1

    async def end(self) -> None:
        await self._busy.execute("COMMIT")
        self.written += 1


@pytest_asyncio.fixture
async def writers(old_url: str) -> AsyncIterator[Writers]:
    both = [await asyncpg.connect(old_url, server_settings={"lock_timeout": "3s"}) for _ in range(2)]
    writers = Writers(*both)
    await writers.begin()
    yield writers
    for connection in both:
        await connection.close()


@pytest_asyncio.fixture
async def watch(old_url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(old_url)
    yield connection
    await connection.close()


async def migrating(watch: asyncpg.Connection) -> list[asyncpg.Record]:
    """The connections that migrate, with what they wait for a lock for."""
    return await watch.fetch(
        "SELECT pid, CASE WHEN wait_event_type = 'Lock' THEN query ELSE '' END AS waits_in FROM pg_stat_activity "
        "WHERE application_name = 'factory_logs' AND datname = current_database()"
    )


async def indexes(watch: asyncpg.Connection) -> dict[str, str]:
    rows = await watch.fetch(
        "SELECT indexrelid::regclass::text AS name, indisvalid, pg_get_indexdef(indexrelid) AS definition "
        "FROM pg_index WHERE indrelid = 'factory_logs'::regclass AND NOT indisprimary"
    )
    return {row["name"]: row["definition"].partition(" USING ")[2] if row["indisvalid"] else "INVALID" for row in rows}


async def test_logs_are_written_while_two_processes_change_the_indexes(
    old_url: str, writers: Writers, watch: asyncpg.Connection
) -> None:
    """Each step has to wait for a writer, so one that locked the table would keep the next writer waiting."""
    processes = [await asyncio.create_subprocess_exec(sys.executable, "-c", MIGRATE, old_url) for _ in range(2)]
    try:
        while len(await migrating(watch)) < 2 and all(process.returncode is None for process in processes):
            await asyncio.sleep(0.02)
        while any(process.returncode is None for process in processes):
            if any(row["waits_in"] for row in await migrating(watch)):
                await writers.hand_over()
            await asyncio.sleep(0.01)
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
    await writers.end()
    assert [process.returncode for process in processes] == [0, 0]
    assert writers.written > 2 * len(INDEXES)
    assert await watch.fetchval("SELECT count(*) FROM factory_logs") == LOGS + writers.written
    assert await indexes(watch) == INDEXES


@pytest.mark.parametrize(
    ("step", "broken"),
    [
        ("CREATE INDEX CONCURRENTLY ix_factory_logs_app_name_timestamp_new", "ix_factory_logs_app_name_timestamp_new"),
        ("DROP INDEX CONCURRENTLY IF EXISTS ix_factory_logs_app_name_timestamp", "ix_factory_logs_app_name_timestamp"),
    ],
)
async def test_what_was_broken_off_is_completed_by_the_next(
    old_url: str, writers: Writers, watch: asyncpg.Connection, step: str, broken: str
) -> None:
    upgrade = asyncio.create_task(migrate.upgrade(old_url))
    await break_off(upgrade, writers, watch, step)
    await writers.end()
    with pytest.raises(DatabaseUnavailableError):
        await upgrade
    assert (await indexes(watch))[broken] == "INVALID"
    await migrate.upgrade(old_url)
    assert await indexes(watch) == INDEXES
    assert await watch.fetchval("SELECT version_num FROM alembic_version") == migrate.head()


async def break_off(upgrade: asyncio.Task[None], writers: Writers, watch: asyncpg.Connection, step: str) -> None:
    """End the migration's connection where it waits for a writer in this step."""
    while not upgrade.done():
        for row in await migrating(watch):
            if row["waits_in"].startswith(step):
                await watch.execute("SELECT pg_terminate_backend($1)", row["pid"])
                return
            if row["waits_in"]:
                await writers.hand_over()
        await asyncio.sleep(0.01)


async def test_an_index_that_somebody_else_left_invalid_is_none_of_ours(
    old_url: str, watch: asyncpg.Connection
) -> None:
    await watch.execute("CREATE INDEX theirs ON factory_logs (created_by)")
    await watch.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'theirs'::regclass")
    await migrate.upgrade(old_url)
    assert await indexes(watch) == {**INDEXES, "theirs": "INVALID"}


async def test_the_way_back_gives_the_indexes_there_were(old_url: str, watch: asyncpg.Connection) -> None:
    before = await indexes(watch)
    await migrate.upgrade(old_url)
    await asyncio.to_thread(command.downgrade, migrate.config(old_url), "0030")
    assert await indexes(watch) == before
