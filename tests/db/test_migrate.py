"""Migrations make exactly the tables of the models, once, however many start them."""

import asyncio
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, NullPool, text
from sqlalchemy.ext.asyncio import create_async_engine

from factory_logs.db import migrate
from factory_logs.db.engine import Database
from factory_logs.db.models import Base
from factory_logs.errors import DatabaseUnavailableError

INDEXES = {
    "ix_factory_logs_product_imei_timestamp": 'btree (product_imei, "timestamp", factory_log_id)',
    "ix_factory_logs_app_name_timestamp": 'btree (app_name, "timestamp", factory_log_id)',
    "ix_factory_logs_timestamp": 'btree ("timestamp", factory_log_id)',
    "ix_factory_logs_repair_id": "btree (repair_id, factory_log_id) WHERE (repair_id IS NOT NULL)",
    "ix_factory_logs_tags": "gin (tags jsonb_path_ops)",
}


async def test_a_database_without_tables_is_at_no_revision(empty: Database) -> None:
    assert await migrate.current(empty) is None


async def test_upgrade_brings_an_empty_database_to_the_head(empty: Database, empty_url: str) -> None:
    await migrate.upgrade(empty_url)
    assert await migrate.current(empty) == migrate.head()


async def test_a_second_upgrade_changes_nothing(empty: Database, empty_url: str) -> None:
    await migrate.upgrade(empty_url)
    async with empty.begin() as connection:
        await connection.execute(text("insert into repairs (product_imei) values ('490154203237518')"))
    await migrate.upgrade(empty_url)
    async with empty.connect() as connection:
        assert await connection.scalar(text("select count(*) from repairs")) == 1


async def test_several_workers_may_upgrade_at_once(empty: Database, empty_url: str) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            "python", "-c", "import asyncio, sys; from factory_logs.db.migrate import upgrade; "
            "asyncio.run(upgrade(sys.argv[1]))", empty_url,
        )
        for _ in range(4)
    ]  # fmt: skip
    assert [await process.wait() for process in processes] == [0, 0, 0, 0]
    assert await migrate.current(empty) == migrate.head()


async def test_the_migrations_make_the_tables_of_the_models(database: Database) -> None:
    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        return compare_metadata(context, Base.metadata)

    # An engine of its own: the pool's leaves json as text, and SQLAlchemy's reflection reads json.
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


async def test_a_process_that_nobody_knows_is_refused_by_the_database_too(database: Database) -> None:
    async with database.connect() as connection:
        found = await connection.scalar(
            text("select pg_get_constraintdef(oid) from pg_constraint where conname = 'process_is_known'")
        )
    assert all(name in found for name in ("Repair and Return", "Replaced", "Repossessed", "Broken on Arrival"))


async def test_a_database_that_is_not_there_is_unavailable(short_tmp: Any) -> None:
    with pytest.raises(DatabaseUnavailableError):
        await migrate.upgrade(f"postgresql://factory_logs@/factory_logs?host={short_tmp}/nothing")
