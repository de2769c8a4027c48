"""One part of InfluxDB's dump, from its file into the database: what the processes of an import run."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from factory_logs.cli.importing_influx_rejected import RejectedFile
from factory_logs.db.engine import Database, translate_errors
from factory_logs.db.imports import store_part
from factory_logs.db.log_writes import unknown_repairs
from factory_logs.influx.merge import PartMerger, RejectedLine, no_cycles
from factory_logs.influx.spill import Part
from factory_logs.ingest.records import Limits
from factory_logs.settings import Settings


@dataclass(frozen=True, slots=True)
class PartJob:
    """What a process needs to know. `dsn` holds the database's password: it is never shown."""

    dsn: str = field(repr=False)
    settings: Settings
    part: Part
    source: bytes
    created_by: str | None
    unit_ns: int
    max_characters: int
    rejected: RejectedFile | None


@dataclass(frozen=True, slots=True)
class PartOutcome:
    """What became of a part; nothing is counted where another import had stored it meanwhile."""

    stored: int
    rejected: int
    lines: int
    rejections: Sequence[RejectedLine]


async def store_part_of(job: PartJob) -> PartOutcome:
    """Merge and store a part, unless it is stored already. It may be run again.

    Raises DatabaseUnavailableError, CommandError.
    """
    limits = Limits(job.settings.max_record_bytes, job.settings.max_nesting)
    merger = PartMerger(limits, job.unit_ns, job.max_characters)
    path = job.part.path
    with no_cycles():
        part = merger.merge(path)
    database = Database(job.dsn, job.settings)
    try:
        connection = await database.connect_raw()
        try:
            with translate_errors():
                async with connection.transaction():
                    part.without_repairs(await unknown_repairs(connection, part.logs))
                    logs = part.logs
                    rejections = list(merger.rejected_lines(path, part))
                    new = await store_part(
                        connection, job.source, job.part.number, logs, len(rejections), job.created_by
                    )
                    if new and rejections and job.rejected is not None:
                        job.rejected.add(job.part.number, rejections)  # before the commit: a kill loses none
        finally:
            connection.terminate() if connection.is_in_transaction() else await connection.close()
    finally:
        await database.dispose()
    if not new:
        return PartOutcome(0, 0, job.part.lines, ())
    return PartOutcome(len(logs), len(rejections), job.part.lines, rejections)
