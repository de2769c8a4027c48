"""Decode a batch: a complete JSON array, or NDJSON while it arrives (docs/reference/http-api.md#batches)."""

import asyncio
import json
import re
from collections.abc import Sequence
from typing import Annotated

from pydantic import FailFast, TypeAdapter, ValidationError

from factory_logs.errors import BadRequestError
from factory_logs.ingest.batch_collector import Batch, BatchCollector, BatchLimits
from factory_logs.ingest.fast_validation import decode_json, fast_logs, read_log
from factory_logs.ingest.new_logs import NewLogs
from factory_logs.ingest.validation import NewLog, admit
from factory_logs.schemas.factory_log import FactoryLogIn
from factory_logs.schemas.record_limits import RecordLimits

_LOGS = TypeAdapter(Annotated[list[FactoryLogIn], FailFast()])
"""Stops at the first bad record. Otherwise it could hold a million errors in memory, although the response lists only a
few."""
CONTAINERS_PER_RECORD = 8
"""If an array has more objects and arrays per allowed record than this, its records are counted before they are
decoded."""
TOKENS_AT_A_TIME = 50_000
"""While records are counted, other requests may run each time after this number of tokens."""
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[\]{},]', re.DOTALL)
RECORDS_AT_A_TIME = 500
"""While records are decoded, other requests may run each time after this number of records."""
LINE_BYTES_PER_RECORD_BYTE = 8
"""The factor by which a line may be longer than its compact JSON: an escape `\\u00e9` takes six bytes for two."""


class BatchReader:
    """Decodes records into good logs and errors, each with its index in the body."""

    def __init__(self, limits: RecordLimits, batch_limits: BatchLimits) -> None:
        self.limits = limits
        self.batch_limits = batch_limits
        self._collector = BatchCollector(batch_limits)
        self._next = 0

    def take(self) -> Batch:
        """Return the logs and errors decoded since the last call."""
        return self._collector.take()

    def add(self, log: NewLog) -> None:
        self._collector.add(log, self._next)
        self._next += 1

    def _add_all(self, logs: NewLogs) -> None:
        self._collector.add_all(logs, range(self._next, self._next + len(logs)))
        self._next += len(logs)

    def reject(self, error: BadRequestError) -> None:
        """Count a bad record. Raises BadRequestError if there are too many."""
        position = self._next
        self._next += 1
        self._collector.reject(error, position)

    def read_lines(self, lines: Sequence[bytes]) -> None:
        """Decode lines of NDJSON; blank lines must be left out."""
        texts = [line for line in lines if line and not line.isspace()]
        for start in range(0, len(texts), RECORDS_AT_A_TIME):
            some = texts[start : start + RECORDS_AT_A_TIME]
            logs = fast_logs(list(map(decode_json, some)), self.limits)
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
        """Decode a complete JSON array. Raises BadRequestError if the body is not a JSON array, TooLargeError."""
        await self._check_count(body)
        if await self._read_fast(body):
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

    async def _check_count(self, body: bytes) -> None:
        """Raise TooLargeError for too many records before they are decoded, if decoding could take much memory.

        A million empty objects take 3 MB of JSON and 70 MB of memory.
        """
        most = self.batch_limits.max_records
        if body.count(b"{") + body.count(b"[") <= CONTAINERS_PER_RECORD * most:
            return
        depth, count = 0, 1
        for number, match in enumerate(_TOKEN.finditer(body), 1):
            token = match[0]
            if token in b"{[":
                depth += 1
            elif token in b"}]":
                depth -= 1
            elif token == b"," and depth == 1:
                count += 1
                self.batch_limits.check_records(count)
            if number % TOKENS_AT_A_TIME == 0:
                await asyncio.sleep(0)

    async def _read_fast(self, body: bytes) -> bool:
        """Return whether the fast validation has accepted all records; if not, none of them is added."""
        values = decode_json(body)
        if not isinstance(values, list):
            return False
        self.batch_limits.check_records(len(values))
        logs = NewLogs()
        for start in range(0, len(values), RECORDS_AT_A_TIME):
            some = fast_logs(values[start : start + RECORDS_AT_A_TIME], self.limits)
            if some is None:
                return False
            logs.extend(some)
            await asyncio.sleep(0)
        self._add_all(logs)
        return True

    async def _read_values(self, values: list[object]) -> None:
        """Read each element of an array that contains an error as a single log, so that it has the same errors."""
        self.batch_limits.check_records(len(values))
        for value in values:
            try:
                text = json.dumps(value).encode()
            except RecursionError:
                self.reject(BadRequestError("Unable to decode data: arrays and objects are nested too deep"))
            else:
                self._read_text(text)
            await self._take_turns()

    async def _take_turns(self) -> None:
        if self._next % RECORDS_AT_A_TIME == 0:
            await asyncio.sleep(0)


class NdjsonReader:
    """Splits NDJSON into lines while it arrives, and decodes each line at once."""

    piece_bytes = 128 * 1024

    def __init__(self, reader: BatchReader) -> None:
        self._reader = reader
        self._max_line_bytes = reader.limits.max_record_bytes * LINE_BYTES_PER_RECORD_BYTE
        self._rest: list[bytes] = []
        self._rest_bytes = 0
        self._line_ends = 0
        self.take = reader.take

    def feed(self, data: bytes) -> None:
        """Decode more of the body. Raises TooLargeError if it has too many lines, before it decodes them."""
        self._line_ends += data.count(b"\n")
        self._reader.batch_limits.check_records(self._line_ends)
        *ends, rest = data.split(b"\n")
        if ends:
            self._append(ends[0])
            self._end_line()
            self._read_whole(ends[1:])
        self._append(rest)

    def finish(self) -> None:
        """Decode the last line, which may have no newline."""
        self._reader.batch_limits.check_records(self._line_ends + bool(self._rest_bytes))
        self._end_line()

    def _append(self, part: bytes) -> None:
        """Extend the unfinished line; if it is too long, only count its bytes."""
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


def _decoded_array(body: bytes) -> list[object]:
    """Return the elements of an array that contains an error.

    The parser of the standard library continues where Pydantic's parser stops, for example at a lone surrogate, so that
    the error can name the record.
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
