"""Export all records of a query as text in constant memory, with a server-side cursor that is read as fast as the
client reads.

A Citus cluster would store the whole result on the coordinator before the cursor returned its first row. So on a
cluster, records are read page by page; each page starts after the last record of the previous page. The export contains
the records that exist when it begins, but it does not read a single snapshot. A cluster uses a cursor only for
`group_by`, and for an order that no index supports.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from enum import Enum
from functools import partial

from factory_logs.db.engine import Database, Pool
from factory_logs.db.errors import translate_errors
from factory_logs.db.json_and_csv import csv_header, csv_rows, ndjson_rows
from factory_logs.db.records import RecordRepository
from factory_logs.errors import DatabaseUnavailableError, OverloadedError
from factory_logs.metrics import EXPORTS, EXPORTS_REFUSED
from factory_logs.querier.pages import read_all
from factory_logs.query import Query, Resource, compile_rows, has_indexed_order
from factory_logs.settings import Settings

FETCH_ROWS = 250
"""The number of records in a part. It limits the memory of one export, because a record may have 256 KiB. A part of
ordinary records has 100 kB."""
RETRY_AFTER_SECONDS = 5


class ExportFormat(Enum):
    """The formats of an export. The value of a member is the media type."""

    NDJSON = "application/x-ndjson"
    CSV = "text/csv"


class Exports:
    """Runs exports. It limits how many run at once in a worker, because each holds a database connection while it
    runs."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._most = settings.max_exports
        self._running = 0

    async def parts(
        self, query: Query, resource: Resource, export_format: ExportFormat, *, escape_formulas: bool = False
    ) -> AsyncGenerator[str]:
        """Yield the export in parts of many lines, all from one snapshot.

        The first part is yielded when PostgreSQL returns its first rows. `statement_timeout_seconds` applies to each
        part, not to the whole export, whose duration depends on how fast its client reads. Raises OverloadedError,
        DatabaseUnavailableError.
        """
        if self._running >= self._most:
            EXPORTS_REFUSED.inc()
            raise OverloadedError("Too many exports are running; try again when one has ended", RETRY_AFTER_SECONDS)
        self._running += 1
        EXPORTS.inc()
        try:
            exporting = exported(self._database, query, resource, export_format, escape_formulas=escape_formulas)
            async with aclosing(exporting) as parts:
                async for part in parts:
                    yield part
        finally:
            self._running -= 1
            EXPORTS.dec()


async def exported(
    database: Database,
    query: Query,
    resource: Resource,
    export_format: ExportFormat,
    *,
    escape_formulas: bool = False,
) -> AsyncGenerator[str]:
    """Yield the parts of an export as `Exports.parts` does, but without a limit on concurrent exports.

    `escape_formulas` puts an apostrophe before text in CSV that a spreadsheet would run as a formula.
    """
    is_csv = export_format is ExportFormat.CSV
    head = csv_header(resource.table) if is_csv else ""
    write = partial(csv_rows, escape_formulas=escape_formulas) if is_csv else ndjson_rows
    if database.is_distributed and not query.group_by and has_indexed_order(query, resource):
        records = RecordRepository(database, resource.table)
        async with aclosing(read_all(records, query, resource, FETCH_ROWS, write)) as parts:
            async for part in parts:
                yield head + "".join(part)
                head = ""
        if head:
            yield head
        return
    rows = write(compile_rows(query, resource), resource.table)
    # Held only while waiting for rows: in between, the client reads, possibly in another task.
    async with database.available():
        connection = await database.engines[Pool.READING].connect()
    try:
        async with database.available():
            found = await connection.stream(rows, execution_options={"yield_per": FETCH_ROWS})
        partitions = found.scalars().partitions()
        while True:
            async with database.available():
                some = await anext(partitions, None)
            if some is None:
                break
            yield head + "".join(some)
            head = ""
    finally:
        with suppress(DatabaseUnavailableError), translate_errors():  # the lost connection has already caused an error
            await connection.close()
    if head:
        yield head
