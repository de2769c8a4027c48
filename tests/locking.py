"""Locks on tables: for tests of requests that wait for PostgreSQL, and of statements that lock whole tables."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from sqlalchemy import text

from factory_logs.db.engine import Database
from factory_logs.db.errors import BROKEN_OFF
from factory_logs.errors import DatabaseUnavailableError

TRIES = 10


async def execute_again_after_deadlock(database: Database, statement: str) -> None:
    """Execute a statement in a transaction of its own, again if PostgreSQL ends it as a deadlock.

    A service that other tests use too works in the background, for example on its catalog.
    """
    for _ in range(TRIES):
        try:
            async with database.begin() as connection:
                await connection.execute(text(statement))
        except DatabaseUnavailableError as error:
            if error.message != BROKEN_OFF:
                raise
            continue
        return
    raise AssertionError(f"In each of {TRIES} tries, others locked the tables: {statement}")


@asynccontextmanager
async def locked(url: str) -> AsyncIterator[asyncpg.Connection]:
    """Block all reads and writes of logs and repairs; yield a connection that can watch the waiting statements."""
    holder, watcher = await asyncpg.connect(url), await asyncpg.connect(url)
    try:
        async with asyncio.timeout(60), holder.transaction():
            await holder.execute("LOCK TABLE factory_logs, repairs IN ACCESS EXCLUSIVE MODE")
            yield watcher
    finally:
        await holder.close()
        await watcher.close()
