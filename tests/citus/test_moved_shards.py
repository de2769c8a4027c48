"""Moving shards to other nodes while logs are written, as rebalancing does."""

import asyncio
import random

import asyncpg
import pytest

from factory_logs.db.engine import Database
from tests.citus.crashes import recovered
from tests.citus.writers import grown, observe, write

MOVES = 6
WRITERS = 3
_SHARDS = """
SELECT shardid, nodename, nodeport FROM pg_dist_shard JOIN pg_dist_placement USING (shardid)
    JOIN pg_dist_node USING (groupid)
WHERE logicalrelid = 'factory_logs'::regclass AND noderole = 'primary' ORDER BY shardid
"""
_NODES = "SELECT nodename, nodeport FROM pg_dist_node WHERE noderole = 'primary' AND shouldhaveshards ORDER BY nodeid"
_MOVE = "SELECT citus_move_shard_placement($1, $2, $3, $4, $5, 'force_logical')"


async def move_a_shard(connection: asyncpg.Connection, chosen: random.Random) -> None:
    shard, *source = chosen.choice([tuple(row) for row in await connection.fetch(_SHARDS)])
    target = chosen.choice([node for row in await connection.fetch(_NODES) if (node := list(row)) != source])
    await connection.execute(_MOVE, shard, *source, *target, timeout=600)


@pytest.mark.slow
async def test_no_log_is_lost_and_none_appears_below_the_watermark_when_shards_move(cluster: Database) -> None:
    acknowledged: list[int] = []
    seen: list[tuple[int, int]] = []
    chosen = random.Random(19)
    tasks = [asyncio.create_task(write(cluster, acknowledged)) for _ in range(WRITERS)]
    tasks.append(asyncio.create_task(observe(cluster, seen)))
    administrator = await cluster.connect_raw()
    await administrator.execute("SET statement_timeout TO 0")
    for _ in range(MOVES):
        before = len(acknowledged)
        await move_a_shard(administrator, chosen)
        while len(acknowledged) == before:
            await asyncio.sleep(0.01)
    await administrator.close()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    connection = await recovered(cluster)
    found = [row[0] for row in await connection.fetch("SELECT factory_log_id FROM factory_logs")]
    wrong = await grown(connection, seen)
    await connection.close()
    print(f"{len(acknowledged)} acknowledged, {len(found)} stored, {len(seen)} watermarks, {len(wrong)} wrong")
    assert len(found) == len(set(found))
    assert set(acknowledged) <= set(found)
    assert len(seen) > MOVES
    assert wrong == []
