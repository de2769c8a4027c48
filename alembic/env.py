"""Run migrations over asyncpg, one process at a time. db/migrations.py or the environment gives the URL."""

import asyncio
import os

from alembic import context
from sqlalchemy import Connection, pool, text
from sqlalchemy.exc import DBAPIError, PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from factory_logs.db.connecting import connect_once
from factory_logs.db.models import Base

CONNECT_SECONDS = 10
LOCK_LOOK_SECONDS = 0.1
TABLE_LOCK_SECONDS = 2
"""How long a migration waits for the lock of a table. Reads and writes of the table queue behind it, and a backup may
hold a lock for hours, so the migration gives up and tries again until it gets the lock.

It is more than `deadlock_timeout`, 1 s by default: after that, PostgreSQL cancels an autovacuum that holds the lock.
"""
PAUSE_SECONDS = 2
LOCK_NOT_AVAILABLE = "55P03"
LOCK_KEY = 0x666C6F6773  # "flogs"


def database_url() -> str:
    url = context.config.attributes.get("database_url") or os.environ.get("FACTORY_LOGS_DATABASE_URL")
    if not url:
        raise SystemExit("Set FACTORY_LOGS_DATABASE_URL to the database to migrate.")
    return url


def migrate(connection: Connection) -> bool:
    """Run the missing migrations. Return False if the next one did not get the lock of a table.

    Each migration runs in its own transaction, as a migration may have to leave it: CREATE INDEX CONCURRENTLY runs
    outside.
    """
    context.configure(connection=connection, target_metadata=Base.metadata, transaction_per_migration=True)
    try:
        with context.begin_transaction():
            context.run_migrations()
    except PendingRollbackError as error:
        # Alembic ends an autocommit block with a commit, even if the connection was lost in the block.
        raise (error.__context__ or error) from None
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != LOCK_NOT_AVAILABLE:
            raise
        connection.rollback()
        return False
    return True


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
    settings = {"statement_timeout": "0", "lock_timeout": f"{TABLE_LOCK_SECONDS}s"}
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: connect_once(url, CONNECT_SECONDS, settings),
        poolclass=pool.NullPool,
    )
    try:
        async with engine.connect() as connection:
            await lock(connection)
            while True:
                if await connection.run_sync(migrate):
                    return
                await asyncio.sleep(PAUSE_SECONDS)
    finally:
        await engine.dispose()


if context.is_offline_mode():
    raise SystemExit("Migrations run against a database, not as --sql.")
asyncio.run(migrate_online())
