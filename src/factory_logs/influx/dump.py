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

from factory_logs.influx.lines import LineSplitter, is_comment

_DATABASE, _POLICY = "# CONTEXT-DATABASE:", "# CONTEXT-RETENTION-POLICY:"
READING_VERSION = b"line protocol 1"
"""Part of each dump's fingerprint; to be changed when dumps are cut into parts in another way."""


Entry = tuple[int, str, str]
"""A line of a dump that holds a point, or a part of one: its number from 1, its context, and itself.

The context are the comments that name the database and retention policy, as points of two of them are never the same.
"""


def fingerprint(chunks: Iterable[bytes], reading: str) -> tuple[bytes, int]:
    """What a dump is known by, of its unpacked bytes and how they are read; and how many those are."""
    digest = hashlib.sha256(READING_VERSION + b"\0" + reading.encode() + b"\0")
    size = 0
    for chunk in chunks:
        digest.update(chunk)
        size += len(chunk)
    return digest.digest(), size


def entries(chunks: Iterable[bytes], max_characters: int) -> Iterator[list[Entry]]:
    """The lines of a dump, some at a time. Broken UTF-8 comes as lone surrogates, to be refused with its line."""
    reader = _DumpReader(max_characters)
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    for chunk in chunks:
        yield reader.read(decoder.decode(chunk))
    yield reader.read(decoder.decode(b"", final=True), last=True)


class _DumpReader:
    def __init__(self, max_characters: int) -> None:
        self._splitter = LineSplitter(max_characters, keep_comments=True)
        self._database = ""
        self._context = ""
        self._in_statements = False

    def read(self, text: str, *, last: bool = False) -> list[Entry]:
        lines = self._splitter.feed(text)
        if last:
            lines += self._splitter.finish()
        context, found = self._context, list[Entry]()
        for number, line in lines:
            if line[0] in "# " and is_comment(line):
                self._comment(line.strip(" "))
                context = self._context
            elif not self._in_statements:
                found.append((number, context, line))
        return found

    def _comment(self, line: str) -> None:
        if line in ("# DDL", "# DML"):
            self._in_statements = line == "# DDL"
        elif line.startswith(_DATABASE):
            self._database = self._context = f"{line}\n"
        elif line.startswith(_POLICY):
            self._context = f"{self._database}{line}\n"
