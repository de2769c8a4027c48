"""The SQL that takes old logs away, a batch in each transaction. Counts that are kept stay exact (db/counts.py)."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import asyncpg

from factory_logs.db.counts import EVERYTHING

_OLD = """
SELECT app_name, count(*) AS logs, min(timestamp) AS oldest, max(timestamp) AS newest
FROM factory_logs WHERE timestamp < $1 GROUP BY app_name ORDER BY app_name
"""
# One batch at a time, as counts go by the sum of what was removed. Who reads or writes logs never takes these locks.
_ALONE = "LOCK TABLE retention_runs, known_counts IN SHARE ROW EXCLUSIVE MODE"
_REMOVED = "SELECT coalesce(sum(removed), 0)::bigint FROM retention_runs"
_KNOWN = """
SELECT up_to FROM known_counts
WHERE digest = $1 AND removed = $2 AND file = coalesce(pg_relation_filenode('factory_logs'), 0)::bigint
"""
# From where the batch before has ended: what it took away is still in the index, until it is vacuumed.
_REMOVE = """
WITH gone AS (
    DELETE FROM factory_logs
    WHERE factory_log_id = ANY (ARRAY(
        SELECT factory_log_id FROM factory_logs WHERE timestamp >= $1 AND timestamp < $2 ORDER BY timestamp LIMIT $3
    ))
    RETURNING factory_log_id, timestamp
)
SELECT count(*) AS logs, count(*) FILTER (WHERE factory_log_id <= $4) AS known, max(timestamp) AS reached FROM gone
"""
_BEGIN_RUN = "INSERT INTO retention_runs (cutoff, removed) VALUES ($1, $2) RETURNING run_id"
_GO_ON = "UPDATE retention_runs SET removed = removed + $2 WHERE run_id = $1"
_ADJUST = "UPDATE known_counts SET logs = logs - $2, removed = removed + $3 WHERE digest = $1"
_OUTDATED = "DELETE FROM known_counts WHERE removed < $1"


class OldLogs(NamedTuple):
    """What one app has of logs before a moment."""

    app_name: str
    logs: int
    oldest: datetime
    newest: datetime


class Removal(NamedTuple):
    """How far a run has come: how many logs its last batch took away, and up to which `timestamp` it has looked."""

    run_id: int | None
    logs: int
    reached: datetime


async def old_logs(connection: asyncpg.Connection, cutoff: datetime) -> Sequence[OldLogs]:
    """The logs with a `timestamp` before the cutoff, by app."""
    return [OldLogs(*row) for row in await connection.fetch(_OLD, cutoff)]


async def remove_batch(connection: asyncpg.Connection, cutoff: datetime, most: int, before: Removal) -> Removal:
    """Take away the next logs before the cutoff, at most `most`; none are left where it took away fewer.

    `before` is what the batch before gave, `START` at first. A run that takes nothing away leaves no trace.
    """
    async with connection.transaction():
        await connection.execute(_ALONE)
        removed = await connection.fetchval(_REMOVED)
        known = await connection.fetchval(_KNOWN, EVERYTHING, removed)
        gone = await connection.fetchrow(_REMOVE, before.reached, cutoff, most, known or 0)
        if not gone["logs"]:
            return before._replace(logs=0)
        if known is not None:
            await connection.execute(_ADJUST, EVERYTHING, gone["known"], gone["logs"])
        await connection.execute(_OUTDATED, removed + gone["logs"])
        run_id = before.run_id
        if run_id is None:
            run_id = await connection.fetchval(_BEGIN_RUN, cutoff, gone["logs"])
        else:
            await connection.execute(_GO_ON, run_id, gone["logs"])
        return Removal(run_id, gone["logs"], gone["reached"])


START = Removal(None, 0, datetime.min)
