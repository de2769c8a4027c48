"""Reading stored rows as JSON text, byte for byte what SPEC 1 shows.

A page travels as one value, and of the worker's time a record costs a tenth of what it would cost as a row
(docs/reading.md).
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import asyncpg
import orjson
from sqlalchemy import (
    BigInteger,
    Row,
    Select,
    Table,
    func,
    literal,
    literal_column,
    select,
)

from factory_logs.db.engine import Database
from factory_logs.db.log_writes import LogRow, Stored
from factory_logs.db.models import FactoryLog
from factory_logs.db.record_text import json_rows, json_text
from factory_logs.db.slots import Slot
from factory_logs.schemas.timestamps import format_timestamp

Record = dict[str, Any]


class RecordRepository:
    """The rows of one table: one by id, one page of a query, how many a query selects."""

    def __init__(self, database: Database, table: Table) -> None:
        self._database = database
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
        async with self._database.connect_autocommit() as connection:
            return [(record_id, text) for text, record_id in await connection.execute(statement)]

    async def newest(self, count: Select[Any]) -> tuple[Sequence[Any], int]:
        """The one row of the statement `count`, and the highest id, 0 where there is none; as of one moment."""
        counted = count.subquery()
        highest = select(func.coalesce(func.max(self._key), literal_column("0"))).scalar_subquery()
        async with self._database.connect_autocommit() as connection:
            *total, newest = (await connection.execute(select(*counted.columns, highest))).one()
        return total, newest

    async def keys(self, statement: Select[Any]) -> tuple[Any, ...] | None:
        """The one row of a statement that has no records; None where there is none."""
        async with self._database.connect_autocommit() as connection:
            row = (await connection.execute(statement)).one_or_none()
            return None if row is None else tuple(row)


def one_page(rows: Select[Any], count: Select[Any], table: Table, offset: int | Slot, size: int | Slot) -> Select[Any]:
    """One row: the columns of the statement `count`, then the records of one page with commas between them, or null.

    In one statement, which is one round trip and one moment.
    """
    page = rows.offset(literal(offset, BigInteger)).limit(literal(size, BigInteger))
    records = json_rows(page, table).subquery()
    objects = select(func.string_agg(records.c.record, literal_column("','"))).scalar_subquery()
    return select(*count.subquery().columns, objects)


_LOGS = FactoryLog.__table__
assert isinstance(_LOGS, Table)  # noqa: S101 - a declarative model maps a table
_BY_ID = f"SELECT factory_log_id, {json_text(_LOGS)} FROM factory_logs WHERE factory_log_id = ANY($1::bigint[])"  # noqa: S608


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
