"""Locks on tables, for tests of requests that wait for PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg


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
