from collections.abc import AsyncIterator

import pytest_asyncio
from sqlalchemy import make_url

from factory_logs.db.engine import Database
from factory_logs.settings import Settings


@pytest_asyncio.fixture
async def empty_url(postgres_url: str, settings: Settings) -> AsyncIterator[str]:
    """A database without tables beside the one of the other tests."""
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
