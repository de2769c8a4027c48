"""Reading a batch: a JSON array, or NDJSON as it arrives (SPEC 7)."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from pydantic import FailFast, TypeAdapter, ValidationError

from factory_logs.errors import BadRequestError, FieldError
from factory_logs.ingest.batch import Batch
from factory_logs.ingest.quick_columns import quick_logs
from factory_logs.ingest.quick_reading import quickly_decoded, read_log
from factory_logs.ingest.records import Limits, NewLog, admit, validate_log
from factory_logs.schemas.factory_log import FactoryLogIn

_LOGS = TypeAdapter(Annotated[list[FactoryLogIn], FailFast()])
"""Of an array with bad records only that much is asked: a million faults, of which few are told, would be held too."""
RECORDS_AT_A_TIME = 500
"""After so many records other requests get their turn."""
LINE_BYTES_PER_RECORD_BYTE = 8
"""A line may be longer than its compact JSON: an escape `\\u00e9` takes six bytes for two."""


class BatchReader:
    """Collects good logs and the faults of bad ones, at most `max_reported` bad records' worth."""

    def __init__(self, limits: Limits, max_reported: int) -> None:
        self.limits = limits
        self._max_reported = max_reported
        self._logs: list[NewLog] = []
        self._places: list[int] = []
        self._faults: list[FieldError] = []
        self._rejected = 0
        self._rejected_before = 0
        self._next = 0

    def take(self) -> Batch:
        """What has been read since the last time."""
        batch = Batch(self._logs, self._places, self._faults, self._rejected - self._rejected_before)
        self._logs, self._places, self._faults = [], [], []
        self._rejected_before = self._rejected
        return batch

    def add(self, log: NewLog) -> None:
        self._logs.append(log)
        self._places.append(self._next)
        self._next += 1

    def _add_all(self, logs: Sequence[NewLog]) -> None:
        self._logs += logs
        self._places += range(self._next, self._next + len(logs))
        self._next += len(logs)

    def reject(self, error: BadRequestError) -> None:
        if self._rejected < self._max_reported:
            faults = error.errors or (FieldError("", error.message),)
            self._faults.extend(FieldError(fault.field, fault.message, self._next) for fault in faults)
        self._rejected += 1
        self._next += 1

    def read_lines(self, lines: Sequence[bytes]) -> None:
        """Lines of NDJSON; a blank one is no record."""
        texts = [line for line in lines if line and not line.isspace()]
        for start in range(0, len(texts), RECORDS_AT_A_TIME):
            some = texts[start : start + RECORDS_AT_A_TIME]
            logs = quick_logs(list(map(quickly_decoded, some)), self.limits)
            if logs is not None:
                self._add_all(logs)
                continue
            for text in some:
                self._read_text(text)

    def _read_text(self, text: bytes) -> None:
        try:
            self.add(read_log(text, self.limits))
        except BadRequestError as error:
            self.reject(error)

    async def read_array(self, body: bytes) -> None:
        """A whole JSON array. Raises BadRequestError where the body is no JSON array at all."""
        if await self._read_quickly(body):
            return
        try:
            models = _LOGS.validate_json(body)
        except ValidationError:
            await self._read_values(_decoded_array(body))
            return
        for model in models:
            try:
                self.add(admit(model, self.limits))
            except BadRequestError as error:
                self.reject(error)
            await self._take_turns()

    async def _read_quickly(self, body: bytes) -> bool:
        """Whether all records were good at a first glance; else none of them is kept."""
        values = quickly_decoded(body)
        if not isinstance(values, list):
            return False
        logs: list[NewLog] = []
        for start in range(0, len(values), RECORDS_AT_A_TIME):
            some = quick_logs(values[start : start + RECORDS_AT_A_TIME], self.limits)
            if some is None:
                return False
            logs += some
            await asyncio.sleep(0)
        self._add_all(logs)
        return True

    async def _read_values(self, values: list[object]) -> None:
        for value in values:
            try:
                self.add(validate_log(value, self.limits))
            except BadRequestError as error:
                self.reject(error)
            await self._take_turns()

    async def _take_turns(self) -> None:
        if self._next % RECORDS_AT_A_TIME == 0:
            await asyncio.sleep(0)


class NdjsonReader:
    """Splits NDJSON into lines as its bytes arrive and reads each at once."""

    def __init__(self, reader: BatchReader) -> None:
        self._reader = reader
        self._max_line_bytes = reader.limits.max_record_bytes * LINE_BYTES_PER_RECORD_BYTE
        self._rest: list[bytes] = []
        self._rest_bytes = 0

    def feed(self, data: bytes) -> None:
        *ends, rest = data.split(b"\n")
        if ends:
            self._keep(ends[0])
            self._end_line()
            self._read_whole(ends[1:])
        self._keep(rest)

    def finish(self) -> None:
        """The last line may lack its newline."""
        self._end_line()

    def _keep(self, part: bytes) -> None:
        """Of a line that is too long nothing more is kept than its length."""
        self._rest_bytes += len(part)
        if self._rest_bytes > self._max_line_bytes:
            self._rest = []
        else:
            self._rest.append(part)

    def _end_line(self) -> None:
        if self._rest_bytes > self._max_line_bytes:
            self._reject_line()
        else:
            self._reader.read_lines([b"".join(self._rest)])
        self._rest, self._rest_bytes = [], 0

    def _read_whole(self, lines: list[bytes]) -> None:
        if max(map(len, lines), default=0) <= self._max_line_bytes:
            self._reader.read_lines(lines)
            return
        for line in lines:
            if len(line) > self._max_line_bytes:
                self._reject_line()
            else:
                self._reader.read_lines([line])

    def _reject_line(self) -> None:
        self._reader.reject(BadRequestError(f"the line is over the limit of {self._max_line_bytes} bytes"))


async def read_ndjson(pieces: AsyncIterator[bytes], reader: BatchReader, part_bytes: int) -> AsyncIterator[Batch]:
    """The batch in parts of about `part_bytes` of text each; one part, maybe empty, where it is shorter."""
    lines = NdjsonReader(reader)
    size = 0
    async for piece in pieces:
        lines.feed(piece)
        size += len(piece)
        if size >= part_bytes:
            size = 0
            yield reader.take()
        else:
            await asyncio.sleep(0)
    lines.finish()
    yield reader.take()


def _decoded_array(body: bytes) -> list[object]:
    """The elements of an array in which something is wrong.

    The standard library reads on where Pydantic's parser stops, at a lone surrogate say, so that the record at fault
    can be named.
    """
    try:
        values = json.loads(body)
    except RecursionError:
        raise BadRequestError("Unable to decode data: arrays and objects are nested too deep") from None
    except ValueError as error:
        raise BadRequestError(f"Unable to decode data: {error}") from None
    if not isinstance(values, list):
        raise BadRequestError("Unable to decode data: expected an array of logs")
    return values
