"""Read the two formats of dumps as groups of lines of line protocol.

`influx_inspect export` writes line protocol, with comments that name database and retention policy:

    # DDL
    CREATE DATABASE jigs WITH NAME autogen
    # DML
    # CONTEXT-DATABASE:jigs
    # CONTEXT-RETENTION-POLICY:autogen
    # writing tsm data
    tiger,jig_id=J-07 passed=true 1706708700123456789

Plain line protocol is also a dump in this format. The fields of a point are on separate lines, which are far apart, and
some fields occur twice. `partition` brings the lines of a point together, and `merge` makes one point from them.

`influx -format csv` prints CSV:

    name,tags,time,passed,voltage              from a query with `group by *`
    tiger,"jig_id=J-07,host=a",1706708700123456789,true,3.28

Without `group by *` there is no column `tags`, and the caller must pass the names of the tag columns. The format does
not mark strings: `true` and `false` become booleans, text that looks like a number becomes a number, and an empty cell
means that the field is missing.
"""

import codecs
import csv
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime

from factory_logs.influxdb.line_protocol import INT_MAX
from factory_logs.influxdb.line_reader import LineSplitter, NumberedLine, is_comment

_DATABASE, _POLICY = "# CONTEXT-DATABASE:", "# CONTEXT-RETENTION-POLICY:"
READING_VERSION = b"line protocol 2"
"""A part of the fingerprint of each dump. Change it if dumps are partitioned in a different way."""
LONGEST_CELL = 16 * 1024 * 1024
"""The maximum length of a cell, and of a line, of CSV, in characters."""
_INTEGER = re.compile(r"-?[0-9]{1,19}")
_FLOAT = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SPECIAL = re.compile("([,= ])")


LineGroup = tuple[str, list[NumberedLine]]
"""Some lines of a dump with their numbers from 1, and their context.

The context consists of the comments that name the database and the retention policy. Points in different contexts are
never the same.
"""


def line_groups(chunks: Iterable[bytes], max_characters: int) -> Iterator[LineGroup]:
    """Yield the lines of a dump in groups. Invalid UTF-8 becomes lone surrogates, which are rejected later."""
    reader = _DumpReader(max_characters)
    decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
    for chunk in chunks:
        yield from reader.read(decoder.decode(chunk))
    yield from reader.read(decoder.decode(b"", final=True), last=True)


class _DumpReader:
    def __init__(self, max_characters: int) -> None:
        self._splitter = LineSplitter(max_characters, keep_comments=True)
        self._database = ""
        self._context = ""
        self._in_statements = False

    def read(self, text: str, *, last: bool = False) -> Iterator[LineGroup]:
        lines = self._splitter.feed(text)
        if last:
            lines += self._splitter.finish()
        if not self._splitter.gave_comments:  # almost always true, so the lines need no check one by one
            yield from self._points(lines)
            return
        start = 0
        for index, (_, line) in enumerate(lines):
            if line[0] in "# \t" and is_comment(line):
                yield from self._points(lines[start:index])
                self._comment(line.strip())
                start = index + 1
        yield from self._points(lines[start:])

    def _points(self, lines: list[NumberedLine]) -> Iterator[LineGroup]:
        if lines and not self._in_statements:
            yield self._context, lines

    def _comment(self, line: str) -> None:
        if line in ("# DDL", "# DML"):
            self._in_statements = line == "# DDL"
        elif line.startswith(_DATABASE):
            self._database = self._context = f"{line}\n"
        elif line.startswith(_POLICY):
            self._context = f"{self._database}{line}\n"


def csv_line_groups(chunks: Iterable[bytes], unit_ns: int, tag_columns: Collection[str]) -> Iterator[LineGroup]:
    """Yield the rows as lines with times in nanoseconds. `unit_ns` is the unit of integers in the column `time`."""
    csv.field_size_limit(LONGEST_CELL)
    rows = csv.reader(_lines(chunks))
    header: Sequence[str] = ()
    while True:
        number = rows.line_num + 1
        row = next(rows, None)
        if row is None:
            return
        if row[:2] in (["name", "tags"], ["name", "time"]):  # each measurement has its own header
            header = row
        elif row and (len(row) != len(header) or "time" not in header):
            yield "", [(number, f",{','.join(row)}")]
        elif row:
            yield "", [(number, _line(header, row, unit_ns, tag_columns))]


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    rest = ""
    decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
    for chunk in chunks:
        *lines, rest = (rest + decoder.decode(chunk)).split("\n")
        if len(rest) > LONGEST_CELL:
            raise csv.Error(f"a line is longer than {LONGEST_CELL} characters")
        for line in lines:
            yield line + "\n"
    yield rest + decoder.decode(b"", final=True)


def _line(header: Sequence[str], row: Sequence[str], unit_ns: int, tag_columns: Collection[str]) -> str:
    head, fields, time = _escaped(row[0]), [], ""
    for column, cell in zip(header[1:], row[1:], strict=True):
        if column == "time":
            time = _time(cell, unit_ns)
        elif cell == "":
            continue
        elif column == "tags" and header[1] == "tags":
            head += "".join(f",{_escaped(key)}={_escaped(value)}" for key, value in _tags(cell) if value)
        elif column in tag_columns:
            head += f",{_escaped(column)}={_escaped(cell)}"
        else:
            fields.append(f"{_escaped(column)}={_value(cell)}")
    return f"{head} {','.join(fields)} {time}"


def _tags(cell: str) -> list[list[str]]:
    """Return the tags in a text such as `a=1,b=x,y`, which has the tags a and b. There are no escapes, so a part
    without `=` belongs to the value before it."""
    tags: list[list[str]] = []
    for part in cell.split(","):
        key, equals, value = part.partition("=")
        if equals or not tags:
            tags.append([key, value])
        else:
            tags[-1][1] += f",{part}"
    return tags


def _value(cell: str) -> str:
    if cell in ("true", "false"):
        return cell
    if _INTEGER.fullmatch(cell) and abs(int(cell)) <= INT_MAX:
        return f"{cell}i"
    if _FLOAT.fullmatch(cell):
        return cell
    return '"' + cell.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _time(cell: str, unit_ns: int) -> str:
    if _INTEGER.fullmatch(cell):
        return str(int(cell) * unit_ns)
    moment = _RFC3339.fullmatch(cell)
    if moment is None:
        return cell or "no-time"
    try:
        since = datetime.fromisoformat(f"{moment[1]}+00:00") - _EPOCH
    except ValueError:
        return cell
    return str((since.days * 86400 + since.seconds) * 10**9 + int((moment[2] or "").ljust(9, "0")))


def _escaped(name: str) -> str:
    return _SPECIAL.sub(r"\\\1", name)
