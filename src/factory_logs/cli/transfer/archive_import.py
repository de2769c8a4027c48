"""Import an archive. Each log is restored once, with its id and metadata unchanged."""

import asyncio
from itertools import islice
from pathlib import Path

import asyncpg

from factory_logs.cli.output import CommandError
from factory_logs.cli.transfer.import_report import DISK_NEARLY_FULL, GOES_ON, ImportProgress
from factory_logs.db.engine import Database
from factory_logs.db.errors import translate_errors
from factory_logs.db.retention import START, OtherLogError, bring_back
from factory_logs.errors import DiskNearlyFullError
from factory_logs.ingest.disk_reserve import DiskReserve
from factory_logs.retention.archive import open_archive

BATCH_LOGS = 1000


async def import_archive(
    database: Database, disk: DiskReserve, folder: Path, progress: ImportProgress
) -> tuple[int, int]:
    """Store the logs whose ids are missing in the database. Return the number of stored logs, and of logs that already
    exist.

    The whole archive is checked first. Raises CommandError or RetentionError, for example if another log has an id of
    the archive, or if the disk is nearly full.
    """
    archive = open_archive(folder)
    total = archive.manifest.logs
    progress.begin(f"Checking {folder}", total)
    await archive.check(progress.update)
    progress.begin(f"Storing {folder}", total)
    run, done, stored = START, 0, 0
    connection = await database.connect_raw()
    try:
        lines = archive.lines()
        while batch := list(islice(lines, BATCH_LOGS)):
            try:
                await disk.refuse_if_low_now()
                with translate_errors():
                    run = await bring_back(connection, [line for _, line in batch], run)
            except (OtherLogError, asyncpg.DataError, asyncpg.IntegrityConstraintViolationError) as error:
                raise CommandError(
                    f"{batch[0][0]} and the next {len(batch) - 1} logs: {error}; {stored} are stored"
                ) from None
            except DiskNearlyFullError:
                raise CommandError(f"{DISK_NEARLY_FULL} {GOES_ON}; {stored} of {total} logs are stored") from None
            stored += run.logs
            done += len(batch)
            progress.update(done, stored)
            await asyncio.sleep(0)  # in a thread, so that Ctrl-C works
    finally:
        connection.terminate() if connection.is_in_transaction() else await connection.close()
    return stored, done - stored
