"""Crashes of the worker nodes of a cluster, and what follows."""

import asyncio
import random
import time
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any

import asyncpg

from factory_logs.db.citus import wait_for_prepared_writers
from factory_logs.db.engine import Database
from factory_logs.errors import DatabaseUnavailableError

LOST = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, DatabaseUnavailableError)
SECONDS = 20.0
_CRASH = "COPY (SELECT 1) TO PROGRAM 'kill -9 $PPID'"
"""Kills the process that runs it, at which PostgreSQL ends all others and starts again from its log."""
_ALL_RESPOND = "SELECT bool_and(success) FROM run_command_on_all_nodes('SELECT 1')"
_WORKERS = "SELECT nodename, nodeport FROM pg_dist_node WHERE noderole = 'primary' AND groupid > 0 ORDER BY nodeid"


async def crash_workers(
    cluster: Database, seconds: float, tasks: Sequence[Coroutine[Any, Any, None]], chosen: random.Random
) -> int:
    """Let a worker node crash every other second while the tasks run; return how often one has. Then end the tasks."""
    crashes = 0
    async with asyncio.TaskGroup() as group:
        running = [group.create_task(task) for task in tasks]
        end = time.monotonic() + (seconds or SECONDS)
        while time.monotonic() < end:
            await asyncio.sleep(chosen.uniform(0.5, 2.5))
            with suppress(*LOST):
                administrator = await cluster.connect_raw()
                try:
                    await _crash_a_worker(administrator, chosen)
                    crashes += 1
                finally:
                    administrator.terminate()
        for task in running:
            task.cancel()
    return crashes


async def _crash_a_worker(connection: asyncpg.Connection, chosen: random.Random) -> None:
    """Make the PostgreSQL of one worker node crash. It starts again at once."""
    name, port = chosen.choice([tuple(row) for row in await connection.fetch(_WORKERS)])
    await connection.fetch(
        "SELECT master_run_on_worker(ARRAY[$1], ARRAY[$2::int], ARRAY[$3], false)", name, port, _CRASH
    )


async def recovered(cluster: Database) -> asyncpg.Connection:
    """Wait until all nodes take connections and recovery has ended all prepared transactions; return a connection.

    Pooled connections are closed, because the coordinator keeps connections to the nodes for each of them. Those to a
    crashed node are lost.
    """
    await cluster.dispose()
    while True:
        connection: asyncpg.Connection | None = None
        with suppress(*LOST):
            connection = await cluster.connect_raw()
            if await connection.fetchval(_ALL_RESPOND):
                await connection.execute("SELECT recover_prepared_transactions()")
                await wait_for_prepared_writers(connection)
                return connection
        if connection is not None:
            connection.terminate()
        await asyncio.sleep(0.5)
