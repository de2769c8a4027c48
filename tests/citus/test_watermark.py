"""The watermark of a cluster whose worker nodes crash between the two phases of commits."""

import asyncio
import random
from contextlib import suppress

import pytest

from factory_logs.db.engine import Database
from factory_logs.db.log_inserts import copy_logs
from factory_logs.ingest.new_logs import NewLogs
from tests.citus.crashes import LOST, crash_workers, recovered
from tests.citus.writers import grown, observe
from tests.querier.writers import log

WRITERS = 4


async def write(cluster: Database, chosen: random.Random) -> None:
    while True:
        with suppress(*LOST):
            connection = await cluster.connect_raw()
            try:
                while True:
                    async with connection.transaction():
                        await copy_logs(connection, NewLogs.of([log(chosen.randrange(1000)) for _ in range(5)]), None)
                        await asyncio.sleep(chosen.choice((0.0, 0.02)))
            finally:
                connection.terminate()
        await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_no_log_appears_below_the_watermark_when_worker_nodes_crash(cluster: Database, seconds: float) -> None:
    seen: list[tuple[int, int]] = []
    tasks = [write(cluster, random.Random(number)) for number in range(WRITERS)] + [observe(cluster, seen)]
    crashes = await crash_workers(cluster, seconds, tasks, random.Random(17))
    connection = await recovered(cluster)
    wrong = await grown(connection, seen)
    await connection.close()
    print(f"{crashes} crashes, {len(seen)} watermarks, {len(wrong)} wrong, {seen[-1][1]} logs")
    assert crashes > 2
    assert len(seen) > 10
    assert wrong == []
