"""Collect the decoded records of a body: good logs, and errors of bad records, within limits.

JSON arrays and NDJSON (batch_decoder.py) and line protocol (influxdb/line_reader.py) use this.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from factory_logs.errors import BadRequestError, FieldError, TooLargeError
from factory_logs.ingest.new_logs import NewLogs
from factory_logs.ingest.validation import NewLog


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The limits of one body: the number of records (or of lines, including blank ones), of bad records, and of bad
    records that the response lists."""

    max_records: int = 200_000
    max_bad: int = 10_000
    max_reported: int = 100

    def check_records(self, count: int) -> None:
        """Raise TooLargeError if the number of records is over the limit."""
        if count > self.max_records:
            raise TooLargeError(f"The body holds more than {self.max_records} records; send it in parts")

    def check_bad(self, count: int, errors: Sequence[FieldError]) -> None:
        """Raise BadRequestError if the number of bad records is over the limit. `errors` contains the errors of the
        first bad records."""
        if count > self.max_bad:
            raise BadRequestError(
                f"Validation failed for more than {self.max_bad} of the records; the rest was not read and nothing "
                "was stored",
                errors,
            )


@dataclass(frozen=True, slots=True)
class Batch:
    """The good logs of a body with their positions, and the errors of its bad records."""

    logs: NewLogs
    positions: Sequence[int]
    errors: Sequence[FieldError]
    rejected: int
    """The number of bad records. `errors` may list fewer records, or several errors for one record."""


class BatchCollector:
    """Collects good logs and bad records, and lists only the first bad ones."""

    def __init__(self, limits: BatchLimits) -> None:
        self.limits = limits
        self._logs = NewLogs()
        self._positions: list[int] = []
        self._errors: list[FieldError] = []
        self._first_errors: list[FieldError] = []
        """The first errors of the whole body, not only since the last `take`."""
        self._rejected = 0
        self._rejected_before = 0

    def add(self, log: NewLog, position: int) -> None:
        self._logs.append(log)
        self._positions.append(position)

    def add_all(self, logs: NewLogs, positions: Iterable[int]) -> None:
        self._logs.extend(logs)
        self._positions += positions

    def reject(self, error: BadRequestError, position: int) -> None:
        """Count a bad record. Raises BadRequestError if there are too many."""
        if self._rejected < self.limits.max_reported:
            errors = error.errors or (FieldError("", error.message),)
            placed = [FieldError(each.field, each.message, position) for each in errors]
            self._errors += placed
            self._first_errors += placed
        self._rejected += 1
        self.limits.check_bad(self._rejected, self._first_errors)

    def take(self) -> Batch:
        """Return the logs and errors collected since the last call, in the order of their positions."""
        if self._positions != (ordered := sorted(self._positions)):
            self._logs = self._logs.ordered(self._positions)
            self._positions = ordered
        batch = Batch(self._logs, self._positions, self._errors, self._rejected - self._rejected_before)
        self._logs, self._positions, self._errors = NewLogs(), [], []
        self._rejected_before = self._rejected
        return batch


class BodyReader(Protocol):
    """Decodes a body that arrives in parts."""

    piece_bytes: int
    """The number of bytes to feed before other requests may run."""

    def feed(self, data: bytes) -> None: ...
    def finish(self) -> None: ...
    def take(self) -> Batch: ...


async def read_parts(parts: AsyncIterator[bytes], reader: BodyReader) -> AsyncIterator[Batch]:
    """Yield a batch for each part of a body. A line that spans two parts belongs to the second part."""
    is_first = True
    async for part in parts:
        if not is_first:
            yield reader.take()
        is_first = False
        for start in range(0, len(part), reader.piece_bytes):
            reader.feed(part[start : start + reader.piece_bytes])
            await asyncio.sleep(0)
    reader.finish()
    yield reader.take()
