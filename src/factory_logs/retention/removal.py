"""Remove the logs that are older than a cutoff, and write them to an archive first if requested. Only one process can
remove logs at a time."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path

import asyncpg
import orjson

from factory_logs.db.engine import Database
from factory_logs.db.errors import translate_errors
from factory_logs.db.retention import (
    START,
    OldLogs,
    old_logs,
    remove_batch,
    remove_logs,
    try_lock_removals,
    unlock_removals,
)
from factory_logs.errors import BadRequestError
from factory_logs.querier.exports import ExportFormat, exported
from factory_logs.query import FACTORY_LOGS, Query, QueryLimits, compile_filters, parse_query
from factory_logs.retention.archive import Archive, Progress, open_archive, write_archive
from factory_logs.retention.errors import BusyError

BATCH_LOGS = 5000
"""The number of logs that one transaction removes. The transaction locks these logs, and no other transaction locks
logs."""
UNLIMITED_SECONDS = 7 * 86400.0
"""The statement timeout of retention and of commands. Both can be stopped at any time."""

Steps = Callable[[str], AbstractContextManager[Progress]]
"""A context for each step, called with the name of the step. It yields a function that is called with the number of
processed logs."""


def quiet(step: str) -> AbstractContextManager[Progress]:
    """Show no progress."""
    return nullcontext(lambda done: None)


@dataclass(frozen=True, slots=True)
class Expired:
    """The logs to remove: those whose `timestamp` is before `cutoff` (UTC without zone) and that the filters of `q`
    select."""

    cutoff: datetime
    q: str | None
    query: Query
    """The conditions: the filters of `q` and the cutoff."""


def expired(cutoff: datetime, q: str | None, limits: QueryLimits) -> Expired:
    """Return the selection of the expired logs. Raises BadRequestError.

    Requests ignore unknown members of q. Here, a misspelt member would remove all old logs, so unknown members are an
    error.
    """
    query = parse_query(q, FACTORY_LOGS, limits)
    if q is not None and json.loads(q.removeprefix("\ufeff")).keys() != {"filters"}:
        raise BadRequestError(
            'q may have filters only, as in {"filters": [...]}: retention removes all logs that they select'
        )
    if q is not None and not query.filters:
        raise BadRequestError("q has no filters, so it selects all logs; leave it out to remove all expired logs")
    older = orjson.dumps({"filters": [{"name": "timestamp", "op": "<", "val": str(cutoff)}]}).decode()
    filters = (*parse_query(older, FACTORY_LOGS, limits).filters, *query.filters)
    return Expired(cutoff, q, Query(filters=filters))


async def list_expired(database: Database, logs: Expired) -> Sequence[OldLogs]:
    """Return the numbers of expired logs by app."""
    connection = await database.connect_raw()
    try:
        with translate_errors():
            return await old_logs(connection, compile_filters(logs.query, FACTORY_LOGS))
    finally:
        connection.terminate()


@asynccontextmanager
async def alone(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """Yield the connection that removes logs. It holds an advisory lock, so that only one process at a time removes
    logs.

    Raises BusyError if another process holds the lock, DatabaseUnavailableError.
    """
    connection = await database.connect_raw()
    try:
        with translate_errors():
            if not await try_lock_removals(connection):
                raise BusyError
        try:
            yield connection
        finally:
            await unlock_removals(connection)
    finally:
        connection.terminate()  # the server notices the closed connection a moment later


async def remove(
    database: Database,
    connection: asyncpg.Connection,
    logs: Expired,
    archives: Path | None,
    *,
    steps: Steps = quiet,
    on_archived: Callable[[Archive], None] = lambda archive: None,
) -> int:
    """Remove the expired logs and return their number. `connection` must come from `alone`.

    If `archives` is given, the logs are first written to a new archive in that folder. The archive is read back and
    checked. Then exactly the logs in the archive are removed. Raises RetentionError, DatabaseUnavailableError.
    """
    if archives is None:
        return await _remove_all(connection, logs, steps)
    archive = await _archived(database, logs, archives, steps)
    if archive is None:
        return 0
    on_archived(archive)
    return await _remove_archived(connection, archive, logs.cutoff, steps)


async def _remove_all(connection: asyncpg.Connection, logs: Expired, steps: Steps) -> int:
    conditions = compile_filters(logs.query, FACTORY_LOGS)
    removal, removed = START, 0
    with steps("Deleting") as show, translate_errors():
        while True:
            removal = await remove_batch(connection, logs.cutoff, BATCH_LOGS, removal, conditions)
            removed += removal.logs
            show(removed)
            if removal.logs < BATCH_LOGS:
                return removed


async def _archived(database: Database, logs: Expired, archives: Path, steps: Steps) -> Archive | None:
    """Write the logs to a new archive, read the archive back from the disk and check it."""
    async with aclosing(exported(database, logs.query, FACTORY_LOGS, ExportFormat.NDJSON)) as lines:
        with steps("Archiving") as show:
            written = await write_archive(archives, logs.cutoff, logs.q, lines, show)
    if written is None:
        return None
    try:
        archive = open_archive(written.folder)
        with steps("Checking") as show:
            await archive.check(show)
    except BaseException:
        # The logs are still in the database, and each attempt would leave another damaged archive.
        written.discard()
        raise
    return archive


async def _remove_archived(connection: asyncpg.Connection, archive: Archive, cutoff: datetime, steps: Steps) -> int:
    """Remove exactly the logs in an archive."""
    removal, removed, lines = START, 0, archive.lines()

    def next_ids() -> list[int]:
        return [orjson.loads(line)["factory_log_id"] for _, line in islice(lines, BATCH_LOGS)]

    with steps("Deleting") as show, translate_errors():
        while ids := await asyncio.to_thread(next_ids):
            removal = await remove_logs(connection, ids, cutoff, removal)
            removed += removal.logs
            show(removed)
    return removed
