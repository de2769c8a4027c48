"""The watermark of a cluster whose worker nodes crash between the two phases of commits."""

import asyncio
import random
from contextlib import suppress

import pytest

from factory_logs.db.engine import Database
from factory_logs.db.log_inserts import copy_logs
from factory_logs.db.watermark import Watermark
from tests.citus.crashes import LOST, crash_workers, recovered
from tests.querier.writers import log

WRITERS = 4
_UP_TO = "SELECT count(*) FROM factory_logs WHERE factory_log_id <= $1"


async def write(cluster: Database, chosen: random.Random) -> None:
    while True:
        with suppress(*LOST):
            connection = await cluster.connect_raw()
            try:
                while True:
                    async with connection.transaction():
                        await copy_logs(connection, [log(chosen.randrange(1000)) for _ in range(5)], None)
                        await asyncio.sleep(chosen.choice((0.0, 0.02)))
            finally:
                connection.terminate()
        await asyncio.sleep(0.05)


async def observe(cluster: Database, seen: list[tuple[int, int]]) -> None:
    """Add each new watermark, with the number of logs up to it at that time."""
    watermark = Watermark(0.0)
    while True:
        with suppress(*LOST):
            connection = await cluster.connect_raw()
            try:
                while True:
                    await watermark.observe(connection)
                    if not seen or watermark.id > seen[-1][0]:
                        seen.append((watermark.id, await connection.fetchval(_UP_TO, watermark.id)))
                    await asyncio.sleep(0.02)
            finally:
                connection.terminate()
        await asyncio.sleep(0.05)


@pytest.mark.slow
async def test_no_log_appears_below_the_watermark_when_worker_nodes_crash(cluster: Database, seconds: float) -> None:
    seen: list[tuple[int, int]] = []
    tasks = [write(cluster, random.Random(number)) for number in range(WRITERS)] + [observe(cluster, seen)]
    crashes = await crash_workers(cluster, seconds, tasks, random.Random(17))
    connection = await recovered(cluster)
    now = {watermark: await connection.fetchval(_UP_TO, watermark) for watermark, _ in seen}
    await connection.close()
    grown = [(watermark, logs, now[watermark]) for watermark, logs in seen if logs != now[watermark]]
    print(f"{crashes} crashes, {len(seen)} watermarks, {len(grown)} wrong, {seen[-1][1]} logs")
    assert crashes > 2
    assert len(seen) > 10
    assert grown == []
