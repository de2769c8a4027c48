"""One page of a query, with how many records there are in all, as of one moment.

Pages are what is asked most, so the SQL of a query's shape is kept and only its values are bound (docs/reading.md).
"""

from collections.abc import AsyncIterator
from functools import partial
from itertools import count as numbers
from typing import Any

from sqlalchemy import Select

from factory_logs.db.counts import counting
from factory_logs.db.engine import Database
from factory_logs.db.page_connections import PageConnections, Planning
from factory_logs.db.records import RecordRepository, one_page
from factory_logs.db.slots import Slot, Statements
from factory_logs.query import (
    FACTORY_LOGS,
    Compare,
    Operator,
    Query,
    Resource,
    compile_count,
    compile_filters,
    compile_rows,
    shape_of,
)
from factory_logs.reading.counts import Count, LogCounts, OnTop, PlainCount
from factory_logs.settings import Settings

LARGEST_OFFSET = 2**62
"""What lies beyond is past the end as well, and fits in a bigint."""
PINNING = frozenset(("factory_log_id", "product_imei", "repair_id"))
"""Columns where one value has few logs and an index that finds them, whatever the value is."""
FEW_LOGS = 5_000
"""So few are read and sorted in milliseconds, should one value have more logs than others."""

Number = int | Slot


class Pages:
    """The pages of one worker. Beside a count they need a connection each, so no caller may hold one."""

    def __init__(self, database: Database, counts: LogCounts, settings: Settings) -> None:
        self._counts = counts
        self._connections = PageConnections(database, settings)
        self._statements = Statements(database.engine.dialect, settings.max_query_shapes)

    async def read(self, query: Query, resource: Resource, offset: int, size: int) -> tuple[int, str]:
        """`num_results`, and the JSON text of the records with commas between them.

        Raises DatabaseUnavailableError.
        """
        shape, values = shape_of(query)
        values += (min(offset, LARGEST_OFFSET), size)
        async for count in attempts(self._counts if resource is FACTORY_LOGS else None, query, resource):
            on_top = count.on_top
            build = partial(page_with_slots, shape, resource, len(values), on_top is not None)
            statement = self._statements.get((resource.table.name, on_top is not None, shape), build)
            bound = statement.bind(values if on_top is None else [*values, *on_top])
            async with self._connections.connect(planning(query, on_top)) as connection:
                # Not fetchrow(), under which PostgreSQL takes no parallel plan.
                ((*counted, objects),) = await connection.fetch(statement.sql, *bound)
            total = count.total(counted)
            if total is not None:
                return total, objects or ""
        raise AssertionError("the last attempt counts anew")

    async def close(self) -> None:
        await self._connections.close()


def page_with_slots(shape: Query, resource: Resource, values: int, is_on_top: bool) -> Select[Any]:
    """The page of a shape with so many values, offset and size being the last two of them; see `compile_page`."""
    slots: list[Any] = [Slot(values + place) for place in range(len(OnTop._fields))]
    on_top = OnTop(*slots) if is_on_top else None
    return compile_page(shape, resource, Slot(values - 2), Slot(values - 1), on_top)


def compile_page(query: Query, resource: Resource, offset: Number, size: Number, on_top: OnTop | None) -> Select[Any]:
    """The count, of all or on top of what is known, and the records (db/records.py)."""
    rows = compile_rows(query, resource, on_top and on_top.lowest)
    if on_top is None:
        count: Select[Any] = compile_count(query, resource)
    else:
        count = counting(compile_filters(query, resource), on_top.settled, on_top.known)
    return one_page(rows, count, resource.table, offset, size)


def planning(query: Query, on_top: OnTop | None) -> Planning:
    """One plan is good for any value where an index finds the few logs of each."""
    if on_top is None or on_top.logs > FEW_LOGS or query.group_by:
        return Planning.FOR_THESE_VALUES
    is_pinned = any(
        isinstance(node, Compare) and node.operator is Operator.EQUAL and node.field.column in PINNING
        for node in query.filters
    )
    return Planning.FOR_ANY_VALUES if is_pinned else Planning.FOR_THESE_VALUES


async def count_records(
    records: RecordRepository, counts: LogCounts | None, query: Query, resource: Resource
) -> tuple[int, int, int | None]:
    """`num_results`, the highest id there is, and one below which nothing matches, if known. See `Pages.read`."""
    async for count in attempts(counts, query, resource):
        counted, newest = await records.newest(count.statement)
        total = count.total(counted)
        if total is not None:
            return total, newest, count.on_top and count.on_top.lowest
    raise AssertionError("the last attempt counts anew")


async def attempts(counts: LogCounts | None, query: Query, resource: Resource) -> AsyncIterator[Count]:
    """Ways to count; where one does not hold comes the next. `counts` knows the logs."""
    for attempt in numbers():
        yield PlainCount(query, resource) if counts is None else await counts.prepare(query, attempt)
