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

import hashlib
import json
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, TypeVar, cast

from sqlalchemy import ARRAY, BigInteger, ColumnElement, Row, Select, any_, case, literal, literal_column, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from factory_logs.db.aggregates import LOGS
from factory_logs.db.citus import runs_on_cluster
from factory_logs.db.count_cache import Known, TableState, load, snapshot_state
from factory_logs.db.models import TIME
from factory_logs.db.removals import Removals, load_removals
from factory_logs.querier.aggregates import Aggregates, canonical, log_value, sample_condition, shown, too_many_groups
from factory_logs.querier.result_cache import CachedResult, ResultCache
from factory_logs.querier.sum_parts import KnownParts, Merging, Missing, fewer_parts, missing, valid_parts, with_rows
from factory_logs.querier.sum_parts import decode as decode_parts
from factory_logs.querier.sum_parts import encode as encode_parts
from factory_logs.querier.sum_tables import (
    Key,
    Numbers,
    Table,
    add_numbers,
    decoded_rows,
    encoded_rows,
    sums_size,
)
from factory_logs.query import FACTORY_LOGS, Field, Query, compile_filters
from factory_logs.query.compiler import SQL_TYPES
from factory_logs.query.rewriting import MICROSECOND, TimeRange, split_time
from factory_logs.settings import Settings

T = TypeVar("T")
Conditions = Sequence[ColumnElement[bool]]
Read = Callable[[AsyncConnection, Conditions, int], Awaitable[Sequence[Sequence[Any]]]]
"""Returns the rows over the logs that meet the conditions, but at most one row more than the given number. A row
contains the columns of the key, then numbers."""

WORTHWHILE = 4
"""A cached sum is reused for another time range if the two ranges differ by at most a quarter of the wanted range."""
FEW_NEW_IDS = 5_000
"""A cached sum is always reused if there are at most this many new ids. Reading their logs takes a few milliseconds."""
NEW_IDS_PER_SECOND = 500_000
"""A cached sum is reused if its new ids are read faster than all its logs. This is about how many ids are read in a
second (docs/explanation/reading.md)."""
MOST_UNITS = 2_000
"""If more units than this have new logs, the sum is computed again from all logs."""
INDEXED_UNITS = frozenset({"product_imei", "repair_id", "factory_log_id"})
VERSION = 3
"""The version of the format of stored sums. Increase it if the meaning of the stored data changes."""


EPOCH = datetime(1970, 1, 1)
EVER = TimeRange(None, None)


def json_texts(values: Sequence[Any]) -> Key:
    """Return a key of JSON texts; equal values have equal texts."""
    return tuple(map(canonical, values))


class Bins(NamedTuple):
    """Bins of time of equal length; one of them begins at `origin`."""

    length: timedelta
    origin: datetime

    def whole(self, wanted: TimeRange) -> TimeRange | None:
        """Return the range of the bins that lie completely in a time range, or None if there are none."""
        begin, end = wanted.begin, wanted.end
        if begin is not None:
            begin += (self.origin - begin) % self.length
        if end is not None:
            end -= (end - self.origin) % self.length
        return None if begin is not None and end is not None and begin >= end else TimeRange(begin, end)


@dataclass(frozen=True, slots=True)
class Summed:
    """The definition of a sum over the logs of `query`. `read` returns its rows; the first `keys` columns identify a
    row.

    `name` distinguishes the sum from other sums over the same query. If `unit` is given, the logs of a unit are summed
    together, otherwise each log by itself. `relevant` contains conditions for the logs that count. If `part` is given,
    the sum covers all time, and is computed and cached in parts of that many ids (querier/sum_parts.py). `least`
    and `greatest` are the positions of numbers that are a minimum or a maximum, not a sum. A number may also be a list,
    or None if there is no value. `are_exact` is false for sums of doubles: subtracting a log from such a sum does not
    give the same result as summing without it.

    If `read_unlike` is given, it returns, for logs that are added, only the rows that are not in the table yet.

    If `bins` is given, the last column of the key is the beginning of a bin, in microseconds since 1970. `as_key`
    converts the first columns to the key: to JSON texts, or with `tuple` to the unchanged values, if these are texts
    and whole numbers.
    """

    name: str
    query: Query
    keys: int
    read: Read
    unit: Field | None = None
    relevant: Conditions = ()
    part: int | None = None
    least: frozenset[int] = frozenset()
    greatest: frozenset[int] = frozenset()
    are_exact: bool = True
    read_unlike: Callable[[AsyncConnection, Conditions, int, Table], Awaitable[Sequence[Sequence[Any]]]] | None = None
    bins: Bins | None = None
    as_key: Callable[[Sequence[Any]], Key] = json_texts

    @property
    def can_subtract(self) -> bool:
        return self.are_exact and not self.least and not self.greatest

    @property
    def merging(self) -> Merging:
        return Merging(self.least, self.greatest)


class KnownSums(NamedTuple):
    """The sums over the logs of a time range up to a watermark. `table` is None if there are too many rows. `seconds`
    is the time that computing them from all their logs took."""

    state: TableState
    up_to: int
    range: TimeRange
    table: Table | None
    seconds: float = 0.0


class Cheap(NamedTuple):
    """Marks sums that were computed so fast for a time range that they are not worth caching."""

    state: TableState
    up_to: int
    range: TimeRange


class TooManyRowsError(Exception):
    """A sum has more rows than allowed."""


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


class _Logs(NamedTuple):
    """A set of logs, limited by time and id: ids above `above`, up to `up_to`. None means no bound."""

    range: TimeRange
    above: int | None = None
    up_to: int | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        found: list[ColumnElement[bool]] = []
        if self.range.begin is not None:
            found.append(LOGS.c.timestamp >= literal(self.range.begin, TIME))
        if self.range.end is not None:
            found.append(LOGS.c.timestamp < literal(self.range.end, TIME))
        if self.above is not None:
            found.append(LOGS.c.factory_log_id > literal(self.above, BigInteger))
        if self.up_to is not None:
            found.append(LOGS.c.factory_log_id <= literal(self.up_to, BigInteger))
        return found


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
        asked = _Asked(self.connection, summed, compile_filters(query, FACTORY_LOGS), most)
        whole = wanted if summed.bins is None else summed.bins.whole(wanted)
        if whole is None or not self.watermark:
            return await asked.rows(_Logs(wanted))
        name = sums_name(summed, query)
        recalled = self.sums.recall(name)
        if isinstance(recalled, Cheap) and is_worthwhile(recalled.range, whole):
            return await self._read_again(asked, wanted, name)
        now = await self._up_to_watermark(asked, whole, name)
        table = now.table or {} if now.range == whole else _within(now.table or {}, whole)
        if self.drawn is None or self.drawn > now.up_to:
            newest = await asked.changed(table, _Logs(whole, up_to=now.up_to), _Logs(whole))
            table = await asked.rows(_Logs(whole)) if newest is None else newest
        table = asked.merged(table, [(await asked.rows(_Logs(edge)), 1) for edge in wanted.without(whole)])
        if len(table) > most:
            raise TooManyRowsError
        return table

    async def advance(self, summed: Summed, most: int) -> None:
        """Compute and cache the rows of the logs up to the watermark, without reading newer logs. Raises the errors
        of `table`."""
        query, wanted = split_time(summed.query)
        if self.watermark:
            asked = _Asked(self.connection, summed, compile_filters(query, FACTORY_LOGS), most)
            await self._up_to_watermark(asked, wanted, sums_name(summed, query))

    async def _up_to_watermark(self, asked: "_Asked", wanted: TimeRange, name: bytes) -> KnownSums:
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

    async def _in_parts(self, asked: "_Asked", length: int, name: bytes) -> KnownParts:
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

    async def _with_part(self, asked: "_Asked", length: int, known: KnownParts, wanted: Missing) -> KnownParts:
        """Return the parts with one more part, or with the rest of a part."""
        logs = _Logs(EVER, wanted.above, wanted.up_to)
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

    async def _read_again(self, asked: "_Asked", wanted: TimeRange, name: bytes) -> Table:
        """Return sums that were cheap before. If computing them takes long now, forget that they were cheap, so that
        the next request caches them."""
        started = time.monotonic()
        table = await asked.rows(_Logs(wanted))
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

    async def _advanced(self, asked: "_Asked", known: KnownSums, wanted: TimeRange, name: bytes) -> KnownSums | None:
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
        before, after = _Logs(known.range, up_to=known.up_to), _Logs(covered, up_to=up_to)
        try:
            table = await asked.changed(known.table or {}, before, after)
        except TooManyRowsError:
            if covered == wanted:
                raise
            table = None  # the wanted time range alone may still have few enough rows
        if table is None:
            return None
        if covered != wanted and len(table) > self.sums.most_rows:
            table, covered = _within(table, wanted), wanted
        now = KnownSums(self.state, up_to, covered, table, known.seconds)
        self.learn(asked.summed, name, now, time.monotonic() - started)
        return now

    async def _found(self, asked: "_Asked", wanted: TimeRange, name: bytes) -> KnownSums:
        """Return the sums up to the watermark."""
        started = time.monotonic()
        logs = _Logs(wanted, up_to=self.watermark)
        if asked.most <= self.sums.most_rows:  # a sample for more rows would be hardly smaller than all logs
            sample = await sample_condition(self.connection, [*asked.filters, *logs.conditions()], wanted, asked.most)
            if sample:
                await asked.rows(logs, *sample)
        table = await asked.rows(logs)
        seconds = time.monotonic() - started
        found = KnownSums(self.state, self.watermark, wanted, table, seconds)
        self.learn(asked.summed, name, found, seconds, is_new=True)
        return found


@dataclass(frozen=True, slots=True)
class _Asked:
    """Reads the rows of one sum. `filters` contains the filters of the query except those on `timestamp`."""

    connection: AsyncConnection
    summed: Summed
    filters: Conditions
    most: int

    async def rows(self, logs: _Logs, *more: ColumnElement[bool], unlike: Table | None = None) -> Table:
        """Return the rows over these logs, or only the rows that another table does not contain. Raises
        TooManyRowsError."""
        conditions = [*self.filters, *logs.conditions(), *more]
        if self.summed.read_unlike is not None and unlike:
            found = await self.summed.read_unlike(self.connection, conditions, self.most, unlike)
        else:
            found = await self.summed.read(self.connection, conditions, self.most)
        if len(found) > self.most:
            raise TooManyRowsError
        keys = self.summed.keys
        table: dict[Key, Numbers] = {}
        for row in found:
            if any(row[keys:]):
                self._add(table, self._key(row[:keys]), tuple(map(shown, row[keys:])), 1)
        return table

    def _key(self, values: Sequence[Any]) -> Key:
        if self.summed.bins is None:
            return self.summed.as_key(values)
        return (*self.summed.as_key(values[:-1]), values[-1])

    async def changed(self, table: Table, before: _Logs, after: _Logs) -> Table | None:
        """Return the table for the logs `after`, computed from the table for the logs `before`, or None if this would
        read all logs.

        Raises TooManyRowsError.
        """
        added = [_Logs(after.range, before.up_to, after.up_to)] if before.up_to != after.up_to else []
        added += [_Logs(part, up_to=before.up_to) for part in after.range.without(before.range)]
        removed = [_Logs(part, up_to=before.up_to) for part in before.range.without(after.range)]
        if self.summed.unit is None:
            if removed and not self.summed.can_subtract:
                return None
            changes = [(await self.rows(logs, unlike=table), 1) for logs in added]
            changes += [(await self.rows(logs), -1) for logs in removed]
        else:
            found = await self._changes_of_units(before, after, added, removed)
            if found is None:
                return None
            changes = found
        return self.merged(table, changes)

    def merged(self, table: Table, changes: Sequence[tuple[Table, int]]) -> Table:
        """Return the table with the rows of other tables added; they are subtracted if the sign is -1."""
        if not any(of_logs for of_logs, _ in changes):
            return table
        result = dict(table)
        for of_logs, sign in changes:
            for key, numbers in of_logs.items():
                self._add(result, key, numbers, sign)
        result = {key: numbers for key, numbers in result.items() if any(numbers)}
        return table if result == table else result

    async def _changes_of_units(
        self, before: _Logs, after: _Logs, added: Sequence[_Logs], removed: Sequence[_Logs]
    ) -> list[tuple[Table, int]] | None:
        field = self.summed.unit
        assert field is not None  # noqa: S101 - the caller has looked
        unit = log_value(field)
        has_index = field.column in INDEXED_UNITS and field.relation is None
        units: set[Any] = set()
        changes: list[tuple[Table, int]] = []
        for logs, sign in [(logs, 1) for logs in added] + [(logs, -1) for logs in removed]:
            found = await self._distinct(logs, unit if has_index else case((unit.is_not(None), True)))
            if None in found:
                changes.append((await self.rows(logs, unit.is_(None)), sign))
            units |= found - {None}
            if len(units) > MOST_UNITS or (units and not has_index):
                return None
        if units:
            of_these = unit == any_(literal(sorted(units), ARRAY(SQL_TYPES[field.kind])))
            changes += [(await self.rows(before, of_these), -1), (await self.rows(after, of_these), 1)]
        return changes

    async def _distinct(self, logs: _Logs, value: ColumnElement[Any]) -> set[Any]:
        """Return the distinct units of these logs, including null, but at most one more than are useful."""
        conditions = [*self.filters, *self.summed.relevant, *logs.conditions()]
        found = select(value).select_from(LOGS).where(*conditions).distinct().limit(MOST_UNITS + 2)
        return set((await self.connection.execute(found)).scalars())

    def _add(self, table: dict[Key, Numbers], key: Key, numbers: Numbers, sign: int) -> None:
        add_numbers(table, key, numbers, sign, self.summed.least, self.summed.greatest)


def _within(table: Table, wanted: TimeRange) -> Table:
    """Return the rows of the bins that lie in a time range."""
    first, end = (None if moment is None else (moment - EPOCH) // MICROSECOND for moment in (wanted.begin, wanted.end))
    return {
        key: numbers
        for key, numbers in table.items()
        if (first is None or first <= key[-1]) and (end is None or key[-1] < end)
    }


async def limited_table(sums: Sums, summed: Summed, max_rows: int, most: int) -> Table:
    """Compute a sum in its own snapshot, and return its rows.

    Raises BadRequestError, whose message names `max_rows`, if there are more than `most` rows.
    """
    try:
        return await sums.read(lambda snapshot: snapshot.table(summed, most))
    except TooManyRowsError:
        raise too_many_groups(max_rows) from None


async def fetched(connection: AsyncConnection, statement: Select[Any], most: int) -> Sequence[Row[Any]]:
    """Return the rows of a statement, but at most one more than `most`."""
    rows: Sequence[Row[Any]] = (await connection.execute(statement.limit(most + 1))).all()
    return rows


def is_worthwhile(known: TimeRange, wanted: TimeRange) -> bool:
    """Return whether two time ranges differ so little that the sum for one can be computed from the sum for the
    other."""
    if known == wanted:
        return True
    differing = timedelta(0)
    for old, new in ((known.begin, wanted.begin), (known.end, wanted.end)):
        if (old is None) != (new is None):
            return False
        if old is not None and new is not None:
            differing += abs(old - new)
    begin = wanted.begin or datetime.min
    end = wanted.end or datetime.now(UTC).replace(tzinfo=None)
    return differing * WORTHWHILE <= end - begin


def sums_name(summed: Summed, query: Query) -> bytes:
    """Return the name of a sum, without its time range. The order of filters does not matter, because all of them must
    match."""
    parts = (VERSION, summed.name, summed.unit, sorted(map(repr, query.filters)))
    return hashlib.blake2b(repr(parts).encode(), digest_size=32).digest()


def sums_digest(summed: Summed) -> bytes:
    """Return the name of a sum in the database. The name is derived from the SQL, so sums stored before a fix in the
    compiler are not used after it."""
    query, _ = split_time(summed.query)
    asked: Select[Any] = select(literal_column("1")).where(*compile_filters(query, FACTORY_LOGS), *summed.relevant)
    compiled = asked.compile(dialect=postgresql.dialect())  # type: ignore[no-untyped-call]
    parts = (VERSION, summed.name, summed.unit, str(compiled), sorted(compiled.params.items()))
    return hashlib.sha256(repr(parts).encode()).digest()


def encode(known: KnownSums) -> bytes:
    """Return sums in the format of the database."""
    rows = encoded_rows(known.table or {})
    # Not orjson, which does not support integers beyond 64 bits.
    content = [known.range.begin, known.range.end, rows, known.seconds]
    text = json.dumps(content, default=str, separators=(",", ":"))
    return zlib.compress(text.encode(), 1)


def decode(stored: Known) -> KnownSums:
    begin, end, rows, seconds = json.loads(zlib.decompress(stored.content or b""))
    moments = [None if text is None else datetime.fromisoformat(text) for text in (begin, end)]
    return KnownSums(stored.state, stored.up_to, TimeRange(*moments), decoded_rows(rows), seconds)
