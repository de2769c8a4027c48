"""The SQL of the table `imports`, which records the stored parts of each imported file."""

import asyncpg

from factory_logs.db.copy_format import LogColumns
from factory_logs.db.engine import Database
from factory_logs.db.errors import translate_errors
from factory_logs.db.log_inserts import copy_logs_without_ids

_CLAIM = """
INSERT INTO imports (source, part, logs, rejected) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING RETURNING true
"""
_DONE = "SELECT part, logs, rejected FROM imports WHERE source = $1"


async def claim_part(connection: asyncpg.Connection, source: bytes, part: int, stored: int, rejected: int) -> bool:
    """Record inside the caller's transaction that a part is stored; return False if it is recorded already.

    Waits while another command stores the same part.
    """
    return bool(await connection.fetchval(_CLAIM, source, part, stored, rejected))


async def store_part(
    connection: asyncpg.Connection,
    source: bytes,
    part: int,
    logs: LogColumns,
    rejected: int,
    created_by: str | None,
) -> bool:
    """Store a part's logs inside the caller's transaction; return False if the part is stored already.

    Waits while another command stores the same part.
    """
    if not await claim_part(connection, source, part, len(logs), rejected):
        return False
    await copy_logs_without_ids(connection, logs, created_by)
    return True


async def done_parts(database: Database, source: bytes) -> dict[int, tuple[int, int]]:
    """Return the stored parts of a file, with the number of stored and of rejected records of each."""
    connection = await database.connect_raw()
    try:
        with translate_errors():
            return {part: (logs, rejected) for part, logs, rejected in await connection.fetch(_DONE, source)}
    finally:
        await connection.close()
