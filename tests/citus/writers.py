"""A writer that remembers which logs are acknowledged, and an observer of the watermark.

Both continue on a new connection after an error.
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import asyncpg

from factory_logs.db.engine import Database
from factory_logs.db.log_inserts import NewRow, Stored
from factory_logs.db.watermark import Watermark
from tests.citus.crashes import LOST
from tests.querier.writers import insert, log

_UP_TO = "SELECT count(*) FROM factory_logs WHERE factory_log_id <= $1"


async def write(database: Database, acknowledged: list[int]) -> None:
    """Store logs one after another, and add the id of each acknowledged log."""
    while True:
        with suppress(*LOST):
            connection = await database.connect_raw()
            try:
                while True:
                    (stored,) = await insert(connection, [NewRow(log(1), None)])
                    assert isinstance(stored, Stored)
                    acknowledged.append(stored.factory_log_id)
                    await asyncio.sleep(0.002)
            finally:
                connection.terminate()


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


async def grown(connection: asyncpg.Connection, seen: Sequence[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Return each watermark whose number of logs has changed, with both numbers."""
    now = [(watermark, logs, await connection.fetchval(_UP_TO, watermark)) for watermark, logs in seen]
    return [each for each in now if each[1] != each[2]]
