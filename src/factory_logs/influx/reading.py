"""The body of a write, as it arrives, to batches of logs and the faults of its bad lines (SPEC 8)."""

import asyncio
import codecs
from collections.abc import AsyncIterator

from factory_logs.errors import BadRequestError, FieldError
from factory_logs.influx.alike import AlikeReader
from factory_logs.influx.lines import LineSplitter, NumberedLine
from factory_logs.influx.mapping import PointReader
from factory_logs.ingest.batch import Batch
from factory_logs.ingest.records import Limits, NewLog

PIECE_BYTES = 64 * 1024
"""So much is read before other requests get their turn: some hundred lines."""

LINE_CHARACTERS_PER_RECORD_BYTE = 2
"""How much longer than the largest record a line may be: a string of quotes takes two characters for each."""


class LineProtocolReader:
    """Collects good logs and what is wrong with bad lines, the latter at most `max_reported`.

    In a batch a place is the number of a line, from 1.
    """

    def __init__(self, limits: Limits, max_reported: int, unit_ns: int, now_ns: int) -> None:
        self.max_characters = LINE_CHARACTERS_PER_RECORD_BYTE * limits.max_record_bytes
        self._max_reported = max_reported
        self._points = PointReader(limits, unit_ns, now_ns)
        self._alike = AlikeReader(limits, self.max_characters, unit_ns, now_ns)
        self._splitter = LineSplitter(self.max_characters)
        # Broken UTF-8 must fail its own line alone: it is carried along as lone surrogates, which no line may hold.
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._logs: list[NewLog] = []
        self._places: list[int] = []
        self._faults: list[FieldError] = []
        self._rejected = 0
        self._reported = 0
        self.is_empty = True

    @property
    def all_timed(self) -> bool:
        """Whether each line so far said when it happened, so that the same text always means the same logs."""
        return not (self._points.used_now or self._alike.used_now)

    def take(self) -> Batch:
        """What was read since the last time."""
        batch = Batch(self._logs, self._places, self._faults, self._rejected)
        self._logs, self._places, self._faults, self._rejected = [], [], [], 0
        return batch

    def feed(self, data: bytes) -> None:
        """Read on."""
        self.is_empty = self.is_empty and not data
        self._read(self._splitter.feed(self._decoder.decode(data)))

    def finish(self) -> None:
        """The last line may lack its line end."""
        self._read(self._splitter.feed(self._decoder.decode(b"", final=True)))
        self._read(self._splitter.finish())

    def _read(self, lines: list[NumberedLine]) -> None:
        for (number, line), log in zip(lines, self._alike.read([line for _, line in lines]), strict=True):
            if log is None:
                self._read_line(number, line)
            else:
                self._logs.append(log)
                self._places.append(number)

    def _read_line(self, number: int, line: str) -> None:
        try:
            self._logs.append(self._points.read(line, self.max_characters))
            self._places.append(number)
        except BadRequestError as error:
            self._reject(number, error)

    def _reject(self, number: int, error: BadRequestError) -> None:
        self._rejected += 1
        if self._reported < self._max_reported:
            self._reported += 1
            self._faults.extend(FieldError(fault.field, fault.message, number) for fault in error.errors)


async def read_line_protocol(
    pieces: AsyncIterator[bytes], reader: LineProtocolReader, part_bytes: int
) -> AsyncIterator[Batch]:
    """The body in parts of about `part_bytes` of text each; one part, maybe empty, where it is shorter."""
    size = 0
    async for piece in pieces:
        for start in range(0, len(piece), PIECE_BYTES):
            reader.feed(piece[start : start + PIECE_BYTES])
            await asyncio.sleep(0)
        size += len(piece)
        if size >= part_bytes:
            size = 0
            yield reader.take()
    reader.finish()
    yield reader.take()
