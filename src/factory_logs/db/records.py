"""Reading stored rows, as the JSON-ready mappings that the API answers with."""

from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import BigInteger, Row, Select, Table, literal, select

from factory_logs.db.engine import Database, translate_errors
from factory_logs.db.log_writes import LogRow, Stored
from factory_logs.schemas.timestamps import format_timestamp

Record = dict[str, Any]


class RecordRepository:
    """The rows of one table: one by id, one page of a query, how many a query selects."""

    def __init__(self, database: Database, table: Table) -> None:
        self._database = database
        self._table = table
        (self._key,) = table.primary_key.columns

    async def get(self, record_id: int) -> Record | None:
        """The record with this id, or None; any int is a legal id to ask for."""
        if not 0 < record_id < 2**63:
            return None
        # As a bigint even where the key is an int: an id beyond an int is the id of no record, not a fault.
        rows = await self.rows(select(self._table).where(self._key == literal(record_id, BigInteger)))
        return rows[0] if rows else None

    async def rows(self, statement: Select[Any]) -> list[Record]:
        with translate_errors():
            async with self._database.engine.connect() as connection:
                return [as_record(row) for row in await connection.execute(statement)]

    async def page(self, rows: Select[Any], count: Select[int], offset: int, size: int) -> tuple[int, list[Record]]:
        """How many records there are in all, and those of one page, as of one moment."""
        with translate_errors():
            async with self._database.engine.connect() as connection:
                await connection.execution_options(isolation_level="REPEATABLE READ")
                total = (await connection.execute(count)).scalar_one()
                if offset >= total:
                    return total, []
                found = await connection.execute(rows.offset(offset).limit(size))
                return total, [as_record(row) for row in found]


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
