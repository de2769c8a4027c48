"""The SQL of the table `imports`, which records the stored parts of each imported file."""

from collections.abc import Sequence

import asyncpg

from factory_logs.db.citus import is_distributed
from factory_logs.db.engine import Database
from factory_logs.db.errors import translate_errors
from factory_logs.db.log_inserts import LogRow, copy_logs, log_values
from factory_logs.db.models import LOG_COLUMNS

_CLAIM = """
INSERT INTO imports (source, part, logs, rejected) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING RETURNING true
"""
# The ids are not returned, so PostgreSQL can assign them during the COPY. A Citus cluster cannot.
_COPIED = (*LOG_COLUMNS, "created_by")
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
    logs: Sequence[LogRow],
    rejected: int,
    created_by: str | None,
) -> bool:
    """Store a part's logs inside the caller's transaction; return False if the part is stored already.

    Waits while another command stores the same part.
    """
    if not await claim_part(connection, source, part, len(logs), rejected):
        return False
    if is_distributed(connection):
        await copy_logs(connection, logs, created_by)
        return True
    records = ((*log_values(log), created_by) for log in logs)
    await connection.copy_records_to_table("factory_logs", columns=_COPIED, records=records)
    return True


async def done_parts(database: Database, source: bytes) -> dict[int, tuple[int, int]]:
    """Return the stored parts of a file, with the number of stored and of rejected records of each."""
    connection = await database.connect_raw()
    try:
        with translate_errors():
            return {part: (logs, rejected) for part, logs, rejected in await connection.fetch(_DONE, source)}
    finally:
        await connection.close()
