"""Run migrations over asyncpg, one process at a time. db/migrations.py or the environment gives the URL."""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection, pool, text
from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from factory_logs.db.connecting import connect_once
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
    """Run each migration in its own transaction, as a migration may have to leave it: CREATE INDEX CONCURRENTLY runs
    outside."""
    context.configure(connection=connection, target_metadata=Base.metadata, transaction_per_migration=True)
    try:
        with context.begin_transaction():
            context.run_migrations()
    except PendingRollbackError as error:
        # Alembic ends an autocommit block with a commit, even if the connection was lost in the block.
        raise (error.__context__ or error) from None


async def lock(connection: AsyncConnection) -> None:
    """Take the lock for the life of the connection, so that the next process sees the result of this one.

    The lock is polled: a statement that waits for it would hold a snapshot, for which CREATE INDEX CONCURRENTLY waits.
    """
    while not await connection.scalar(text("select pg_try_advisory_lock(:key)"), {"key": LOCK_KEY}):
        await connection.rollback()
        await asyncio.sleep(LOCK_LOOK_SECONDS)
    await connection.rollback()


async def migrate_online() -> None:
    url = database_url()
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: connect_once(url, CONNECT_SECONDS, {"statement_timeout": "0", "lock_timeout": "0"}),
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
