"""The SQL that removes logs and restores archived ones, one batch per transaction.

Stored counts stay exact (db/count_cache.py): each batch changes the sum on which they depend.

On a Citus cluster a batch is committed in two phases with that sum, because it concerns several shards, but becomes
visible node by node, and after a node's crash only when recovery has committed it. So a batch first marks that logs are
being removed, and deletes the mark when all nodes have committed. No counts are stored while the mark exists.
"""

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg
from sqlalchemy import ARRAY, BigInteger, ColumnElement, Integer, Select, any_, delete, func, literal, select
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.dialects.postgresql import asyncpg as asyncpg_dialect
from sqlalchemy.sql.elements import KeyedColumnElement

from factory_logs.db import removals
from factory_logs.db.citus import IDS_OF_SHARD_KEY_BITS, is_distributed, shard_key, wait_for_prepared_writers
from factory_logs.db.count_cache import EVERYTHING, REMOVED_LOGS, TABLE_FILE, Conditions
from factory_logs.db.json_and_csv import json_text
from factory_logs.db.models import FactoryLog
from factory_logs.db.prepared_statements import compile_statement
from factory_logs.db.watermark import LAST_DRAWN

LOGS = FactoryLog.__table__
_REMOVAL_LOCK = 0x666C_7265_7465_6E74
"""The key of the advisory lock of the process that removes logs, or distributes them: "flretent" in ASCII."""
# One batch at a time, because counts depend on the number of removed logs. Reads and writes of logs never wait for
# these locks.
_ALONE = "LOCK TABLE retention_runs, known_counts IN SHARE ROW EXCLUSIVE MODE"
_MARK = "INSERT INTO retention_runs (cutoff, removed) VALUES ('-infinity', 0)"
_UNMARK = "DELETE FROM retention_runs WHERE removed = 0"
_LOCK_KEY = 0x666C6F6772  # "flogr"
_REMOVED = f"SELECT {REMOVED_LOGS}"
_KNOWN = f"SELECT up_to FROM known_counts WHERE digest = $1 AND removed = $2 AND file = {TABLE_FILE}"  # noqa: S608
_BEGIN_RUN = "INSERT INTO retention_runs (cutoff, removed) VALUES ($1, $2) RETURNING run_id"
_GO_ON = "UPDATE retention_runs SET removed = removed + $2 WHERE run_id = $1"
_ADJUST = "UPDATE known_counts SET logs = logs - $2, removed = removed + $3 WHERE digest = $1"
_ADD = """
UPDATE known_counts SET logs = logs + $2, removed = removed + $3, lowest = least(lowest, $4) WHERE digest = $1
"""
_OUTDATED = "DELETE FROM known_counts WHERE removed < $1 AND NOT in_parts"


async def try_lock_removals(connection: asyncpg.Connection) -> bool:
    """Try to become the only process that removes logs, or distributes them. Return whether this succeeded.

    The connection holds the lock until `unlock_removals`, or until it ends.
    """
    return bool(await connection.fetchval("SELECT pg_try_advisory_lock($1)", _REMOVAL_LOCK))


async def unlock_removals(connection: asyncpg.Connection) -> None:
    """Release the lock, unless the connection is lost or inside a transaction: then the end of the connection does."""
    if not connection.is_closed() and not connection.is_in_transaction():
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await connection.execute("SELECT pg_advisory_unlock($1)", _REMOVAL_LOCK)


class OldLogs(NamedTuple):
    """The logs of one app that are older than the cutoff."""

    app_name: str
    logs: int
    oldest: datetime
    newest: datetime


class RemovalProgress(NamedTuple):
    """The progress of a run: how many logs its last batch removed, and up to which `timestamp` it has read."""

    run_id: int | None
    logs: int
    reached: datetime


START = RemovalProgress(None, 0, datetime.min)


def expired(cutoff: datetime, conditions: Conditions = ()) -> Conditions:
    """Return the conditions of logs with a `timestamp` before the cutoff that match all of `conditions`."""
    return [LOGS.c.timestamp < literal(cutoff), *conditions]


async def old_logs(connection: asyncpg.Connection, old: Conditions) -> Sequence[OldLogs]:
    """Return the number and the time range of the logs that match all conditions, for each app."""
    app, moment = LOGS.c.app_name, LOGS.c.timestamp
    found = select(app, func.count(), func.min(moment), func.max(moment)).where(*old).group_by(app).order_by(app)
    return [OldLogs(*row) for row in await _fetch(connection, found)]


async def remove_batch(
    connection: asyncpg.Connection, cutoff: datetime, most: int, before: RemovalProgress, conditions: Conditions = ()
) -> RemovalProgress:
    """Remove the next logs before the cutoff that match all of `conditions`, at most `most`; fewer if no more are left.

    `before` is the result of the previous batch, or `START` for the first one. A run that removes nothing stores
    nothing.
    """
    # Begin where the last batch ended, because until a vacuum the index still contains the removed logs.
    older = select(LOGS.c.factory_log_id).where(
        LOGS.c.timestamp >= literal(before.reached), *expired(cutoff, conditions)
    )
    next_ones = older.order_by(LOGS.c.timestamp).limit(most)
    if is_distributed(connection):
        return await remove_logs(connection, [row[0] for row in await _fetch(connection, next_ones)], cutoff, before)
    return await _remove(connection, func.array(next_ones.scalar_subquery()), cutoff, before)


async def remove_logs(
    connection: asyncpg.Connection, ids: Sequence[int], cutoff: datetime, before: RemovalProgress
) -> RemovalProgress:
    """Remove the logs with these ids. `before` and the result are the same as in `remove_batch`."""
    return await _remove(connection, literal(list(ids), ARRAY(BigInteger)), cutoff, before)


async def _remove(
    connection: asyncpg.Connection, ids: ColumnElement[Any], cutoff: datetime, before: RemovalProgress
) -> RemovalProgress:
    async with _marked(connection), connection.transaction():
        await connection.execute(_ALONE)
        removed = await connection.fetchval(_REMOVED)
        known = await connection.fetchval(_KNOWN, EVERYTHING, removed)
        gone = await _fetch(connection, _removal(ids, known or 0))
        if not gone:
            return before._replace(logs=0)
        await removals.note_removals(connection, {block["block"]: block["logs"] for block in gone})
        logs = sum(block["logs"] for block in gone)
        if known is not None:
            await connection.execute(_ADJUST, EVERYTHING, sum(block["known"] for block in gone), logs)
        await connection.execute(_OUTDATED, removed + logs)
        run_id = before.run_id
        if run_id is None:
            run_id = await connection.fetchval(_BEGIN_RUN, cutoff, logs)
        else:
            await connection.execute(_GO_ON, run_id, logs)
        return RemovalProgress(run_id, logs, max(block["reached"] for block in gone))


@asynccontextmanager
async def _marked(connection: asyncpg.Connection) -> AsyncIterator[None]:
    """On a cluster, mark that logs are being removed or restored, until all nodes have committed.

    If a run loses its connection, the mark remains, and the next run deletes it.
    """
    if not is_distributed(connection):
        yield
        return
    await connection.execute("SELECT pg_advisory_lock($1)", _LOCK_KEY)
    await connection.execute(_MARK)
    try:
        yield
    finally:
        if not connection.is_closed():
            await wait_for_prepared_writers(connection)
            await connection.execute(_UNMARK)
            await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK_KEY)


def _removal(ids: ColumnElement[Any], known: int) -> Select[Any]:
    """Return a statement that removes the logs with these ids. It has a row for each block of ids with removed logs:
    their number, the number up to the id `known`, and the last time."""
    columns = LOGS.c.factory_log_id, LOGS.c.timestamp
    gone = delete(FactoryLog).where(LOGS.c.factory_log_id == any_(ids)).returning(*columns).cte("gone")
    is_known = gone.c.factory_log_id <= literal(known, BigInteger)
    block = ((gone.c.factory_log_id - 1) // literal(removals.BLOCK, BigInteger)).label("block")
    counts: list[ColumnElement[Any]] = [
        block,
        func.count().label("logs"),
        func.count().filter(is_known).label("known"),
        func.max(gone.c.timestamp).label("reached"),
    ]
    return select(*counts).select_from(gone).group_by(block)


async def _fetch(connection: asyncpg.Connection, statement: Select[Any]) -> list[asyncpg.Record]:
    compiled = compile_statement(statement, asyncpg_dialect.dialect())  # type: ignore[no-untyped-call]
    found: list[asyncpg.Record] = await connection.fetch(compiled.sql, *compiled.parameters)
    return found


class PolicyState(NamedTuple):
    """The scheduled hour for which a policy has last run, and the time when its last run began. Both are UTC without
    zone."""

    done_for: datetime
    tried_at: datetime | None


_FORGET_POLICIES = "DELETE FROM retention_policies WHERE name = ANY ($1::text[])"
_SEE_POLICIES = """
INSERT INTO retention_policies (name, done_for) SELECT unnest($1::text[]), $2 ON CONFLICT DO NOTHING
"""
_POLICIES = "SELECT name, done_for, tried_at FROM retention_policies WHERE name = ANY ($1::text[])"
_TRY_POLICY = "UPDATE retention_policies SET tried_at = $2 WHERE name = $1"
_FINISH_POLICY = "UPDATE retention_policies SET done_for = $2 WHERE name = $1"


async def policy_states(
    connection: asyncpg.Connection, names: Sequence[str], last_hour: datetime, *, forgotten: Sequence[str] = ()
) -> dict[str, PolicyState]:
    """Return the state of each policy. A new policy counts as done for `last_hour`.

    Only the states of the `forgotten` policies are deleted, because another host may have its own file of policies.
    """
    if forgotten:
        await connection.execute(_FORGET_POLICIES, forgotten)
    states = await _policy_states(connection, names)
    if states.keys() != set(names):
        await connection.execute(_SEE_POLICIES, names, last_hour)
        states = await _policy_states(connection, names)
    return states


async def _policy_states(connection: asyncpg.Connection, names: Sequence[str]) -> dict[str, PolicyState]:
    return {name: PolicyState(*rest) for name, *rest in await connection.fetch(_POLICIES, names)}


async def note_policy_tried(connection: asyncpg.Connection, name: str, moment: datetime) -> None:
    """Store that a run of the policy has begun."""
    await connection.execute(_TRY_POLICY, name, moment)


async def note_policy_done(connection: asyncpg.Connection, name: str, hour: datetime) -> None:
    """Store that the run of the policy for this scheduled hour has ended."""
    await connection.execute(_FINISH_POLICY, name, hour)


class OtherLogError(ValueError):
    """An archived log differs from the log with the same id in the database."""


_SEQUENCE = "pg_get_serial_sequence('factory_logs', 'factory_log_id')::regclass"
_DRAW = f"SELECT max(nextval({_SEQUENCE})) FROM generate_series(1, $1::bigint)"  # noqa: S608 - our own text
DRAWN_AT_ONCE = 1_000_000
LARGEST_GAP = 1_000_000_000
"""The maximum number of ids between the last id of this database and an id in an archive. Each of them is drawn, which
takes time."""
_ID = "(record->>'factory_log_id')::bigint"


def _moment(name: str) -> str:
    """Return SQL for a time in a record's JSON, which writes both infinities as times (db/json_and_csv.py)."""
    return f"""(CASE record->>'{name}' WHEN '{datetime.max}' THEN 'infinity' WHEN '{datetime.min}' THEN '-infinity'
        ELSE record->>'{name}' END)::timestamp"""


def _value(column: KeyedColumnElement[Any]) -> str:
    match column.type:
        case TIMESTAMP():
            return _moment(column.name)
        case JSONB():
            return f"nullif(record->'{column.name}', 'null')"
        case Integer():
            return f"(record->>'{column.name}')::bigint"
    return f"record->>'{column.name}'"


_COLUMNS = ", ".join(f'"{column.name}"' for column in LOGS.columns)
_RECORDS = "(SELECT line, line::jsonb AS record FROM unnest($1::text[]) AS line) AS given"
_BRING_BACK = f"""
WITH back AS (
    INSERT INTO factory_logs ({_COLUMNS})
    SELECT {", ".join(map(_value, LOGS.columns))} FROM {_RECORDS} ORDER BY {_ID}
    ON CONFLICT (factory_log_id) DO NOTHING
    RETURNING factory_log_id, timestamp
)
SELECT count(*) AS logs, count(*) FILTER (WHERE factory_log_id <= $2) AS known, min(factory_log_id) AS lowest,
       max(timestamp) AS reached, array_agg(factory_log_id) AS ids
FROM back
"""  # noqa: S608 - our own text
_IDS = f"SELECT {_ID}, line FROM {_RECORDS}"  # noqa: S608
_STORED = f"""
SELECT factory_log_id, {json_text(LOGS)} FROM factory_logs
WHERE factory_log_id = ANY($1::bigint[]) AND shard_key = ANY($2::bigint[])
"""  # noqa: S608
_REPAIRS = f"SELECT DISTINCT (record->>'repair_id')::bigint FROM {_RECORDS} WHERE record->>'repair_id' IS NOT NULL"  # noqa: S608
_KNOWN_REPAIRS = "SELECT repair_id FROM repairs WHERE repair_id = ANY($1::bigint[])"
_BRING_BACK_TO_CLUSTER = f"""
INSERT INTO factory_logs ({_COLUMNS}, shard_key)
SELECT {", ".join(map(_value, LOGS.columns))}, {_ID} >> {IDS_OF_SHARD_KEY_BITS} FROM {_RECORDS}
"""  # noqa: S608
_BROUGHT_BACK = f"""
SELECT count(*) AS logs, count(*) FILTER (WHERE {_ID} <= $2) AS known, min({_ID}) AS lowest,
       max({_moment("timestamp")}) AS reached, array_agg({_ID}) AS ids
FROM {_RECORDS}
"""  # noqa: S608
# A separate statement after the INSERT, so that it sees the new logs.
_DIFFERENT = f"""
SELECT {_ID} FROM {_RECORDS}
WHERE NOT EXISTS (SELECT FROM factory_logs WHERE factory_log_id = {_ID} AND {json_text(LOGS)} = line) LIMIT 1
"""  # noqa: S608


async def bring_back(connection: asyncpg.Connection, lines: Sequence[str], before: RemovalProgress) -> RemovalProgress:
    """Store the archived logs, given as JSON, whose ids are missing. `logs` in the result is their number.

    `before` is the result of the previous batch, or `START` for the first one. Raises OtherLogError if another log has
    one of the ids, asyncpg.DataError or asyncpg.IntegrityConstraintViolationError for JSON that is not a log or names a
    missing repair.
    """
    async with _marked(connection), connection.transaction():
        await connection.execute(_ALONE)
        removed = await connection.fetchval(_REMOVED)
        known = await connection.fetchval(_KNOWN, EVERYTHING, removed)
        await _draw_ids(connection, lines)
        if is_distributed(connection):
            back = await _bring_back_to_cluster(connection, lines, known or 0)
        else:
            back = await connection.fetchrow(_BRING_BACK, lines, known or 0)
            different = await connection.fetch(_DIFFERENT, lines)
            if different:
                raise OtherLogError(_other_log(different[0][0]))
        if not back["logs"]:
            return before._replace(logs=0)
        await removals.note_removals(connection, Counter(map(removals.removal_block, back["ids"])))
        if known is not None:
            await connection.execute(_ADD, EVERYTHING, back["known"], back["logs"], back["lowest"])
        await connection.execute(_OUTDATED, removed + back["logs"])
        run_id = before.run_id
        if run_id is None:
            run_id = await connection.fetchval(_BEGIN_RUN, back["reached"], back["logs"])
        else:
            await connection.execute(_GO_ON, run_id, back["logs"])
        return RemovalProgress(run_id, back["logs"], back["reached"])


async def _bring_back_to_cluster(connection: asyncpg.Connection, lines: Sequence[str], known: int) -> asyncpg.Record:
    """Run the equivalent of _BRING_BACK and _DIFFERENT on a cluster. Citus runs this INSERT as a COPY, which it commits
    in two phases."""
    given: dict[int, str] = dict(await connection.fetch(_IDS, lines))
    stored = await _stored(connection, given)
    absent = [line for factory_log_id, line in given.items() if factory_log_id not in stored]
    repairs = [row[0] for row in await connection.fetch(_REPAIRS, absent)]
    known_repairs = {row[0] for row in await connection.fetch(_KNOWN_REPAIRS, repairs)}
    if missing := sorted(set(repairs) - known_repairs):  # Citus reports it as an internal error
        raise asyncpg.ForeignKeyViolationError(f"there is no repair {missing[0]}")
    await connection.execute(_BRING_BACK_TO_CLUSTER, absent)
    for factory_log_id, line in (await _stored(connection, given)).items():
        if line != given[factory_log_id]:
            raise OtherLogError(_other_log(factory_log_id))
    return await connection.fetchrow(_BROUGHT_BACK, absent, known)


async def _stored(connection: asyncpg.Connection, ids: Iterable[int]) -> dict[int, str]:
    return dict(await connection.fetch(_STORED, list(ids), list(map(shard_key, ids))))


def _other_log(factory_log_id: int) -> str:
    return f"the database has another log with the id {factory_log_id}"


async def _draw_ids(connection: asyncpg.Connection, lines: Sequence[str]) -> None:
    """Draw ids until the sequence has reached the greatest id of the logs, so that no new log gets one of their ids.

    Setting the sequence instead could set it back if other transactions draw ids at the same time.
    """
    highest = await connection.fetchval(f"SELECT max({_ID}) FROM {_RECORDS}", lines)  # noqa: S608 - our own text
    drawn = await connection.fetchval(LAST_DRAWN)
    if highest is not None and highest - drawn > LARGEST_GAP:
        raise OtherLogError(f"the id {highest} is too far above the last one of this database, {drawn}")
    while highest is not None and drawn < highest:
        drawn = await connection.fetchval(_DRAW, min(highest - drawn, DRAWN_AT_ONCE))
