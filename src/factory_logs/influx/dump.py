"""What `influx_inspect export` writes: line protocol between statements and comments that say whose it is (SPEC 8).

    # DDL
    CREATE DATABASE jigs WITH NAME autogen
    # DML
    # CONTEXT-DATABASE:jigs
    # CONTEXT-RETENTION-POLICY:autogen
    # writing tsm data
    tiger,jig_id=J-07 passed=true 1706708700123456789

Plain line protocol is such a dump too. A point's fields stand on lines of their own, apart from each other, and some
more than once: `spill` brings together what belongs together and `merge` makes points of it.
"""

import codecs
import hashlib
from collections.abc import Iterable, Iterator

from factory_logs.influx.lines import LineSplitter, NumberedLine, is_comment

_DATABASE, _POLICY = "# CONTEXT-DATABASE:", "# CONTEXT-RETENTION-POLICY:"
READING_VERSION = b"line protocol 2"
"""Part of each dump's fingerprint; to be changed when dumps are cut into parts in another way."""


Stretch = tuple[str, list[NumberedLine]]
"""Lines of a dump that hold points, or parts of them, each with its number from 1; and before them their context.

The context are the comments that name the database and retention policy, as points of two of them are never the same.
"""


class Fingerprint:
    """What a dump is known by, of its unpacked bytes and how they are read; and how many those are."""

    def __init__(self, reading: str) -> None:
        self._digest = hashlib.sha256(READING_VERSION + b"\0" + reading.encode() + b"\0")
        self.size = 0

    def update(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        self.size += len(chunk)

    def digest(self) -> bytes:
        return self._digest.digest()


def stretches(chunks: Iterable[bytes], max_characters: int) -> Iterator[Stretch]:
    """The lines of a dump, some at a time. Broken UTF-8 comes as lone surrogates, to be refused with its line."""
    reader = _DumpReader(max_characters)
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    for chunk in chunks:
        yield from reader.read(decoder.decode(chunk))
    yield from reader.read(decoder.decode(b"", final=True), last=True)


class _DumpReader:
    def __init__(self, max_characters: int) -> None:
        self._splitter = LineSplitter(max_characters, keep_comments=True)
        self._database = ""
        self._context = ""
        self._in_statements = False

    def read(self, text: str, *, last: bool = False) -> Iterator[Stretch]:
        lines = self._splitter.feed(text)
        if last:
            lines += self._splitter.finish()
        if not self._splitter.gave_comments:  # nearly always, and a look at each line costs
            yield from self._points(lines)
            return
        start = 0
        for place, (_, line) in enumerate(lines):
            if line[0] in "# " and is_comment(line):
                yield from self._points(lines[start:place])
                self._comment(line.strip(" "))
                start = place + 1
        yield from self._points(lines[start:])

    def _points(self, lines: list[NumberedLine]) -> Iterator[Stretch]:
        if lines and not self._in_statements:
            yield self._context, lines

    def _comment(self, line: str) -> None:
        if line in ("# DDL", "# DML"):
            self._in_statements = line == "# DDL"
        elif line.startswith(_DATABASE):
            self._database = self._context = f"{line}\n"
        elif line.startswith(_POLICY):
            self._context = f"{self._database}{line}\n"
