"""Brings the lines of one point together, in constant memory: a dump is dealt out to files by series and time.

All lines of a point land in the same part, in their order, and a part is small enough to be merged in memory. Which
part that is follows from the dump alone, so that a second run makes the same parts.
"""

import marshal
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from zlib import crc32

from factory_logs.influx.dump import Entry
from factory_logs.influx.line_protocol import LineError, parse_series, split_head

PART_BYTES = 4 * 1024 * 1024
"""So much of a dump goes into a part, about: some ten thousand points, one transaction."""

BUFFERED_LINES = 400_000
MAX_KNOWN_HEADS = 200_000

SpilledLine = tuple[int, str, str, str]
"""A line's number, its context, its head, and the rest."""


def parts_of(dump_bytes: int) -> int:
    return max(1, -(-dump_bytes // PART_BYTES))


class Spill:
    """The parts of a dump in a folder."""

    def __init__(self, folder: Path, parts: int, wanted: Collection[int]) -> None:
        self._folder = folder
        self._parts = parts
        self._buffers: dict[int, list[SpilledLine]] = {part: [] for part in wanted}
        self._buffered = 0
        self._seeds: dict[tuple[str, str], int] = {}
        self.lines = 0

    def path(self, part: int) -> Path:
        return self._folder / f"{part}.part"

    def add(self, entries: Iterable[Entry]) -> None:
        """Deal out some lines."""
        buffers, parts = self._buffers, self._parts
        context = head = prefix = ""
        seed = 0
        for number, its_context, line in entries:
            # The lines of a series stand together, and begin alike.
            if (
                prefix
                and its_context is context
                and line.startswith(prefix)
                and line[len(prefix) :][:1] not in (" ", "")
            ):
                rest = line[len(prefix) :].rstrip(" ")
            else:
                context = its_context
                head, rest = _head_and_rest(line)
                prefix = f"{head} " if rest and not line.startswith(" ") else ""
                seed = self._seed(context, head)
            time = rest[rest.rfind(" ") + 1 :]
            if time[:1] in ("0", "-") and time[1:].isdecimal():
                time = str(int(time))
            buffer = buffers.get(crc32(time.encode("utf-8", "surrogateescape"), seed) % parts)
            if buffer is not None:
                buffer.append((number, context, head, rest))
                self._buffered += 1
        if self._buffered >= BUFFERED_LINES:
            self.flush()

    def _seed(self, context: str, head: str) -> int:
        seed = self._seeds.get((context, head))
        return self._new_seed(context, head) if seed is None else seed

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
        self._seeds[context, head] = seed
        return seed

    def flush(self) -> None:
        """Write what is in memory to the files."""
        for part, buffer in self._buffers.items():
            if buffer:
                with self.path(part).open("ab") as file:
                    marshal.dump(buffer, file)
                self.lines += len(buffer)
                self._buffers[part] = []
        self._buffered = 0


def _head_and_rest(line: str) -> tuple[str, str]:
    try:
        return split_head(line)
    except LineError:
        return line, ""


def spilled_lines(path: Path) -> Iterator[SpilledLine]:
    """The lines of a part, in the order of the dump."""
    if not path.exists():
        return
    with path.open("rb") as file:
        end = path.stat().st_size
        while file.tell() < end:
            yield from marshal.load(file)  # noqa: S302 - our own file, in a folder only we may read
