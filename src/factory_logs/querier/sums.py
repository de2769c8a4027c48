"""Compute sums over logs by bucket, group or value, and read only logs that no earlier sum covers.

A cached sum covers the logs up to a watermark in a time range (querier/result_cache.py). A request for another time
range or for newer logs reads only the logs that one of the two covers and the other does not. A sum over logs is
corrected by adding and subtracting these logs. A sum over units, such as the units that passed at first, is corrected
unit by unit: if a unit has one of these logs, its old contribution is subtracted, and its new contribution is added. So
a sliding time window reads only the logs at its edges, and a repeated request reads only new logs.

Sums by bins of time (InfluxQL's windows) are known for whole bins. For another time range, bins are added or omitted,
and no log is subtracted. So these sums may contain values that cannot be subtracted: minima, first and last values, and
doubles.

All reads use one snapshot, so each result is exact for that snapshot, even during writes.
"""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar, cast

from sqlalchemy.ext.asyncio import AsyncConnection

from factory_logs.db.citus import runs_on_cluster
from factory_logs.db.count_cache import Known, TableState, load, snapshot_state
from factory_logs.db.removals import Removals, load_removals
from factory_logs.querier.aggregates import Aggregates, sample_condition, too_many_groups
from factory_logs.querier.known_sums import (
    Cheap,
    KnownSums,
    decode,
    encode,
    is_worthwhile,
    sums_digest,
    sums_name,
    within,
)
from factory_logs.querier.result_cache import CachedResult, ResultCache
from factory_logs.querier.sum_definitions import Summed
from factory_logs.querier.sum_parts import KnownParts, Missing, fewer_parts, missing, valid_parts, with_rows
from factory_logs.querier.sum_parts import decode as decode_parts
from factory_logs.querier.sum_parts import encode as encode_parts
from factory_logs.querier.sum_rows import LogRange, SumReader, TooManyRowsError
from factory_logs.querier.sum_tables import Table, sums_size
from factory_logs.query import FACTORY_LOGS, compile_filters
from factory_logs.query.rewriting import TimeRange, split_time
from factory_logs.settings import Settings

T = TypeVar("T")

FEW_NEW_IDS = 5_000
"""A cached sum is always reused if there are at most this many new ids. Reading their logs takes a few milliseconds."""
NEW_IDS_PER_SECOND = 500_000
"""A cached sum is reused if its new ids are read faster than all its logs. This is about how many ids are read in a
second (docs/explanation/reading.md)."""
EVER = TimeRange(None, None)


class StillReadingError(Exception):
    """A sum that is read in parts is not complete yet. The reading has reached the id `up_to`, and ends at `goal`."""

    def __init__(self, up_to: int, goal: int) -> None:
        super().__init__(up_to, goal)
        self.up_to, self.goal = up_to, goal


class _NotKnownError(Exception):
    """A sum is not known, so a snapshot is needed."""


class _NoSnapshot:
    """Replaces the connection while only cached sums are used. Raises _NotKnownError if it is used."""

    def __getattr__(self, name: str) -> Any:
        raise _NotKnownError


class Sums:
    """Computes and caches the sums of a worker."""

    def __init__(self, known: ResultCache, aggregates: Aggregates, settings: Settings) -> None:
        self._known = known
        self._aggregates = aggregates
        self.learn_seconds = settings.known_sums_seconds
        self.save_seconds = known.save_seconds
        self.most_rows = settings.max_known_rows
        self._part_seconds = settings.statement_timeout_seconds

    @asynccontextmanager
    async def snapshot(self, part_seconds: float | None = None) -> AsyncIterator["SumsOfSnapshot"]:
        """Yield an object that computes sums in one snapshot. If sums are read in parts, no further part begins after
        `part_seconds`, by default the time that a statement may take. Raises the errors of `Aggregates.snapshot`."""
        await self._known.look()
        watermark, seen, before = self._known.watermark, self._known.seen, self._known.facts()
        learned: list[Callable[[], None]] = []
        unfinished: StillReadingError | TooManyRowsError | None = None
        async with self._aggregates.snapshot() as connection:
            state, drawn = await snapshot_state(connection)
            is_distributed = await runs_on_cluster(connection)
            watermark = watermark if state.same_table(seen) else 0
            seconds = self._part_seconds if part_seconds is None else part_seconds
            try:
                later = learned if is_distributed else None
                yield SumsOfSnapshot(self, connection, state, watermark, drawn, before, seconds, later)
            except (StillReadingError, TooManyRowsError) as error:
                unfinished = error
        # A cluster has no snapshot of all nodes, so logs may have been removed since `state` was read.
        if learned and await self._known.is_still(state):
            for learn in learned:
                learn()
        if unfinished is not None:
            raise unfinished

    async def read(self, function: Callable[["SumsOfSnapshot"], Awaitable[T]]) -> T:
        """Return the result of a function that computes sums in one snapshot.

        If no log is newer than the cached sums, and the function needs no others, one statement that reads the state of
        the table is enough. Otherwise the function runs in a snapshot, possibly for the second time. Raises the errors
        of `snapshot`.
        """
        await self._known.look()
        known = await self._all_known()
        if known is not None:
            with suppress(_NotKnownError):
                return await function(known)
        async with self.snapshot() as snapshot:
            return await function(snapshot)

    async def _all_known(self) -> "SumsOfSnapshot | None":
        """Return the cached sums for the snapshot of one statement, or None if there are newer logs."""
        watermark, seen, before = self._known.watermark, self._known.seen, self._known.facts()
        if not before or not self._known.may_have_newest or self._known.database.is_distributed:
            return None
        state, drawn = await self._known.now()
        if drawn is None or drawn > watermark or not state.same_table(seen):
            return None
        nothing = cast(AsyncConnection, _NoSnapshot())
        return SumsOfSnapshot(self, nothing, state, watermark, drawn, before, self._part_seconds)

    def recall(self, name: bytes) -> KnownSums | KnownParts | Cheap | None:
        """Return the sums with this name that the worker has cached."""
        known = self._known.get(name)
        return known if isinstance(known, KnownSums | KnownParts | Cheap) else None

    def learn(
        self,
        summed: Summed,
        name: bytes,
        known: KnownSums,
        seconds: float,
        *,
        is_new: bool = False,
    ) -> None:
        """Cache the sums if computing them took long. Also store them in the database if it took even longer.

        Sums from a newer snapshot are not replaced.
        """
        newest = self.recall(name)
        if isinstance(newest, KnownSums) and newest.up_to > known.up_to:
            return
        if is_new and seconds < self.learn_seconds:
            self._known.learn(name, Cheap(known.state, known.up_to, known.range))
            return
        if len(known.table or ()) > self.most_rows:
            return
        self._known.learn(name, known, sums_size(known.table))
        if seconds >= self.save_seconds and known.table is not None:
            content = encode(known)
            self._known.save(sums_digest(summed), Known(known.state, known.up_to, len(known.table), 0, content))

    def learn_parts(self, summed: Summed, name: bytes, known: KnownParts, *, is_worth_saving: bool) -> None:
        """Cache the parts, and also store them in the database if `is_worth_saving` is set. More parts, and parts in
        a newer state, are not replaced. A sum with too many rows keeps too many until logs are removed."""
        newest = self.recall(name)
        if isinstance(newest, KnownParts) and newest.state.same_table(known.state) and newest.rank > known.rank:
            return
        if len(known.table or ()) > self.most_rows:
            return
        self._known.learn(name, known, known.size)
        if is_worth_saving and known.table is not None:
            stored = Known(known.state, known.covered, len(known.table), 0, encode_parts(known), in_parts=True)
            self._known.save(sums_digest(summed), stored)

    def forget(self, name: bytes) -> None:
        self._known.forget(name)


@dataclass(frozen=True, slots=True)
class SumsOfSnapshot:
    """Computes sums in one snapshot. No log can be added up to `watermark`. The snapshot contains no log with an id
    above `drawn`, if that is known. `before` contains the sums that were known when the snapshot was taken."""

    sums: Sums
    connection: AsyncConnection
    state: TableState
    watermark: int
    drawn: int | None
    before: Mapping[bytes, CachedResult]
    part_seconds: float
    learned: list[Callable[[], None]] | None = None
    """On a cluster, the sums to cache after the snapshot if the state of the table is still the same."""

    def learn(self, summed: Summed, name: bytes, known: KnownSums, seconds: float, *, is_new: bool = False) -> None:
        """See `Sums.learn`."""
        self._learn(partial(self.sums.learn, summed, name, known, seconds, is_new=is_new))

    def _learn(self, learn: Callable[[], None]) -> None:
        if self.learned is None:
            learn()
        else:
            self.learned.append(learn)

    async def table(self, summed: Summed, most: int) -> Table:
        """Return the rows by their keys. Raises TooManyRowsError for more than `most` rows, and StillReadingError."""
        query, wanted = split_time(summed.query)
        asked = SumReader(self.connection, summed, compile_filters(query, FACTORY_LOGS), most)
        whole = wanted if summed.bins is None else summed.bins.whole(wanted)
        if whole is None or not self.watermark:
            return await asked.rows(LogRange(wanted))
        name = sums_name(summed, query)
        recalled = self.sums.recall(name)
        if isinstance(recalled, Cheap) and is_worthwhile(recalled.range, whole):
            return await self._read_again(asked, wanted, name)
        now = await self._up_to_watermark(asked, whole, name)
        table = now.table or {} if now.range == whole else within(now.table or {}, whole)
        if self.drawn is None or self.drawn > now.up_to:
            newest = await asked.changed(table, LogRange(whole, up_to=now.up_to), LogRange(whole))
            table = await asked.rows(LogRange(whole)) if newest is None else newest
        table = asked.merged(table, [(await asked.rows(LogRange(edge)), 1) for edge in wanted.without(whole)])
        if len(table) > most:
            raise TooManyRowsError
        return table

    async def advance(self, summed: Summed, most: int) -> None:
        """Compute and cache the rows of the logs up to the watermark, without reading newer logs. Raises the errors
        of `table`."""
        query, wanted = split_time(summed.query)
        if self.watermark:
            asked = SumReader(self.connection, summed, compile_filters(query, FACTORY_LOGS), most)
            await self._up_to_watermark(asked, wanted, sums_name(summed, query))

    async def _up_to_watermark(self, asked: "SumReader", wanted: TimeRange, name: bytes) -> KnownSums:
        """Return the sums up to the watermark, or up to a later id if they are known. They cover at least the wanted
        time range."""
        if asked.summed.part is not None:
            parts = await self._in_parts(asked, asked.summed.part, name)
            return KnownSums(self.state, max(parts.up_to, self.watermark), wanted, parts.table)
        known = await self._recalled(asked.summed, name)
        if known is not None and known.table is None:
            if known.range == wanted:
                raise TooManyRowsError
            known = None
        try:
            now = None if known is None else await self._advanced(asked, known, wanted, name)
            return await self._found(asked, wanted, name) if now is None else now
        except TooManyRowsError:
            self.learn(asked.summed, name, KnownSums(self.state, self.watermark, wanted, None), 0.0)
            raise

    async def _in_parts(self, asked: "SumReader", length: int, name: bytes) -> KnownParts:
        """Return the parts up to the watermark, or further if later parts are known. Raises TooManyRowsError,
        StillReadingError."""
        summed = asked.summed
        known = await self._recalled_parts(summed, length, name)
        if known.table is None:
            raise TooManyRowsError
        goal = max(known.up_to, self.watermark)
        enough, deadline = known.covered + length, time.monotonic() + self.part_seconds
        while (next_one := next(missing(known.parts, length, goal), None)) is not None:
            started = time.monotonic()
            try:
                known = await self._with_part(asked, length, known, next_one)
                if len(known.table or ()) > asked.most:
                    raise TooManyRowsError
            except TooManyRowsError:
                too_many = KnownParts(self.state, known.uncounted, (), None)
                self._learn(partial(self.sums.learn_parts, summed, name, too_many, is_worth_saving=False))
                raise
            is_complete = next_one.up_to % length == 0
            is_worth_saving = is_complete or time.monotonic() - started >= self.sums.save_seconds
            known = fewer_parts(known, self.sums.most_rows, summed.merging)
            self._learn(partial(self.sums.learn_parts, summed, name, known, is_worth_saving=is_worth_saving))
            if enough <= known.covered < goal and time.monotonic() >= deadline:
                raise StillReadingError(known.covered, goal)
        return known

    async def _with_part(self, asked: "SumReader", length: int, known: KnownParts, wanted: Missing) -> KnownParts:
        """Return the parts with one more part, or with the rest of a part."""
        logs = LogRange(EVER, wanted.above, wanted.up_to)
        if wanted.part is None:
            rows = await asked.rows(logs)
            removed = (await self._removals()).within(wanted.above, wanted.above + length)
        else:
            rows = await asked.rows(logs, unlike=wanted.part.table)
            removed = wanted.part.removed
        return with_rows(known, wanted, rows, length, removed, asked.summed.merging)

    async def _recalled_parts(self, summed: Summed, length: int, name: bytes) -> KnownParts:
        """Return the known parts that are valid in this snapshot, as in `_recalled`. If many ids are missing, also look
        for those that another worker has read."""
        newest = self.sums.recall(name)
        of_worker = [
            known
            for known in (newest, self.before.get(name))
            if isinstance(known, KnownParts) and known.state.same_table(self.state) and known.up_to <= self.watermark
        ]
        for known in of_worker:
            if known.state == self.state and (known.table is None or self.watermark - known.covered <= length):
                return known
        removals = await self._removals()
        valid = [valid_parts(known, self.state, removals, summed.merging) for known in of_worker]
        best = max(valid, key=lambda known: known.covered, default=None)
        if best is None or self.watermark - best.covered > length:
            found = await load(self.connection, sums_digest(summed))
            if found is not None and found.content is not None:
                stored = decode_parts(found, summed.merging)
                valid.append(valid_parts(stored, self.state, removals, summed.merging))
        if not valid:
            return KnownParts(self.state, removals.uncounted, (), {})
        known = max(valid, key=lambda known: known.covered)
        self._learn(partial(self.sums.learn_parts, summed, name, known, is_worth_saving=False))
        return known

    async def _removals(self) -> Removals:
        return await load_removals(self.connection, self.state)

    async def _read_again(self, asked: "SumReader", wanted: TimeRange, name: bytes) -> Table:
        """Return sums that were cheap before. If computing them takes long now, forget that they were cheap, so that
        the next request caches them."""
        started = time.monotonic()
        table = await asked.rows(LogRange(wanted))
        if time.monotonic() - started >= self.sums.learn_seconds:
            self.sums.forget(name)
        return table

    async def _recalled(self, summed: Summed, name: bytes) -> KnownSums | None:
        """Return cached sums that are valid in this snapshot. Sums up to the snapshot's watermark are valid, because
        the snapshot contains all logs up to the watermark.

        Another request may have computed newer sums in a newer snapshot. Sums stored in the database are valid if the
        snapshot contains their row.
        """
        newest = self.sums.recall(name)
        if newest is not None and newest.state != self.state:
            self.sums.forget(name)
        valid = [
            known
            for known in (newest, self.before.get(name))
            if isinstance(known, KnownSums) and known.state == self.state and known.up_to <= self.watermark
        ]
        if valid:
            return valid[0]
        found = await load(self.connection, sums_digest(summed))
        if found is not None and found.content is not None:
            stored = decode(found)
            self.learn(summed, name, stored, 0.0)
            return stored
        return None

    async def _advanced(self, asked: "SumReader", known: KnownSums, wanted: TimeRange, name: bytes) -> KnownSums | None:
        """Return the cached sums, updated to the wanted time range and the watermark, or None if the update would read
        all logs, or would take longer than computing the sums again. Sums by bins remain known for all time ranges that
        overlap, as far as the limit of rows allows."""
        if self.watermark - known.up_to > max(FEW_NEW_IDS, known.seconds * NEW_IDS_PER_SECOND):
            return None
        covered = wanted
        if asked.summed.bins is not None:
            if not known.range.touches(wanted):
                return None
            covered = known.range.joined(wanted)
        elif not is_worthwhile(known.range, wanted):
            return None
        up_to = max(known.up_to, self.watermark)
        if (known.range, known.up_to) == (covered, up_to):
            return known
        started = time.monotonic()
        before, after = LogRange(known.range, up_to=known.up_to), LogRange(covered, up_to=up_to)
        try:
            table = await asked.changed(known.table or {}, before, after)
        except TooManyRowsError:
            if covered == wanted:
                raise
            table = None  # the wanted time range alone may still have few enough rows
        if table is None:
            return None
        if covered != wanted and len(table) > self.sums.most_rows:
            table, covered = within(table, wanted), wanted
        now = KnownSums(self.state, up_to, covered, table, known.seconds)
        self.learn(asked.summed, name, now, time.monotonic() - started)
        return now

    async def _found(self, asked: "SumReader", wanted: TimeRange, name: bytes) -> KnownSums:
        """Return the sums up to the watermark."""
        started = time.monotonic()
        logs = LogRange(wanted, up_to=self.watermark)
        if asked.most <= self.sums.most_rows:  # a sample for more rows would be hardly smaller than all logs
            sample = await sample_condition(self.connection, [*asked.filters, *logs.conditions()], wanted, asked.most)
            if sample:
                await asked.rows(logs, *sample)
        table = await asked.rows(logs)
        seconds = time.monotonic() - started
        found = KnownSums(self.state, self.watermark, wanted, table, seconds)
        self.learn(asked.summed, name, found, seconds, is_new=True)
        return found


async def limited_table(sums: Sums, summed: Summed, max_rows: int, most: int) -> Table:
    """Compute a sum in its own snapshot, and return its rows.

    Raises BadRequestError, whose message names `max_rows`, if there are more than `most` rows.
    """
    try:
        return await sums.read(lambda snapshot: snapshot.table(summed, most))
    except TooManyRowsError:
        raise too_many_groups(max_rows) from None
