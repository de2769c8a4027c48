"""All that a query selects, as text, in constant memory: a server-side cursor, read as fast as the text is taken."""

from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from enum import Enum

from factory_logs.db.engine import Database, translate_errors
from factory_logs.db.record_text import csv_header, csv_rows, ndjson_rows
from factory_logs.errors import DatabaseUnavailableError, OverloadedError
from factory_logs.query import Query, Resource, compile_rows
from factory_logs.settings import Settings

FETCH_ROWS = 250
"""A record may have 256 KiB, so this bounds what one export holds; of usual ones it makes a part of 100 kB."""
BUSY_SECONDS = 5


class ExportFormat(Enum):
    """How records are written; the value is the media type."""

    NDJSON = "application/x-ndjson"
    CSV = "text/csv"


class Exports:
    """The exports of one worker, a bounded number at a time: each holds a database connection while it lasts."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._most = settings.max_exports
        self._running = 0

    async def parts(self, query: Query, resource: Resource, export_format: ExportFormat) -> AsyncGenerator[str]:
        """The export in parts of many lines, as of one moment.

        The first part comes when PostgreSQL has the first rows. `statement_timeout_seconds` is for each part, so an
        export may take as long as its reader does. Raises OverloadedError, DatabaseUnavailableError.
        """
        if self._running >= self._most:
            raise OverloadedError("Too many exports run already; try again when one has ended", BUSY_SECONDS)
        self._running += 1
        try:
            async with aclosing(exported(self._database, query, resource, export_format)) as parts:
                async for part in parts:
                    yield part
        finally:
            self._running -= 1


async def exported(
    database: Database, query: Query, resource: Resource, export_format: ExportFormat
) -> AsyncGenerator[str]:
    """See `Exports.parts`; there is no bound but the pool's."""
    is_csv = export_format is ExportFormat.CSV
    head = csv_header(resource.table) if is_csv else ""
    rows = (csv_rows if is_csv else ndjson_rows)(compile_rows(query, resource), resource.table)
    # Around each wait by itself: what lies between them is up to the reader, and may be another task.
    async with database.answering():
        connection = await database.engine.connect()
    try:
        async with database.answering():
            found = await connection.stream(rows, execution_options={"yield_per": FETCH_ROWS})
        partitions = found.scalars().partitions()
        while True:
            async with database.answering():
                some = await anext(partitions, None)
            if some is None:
                break
            yield head + "".join(some)
            head = ""
    finally:
        with suppress(DatabaseUnavailableError), translate_errors():  # lost: whoever waited for it knows already
            await connection.close()
    if head:
        yield head
