"""Read a result page by page, by number or by cursor (docs/reference/http-api.md#pages).

Pages by number are the most frequent reads, so queries that differ only in their values share a prepared statement
(docs/explanation/reading.md). `python -m benchmarks.reads --only pages` measures the effect. A page and the number of
all records are read in one snapshot.

In a traversal by cursor, each page takes the same time. The traversal returns the records that exist when it begins:
its cursor contains the newest id of that time, and records with newer ids are skipped. So a traversal ends even if many
logs are stored during it, and returns each record exactly once. It begins when the transactions that have already drawn
an id have ended. If such a transaction takes too long, the traversal returns the transaction's logs once or not at all,
and the count does not include them.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import count as numbers
from typing import Any

import asyncpg
from sqlalchemy import Select

from factory_logs.db.citus import is_distributed
from factory_logs.db.connection_pool import PageConnections, Planning
from factory_logs.db.count_cache import counting, counting_alone, state_sql
from factory_logs.db.engine import Database
from factory_logs.db.json_and_csv import json_rows
from factory_logs.db.prepared_statements import Placeholder, PreparedStatements
from factory_logs.db.records import RecordRepository, RowsAsText, one_page, page_records
from factory_logs.errors import BadRequestError
from factory_logs.querier.counts import Count, LogCounts, OnTop, PlainCount
from factory_logs.query import (
    FACTORY_LOGS,
    Compare,
    Field,
    Kind,
    Operator,
    Query,
    Resource,
    compile_after,
    compile_count,
    compile_filters,
    compile_keys,
    compile_rows,
    with_placeholders,
)
from factory_logs.settings import Settings

LARGEST_OFFSET = 2**62
"""The largest offset that is sent to PostgreSQL; it fits in a bigint. A larger offset is after the last record too."""
PINNING = frozenset(("factory_log_id", "product_imei", "repair_id"))
"""Columns in which each value occurs in few logs, which an index finds."""
FEW_LOGS = 5_000
"""The number of logs that can be read and sorted in milliseconds, even if one value occurs in more logs than others."""

Number = int | Placeholder


class Pages:
    """Reads pages of logs and other records. Each read takes its own connections, so callers must not hold one
    (deadlock)."""

    def __init__(self, database: Database, counts: LogCounts, settings: Settings) -> None:
        self._counts = counts
        self._connections = PageConnections(database, settings)
        self._statements = PreparedStatements(database.engine.dialect, settings.max_query_shapes)

    async def read(self, query: Query, resource: Resource, offset: int, size: int) -> tuple[int, str]:
        """Return `num_results`, and the JSON text of the records, separated by commas.

        Raises DatabaseUnavailableError.
        """
        template, values = with_placeholders(query)
        values += (min(offset, LARGEST_OFFSET), size)
        async for count in attempts(self._counts if resource is FACTORY_LOGS else None, query, resource):
            on_top = count.on_top
            async with self._connections.connect(planning(query, on_top)) as connection:
                read = self._read_separately if is_distributed(connection) else self._read_together
                counted, objects = await read(connection, template, resource, values, on_top)
            total = count.total(counted)
            if total is not None:
                return total, objects or ""
        raise AssertionError("the last attempt counts anew")

    async def _read_together(
        self,
        connection: asyncpg.Connection,
        template: Query,
        resource: Resource,
        values: list[Any],
        on_top: OnTop | None,
    ) -> tuple[Sequence[Any], str | None]:
        """Return the row of the count, and the records, with one statement."""
        build = partial(page_with_placeholders, template, resource, len(values), on_top is not None)
        statement = self._statements.get((resource.table.name, on_top is not None, template), build)
        bound = statement.bind(values if on_top is None else [*values, *on_top])
        # Not fetchrow(), which prevents parallel plans.
        ((*counted, objects),) = await connection.fetch(statement.sql, *bound)
        return counted, objects

    async def _read_separately(
        self,
        connection: asyncpg.Connection,
        template: Query,
        resource: Resource,
        values: list[Any],
        on_top: OnTop | None,
    ) -> tuple[Sequence[Any], str]:
        """Return the result of `_read_together` from a Citus cluster, with one statement each for the count, the state
        of the table and the records, in this order (db/count_cache.py). A single statement would take 3 times the
        processor time."""
        name = (resource.table.name, on_top is not None, template)
        bound = values if on_top is None else [*values, *on_top]
        build = partial(count_with_placeholders, template, resource, len(values), on_top is not None)
        count = self._statements.get(("count", *name), build)
        ((*counted,),) = await connection.fetch(count.sql, *count.bind(bound))
        if on_top is not None:
            counted = [*await connection.fetchrow(state_sql(is_distributed=True)), *counted]
        build = partial(records_with_placeholders, template, resource, len(values), on_top is not None)
        records = self._statements.get(("records", *name), build)
        found = await connection.fetch(records.sql, *records.bind(bound))
        return counted, ",".join(text for (text,) in found)

    def close(self) -> None:
        self._connections.close()


def page_with_placeholders(template: Query, resource: Resource, values: int, is_on_top: bool) -> Select[Any]:
    """Return the `compile_page` of a query with placeholders for `values` values; the last two are the offset and the
    size."""
    on_top = _on_top_with_placeholders(values) if is_on_top else None
    return compile_page(template, resource, Placeholder(values - 2), Placeholder(values - 1), on_top)


def count_with_placeholders(template: Query, resource: Resource, values: int, is_on_top: bool) -> Select[Any]:
    """Return the count of `page_with_placeholders`, without the state of the table."""
    if not is_on_top:
        return compile_count(template, resource)
    on_top = _on_top_with_placeholders(values)
    return counting_alone(compile_filters(template, resource), on_top.watermark, on_top.known)


def records_with_placeholders(template: Query, resource: Resource, values: int, is_on_top: bool) -> Select[Any]:
    """Return the records of `page_with_placeholders`, each in a row."""
    lowest = _on_top_with_placeholders(values).lowest if is_on_top else None
    rows = compile_rows(template, resource, lowest)
    return page_records(rows, resource.table, Placeholder(values - 2), Placeholder(values - 1))


def _on_top_with_placeholders(values: int) -> OnTop:
    placeholders: list[Any] = [Placeholder(values + number) for number in range(len(OnTop._fields))]
    return OnTop(*placeholders)


def compile_page(query: Query, resource: Resource, offset: Number, size: Number, on_top: OnTop | None) -> Select[Any]:
    """Return a statement for the records (db/records.py) and their count, which may be added to a cached count."""
    rows = compile_rows(query, resource, on_top and on_top.lowest)
    if on_top is None:
        count: Select[Any] = compile_count(query, resource)
    else:
        count = counting(compile_filters(query, resource), on_top.watermark, on_top.known)
    return one_page(rows, count, resource.table, offset, size)


def planning(query: Query, on_top: OnTop | None) -> Planning:
    """Return whether PostgreSQL may plan once: one plan suits all values if an index finds the few logs of each
    value."""
    if on_top is None or on_top.logs > FEW_LOGS or query.group_by:
        return Planning.FOR_THESE_VALUES
    is_pinned = any(
        isinstance(node, Compare) and node.operator is Operator.EQUAL and node.field.column in PINNING
        for node in query.filters
    )
    return Planning.FOR_ANY_VALUES if is_pinned else Planning.FOR_THESE_VALUES


async def attempts(counts: LogCounts | None, query: Query, resource: Resource) -> AsyncIterator[Count]:
    """Yield ways to count; take the next one if a count has become invalid. `counts` is given for logs."""
    for attempt in numbers():
        yield PlainCount(query, resource) if counts is None else await counts.prepare(query, attempt)


@dataclass(frozen=True, slots=True)
class CursorPosition:
    """A position in a traversal: `pages` pages have been read, and `last` is the id of their last record."""

    newest: int
    """The highest id of the traversal."""
    total: int
    """The number of records in the traversal."""
    pages: int
    last: int
    left: int
    """The number of further records that `limit` allows; negative if there is no limit."""


@dataclass(frozen=True, slots=True)
class CursorPage:
    """One page of a traversal. `position` is the position after the page, or None at the end."""

    total: int
    page: int
    objects: str
    position: CursorPosition | None


async def read_cursor_page(
    records: RecordRepository,
    counts: LogCounts | None,
    query: Query,
    resource: Resource,
    position: CursorPosition | None,
    size: int,
) -> CursorPage:
    """Return the first page, or the page after `position`. Raises BadRequestError, DatabaseUnavailableError."""
    if query.group_by or query.single:
        raise BadRequestError(f"A cursor cannot be used with {'groups' if query.group_by else 'a single record'}")
    if position is None:
        position, statements = await _begin(records, counts, query, resource)
    else:
        statements = await _go_on(records, query, resource, position)
    found = await _first(records, statements, size + 1 if position.left < 0 else min(size + 1, position.left))
    more, found = len(found) > size, found[:size]
    objects = ",".join(text for _, text in found)
    page = position.pages + 1
    if not more:
        return CursorPage(position.total, page, objects, None)
    left = position.left - size if position.left >= 0 else position.left
    after = replace(position, pages=page, last=found[-1][0], left=left)
    return CursorPage(position.total, page, objects, after)


async def _begin(
    records: RecordRepository, counts: LogCounts | None, query: Query, resource: Resource
) -> tuple[CursorPosition, list[Select[Any]]]:
    total, newest, lowest = await _count(records, counts, query, resource)
    begun = CursorPosition(newest, total, 0, 0, -1 if query.limit is None else query.limit)
    return begun, [compile_rows(up_to(newest, query, resource), resource, lowest)]


async def _count(
    records: RecordRepository, counts: LogCounts | None, query: Query, resource: Resource
) -> tuple[int, int, int | None]:
    """Return `num_results`, the id at which the traversal ends, and, if it is known, an id below which no record
    matches."""
    watermark = None if counts is None else await counts.wait_for_watermark()
    async for count in attempts(counts, query, resource):
        if watermark is None:
            counted, newest = await records.newest(count.statement, count.alone)
            total = count.total(counted)
        else:
            if count.on_top is None or count.on_top.end < watermark:
                count = PlainCount(up_to(watermark, query, resource), resource)
            newest = watermark if count.on_top is None else count.on_top.end
            counted, _ = await records.newest(count.statement, count.alone)
            total = count.total(counted, up_to_watermark=True)
        if total is not None:
            return total, newest, count.on_top and count.on_top.lowest
    raise AssertionError("the last attempt counts anew")


async def _go_on(
    records: RecordRepository, query: Query, resource: Resource, position: CursorPosition
) -> list[Select[Any]]:
    keys: tuple[Any, ...] = ()
    if query.order_by:
        found = await records.keys(compile_keys(query, resource, position.last))
        if found is None:
            raise BadRequestError("The last record of the previous page has been removed; begin again: ?cursor=")
        keys = found
    return compile_after(up_to(position.newest, query, resource), resource, keys, position.last)


def up_to(newest: int, query: Query, resource: Resource) -> Query:
    old_enough = Compare(Field(resource.primary_key, Kind.INT), Operator.LESS_OR_EQUAL, newest)
    return replace(query, filters=(*query.filters, old_enough))


async def _first(
    records: RecordRepository, statements: list[Select[Any]], size: int, write: RowsAsText = json_rows
) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for statement in statements:
        if len(found) < size:
            found += await records.found(statement.limit(size - len(found)), write)
    return found


async def read_all(
    records: RecordRepository, query: Query, resource: Resource, size: int, write: RowsAsText
) -> AsyncGenerator[list[str]]:
    """Yield all records that exist at the start, formatted by `write`, in parts of 1 to `size` records.

    Raises BadRequestError if the last record of a part is removed before the next part is read.
    """
    newest = await records.newest_id()
    position = CursorPosition(newest, 0, 0, 0, -1 if query.limit is None else query.limit)
    statements = [compile_rows(up_to(newest, query, resource), resource)]
    while True:
        wanted = size if position.left < 0 else min(size, position.left)
        found = await _first(records, statements, wanted, write)
        if found:
            yield [text for _, text in found]
        left = position.left - len(found) if position.left >= 0 else -1
        if len(found) < wanted or left == 0:
            return
        position = replace(position, last=found[-1][0], left=left)
        statements = await _go_on(records, query, resource, position)
