"""Files of records, line by line: NDJSON as it is, CSV as the objects it stands for."""

import csv
import gzip
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, BinaryIO, cast

from factory_logs.cli.reporting import CommandError
from factory_logs.cli.transfer import Format

LONGEST_CELL = 16 * 1024 * 1024
_SUFFIXES = {".ndjson": Format.NDJSON, ".jsonl": Format.NDJSON, ".csv": Format.CSV, ".lp": Format.LINE_PROTOCOL}
_INTEGER = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_JSON_COLUMNS = ("tags", "fields")


class CellError(ValueError):
    """A cell cannot be read; the arguments are the column and what is wrong."""


@dataclass(frozen=True, slots=True)
class Source:
    """An open file. `position` is how many bytes of `size` (None for stdin) have been read."""

    name: str
    format: Format
    stream: BinaryIO
    position: Callable[[], int]
    size: int | None


def is_packed(name: str) -> bool:
    return PurePath(name).suffix.lower() == ".gz"


def format_of(name: str, file_format: Format | None) -> Format:
    """The format that was told, or that the file's name tells. Raises CommandError where neither does."""
    path = PurePath(name)
    found = file_format or _SUFFIXES.get((path.with_suffix("") if is_packed(name) else path).suffix.lower())
    if found is None:
        raise CommandError(f"{name}: the name does not tell the format; add --format ndjson, csv, lp or influx-csv")
    return found


@contextmanager
def opened(name: str, file_format: Format | None) -> Iterator[Source]:
    """The file, unpacked where its name ends in .gz. Raises CommandError where it cannot be read to its end."""
    packed = is_packed(name)
    found = format_of(name, file_format)
    try:
        with ExitStack() as stack:
            if name == "-":
                yield Source("stdin", found, sys.stdin.buffer, lambda: 0, None)
                return
            raw = stack.enter_context(open(name, "rb"))
            stream = cast(BinaryIO, stack.enter_context(gzip.open(raw))) if packed else raw
            size = raw.seek(0, io.SEEK_END) if raw.seekable() else None
            if size is not None:
                raw.seek(0)
            yield Source(name, found, stream, raw.tell if raw.seekable() else lambda: 0, size)
    except (gzip.BadGzipFile, zlib.error, EOFError):
        raise CommandError(f"{name}: the gzip data is damaged or cut off") from None
    except UnicodeDecodeError:
        raise CommandError(f"{name}: the text is not UTF-8") from None
    except csv.Error as error:
        raise CommandError(f"{name}: {error}") from None
    except OSError as error:
        if error.filename is None:
            raise
        raise CommandError(f"{name}: {error.strerror}") from None


def json_lines(source: Source) -> Iterator[tuple[int, bytes]]:
    """The lines that are not blank, each with its number from 1."""
    for number, line in enumerate(source.stream, 1):
        text = line.removeprefix(b"\xef\xbb\xbf").strip() if number == 1 else line.strip()
        if text:
            yield number, text


def csv_rows(source: Source, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, Any] | CellError]]:
    """The rows as objects, each with the number of its first line. Raises CommandError for a wrong header.

    An empty cell is null. `tags` and `fields` hold JSON; `tags.jig_id` holds text, `fields.voltage` JSON or else text.
    """
    text = io.TextIOWrapper(source.stream, "utf-8-sig", newline="")
    try:
        yield from _csv_rows(source.name, text, columns)
    finally:
        text.detach()  # or it would close the file, which is not its own


def _csv_rows(
    file_name: str, text: io.TextIOWrapper, columns: Sequence[str]
) -> Iterator[tuple[int, dict[str, Any] | CellError]]:
    csv.field_size_limit(LONGEST_CELL)
    rows = csv.reader(text, strict=True)
    header = next(rows, [])
    for name in header:
        known = name in columns or (name.partition(".")[0] in set(_JSON_COLUMNS) & set(columns) and name[-1:] != ".")
        if not known or header.count(name) > 1:
            raise CommandError(f"{file_name}:1: {name!r} is {'named twice' if known else 'not a known column'}")
    while True:
        line = rows.line_num + 1
        cells = next(rows, None)
        if cells is None:
            return
        if not cells:
            continue
        try:
            yield line, _record(header, cells)
        except CellError as error:
            yield line, error


def _record(header: Sequence[str], cells: Sequence[str]) -> dict[str, Any]:
    if len(cells) != len(header):
        raise CellError("", f"has {len(cells)} cells, the header has {len(header)}")
    record: dict[str, Any] = {}
    for name, cell in zip(header, cells, strict=True):
        if cell == "":
            continue
        column, *path = name.split(".")
        if path:
            _put(record, [column, *path], cell if column == "tags" else _json_or_text(cell))
        elif column in _JSON_COLUMNS:
            value = _json(column, cell)
            if column in record:
                raise CellError(column, f"put it before the columns {column}.…")
            record[column] = value
        else:
            record[column] = cell
    return record


def _put(record: dict[str, Any], path: Sequence[str], value: object) -> None:
    place = record
    for part in path[:-1]:
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise CellError(".".join(path), f"{part} is no object")
    place[path[-1]] = value


def _json(column: str, cell: str) -> Any:
    try:
        return json.loads(cell, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise CellError(column, "expected JSON") from None


def _json_or_text(cell: str) -> Any:
    try:
        return _json("", cell)
    except CellError:
        return cell


def _refuse_constant(name: str) -> None:
    raise ValueError(name)


def as_integer(text: object) -> object:
    """A cell of digits as an int; anything else as it is, to be refused by the record's own rules."""
    return int(text) if isinstance(text, str) and _INTEGER.fullmatch(text) else text


def as_number(text: object) -> object:
    try:
        return float(text) if isinstance(text, str) else text
    except ValueError:
        return text
