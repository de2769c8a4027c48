"""`num_results`, exact, at the cost of what is new (SPEC 5).

Logs never change and only retention takes them away, so how many of the settled ones match a filter is a fact that can
be kept. Counting again then looks at the newer ids alone. Each worker keeps the facts that it was asked for last; those
that took long are kept in the database too, so that neither another worker nor a restart has to find them again.

A fact holds for a snapshot that has the same state and was taken after its id was found settled (db/settled.py).
Repairs may be part of a filter: a log's repair is there before the log is, stays as long, and is never changed.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import structlog
from sqlalchemy import Select
from sqlalchemy.exc import DBAPIError

from factory_logs.db import counts
from factory_logs.db.counts import Conditions, Counted, Known, State
from factory_logs.db.engine import Database
from factory_logs.db.settled import SettledIds
from factory_logs.errors import DatabaseUnavailableError
from factory_logs.query import FACTORY_LOGS, Query, Resource, compile_count, compile_filters
from factory_logs.settings import Settings

MAX_ATTEMPTS = 2
"""What is known may cease to hold each time that retention takes some logs away."""
FIRST_LOOKS = 8
FIRST_LOOK_SECONDS = 0.025
"""Where nothing is settled yet, a count waits this often and this long: its fact saves the next one the whole work."""

_log = structlog.get_logger(__name__)


class OnTop(NamedTuple):
    """Logs are counted that are newer than `known`; those up to `settled` will be known then."""

    known: int
    settled: int
    lowest: int
    """No log that the query selects has a lower id.

    PostgreSQL does not know that ids and times go up together. Where it walks along the ids to the first logs of today
    it would come by all that are older.
    """
    logs: int
    """How many are known."""


class Count(Protocol):
    """How to count what a query selects: a statement of one row, and what its row says.

    The statement can be a part of another one, which then selects from the same snapshot.
    """

    @property
    def on_top(self) -> OnTop | None:
        """What the statement goes by, where it counts only what is newer than what is known."""

    @property
    def statement(self) -> Select[Any]: ...

    def total(self, row: Sequence[Any]) -> int | None:
        """How many records there are; None where what was known does not hold any more: prepare another attempt."""


@dataclass(frozen=True, slots=True)
class PlainCount:
    """All that the query selects is counted."""

    query: Query
    resource: Resource
    on_top: None = None

    @property
    def statement(self) -> Select[Any]:
        return compile_count(self.query, self.resource)

    def total(self, row: Sequence[Any]) -> int:
        return int(row[0])


class LogCounts:
    """The counts of one worker. `run` must run beside them."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._settled = SettledIds(settings.count_look_seconds)
        self._looking = asyncio.Lock()
        self._seen = State(None, 0, 0)
        self._known: OrderedDict[bytes, Known] = OrderedDict()
        self._most_known = settings.max_known_counts
        self._kept_seconds = settings.kept_count_seconds
        self._most_kept = settings.max_kept_counts
        self._to_keep: dict[bytes, Known] = {}
        self._something_to_keep = asyncio.Event()

    async def prepare(self, query: Query, attempt: int = 0) -> Count:
        """The cheapest way to count what `query` selects, for a snapshot that begins after this call.

        After a count that did not hold comes the next `attempt`; the one after MAX_ATTEMPTS always holds. Holds a
        connection of the pool for a while, so whoever holds one must not wait here. Raises DatabaseUnavailableError.
        """
        if self._settled.due and not self._looking.locked():
            await self._look()
        if query.group_by or attempt >= MAX_ATTEMPTS:
            return PlainCount(query, FACTORY_LOGS)
        name = _name(query)
        known = self._known.get(name)
        if known is None and query.limit is None:  # a limit bounds what a plain count costs
            known = await self._find(name, compile_filters(query, FACTORY_LOGS))
        if known is None:
            return PlainCount(query, FACTORY_LOGS)
        self._known.move_to_end(name)
        on_top = OnTop(known.up_to, self._settled.up_to, known.lowest, known.logs)
        return _CountOnTop(self, name, query, known, on_top, self._seen)

    async def run(self) -> None:
        """Write to the database what took long to count, until cancelled."""
        while True:
            await self._something_to_keep.wait()
            self._something_to_keep.clear()
            found, self._to_keep = self._to_keep, {}
            try:
                await counts.keep(self._database, found, self._most_kept)
            except (DatabaseUnavailableError, DBAPIError) as error:  # such as a role that may only read
                _log.warning("counts cannot be kept in the database", error=type(error).__name__)

    def learn(self, name: bytes, known: Known) -> None:
        """Know this from now on; what was not asked for the longest time is forgotten."""
        self._known[name] = known
        self._known.move_to_end(name)
        if len(self._known) > self._most_known:
            self._known.popitem(last=False)

    def forget(self, name: bytes) -> None:
        self._known.pop(name, None)

    async def _look(self) -> None:
        """Find out what is settled: one request does from time to time, the others go on with what is known."""
        # In autocommit, here and in _find: what is read must not come from an older snapshot.
        async with self._looking, self._database.connect_autocommit() as connection:
            raw = (await connection.get_raw_connection()).driver_connection
            for _ in range(FIRST_LOOKS):
                state = await counts.current_state(raw)
                if not state.same_table(self._seen):
                    self._settled.forget()  # what was settled elsewhere is not settled here
                self._seen = state
                await self._settled.observe(raw)
                if self._settled.up_to or not self._settled.waiting:
                    break
                await asyncio.sleep(FIRST_LOOK_SECONDS)

    async def _find(self, name: bytes, conditions: Conditions) -> Known | None:
        """What there is to be known of a filter, counted now if need be; None where nothing is settled."""
        settled, seen = self._settled.up_to, self._seen
        started = time.monotonic()
        digest = counts.digest(conditions)
        async with self._database.connect_autocommit() as connection:
            known = await counts.kept(connection, digest)
            counted = await counts.count(connection, conditions, settled, known and known.up_to) if settled else None
        if counted is not None:
            found = _advanced(known, counted, settled, seen)
            if found is not None and time.monotonic() - started >= self._kept_seconds:
                self._to_keep[digest] = found
                self._something_to_keep.set()
            known = found or known
        if known is not None:
            self.learn(name, known)
        return known


@dataclass(frozen=True, slots=True)
class _CountOnTop:
    """The logs are counted that are newer than what is known of the filter."""

    counts: LogCounts
    name: bytes
    query: Query
    known: Known
    on_top: OnTop
    seen: State

    @property
    def statement(self) -> Select[Any]:
        conditions = compile_filters(self.query, FACTORY_LOGS)
        return counts.counting(conditions, self.on_top.settled, self.on_top.known)

    def total(self, row: Sequence[Any]) -> int | None:
        counted = Counted.of(row)
        if counted.state != self.known.state:
            self.counts.forget(self.name)
            return None
        found = _advanced(self.known, counted, self.on_top.settled, self.seen)
        if found is not None:
            self.counts.learn(self.name, found)
        left = max(0, self.known.logs + counted.logs - (self.query.offset or 0))
        return left if self.query.limit is None else min(left, self.query.limit)


def _advanced(known: Known | None, counted: Counted, settled: int, seen: State) -> Known | None:
    """What is known once more has been counted; None where that was not where `settled` was found."""
    if not counted.state.same_table(seen):
        return None
    if known is None:
        return Known(counted.state, settled, counted.settled, counted.lowest)
    if counted.state != known.state or settled <= known.up_to:
        return None
    lowest = known.lowest if known.logs else counted.lowest
    return Known(counted.state, settled, known.logs + counted.settled, lowest)


def _name(query: Query) -> bytes:
    """Names what is counted. The filters are a conjunction, so their order says nothing."""
    return hashlib.blake2b(repr(sorted(map(repr, query.filters))).encode(), digest_size=32).digest()
