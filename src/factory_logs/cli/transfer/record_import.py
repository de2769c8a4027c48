"""Import records, logs or repairs, from NDJSON, JSON and CSV.

A file is divided into parts of consecutive records. Each part is stored in one transaction together with its row in
`imports`. So a part is stored once, even if the command is interrupted and run again.
"""

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

import asyncpg
from pydantic import ValidationError

from factory_logs.cli.transfer.import_formats import CsvColumns, FileRecord, JsonRecord, records
from factory_logs.cli.transfer.import_report import ImportProgress, ImportReport
from factory_logs.cli.transfer.input_files import Fingerprint, Format, InputFile, changed
from factory_logs.cli.transfer.rejected_file import RejectedFile, RejectedRecord
from factory_logs.db.engine import Database
from factory_logs.db.errors import translate_errors
from factory_logs.db.imports import claim_part, store_part
from factory_logs.db.log_inserts import unknown_repairs
from factory_logs.db.repairs import COLUMNS as REPAIR_COLUMNS
from factory_logs.db.repairs import insert_repairs
from factory_logs.errors import BadRequestError, FieldError
from factory_logs.ingest.disk_reserve import DiskReserve
from factory_logs.ingest.group_commit import no_such_repair
from factory_logs.ingest.new_logs import NewLogs
from factory_logs.ingest.validation import NewLog, field_errors, parse_log, validate_log
from factory_logs.schemas.record_limits import RecordLimits
from factory_logs.schemas.repair import RepairIn

PART_RECORDS = 1000
PART_BYTES = 8 * 1024 * 1024
READING_VERSION = b"records 1"
"""A part of each fingerprint. Change it if files are divided into parts in a different way."""
LARGEST_REPAIR_ID = 2**31 - 1
_INTEGER = re.compile(r"-?[0-9]{1,18}", re.ASCII)

T = TypeVar("T")


class RecordPart(NamedTuple):
    """Consecutive records of a file."""

    number: int
    records: Sequence[FileRecord]

    def digest(self) -> bytes:
        """Return a digest of all that the records are read from."""
        digest = hashlib.blake2b(digest_size=16)
        for record in self.records:
            digest.update(b"%d " % len(record.raw))
            digest.update(record.raw)
        return digest.digest()


class RecordTable(Protocol):
    """Validates and stores the records of one table."""

    async def store(
        self, connection: asyncpg.Connection, source: bytes, part: RecordPart
    ) -> list[BadRequestError | None] | None:
        """Store the good records inside the caller's transaction.

        Return None or the error for each record; return None if the whole part is already stored.
        """


@dataclass(frozen=True, slots=True)
class LogTable:
    """Validates and stores logs in the table `factory_logs`."""

    limits: RecordLimits
    created_by: str | None

    async def store(
        self, connection: asyncpg.Connection, source: bytes, part: RecordPart
    ) -> list[BadRequestError | None] | None:
        parsed = [_parsed(self._log, record) for record in part.records]
        unknown = await unknown_repairs(connection, (log.repair_id for log in parsed if isinstance(log, NewLog)))
        parsed = [
            no_such_repair(log.repair_id) if isinstance(log, NewLog) and log.repair_id in unknown else log
            for log in parsed
        ]
        logs = NewLogs.of([log for log in parsed if isinstance(log, NewLog)])
        bad = len(parsed) - len(logs)
        if not await store_part(connection, source, part.number, logs, bad, self.created_by):
            return None
        return [log if isinstance(log, BadRequestError) else None for log in parsed]

    def _log(self, record: FileRecord) -> NewLog:
        if isinstance(record, JsonRecord):
            record.check()
            return parse_log(record.json, self.limits)
        row = record.as_object()
        return validate_log(row | _as(_integer, row, "repair_id", "timestamp"), self.limits)


@dataclass(frozen=True, slots=True)
class RepairTable:
    """Validates and stores repairs in the table `repairs`. A record keeps its `repair_id` from the file."""

    created_by: str | None

    async def store(
        self, connection: asyncpg.Connection, source: bytes, part: RecordPart
    ) -> list[BadRequestError | None] | None:
        parsed = [_parsed(self._repair, record) for record in part.records]
        errors = [repair if isinstance(repair, BadRequestError) else None for repair in parsed]
        good = [index for index, error in enumerate(errors) if error is None]
        repairs: list[Any] = [parsed[index] for index in good]
        for taken in await insert_repairs(connection, repairs, self.created_by):
            error = FieldError("repair_id", f"the repair {repairs[taken]['repair_id']} already exists")
            errors[good[taken]] = BadRequestError("Validation failed", [error])
        bad = sum(error is not None for error in errors)
        if not await claim_part(connection, source, part.number, len(errors) - bad, bad):
            return None
        return errors

    def _repair(self, record: FileRecord) -> dict[str, Any]:
        row = record.as_object()
        if not isinstance(record, JsonRecord):
            row |= _as(_integer, row, "repair_id", "arrival_date", "refurbishment_date")
            row |= _as(_number, row, "measured_battery_capacity")
        return valid_repair(row) | {"repair_id": _repair_id(row.get("repair_id"))}


class RecordImport:
    """Imports one file of records into the database."""

    def __init__(
        self,
        database: Database,
        disk: DiskReserve,
        file: InputFile,
        table: RecordTable,
        columns: CsvColumns,
        report: ImportReport,
        progress: ImportProgress,
    ) -> None:
        self._database = database
        self._disk = disk
        self._file = file
        self._table = table
        self._columns = columns
        self._report = report
        self._progress = progress
        self._digests: list[bytes] = []
        """The digest of each part at the first read, so that no other records are stored under this fingerprint."""

    async def fingerprint(self) -> bytes:
        """Read the whole file once. Raises CommandError if it cannot be read to its end, before anything is stored."""
        columns = "" if self._file.format is not Format.CSV else f" {self._columns.tags} {self._columns.fields}"
        fingerprint = Fingerprint(READING_VERSION, f"{self._report.noun} {self._file.format}{columns}")
        self._progress.begin(f"Reading {self._file.name}", self._file.size)
        for part in _parts(self._records(fingerprint)):
            self._digests.append(part.digest())
            await asyncio.sleep(0)  # in a thread, so that Ctrl-C works
        return fingerprint.digest()

    async def run(self, source: bytes, done: Mapping[int, tuple[int, int]], rejected: RejectedFile | None) -> None:
        """Store the parts that are not in `done`. Raises DatabaseUnavailableError, DiskNearlyFullError,
        CommandError."""
        if rejected is not None:
            rejected.check()
        self._progress.begin(f"Storing {self._file.name}", self._file.size)
        async with _connection(self._database) as connection:
            number = 0
            for number, part in enumerate(_parts(self._records()), 1):
                if self._digests[part.number : number] != [part.digest()]:
                    raise changed(self._file.name, is_partly_stored=bool(done) or part.number > 0)
                if part.number not in done:
                    await self._disk.refuse_if_low_now()
                    await self._store(connection, source, part, rejected)
                await asyncio.sleep(0)
        if number != len(self._digests):
            raise changed(self._file.name, is_partly_stored=bool(done) or number > 0)
        if rejected is not None:
            rejected.tidy()

    async def _store(
        self, connection: asyncpg.Connection, source: bytes, part: RecordPart, rejected: RejectedFile | None
    ) -> None:
        with translate_errors():
            transaction = connection.transaction()
            await transaction.start()
            errors = await self._table.store(connection, source, part)
            if errors is None:  # another command that is running has stored the part
                await transaction.rollback()
                return
            rejections = [
                RejectedRecord(record.number, record.context, record.text, _field_errors(error))
                for record, error in zip(part.records, errors, strict=True)
                if error is not None
            ]
            if rejections and rejected is not None:
                rejected.add(part.number, rejections)  # written before the commit, so that a kill loses no bad record
            await _whole(transaction.commit())
        self._report.add(len(errors) - len(rejections), rejections)

    def _records(self, fingerprint: Fingerprint | None = None) -> Iterator[FileRecord]:
        chunks = self._file.chunks(lambda position: self._progress.update(position, self._report.stored))
        if fingerprint is not None:
            chunks = fingerprint.of(chunks)
        return records(self._file.name, self._file.format, chunks, self._columns)


def _parts(found: Iterator[FileRecord]) -> Iterator[RecordPart]:
    """Yield the records in parts. The parts depend only on the file, so a second run makes the same parts."""
    number, size, part = 0, 0, list[FileRecord]()
    for record in found:
        part.append(record)
        size += record.size
        if len(part) >= PART_RECORDS or size >= PART_BYTES:
            yield RecordPart(number, part)
            number, size, part = number + 1, 0, []
    if part:
        yield RecordPart(number, part)


@asynccontextmanager
async def _connection(database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = await database.connect_raw()
    try:
        yield connection
    finally:
        connection.terminate() if connection.is_in_transaction() else await connection.close()


def _parsed(parse: Callable[[FileRecord], T], record: FileRecord) -> T | BadRequestError:
    try:
        return parse(record)
    except BadRequestError as error:
        return error


def _field_errors(error: BadRequestError) -> Sequence[FieldError]:
    return error.errors or (FieldError("", error.message),)


def valid_repair(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of a repair that a client sets. Raises BadRequestError."""
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


def _as(convert: Callable[[str], object], row: Mapping[str, Any], *names: str) -> dict[str, object]:
    """Return these cells converted. If a cell cannot be converted, it stays text, and validation rejects it."""
    return {name: convert(row[name]) for name in names if isinstance(row.get(name), str)}


def _integer(text: str) -> object:
    return int(text) if _INTEGER.fullmatch(text) else text


def _number(text: str) -> object:
    try:
        return float(text)
    except ValueError:
        return text


async def _whole(commit: Coroutine[Any, Any, None]) -> None:
    """Wait for the end of a commit even if the import is stopped, because the import must report whether the part is
    stored."""
    task = asyncio.ensure_future(commit)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await task
        raise
