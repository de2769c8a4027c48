"""Brings the lines of one point together, in constant memory: a dump is dealt out to files by series and time.

All lines of a point land in the same part, in their order, and a part is small enough to be merged in memory. Which
part that is follows from the dump alone, so that a second run makes the same parts.
"""

import marshal
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from struct import Struct
from typing import NamedTuple
from zlib import crc32

from factory_logs.influx.dump import Stretch
from factory_logs.influx.line_protocol import LineError, parse_series
from factory_logs.influx.runs import Run, cut

PART_BYTES = 4 * 1024 * 1024
"""So much of a dump goes into a part, about: some ten thousand points, one transaction."""

LARGEST_PART_BYTES = 8 * PART_BYTES
"""What is kept of a part's lines may be so large; beyond it the part is dealt out again."""

SLICE_DIGITS = 14
"""Points of a series that agree but for so many digits of their time, in nanoseconds, stay together: about a day."""

SIZE = Struct("<Q")
BUFFERED_LINES = 400_000
LINE_BYTES = 64
"""What a line takes in memory beside its text."""

MAX_KNOWN_HEADS, LONGEST_KNOWN_HEAD = 200_000, 1_000


class Part(NamedTuple):
    """Some of a dump's lines, in a file; the number tells it from the dump's other parts, in each run."""

    number: int
    path: Path
    lines: int


class Spill:
    """The parts of a dump in a folder, but for those that are done; their numbers begin at 0 and do not end there."""

    def __init__(self, folder: Path, dump_bytes: int, done: Collection[int], unit_ns: int) -> None:
        parts = max(1, -(-dump_bytes // PART_BYTES))
        self._done = done
        self._dealer = _Dealer(folder, range(parts), done, max(SLICE_DIGITS + 1 - len(str(unit_ns)), 0))

    @property
    def is_done(self) -> bool:
        """Whether no part is left to be made."""
        return all(buffer is None for buffer in self._dealer.buffers)

    def add(self, stretch: Stretch) -> None:
        """Deal out some lines."""
        self._dealer.add(stretch)

    def parts(self) -> list[Part]:
        """To be called when all lines are dealt out. A part that became too large is dealt out again, by exact time."""
        found: list[Part] = []
        for part, size in self._dealer.dealt():
            if size <= LARGEST_PART_BYTES:
                found.append(part)
                continue
            first = part.number + self._dealer.count
            numbers = range(first, first + self._dealer.count * -(-size // PART_BYTES), self._dealer.count)
            again = _Dealer(part.path.parent, numbers, self._done, 0)
            for run in spilled_runs(part.path):
                again.add((run.context, list(run.lines())))
            part.path.unlink()
            found.extend(smaller for smaller, _ in again.dealt())
        return found


class _Dealer:
    """Deals out lines to the files of some parts, by series and slice of time."""

    def __init__(self, folder: Path, numbers: Sequence[int], done: Collection[int], slice_digits: int) -> None:
        self.count = len(numbers)
        self._slice_digits = slice_digits
        self.buffers: list[list[Run] | None] = [None if number in done else [] for number in numbers]
        self._buffered = 0
        self._parts = [Part(number, folder / f"{number}.part", 0) for number in numbers]
        self._lines = [0] * self.count
        self._bytes = [0] * self.count
        self._seeds: dict[tuple[str, str], int] = {}

    def add(self, stretch: Stretch) -> None:
        buffers, count = self.buffers, self.count
        for run, time_slice in cut(*stretch, self._slice_digits):
            seed = self._seeds.get((run.context, run.head))
            if seed is None:
                seed = self._new_seed(run.context, run.head)
            place = crc32(time_slice.encode("utf-8", "surrogateescape"), seed) % count
            buffer = buffers[place]
            if buffer is not None:
                buffer.append(run)
                self._buffered += run.length
                self._lines[place] += run.length
                self._bytes[place] += len(run.head) + len(run.text) + LINE_BYTES * run.length
        if self._buffered >= BUFFERED_LINES:
            self._flush()

    def _new_seed(self, context: str, head: str) -> int:
        """The same for all ways to write a series: its tags may come in any order."""
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
        """Write what is in memory to the files."""
        for part, buffer in zip(self._parts, self.buffers, strict=True):
            if buffer:
                with part.path.open("ab") as file:
                    runs = marshal.dumps([tuple(run) for run in buffer])
                    file.write(SIZE.pack(len(runs)) + runs)
                buffer.clear()
        self._buffered = 0

    def dealt(self) -> Iterator[tuple[Part, int]]:
        """The parts that have lines or are not known to have none yet, and how large each would be in memory."""
        self._flush()
        for part, buffer, lines, size in zip(self._parts, self.buffers, self._lines, self._bytes, strict=True):
            if buffer is not None:
                yield part._replace(lines=lines), size


def spilled_runs(path: Path) -> Iterator[Run]:
    """The lines of a part, in the order of the dump."""
    if not path.exists():
        return
    with path.open("rb") as file:
        while size := file.read(SIZE.size):
            # Not marshal.load: it reads a file byte by byte.
            yield from map(Run._make, marshal.loads(file.read(*SIZE.unpack(size))))  # noqa: S302 - our own file
