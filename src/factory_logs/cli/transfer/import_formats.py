"""Read records from files: NDJSON line by line, JSON value by value, and rows of CSV as objects.

A file written by `--rejected` begins with a comment. In such a file, lines that begin with `# ` are comments, each CSV
section has its own header, and each line contains one JSON value.
"""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import orjson

from factory_logs.cli.output import CommandError
from factory_logs.cli.transfer.input_files import ChunkStream, Format
from factory_logs.cli.transfer.rejected_file import COMMENT, FIRST_COMMENT, SECTION
from factory_logs.errors import BadRequestError, FieldError
from factory_logs.schemas.json_values import strict_json

LONGEST_RECORD = 16 * 1024 * 1024
"""The maximum length of a line, value or cell, in bytes or characters."""
DELIMITERS = ",;\t"
JSON_COLUMNS = ("tags", "fields")
_SPACE = re.compile(r"[ \t\r\n]*")
# This decoder only finds the end of a value. Python's own parser of integers refuses more than 4,300 digits.
_DECODER = json.JSONDecoder(parse_int=len)


class JsonRecord(NamedTuple):
    """A record's JSON text. `number` is its line number, from 1."""

    number: int
    json: bytes
    context: str = ""

    @property
    def text(self) -> str:
        """Return the record as one line."""
        return self.json.decode("utf-8", "surrogateescape").replace("\n", " ").replace("\r", " ")

    @property
    def size(self) -> int:
        return len(self.json)

    @property
    def raw(self) -> bytes:
        """Return all that the record is read from."""
        return self.json

    def as_object(self) -> dict[str, Any]:
        """Return the record. Raises BadRequestError."""
        self.check()
        try:
            value = orjson.loads(self.json)
        except orjson.JSONDecodeError as error:
            raise BadRequestError(f"Unable to decode data: {error.msg}") from None
        if not isinstance(value, dict):
            raise BadRequestError("expected an object")
        return value

    def check(self) -> None:
        """Raise BadRequestError if the text is longer than a record may be."""
        if len(self.json) > LONGEST_RECORD:
            raise BadRequestError(f"the record is over the limit of {LONGEST_RECORD} bytes")


class CsvRecord(NamedTuple):
    """A row and its header. `context` is the text of the header, and `number` is the number of the row's first line,
    from 1."""

    number: int
    row: str
    context: str
    columns: "Sequence[CsvColumn]"
    cells: Sequence[str]

    @property
    def text(self) -> str:
        """Return the row. If it begins like a comment, its first cell is quoted."""
        if not self.row.startswith(COMMENT.decode()):
            return self.row
        quoted = self.cells[0].replace('"', '""')
        return f'"{quoted}"{self.row[len(self.cells[0]) :]}'

    @property
    def size(self) -> int:
        return len(self.row)

    @property
    def raw(self) -> bytes:
        """Return all that the record is read from."""
        return f"{self.context}{self.row}".encode()

    def as_object(self) -> dict[str, Any]:
        """Return the record. An empty cell is null. Raises BadRequestError that names the column."""
        if len(self.cells) != len(self.columns):
            raise BadRequestError(f"has {len(self.cells)} cells, the header has {len(self.columns)}")
        record: dict[str, Any] = {}
        for column, cell in zip(self.columns, self.cells, strict=True):
            if cell != "":
                _set(record, column, cell)
        return record


FileRecord = JsonRecord | CsvRecord
Stream: TypeAlias = "io.BufferedReader[ChunkStream]"


@dataclass(frozen=True, slots=True)
class CsvColumn:
    """The part of a record that a column contains: the field `field`, or the value at `path` in its JSON."""

    name: str
    field: str
    path: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class CsvColumns:
    """Resolves the columns of a header: fields of a record, or names that options declare as tags or fields."""

    known: Sequence[str]
    tags: Sequence[str] = ()
    fields: Sequence[str] = ()

    def of(self, header: Sequence[str], where: str) -> list[CsvColumn]:
        """Return the columns of a header. Raises CommandError for an unknown or repeated column."""
        for name in header:
            if header.count(name) > 1:
                raise CommandError(f"{where}: {name!r} occurs twice")
        return [self._column(name, where) for name in header]

    def _column(self, name: str, where: str) -> CsvColumn:
        field, *path = name.split(".")
        if name in self.known:
            return CsvColumn(name, name)
        if name in self.tags:
            return CsvColumn(name, "tags", [name])
        if name in self.fields:
            return CsvColumn(name, "fields", [name])
        if field in JSON_COLUMNS and field in self.known and path[-1] != "":
            return CsvColumn(name, field, path)
        hint = "; --tag-column or --field-column makes it one" if "tags" in self.known else ""
        raise CommandError(f"{where}: {name!r} is not a known column{hint}")


def records(name: str, file_format: Format, chunks: Iterator[bytes], columns: CsvColumns) -> Iterator[FileRecord]:
    """Yield the records of a file. Raises CommandError if it cannot be read to its end."""
    try:
        stream = io.BufferedReader(ChunkStream(chunks), buffer_size=64 * 1024)
        is_commented = stream.peek(len(FIRST_COMMENT)).startswith(FIRST_COMMENT)
        match file_format:
            case Format.CSV:
                yield from _csv_records(name, stream, columns, is_commented)
            case Format.JSON if not is_commented:
                yield from _json_records(name, stream)
            case _:
                yield from _ndjson_records(stream, is_commented)
    except UnicodeDecodeError:
        raise CommandError(f"{name}: the text is not UTF-8") from None
    except csv.Error as error:
        raise CommandError(f"{name}: {error}") from None


def _ndjson_records(stream: Stream, is_commented: bool) -> Iterator[FileRecord]:
    number, is_rest = 0, False
    while line := stream.readline(LONGEST_RECORD + 2):
        was_rest, is_rest = is_rest, not line.endswith(b"\n")
        if was_rest:  # the rest of a line that is too long
            continue
        number += 1
        text = line.strip()
        if text and not (is_commented and line.startswith(COMMENT)):
            yield JsonRecord(number, text)


def _json_records(name: str, stream: Stream) -> Iterator[FileRecord]:
    """Yield the elements of an array, or consecutive values."""
    values = _JsonValues(name, stream)
    is_array = values.skip("[")
    if is_array and values.skip("]"):
        values.end()
        return
    while not values.at_end():
        yield values.next()
        if is_array and not values.skip(","):
            values.expect("]")
            values.end()
            return
    if is_array:
        values.fail("the array has no end")


class _JsonValues:
    """Splits JSON text into values without reading all of it at once."""

    def __init__(self, name: str, stream: Stream) -> None:
        self._name = name
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._at = 0
        self._line = 1
        self._is_whole = False

    def next(self) -> JsonRecord:
        """Return the next value. Raises CommandError."""
        self._skip_space()
        while True:
            try:
                _, end = _DECODER.raw_decode(self._text, self._at)
            except RecursionError:
                self.fail("arrays and objects nest too deep")
            except json.JSONDecodeError as error:
                if self._is_whole or len(self._text) - self._at > LONGEST_RECORD:
                    self._advance(min(error.pos, len(self._text)))
                    self.fail(error.msg)
            else:
                if end < len(self._text) or self._is_whole:
                    break
            self._read()
        value = JsonRecord(self._line, self._text[self._at : end].encode("utf-8", "surrogatepass"))
        self._advance(end)
        return value

    def skip(self, character: str) -> bool:
        """Skip white space and this character; return whether it was present."""
        self._skip_space()
        if not self._text.startswith(character, self._at):
            return False
        self._advance(self._at + 1)
        return True

    def expect(self, character: str) -> None:
        if not self.skip(character):
            self.fail(f"expected , or {character}")

    def at_end(self) -> bool:
        self._skip_space()
        return self._at == len(self._text)

    def end(self) -> None:
        if not self.at_end():
            self.fail("there is text after the array")

    def fail(self, message: str) -> None:
        raise CommandError(f"{self._name}:{self._line}: {message}")

    def _skip_space(self) -> None:
        while True:
            found = _SPACE.match(self._text, self._at)
            self._advance(found.end() if found else self._at)
            if self._at < len(self._text) or self._is_whole:
                return
            self._read()

    def _advance(self, at: int) -> None:
        self._line += self._text.count("\n", self._at, at)
        self._at = at

    def _read(self) -> None:
        """Read everything that is already buffered, so that a long value is scanned only a few times."""
        rest = self._text[self._at :]
        data = self._stream.read(max(64 * 1024, len(rest)))
        self._is_whole = not data
        self._text, self._at = rest + self._decoder.decode(data, final=self._is_whole), 0


def _csv_records(name: str, stream: Stream, columns: CsvColumns, is_commented: bool) -> Iterator[FileRecord]:
    csv.field_size_limit(LONGEST_RECORD)
    lines = _CsvLines(io.TextIOWrapper(stream, "utf-8", newline=""))
    header: list[CsvColumn] | None = None
    context, rows = "", csv.reader(lines, strict=True)
    while (line := lines.peek()) is not None:
        if is_commented and line.startswith(COMMENT.decode()):
            header = None if SECTION.fullmatch(line.encode()) else header
            next(lines)
            continue
        lines.taken.clear()
        number = lines.number
        if header is None:
            rows = csv.reader(lines, strict=True, delimiter=_delimiter(line))
            header, context = columns.of(next(rows, []), f"{name}:{number}"), "".join(lines.taken)
            continue
        cells = next(rows)
        if cells:
            yield CsvRecord(number, "".join(lines.taken).rstrip("\r\n"), context, header, cells)


class _CsvLines:
    """The lines of a text, one by one. `number` is the number of the next line. `taken` contains the lines returned so
    far. Raises csv.Error for a line that is too long to be held in memory."""

    def __init__(self, text: io.TextIOBase) -> None:
        self._text = text
        self._next = self._read()
        self.number = 1
        self.taken: list[str] = []

    def peek(self) -> str | None:
        return self._next

    def __iter__(self) -> "_CsvLines":
        return self

    def __next__(self) -> str:
        if self._next is None:
            raise StopIteration
        line, self._next = self._next, self._read()
        self.number += 1
        self.taken.append(line)
        return line

    def _read(self) -> str | None:
        line = self._text.readline(LONGEST_RECORD + 1)
        if len(line) > LONGEST_RECORD:
            raise csv.Error(f"a line is longer than {LONGEST_RECORD} characters")
        return line or None


def _delimiter(header: str) -> str:
    """Return the separator that results in the most cells. Excel writes semicolons if the decimal sign is a comma."""
    return max(DELIMITERS, key=lambda delimiter: len(next(csv.reader([header], delimiter=delimiter), [])))


def _set(record: dict[str, Any], column: CsvColumn, cell: str) -> None:
    if not column.path:
        if column.field in record:
            raise _bad_cell(column.field, f"put it before the columns {column.field}.…")
        record[column.field] = _json(column.field, cell) if column.field in JSON_COLUMNS else cell
        return
    value = cell if column.field == "tags" else _cell_value(cell)
    parent = record
    for part in (column.field, *column.path[:-1]):
        parent = parent.setdefault(part, {})
        if not isinstance(parent, dict):
            raise _bad_cell(column.name, f"{part} is not an object")
    if column.path[-1] in parent:
        raise _bad_cell(column.name, "another column also contains this value")
    parent[column.path[-1]] = value


def _json(column: str, cell: str) -> Any:
    try:
        return strict_json(cell)
    except (ValueError, RecursionError):
        raise _bad_cell(column, "expected JSON") from None


def _cell_value(cell: str) -> Any:
    try:
        return _json("", cell)
    except BadRequestError:
        return cell


def _bad_cell(column: str, message: str) -> BadRequestError:
    return BadRequestError("Validation failed", [FieldError(column, message)])
