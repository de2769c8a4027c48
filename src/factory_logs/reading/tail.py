"""Following new logs: which are new for good, and the next of them that a reader has asked for.

Ids become visible out of order, as a transaction that drew a lower one may commit later. A reader that went by the
highest id it has seen would skip that log, so all readers of a worker wait for one watermark of settled ids, which is
looked after only while somebody follows.
"""

import asyncio
from contextlib import suppress

import asyncpg
import structlog
from sqlalchemy import select

from factory_logs.db.engine import Database, translate_errors
from factory_logs.db.records import RecordRepository
from factory_logs.db.settled import SettledIds
from factory_logs.errors import DatabaseUnavailableError, OverloadedError
from factory_logs.query import FACTORY_LOGS, Query, compile_filters
from factory_logs.settings import Settings

PAGE_LOGS = 200
SPAN_IDS = 50_000
"""How many ids one query looks through at most, so that a rare filter over much history stays a short query."""
CONCURRENT_QUERIES = 2
AWAY_SECONDS = 1.0
LOOK_SECONDS = 5.0
BUSY_SECONDS = 10

_DRAWN = (
    "SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('factory_logs', 'factory_log_id')::regclass), 0)"
)
_log = structlog.get_logger(__name__)


class LogTail:
    """The followers of one worker. `run` must run beside them."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._logs = RecordRepository(database, FACTORY_LOGS.table)
        self._max_followers = settings.max_tails
        self._poll_seconds = settings.tail_poll_seconds
        self._settled = SettledIds(settings.tail_poll_seconds)
        self._queries = asyncio.Semaphore(CONCURRENT_QUERIES)
        self._drawn = 0
        self._watched = asyncio.Event()
        self._observed = asyncio.Event()
        self.followers = 0

    def join(self) -> None:
        """Take a place among the followers; `leave` gives it back. Raises OverloadedError where there is none."""
        if self.followers >= self._max_followers:
            raise OverloadedError("Too many connections follow new logs already", BUSY_SECONDS)
        self.followers += 1
        self._watched.set()

    def leave(self) -> None:
        self.followers -= 1
        if not self.followers:
            self._watched.clear()

    async def newest(self) -> int:
        """The id above which lies whatever is committed after this call has ended.

        Transactions that run at the moment get LOOK_SECONDS to end. Raises DatabaseUnavailableError.
        """
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._observed.wait()
                await self._observed.wait()  # the first look may have begun before this call
        except TimeoutError:
            raise DatabaseUnavailableError("The database cannot be reached; try again shortly.") from None
        drawn = self._drawn
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                await self.changed(drawn - 1)
        return drawn

    async def changed(self, cursor: int) -> None:
        """Wait until more than `cursor` is settled."""
        while self._settled.up_to <= cursor:
            await self._observed.wait()

    async def after(self, cursor: int, query: Query) -> tuple[list[tuple[int, str]], int]:
        """The next settled logs above `cursor` that match, with their ids, and the id up to which that is all of them.

        Raises DatabaseUnavailableError.
        """
        key = FACTORY_LOGS.table.c[FACTORY_LOGS.primary_key]
        end = min(self._settled.up_to, cursor + SPAN_IDS)
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
        """Look after the watermark while there are followers, until cancelled."""
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
                _log.warning("new logs cannot be followed, the database is away", error=type(error).__name__)
                await asyncio.sleep(AWAY_SECONDS)

    async def _observe(self, connection: asyncpg.Connection) -> None:
        self._settled.forget()  # what is found may be another server, or the same one put back from a backup
        while self._watched.is_set():
            self._drawn = await connection.fetchval(_DRAWN)
            await self._settled.observe(connection)
            observed, self._observed = self._observed, asyncio.Event()
            observed.set()
            await asyncio.sleep(self._poll_seconds)
