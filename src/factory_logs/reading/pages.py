"""One page of a query, with how many records there are in all, as of one moment."""

from collections.abc import AsyncIterator
from itertools import count as numbers

from sqlalchemy.ext.asyncio import AsyncConnection

from factory_logs.db.records import RecordRepository
from factory_logs.query import Query, Resource, compile_rows
from factory_logs.reading.counts import Count, LogCounts, plain_count


async def read_page(
    records: RecordRepository, counts: LogCounts | None, query: Query, resource: Resource, offset: int, size: int
) -> tuple[int, str]:
    """`num_results`, and the JSON text of the records with commas between them.

    `counts` knows the logs; of other resources all that the query selects is counted. Raises DatabaseUnavailableError.
    """
    async with records.connect() as connection:
        async for count in _attempts(connection, counts, query, resource):
            rows = compile_rows(query, resource, count.lowest)
            counted, objects = await records.page(connection, rows, count.statement, offset, size)
            total = count.total(counted)
            if total is not None:
                return total, objects
    raise AssertionError("the last attempt counts anew")


async def count_records(
    records: RecordRepository, counts: LogCounts | None, query: Query, resource: Resource
) -> tuple[int, int, int | None]:
    """`num_results`, the highest id there is, and one below which nothing matches, if known. See `read_page`."""
    async with records.connect() as connection:
        async for count in _attempts(connection, counts, query, resource):
            counted, newest = await records.newest(connection, count.statement)
            total = count.total(counted)
            if total is not None:
                return total, newest, count.lowest
    raise AssertionError("the last attempt counts anew")


async def _attempts(
    connection: AsyncConnection, counts: LogCounts | None, query: Query, resource: Resource
) -> AsyncIterator[Count]:
    """Ways to count; where one does not hold comes the next."""
    for attempt in numbers():
        yield plain_count(query, resource) if counts is None else await counts.prepare(connection, query, attempt)
