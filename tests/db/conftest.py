from collections.abc import AsyncIterator

import pytest_asyncio
from sqlalchemy import make_url

from factory_logs.db.engine import Database
from factory_logs.settings import Settings

INDEXES = {
    "ix_factory_logs_product_imei_timestamp": 'btree (product_imei, "timestamp", factory_log_id)',
    "ix_factory_logs_app_name_timestamp": 'btree (app_name, "timestamp", factory_log_id)',
    "ix_factory_logs_timestamp": 'btree ("timestamp", factory_log_id)',
    "ix_factory_logs_repair_id": "btree (repair_id, factory_log_id) WHERE (repair_id IS NOT NULL)",
    "ix_factory_logs_tags": "gin (tags jsonb_path_ops)",
}


@pytest_asyncio.fixture
async def empty_url(postgres_url: str, settings: Settings) -> AsyncIterator[str]:
    """Create a database without tables, separate from the database of the other tests."""
    administrator = Database(postgres_url, settings)
    connection = await administrator.connect_raw()
    await connection.execute("create database empty")
    yield make_url(postgres_url).set(database="empty").render_as_string(hide_password=False)
    await connection.execute("drop database empty with (force)")
    await connection.close()


@pytest_asyncio.fixture
async def empty(empty_url: str, settings: Settings) -> AsyncIterator[Database]:
    database = Database(empty_url, settings)
    yield database
    await database.dispose()
