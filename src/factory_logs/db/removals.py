"""Count the logs that retention has removed from each block of ids, and those that an archive has restored.

The count of a block changes if and only if a log of the block is removed or restored, in the same transaction. So a
result about the logs of a block stays valid while the count is the same, even if logs of other blocks were removed.
"""

from collections.abc import Mapping
from typing import NamedTuple

import asyncpg
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from factory_logs.db.count_cache import TableState
from factory_logs.db.models import Removal

BLOCK = 100_000
"""How many ids a block covers: block 0 begins with id 1. Changing it requires a migration that deletes all counts."""
_NOTE = """
INSERT INTO removals (block, logs) SELECT * FROM unnest($1::bigint[], $2::bigint[])
ON CONFLICT (block) DO UPDATE SET logs = removals.logs + excluded.logs
"""


class Removals(NamedTuple):
    """The counts in one snapshot. `uncounted` is the number of removed logs that no block counts: those that an older
    version has removed, which did not count by block."""

    uncounted: int
    by_block: Mapping[int, int]

    def within(self, above: int, up_to: int) -> int:
        """Return the count of the blocks that contain the ids above `above`, up to `up_to`."""
        return sum(self.by_block.get(block, 0) for block in range(removal_block(above + 1), removal_block(up_to) + 1))


def removal_block(factory_log_id: int) -> int:
    return (factory_log_id - 1) // BLOCK


async def note_removals(connection: asyncpg.Connection, by_block: Mapping[int, int]) -> None:
    """Add the logs that are removed or restored in this transaction."""
    await connection.execute(_NOTE, list(by_block), list(by_block.values()))


async def load_removals(connection: AsyncConnection, state: TableState) -> Removals:
    """Return the counts in the snapshot of a transaction; `state` is the state of the table in the same snapshot."""
    by_block = {row.block: row.logs for row in await connection.execute(select(Removal.block, Removal.logs))}
    return Removals(state.removed - sum(by_block.values()), by_block)
