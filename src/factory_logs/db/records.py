"""Read stored rows as JSON text, byte for byte as the contract shows it (docs/reference/http-api.md#records).

PostgreSQL sends a page as one value. So a record costs the worker a tenth of the time of a row
(docs/explanation/reading.md; `python -m benchmarks.reads`).
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

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

from factory_logs.db.citus import is_distributed, runs_on_cluster, shard_key
from factory_logs.db.count_cache import snapshot_state
from factory_logs.db.engine import Database
from factory_logs.db.json_and_csv import json_rows, json_text
from factory_logs.db.log_inserts import LogRow, Stored
from factory_logs.db.models import FactoryLog
from factory_logs.db.prepared_statements import Placeholder
from factory_logs.schemas.timestamps import format_timestamp

Record = dict[str, Any]
RowsAsText = Callable[[Select[Any], Table], Select[Any]]


class RecordRepository:
    """Reads the records of one table."""

    def __init__(self, database: Database, table: Table) -> None:
        self._database = database
        self._table = table
        (self._key,) = table.primary_key.columns

    async def get(self, record_id: int) -> str | None:
        """Return the record with this id, or None. Any int is allowed."""
        if not 0 < record_id < 2**63:
            return None
        # A bigint even if the key is an int: a number that does not fit an int finds no record and causes no error.
        found = await self.found(select(self._table).where(self._key == literal(record_id, BigInteger)))
        return found[0][1] if found else None

    async def found(self, rows: Select[Any], write: RowsAsText = json_rows) -> list[tuple[int, str]]:
        """Return the records that the statement selects, each as text with its id."""
        statement = write(rows, self._table).add_columns(rows.selected_columns[self._key.name])
        async with self._database.connect_reader() as connection:
            return [(record_id, text) for text, record_id in await connection.execute(statement)]

    async def newest(self, count: Select[Any], alone: Select[Any]) -> tuple[Sequence[Any], int]:
        """Return the one row of the statement `count`, and the highest id, or 0; both in one snapshot.

        A cluster has no common snapshot. There, three statements run in turn: `alone`, one for the state of the table
        (the other columns of `count`), and one for the highest id.
        """
        counted = count.subquery()
        highest = select(func.coalesce(func.max(self._key), literal_column("0"))).scalar_subquery()
        async with self._database.connect_reader() as connection:
            if await runs_on_cluster(connection):
                row = tuple((await connection.execute(alone)).one())
                if len(counted.columns) > len(row):
                    row = (*(await snapshot_state(connection))[0], *row)
                return row, (await connection.execute(select(highest))).scalar_one()
            *total, newest = (await connection.execute(select(*counted.columns, highest))).one()
        return total, newest

    async def newest_id(self) -> int:
        """Return the highest id, or 0."""
        async with self._database.connect_reader() as connection:
            return int((await connection.execute(select(func.coalesce(func.max(self._key), 0)))).scalar_one())

    async def keys(self, statement: Select[Any]) -> tuple[Any, ...] | None:
        """Return the single row of a statement that selects values instead of records, or None if there is no row."""
        async with self._database.connect_reader() as connection:
            row = (await connection.execute(statement)).one_or_none()
            return None if row is None else tuple(row)


def one_page(
    rows: Select[Any], count: Select[Any], table: Table, offset: int | Placeholder, size: int | Placeholder
) -> Select[Any]:
    """Return a statement of one row: the columns of `count`, then a page's records with commas between them, or null.

    One statement is one round trip and one snapshot.
    """
    records = page_records(rows, table, offset, size).subquery()
    objects = select(func.string_agg(records.c.record, literal_column("','"))).scalar_subquery()
    return select(*count.subquery().columns, objects)


def page_records(rows: Select[Any], table: Table, offset: int | Placeholder, size: int | Placeholder) -> Select[Any]:
    """Return a statement of a page's records, each in a row."""
    return json_rows(rows.offset(literal(offset, BigInteger)).limit(literal(size, BigInteger)), table)


_LOGS = FactoryLog.__table__
assert isinstance(_LOGS, Table)  # noqa: S101 - a declarative model maps a table
_BY_ID = f"SELECT factory_log_id, {json_text(_LOGS)} FROM factory_logs WHERE factory_log_id = ANY($1::bigint[])"  # noqa: S608


async def logs_by_id(connection: asyncpg.Connection, ids: Sequence[int]) -> dict[int, str]:
    """Return the logs with these ids, in one round trip. It uses asyncpg, because this is a hot path."""
    if is_distributed(connection):
        return dict(
            await connection.fetch(f"{_BY_ID} AND shard_key = ANY($2::bigint[])", ids, list(map(shard_key, ids)))
        )
    return dict(await connection.fetch(_BY_ID, ids))


def as_record(row: Row[Any]) -> Record:
    """Return a row as a record, with datetimes formatted as in responses."""
    # str(): orjson accepts only exact strings as keys, and the column names of a subquery are a subclass.
    return {str(name): format_timestamp(v) if isinstance(v, datetime) else v for name, v in row._mapping.items()}


class RecordText(NamedTuple):
    """The JSON of a log before it is stored, without the values that the commit sets.

    It is written before the commit, so that no log is stored whose response cannot be written.
    """

    head: bytes
    tail: bytes

    def stored(self, stored: Stored) -> bytes:
        """Return the JSON of the stored log, as a GET returns it."""
        factory_log_id, created_at = stored
        moment = format_timestamp(created_at).encode()
        return b'{"factory_log_id":%d,%b,"created_at":"%b",%b' % (factory_log_id, self.head, moment, self.tail)


def record_text(log: LogRow, created_by: str) -> RecordText:
    """Return the JSON of a log that is not stored yet."""
    head = orjson.dumps(
        {
            "app_name": log.app_name,
            "product_imei": log.product_imei,
            # A number of any length is valid JSON. If no such repair exists, the commit detects it.
            "repair_id": None if log.repair_id is None else orjson.Fragment(str(log.repair_id)),
            "timestamp": format_timestamp(log.timestamp),
            "tags": None if log.tags is None else orjson.Fragment(log.tags),
            "fields": None if log.fields is None else orjson.Fragment(log.fields),
        }
    )
    return RecordText(head[1:-1], _tail(created_by))


@lru_cache(1000)
def _tail(created_by: str) -> bytes:
    return b'"created_by":%b,"modified_at":null,"modified_by":null}' % orjson.dumps(created_by)
