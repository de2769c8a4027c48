"""Which parts of which dumps are imported; the only SQL over `imports`."""

from collections.abc import Iterator, Sequence

import asyncpg

from factory_logs.db.engine import Database, translate_errors
from factory_logs.db.log_writes import LogRow

_CLAIM = """
INSERT INTO imports (source, part, logs, rejected) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING RETURNING true
"""
# Nobody is told the ids, so PostgreSQL gives them out as it copies.
_COPIED = ("app_name", "product_imei", "repair_id", "timestamp", "tags", "fields", "created_by")
_DONE = "SELECT part, logs, rejected FROM imports WHERE source = $1"


async def store_part(
    connection: asyncpg.Connection,
    source: bytes,
    part: int,
    logs: Sequence[LogRow],
    rejected: int,
    created_by: str | None,
) -> bool:
    """Store a part's logs inside the caller's transaction, unless it is stored already; whether it was new.

    Waits for another that stores the same part right now.
    """
    if not await connection.fetchval(_CLAIM, source, part, len(logs), rejected):
        return False
    await connection.copy_records_to_table("factory_logs", columns=_COPIED, records=_records(logs, created_by))
    return True


def _records(logs: Sequence[LogRow], created_by: str | None) -> Iterator[tuple[object, ...]]:
    for log in logs:
        yield log.app_name, log.product_imei, log.repair_id, log.timestamp, log.tags, log.fields, created_by


async def done_parts(database: Database, source: bytes) -> dict[int, tuple[int, int]]:
    """The parts of a dump that are stored: how many logs each, and how many of its lines were rejected."""
    connection = await database.connect_raw()
    try:
        with translate_errors():
            return {part: (logs, rejected) for part, logs, rejected in await connection.fetch(_DONE, source)}
    finally:
        await connection.close()
