"""SQL that makes text of records: JSON byte for byte as SPEC 1 shows it, and lines of CSV.

PostgreSQL writes it, not Python: it has `tags` and `fields` as JSON text already, and a record that crosses the wire as
one value costs the worker next to nothing. It is SQL as text, not as an expression tree, which would cost SQLAlchemy
more than the query; only names of our own columns are in it, unqualified, as a statement's rows may come from the table
or from a subquery of the same columns.
"""

import csv
import io
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Column, Float, Integer, Select, String, Table, Text, literal_column
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

# PostgreSQL leaves out the last zeros of a fraction. The first and the last microsecond of datetimes asyncpg stores as
# -infinity and infinity. To round is cheap, and to write a moment is not: it is written once.
_MOMENT = f"""CASE WHEN {{0}} <> {{0}}::timestamp(0) THEN rpad({{0}}::text, 26, '0')
    WHEN {{0}} = 'infinity' THEN '{datetime.max}' WHEN {{0}} = '-infinity' THEN '{datetime.min}' ELSE {{0}}::text END"""
# And all of a float's fraction that is zero.
_FLOAT = "CASE WHEN {0} ~ '^-?[0-9]+$' THEN {0} || '.0' ELSE {0} END"
_CSV_CELL = """CASE WHEN {0} ~ '[,"\\r\\n]' THEN '"' || replace({0}, '"', '""') || '"' ELSE {0} END"""


def json_rows(rows: Select[Any], table: Table) -> Select[Any]:
    """The same rows in the same order, each as one column `record` of JSON text."""
    return _as_text(rows, json_text(table))


def ndjson_rows(rows: Select[Any], table: Table) -> Select[Any]:
    """As json_rows, each with its line's end."""
    return _as_text(rows, f"{json_text(table)} || E'\\n'")


def csv_rows(rows: Select[Any], table: Table) -> Select[Any]:
    """The same rows in the same order, each as a line of CSV; null is an empty cell."""
    return _as_text(rows, _csv_line(table))


def csv_header(table: Table) -> str:
    """The line above those of csv_rows."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(table.columns.keys())
    return line.getvalue()


@cache
def json_text(table: Table) -> str:
    """SQL for a row of the table as a JSON object, its members in the order of the columns.

    Each `||` copies what is there already, so all that is fixed between two values is one literal.
    """
    text = "'{"
    for column in table.columns:
        comma = "" if text == "'{" else ","
        quote, value = _json(column)
        text += f"""{comma}"{column.name}":{quote}' || {value} || '{quote}"""
    return text + "}'"


@cache
def _csv_line(table: Table) -> str:
    cells = (
        f"coalesce({_CSV_CELL.format(_plain(column)) if _may_need_quotes(column) else _plain(column)}, '')"
        for column in table.columns
    )
    return " || ',' || ".join(cells) + " || E'\\n'"


def _as_text(rows: Select[Any], text: str) -> Select[Any]:
    return rows.with_only_columns(literal_column(text, Text).label("record"), maintain_column_froms=True)


def _json(column: Column[Any]) -> tuple[str, str]:
    """What stands on both sides of the column's value, and SQL for the value as JSON."""
    is_moment = isinstance(column.type, TIMESTAMP)
    value = f"to_json({_plain(column)})::text" if isinstance(column.type, String) else _plain(column)
    if not column.nullable:
        return '"' if is_moment else "", value
    quoted = f"""'"' || {value} || '"'""" if is_moment else value
    return "", f"coalesce({quoted}, 'null')"


def _plain(column: Column[Any]) -> str:
    """SQL for the column's value as text, null for null."""
    text = f'"{column.name}"::text'
    match column.type:
        case TIMESTAMP():
            return _MOMENT.format(f'"{column.name}"')
        case Float():
            return _FLOAT.format(text)
        case String() | Integer() | JSONB():
            return text
    raise TypeError(f"no text is known for {column}")


def _may_need_quotes(column: Column[Any]) -> bool:
    return isinstance(column.type, String | JSONB)
