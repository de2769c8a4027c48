from collections.abc import AsyncIterator

import asyncpg
import pytest_asyncio
from benchmarks.seeding import seed
from sqlalchemy import make_url

from factory_logs.db import migrations
from factory_logs.db.engine import Database
from factory_logs.settings import Settings
from tests.querier.plans import LOGS


@pytest_asyncio.fixture(scope="module")
async def connection(postgres_url: str, _no_settings_of_the_developer: None) -> AsyncIterator[asyncpg.Connection]:
    """Connect to a separate database with many logs, with the settings of the service's connections except the
    time-out."""
    patient = Settings().model_copy(update={"statement_timeout_seconds": 600.0})
    administrator = await Database(postgres_url, patient).connect_raw()
    await administrator.execute("create database plans")
    url = make_url(postgres_url).set(database="plans").render_as_string(hide_password=False)
    await migrations.upgrade(url)
    opened = await Database(url, patient).connect_raw()
    await seed(opened, LOGS)
    yield opened
    await opened.close()
    await administrator.execute("drop database plans with (force)")
    await administrator.close()
