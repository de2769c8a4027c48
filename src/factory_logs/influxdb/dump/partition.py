"""Partition a dump into files by series and time, in constant memory.

All lines of a point are in the same part, in their original order, and a part is small enough to be merged in memory.
The parts depend only on the dump, so a second run makes the same parts.

An export of InfluxDB repeats the series and the field in each line. A run of such lines stores both once, and the lines
of a run are partitioned, stored and parsed together.
"""

import marshal
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from struct import Struct
from typing import NamedTuple
from zlib import crc32

from factory_logs.influxdb.dump.formats import LineGroup
from factory_logs.influxdb.line_protocol import LineError, parse_series, split_head
from factory_logs.influxdb.line_reader import NumberedLine

PART_BYTES = 4 * 1024 * 1024
"""The approximate size of a part: tens of thousands of points, one transaction."""

LARGEST_PART_BYTES = 8 * PART_BYTES
"""The maximum memory of a part. A larger part is partitioned again."""

SLICE_DIGITS = 14
"""Points of a series stay together if their times, in nanoseconds, differ only in this number of last digits: about
a day."""

SIZE = Struct("<Q")
LINE_BYTES = 64
"""The memory that a line takes in addition to its text."""
BUFFERED_BYTES = 64 * 1024 * 1024
"""The memory of the lines that are collected before they are written to the files."""

MAX_KNOWN_HEADS, LONGEST_KNOWN_HEAD = 200_000, 1_000


_PLAIN_KEY = re.compile(r'([^,= "\\]++)=')
_TIME_AT_END = re.compile(r" (-?[1-9][0-9]*+)\Z")
_ANY_TIME = re.compile(r"-?[0-9]{1,40}")
_NEVER = "\n"
"""A text with which no line begins, and which no time contains."""


class LineRun(NamedTuple):
    """Lines of one series with consecutive numbers from `number`. With a `key`, each line begins with this field.

    `text` contains the rest of each line after the head, or after `key=`, separated by line ends.
    """

    context: str
    head: str
    key: str
    number: int
    length: int
    text: str

    @property
    def rests(self) -> list[str]:
        """Return the part of `text` that belongs to each line. If there is a single line, its strings may contain line
        ends."""
        return [self.text] if self.length == 1 else self.text.split("\n")

    def after_head(self) -> Iterator[NumberedLine]:
        """Yield fields and time of each line."""
        begin = f"{self.key}=" if self.key else ""
        for number, rest in enumerate(self.rests, self.number):
            yield number, begin + rest

    def lines(self) -> Iterator[NumberedLine]:
        """Yield the lines as in the dump, except for spaces."""
        for number, rest in self.after_head():
            yield number, f"{self.head} {rest}".rstrip(" ")


def split_runs(context: str, lines: Sequence[NumberedLine], slice_digits: int) -> list[tuple[LineRun, str]]:
    """Return the runs in some lines of one context, each with the time slice that contains all its lines.

    A slice contains the times that differ only in their last `slice_digits` digits, in any spelling. A line without a
    valid time may be in any slice, because it will be rejected.
    """
    found: list[tuple[LineRun, str]] = []
    head = key = ""
    prefix, run_slice, rests = _NEVER, "", list[str]()
    first, skipped, start, end = 0, 0, 0, -slice_digits or None
    # `even`: whether the numbers are consecutive and no line contains a line end.
    even = bool(lines) and lines[-1][0] - lines[0][0] == len(lines) - 1 and "\n" not in lines[-1][1]
    for number, line in lines:
        if (
            line.startswith(prefix)
            and line[start:end] == run_slice
            and line[-1] != " "
            and (even or (number == first + len(rests) and "\n" not in line))
        ):
            rests.append(line[skipped:])
            continue
        if rests:
            found.append((LineRun(context, head, key, first, len(rests), "\n".join(rests)), run_slice))
        first = number
        head, rest = _head_and_rest(line)
        time = _TIME_AT_END.search(rest)
        run_slice = f" {time[1] if time else _written_time(rest)}"[:end]
        begin, prefix = _PLAIN_KEY.match(rest), _NEVER
        if begin is None:
            key, rests = "", [rest]
            continue
        key, rests = begin[1], [rest[begin.end() :]]
        if time and len(time[1]) > slice_digits and "\n" not in line:
            start, prefix, skipped = -len(time[0]), f"{head} {begin[0]}", len(head) + 1 + begin.end()
    if rests:
        found.append((LineRun(context, head, key, first, len(rests), "\n".join(rests)), run_slice))
    return found


def _head_and_rest(line: str) -> tuple[str, str]:
    try:
        return split_head(line)
    except LineError:
        return line, ""


def _written_time(rest: str) -> str:
    """Return a time that is not in InfluxDB's own format, for example with leading zeros."""
    time = rest[rest.rfind(" ") + 1 :]
    return str(int(time)) if _ANY_TIME.fullmatch(time) else time


class DumpPart(NamedTuple):
    """A file with some lines of a dump. `number` is the same in each run."""

    number: int
    path: Path
    lines: int


class Partitioner:
    """Writes the parts of a dump into a folder, except those in `done`."""

    def __init__(self, folder: Path, dump_bytes: int, done: Collection[int], unit_ns: int) -> None:
        parts = max(1, -(-dump_bytes // PART_BYTES))
        self._done = done
        self._files = _PartFiles(folder, range(parts), done, max(SLICE_DIGITS + 1 - len(str(unit_ns)), 0))

    @property
    def is_done(self) -> bool:
        """Return whether all parts are already done."""
        return all(buffer is None for buffer in self._files.buffers)

    def add(self, group: LineGroup) -> None:
        """Write some lines to their parts."""
        self._files.add(group)

    def parts(self) -> list[DumpPart]:
        """Return the parts. Call this after the last line was added. A part that is too large is partitioned again by
        exact time."""
        found: list[DumpPart] = []
        for part, size in self._files.finish():
            if size <= LARGEST_PART_BYTES:
                found.append(part)
                continue
            first = part.number + self._files.count
            numbers = range(first, first + self._files.count * -(-size // PART_BYTES), self._files.count)
            again = _PartFiles(part.path.parent, numbers, self._done, 0)
            for run in read_part(part.path):
                again.add((run.context, list(run.lines())))
            part.path.unlink()
            found.extend(smaller for smaller, _ in again.finish())
        return found


class _PartFiles:
    """The files of some parts; lines are assigned to them by series and time slice."""

    def __init__(self, folder: Path, numbers: Sequence[int], done: Collection[int], slice_digits: int) -> None:
        self.count = len(numbers)
        self._slice_digits = slice_digits
        self.buffers: list[list[LineRun] | None] = [None if number in done else [] for number in numbers]
        self._buffered = 0
        self._parts = [DumpPart(number, folder / f"{number}.part", 0) for number in numbers]
        self._lines = [0] * self.count
        self._bytes = [0] * self.count
        self._seeds: dict[tuple[str, str], int] = {}

    def add(self, group: LineGroup) -> None:
        buffers, count = self.buffers, self.count
        for run, time_slice in split_runs(*group, self._slice_digits):
            seed = self._seeds.get((run.context, run.head))
            if seed is None:
                seed = self._new_seed(run.context, run.head)
            part_index = crc32(time_slice.encode("utf-8", "surrogateescape"), seed) % count
            buffer = buffers[part_index]
            if buffer is not None:
                buffer.append(run)
                size = len(run.head) + len(run.text) + LINE_BYTES * run.length
                self._buffered += size
                self._lines[part_index] += run.length
                self._bytes[part_index] += size
        if self._buffered >= BUFFERED_BYTES:
            self._flush()

    def _new_seed(self, context: str, head: str) -> int:
        """Return a number that is the same for each spelling of a series, because its tags may be in any order."""
        try:
            series = parse_series(head)
            name = repr((series.measurement, sorted(series.tags.items())))
        except LineError:
            name = head
        seed = crc32(f"{context}{name}".encode("utf-8", "surrogateescape"))
        if len(self._seeds) >= MAX_KNOWN_HEADS:
            self._seeds.clear()
        if len(head) <= LONGEST_KNOWN_HEAD:
            self._seeds[context, head] = seed
        return seed

    def _flush(self) -> None:
        """Write the collected lines to the files."""
        for part, buffer in zip(self._parts, self.buffers, strict=True):
            if buffer:
                with part.path.open("ab") as file:
                    runs = marshal.dumps([tuple(run) for run in buffer])
                    file.write(SIZE.pack(len(runs)) + runs)
                buffer.clear()
        self._buffered = 0

    def finish(self) -> Iterator[tuple[DumpPart, int]]:
        """Yield the parts that are not done, each with the memory that it takes."""
        self._flush()
        for part, buffer, lines, size in zip(self._parts, self.buffers, self._lines, self._bytes, strict=True):
            if buffer is not None:
                yield part._replace(lines=lines), size


def read_part(path: Path) -> Iterator[LineRun]:
    """Yield the lines of a part, in the order of the dump."""
    if not path.exists():
        return
    with path.open("rb") as file:
        while size := file.read(SIZE.size):
            # marshal.load would read the file byte by byte.
            yield from map(LineRun._make, marshal.loads(file.read(*SIZE.unpack(size))))  # noqa: S302 - our own file
