"""The SQL that stores logs. Spoken to asyncpg itself: this is the hot path of the service (docs/decisions.md)."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

import asyncpg

from factory_logs.db import idempotency
from factory_logs.db.idempotency import FirstAnswer, Key


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


class NewRow(NamedTuple):
    """A log to store, who sends it, and the key it may be sent again under."""

    log: LogRow
    created_by: str | None
    key: Key | None = None


class Stored(NamedTuple):
    """What the system set when the log was committed."""

    factory_log_id: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Nothing was stored, as the key was taken; and then it was purged, so nobody knows any more for what."""


Outcome = Stored | FirstAnswer | Forgotten | None
"""What became of a row: stored; its key was used before; or its `repair_id` points nowhere."""

# A repair_id that is not there fails alone: its row is left out here and its waiter told so. Ids are taken in the
# order of the input, inside the transaction that uses them.
_INPUT = """
WITH input AS MATERIALIZED (
    SELECT u.*, nextval('factory_logs_factory_log_id_seq') AS factory_log_id
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamp[], $5::text[], $6::text[], $7::text[]{key_arrays})
         WITH ORDINALITY
         AS u (app_name, product_imei, repair_id, timestamp, tags, fields, created_by{key_columns}, place)
    WHERE u.repair_id IS NULL OR EXISTS (SELECT FROM repairs r WHERE r.repair_id = u.repair_id)
    ORDER BY u.place
)"""
_STORE = """, stored AS (
    INSERT INTO factory_logs (factory_log_id, app_name, product_imei, repair_id, timestamp, tags, fields, created_by)
    SELECT factory_log_id, app_name, product_imei, repair_id::int, timestamp, tags::jsonb, fields::jsonb, created_by
    FROM input{condition}
    RETURNING factory_log_id, created_at
)
SELECT input.place, stored.factory_log_id, stored.created_at FROM input {join} stored USING (factory_log_id)
"""
# Keys are claimed in one order everywhere, so that two batches cannot wait for each other.
_CLAIM = """, claimed AS (
    INSERT INTO idempotency_keys (user_id, key, fingerprint, factory_log_id, status)
    SELECT user_id, key, fingerprint, factory_log_id, 201 FROM input WHERE key IS NOT NULL ORDER BY user_id, key, place
    ON CONFLICT DO NOTHING
    RETURNING factory_log_id
)"""
_INSERT = _INPUT.format(key_arrays="", key_columns="") + _STORE.format(condition="", join="JOIN")
_INSERT_KEYED = (
    _INPUT.format(key_arrays=", $8::integer[], $9::text[], $10::bytea[]", key_columns=", user_id, key, fingerprint")
    + _CLAIM
    + _STORE.format(
        condition=" WHERE key IS NULL OR factory_log_id IN (SELECT factory_log_id FROM claimed)", join="LEFT JOIN"
    )
)
_NEXT_IDS = """
SELECT nextval('factory_logs_factory_log_id_seq') FROM generate_series(1, $1::bigint)
"""
_KNOWN_REPAIRS = "SELECT repair_id FROM repairs WHERE repair_id = ANY($1::bigint[])"
_COPIED = (
    "factory_log_id",
    "app_name",
    "product_imei",
    "repair_id",
    "timestamp",
    "tags",
    "fields",
    "created_by",
)
_BIGINT = 2**63


async def insert_logs(connection: asyncpg.Connection, rows: Sequence[NewRow]) -> list[Outcome]:
    """Store rows in one statement and one commit; what became of each, in the order of the input."""
    logs = [row.log for row in rows]
    columns = (
        [log.app_name for log in logs],
        [log.product_imei for log in logs],
        [_as_bigint(log.repair_id) for log in logs],
        [log.timestamp for log in logs],
        [log.tags for log in logs],
        [log.fields for log in logs],
        [row.created_by for row in rows],
    )
    keys = [row.key for row in rows]
    if not any(keys):
        return _outcomes(len(rows), await connection.fetch(_INSERT, *columns))
    stored = await connection.fetch(
        _INSERT_KEYED,
        *columns,
        [key and key.user_id for key in keys],
        [key and key.key for key in keys],
        [key and key.fingerprint for key in keys],
    )
    outcomes = _outcomes(len(rows), stored)
    for place, key in enumerate(keys):
        if key is not None and not isinstance(outcomes[place], Stored):
            outcomes[place] = await idempotency.find(connection, key) or outcomes[place]
    return outcomes


def _outcomes(count: int, stored: Sequence[asyncpg.Record]) -> list[Outcome]:
    """What the statement tells: a row that is listed without an id has lost its key, one that is not has no repair."""
    outcomes: list[Outcome] = [None] * count
    for place, factory_log_id, created_at in stored:
        outcomes[place - 1] = Forgotten() if factory_log_id is None else Stored(factory_log_id, created_at)
    return outcomes


async def unknown_repairs(connection: asyncpg.Connection, logs: Sequence[LogRow]) -> set[int]:
    """The `repair_id`s of these logs that point nowhere."""
    asked = {log.repair_id for log in logs if log.repair_id is not None}
    if not asked:
        return set()
    possible = [repair_id for repair_id in asked if -_BIGINT <= repair_id < _BIGINT]
    return asked - {row[0] for row in await connection.fetch(_KNOWN_REPAIRS, possible)}


async def copy_logs(connection: asyncpg.Connection, logs: Sequence[LogRow], created_by: str | None) -> list[int]:
    """Store many logs by binary COPY inside the caller's transaction; their ids in the order of the input."""
    ids: list[int] = [row[0] for row in await connection.fetch(_NEXT_IDS, len(logs))]
    rows = [
        (
            factory_log_id,
            log.app_name,
            log.product_imei,
            log.repair_id,
            log.timestamp,
            log.tags,
            log.fields,
            created_by,
        )
        for factory_log_id, log in zip(ids, logs, strict=True)
    ]
    async with _ending_with(connection):
        await connection.copy_records_to_table("factory_logs", columns=_COPIED, records=rows)
    return ids


@asynccontextmanager
async def _ending_with(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Around a COPY: where the connection is lost while the socket takes no more, asyncpg waits for it for ever.

    What it raises once it is woken depends on the event loop, so the loss is raised here.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as lost:

            def end(_: object) -> None:
                lost.reschedule(loop.time())

            connection.add_termination_listener(end)
            try:
                yield
            finally:
                connection.remove_termination_listener(end)
    except (TimeoutError, RuntimeError) as error:
        if not connection.is_closed():
            raise
        raise asyncpg.ConnectionDoesNotExistError("the connection was lost in a COPY") from error


def _as_bigint(repair_id: int | None) -> int | None:
    """No repair has a negative id, so any number PostgreSQL cannot take stands for one that is not there."""
    return repair_id if repair_id is None or -_BIGINT <= repair_id < _BIGINT else -1
