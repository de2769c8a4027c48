"""Up to which id everything is settled: no transaction that still runs, or ever will, can commit an id at or below.

Ids come from the sequence inside the transaction that inserts them, and `nextval` holds a lock on the sequence until
that transaction ends. So, once a value V of the sequence has been read, the transactions that may still commit an id
up to V are among those that hold the lock now; when each of these has ended, V is settled. A virtual transaction id
names one transaction only, has one before it has written anything, and every role sees all of `pg_locks`.

A lock is given up after the commit has become visible, so a snapshot taken *after* V was found settled sees all logs
up to V that will ever be there.
"""

import time
from collections.abc import Callable

import asyncpg

# In this order, in two statements: a transaction that draws an id between them draws one above V.
_DRAWN = """
SELECT coalesce(pg_sequence_last_value(seqrelid), 0), seqcache = 1 AND seqincrement > 0 AND NOT seqcycle
FROM pg_sequence
WHERE seqrelid = pg_get_serial_sequence('factory_logs', 'factory_log_id')::regclass AND NOT pg_is_in_recovery()
"""
_DRAWERS = """
SELECT virtualtransaction, pid IS NULL AS prepared
FROM pg_locks
WHERE locktype = 'relation'
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND relation = pg_get_serial_sequence('factory_logs', 'factory_log_id')::regclass
  AND mode <> 'AccessShareLock'
"""


class SettledIds:
    """What one worker knows of it. `up_to` never goes back while the same server is asked."""

    def __init__(self, every_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every = every_seconds
        self._clock = clock
        self._looking = False
        self.forget()

    def forget(self) -> None:
        """Begin anew: another server may have other ids."""
        self.up_to = 0
        self._candidate = 0
        self._drawers: frozenset[str] = frozenset()
        self._next = 0.0

    @property
    def due(self) -> bool:
        """Whether it is time to look again."""
        return not self._looking and self._clock() >= self._next

    @property
    def waiting(self) -> bool:
        """Whether transactions that ran at the last look must end before more is settled."""
        return bool(self._drawers)

    async def observe(self, connection: asyncpg.Connection) -> None:
        """Look again, outside any transaction. What is then in `up_to` holds for every snapshot taken from now on.

        One at a time: who holds the lock must have been read after the candidate that it is held against.
        """
        if self._looking:
            return
        self._looking = True
        try:
            await self._look(connection)
        finally:
            self._looking = False
            self._next = self._clock() + self._every

    async def _look(self, connection: asyncpg.Connection) -> None:
        drawn = await connection.fetchrow(_DRAWN)
        if drawn is None or not drawn[1]:
            # A standby does not see the primary's transactions; a sequence that caches gives out old ids late.
            self.up_to = 0
            return
        holders = await connection.fetch(_DRAWERS)
        running = frozenset(holder["virtualtransaction"] for holder in holders)
        # PREPARE TRANSACTION hands a lock on to a holder with another name.
        prepared = any(holder["prepared"] for holder in holders)
        if not running:
            self._settle(drawn[0])
            return
        if not prepared and not running & self._drawers:
            self._settle(self._candidate)
            self._candidate, self._drawers = drawn[0], running

    def _settle(self, value: int) -> None:
        self.up_to = max(self.up_to, value)
        self._candidate, self._drawers = value, frozenset()
