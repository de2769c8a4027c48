"""Insert logs on a Citus cluster, with the same results as `insert_logs` (docs/how-to/scale-out.md).

If an INSERT returns generated values, Citus splits it by shard, which takes ten times the processor time of a COPY.
Also, Citus commits a COPY in two phases even if it writes to a single shard, so the logs are atomic with the
idempotency keys on the coordinator. Therefore one transaction draws the ids, claims the keys and copies the logs.
"""

from collections.abc import Sequence
from datetime import datetime

import asyncpg

from factory_logs.db.citus import NEXT_IDS, SEQUENCE, shard_key
from factory_logs.db.log_inserts import (
    Forgotten,
    NewRow,
    Outcome,
    Stored,
    ending_with,
    log_values,
    unknown_repairs,
    with_first_responses,
)
from factory_logs.db.models import LOG_COLUMNS

_NEXT_IDS = f"SELECT id, now() AT TIME ZONE 'utc' FROM ({NEXT_IDS}) AS drawn (id)"  # noqa: S608 - our own text
# As in log_inserts.py, ids follow the order of the input, and all transactions claim keys in the same order.
_CLAIM = f"""
WITH input AS MATERIALIZED (
    SELECT u.*, nextval(ids.name) AS factory_log_id
    FROM unnest($1::integer[], $2::text[], $3::bytea[]) WITH ORDINALITY AS u (user_id, key, fingerprint, ordinal),
         {SEQUENCE}
    ORDER BY u.ordinal
), claimed AS (
    INSERT INTO idempotency_keys (user_id, key, fingerprint, factory_log_id, status)
    SELECT user_id, key, fingerprint, factory_log_id, 201 FROM input WHERE key IS NOT NULL
    ORDER BY user_id, key, ordinal
    ON CONFLICT DO NOTHING
    RETURNING factory_log_id
)
SELECT CASE WHEN key IS NULL OR claimed.factory_log_id IS NOT NULL THEN input.factory_log_id END,
       now() AT TIME ZONE 'utc'
FROM input LEFT JOIN claimed USING (factory_log_id) ORDER BY ordinal
"""  # noqa: S608
_COLUMNS = ("factory_log_id", "shard_key", *LOG_COLUMNS, "created_by", "created_at")


async def insert_logs_on_cluster(connection: asyncpg.Connection, rows: Sequence[NewRow]) -> list[Outcome]:
    """Store the rows in one transaction, and return the outcome of each row in the order of the input."""
    outcomes: list[Outcome] = [None] * len(rows)
    async with connection.transaction():
        unknown = await unknown_repairs(connection, (row.log.repair_id for row in rows))
        indexes = [index for index, row in enumerate(rows) if row.log.repair_id not in unknown]
        drawn = await _draw(connection, [rows[index] for index in indexes])
        records = []
        for index, (factory_log_id, created_at) in zip(indexes, drawn, strict=True):
            if factory_log_id is None:
                outcomes[index] = Forgotten()
                continue
            outcomes[index] = Stored(factory_log_id, created_at)
            log, created_by, _ = rows[index]
            records.append((factory_log_id, shard_key(factory_log_id), *log_values(log), created_by, created_at))
        if records:
            async with ending_with(connection):
                await connection.copy_records_to_table("factory_logs", columns=_COLUMNS, records=records)
    return await with_first_responses(connection, rows, outcomes)


async def _draw(connection: asyncpg.Connection, rows: Sequence[NewRow]) -> Sequence[tuple[int | None, datetime]]:
    """Draw an id for each row and claim its key. Return the id (None if the key was used before) and the time of each
    row."""
    keys = [row.key for row in rows]
    if not any(keys):
        return [tuple(row) for row in await connection.fetch(_NEXT_IDS, len(rows))]
    claimed = await connection.fetch(
        _CLAIM,
        [key and key.user_id for key in keys],
        [key and key.key for key in keys],
        [key and key.fingerprint for key in keys],
    )
    return [tuple(row) for row in claimed]
