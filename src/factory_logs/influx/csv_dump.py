"""What `influx -format csv` prints, as line protocol (SPEC 8).

    name,tags,time,passed,voltage              from a query with `group by *`
    tiger,"jig_id=J-07,host=a",1706708700123456789,true,3.28

Without `group by *` there is no column `tags`, and which columns are tags must be told. The format does not say what
is a string: `true` and `false` become booleans, what looks like a number becomes one, an empty cell is no value.
"""

import codecs
import csv
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime

from factory_logs.influx.dump import Stretch
from factory_logs.influx.line_protocol import INT_MAX

LONGEST_CELL = 16 * 1024 * 1024
_INTEGER = re.compile(r"-?[0-9]{1,19}")
_FLOAT = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SPECIAL = re.compile("([,= ])")


def csv_stretches(chunks: Iterable[bytes], unit_ns: int, tag_columns: Collection[str]) -> Iterator[Stretch]:
    """The rows as lines whose times are nanoseconds. `unit_ns` is the unit of integers in the column `time`."""
    csv.field_size_limit(LONGEST_CELL)
    rows = csv.reader(_lines(chunks))
    header: Sequence[str] = ()
    while True:
        number = rows.line_num + 1
        row = next(rows, None)
        if row is None:
            return
        if row[:2] in (["name", "tags"], ["name", "time"]):  # each measurement has its own
            header = row
        elif row and (len(row) != len(header) or "time" not in header):
            yield "", [(number, f",{','.join(row)}")]
        elif row:
            yield "", [(number, _line(header, row, unit_ns, tag_columns))]


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    rest = ""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    for chunk in chunks:
        *lines, rest = (rest + decoder.decode(chunk)).split("\n")
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
    """`a=1,b=x,y` are the tags a and b: nothing is escaped there, so a part without an equals sign goes on."""
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
