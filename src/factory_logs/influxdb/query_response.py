"""Write InfluxQL results in the formats of InfluxDB 1.x: JSON, in chunks if the client requests it, or CSV.

As in Go, floats without a fraction are written as integers, and `<`, `>` and `&` are escaped.
"""

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC
from decimal import Decimal
from typing import Any

import orjson

from factory_logs.influxql.evaluation import Value, quotient
from factory_logs.influxql.series import Result, ResultSeries
from factory_logs.influxql.text import format_time

EPOCHS = {
    "ns": 1, "n": 1, "u": 1_000, "ms": 1_000_000, "s": 1_000_000_000, "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}  # fmt: skip
DEFAULT_CHUNK_ROWS = 10_000
LARGEST_WHOLE = 2**53
_ESCAPES = ((b"<", b"\\u003c"), (b">", b"\\u003e"), (b"&", b"\\u0026"), ("\u2028".encode(), b"\\u2028"),
            ("\u2029".encode(), b"\\u2029"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the results of one statement. `is_partial` means that another part follows."""

    result: Result
    is_partial: bool = False
    has_more_rows: bool = False
    """Whether more rows of the same series follow in the next piece."""
    rows: int = 0
    """The maximum number of rows in a piece; 0 if the result is not split."""


def pieces(result: Result, rows: int) -> Iterator[Piece]:
    """Yield a result in pieces of one series with at most `rows` rows each."""
    if not result.series:
        yield Piece(result)
    for index, series in enumerate(result.series):
        if not result.is_divided:
            yield Piece(replace(result, series=[series]))
            continue
        is_last = index == len(result.series) - 1
        for begin in range(0, max(1, len(series.rows)), rows):
            has_more = begin + rows < len(series.rows)
            part = replace(series, rows=series.rows[begin : begin + rows])
            yield Piece(replace(result, series=[part]), has_more or not is_last, has_more, rows)


class JsonWriter:
    """Writes JSON. `epoch` is the unit of times in nanoseconds; None writes them in the format of RFC 3339."""

    content_type = "application/json"

    def __init__(self, epoch: int | None, *, pretty: bool = False) -> None:
        self._epoch = epoch
        self._pretty = pretty

    def error(self, message: str) -> bytes:
        """Return the body for an error of the whole request."""
        return self._written({"error": message})

    def document(self, found: Sequence[Piece]) -> bytes:
        """Return one JSON document with these results."""
        return self._written({"results": [self._result(each) for each in found]} if found else {})

    def _written(self, content: object) -> bytes:
        text = orjson.dumps(content)
        for character, escape in _ESCAPES:
            if character in text:
                text = text.replace(character, escape)
        return (indented(text) if self._pretty else text) + b"\n"

    def _result(self, piece: Piece) -> dict[str, Any]:
        found: dict[str, Any] = {"statement_id": piece.result.statement_id}
        if piece.result.series:
            found["series"] = [self._series(each, piece) for each in piece.result.series]
        if piece.is_partial:
            found["partial"] = True
        if piece.result.error is not None:
            found["error"] = piece.result.error
        return found

    def _series(self, series: ResultSeries, piece: Piece) -> dict[str, Any]:
        found: dict[str, Any] = {}
        if series.name:
            found["name"] = series.name
        if series.tags:
            found["tags"] = dict(sorted(series.tags.items()))
        found["columns"] = series.columns
        if series.rows:
            found["values"] = self._rows(series)
        is_long = piece.result.is_divided and len(series.rows) > max(DEFAULT_CHUNK_ROWS, piece.rows)
        if piece.has_more_rows or is_long:
            found["partial"] = True  # InfluxDB joins the pieces of such a series and keeps the mark of the first piece
        return found

    def _rows(self, series: ResultSeries) -> Sequence[Sequence[Any]]:
        if not series.has_time:
            return series.rows
        times, *columns = zip(*series.rows, strict=True)
        shown = [[number(each) if isinstance(each, float) else each for each in column] for column in columns]
        return list(zip([self._time(series, time) for time in times], *shown, strict=True))

    def _time(self, series: ResultSeries, time: Value) -> int | str:
        moment = int(time or 0)
        if self._epoch is None:
            return format_time(moment, series.zone or UTC)
        return quotient(moment, self._epoch)


def number(value: float) -> Any:
    """Return a value that is written in the same way as Go writes the float."""
    if value.is_integer():
        if abs(value) < LARGEST_WHOLE and (value or math.copysign(1, value) > 0):
            return int(value)
    elif 1e-4 <= abs(value) < LARGEST_WHOLE:
        return value
    return orjson.Fragment(number_text(value))


def number_text(value: float) -> str:
    """Return the shortest text of a float, with an exponent below 1e-6 and from 1e21."""
    if value and not 1e-6 <= abs(value) < 1e21:
        mantissa, _, exponent = repr(value).partition("e")
        sign, digits = exponent[0], exponent[1:].lstrip("0")
        return f"{mantissa.removesuffix('.0')}e{sign}{digits}"
    return format(Decimal(repr(value)), "f").removesuffix(".0")


def indented(text: bytes) -> bytes:
    """Return the JSON with each member on its own line, indented by four spaces."""
    parts, depth, position, begin = [], 0, 0, 0
    source = text.decode()
    while position < len(source):
        character = source[position]
        if character == '"':
            position = _end_of_string(source, position)
            continue
        if character in "[{":
            if source[position + 1] in "]}":
                position += 2
                continue
            depth += 1
            parts.append(source[begin : position + 1] + "\n" + "    " * depth)
            begin = position + 1
        elif character in "]}":
            depth -= 1
            parts.append(source[begin:position] + "\n" + "    " * depth)
            begin = position
        elif character == ",":
            parts.append(source[begin : position + 1] + "\n" + "    " * depth)
            begin = position + 1
        elif character == ":":
            parts.append(source[begin : position + 1] + " ")
            begin = position + 1
        position += 1
    return ("".join(parts) + source[begin:]).encode()


def _end_of_string(source: str, position: int) -> int:
    position += 1
    while source[position] != '"':
        position += 2 if source[position] == "\\" else 1
    return position + 1


class CsvWriter:
    """Writes CSV: one line per row, with name and tags of its series. An empty line separates statements."""

    content_type = "text/csv"

    def __init__(self, epoch: int | None) -> None:
        self._epoch = epoch or 1
        self._statement_id: int | None = None
        self._columns: Sequence[str] = ()

    def error(self, message: str) -> bytes:
        """Return the body for an error of the whole request."""
        return self._lines([["error"], [message]])

    def document(self, found: Sequence[Piece]) -> bytes:
        """Return the CSV lines of these results."""
        return b"".join(self._result(piece.result) for piece in found)

    def _result(self, result: Result) -> bytes:
        text = b""
        for series in result.series:
            if result.statement_id != self._statement_id or list(series.columns) != list(self._columns):
                text += b"" if self._statement_id is None else b"\n"
                text += self._lines([["name", "tags", *series.columns]])
                self._statement_id, self._columns = result.statement_id, series.columns
            tags = ",".join(f"{_escaped(key)}={_escaped(value)}" for key, value in sorted(series.tags.items()) if value)
            text += self._lines([[series.name, tags, *self._row(series, row)] for row in series.rows])
        return text

    def _row(self, series: ResultSeries, row: list[Value]) -> list[str]:
        if not series.has_time:
            return [_cell(value) for value in row]
        return [str(quotient(int(row[0] or 0), self._epoch)), *(_cell(value) for value in row[1:])]

    def _lines(self, rows: Sequence[Sequence[str]]) -> bytes:
        target = io.StringIO()
        csv.writer(target, lineterminator="\n").writerows(rows)
        return target.getvalue().encode()


def _cell(value: Value) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return format(Decimal(repr(value)), "f").removesuffix(".0")
    return str(value)


def _escaped(text: str) -> str:
    for character in ",= ":
        text = text.replace(character, f"\\{character}")
    return text
