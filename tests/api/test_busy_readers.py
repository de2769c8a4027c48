"""Writes and authentication never wait for reads, however many reads run and however long they take."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest

from factory_logs.db.engine import Database, Pool
from factory_logs.permissions import Level
from tests.api.conftest import client_of, worker
from tests.conftest import with_parameters

pytestmark = pytest.mark.slow

READS = 24
WRITES = 108
LOCK = 0x62757379  # "busy"
STALLING = f"""
CREATE SCHEMA stalling;
CREATE FUNCTION stalling.repairs() RETURNS SETOF public.repairs LANGUAGE plpgsql AS
    $$BEGIN PERFORM pg_advisory_lock_shared({LOCK}); PERFORM pg_advisory_unlock_shared({LOCK}); END$$;
CREATE VIEW stalling.repairs AS SELECT * FROM stalling.repairs();
"""
"""Every statement that reads repairs through this schema waits for the lock."""


@pytest.fixture
async def stalled_url(database: Database, migrated_url: str) -> AsyncIterator[str]:
    """Yield the URL of the database, in which reading a repair blocks until this fixture ends."""
    connection = await asyncpg.connect(migrated_url)
    await connection.execute("INSERT INTO factory_logs (app_name, timestamp) VALUES ('jig', now())")
    await connection.execute(STALLING)
    await connection.execute(f"SELECT pg_advisory_lock({LOCK})")
    yield with_parameters(migrated_url, "search_path=stalling,public")
    await connection.execute("DROP SCHEMA stalling CASCADE")
    await connection.close()


async def test_writes_and_logins_succeed_while_24_stats_calls_of_one_token_run(
    stalled_url: str, tokens: dict[Level, str]
) -> None:
    # Make each write look up its token in the database, and let stats use all connections for reads.
    settings = {"token_cache_seconds": 0.000_001, "statement_timeout_seconds": 600.0, "max_aggregates": READS}
    app_context = worker(stalled_url, **settings)
    async with app_context as app, client_of(app, tokens[Level.OVERVIEW]) as reader:
        reads = [
            asyncio.create_task(reader.get("/v1/factory_logs/stats", params={"by": "repair__process"}))
            for _ in range(READS)
        ]
        pool = app.state.services.database.engines[Pool.READING].pool
        async with asyncio.timeout(60):
            while pool.checkedout() < pool.size():
                await asyncio.sleep(0.01)
        async with client_of(app, tokens[Level.SYSTEM]) as writer:
            assert await write(writer) == {201}
            assert await log_in(writer) == {200}
            assert (await writer.get("/readyz")).status_code == 200
        assert sum(not read.done() for read in reads) >= pool.size()
        for read in reads:
            read.cancel()
        await asyncio.gather(*reads, return_exceptions=True)


async def write(client: httpx.AsyncClient) -> set[int]:
    """Store many single logs and batches, twelve at a time, and return the set of their statuses."""
    log = {"app_name": "jig", "timestamp": "2024-01-31T13:45:00Z"}
    kinds = [("/v1/factory_logs", log), ("/v1/factory_logs", [log] * 3)]
    limit = asyncio.Semaphore(12)

    async def post(number: int) -> int:
        async with limit:
            path, body = kinds[number % len(kinds)]
            return (await client.post(path, json=body)).status_code

    return set(await asyncio.gather(*map(post, range(WRITES))))


async def log_in(client: httpx.AsyncClient) -> set[int]:
    responses = [
        await client.post("/v1/auth/login", json={"username": "system", "password": "open sesame"}) for _ in range(3)
    ]
    return {response.status_code for response in responses}
