"""One page of a query, with how many records there are in all, as of one moment."""

from itertools import count as numbers

from factory_logs.db.records import RecordRepository
from factory_logs.query import Query, Resource, compile_rows
from factory_logs.reading.counts import LogCounts, plain_count


async def read_page(
    records: RecordRepository, counts: LogCounts | None, query: Query, resource: Resource, offset: int, size: int
) -> tuple[int, str]:
    """`num_results`, and the JSON text of the records with commas between them.

    `counts` knows the logs; of other resources all that the query selects is counted. Raises DatabaseUnavailableError.
    """
    rows = compile_rows(query, resource)
    async with records.connect() as connection:
        for attempt in numbers():
            count = plain_count(query, resource) if counts is None else await counts.prepare(connection, query, attempt)
            counted, objects = await records.page(connection, rows, count.statement, offset, size)
            total = count.total(counted)
            if total is not None:
                return total, objects
    raise AssertionError("a plain count always holds")
