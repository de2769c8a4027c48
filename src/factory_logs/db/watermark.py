"""Find the watermark: the id up to which no transaction can commit any more logs.

Ids come from a sequence inside the transaction that inserts them, and `nextval` holds a lock on the sequence until that
transaction ends. So after a value V of the sequence is read, only transactions that hold the lock now can still commit
an id up to V. When each of them has ended, V is the watermark. The lock holders are found in `pg_locks`, which every
role may read, by their virtual transaction ids. A virtual transaction id identifies one transaction, and it exists
before the transaction has written anything.

A lock is released after the commit has become visible. So a snapshot taken *after* V became the watermark sees all logs
up to V that there will ever be.

On a Citus cluster a transaction commits on the coordinator first. If a worker node fails at that moment, the part of
the transaction on that node stays prepared, invisible, until recovery commits it. So after the transactions on the
coordinator have ended, the transactions that are prepared on any node must end too. If a node does not respond, the
watermark stays (docs/how-to/scale-out.md).
"""

import time
from collections.abc import Callable

import asyncpg

from factory_logs.db.citus import Holder, is_distributed, prepared_writers

_SEQUENCE = "pg_get_serial_sequence('factory_logs', 'factory_log_id')::regclass"
LAST_VALUE = f"pg_sequence_last_value({_SEQUENCE})"
LAST_DRAWN = f"SELECT coalesce({LAST_VALUE}, 0)"
"""The highest id that a transaction has drawn from the sequence."""
# These must be two statements in this order: a transaction that draws an id between them draws one above V.
_DRAWN = f"""
SELECT ({LAST_DRAWN}), seqcache = 1 AND seqincrement > 0 AND NOT seqcycle
FROM pg_sequence WHERE seqrelid = {_SEQUENCE} AND NOT pg_is_in_recovery()
"""  # noqa: S608 - our own text
_DRAWERS = f"""
SELECT virtualtransaction, pid IS NULL AS prepared
FROM pg_locks
WHERE locktype = 'relation'
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND relation = {_SEQUENCE}
  AND mode <> 'AccessShareLock'
"""  # noqa: S608


class Watermark:
    """Tracks the watermark for a worker. `id` never decreases while the server stays the same. It is 0 if the watermark
    is unknown."""

    def __init__(self, every_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._every = every_seconds
        self._clock = clock
        self._observing = False
        self.reset()

    def reset(self) -> None:
        """Forget the watermark: another server may have other ids."""
        self.id = 0
        self.highest_drawn: int | None = None
        """The highest id that was drawn at the last observation, or None if this server has no watermark."""
        self._candidate = 0
        self._drawers: frozenset[str] = frozenset()
        self._ended = 0
        """No transaction on the coordinator can commit a log with an id up to this one any more."""
        self._prepared_at = 0
        self._prepared: frozenset[Holder] = frozenset()
        """The transactions that were prepared on any node when `_ended` was `_prepared_at`."""
        self._next = 0.0

    @property
    def due(self) -> bool:
        """Whether it is time for the next observation."""
        return not self._observing and self._clock() >= self._next

    @property
    def is_held_back(self) -> bool:
        """Whether transactions that ran at the last observation must end before the watermark can rise."""
        return bool(self._drawers or self._prepared)

    async def observe(self, connection: asyncpg.Connection) -> None:
        """Read the sequence and its lock holders, outside any transaction, and raise the watermark if that allows it.

        The new `id` is valid for every snapshot taken from now on. Only one observation runs at a time, because the
        lock holders must be read after the id that they may still commit.
        """
        if self._observing:
            return
        self._observing = True
        try:
            await self._observe(connection)
            if not is_distributed(connection):
                self.id = self._ended
            elif self._ended > self.id:
                await self._observe_nodes(connection)
        finally:
            self._observing = False
            self._next = self._clock() + self._every

    async def _observe(self, connection: asyncpg.Connection) -> None:
        drawn = await connection.fetchrow(_DRAWN)
        if drawn is None or not drawn[1]:
            # A standby does not see the primary's transactions, and with a cached sequence lower ids may be drawn
            # later.
            self._ended, self.id, self.highest_drawn = 0, 0, None
            return
        self.highest_drawn = drawn[0]
        holders = await connection.fetch(_DRAWERS)
        running = frozenset(holder["virtualtransaction"] for holder in holders)
        # PREPARE TRANSACTION passes the lock to a holder with another name.
        prepared = any(holder["prepared"] for holder in holders)
        if not running:
            self._rise(drawn[0])
            return
        if not prepared and not running & self._drawers:
            self._rise(self._candidate)
            self._candidate, self._drawers = drawn[0], running

    def _rise(self, value: int) -> None:
        self._ended = max(self._ended, value)
        self._candidate, self._drawers = value, frozenset()

    async def _observe_nodes(self, connection: asyncpg.Connection) -> None:
        ended = self._ended  # read before the nodes' state
        prepared = await prepared_writers(connection)
        if prepared is None:
            return
        if self._prepared and not prepared & self._prepared:
            self.id, self._prepared = max(self.id, self._prepared_at), frozenset()
        if not prepared:
            self.id = max(self.id, ended)
        elif not self._prepared:
            self._prepared_at, self._prepared = ended, prepared
