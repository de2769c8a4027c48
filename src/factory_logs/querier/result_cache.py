"""Cache results for the logs up to the watermark: counts (querier/counts.py), and sums by bucket and group
(querier/sums.py).

Logs never change, and only retention removes them. So a result for the logs up to the watermark stays valid, and the
next request reads only newer logs. Each worker caches its most recently used results, in limited memory. Results that
took long to compute are also stored in the database, for other workers and for the time after a restart.

A result is valid for a snapshot if the state of the table is the same, and if the snapshot was taken after the result's
id became the watermark (db/watermark.py). Filters may refer to repairs: a log's repair is stored before the log, exists
as long as the log, and never changes.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Protocol

import structlog
from sqlalchemy.exc import DBAPIError

from factory_logs.db import count_cache
from factory_logs.db.count_cache import Known, TableState
from factory_logs.db.engine import Database
from factory_logs.db.watermark import Watermark
from factory_logs.errors import DatabaseUnavailableError
from factory_logs.settings import Settings

FIRST_LOOKS = 8
FIRST_LOOK_SECONDS = 0.025
"""How often and how long a count waits for a first watermark. With a watermark, the next count can skip these logs."""
WATERMARK_SECONDS = 1.0
"""How long the first page of a traversal by cursor waits for running transactions (docs/explanation/reading.md)."""
WATERMARK_LOOK_SECONDS = 0.01
SMALL = 0
"""The size of a count, which is so small that only the number of counts needs a bound."""

_log = structlog.get_logger(__name__)


class CachedResult(Protocol):
    """A result for the logs up to a watermark, in one state of the table."""

    @property
    def state(self) -> TableState: ...
    @property
    def up_to(self) -> int: ...


class ResultCache:
    """The results that a worker has cached. `run` must run in the background."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self.database = database
        self.save_seconds = settings.kept_count_seconds
        """The method `save` gets results that took at least this long to compute."""
        self.seen = TableState(None, 0, 0)
        """The state of the table at the time when the watermark was last read."""
        self._watermark = Watermark(settings.count_look_seconds)
        self._looking = asyncio.Lock()
        self._known: OrderedDict[bytes, tuple[CachedResult, int]] = OrderedDict()
        self._bytes = 0
        self._most_known = settings.max_known_counts
        self._most_bytes = settings.max_known_bytes
        self._most_saved = settings.max_kept_counts
        self._most_saved_bytes = settings.max_kept_bytes
        self._unsaved: dict[bytes, Known] = {}
        self._has_unsaved = asyncio.Event()

    @property
    def watermark(self) -> int:
        """The watermark for snapshots that begin from now on, or 0 if it is unknown."""
        return self._watermark.id

    async def look(self) -> None:
        """Read the watermark from time to time, in one of many requests; the other requests use the previous watermark.

        This method takes a connection, so callers must not hold one (deadlock). Raises DatabaseUnavailableError.
        """
        if self._watermark.due and not self._looking.locked():
            await self._look()

    async def wait_for_watermark(self) -> int | None:
        """Return an id up to which no more logs can be added. No log that is visible now has a higher id.

        Return None on a standby, or if a transaction that has drawn an id up to this one does not end within
        SETTLE_SECONDS. Raises DatabaseUnavailableError.
        """
        await self._look()
        target, end = self._watermark.highest_drawn, time.monotonic() + WATERMARK_SECONDS
        while target is not None and self._watermark.id < target:
            if time.monotonic() >= end:
                return None
            await asyncio.sleep(WATERMARK_LOOK_SECONDS)
            await self._look()
        return target and self._watermark.id

    @property
    def may_have_newest(self) -> bool:
        """Whether the watermark was the id drawn last, when it was last read."""
        return self._watermark.id == self._watermark.highest_drawn

    async def now(self) -> tuple[TableState, int | None]:
        """Return the state of the table now, and the id that was drawn last. No log that is visible now has a higher
        id. Raises DatabaseUnavailableError."""
        async with self.database.connect_reader() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            return await count_cache.current_state_and_id(raw)

    async def is_still(self, state: TableState) -> bool:
        """Return whether this is the state of the table now. Raises DatabaseUnavailableError."""
        async with self.database.connect_reader() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            now = await count_cache.current_state(raw)
            return now == state and now.same_table(state)

    def facts(self) -> Mapping[bytes, CachedResult]:
        """Return all cached results. They are valid for snapshots that begin from now on."""
        return {name: fact for name, (fact, _) in self._known.items()}

    def get(self, name: bytes) -> CachedResult | None:
        """Return the result with this name. Before using it, compare its state with that of the snapshot.

        The result is valid for snapshots that begin from now on. It is valid for an earlier snapshot only if the
        watermark was at least `up_to` when that snapshot began.
        """
        known = self._known.get(name)
        if known is None:
            return None
        self._known.move_to_end(name)
        return known[0]

    def learn(self, name: bytes, fact: CachedResult, size: int = SMALL) -> None:
        """Cache a result. If there are too many results, drop the least recently used."""
        self.forget(name)
        self._known[name] = (fact, size)
        self._bytes += size
        while len(self._known) > self._most_known or self._bytes > self._most_bytes:
            self._bytes -= self._known.popitem(last=False)[1][1]

    def forget(self, name: bytes) -> None:
        known = self._known.pop(name, None)
        if known is not None:
            self._bytes -= known[1]

    def save(self, digest: bytes, known: Known) -> None:
        """Store a result in the database, for other workers and after a restart."""
        self._unsaved[digest] = known
        self._has_unsaved.set()

    async def run(self) -> None:
        """Write results to the database until cancelled."""
        while True:
            await self._has_unsaved.wait()
            self._has_unsaved.clear()
            found, self._unsaved = self._unsaved, {}
            try:
                await count_cache.save(self.database, found, self._most_saved, self._most_saved_bytes)
            except (DatabaseUnavailableError, DBAPIError) as error:  # for example, the role may only read
                _log.warning("results cannot be stored in the database", error=type(error).__name__)

    async def _look(self) -> None:
        # In autocommit mode, so that no read uses an older snapshot.
        async with self._looking, self.database.connect_reader() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            for _ in range(FIRST_LOOKS):
                state = await count_cache.current_state(raw)
                if not state.same_table(self.seen):
                    self._watermark.reset()  # the watermark of another table is invalid for this one
                self.seen = state
                await self._watermark.observe(raw)
                if self._watermark.id or not self._watermark.is_held_back:
                    break
                await asyncio.sleep(FIRST_LOOK_SECONDS)
