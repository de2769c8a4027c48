"""The pools for pages and batches: a limited number of connections, and a limited time to wait for one."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import asyncpg
import pytest
import pytest_asyncio

from factory_logs.db.connection_pool import BatchConnections, PageConnections, Planning
from factory_logs.db.engine import Database
from factory_logs.errors import BadRequestError, DatabaseUnavailableError, OverloadedError
from factory_logs.settings import Settings

MOST = 2
THESE, ANY = Planning.FOR_THESE_VALUES, Planning.FOR_ANY_VALUES


def connections_with(database: Database, **settings: object) -> PageConnections:
    return PageConnections(database, Settings().model_copy(update={"page_connections": MOST, **settings}))


@pytest_asyncio.fixture
async def patient(database: Database) -> AsyncIterator[PageConnections]:
    connections = connections_with(database, pool_timeout_seconds=60.0)
    yield connections
    connections.close()


@pytest_asyncio.fixture
async def impatient(database: Database) -> AsyncIterator[PageConnections]:
    connections = connections_with(database, pool_timeout_seconds=0.05)
    yield connections
    connections.close()


async def pid(connection: asyncpg.Connection) -> int:
    found: int = await connection.fetchval("SELECT pg_backend_pid()")
    return found


async def test_one_more_than_the_limit_is_unavailable_after_the_timeout(impatient: PageConnections) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(MOST):
            await stack.enter_async_context(impatient.connect(THESE))
        with pytest.raises(DatabaseUnavailableError, match="All database connections are busy"):
            async with impatient.connect(THESE):
                pass
    async with impatient.connect(THESE) as connection:
        assert await pid(connection)


async def test_one_batch_more_than_the_limit_is_refused_after_the_timeout(database: Database) -> None:
    settings = Settings().model_copy(update={"batch_connections": MOST, "batch_wait_seconds": 0.05})
    batches = BatchConnections(database, settings)
    async with AsyncExitStack() as stack:
        for _ in range(MOST):
            await stack.enter_async_context(batches.transaction())
        with pytest.raises(OverloadedError, match="cannot take more batches"):
            async with batches.transaction():
                pass
    async with batches.transaction() as connection:
        assert await pid(connection)
    batches.close()


async def test_a_connection_is_not_used_again_if_its_rollback_is_cancelled(database: Database) -> None:
    batches = BatchConnections(database, Settings().model_copy(update={"batch_connections": 1}))
    used: list[asyncpg.Connection] = []

    async def refused() -> None:
        async with batches.transaction() as connection:
            used.append(connection)
            asyncio.get_running_loop().call_soon(refusing.cancel)  # as soon as the ROLLBACK is sent
            raise BadRequestError("refused")

    refusing = asyncio.create_task(refused())
    with pytest.raises(asyncio.CancelledError):
        await refusing
    assert used[0].is_closed()
    async with batches.transaction() as connection:
        assert await pid(connection)
    batches.close()


async def test_a_waiting_caller_gets_the_first_released_connection(patient: PageConnections) -> None:
    async def page() -> int:
        async with patient.connect(THESE) as connection:
            return await pid(connection)

    async with AsyncExitStack() as stack:
        pids = {await pid(await stack.enter_async_context(patient.connect(THESE))) for _ in range(MOST)}
        waiting = [asyncio.create_task(page()) for _ in range(10)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
    assert len(pids) == MOST
    assert set(await asyncio.gather(*waiting)) <= pids


async def test_a_connection_is_released_after_any_error(impatient: PageConnections) -> None:
    for _ in range(MOST + 1):
        with pytest.raises(asyncpg.UndefinedTableError):
            async with impatient.connect(THESE) as connection:
                await connection.fetch("SELECT 1 FROM nothing")
        with pytest.raises(ValueError, match="ours"):
            async with impatient.connect(THESE):
                raise ValueError("ours")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), impatient.connect(THESE) as connection:
                await connection.execute("SELECT pg_sleep(60)")
    async with impatient.connect(THESE) as connection:
        assert await connection.fetchval("SELECT 1") == 1


async def test_a_cancelled_caller_takes_no_connection(patient: PageConnections) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(MOST):
            await stack.enter_async_context(patient.connect(THESE))
        waiting = asyncio.create_task(stack.enter_async_context(patient.connect(THESE)))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    async with AsyncExitStack() as stack:
        for _ in range(MOST):
            await stack.enter_async_context(patient.connect(THESE))


async def test_a_free_connection_uses_the_requested_planner_settings(
    patient: PageConnections, database: Database
) -> None:
    """Two ways of planning do not need more connections than one."""
    seen = set()
    for planning in (THESE, ANY, ANY, THESE):
        async with AsyncExitStack() as stack:
            for _ in range(MOST):
                connection = await stack.enter_async_context(patient.connect(planning))
                assert await connection.fetchval("SHOW plan_cache_mode") == planning.value
                seen.add(await pid(connection))
    assert len(seen) == MOST


async def test_a_connection_lost_while_idle_is_replaced(patient: PageConnections, database: Database) -> None:
    async with patient.connect(THESE) as connection:
        lost = await pid(connection)
    administrator = await database.connect_raw()
    await administrator.execute("SELECT pg_terminate_backend($1::int, 10000)", lost)
    await administrator.close()
    while not connection.is_closed():
        await asyncio.sleep(0.01)
    for planning in (ANY, THESE):
        async with patient.connect(planning) as connection:
            assert await pid(connection) != lost


async def test_closing_does_not_wait_for_a_server_that_does_not_respond(patient: PageConnections) -> None:
    async with patient.connect(THESE) as connection:
        stopped = await pid(connection)
    os.kill(stopped, signal.SIGSTOP)
    try:
        patient.close()
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert connection.is_closed()
