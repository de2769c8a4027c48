"""The SQL that stores logs. Spoken to asyncpg itself: this is the hot path of the service (docs/decisions.md)."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

import asyncpg


class LogRow(Protocol):
    """What a row needs; `tags` and `fields` are JSON text."""

    @property
    def app_name(self) -> str: ...
    @property
    def product_imei(self) -> str | None: ...
    @property
    def repair_id(self) -> int | None: ...
    @property
    def timestamp(self) -> datetime: ...
    @property
    def tags(self) -> str | None: ...
    @property
    def fields(self) -> str | None: ...


class Stored(NamedTuple):
    """What the system set when the log was committed."""

    factory_log_id: int
    created_at: datetime


# A repair_id that is not there fails alone: its row is left out here and its waiter told so. Ids are taken in the
# order of the input, inside the transaction that uses them.
_INSERT = """
WITH input AS MATERIALIZED (
    SELECT u.place, nextval(pg_get_serial_sequence('factory_logs', 'factory_log_id')) AS factory_log_id,
           u.app_name, u.product_imei, u.repair_id, u.timestamp, u.tags, u.fields, u.created_by
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamp[], $5::text[], $6::text[], $7::text[])
         WITH ORDINALITY AS u (app_name, product_imei, repair_id, timestamp, tags, fields, created_by, place)
    WHERE u.repair_id IS NULL OR EXISTS (SELECT FROM repairs r WHERE r.repair_id = u.repair_id)
    ORDER BY u.place
), stored AS (
    INSERT INTO factory_logs (factory_log_id, app_name, product_imei, repair_id, timestamp, tags, fields, created_by)
    SELECT factory_log_id, app_name, product_imei, repair_id::int, timestamp, tags::jsonb, fields::jsonb, created_by
    FROM input
    RETURNING factory_log_id, created_at
)
SELECT input.place, stored.factory_log_id, stored.created_at FROM input JOIN stored USING (factory_log_id)
"""
_BIGINT = 2**63


async def insert_logs(connection: asyncpg.Connection, rows: Sequence[tuple[LogRow, str | None]]) -> list[Stored | None]:
    """Store `(log, created_by)` rows in one statement and one commit.

    Gives what was stored in the order of the input; None where `repair_id` points at no repair, that row alone is
    not stored.
    """
    logs = [log for log, _ in rows]
    stored = await connection.fetch(
        _INSERT,
        [log.app_name for log in logs],
        [log.product_imei for log in logs],
        [_as_bigint(log.repair_id) for log in logs],
        [log.timestamp for log in logs],
        [log.tags for log in logs],
        [log.fields for log in logs],
        [created_by for _, created_by in rows],
    )
    results: list[Stored | None] = [None] * len(rows)
    for place, factory_log_id, created_at in stored:
        results[place - 1] = Stored(factory_log_id, created_at)
    return results


def _as_bigint(repair_id: int | None) -> int | None:
    """No repair has a negative id, so any number PostgreSQL cannot take stands for one that is not there."""
    return repair_id if repair_id is None or -_BIGINT <= repair_id < _BIGINT else -1
