"""`factory-logs import`: files to rows, a batch of records a commit."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import asyncpg
import orjson
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from factory_logs.cli.database import with_database
from factory_logs.cli.importing_influx import import_dump
from factory_logs.cli.reading import CellError, Source, as_integer, as_number, csv_rows, format_of, json_lines, opened
from factory_logs.cli.reporting import CommandError, in_words, is_terminal, tell
from factory_logs.cli.transfer import Format, InfluxOptions, Kind
from factory_logs.db.engine import Database, translate_errors
from factory_logs.db.log_writes import NewRow, insert_logs
from factory_logs.db.repairs import COLUMNS as REPAIR_COLUMNS
from factory_logs.db.repairs import insert_repairs
from factory_logs.errors import BadRequestError, DatabaseUnavailableError, FieldError
from factory_logs.ingest.group_commit import no_such_repair
from factory_logs.ingest.records import Limits, NewLog, field_errors, parse_log, validate_log
from factory_logs.schemas.factory_log import FactoryLogIn
from factory_logs.schemas.repair import RepairIn
from factory_logs.settings import Settings

DUMPS = (Format.LINE_PROTOCOL, Format.INFLUX_CSV)
BATCH_RECORDS = 1000
BATCH_CHARACTERS = 8 * 1024 * 1024
LARGEST_REPAIR_ID = 2**31 - 1


class Table(Protocol):
    """One way to read records and to store a batch of them."""

    def records(self, source: Source) -> "Iterator[tuple[int, Any | BadRequestError]]":
        """Each record with its line, or what is wrong with it."""

    async def store(self, connection: asyncpg.Connection, batch: Sequence[Any]) -> Sequence[BadRequestError | None]:
        """Store the batch in one commit; for each record None, or why that one is not stored."""


@dataclass(slots=True)
class Count:
    """What became of one file's records; `line` is the last one that is done with."""

    stored: int = 0
    rejected: int = 0
    line: int = 0


@dataclass(frozen=True, slots=True)
class Logs:
    limits: Limits
    created_by: str | None

    def records(self, source: Source) -> Iterator[tuple[int, NewLog | BadRequestError]]:
        if source.format is Format.NDJSON:
            for line, text in json_lines(source):
                try:
                    yield line, parse_log(text, self.limits)
                except BadRequestError as error:
                    yield line, error
            return
        for line, row in csv_rows(source, list(FactoryLogIn.model_fields)):
            if isinstance(row, CellError):
                yield line, _bad_cell(row)
                continue
            for name in ("repair_id", "timestamp"):
                if name in row:
                    row[name] = as_integer(row[name])
            try:
                yield line, validate_log(row, self.limits)
            except BadRequestError as error:
                yield line, error

    async def store(self, connection: asyncpg.Connection, batch: Sequence[NewLog]) -> list[BadRequestError | None]:
        stored = await insert_logs(connection, [NewRow(log, self.created_by) for log in batch])
        return [
            no_such_repair(log.repair_id) if result is None else None for log, result in zip(batch, stored, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Repairs:
    """A repair keeps its `repair_id` where the file has one."""

    created_by: str | None

    def records(self, source: Source) -> Iterator[tuple[int, Mapping[str, Any] | BadRequestError]]:
        for line, row in _objects(source, list(RepairIn.model_fields)):
            if isinstance(row, BadRequestError):
                yield line, row
                continue
            try:
                yield line, valid_repair(row) | {"repair_id": _repair_id(row.get("repair_id"))}
            except BadRequestError as error:
                yield line, error

    async def store(
        self, connection: asyncpg.Connection, batch: Sequence[Mapping[str, Any]]
    ) -> list[BadRequestError | None]:
        faults: list[BadRequestError | None] = [None] * len(batch)
        for place in await insert_repairs(connection, batch, self.created_by):
            fault = FieldError("repair_id", f"there is a repair {batch[place]['repair_id']} already")
            faults[place] = BadRequestError("Validation failed", [fault])
        return faults


def run(
    files: Sequence[str], file_format: Format | None, kind: Kind, created_by: str | None, options: InfluxOptions
) -> bool:
    """Import the files one after the other; whether anything was rejected. Raises CommandError."""
    if created_by is not None and not created_by.isprintable():
        raise CommandError("--created-by must be printable text")

    async def work(database: Database, settings: Settings) -> bool:
        limits = Limits(settings.max_record_bytes, settings.max_nesting)
        table: Table = Logs(limits, created_by) if kind is Kind.LOGS else Repairs(created_by)
        console = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
        rejected = False
        for name in files:
            found = format_of(name, file_format)
            if found in DUMPS:
                if kind is not Kind.LOGS:
                    raise CommandError(f"{name}: a dump of InfluxDB holds logs, no {kind}")
                rejected |= await import_dump(database, settings, name, found, created_by, options)
                continue
            with _progress(console) as progress, opened(name, found) as source:
                task = progress.add_task(source.name, total=source.size, stored=0)
                count = Count()
                await _import_file(database, table, source, count, progress, task)
                typer.echo(_summary(source, kind, count))
                rejected |= count.rejected > 0
        return rejected

    return with_database(work)


async def _import_file(
    database: Database, table: Table, source: Source, count: Count, progress: Progress, task: TaskID
) -> None:
    async with _connection(database) as connection:
        for batch, rejections in _batches(table.records(source)):
            lines, records = [line for line, _ in batch], [record for _, record in batch]
            try:
                with translate_errors():
                    faults = await table.store(connection, records) if batch else []
            except DatabaseUnavailableError as error:
                raise CommandError(
                    f"{error.message} {source.name}: {count.stored} records up to line {count.line} are stored"
                ) from None
            refused = [(line, fault) for line, fault in zip(lines, faults, strict=True) if fault is not None]
            for line, fault in sorted([*rejections, *refused], key=lambda entry: entry[0]):
                _report(source, line, fault)
            count.stored += len(batch) - len(refused)
            count.rejected += len(rejections) + len(refused)
            count.line = max([count.line, *lines, *(line for line, _ in rejections)])
            progress.update(task, completed=source.position(), stored=count.stored)


def _batches(
    records: Iterable[tuple[int, Any | BadRequestError]],
) -> Iterator[tuple[list[tuple[int, Any]], list[tuple[int, BadRequestError]]]]:
    """The good and the bad records of each batch, with their lines."""
    good: list[tuple[int, Any]] = []
    bad: list[tuple[int, BadRequestError]] = []
    size = 0
    for line, record in records:
        if isinstance(record, BadRequestError):
            bad.append((line, record))
        else:
            good.append((line, record))
            size += _size(record)
        if len(good) + len(bad) >= BATCH_RECORDS or size >= BATCH_CHARACTERS:
            yield good, bad
            good, bad, size = [], [], 0
    if good or bad:
        yield good, bad


def _size(record: object) -> int:
    return len(record.tags or "") + len(record.fields or "") if isinstance(record, NewLog) else 0


@asynccontextmanager
async def _connection(database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await database.connect_raw()
    try:
        yield connection
    finally:
        connection.terminate() if connection.is_in_transaction() else await connection.close()


def _report(source: Source, line: int, fault: BadRequestError) -> None:
    for error in fault.errors or (FieldError("", fault.message),):
        tell(f"{source.name}:{line}: {in_words(error)}")


def _summary(source: Source, kind: Kind, count: Count) -> str:
    rejected = f", rejected {count.rejected}" if count.rejected else ""
    return f"Imported {count.stored} {kind} from {source.name}{rejected}"


def _progress(console: Console) -> Progress:
    """Bytes and time left; nothing at all where nobody watches."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TextColumn("{task.fields[stored]} stored"),
        TimeRemainingColumn(),
        console=console,
        disable=not is_terminal(),
        transient=True,
    )


def _objects(source: Source, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any] | BadRequestError]]:
    """Repairs as objects, of either format."""
    if source.format is Format.NDJSON:
        for line, text in json_lines(source):
            try:
                value = orjson.loads(text)
            except orjson.JSONDecodeError as error:
                yield line, BadRequestError(f"Unable to decode data: {error.msg}")
                continue
            yield line, value if isinstance(value, dict) else BadRequestError("expected an object")
        return
    for line, row in csv_rows(source, columns):
        if isinstance(row, CellError):
            yield line, _bad_cell(row)
            continue
        row["repair_id"] = as_integer(row.get("repair_id"))
        row["measured_battery_capacity"] = as_number(row.get("measured_battery_capacity"))
        yield line, row | {name: as_integer(row.get(name)) for name in ("arrival_date", "refurbishment_date")}


def valid_repair(record: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a repair that a client sets. Raises BadRequestError."""
    try:
        repair = RepairIn.model_validate(record)
    except ValidationError as error:
        raise BadRequestError("Validation failed", list(field_errors(error))) from None
    return {name: getattr(repair, name) for name in REPAIR_COLUMNS}


def _repair_id(value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST_REPAIR_ID:
        return value
    raise BadRequestError(
        "Validation failed", [FieldError("repair_id", f"expected an integer from 1 to {LARGEST_REPAIR_ID}")]
    )


def _bad_cell(error: CellError) -> BadRequestError:
    column, message = error.args
    return BadRequestError("Validation failed", [FieldError(column, message)])
