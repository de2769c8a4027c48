"""Follow new logs as they are stored.

Ids become visible out of order, because a transaction with a lower id may commit later. If a follower continued after
the highest id it has seen, it would skip such logs. So the followers of a worker wait for the watermark
(db/watermark.py). The worker reads the watermark only while there are followers.
"""

import asyncio
from contextlib import suppress

import asyncpg
import structlog
from sqlalchemy import select

from factory_logs.db.engine import Database
from factory_logs.db.errors import UNREACHABLE, translate_errors
from factory_logs.db.records import RecordRepository
from factory_logs.db.watermark import LAST_DRAWN, Watermark
from factory_logs.errors import DatabaseUnavailableError, OverloadedError
from factory_logs.metrics import TAILS, TAILS_REFUSED
from factory_logs.query import FACTORY_LOGS, Query, compile_filters
from factory_logs.settings import Settings

PAGE_LOGS = 200
SPAN_IDS = 50_000
"""The maximum number of ids that one query covers, so that a query is short even if its filter rarely matches."""
CONCURRENT_QUERIES = 2
AWAY_SECONDS = 1.0
LOOK_SECONDS = 5.0
RETRY_AFTER_SECONDS = 10

_log = structlog.get_logger(__name__)


class LogTail:
    """Reads new logs for the followers of a worker. `run` must run while there are followers."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._logs = RecordRepository(database, FACTORY_LOGS.table)
        self._max_followers = settings.max_tails
        self._poll_seconds = settings.tail_poll_seconds
        self._watermark = Watermark(settings.tail_poll_seconds)
        self._queries = asyncio.Semaphore(CONCURRENT_QUERIES)
        self._drawn: int | None = None
        """The highest id that was drawn at the last observation, or None if there is no connection."""
        self._watched = asyncio.Event()
        self._observed = asyncio.Event()
        self.followers = 0

    def join(self) -> None:
        """Add a follower; `leave` removes it. Raises OverloadedError if there are too many."""
        if self.followers >= self._max_followers:
            TAILS_REFUSED.inc()
            raise OverloadedError("Too many tails are open", RETRY_AFTER_SECONDS)
        self.followers += 1
        TAILS.inc()
        self._watched.set()

    def leave(self) -> None:
        self.followers -= 1
        TAILS.dec()
        if not self.followers:
            self._watched.clear()

    async def after_last(self, last: int) -> int:
        """Return the id after which a follower that has seen `last` continues: `last`, or the newest id if that is
        lower.

        If `last` is higher than the newest id, it comes from another database, or from this one before a restore from a
        backup.
        """
        if last <= self._watermark.id:
            return last
        with suppress(DatabaseUnavailableError):
            return min(last, await self._newest_drawn())
        return last  # the follower waits until the database is available again

    async def newest(self) -> int:
        """Return an id below those of all logs that are committed after this call.

        Running transactions get LOOK_SECONDS to end. After that, return the watermark, so that their logs are not
        skipped. If it is unknown, because a transaction has run since the first follower joined, that transaction's
        logs are skipped. Raises DatabaseUnavailableError.
        """
        drawn = await self._newest_drawn()
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await self.changed(drawn - 1)
        return min(drawn, self._watermark.id or drawn)

    def on_this_server(self, cursor: int) -> int:
        """Return the cursor, or the highest drawn id if the cursor is above it: then the database has been restored, or
        has failed over to a server without the last commits, and new logs get lower ids."""
        return cursor if self._drawn is None else min(cursor, max(self._drawn, self._watermark.id))

    async def _newest_drawn(self) -> int:
        """Return the highest id that was drawn before this call, or a higher id. Raises DatabaseUnavailableError."""
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._observed.wait()
                await self._observed.wait()  # wait twice, because the first read may have begun before this call
        except TimeoutError:
            raise DatabaseUnavailableError(UNREACHABLE) from None
        if self._drawn is None:  # the connection was lost again
            raise DatabaseUnavailableError(UNREACHABLE)
        return self._drawn

    async def changed(self, cursor: int) -> None:
        """Wait until the watermark is above `cursor`."""
        while self._watermark.id <= cursor:
            await self._observed.wait()

    async def after(self, cursor: int, query: Query) -> tuple[list[tuple[int, str]], int]:
        """Return the next matching logs above `cursor` up to the watermark, with their ids, and the id up to which logs
        were read. Raises DatabaseUnavailableError."""
        key = FACTORY_LOGS.table.c[FACTORY_LOGS.primary_key]
        end = min(self._watermark.id, cursor + SPAN_IDS)
        if end <= cursor:
            return [], cursor
        statement = (
            select(FACTORY_LOGS.table)
            .where(key > cursor, key <= end, *compile_filters(query, FACTORY_LOGS))
            .order_by(key)
            .limit(PAGE_LOGS)
        )
        async with self._queries:
            records = await self._logs.found(statement)
        return records, end if len(records) < PAGE_LOGS else records[-1][0]

    async def run(self) -> None:
        """Read the watermark while there are followers, until cancelled."""
        while True:
            await self._watched.wait()
            try:
                connection = await self._database.connect_raw()
                try:
                    with translate_errors():
                        await self._observe(connection)
                finally:
                    connection.terminate()
            except (DatabaseUnavailableError, asyncpg.PostgresError) as error:
                _log.warning("new logs cannot be followed: the database is unavailable", error=type(error).__name__)
                await asyncio.sleep(AWAY_SECONDS)

    async def _observe(self, connection: asyncpg.Connection) -> None:
        try:
            while self._watched.is_set():
                self._drawn = await connection.fetchval(LAST_DRAWN)
                await self._watermark.observe(connection)
                observed, self._observed = self._observed, asyncio.Event()
                observed.set()
                await asyncio.sleep(self._poll_seconds)
        finally:
            self._watermark.reset()  # the next connection may be to another server, or to a restored database
            self._drawn = None
