"""Runs migrations over asyncpg, one process at a time. The URL comes from db/migrate.py or from the environment."""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection, pool, text
from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from factory_logs.db.engine import connect_once
from factory_logs.db.models import Base

CONNECT_SECONDS = 10
LOCK_LOOK_SECONDS = 0.1
LOCK_KEY = 0x666C6F6773  # "flogs"


def database_url() -> str:
    url = context.config.attributes.get("database_url") or os.environ.get("FACTORY_LOGS_DATABASE_URL")
    if not url:
        raise SystemExit("Set FACTORY_LOGS_DATABASE_URL to the database to migrate.")
    return url


def migrate(connection: Connection) -> None:
    """Each in a transaction of its own, as one may have to leave it: CREATE INDEX CONCURRENTLY runs in none."""
    context.configure(connection=connection, target_metadata=Base.metadata, transaction_per_migration=True)
    try:
        with context.begin_transaction():
            context.run_migrations()
    except PendingRollbackError as error:
        # Alembic ends an autocommit block with a commit, also where the connection was lost in it.
        raise (error.__context__ or error) from None


async def lock(connection: AsyncConnection) -> None:
    """For as long as the connection lives, so that the next process sees what this one did.

    Asked for again and again: one who waits in a statement has a snapshot, which CREATE INDEX CONCURRENTLY waits for.
    """
    while not await connection.scalar(text("select pg_try_advisory_lock(:key)"), {"key": LOCK_KEY}):
        await connection.rollback()
        await asyncio.sleep(LOCK_LOOK_SECONDS)
    await connection.rollback()


async def migrate_online() -> None:
    url = database_url()
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: connect_once(url, CONNECT_SECONDS, {"statement_timeout": "0"}),
        poolclass=pool.NullPool,
    )
    try:
        async with engine.connect() as connection:
            await lock(connection)
            await connection.run_sync(migrate)
    finally:
        await engine.dispose()


if context.is_offline_mode():
    raise SystemExit("Migrations run against a database, not as --sql.")
asyncio.run(migrate_online())
