"""Count `num_results` exactly, while reading only the newer logs (docs/reference/http-api.md#pages).

The count of the logs up to the watermark is cached (querier/result_cache.py). The statement for a page counts the
newer logs, so that a page takes one round trip and reads one snapshot.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Select

from factory_logs.db import count_cache
from factory_logs.db.citus import is_distributed
from factory_logs.db.count_cache import Counted, Known, TableState
from factory_logs.db.prepared_statements import Placeholder, PreparedStatement, PreparedStatements
from factory_logs.querier.result_cache import ResultCache
from factory_logs.query import (
    FACTORY_LOGS,
    Query,
    Resource,
    compile_count,
    compile_filters,
    with_placeholders,
)
from factory_logs.settings import Settings

MAX_ATTEMPTS = 2
"""The maximum number of attempts, because a cached count may become invalid each time retention removes logs."""


class OnTop(NamedTuple):
    """Count only logs newer than `known`. Then the count up to `watermark` is known."""

    known: int
    watermark: int
    lowest: int
    """No log that the query selects has a lower id than this.

    PostgreSQL does not know that ids and times rise together. Without this bound, a scan by id for today's logs would
    read all older logs first.
    """
    logs: int
    """The cached count."""

    @property
    def end(self) -> int:
        """The higher of the two watermarks, because another worker may have stored a count with a newer watermark."""
        return max(self.known, self.watermark)


class Count(Protocol):
    """A way to count the records that a query selects: a statement that returns one row, and the meaning of that row.

    The statement can be part of another statement, so that both read the same snapshot.
    """

    @property
    def on_top(self) -> OnTop | None:
        """The cached count that the statement adds to, or None if it counts all records."""

    @property
    def statement(self) -> Select[Any]: ...

    @property
    def alone(self) -> Select[Any]:
        """The statement without the columns for the state of the table. If `on_top` is set, these come first in a
        row."""

    def total(self, row: Sequence[Any], *, up_to_watermark: bool = False) -> int | None:
        """Return the number of records, or None if the cached count has become invalid; in that case, prepare another
        attempt.

        With `up_to_watermark`, count only ids up to `on_top.end`.
        """


@dataclass(frozen=True, slots=True)
class PlainCount:
    """Counts all records that the query selects."""

    query: Query
    resource: Resource
    on_top: None = None

    @property
    def statement(self) -> Select[Any]:
        return compile_count(self.query, self.resource)

    @property
    def alone(self) -> Select[Any]:
        return self.statement

    def total(self, row: Sequence[Any], *, up_to_watermark: bool = False) -> int:
        return int(row[0])


class LogCounts:
    """Caches the counts of filters in a worker, and adds newer logs to them."""

    def __init__(self, known: ResultCache, settings: Settings) -> None:
        self._results = known
        self._statements = PreparedStatements(known.database.engine.dialect, settings.max_query_shapes)

    async def prepare(self, query: Query, attempt: int = 0) -> Count:
        """Return the cheapest way to count the records of `query`, for a snapshot that begins after this call.

        If the count becomes invalid, call this again with the next `attempt`; after MAX_ATTEMPTS the count is always
        valid. This method takes a connection from the pool, so callers must not hold one (deadlock). Raises
        DatabaseUnavailableError.
        """
        await self._results.look()
        if query.group_by or attempt >= MAX_ATTEMPTS:
            return PlainCount(query, FACTORY_LOGS)
        name = _name(query)
        known = self._results.get(name)
        if known is None and query.limit is None:  # a limit bounds the cost of a plain count
            known = await self._find(name, Query(query.filters))
        if not isinstance(known, Known):
            return PlainCount(query, FACTORY_LOGS)
        on_top = OnTop(known.up_to, self._results.watermark, known.lowest, known.logs)
        return _CountOnTop(self._results, name, query, known, on_top, self._results.seen)

    async def wait_for_watermark(self) -> int | None:
        """See `ResultCache.wait_for_watermark`."""
        return await self._results.wait_for_watermark()

    async def _find(self, name: bytes, query: Query) -> Known | None:
        """Return the cached count of a query that has only filters; if the count is not known, count now. Return None
        if there is no watermark."""
        watermark, seen = self._results.watermark, self._results.seen
        started = time.monotonic()
        template, values = with_placeholders(query)
        digest = count_cache.digest(self._matching(template), values)
        async with self._results.database.connect_reader() as connection:
            known = await count_cache.load(connection, digest)
            counted = None
            if watermark:
                raw = (await connection.get_raw_connection()).driver_connection
                statement = self._counting(template, len(values), known is not None, is_distributed(raw))
                counted = await count_cache.count(raw, statement, [*values, watermark, known and known.up_to])
        if counted is not None:
            found = _advanced(known, counted, watermark, seen)
            if found is not None and time.monotonic() - started >= self._results.save_seconds:
                self._results.save(digest, found)
            known = found or known
        if known is not None:
            self._results.learn(name, known)
        return known

    def _matching(self, template: Query) -> PreparedStatement:
        def build() -> Select[int]:
            return count_cache.matching(compile_filters(template, FACTORY_LOGS))

        return self._statements.get(template, build)

    def _counting(self, template: Query, values: int, is_known: bool, on_cluster: bool) -> PreparedStatement:
        """Return the statement for `count_cache.count`, with placeholders after the values for the watermark and for
        the id up to which the count is known."""

        def build() -> Select[Any]:
            counting = count_cache.counting_alone if on_cluster else count_cache.counting
            known = Placeholder(values + 1) if is_known else None
            return counting(compile_filters(template, FACTORY_LOGS), Placeholder(values), known)

        return self._statements.get((template, is_known, on_cluster), build)


@dataclass(frozen=True, slots=True)
class _CountOnTop:
    """Counts the logs that are newer than the cached count of the filter."""

    results: ResultCache
    name: bytes
    query: Query
    known: Known
    on_top: OnTop
    seen: TableState

    @property
    def statement(self) -> Select[Any]:
        conditions = compile_filters(self.query, FACTORY_LOGS)
        return count_cache.counting(conditions, self.on_top.watermark, self.on_top.known)

    @property
    def alone(self) -> Select[Any]:
        conditions = compile_filters(self.query, FACTORY_LOGS)
        return count_cache.counting_alone(conditions, self.on_top.watermark, self.on_top.known)

    def total(self, row: Sequence[Any], *, up_to_watermark: bool = False) -> int | None:
        counted = Counted.of(row)
        if counted.state != self.known.state:
            self.results.forget(self.name)
            return None
        found = _advanced(self.known, counted, self.on_top.watermark, self.seen)
        if found is not None:
            self.results.learn(self.name, found)
        newer = counted.up_to_watermark if up_to_watermark else counted.logs
        left = max(0, self.known.logs + newer - (self.query.offset or 0))
        return left if self.query.limit is None else min(left, self.query.limit)


def _advanced(known: Known | None, counted: Counted, watermark: int, seen: TableState) -> Known | None:
    """Return the cached count including the newly counted logs, or None if the state of the table has changed since."""
    if not counted.state.same_table(seen):
        return None
    if known is None:
        if counted.state.removed != seen.removed:  # on a cluster, logs may have been removed while they were counted
            return None
        return Known(counted.state, watermark, counted.up_to_watermark, counted.lowest)
    if counted.state != known.state or watermark <= known.up_to:
        return None
    lowest = known.lowest if known.logs else counted.lowest
    return Known(counted.state, watermark, known.logs + counted.up_to_watermark, lowest)


def _name(query: Query) -> bytes:
    """Return the name under which a count is cached. The order of filters does not matter, because all of them must
    match."""
    return hashlib.blake2b(repr(sorted(map(repr, query.filters))).encode(), digest_size=32).digest()
