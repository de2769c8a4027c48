"""Migrations create exactly the tables of the models, once, however many processes run them."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from benchmarks.seeding import seed
from sqlalchemy import Connection, NullPool, text
from sqlalchemy.ext.asyncio import create_async_engine

from factory_logs.db import migrations
from factory_logs.db.engine import Database
from factory_logs.db.models import Base
from factory_logs.errors import DatabaseUnavailableError
from tests.db.conftest import INDEXES


async def test_a_database_without_tables_is_at_no_revision(empty: Database) -> None:
    assert await migrations.current(empty) is None


async def test_upgrade_brings_an_empty_database_to_the_head(empty: Database, empty_url: str) -> None:
    await migrations.upgrade(empty_url)
    assert await migrations.current(empty) == migrations.head()


async def test_a_second_upgrade_changes_nothing(empty: Database, empty_url: str) -> None:
    await migrations.upgrade(empty_url)
    async with empty.begin() as connection:
        await connection.execute(text("insert into repairs (product_imei) values ('490154203237518')"))
    await migrations.upgrade(empty_url)
    async with empty.connect() as connection:
        assert await connection.scalar(text("select count(*) from repairs")) == 1


@pytest.mark.slow
async def test_several_workers_may_upgrade_at_once(empty: Database, empty_url: str) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            "python", "-c", "import asyncio, sys; from factory_logs.db.migrations import upgrade; "
            "asyncio.run(upgrade(sys.argv[1]))", empty_url,
        )
        for _ in range(4)
    ]  # fmt: skip
    assert [await process.wait() for process in processes] == [0, 0, 0, 0]
    assert await migrations.current(empty) == migrations.head()


async def test_the_migrations_make_the_tables_of_the_models(database: Database) -> None:
    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return compare_metadata(context, Base.metadata)

    # A separate engine: the engine of the pool returns json as text, and SQLAlchemy's reflection parses json.
    engine = create_async_engine(database.url, poolclass=NullPool)
    async with engine.connect() as connection:
        found = await connection.run_sync(differences)
    assert found == []
    await engine.dispose()


@pytest.mark.parametrize(("name", "definition"), INDEXES.items())
async def test_logs_are_indexed_for_the_usual_questions(database: Database, name: str, definition: str) -> None:
    async with database.connect() as connection:
        found = await connection.scalar(text("select indexdef from pg_indexes where indexname = :name"), {"name": name})
    assert found == f"CREATE INDEX {name} ON public.factory_logs USING {definition}"


async def test_an_unknown_process_is_refused_by_the_database_too(database: Database) -> None:
    async with database.connect() as connection:
        found = await connection.scalar(
            text("select pg_get_constraintdef(oid) from pg_constraint where conname = 'process_is_known'")
        )
    assert all(name in found for name in ("Repair and Return", "Replaced", "Repossessed", "Broken on Arrival"))


async def test_a_missing_database_is_unavailable(short_tmp: Any) -> None:
    with pytest.raises(DatabaseUnavailableError):
        await migrations.upgrade(f"postgresql://factory_logs@/factory_logs?host={short_tmp}/nothing")


LOGS = 500
MIGRATE = "import asyncio, sys; from factory_logs.db.migrations import upgrade; asyncio.run(upgrade(sys.argv[1]))"


@pytest_asyncio.fixture
async def old_url(empty_url: str) -> str:
    """Create a database with the indexes of the earlier revision, and logs."""
    await asyncio.to_thread(command.upgrade, migrations.config(empty_url), "0030")
    connection = await asyncpg.connect(empty_url)
    await seed(connection, LOGS)
    await connection.close()
    return empty_url


class Writers:
    """Write one log after the other; one of them is always uncommitted."""

    def __init__(self, one: asyncpg.Connection, other: asyncpg.Connection) -> None:
        self._idle, self._busy = one, other
        self.written = 0

    async def begin(self) -> None:
        await self._busy.execute("BEGIN; INSERT INTO factory_logs (app_name, timestamp) VALUES ('writer', now())")

    async def hand_over(self) -> None:
        """Raise LockNotAvailableError if a log has to wait."""
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
    """Return the connections of the migration, with the locks for which they wait."""
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


@pytest.mark.slow
async def test_logs_are_written_while_two_processes_change_the_indexes(
    old_url: str, writers: Writers, watch: asyncpg.Connection
) -> None:
    """Each step has to wait for a writer. A step that locked the table would block the next writer."""
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "broken"),
    [
        ("CREATE INDEX CONCURRENTLY ix_factory_logs_app_name_timestamp_new", "ix_factory_logs_app_name_timestamp_new"),
        ("DROP INDEX CONCURRENTLY IF EXISTS ix_factory_logs_app_name_timestamp", "ix_factory_logs_app_name_timestamp"),
    ],
)
async def test_an_interrupted_upgrade_is_completed_by_the_next(
    old_url: str, writers: Writers, watch: asyncpg.Connection, step: str, broken: str
) -> None:
    upgrade = asyncio.create_task(migrations.upgrade(old_url))
    await break_off(upgrade, writers, watch, step)
    await writers.end()
    with pytest.raises(DatabaseUnavailableError):
        await upgrade
    assert (await indexes(watch))[broken] == "INVALID"
    await migrations.upgrade(old_url)
    assert await indexes(watch) == INDEXES
    assert await watch.fetchval("SELECT version_num FROM alembic_version") == migrations.head()


async def break_off(upgrade: asyncio.Task[None], writers: Writers, watch: asyncpg.Connection, step: str) -> None:
    """End the connection of the migration while it waits for a writer in this step."""
    while not upgrade.done():
        for row in await migrating(watch):
            if row["waits_in"].startswith(step):
                await watch.execute("SELECT pg_terminate_backend($1::int)", row["pid"])
                return
            if row["waits_in"]:
                await writers.hand_over()
        await asyncio.sleep(0.01)


async def test_requests_do_not_wait_for_a_migration_that_waits_for_a_backup(empty_url: str) -> None:
    await asyncio.to_thread(command.upgrade, migrations.config(empty_url), "0040")
    backup, reader = [await asyncpg.connect(empty_url) for _ in range(2)]
    await backup.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; LOCK TABLE tokens, known_counts IN ACCESS SHARE MODE")
    upgrade = asyncio.create_task(migrations.upgrade(empty_url))
    while not any(row["waits_in"] for row in await migrating(reader)):
        assert not upgrade.done()
        await asyncio.sleep(0.01)
    for table in ("tokens", "known_counts"):
        await reader.execute(f"INSERT INTO {table} SELECT * FROM {table}", timeout=60)
    assert not upgrade.done()
    await backup.execute("COMMIT")
    await upgrade
    assert await reader.fetchval("SELECT version_num FROM alembic_version") == migrations.head()
    for connection in (backup, reader):
        await connection.close()


async def test_a_migration_waits_long_enough_for_postgresql_to_cancel_an_autovacuum(empty_url: str) -> None:
    """PostgreSQL cancels an autovacuum for which a statement has waited for `deadlock_timeout`."""
    connection = await asyncpg.connect(empty_url)
    await connection.execute("""
        CREATE TABLE timeouts (lock_timeout interval, deadlock_timeout interval);
        CREATE FUNCTION note_timeouts() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO timeouts
            SELECT current_setting('lock_timeout')::interval, current_setting('deadlock_timeout')::interval;
        END $$;
        CREATE EVENT TRIGGER note_timeouts ON ddl_command_start EXECUTE FUNCTION note_timeouts();
    """)
    await migrations.upgrade(empty_url)
    assert await connection.fetchval("SELECT bool_and(lock_timeout > deadlock_timeout) FROM timeouts")
    await connection.close()


async def test_an_invalid_index_of_another_owner_is_not_touched(old_url: str, watch: asyncpg.Connection) -> None:
    await watch.execute("CREATE INDEX theirs ON factory_logs (created_by)")
    await watch.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'theirs'::regclass")
    await migrations.upgrade(old_url)
    assert await indexes(watch) == {**INDEXES, "theirs": "INVALID"}


async def test_a_downgrade_restores_the_old_indexes(old_url: str, watch: asyncpg.Connection) -> None:
    before = await indexes(watch)
    await migrations.upgrade(old_url)
    await asyncio.to_thread(command.downgrade, migrations.config(old_url), "0030")
    assert await indexes(watch) == before
