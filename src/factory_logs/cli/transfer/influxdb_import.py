"""Import InfluxDB's dumps: each point once, even if the command is interrupted and run again.

The lines of a dump are partitioned by series and time (`influxdb.dump.partition`). Several processes merge the lines of
each part to points. Each part is stored in one transaction, together with its row in `imports`.
"""

import asyncio
import csv
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import islice
from multiprocessing import forkserver, get_context
from pathlib import Path

from factory_logs.cli.output import CommandError
from factory_logs.cli.transfer.import_report import ImportProgress, ImportReport
from factory_logs.cli.transfer.input_files import Fingerprint, Format, InputFile, changed
from factory_logs.cli.transfer.rejected_file import RejectedFile
from factory_logs.db.engine import Database
from factory_logs.db.errors import translate_errors
from factory_logs.db.imports import store_part
from factory_logs.db.log_inserts import unknown_repairs
from factory_logs.influxdb.dump.formats import READING_VERSION, LineGroup, csv_line_groups, line_groups
from factory_logs.influxdb.dump.merge import PartMerger, RejectedDumpLine, no_cycles
from factory_logs.influxdb.dump.partition import DumpPart, Partitioner
from factory_logs.influxdb.line_protocol import PRECISIONS
from factory_logs.influxdb.line_reader import LINE_CHARACTERS_PER_RECORD_BYTE
from factory_logs.ingest.disk_reserve import DiskReserve
from factory_logs.processors import usable_cores
from factory_logs.schemas.record_limits import RecordLimits
from factory_logs.settings import Settings


@dataclass(frozen=True, slots=True)
class DumpOptions:
    """The options for a dump. `jobs` is the number of processes that store it; None means one for each core."""

    precision: str = "ns"
    tag_columns: Sequence[str] = ()
    created_by: str | None = None
    jobs: int | None = None


class DumpImport:
    """Imports one dump into the database."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        disk: DiskReserve,
        file: InputFile,
        options: DumpOptions,
        report: ImportReport,
        progress: ImportProgress,
    ) -> None:
        """Prepare the import. Raises CommandError for an unknown precision."""
        if options.precision not in PRECISIONS:
            raise CommandError(f"--precision must be one of {', '.join(PRECISIONS)}")
        self._database = database
        self._settings = settings
        self._disk = disk
        self._file = file
        self._options = options
        self._report = report
        self._progress = progress
        self._max_characters = LINE_CHARACTERS_PER_RECORD_BYTE * settings.max_record_bytes
        # Lines made from CSV contain times in nanoseconds.
        self._unit_ns = 1 if file.format is Format.INFLUX_CSV else PRECISIONS[options.precision]
        self._jobs = options.jobs or usable_cores()
        self._dump_bytes = 0

    async def fingerprint(self) -> bytes:
        """Read the whole dump once. Raises CommandError if it cannot be read to its end."""
        fingerprint = self._new_fingerprint()
        for _ in fingerprint.of(self._chunks("Reading")):
            await asyncio.sleep(0)  # in a thread, so that Ctrl-C works
        self._dump_bytes = fingerprint.size
        return fingerprint.digest()

    def _new_fingerprint(self) -> Fingerprint:
        options = self._options
        reading = f"{self._file.format} {PRECISIONS[options.precision]} {sorted(options.tag_columns)}"
        return Fingerprint(READING_VERSION, reading)

    async def run(self, source: bytes, done: Mapping[int, tuple[int, int]], rejected: RejectedFile | None) -> None:
        """Store the parts that are not in `done`. Raises DatabaseUnavailableError, DiskNearlyFullError,
        CommandError."""
        with tempfile.TemporaryDirectory(prefix="factory-logs-import-") as folder:
            partitioner = Partitioner(Path(folder), self._dump_bytes, done, self._unit_ns)
            if not partitioner.is_done:
                if self._jobs > 1:
                    load_ahead()
                fingerprint = self._new_fingerprint()
                with no_cycles():
                    for group in self._line_groups(fingerprint):
                        partitioner.add(group)
                        await asyncio.sleep(0)  # in a thread, so that Ctrl-C works
                    if fingerprint.digest() != source:
                        raise changed(self._file.name, is_partly_stored=bool(done))
                    missing = partitioner.parts()
                await self._store(source, missing, rejected)
        if rejected is not None:
            rejected.tidy()

    def _line_groups(self, fingerprint: Fingerprint) -> Iterator[LineGroup]:
        chunks = fingerprint.of(self._chunks("Sorting"))
        if self._file.format is not Format.INFLUX_CSV:
            yield from line_groups(chunks, self._max_characters)
            return
        try:
            yield from csv_line_groups(chunks, PRECISIONS[self._options.precision], self._options.tag_columns)
        except csv.Error as error:
            raise CommandError(f"{self._file.name}: {error}") from None

    def _chunks(self, step: str) -> Iterator[bytes]:
        self._progress.begin(f"{step} {self._file.name}", self._file.size)
        return self._file.chunks(self._progress.update)

    async def _store(self, source: bytes, missing: Sequence[DumpPart], rejected: RejectedFile | None) -> None:
        if rejected is not None:
            rejected.check()
        jobs = [
            PartJob(
                self._database.dsn, self._settings, part, source, self._options.created_by, self._unit_ns,
                self._max_characters, rejected,
            )
            for part in missing
        ]  # fmt: skip
        self._progress.begin(f"Storing {self._file.name}", sum(part.lines for part in missing))
        lines = 0
        async for part in stored_parts(jobs, self._jobs, self._disk):
            self._report.add(part.stored, part.rejections)
            lines += part.lines
            self._progress.update(lines, self._report.stored)


# Not fork, because the command holds locks and may have threads.
_CONTEXT = get_context("forkserver")


@dataclass(frozen=True, slots=True)
class PartJob:
    """The task of a process. `dsn` contains the database's password and is never shown."""

    dsn: str = field(repr=False)
    settings: Settings
    part: DumpPart
    source: bytes
    created_by: str | None
    unit_ns: int
    max_characters: int
    rejected: RejectedFile | None


@dataclass(frozen=True, slots=True)
class StoredPart:
    """The logs of a part that this import has stored: none if another import stored the part first."""

    stored: int
    lines: int
    rejections: Sequence[RejectedDumpLine]


async def merge_and_store(job: PartJob) -> StoredPart:
    """Merge and store a part, unless it is already stored. A part may be run again.

    Raises DatabaseUnavailableError, CommandError.
    """
    limits = RecordLimits(job.settings.max_record_bytes, job.settings.max_nesting)
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
                    part.without_repairs(await unknown_repairs(connection, (log.repair_id for log in part.logs)))
                    logs = part.take_columns()
                    rejections = list(merger.rejected_lines(path, part))
                    new = await store_part(
                        connection, job.source, job.part.number, logs, len(rejections), job.created_by
                    )
                    if new and rejections and job.rejected is not None:
                        job.rejected.add(
                            job.part.number, rejections
                        )  # written before the commit, so that a kill loses no bad record
        finally:
            connection.terminate() if connection.is_in_transaction() else await connection.close()
    finally:
        await database.dispose()
    if not new:
        return StoredPart(0, job.part.lines, ())
    return StoredPart(len(logs), job.part.lines, rejections)


def load_ahead() -> None:
    """Import the modules that the processes need. This happens in parallel with other work, and once for all
    processes."""
    _CONTEXT.set_forkserver_preload([__name__])
    forkserver.ensure_running()


async def stored_parts(jobs: Sequence[PartJob], processes: int, disk: DiskReserve) -> AsyncIterator[StoredPart]:
    """Store the parts, with several processes if there is more than one part. Yield each part when it is stored.

    If this is cancelled, or the disk is nearly full, the parts that have begun are still stored. Raises
    DiskNearlyFullError.
    """
    count = min(processes, len(jobs))
    if count <= 1:
        for job in jobs:
            await disk.refuse_if_low_now()
            yield await merge_and_store(job)
        return
    async with _pool(count) as pool:
        loop = asyncio.get_running_loop()
        waiting = iter(jobs)
        await disk.refuse_if_low_now()
        running = {loop.run_in_executor(pool, _in_process, job) for job in islice(waiting, 2 * count)}
        while running:
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for ended in done:
                yield ended.result()
                for job in islice(waiting, 1):
                    await disk.refuse_if_low_now()
                    running.add(loop.run_in_executor(pool, _in_process, job))


@asynccontextmanager
async def _pool(count: int) -> AsyncIterator[ProcessPoolExecutor]:
    pool = ProcessPoolExecutor(count, _CONTEXT, _leave_interrupts_to_the_command)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _leave_interrupts_to_the_command() -> None:
    """Ignore SIGINT: Ctrl-C reaches all processes of a terminal, and only the command handles it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _in_process(job: PartJob) -> StoredPart:
    return asyncio.run(merge_and_store(job))
