"""Reading stored rows as JSON text, byte for byte what SPEC 1 shows.

PostgreSQL writes the text, not Python: it has `tags` and `fields` as JSON already, a page travels as one value, and of
the worker's time a record costs a tenth of what it would cost as a row (docs/reading.md).
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from functools import cache
from typing import Any

import asyncpg
import orjson
from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Integer,
    Row,
    Select,
    String,
    Table,
    Text,
    func,
    literal,
    literal_column,
    select,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.ext.asyncio import AsyncConnection

from factory_logs.db.engine import Database
from factory_logs.db.log_writes import LogRow, Stored
from factory_logs.db.models import FactoryLog
from factory_logs.schemas.timestamps import format_timestamp

Record = dict[str, Any]
LARGEST_OFFSET = 2**62
"""What lies beyond is past the end as well, and fits in a bigint."""


class RecordRepository:
    """The rows of one table: one by id, one page of a query, how many a query selects."""

    def __init__(self, database: Database, table: Table) -> None:
        self._database = database
        self._engine = database.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._table = table
        (self._key,) = table.primary_key.columns

    async def get(self, record_id: int) -> str | None:
        """The record with this id, or None; any int is a legal id to ask for."""
        if not 0 < record_id < 2**63:
            return None
        # As a bigint even where the key is an int: an id beyond an int is the id of no record, not a fault.
        found = await self.found(select(self._table).where(self._key == literal(record_id, BigInteger)))
        return found[0][1] if found else None

    async def found(self, rows: Select[Any]) -> list[tuple[int, str]]:
        """The records that the statement gives, each with its id."""
        statement = json_rows(rows, self._table).add_columns(rows.selected_columns[self._key.name])
        async with self.connect() as connection:
            return [(record_id, text) for text, record_id in await connection.execute(statement)]

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[AsyncConnection]:
        """A connection where each statement is a transaction of its own. Failures are translated."""
        async with self._database.answering(), self._engine.connect() as connection:
            yield connection

    async def page(
        self, connection: AsyncConnection, rows: Select[Any], count: Select[Any], offset: int, size: int
    ) -> tuple[Sequence[Any], str]:
        """The one row of the statement `count`, and the records of one page with commas between them.

        In one statement, which is one round trip and one moment.
        """
        one_page = json_rows(rows.offset(min(offset, LARGEST_OFFSET)).limit(size), self._table).subquery()
        objects = select(func.string_agg(one_page.c.record, literal_column("','"))).scalar_subquery()
        counted = count.subquery()
        *total, text = (await connection.execute(select(*counted.columns, objects))).one()
        return total, text or ""

    async def rows(self, statement: Select[Any]) -> list[Record]:
        """The rows themselves."""
        async with self.connect() as connection:
            return [as_record(row) for row in await connection.execute(statement)]


def json_rows(rows: Select[Any], table: Table) -> Select[Any]:
    """The same rows in the same order, each as one column `record` of JSON text."""
    return rows.with_only_columns(literal_column(_json_text(table), Text).label("record"), maintain_column_froms=True)


# PostgreSQL leaves out the last zeros of a fraction. The first and the last microsecond of datetimes asyncpg stores as
# -infinity and infinity.
_MOMENTS = f"WHEN 19 THEN {{}} WHEN 8 THEN '{datetime.max}' WHEN 9 THEN '{datetime.min}'"


@cache
def _json_text(table: Table) -> str:
    """SQL for a row of the table as the text of a JSON object, its members in the order of the columns.

    Text, not an expression tree: that would cost SQLAlchemy more than the query. Only names of our own are in it, and
    unqualified, so that the rows may come from the table or from a subquery.
    """
    members = [f"""'"{column.name}":' || coalesce({_value(column)}, 'null')""" for column in table.columns]
    return "'{' || " + " || ',' || ".join(members) + " || '}'"


def _value(column: Column[Any]) -> str:
    """SQL for the JSON text of one column, null for null."""
    text = f'"{column.name}"::text'
    match column.type:
        case TIMESTAMP():
            return f"""'"' || CASE length({text}) {_MOMENTS} ELSE rpad({text}, 26, '0') END || '"'""".format(text)
        case Integer() | JSONB():
            return text
        case Float():  # and all of a fraction that is zero
            return f"CASE WHEN {text} ~ '^-?[0-9]+$' THEN {text} || '.0' ELSE {text} END"
        case String():
            return f"to_json({text})::text"
    raise TypeError(f"no JSON text is known for {column}")


_LOGS = FactoryLog.__table__
assert isinstance(_LOGS, Table)  # noqa: S101 - a declarative model maps a table
_BY_ID = f"SELECT factory_log_id, {_json_text(_LOGS)} FROM factory_logs WHERE factory_log_id = ANY($1::bigint[])"  # noqa: S608


async def logs_by_id(connection: asyncpg.Connection, ids: Sequence[int]) -> dict[int, str]:
    """Those of the logs that there are, in one round trip. On asyncpg itself: this is a hot path."""
    return dict(await connection.fetch(_BY_ID, ids))


def as_record(row: Row[Any]) -> Record:
    """A row with its datetimes in the form of SPEC 1."""
    # str(): orjson takes exact strings alone as keys, and a subquery's column names are a subclass.
    return {str(name): format_timestamp(v) if isinstance(v, datetime) else v for name, v in row._mapping.items()}


def log_record(log: LogRow, stored: Stored, created_by: str | None) -> Record:
    """What a GET of a log just stored will give."""
    return {
        "factory_log_id": stored.factory_log_id,
        "app_name": log.app_name,
        "product_imei": log.product_imei,
        "repair_id": log.repair_id,
        "timestamp": format_timestamp(log.timestamp),
        "tags": None if log.tags is None else orjson.Fragment(log.tags),
        "fields": None if log.fields is None else orjson.Fragment(log.fields),
        "created_at": format_timestamp(stored.created_at),
        "created_by": created_by,
        "modified_at": None,
        "modified_by": None,
    }
