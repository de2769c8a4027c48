"""`factory-logs import`: store the records of files, each record once."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from factory_logs.cli.output import CommandError, check_creator, print_message, reporting_errors
from factory_logs.cli.transfer.input_files import Format

if TYPE_CHECKING:
    from factory_logs.cli.transfer.import_formats import CsvColumns
    from factory_logs.cli.transfer.import_report import ImportReport
    from factory_logs.cli.transfer.influxdb_import import DumpOptions
    from factory_logs.cli.transfer.rejected_file import RejectedFile
    from factory_logs.db.engine import Database
    from factory_logs.ingest.disk_reserve import DiskReserve
    from factory_logs.settings import Settings

DUMPS = (Format.LINE_PROTOCOL, Format.INFLUX_CSV)


class ImportTable(StrEnum):
    """The kind of records in a file."""

    LOGS = "logs"
    REPAIRS = "repairs"


class Importer(Protocol):
    """Imports one file into the database, part by part."""

    async def fingerprint(self) -> bytes:
        """Read the whole file once and return its fingerprint. Raises CommandError."""

    async def run(self, source: bytes, done: Mapping[int, tuple[int, int]], rejected: "RejectedFile | None") -> None:
        """Store the parts that are not in `done`. Raises DatabaseUnavailableError, DiskNearlyFullError,
        CommandError."""


def import_files(
    files: Annotated[
        list[str],
        typer.Argument(help=".ndjson, .jsonl, .json, .csv or .lp, each also .gz or .zst; - is stdin; or an archive."),
    ],
    file_format: Annotated[
        Format | None, typer.Option("--format", help="The format of the files.", show_default="by the file's name")
    ] = None,
    table: Annotated[
        ImportTable, typer.Option(help="The kind of records in the files; repairs must be ndjson, json or csv.")
    ] = ImportTable.LOGS,
    created_by: Annotated[str | None, typer.Option(help="The value of `created_by` of the records.")] = None,
    rejected: Annotated[
        Path | None, typer.Option(help="The file to which all bad records are written, to be corrected and imported.")
    ] = None,
    tag_column: Annotated[
        list[str] | None, typer.Option(help="csv, influx-csv: a column that is a tag; may be repeated.")
    ] = None,
    field_column: Annotated[
        list[str] | None, typer.Option(help="csv: a column that is a field; may be repeated.")
    ] = None,
    precision: Annotated[str, typer.Option(help="lp, influx-csv: the unit of times: ns, us, ms, s, m, h.")] = "ns",
    jobs: Annotated[
        int | None,
        typer.Option(min=1, help="lp, influx-csv: the number of processes.", show_default="one for each core"),
    ] = None,
) -> None:
    """Store the records of files. Good records are stored, and bad records are listed on stderr.

    A file is identified by its content, and each of its records is stored once. If the command was stopped, run it
    again: it continues where it stopped. It stops if the disk of the embedded database is nearly full. `.lp` and
    --format influx-csv are dumps of InfluxDB, --format json is an array.
    """
    with reporting_errors():
        from factory_logs.cli.database import disk_reserve, with_database
        from factory_logs.cli.transfer.influxdb_import import DumpOptions

        other_options = (file_format, created_by, rejected, tag_column, field_column, table is not ImportTable.LOGS)
        archives = [name for name in files if Path(name).is_dir()]
        if archives and any(other_options):
            raise CommandError(f"{archives[0]} is an archive of logs, to which the other options do not apply")
        check_creator(created_by)
        for name in files:
            if rejected is not None and rejected.resolve() == Path(name).resolve():
                raise CommandError(f"{name}: --rejected must be another file")
        columns = _columns(table, tag_column or (), field_column or ())
        options = _Options(
            table, file_format, columns, DumpOptions(precision, tag_column or (), created_by, jobs), rejected
        )

        async def work(database: "Database", settings: "Settings") -> int:
            disk = disk_reserve(database, settings)
            rejections = 0
            for name in files:
                if name in archives:
                    await _import_archive(database, disk, name)
                else:
                    rejections += await _import_records(database, settings, disk, name, options)
            return rejections

        if with_database(work):
            raise typer.Exit(1)


@dataclass(frozen=True, slots=True)
class _Options:
    """The options of one command that apply to each file. `dump` also contains the value of --created-by."""

    table: ImportTable
    file_format: Format | None
    columns: "CsvColumns"
    dump: "DumpOptions"
    rejected: Path | None


def _columns(table: ImportTable, tags: Sequence[str], fields: Sequence[str]) -> "CsvColumns":
    """Return the meaning of the columns of a CSV. Raises CommandError if a tag or a field has the name of a column."""
    from factory_logs.cli.transfer.import_formats import CsvColumns
    from factory_logs.schemas.factory_log import FactoryLogIn
    from factory_logs.schemas.repair import RepairIn

    known = list((FactoryLogIn if table is ImportTable.LOGS else RepairIn).model_fields)
    for name in (*tags, *fields):
        if name in known:
            raise CommandError(f"{name} is a separate column, not a tag or a field")
    return CsvColumns(known, sorted(tags), sorted(fields))


async def _import_records(
    database: "Database", settings: "Settings", disk: "DiskReserve", name: str, options: _Options
) -> int:
    """Store the records of one file, and return the number of bad records. Raises CommandError."""
    from factory_logs.cli.transfer.import_report import ImportProgress, ImportReport
    from factory_logs.cli.transfer.influxdb_import import DumpImport
    from factory_logs.cli.transfer.input_files import input_format, opened
    from factory_logs.cli.transfer.record_import import LogTable, RecordImport, RecordTable, RepairTable
    from factory_logs.schemas.record_limits import RecordLimits

    created_by = options.dump.created_by
    is_dump = input_format(name, options.file_format) in DUMPS
    if is_dump and options.table is not ImportTable.LOGS:
        raise CommandError(f"{name}: a dump of InfluxDB contains logs, not {options.table}")
    with opened(name, options.file_format) as file, ImportProgress() as progress:
        report = ImportReport(file.name, options.table, " lines" if is_dump else "")
        importer: Importer
        if is_dump:
            importer = DumpImport(database, settings, disk, file, options.dump, report, progress)
        else:
            limits = RecordLimits(settings.max_record_bytes, settings.max_nesting)
            is_logs = options.table is ImportTable.LOGS
            records: RecordTable = LogTable(limits, created_by) if is_logs else RepairTable(created_by)
            importer = RecordImport(database, disk, file, records, options.columns, report, progress)
        await _run_import(database, importer, report, options.rejected)
    report.finish(all_are_listed=options.rejected is not None)
    return report.rejected


async def _import_archive(database: "Database", disk: "DiskReserve", name: str) -> None:
    from factory_logs.cli.transfer.archive_import import import_archive
    from factory_logs.cli.transfer.import_report import ImportProgress

    with ImportProgress() as progress:
        stored, before = await import_archive(database, disk, Path(name), progress)
    were = f"; {before} were there already" if before else ""
    typer.echo(f"Imported {stored} logs from {name}{were}")


async def _run_import(
    database: "Database", importer: Importer, report: "ImportReport", rejected_path: Path | None
) -> None:
    """Import one file. If the import is stopped, the disk is nearly full or the database is lost, print how much is
    stored. Raises CommandError."""
    import asyncpg

    from factory_logs.cli.transfer.import_report import DISK_NEARLY_FULL, GOES_ON
    from factory_logs.cli.transfer.rejected_file import RejectedFile
    from factory_logs.db.errors import refusal
    from factory_logs.db.imports import done_parts
    from factory_logs.errors import DatabaseUnavailableError, DiskNearlyFullError

    source: bytes | None = None
    try:
        source = await importer.fingerprint()
        done = await done_parts(database, source)
        report.stored_before = sum(stored for stored, _ in done.values())
        report.rejected_before = sum(rejected for _, rejected in done.values())
        rejected = None if rejected_path is None else RejectedFile(rejected_path, report.name, source)
        await importer.run(source, done, rejected)
    except asyncio.CancelledError:
        await _count_again(database, source, report)
        print_message(f"Stopped. {GOES_ON}; {report.stored_in_all()}")
        raise
    except DatabaseUnavailableError as error:
        raise CommandError(f"{error.message} {GOES_ON}; {report.stored_in_all()}") from None
    except asyncpg.PostgresError as error:
        if refusal(error) is None:
            raise
        await _count_again(database, source, report)
        raise CommandError(
            f"{report.name}: the database refuses a record: {error}\n{GOES_ON}; {report.stored_in_all()}"
        ) from None
    except DiskNearlyFullError:
        await _count_again(database, source, report)
        raise CommandError(f"{DISK_NEARLY_FULL} {GOES_ON}; {report.stored_in_all()}") from None


async def _count_again(database: "Database", source: bytes | None, report: "ImportReport") -> None:
    """Count all stored records again, because running parts may have been stored after the last report."""
    from factory_logs.db.imports import done_parts
    from factory_logs.errors import DatabaseUnavailableError

    if source is None:
        return
    try:
        done = await done_parts(database, source)
    except DatabaseUnavailableError:
        return
    report.stored = sum(stored for stored, _ in done.values()) - report.stored_before
