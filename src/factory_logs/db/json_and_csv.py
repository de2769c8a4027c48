"""SQL that writes records as text: JSON byte for byte as the contract shows it (docs/reference/http-api.md#records),
and lines of CSV.

PostgreSQL writes the text, because it already has `tags` and `fields` as JSON, and because a record that arrives as one
value costs the worker very little. The SQL is text and not an expression tree, which SQLAlchemy would compile in more
time than the query takes. It contains only names of our own columns. The names are unqualified, because the rows may
come from the table or from a subquery.
"""

import csv
import io
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import Column, Float, Integer, Select, String, Table, Text, literal_column
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP

from factory_logs.schemas.formulas import FORMULA_STARTS

# PostgreSQL omits trailing zeros of a fraction. asyncpg stores datetime.min and datetime.max as -infinity and infinity.
# Rounding a time is cheap, but writing it as text is not, so the SQL writes it once.
_MOMENT = f"""CASE WHEN {{0}} <> {{0}}::timestamp(0) THEN rpad({{0}}::text, 26, '0')
    WHEN {{0}} = 'infinity' THEN '{datetime.max}' WHEN {{0}} = '-infinity' THEN '{datetime.min}' ELSE {{0}}::text END"""
# PostgreSQL also omits the fraction of a float if it is zero.
_FLOAT = "CASE WHEN {0} ~ '^-?[0-9]+$' THEN {0} || '.0' ELSE {0} END"
_CSV_CELL = """CASE WHEN {0} ~ '[,"\\r\\n]' THEN '"' || replace({0}, '"', '""') || '"' ELSE {0} END"""


_FORMULA = f"CASE WHEN {{0}} ~ '^[{FORMULA_STARTS}]' THEN '''' || {{0}} ELSE {{0}} END"


def json_rows(rows: Select[Any], table: Table) -> Select[Any]:
    """Return the statement with each row as one column `record` of JSON text."""
    return _as_text(rows, json_text(table))


def ndjson_rows(rows: Select[Any], table: Table) -> Select[Any]:
    """Return the statement with each row as a line of NDJSON."""
    return _as_text(rows, f"{json_text(table)} || E'\\n'")


def csv_rows(rows: Select[Any], table: Table, *, escape_formulas: bool = False) -> Select[Any]:
    """Return the statement with each row as a line of CSV; null is an empty cell.

    `escape_formulas` puts an apostrophe before texts that a spreadsheet would run as a formula.
    """
    return _as_text(rows, _csv_line(table, escape_formulas))


def csv_header(table: Table) -> str:
    """Return the first line of a CSV: the names of the columns."""
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(table.columns.keys())
    return line.getvalue()


@cache
def json_text(table: Table) -> str:
    """Return SQL for a row of the table as a JSON object, its members in the order of the columns.

    Each `||` copies the text before it, so all fixed text between two values is one literal.
    """
    text = "'{"
    for column in table.columns:
        comma = "" if text == "'{" else ","
        quote, value = _json(column)
        text += f"""{comma}"{column.name}":{quote}' || {value} || '{quote}"""
    return text + "}'"


@cache
def _csv_line(table: Table, escape_formulas: bool) -> str:
    cells = (f"coalesce({_csv_cell(column, escape_formulas)}, '')" for column in table.columns)
    return " || ',' || ".join(cells) + " || E'\\n'"


def _csv_cell(column: Column[Any], escape_formulas: bool) -> str:
    text = _plain(column)
    if not _may_need_quotes(column):
        return text
    if escape_formulas and isinstance(column.type, String):  # JSON text never begins a formula
        text = f"({_FORMULA.format(text)})"
    return _CSV_CELL.format(text)


def _as_text(rows: Select[Any], text: str) -> Select[Any]:
    return rows.with_only_columns(literal_column(text, Text).label("record"), maintain_column_froms=True)


def _json(column: Column[Any]) -> tuple[str, str]:
    """Return the quote to put on both sides of the column's value, and SQL for the value as JSON."""
    is_moment = isinstance(column.type, TIMESTAMP)
    value = f"to_json({_plain(column)})::text" if isinstance(column.type, String) else _plain(column)
    if not column.nullable:
        return '"' if is_moment else "", value
    quoted = f"""'"' || {value} || '"'""" if is_moment else value
    return "", f"coalesce({quoted}, 'null')"


def _plain(column: Column[Any]) -> str:
    """Return SQL for the column's value as text, null for null."""
    text = f'"{column.name}"::text'
    match column.type:
        case TIMESTAMP():
            return _MOMENT.format(f'"{column.name}"')
        case Float():
            return _FLOAT.format(text)
        case String() | Integer() | JSONB():
            return text
    raise TypeError(f"no text format is defined for {column}")


def _may_need_quotes(column: Column[Any]) -> bool:
    return isinstance(column.type, String | JSONB)
