"""Runs migrations over asyncpg, one process at a time. The URL comes from db/migrate.py or from the environment."""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection, pool, text
from sqlalchemy.ext.asyncio import create_async_engine

from factory_logs.db.engine import connect_once
from factory_logs.db.models import Base

CONNECT_SECONDS = 10
LOCK_KEY = 0x666C6F6773  # "flogs"


def database_url() -> str:
    url = context.config.attributes.get("database_url") or os.environ.get("FACTORY_LOGS_DATABASE_URL")
    if not url:
        raise SystemExit("Set FACTORY_LOGS_DATABASE_URL to the database to migrate.")
    return url


def migrate(connection: Connection) -> None:
    """All in one transaction; the lock ends with it, so that the next process sees what this one did."""
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        connection.execute(text("select pg_advisory_xact_lock(:key)"), {"key": LOCK_KEY})
        context.run_migrations()


async def migrate_online() -> None:
    url = database_url()
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: connect_once(url, CONNECT_SECONDS),
        poolclass=pool.NullPool,
    )
    try:
        async with engine.connect() as connection:
            await connection.run_sync(migrate)
    finally:
        await engine.dispose()


if context.is_offline_mode():
    raise SystemExit("Migrations run against a database, not as --sql.")
asyncio.run(migrate_online())
