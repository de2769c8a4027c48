"""The SQL that stores logs. It uses asyncpg without SQLAlchemy, because this is the hot path of the service
(docs/explanation/decisions.md). `python -m benchmarks.writes` measures it."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from operator import attrgetter
from typing import NamedTuple, Protocol

import asyncpg

from factory_logs.db import citus, idempotency_keys
from factory_logs.db.copy_format import COLUMNS, END, SIGNATURE, LogColumns, encode_logs
from factory_logs.db.idempotency_keys import FirstResponse, Key
from factory_logs.db.models import LOG_COLUMNS


class LogRow(Protocol):
    """The values of a log that the client sets; `tags` and `fields` are JSON text."""

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
    """A log to store, the name of its user, and the Idempotency-Key of the request if there is one."""

    log: LogRow
    created_by: str | None
    key: Key | None = None


class Stored(NamedTuple):
    """The values that the service set when the log was committed."""

    factory_log_id: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Forgotten:
    """Nothing was stored. If the row has a key, the key was used before, and was purged in the meantime, so the first
    response is lost. If not, a trigger of the operator has discarded the row."""


Outcome = Stored | FirstResponse | Forgotten | None
"""The result for a row: the row is stored, or its key was used before, or None if its repair does not exist."""

# If the repair of a row does not exist, the statement skips only that row. Ids are drawn in the order of the input,
# inside the transaction that uses them.
_INPUT = """
WITH input AS MATERIALIZED (
    SELECT u.*, nextval('factory_logs_factory_log_id_seq') AS factory_log_id
    FROM unnest($1::text[], $2::text[], $3::bigint[], $4::timestamp[], $5::text[], $6::text[], $7::text[]{key_arrays})
         WITH ORDINALITY
         AS u (app_name, product_imei, repair_id, timestamp, tags, fields, created_by{key_columns}, ordinal)
    WHERE u.repair_id IS NULL OR EXISTS (SELECT FROM repairs r WHERE r.repair_id = u.repair_id)
    ORDER BY u.ordinal
)"""
_STORE = """, stored AS (
    INSERT INTO factory_logs (factory_log_id, app_name, product_imei, repair_id, timestamp, tags, fields, created_by)
    SELECT factory_log_id, app_name, product_imei, repair_id::int, timestamp, tags::jsonb, fields::jsonb, created_by
    FROM input{condition}
    RETURNING factory_log_id, created_at
)
SELECT input.ordinal, stored.factory_log_id, stored.created_at FROM input LEFT JOIN stored USING (factory_log_id)
"""
# Keys are claimed in the same order everywhere, so that two batches cannot deadlock.
_CLAIM = """, claimed AS (
    INSERT INTO idempotency_keys (user_id, key, fingerprint, factory_log_id, status)
    SELECT user_id, key, fingerprint, factory_log_id, 201 FROM input WHERE key IS NOT NULL
    ORDER BY user_id, key, ordinal
    ON CONFLICT DO NOTHING
    RETURNING factory_log_id
)"""
_INSERT = _INPUT.format(key_arrays="", key_columns="") + _STORE.format(condition="")
_INSERT_KEYED = (
    _INPUT.format(key_arrays=", $8::integer[], $9::text[], $10::bytea[]", key_columns=", user_id, key, fingerprint")
    + _CLAIM
    + _STORE.format(condition=" WHERE key IS NULL OR factory_log_id IN (SELECT factory_log_id FROM claimed)")
)
_NEXT_IDS = """
SELECT nextval('factory_logs_factory_log_id_seq') FROM generate_series(1, $1::bigint)
"""
_KNOWN_REPAIRS = "SELECT repair_id FROM repairs WHERE repair_id = ANY($1::bigint[])"
ROWS_AT_A_TIME = 1000
BYTES_AT_A_TIME = 512 * 1024
"""The number of rows, and of the bytes of their tags and fields, that are encoded before they are sent. A larger row is
sent alone. PostgreSQL may read slowly, and each row is in memory several times until it is sent."""
_BIGINT = 2**63
log_values = attrgetter(*LOG_COLUMNS)
"""Returns the values of a log in the order of LOG_COLUMNS."""


async def insert_logs(connection: asyncpg.Connection, rows: Sequence[NewRow]) -> list[Outcome]:
    """Store rows in one statement and one commit. Return the result for each row, in the order of the input.

    On a Citus cluster, db/citus_inserts.py does this.
    """
    if not rows:
        return []
    logs, created_by, keys = zip(*rows, strict=True)
    app_names, imeis, repair_ids, *others = zip(*map(log_values, logs), strict=True)
    columns = (app_names, imeis, list(map(_as_bigint, repair_ids)), *others, created_by)
    if not any(keys):
        return _outcomes(len(rows), await connection.fetch(_INSERT, *columns))
    stored = await connection.fetch(
        _INSERT_KEYED,
        *columns,
        [key and key.user_id for key in keys],
        [key and key.key for key in keys],
        [key and key.fingerprint for key in keys],
    )
    return await with_first_responses(connection, rows, _outcomes(len(rows), stored))


async def with_first_responses(
    connection: asyncpg.Connection, rows: Sequence[NewRow], outcomes: Sequence[Outcome]
) -> list[Outcome]:
    """Return the outcomes of rows after their commit. If a row was not stored because its key was used before, its
    outcome becomes the first response, unless the key was purged."""
    found = list(outcomes)
    keyed = [
        (index, row.key)
        for index, (row, outcome) in enumerate(zip(rows, outcomes, strict=True))
        if row.key is not None and not isinstance(outcome, Stored)
    ]
    if keyed:
        first = await idempotency_keys.find_after_commit(connection, [key for _, key in keyed])
        for (index, _), response in zip(keyed, first, strict=True):
            found[index] = response or found[index]
    return found


def _outcomes(count: int, stored: Sequence[asyncpg.Record]) -> list[Outcome]:
    """Return the result for each row. A row without an id was not stored; the repair of a missing row does not
    exist."""
    outcomes: list[Outcome] = [None] * count
    for ordinal, factory_log_id, created_at in stored:
        outcomes[ordinal - 1] = Forgotten() if factory_log_id is None else Stored(factory_log_id, created_at)
    return outcomes


async def unknown_repairs(connection: asyncpg.Connection, repair_ids: Iterable[int | None]) -> set[int]:
    """Return those ids for which there is no repair."""
    asked = {repair_id for repair_id in set(repair_ids) if repair_id is not None}
    if not asked:
        return set()
    possible = [repair_id for repair_id in asked if -_BIGINT <= repair_id < _BIGINT]
    return asked - {row[0] for row in await connection.fetch(_KNOWN_REPAIRS, possible)}


async def copy_logs(connection: asyncpg.Connection, logs: LogColumns, created_by: str | None) -> list[int]:
    """Store many logs by binary COPY in the caller's transaction. Return their ids in the order of the input."""
    is_distributed = citus.is_distributed(connection)
    draw = citus.NEXT_IDS if is_distributed else _NEXT_IDS
    ids: list[int] = [row[0] for row in await connection.fetch(draw, len(logs))]
    if is_distributed:
        await _copy_columns(connection, logs, created_by, factory_log_id=ids, shard_key=list(map(citus.shard_key, ids)))
    else:
        await _copy_columns(connection, logs, created_by, factory_log_id=ids)
    return ids


async def copy_logs_without_ids(connection: asyncpg.Connection, logs: LogColumns, created_by: str | None) -> None:
    """Store many logs as `copy_logs` does, in less time.

    PostgreSQL assigns the ids during the COPY, in the order of the input. A Citus cluster cannot.
    """
    if citus.is_distributed(connection):
        await copy_logs(connection, logs, created_by)
    else:
        await _copy_columns(connection, logs, created_by)


async def _copy_columns(
    connection: asyncpg.Connection, logs: LogColumns, created_by: str | None, **bigints: Sequence[int]
) -> None:
    async def parts() -> AsyncIterator[bytes]:
        yield SIGNATURE
        for start in range(0, len(logs), ROWS_AT_A_TIME):
            for rows in _small_slices(logs, start, min(start + ROWS_AT_A_TIME, len(logs))):
                yield encode_logs(logs, rows, created_by, list(bigints.values()))
        yield END

    columns = (*bigints, *COLUMNS)
    async with ending_with(connection):
        await connection.copy_to_table("factory_logs", source=parts(), columns=columns, format="binary")


def _small_slices(logs: LogColumns, start: int, stop: int) -> Iterator[slice]:
    """Yield slices of at most BYTES_AT_A_TIME, or of one row."""
    rows = slice(start, stop)
    size = sum(map(len, filter(None, chain(logs.tags[rows], logs.fields[rows]))))
    if size <= BYTES_AT_A_TIME or stop - start == 1:
        yield rows
    else:
        middle = (start + stop) // 2
        yield from _small_slices(logs, start, middle)
        yield from _small_slices(logs, middle, stop)


@asynccontextmanager
async def ending_with(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """Run a COPY, and abort it if the connection is lost. asyncpg alone would wait forever for a socket that accepts no
    data.

    asyncpg's error for this depends on the event loop, so this function raises its own error.
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
    """Return the id, or -1 for a number that PostgreSQL cannot hold: no repair has a negative id."""
    return repair_id if repair_id is None or -_BIGINT <= repair_id < _BIGINT else -1
