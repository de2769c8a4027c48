"""`factory-logs import` of InfluxDB's dumps: each point once, however often the command runs or is cut off (SPEC 8).

A dump is known by its content. It is dealt out into parts (`influx.spill`), and each part is stored in one transaction
with the note that it is. So what is stored is never stored again, and a run that was cut off goes on where it ended.
Parts are merged and stored by several processes.
"""

import asyncio
import gzip
import sys
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from factory_logs.cli.importing_influx_part import PartJob, PartOutcome
from factory_logs.cli.importing_influx_processes import cores, load_ahead, outcomes
from factory_logs.cli.importing_influx_rejected import RejectedFile
from factory_logs.cli.reporting import CommandError, all_in_words, is_terminal, tell
from factory_logs.cli.transfer import Format, InfluxOptions
from factory_logs.db.engine import Database
from factory_logs.db.imports import done_parts
from factory_logs.errors import DatabaseUnavailableError
from factory_logs.influx.csv_dump import csv_stretches
from factory_logs.influx.dump import Fingerprint, Stretch, stretches
from factory_logs.influx.line_protocol import PRECISIONS
from factory_logs.influx.merge import no_cycles
from factory_logs.influx.reading import LINE_CHARACTERS_PER_RECORD_BYTE
from factory_logs.influx.spill import Part, Spill
from factory_logs.settings import Settings

CHUNK_BYTES = 256 * 1024
SHOWN_REJECTIONS = 20
"""So many bad lines are told on stderr; all of them go to the file of --rejected."""


@dataclass(slots=True)
class _Totals:
    stored: int = 0
    rejected: int = 0
    stored_before: int = 0
    rejected_before: int = 0


async def import_dump(
    database: Database,
    settings: Settings,
    name: str,
    file_format: Format,
    created_by: str | None,
    options: InfluxOptions,
) -> bool:
    """Import one dump; whether any line was rejected. Raises CommandError."""
    if options.precision not in PRECISIONS:
        raise CommandError(f"--precision is one of {', '.join(PRECISIONS)}")
    with _readable(name) as path, _progress() as progress:
        importing = _Import(database, settings, path, name, file_format, created_by, options, progress)
        try:
            totals = await importing.run()
        except asyncio.CancelledError:
            tell("Stopped. Run the command again: it goes on where it ended")
            raise
    typer.echo(_summary("stdin" if name == "-" else name, totals))
    return totals.rejected > 0


class _Import:
    """One dump on its way into the database."""

    def __init__(
        self,
        database: Database,
        settings: Settings,
        path: Path,
        name: str,
        file_format: Format,
        created_by: str | None,
        options: InfluxOptions,
        progress: Progress,
    ) -> None:
        self._database = database
        self._settings = settings
        self._path = path
        self._name = "stdin" if name == "-" else name
        self._packed = name.lower().endswith(".gz")
        self._format = file_format
        self._created_by = created_by
        self._options = options
        self._progress = progress
        self._max_characters = LINE_CHARACTERS_PER_RECORD_BYTE * settings.max_record_bytes
        # What is made of CSV has its times in nanoseconds.
        self._unit_ns = 1 if file_format is Format.INFLUX_CSV else PRECISIONS[options.precision]
        self._jobs = options.jobs or cores()
        self._task: TaskID | None = None

    async def run(self) -> _Totals:
        reading = f"{self._format} {PRECISIONS[self._options.precision]} {sorted(self._options.tag_columns)}"
        dump = Fingerprint(reading)
        for chunk in self._chunks("Reading"):
            dump.update(chunk)
            await asyncio.sleep(0)  # lets Ctrl-C through
        source = dump.digest()
        done = await done_parts(self._database, source)
        totals = _Totals(
            stored_before=sum(logs for logs, _ in done.values()),
            rejected_before=sum(rejected for _, rejected in done.values()),
        )
        rejected = RejectedFile(self._options.rejected, self._name, source) if self._options.rejected else None
        with tempfile.TemporaryDirectory(prefix="factory-logs-import-") as folder:
            spill = Spill(Path(folder), dump.size, done, self._unit_ns)
            if not spill.is_done:
                if self._jobs > 1:
                    load_ahead()
                with no_cycles():
                    for stretch in self._stretches():
                        spill.add(stretch)
                        await asyncio.sleep(0)  # lets Ctrl-C through
                    missing = spill.parts()
                await self._store(source, missing, rejected, totals)
        if rejected is not None:
            rejected.tidy()
        return totals

    def _stretches(self) -> Iterator[Stretch]:
        chunks = self._chunks("Sorting")
        if self._format is Format.INFLUX_CSV:
            return csv_stretches(chunks, PRECISIONS[self._options.precision], self._options.tag_columns)
        return stretches(chunks, self._max_characters)

    def _chunks(self, doing: str) -> Iterator[bytes]:
        """The dump's bytes, unpacked. Raises CommandError where it cannot be read to its end."""
        task = self._next_task(doing, self._path.stat().st_size)
        try:
            with self._path.open("rb") as raw, ExitStack() as stack:
                stream = cast(BinaryIO, stack.enter_context(gzip.open(raw))) if self._packed else raw
                while chunk := stream.read(CHUNK_BYTES):
                    yield chunk
                    self._progress.update(task, completed=raw.tell())
        except (gzip.BadGzipFile, zlib.error, EOFError):
            raise CommandError(f"{self._name}: the gzip data is damaged or cut off") from None

    def _next_task(self, doing: str, total: int) -> TaskID:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(f"{doing} {self._name}", total=total, stored=0, rate="")
        return self._task

    async def _store(
        self, source: bytes, missing: Sequence[Part], rejected: RejectedFile | None, totals: _Totals
    ) -> None:
        if rejected is not None:
            rejected.check()
        jobs = [
            PartJob(
                self._database.dsn, self._settings, part, source, self._created_by, self._unit_ns, self._max_characters,
                rejected,
            )
            for part in missing
        ]  # fmt: skip
        task = self._next_task("Storing", sum(part.lines for part in missing))
        shown = 0
        async for outcome in outcomes(jobs, self._jobs):
            shown = self._tell(outcome, shown)
            totals.stored += outcome.stored
            totals.rejected += outcome.rejected
            rate = totals.stored / max(self._progress.tasks[-1].elapsed or 0.0, 0.001)
            self._progress.update(task, advance=outcome.lines, stored=totals.stored, rate=f"{rate:,.0f}/s")
        if totals.rejected > shown and rejected is None:
            tell(f"{self._name}: {totals.rejected - shown} more; --rejected FILE lists all")

    def _tell(self, outcome: PartOutcome, shown: int) -> int:
        told = outcome.rejections[: max(0, SHOWN_REJECTIONS - shown)]
        for line in told:
            tell(f"{self._name}:{line.number}: {all_in_words(line.faults)}")
        return shown + len(told)


@contextmanager
def _readable(name: str) -> Iterator[Path]:
    """The file, which is read twice; stdin is kept in a temporary file for that. Raises CommandError."""
    try:
        if name != "-":
            with open(name, "rb"):
                pass
            yield Path(name)
            return
        with tempfile.NamedTemporaryFile(prefix="factory-logs-import-") as kept:
            while chunk := sys.stdin.buffer.read(CHUNK_BYTES):
                kept.write(chunk)
            kept.flush()
            yield Path(kept.name)
    except DatabaseUnavailableError as error:
        raise CommandError(f"{error.message} Run the command again: it goes on where it ended") from None
    except OSError as error:
        if error.filename is None:
            raise
        raise CommandError(f"{name}: {error.strerror}") from None


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[stored]:,} logs {task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True, highlight=False, markup=False, soft_wrap=True),
        disable=not is_terminal(),
        transient=True,
    )


def _summary(name: str, totals: _Totals) -> str:
    rejected = f", rejected {totals.rejected} lines" if totals.rejected else ""
    before = f"; {totals.stored_before} were imported before" if totals.stored_before or totals.rejected_before else ""
    return f"Imported {totals.stored} logs from {name}{rejected}{before}"
